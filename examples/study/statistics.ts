/** Means and confidence intervals over seeds. */

/**
 * A mean and its 95 % confidence interval, mean ± halfWidth. One value has no interval: its
 * halfWidth is infinite.
 */
export interface Interval {
  readonly mean: number;
  readonly halfWidth: number;
  readonly count: number;
}

const confidence = 0.95;

export function mean(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError('mean of no values');
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/**
 * Mean ± t SE, by Student's t for the number of values; t is 12.7 for two values, 2.78 for five and
 * 1.97 for 400 (the normal's is 1.96).
 */
export function interval(values: readonly number[]): Interval {
  const centre = mean(values);
  const count = values.length;
  if (count === 1) return { mean: centre, halfWidth: Infinity, count };
  const squares = values.reduce((sum, value) => sum + (value - centre) ** 2, 0);
  const standardError = Math.sqrt(squares / (count - 1) / count);
  return { mean: centre, halfWidth: studentQuantile(count - 1) * standardError, count };
}

/** Of a − b, seed by seed: what both owe to the seed is not in the interval. */
export function paired(a: readonly number[], b: readonly number[]): Interval {
  if (a.length !== b.length)
    throw new RangeError(`${a.length} values cannot be paired with ${b.length}`);
  return interval(a.map((value, i) => value - (b[i] as number)));
}

/** The t that |T| exceeds with probability 1 − confidence. */
export function studentQuantile(degrees: number): number {
  if (!Number.isInteger(degrees) || degrees < 1)
    throw new RangeError(`degrees of freedom must be a positive integer, got ${degrees}`);
  let [low, high] = [0, Math.PI / 2];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (withinProbability(middle, degrees) < confidence) low = middle;
    else high = middle;
  }
  return Math.sqrt(degrees) * Math.tan(low);
}

/**
 * P(|T| < t) with t = sqrt(degrees) tan(angle): Abramowitz and Stegun 26.7.3 and 26.7.4, finite
 * sums for whole degrees of freedom.
 */
function withinProbability(angle: number, degrees: number): number {
  const [sin, cos] = [Math.sin(angle), Math.cos(angle)];
  const odd = degrees % 2 === 1;
  let term = odd ? cos : 1;
  let sum = degrees === 1 ? 0 : term;
  for (let k = odd ? 3 : 2; k < degrees; k += 2) {
    term *= (cos * cos * (k - 1)) / k;
    sum += term;
  }
  return odd ? (2 / Math.PI) * (angle + sin * sum) : sin * sum;
}

/** The points that no other beats in both, ascending in cost: less cost, more gain. */
export function paretoFront<Point>(
  points: readonly Point[],
  cost: (point: Point) => number,
  gain: (point: Point) => number,
): Point[] {
  const ascending = [...points].sort((a, b) => cost(a) - cost(b) || gain(b) - gain(a));
  let best = -Infinity;
  return ascending.filter((point) => {
    if (gain(point) <= best) return false;
    best = gain(point);
    return true;
  });
}
