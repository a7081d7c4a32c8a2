// Numbers held to others, in a test.
import { expect } from 'vitest';
import { largestOf, Misses } from './bounds.js';

/** As many numbers, each to so much of the largest that is expected. */
export function expectNear(
  what: string,
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  relative = 1e-13,
): void {
  const bound = relative * largestOf(expected);
  const misses = new Misses();
  misses.each(what, actual, expected, () => bound);
  expect(misses.list).toEqual([]);
}
