// The numbers of a planned call, in plain arrays: what the reference is given.
import { contract } from '../../ts/contract.generated.js';
import type { HiddenBatch, LogitsBatch, LogpsBatch } from '../../ts/index.js';
import { randomBatch, randomLogps, type Dtype } from '../support/batches.js';
import { randomHidden } from '../support/hidden.js';
import { choose, encodeHalf, generator, integer, type Random } from '../support/numbers.js';
import { alignmentsOf, averagesTokens } from '../../ts/verification/objectives.js';
import { arityOf, lossOf, type CallPlan } from './plan.js';

export type DataArray = Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>;
type Mutable<T> = { -readonly [K in keyof T]: T[K] };
export type ExactLogits = Mutable<LogitsBatch<DataArray>>;
export type ExactHidden = Mutable<HiddenBatch<DataArray>>;
export type ExactBatch = ExactLogits | ExactHidden;

export const isHidden = (batch: object): batch is ExactHidden => 'hidden' in batch;

/** Offsets of groups of one to three candidates, where units are groups. */
function groupsOf(plan: CallPlan): Int32Array | undefined {
  if (arityOf(plan) !== 'group') return undefined;
  const random = generator(plan.rows.seed + 2);
  const offsets = [0];
  for (let g = 0; g < plan.rows.units; g++) offsets.push((offsets[g] ?? 0) + integer(random, 1, 3));
  return Int32Array.from(offsets);
}
/** How many sequences the units of a call are. */
function sequencesOf(plan: CallPlan): number {
  const { units } = plan.rows;
  return arityOf(plan) === 'pair' ? 2 * units : (groupsOf(plan)?.at(-1) ?? units);
}

type Values = Float64Array | Float32Array | number[];
const stored = (values: Float64Array, arrays: 'float64' | 'float32' | 'plain'): Values =>
  arrays === 'float64'
    ? values
    : arrays === 'float32'
      ? Float32Array.from(values)
      : Array.from(values);

/** Fields that the loss needs, and of those that it may have the ones that the plan names. */
function fieldsOf(plan: CallPlan): Record<string, unknown> {
  if (plan.door === 'tokens' || plan.door === 'backward') return {};
  const random = generator(plan.rows.seed + 3);
  const { names, arrays } = plan.fields;
  const loss = lossOf(plan);
  const infos = alignmentsOf(loss);
  const groups = groupsOf(plan);
  const lengths = { unit: plan.rows.units, sequence: sequencesOf(plan), row: 0, batch: 1 };
  const result: Record<string, unknown> = groups ? { groups } : {};
  for (const { name, per, kind } of contract.fields) {
    const takers = infos.flatMap((info) => info.fields[name] ?? []);
    const isTaken = takers.length >= (name === 'weights' ? infos.length : 1) && per !== 'row';
    const isWanted = names.includes(name) || takers.some(({ needed }) => needed);
    if (!isTaken || !isWanted || (name === 'sftDenominator' && !averagesTokens(loss))) continue;
    const values = Float64Array.from({ length: lengths[per] }, () => 0.55 + 0.4 * random());
    if (name === 'weights' && random() < 0.3) values[0] = 0;
    if (['margins', 'targets', 'rewards'].includes(name))
      values.forEach((x, i) => (values[i] = 4 * x - 3));
    if (name === 'kl' && random() < 0.5)
      result.kl = {
        logps: stored(
          values.map((x) => -x),
          arrays,
        ),
        reference: [-1],
      };
    else if (per === 'batch') result[name] = (values[0] ?? 1) * 4;
    else if (kind === 'flag') {
      const flags = Uint8Array.from(values, (x) => Number(x < 0.75));
      result[name] = arrays === 'plain' ? Array.from(flags, Boolean) : flags;
    } else if (kind === 'rank') {
      // Neighbours change places.
      const ranks = Float64Array.from(values, (_, i) => (i ^ 1) - 2);
      result[name] = arrays === 'float32' ? Int32Array.from(ranks) : stored(ranks, arrays);
    } else result[name] = stored(values, arrays);
  }
  return result;
}

/** What becomes of the logits, and the weights of rows. */
function rowFieldsOf(plan: CallPlan, rows: number): Record<string, unknown> {
  const { tokenWeights, logitScale, logitSoftcap, temperature, arrays } = plan.fields;
  const random = generator(plan.rows.seed + 4);
  const weights = Float64Array.from({ length: rows }, () => (random() < 0.2 ? 0 : 2 * random()));
  return Object.fromEntries(
    Object.entries({
      tokenWeights: tokenWeights ? stored(weights, arrays) : undefined,
      logitScale,
      logitSoftcap,
      temperature,
    }).filter(([, value]) => value !== undefined),
  );
}

/** What `logpsBackward` is given beside a batch, without what tokenLogps finds. */
export function derivativesOf(
  plan: CallPlan,
  batch: ExactBatch,
): Record<string, Float64Array | Float32Array> {
  const { by, entropy, arrays } = plan.derivatives;
  const random = generator(plan.rows.seed + 5);
  const each = (length: number): Float64Array | Float32Array =>
    stored(
      Float64Array.from({ length }, () => 2 * random() - 1),
      arrays,
    ) as Float64Array;
  const rows = batch.labels.length;
  return {
    ...(by === 'rows' && { rows: each(rows) }),
    ...(by === 'sequences' && { sequences: each(sequencesOf(plan)) }),
    ...(entropy && { entropy: each(rows) }),
  };
}

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
  const sequences = sequencesOf(plan);
  const spec = { seed, sequences, tokens, vocab, dtype, scale, ignored };
  const fromHidden = plan.door === 'hidden' || (plan.door !== 'logits' && plan.fromHidden);
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
  return Object.assign(batch, fieldsOf(plan), rowFieldsOf(plan, batch.labels.length));
}

/** The batch of a call from log-probabilities that a trainer has. */
export function logpsOf(plan: CallPlan): LogpsBatch {
  const { seed, emptied, reference } = plan.rows;
  const sequences = sequencesOf(plan);
  const batch = randomLogps(generator(seed), sequences);
  const cut = <A extends Float64Array | Int32Array>(array: A): A => array.slice(0, sequences) as A;
  const [logps, tokens] = [cut(batch.logps), cut(batch.counts)];
  if (emptied) {
    const b = seed % tokens.length;
    [logps[b], tokens[b]] = [0, 0];
  }
  const counts = plan.fields.tokenWeights ? Float64Array.from(tokens, (n) => 0.75 * n) : tokens;
  const known = cut(batch.reference);
  const inKind = (array: Float64Array): Float64Array | Float32Array =>
    reference === 'float32' ? Float32Array.from(array) : array;
  return { logps: inKind(logps), counts, reference: inKind(known), ...fieldsOf(plan) };
}
