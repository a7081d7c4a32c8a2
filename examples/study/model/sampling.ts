/** Sampling with the keys and values of earlier rows kept, so that a word costs one row. */
import * as tf from '@tensorflow/tfjs-core';
import type { Random } from '../records/random.js';
import { summaryEnd, summaryStart } from '../records/vocabulary.js';
import { attend, type Span } from './attention.js';
import { longestSummary, pack } from './batch.js';
import { longestRecord } from '../records/record.js';
import { logitsOf, matricesFrom, tidyScope, type Attend, type Matrices } from './transformer.js';
import type { ModelShape } from './weights.js';

/**
 * Queries, keys and values of all rows so far, per layer: those of the prompts, then room for each
 * summary.
 */
class Cache {
  readonly #layers: readonly Float32Array[];
  readonly #shape: ModelShape;

  constructor(shape: ModelShape, rows: number) {
    this.#shape = shape;
    this.#layers = Array.from(
      { length: shape.layers },
      () => new Float32Array(rows * 3 * shape.width),
    );
  }

  /** Keeps what these rows bring, and attends from the rows of the spans that are not context. */
  attend(rows: Int32Array, spans: readonly Span[]): Attend {
    const { width } = this.#shape;
    return (fresh, layer) => {
      const qkv = this.#layers[layer] as Float32Array;
      const values = fresh.dataSync<'float32'>();
      rows.forEach((row, i) => {
        qkv.set(values.subarray(i * 3 * width, (i + 1) * 3 * width), row * 3 * width);
      });
      const attended = attend(qkv, spans, this.#shape);
      const out = new Float32Array(rows.length * width);
      rows.forEach((row, i) => {
        out.set(attended.subarray(row * width, (row + 1) * width), i * width);
      });
      return tf.tensor2d(out, [rows.length, width]);
    };
  }
}

/** A word by the softmax of `logits` from `start` to `end`, temperature 1. */
export function drawToken(
  logits: Float32Array,
  start: number,
  end: number,
  random: Random,
): number {
  let largest = -Infinity;
  for (let i = start; i < end; i++) largest = Math.max(largest, logits[i] as number);
  let sum = 0;
  for (let i = start; i < end; i++) sum += Math.exp((logits[i] as number) - largest);
  let left = random() * sum;
  for (let i = start; i < end; i++) {
    left -= Math.exp((logits[i] as number) - largest);
    if (left < 0) return i - start;
  }
  return end - start - 1;
}

/**
 * A summary of each prompt, drawn from the model as it is: temperature 1, from all words. Ends are
 * included; a summary that does not end is cut at `longestSummary` words.
 */
export function sampleSummaries(
  weights: Float32Array,
  shape: ModelShape,
  prompts: readonly (readonly number[])[],
  random: Random,
): number[][] {
  const empty = {
    inputIds: new Int32Array(0),
    labels: new Int32Array(0),
    offsets: new Int32Array(1),
  };
  const { inputIds, positions, prompts: spans, promptRows } = pack(prompts, empty);
  const cache = new Cache(shape, promptRows + prompts.length * longestSummary);
  // A summary's rows are known before its words are.
  const visible = spans.map(({ rows }, i) => {
    const own = Array.from(
      { length: longestSummary },
      (_, t) => promptRows + i * longestSummary + t,
    );
    return Int32Array.from([...rows, ...own]);
  });
  return tidyScope(() => {
    const matrices = matricesFrom(shape, weights);
    readPrompts(matrices, shape, { inputIds, positions, spans, cache });
    const summaries = prompts.map((): number[] => []);
    let open = prompts.map((_, i) => i);
    for (let t = 0; t < longestSummary && open.length > 0; t++) {
      const rows = Int32Array.from(open, (i) => promptRows + i * longestSummary + t);
      const last = open.map((i) => {
        const context = (prompts[i] as readonly number[]).length + t;
        return { rows: (visible[i] as Int32Array).subarray(0, context + 1), context };
      });
      const attendLast = cache.attend(rows, last);
      const given = {
        inputIds: Int32Array.from(open, (i) => summaries[i]?.at(-1) ?? summaryStart),
        positions: new Int32Array(open.length).fill(longestRecord + t),
        scoredFrom: 0,
      };
      const logits = tidyScope(() =>
        logitsOf(matrices, shape, given, attendLast).dataSync<'float32'>(),
      );
      const words = logits.length / open.length;
      open.forEach((i, n) =>
        summaries[i]?.push(drawToken(logits, n * words, (n + 1) * words, random)),
      );
      open = open.filter((i) => summaries[i]?.at(-1) !== summaryEnd);
    }
    return summaries;
  });
}

function readPrompts(
  matrices: Matrices,
  shape: ModelShape,
  prompts: {
    readonly inputIds: Int32Array;
    readonly positions: Int32Array;
    readonly spans: readonly Span[];
    readonly cache: Cache;
  },
): void {
  const { inputIds, positions, spans, cache } = prompts;
  const attendAll = cache.attend(Int32Array.from(inputIds.keys()), spans);
  // The logits of the prompts' rows are not wanted: of the last layer, only keys and values are.
  tf.tidy(() =>
    logitsOf(matrices, shape, { inputIds, positions, scoredFrom: inputIds.length - 1 }, attendAll),
  );
}
