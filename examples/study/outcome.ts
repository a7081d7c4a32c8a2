/** One rule for every claim that something is greater, and one way to write what was found. */
import type { Interval } from './statistics.js';
import type { Outcome } from './study.js';

/**
 * Of a claim that all of these are above the limit: by their whole intervals, or by none of one.
 */
export function outcomeAbove(found: readonly Interval[], limit = 0): Outcome {
  if (found.every(({ mean, halfWidth }) => mean - halfWidth > limit)) return 'reproduced';
  return found.some(({ mean, halfWidth }) => mean + halfWidth <= limit)
    ? 'not reproduced'
    : 'unclear';
}

/** 0.812 ± 0.013 */
export function plusMinus({ mean, halfWidth, count }: Interval, digits = 3): string {
  return count === 1
    ? `${mean.toFixed(digits)} (one seed)`
    : `${mean.toFixed(digits)} ± ${halfWidth.toFixed(digits)}`;
}

/** +0.812 ± 0.013 */
export function signed(found: Interval, digits = 3): string {
  return found.mean < 0 ? plusMinus(found, digits) : `+${plusMinus(found, digits)}`;
}

/** +0.812 ± 0.013 over 5 seeds */
export function overSeeds(found: Interval, digits = 3): string {
  return found.count === 1
    ? signed(found, digits)
    : `${signed(found, digits)} over ${found.count} seeds`;
}
