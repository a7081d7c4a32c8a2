/** How far the axes of curves go, unless they are told. */
import type { Axis, Series } from './curves.js';

/**
 * The share of the range below 0 where the middle of two log-probabilities lies, so that both stay
 * at or below 0.
 */
export const middleOfRange = 0.55;
/** Log-odds are infinite at 0. */
const nearestToZero = 0.05;

interface Reach {
  readonly width: number;
  /** Whether the loss grows exponentially beyond it. */
  readonly explodes: boolean;
}

/**
 * How far from the middle an axis goes so that it shows where an objective bends: to u = +-5 where
 * the scores are multiplied by beta, to twice the target where beta sets one, and never to log-odds
 * of hardly any probability.
 */
function reachOf({ info, objective }: Series): Reach {
  const settings = objective as unknown as Readonly<Record<string, unknown>>;
  const beta = objective.beta ?? 1;
  if (info.formula.includes('1 / (2 beta)')) return { width: 1 / beta, explodes: false };
  if (info.score === 'log-odds') return { width: Math.min(5 / beta, 5), explodes: false };
  // Scores (1 - exp(-alpha r)) / alpha, and -exp(-r), grow exponentially.
  const { divergence, alpha } = settings;
  const ofLogProb = info.score === 'alpha log-prob';
  const exponent =
    divergence === 'forward_kl'
      ? 1
      : divergence === 'alpha' || ofLogProb
        ? Math.abs(alpha as number)
        : 0;
  if (exponent === 0) return { width: 5 / beta, explodes: false };
  const shift = ofLogProb ? middleOfRange : 0;
  const difference = (h: number): number =>
    ((2 * Math.sinh((exponent * h) / 2)) / exponent) * Math.exp(shift * exponent * h);
  let [low, high] = [0, 5 / beta];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (difference(middle) < 5 / beta) low = middle;
    else high = middle;
  }
  return { width: high, explodes: true };
}

/** The nearest of 1, 2 and 5 times a power of ten. */
function round(value: number): number {
  const power = Math.floor(Math.log10(value));
  const mantissa = value / 10 ** power;
  const digit =
    mantissa < Math.SQRT2 ? 1 : mantissa < Math.sqrt(10) ? 2 : mantissa < Math.sqrt(50) ? 5 : 10;
  return Number(`${digit}e${power}`);
}

/**
 * The geometric mean of the ranges that the objectives would have alone, within those that explode.
 */
export function rangeOf(over: Axis, series: readonly Series[]): readonly [number, number] {
  const reaches = series.map(reachOf);
  const logs = reaches.map(({ width }) => Math.log(width));
  const bounds = reaches.filter(({ explodes }) => explodes).map(({ width }) => width);
  // A beta next to 0 has no finite reach.
  const width = round(
    Math.min(Math.exp(logs.reduce((sum, log) => sum + log, 0) / logs.length), ...bounds, 1e300),
  );
  if (over === 'margin' || series.some(({ usesReference }) => usesReference))
    return [-width, width];
  return [-width, -nearestToZero * width];
}
