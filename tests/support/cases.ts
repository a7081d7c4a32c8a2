// A reference case as a call, its layouts, and the checks of what came out of one.
import { dirAlignLoss } from '../../ts/index.js';
import type { Logits, LogitsBatch, LossResult, Objective } from '../../ts/index.js';
import type { HostBatch } from './calls.js';
import type { Elements } from './device.js';
import { gradientBound, halfBound, logpBound, lossBound, Misses, rowSumBound } from './bounds.js';
import { at, sameBits, type HalfDtype } from './numbers.js';
import type { VectorCase } from './vectors.js';

export const build = (c: VectorCase): Objective => dirAlignLoss(c.call as never);
export const isSft = (c: VectorCase): boolean => c.call.method === 'sft';
/** How many sequences a case takes: `sft` has no rejected ones. */
export const sequences = (c: VectorCase): number => (isSft(c) ? 1 : 2) * c.input.B;
export const elements = (c: VectorCase): number => sequences(c) * c.input.T * c.input.V;

export function makeBatch(c: VectorCase): LogitsBatch<Float32Array<ArrayBuffer>> {
  const { input } = c;
  const rows = sequences(c) * input.T;
  return {
    logits: input.logits.slice(0, elements(c)),
    shape: [sequences(c), input.T, input.V],
    labels: input.labels.slice(0, rows),
    reference: input.reference.slice(0, sequences(c)),
    ...(input.nllLabels && { sftLabels: input.nllLabels }),
  };
}

/** What the scale of every row is expected to be. */
export function expectedScales(c: VectorCase): number[] {
  const { T, B, labels } = c.input;
  return Array.from({ length: sequences(c) * T }, (_, row) => {
    const b = Math.floor(row / T);
    return at(labels, row) === -100 ? 0 : (c.dseq?.[b] ?? 0) + (b < B ? c.dnll : 0);
  });
}

/**
 * A sequence's coefficient without what the likelihood term adds to it; what is expected where its
 * labels are the same.
 */
export function coefficient(c: VectorCase, b: number): number {
  const dseq = c.dseq?.[b] ?? 0;
  if (isSft(c)) return dseq + c.dnll;
  const { sftWeight = 0, sftReduction = 'sequence', normalize } = c.call;
  if (b >= c.input.B || sftReduction !== 'sequence') return dseq;
  return (
    dseq + (sftWeight as number) / c.input.B / (normalize === true ? at(c.input.counts, b) : 1)
  );
}

/** The expected gradient, and |coefficient| * probability of every element. */
export function expectedGradient(c: VectorCase): {
  readonly gradient: Float64Array;
  readonly scale: Float64Array;
  readonly largest: number;
} {
  const { residual, nllResidual, T, V, B, nllLabels } = c.input;
  const gradient = new Float64Array(elements(c));
  const scale = new Float64Array(elements(c));
  let largest = 0;
  for (let i = 0; i < gradient.length; i++) {
    const b = Math.floor(i / (T * V));
    const own = c.dseq?.[b] ?? 0;
    const likelihood = b < B ? c.dnll : 0;
    const alignmentPart = own * at(residual, i);
    const likelihoodPart = likelihood * at(nllResidual, i);
    gradient[i] = alignmentPart + likelihoodPart;
    scale[i] = nllLabels
      ? Math.abs(alignmentPart) + Math.abs(likelihoodPart)
      : Math.abs(at(gradient, i));
    largest = Math.max(largest, Math.abs(at(gradient, i)));
  }
  return { gradient: c.gradient?.subarray(0, gradient.length) ?? gradient, scale, largest };
}

/** Everything of a result but its gradient. */
export function checkNumbers(
  misses: Misses,
  c: VectorCase,
  result: LossResult<Logits>,
  backend: 'cpu' | 'cuda' = 'cpu',
): void {
  const { input, id, call } = c;
  const n = sequences(c);
  const beta = isSft(c) ? 1 : (call.beta as number);
  const divisor = (b: number): number =>
    call.normalize === true ? Math.max(1, at(input.counts, b)) : 1;
  misses.near(`${id} loss`, result.loss, c.loss, lossBound(c.loss));
  if (c.losses) misses.each(`${id} losses`, result.losses, c.losses, lossBound);
  misses.each(`${id} logps`, result.logps, input.logps.subarray(0, n), (x, b) =>
    logpBound(x, at(input.counts, b)),
  );
  misses.require(sameBits(result.counts, input.counts.subarray(0, n)), `${id} counts`);
  // The rewards of `sft` have no temperature, whatever the case was named after.
  const rewards = isSft(c)
    ? Array.from({ length: n }, (_, b) => at(input.logps, b) / divisor(b))
    : c.rewards;
  const rewardBound = (_: number, b: number): number =>
    (beta * logpBound(at(input.logps, b), at(input.counts, b))) / divisor(b);
  if (rewards) misses.each(`${id} rewards`, result.rewards, rewards, rewardBound);
  if (c.dseq) {
    const coefficients = Array.from({ length: n }, (_, b) => coefficient(c, b));
    const size = (b: number): number =>
      Math.max(Math.abs(c.dseq?.[b] ?? 0), Math.abs(at(coefficients, b)));
    misses.each(`${id} coefficients`, result.coefficients, coefficients, (_, b) =>
      gradientBound(size(b), 0),
    );
  }
  misses.require(result.metrics.nonfinite === 0, `${id} metrics.nonfinite`);
  misses.require(result.metrics.empty_sequences === 0, `${id} metrics.empty_sequences`);
  misses.require(result.backend === backend, `${id} backend`);
}

/**
 * The label's entry, the others, the sum of a row, and rows that no term scores, each by itself.
 */
export function checkGradient(
  misses: Misses,
  c: VectorCase,
  gradient: ArrayLike<number>,
  dtype?: HalfDtype,
): void {
  const { V, labels, nllLabels, digest } = c.input;
  const expected = expectedGradient(c);
  misses.require(gradient.length === expected.gradient.length, `${c.id}: length of the gradient`);
  for (let row = 0; row * V < gradient.length; row++) {
    const label = at(labels, row);
    const nllLabel = nllLabels ? at(nllLabels, row) : label;
    const ignored = label === -100 && nllLabel === -100;
    let [sum, size] = [0, 0];
    for (let v = 0; v < V; v++) {
      const i = row * V + v;
      const value = at(gradient, i);
      const want = at(expected.gradient, i);
      if (ignored) {
        misses.require(
          Object.is(value, 0),
          () => `${c.id}: ignored row ${String(row)} holds ${String(value)}`,
        );
        continue;
      }
      const kind = v === label || v === nllLabel ? 'label' : 'other';
      const bound = dtype
        ? halfBound(want, dtype)
        : gradientBound(at(expected.scale, i), expected.largest);
      misses.near(() => `${c.id} ${kind} entry [${String(row)}, ${String(v)}]`, value, want, bound);
      sum += value;
      size += Math.abs(value);
    }
    if (!dtype)
      misses.near(
        `${c.id}: sum of row ${String(row)}`,
        sum,
        0,
        rowSumBound(size, 1e-9 * expected.largest + V * 2 ** -149),
      );
  }
  if (!c.digest || !digest || dtype) return;
  const { val, row_l1, row_l2, abs_max } = c.digest;
  digest.idx.forEach((i, k) => {
    const bound = gradientBound(at(expected.scale, i), abs_max);
    misses.near(`${c.id} digest [${String(i)}]`, gradient[i] ?? 0, at(val, k), bound);
  });
  digest.rows.forEach((row, k) => {
    let [l1, squares] = [0, 0];
    for (let i = row * V; i < (row + 1) * V; i++) {
      l1 += Math.abs(gradient[i] ?? 0);
      squares += (gradient[i] ?? 0) ** 2;
    }
    misses.near(
      `${c.id} row_l1 [${String(row)}]`,
      l1,
      at(row_l1, k),
      gradientBound(at(row_l1, k), abs_max),
    );
    misses.near(
      `${c.id} row_l2 [${String(row)}]`,
      Math.sqrt(squares),
      at(row_l2, k),
      gradientBound(at(row_l2, k), abs_max),
    );
  });
}

/** rowScale * gradLogits, as the consumer of a factored gradient forms it. */
export function unfactored(
  result: LossResult<Logits>,
  gradient: ArrayLike<number>,
  V: number,
): Float64Array {
  return Float64Array.from(
    { length: gradient.length },
    (_, i) => at(result.rowScale ?? [], Math.floor(i / V)) * at(gradient, i),
  );
}

/** Cases with numbers to reach; the robustness ones have a block of their own. */
export const exact = (c: VectorCase): boolean => !c.robustnessOnly;
export const oneSetOfLabels = (c: VectorCase): boolean => c.input.nllLabels === undefined;

/**
 * The metrics, without those that a dense gradient has to itself where the other result has none.
 */
function metricsOf(result: LossResult<Logits>, other: LossResult<Logits>): string {
  const [own, its] = [result, other].map(
    ({ gradLogits, rowScale }) => gradLogits !== undefined && rowScale === undefined,
  );
  const { underflow, ...metrics } = result.metrics;
  return JSON.stringify(own === its ? { underflow, ...metrics } : metrics);
}

export function sameResult(
  misses: Misses,
  what: string,
  actual: LossResult<Logits>,
  expected: LossResult<Logits>,
): void {
  for (const key of ['losses', 'logps', 'counts', 'rewards', 'coefficients'] as const) {
    misses.require(sameBits(actual[key], expected[key]), `${what}: ${key}`);
  }
  if (actual.rowScale && expected.rowScale)
    misses.require(sameBits(actual.rowScale, expected.rowScale), `${what}: rowScale`);
  misses.require(Object.is(actual.loss, expected.loss), `${what}: loss`);
  misses.require(metricsOf(actual, expected) === metricsOf(expected, actual), `${what}: metrics`);
}

/**
 * The same rows without those that no term scores: sequences of different lengths, one after the
 * other.
 */
export function packed(batch: HostBatch): {
  readonly batch: HostBatch;
  readonly rows: readonly number[];
} {
  const { shape, labels, sftLabels } = batch;
  const [count, tokens = 0, vocab = 0] = shape;
  const offsets = [0];
  const rows: number[] = [];
  for (let b = 0; b < count; b++) {
    for (let row = b * tokens; row < (b + 1) * tokens; row++)
      if (at(labels, row) !== -100 || (sftLabels?.[row] ?? -100) !== -100) rows.push(row);
    offsets.push(rows.length);
  }
  const logits = empty(batch.logits, rows.length * vocab);
  rows.forEach((row, i) => {
    logits.set(batch.logits.subarray(row * vocab, (row + 1) * vocab), i * vocab);
  });
  const of = (all: ArrayLike<number>): Int32Array => Int32Array.from(rows, (row) => at(all, row));
  return {
    batch: {
      ...batch,
      ...{ logits, shape: [rows.length, vocab], offsets: Int32Array.from(offsets) },
      ...{ labels: of(labels), ...(sftLabels && { sftLabels: of(sftLabels) }) },
    },
    rows,
  };
}

const empty = (like: Elements, length: number): Elements =>
  new (like.constructor as new (length: number) => Elements)(length);

/** Rows of an array set one after another into places of one of `length`, 0 elsewhere. */
export function unpacked(
  array: Elements,
  rows: readonly number[],
  length: number,
  vocab: number,
): Elements {
  const all = empty(array, length);
  rows.forEach((row, i) => {
    all.set(array.subarray(i * vocab, (i + 1) * vocab), row * vocab);
  });
  return all;
}

/**
 * The rows of an array, `from` elements apart, set `to` elements apart into one filled with
 * `filler`.
 */
export function restride(
  array: Elements,
  vocab: number,
  from: number,
  to: number,
  filler = 0,
): Elements {
  const rows = Math.ceil(array.length / from);
  const result = empty(array, rows * to).fill(filler);
  for (let row = 0; row < rows; row++)
    result.set(array.subarray(row * from, row * from + vocab), row * to);
  return result;
}
