/** Intervals of numbers, as the contract has them. */
import { readAll } from './given.js';

/** @returns what is wrong with a value that is no finite number of the interval */
export function outside(value: unknown, info: object): string | undefined {
  const { min, above, max, below } = readAll(info, []) as Readonly<
    Record<string, number | undefined>
  >;
  const low =
    min !== undefined ? `at least ${min}` : above !== undefined ? `greater than ${above}` : '';
  const high =
    max !== undefined ? `at most ${max}` : below !== undefined ? `less than ${below}` : '';
  const within =
    typeof value === 'number' &&
    Number.isFinite(value) &&
    !(value < (min ?? -Infinity) || value <= (above ?? -Infinity)) &&
    !(value > (max ?? Infinity) || value >= (below ?? Infinity));
  if (within) return undefined;
  const ends = [low, high].filter(Boolean).join(' and ');
  return `is not a finite number${ends && ` ${ends}`}`;
}
