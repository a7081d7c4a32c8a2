// Batches of any units that are cut into the parts of ranks.
import { expect } from 'vitest';
import type { ReferenceMethod } from '../../ts/verification/reference.js';
import { allFields, familyLogits, unitsBetween } from './family-batches.js';
import { at } from './numbers.js';

/** The batch of float32 logits of so many units, its parts, and the sequences that they are. */
export function partsOf(
  method: ReferenceMethod,
  ends: readonly number[],
  seed = 1,
  names = allFields(method).filter((name) => name !== 'denominator'),
) {
  const given = familyLogits(seed, method, at(ends, ends.length - 1), names);
  const batch = { ...given, logits: Float32Array.from(given.logits) };
  const sequences = at(batch.shape, 0);
  const parts = ends.slice(0, -1).map((from, r) => {
    const between = [from, at(ends, r + 1)] as const;
    const { part, indices } = unitsBetween(batch as never, method, sequences, between);
    return { part: part, indices };
  });
  return { batch, parts };
}

/** Rows of whole sequences, in another order. */
export const rowsOf = (
  array: Float32Array,
  block: number,
  indices: readonly number[],
): Float32Array<ArrayBuffer> =>
  Float32Array.from(indices.flatMap((i) => [...array.subarray(i * block, (i + 1) * block)]));

/**
 * A rank's rows of the gradient, which are rows `own` of every sequence, against those of one
 * process; `bound` is relative to each entry.
 */
export function expectOwnRows(
  gradient: ArrayLike<number>,
  one: ArrayLike<number>,
  own: readonly number[],
  { tokens, vocab }: { readonly tokens: number; readonly vocab: number },
  bound: number,
): void {
  Array.from(gradient).forEach((g, i) => {
    const [s, t] = [Math.floor(i / vocab / own.length), Math.floor(i / vocab) % own.length];
    const x = at(one, (s * tokens + at(own, t)) * vocab + (i % vocab));
    expect(Math.abs(g - x)).toBeLessThanOrEqual(bound * Math.abs(x));
  });
}
