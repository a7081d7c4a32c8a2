import { uniformNumbers } from '../random.js';

/** Uniform numbers in [0, 1). */
export type Random = () => number;

/**
 * What a seed's numbers are drawn for; each has a stream of its own, so that a change of one leaves
 * the others alone.
 */
const purposes = [
  'weights',
  'careless summaries',
  'demonstrations',
  'preferences',
  'held-out records',
  'sampling',
  'sampling of the opponent',
  'order of single examples',
] as const;

export function randomFor(seed: number, purpose: (typeof purposes)[number]): Random {
  return uniformNumbers(seed, 1 + purposes.indexOf(purpose));
}

/** A whole number from low to high, both included. */
export function integer(random: Random, low: number, high: number): number {
  return low + Math.floor(random() * (high - low + 1));
}

export function shuffled<T>(random: Random, values: readonly T[]): T[] {
  const result = [...values];
  for (let i = result.length - 1; i > 0; i--) {
    const j = integer(random, 0, i);
    [result[i], result[j]] = [result[j] as T, result[i] as T];
  }
  return result;
}

/** A normal deviate (Box-Muller). */
export function normal(random: Random): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}
