/** Gradients from values of a function alone. */
import { at } from './numbers.js';

/** A gradient by differences of the function: what {@link finiteDifference} gives. */
export interface FiniteDifference {
  /** df/dx_i. */
  readonly gradient: Float64Array;
  /** An estimate of the error of each. */
  readonly error: Float64Array;
}

interface Estimate {
  readonly slope: number;
  readonly error: number;
}

/**
 * f'(0) from values of f alone. Central differences D(h) = (f(h) - f(-h)) / (2 h) have errors in
 * h^2, h^4, ...; halving h and eliminating one power after the other,
 *
 *   D[j][k] = D[j][k-1] + (D[j][k-1] - D[j-1][k-1]) / (4^k - 1),
 *
 * leaves them far below those of any single step (Richardson). One-sided differences (f(0) - f(-h))
 * / h have errors in all powers of h: 2^k in place of 4^k. The entry of the table is taken that
 * differs least from those it was made of, but no difference is believed beyond what the rounding
 * of f leaves of it: where f does not move at all, zeros agree perfectly.
 */
function richardson(
  f: (step: number) => number,
  largest: number,
  central: boolean,
  levels: number,
): Estimate {
  let best: Estimate = { slope: NaN, error: Infinity };
  let previous: number[] = [];
  for (let level = 0, h = largest; level < levels; level++, h /= 2) {
    const [high, low, width] = central ? [f(h), f(-h), 2 * h] : [f(0), f(-h), h];
    const rounding = (Number.EPSILON * Math.max(Math.abs(high), Math.abs(low))) / width;
    const current = [(high - low) / width];
    for (let k = 1; k <= level; k++) {
      const [fine, coarse] = [at(current, k - 1), at(previous, k - 1)];
      const refined = fine + (fine - coarse) / ((central ? 4 : 2) ** k - 1);
      current.push(refined);
      const error = Math.max(Math.abs(refined - fine), Math.abs(refined - coarse), rounding);
      if (error <= best.error) best = { slope: refined, error };
    }
    previous = current;
  }
  return best;
}

/**
 * The gradient of f at x by differences of f. No coordinate moves beyond `bound`, by default 0:
 * these are log-probabilities. One that is near it has two scales, its distance to the bound
 * (log-odds change over it) and its own size (log-ratios do), so it is differenced twice, within
 * the distance and backwards, and the better estimate counts.
 */
export function finiteDifference(
  f: (x: Float64Array) => number,
  x: ArrayLike<number>,
  { bound = 0, levels = 12 }: { bound?: number; levels?: number } = {},
): FiniteDifference {
  const gradient = new Float64Array(x.length);
  const error = new Float64Array(x.length);
  for (let i = 0; i < x.length; i++) {
    const value = at(x, i);
    const along = (step: number): number => {
      const point = Float64Array.from(x);
      point[i] = value + step;
      return f(point);
    };
    const room = bound - value;
    // Powers of two: a step and its halves are then exact beside all but the tiniest values.
    const power = (size: number): number => 2 ** Math.floor(Math.log2(size));
    const natural = power(Math.max(1, Math.abs(value)) / 4);
    const central =
      room > 0 ? richardson(along, Math.min(natural, power(room / 2)), true, levels) : undefined;
    const backward = room < 2 * natural ? richardson(along, natural, false, levels) : undefined;
    const estimates = [central, backward].filter((estimate) => estimate !== undefined);
    const best = estimates.reduce((a, b) => (b.error < a.error ? b : a));
    gradient[i] = best.slope;
    error[i] = best.error;
  }
  return { gradient, error };
}
