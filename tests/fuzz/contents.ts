// The numbers of a planned call, in plain arrays: what the reference is given.
import type { HiddenBatch, LogitsBatch, LogpsBatch } from '../../ts/index.js';
import { randomBatch, randomLogps, type Dtype } from '../support/batches.js';
import { randomHidden } from '../support/hidden.js';
import { choose, encodeHalf, generator, integer, type Random } from '../support/numbers.js';
import type { CallPlan } from './plan.js';

export type DataArray = Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>;
type Mutable<T> = { -readonly [K in keyof T]: T[K] };
export type ExactLogits = Mutable<LogitsBatch<DataArray>>;
export type ExactHidden = Mutable<HiddenBatch<DataArray>>;
export type ExactBatch = ExactLogits | ExactHidden;

export const isHidden = (batch: object): batch is ExactHidden => 'hidden' in batch;

/** Whether the sequences of a call are pairs. */
export const isPaired = ({ door, config }: CallPlan): boolean =>
  door !== 'tokens' && config.method !== 'sft';

function filled(value: number, dtype: Dtype, length: number): DataArray {
  const values = new Float32Array(length).fill(value);
  return dtype === 'float32' ? values : encodeHalf(values, dtype);
}

/** `length` elements from each of the `begins`, one after the other. */
function gather<A extends DataArray | Int32Array>(
  array: A,
  begins: readonly number[],
  length: number,
): A {
  const result = new (array.constructor as new (length: number) => A)(begins.length * length);
  begins.forEach((begin, i) => {
    result.set(array.subarray(begin, begin + length), i * length);
  });
  return result;
}

/** Sequences of different lengths, one after the other. */
function pack(batch: ExactBatch, random: Random): void {
  const [sequences, tokens, vocab = 0] = batch.shape;
  const offsets = [0];
  const rows: number[] = [];
  for (let b = 0; b < sequences; b++) {
    const length = integer(random, 0, tokens);
    for (let t = 0; t < length; t++) rows.push(b * tokens + t);
    offsets.push(rows.length);
  }
  const take = <A extends DataArray | Int32Array>(array: A, width: number): A =>
    gather(
      array,
      rows.map((row) => row * width),
      width,
    );
  batch.labels = take(batch.labels, 1);
  if (batch.sftLabels) batch.sftLabels = take(batch.sftLabels, 1);
  if (isHidden(batch)) batch.hidden = take(batch.hidden, batch.weight.length / vocab);
  else batch.logits = take(batch.logits, vocab);
  batch.shape = [rows.length, vocab];
  batch.offsets = Int32Array.from(offsets);
}

/** Labels of the likelihood term: other words here and there, and prompts that are scored, too. */
function addSftLabels(batch: ExactBatch, random: Random): void {
  const vocab = batch.shape.at(-1) ?? 0;
  const { labels } = batch;
  const sftLabels = labels.map((label) =>
    random() < 0.5 ? label : random() < 0.3 ? -100 : integer(random, 0, vocab - 1),
  );
  batch.sftLabels = sftLabels;
  if (!isHidden(batch)) return;
  // The generator's ignored rows hold NaN.
  const { hidden, dtype = 'float32' } = batch;
  const size = batch.weight.length / vocab;
  sftLabels.forEach((label, row) => {
    if (label !== -100 && labels[row] === -100) hidden.set(filled(0.25, dtype, size), row * size);
  });
}

function addSpecials(data: DataArray, dtype: Dtype, random: Random): void {
  const specials = [NaN, Infinity, -Infinity, 3.4e38, -3.4e38, 1e-40, -0];
  for (let i = 0; i < data.length; i++)
    if (random() < 0.05) data.set(filled(choose(random, specials), dtype, 1), i);
}

/** Rows further apart, NaN between them; the last one with its padding or `cut`. */
function spread(batch: ExactLogits, padding: number, cut: boolean): void {
  const vocab = batch.shape.at(-1) ?? 0;
  const rows = batch.labels.length;
  const stride = vocab + padding;
  const length = rows === 0 ? 0 : cut ? rows * stride - padding : rows * stride;
  const logits = filled(NaN, batch.dtype ?? 'float32', length);
  for (let row = 0; row < rows; row++)
    logits.set(batch.logits.subarray(row * vocab, (row + 1) * vocab), row * stride);
  batch.logits = logits;
  batch.rowStride = stride;
}

/** The batch of a call from rows. */
export function batchOf(plan: CallPlan): ExactBatch {
  const { rows, run } = plan;
  const { seed, tokens, vocab, dtype, scale, ignored } = rows;
  const random = generator(seed + 1);
  const sequences = rows.units * (isPaired(plan) ? 2 : 1);
  const spec = { seed, sequences, tokens, vocab, dtype, scale, ignored };
  const fromHidden = plan.door === 'hidden' || (plan.door === 'tokens' && plan.fromHidden);
  const batch: ExactBatch = fromHidden
    ? { ...randomHidden({ ...spec, size: run.hiddenSize, bias: run.bias }) }
    : { ...randomBatch(spec) };
  if (rows.emptied) {
    const b = integer(random, 0, sequences - 1);
    batch.labels.fill(-100, b * tokens, (b + 1) * tokens);
  }
  if (run.sftLabels) addSftLabels(batch, random);
  if (rows.packed) pack(batch, random);
  const data = isHidden(batch) ? [batch.hidden, batch.weight] : [batch.logits];
  if (rows.special) for (const one of data) addSpecials(one, dtype, random);
  if (!isHidden(batch) && run.padding > 0) spread(batch, run.padding, run.cut);
  if (isHidden(batch) && run.saysHiddenSize) batch.hiddenSize = run.hiddenSize;
  const { ignoreIndex } = rows;
  if (ignoreIndex !== undefined) {
    const renamed = (label: number): number => (label === -100 ? ignoreIndex : label);
    batch.ignoreIndex = ignoreIndex;
    batch.labels = batch.labels.map(renamed);
    if (batch.sftLabels) batch.sftLabels = batch.sftLabels.map(renamed);
  }
  if (rows.reference === 'float32' && batch.reference)
    batch.reference = Float32Array.from(batch.reference);
  return batch;
}

/** The batch of a call from log-probabilities that a trainer has. */
export function logpsOf(plan: CallPlan): LogpsBatch {
  const { seed, units, emptied, reference } = plan.rows;
  const batch = randomLogps(generator(seed), units);
  const half = <A extends Float64Array | Int32Array>(array: A): A =>
    (isPaired(plan) ? array : array.subarray(0, units)).slice() as A;
  const [logps, counts] = [half(batch.logps), half(batch.counts)];
  if (emptied) {
    const b = seed % counts.length;
    [logps[b], counts[b]] = [0, 0];
  }
  const known = half(batch.reference);
  const stored = (array: Float64Array): Float64Array | Float32Array =>
    reference === 'float32' ? Float32Array.from(array) : array;
  return { logps: stored(logps), counts, reference: stored(known) };
}
