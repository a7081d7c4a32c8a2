// What the suites of the trainers' adapters share: batches small enough for a library in
// JavaScript, and something to learn.
import { randomBatch } from './batches.js';
import { integer, type Random } from './numbers.js';

export const [S, T, V] = [4, 5, 7] as const;

export interface Given {
  readonly logits: Float32Array<ArrayBuffer>;
  readonly batch: { readonly labels: Int32Array<ArrayBuffer>; readonly reference: Float64Array };
}
export function given(seed: number): Given {
  const { logits, labels, reference } = randomBatch({ seed, sequences: S, tokens: T, vocab: V });
  return {
    logits: logits as Float32Array<ArrayBuffer>,
    batch: { labels: labels as Int32Array<ArrayBuffer>, reference: reference as Float64Array },
  };
}

export const largest = (values: ArrayLike<number>): number =>
  Array.from(values).reduce((x, y) => Math.max(x, Math.abs(y)), 0);

/**
 * Sequences of words, chosen first: the chosen go up through the vocabulary, the rejected down. Two
 * words are prompt.
 */
export function pairsOfWords(
  random: Random,
  pairs: number,
): { tokens: number[][]; labels: Int32Array } {
  const starts = Array.from({ length: pairs }, () => integer(random, 0, V - 1));
  const walk = (start: number, by: number): number[] =>
    Array.from(
      { length: T + 1 },
      (_, t) => (((start + t + (t >= 2 ? (by - 1) * (t - 1) : 0)) % V) + V) % V,
    );
  const words = [1, -1].flatMap((by) => starts.map((start) => walk(start, by)));
  return {
    tokens: words.map((w) => w.slice(0, T)),
    labels: Int32Array.from(
      words.flatMap((w) => w.slice(1).map((word, t) => (t < 1 ? -100 : word))),
    ),
  };
}
