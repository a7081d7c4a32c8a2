/** Rows of logits, and their softmax. */
import { rangeError, typeError } from '../../errors.js';
import type { BatchRows, LogitsArray, LogitsBatch, LogitsShape } from '../../batch/types.js';
import type { Dtype } from '../../dtype.js';
import type { FamilyFields } from './fields.js';
import { at, decodeBfloat16, decodeFloat16, sum } from './numbers.js';

/** What a batch has beside its logits or hidden states. */
export type ReferenceRows = Omit<BatchRows, keyof FamilyFields> & FamilyFields;

/** A batch of logits, which may be in float64, too. */
export type ReferenceBatch = Omit<LogitsBatch, 'logits' | keyof FamilyFields> &
  FamilyFields & {
    /** Row-major. */
    readonly logits: LogitsArray | Float64Array;
  };

/** A batch as [rows, vocab] numbers in sequences of rows. */
export interface Rows {
  readonly rows: number;
  readonly vocab: number;
  readonly sequences: number;
  /** First row of sequence b; `offsets(sequences)` is the number of rows. */
  readonly offset: (b: number) => number;
  readonly ignoreIndex: number;
  /** What the softmax is taken of. */
  readonly logit: (row: number, v: number) => number;
  /** Its derivative by the logit of the batch. */
  readonly slope: (row: number, v: number) => number;
}

export function reader(
  name: string,
  data: ReferenceBatch['logits'],
  given: Dtype | undefined,
): (index: number) => number {
  const numbers = data as unknown as ArrayLike<number>;
  const dtypes: Record<string, Dtype | 'float64' | undefined> = {
    Float64Array: 'float64',
    Float32Array: 'float32',
    Float16Array: 'float16',
    Uint16Array: given,
  };
  const dtype = dtypes[data[Symbol.toStringTag]];
  if (dtype === undefined || (data instanceof Uint16Array && dtype === 'float32')) {
    throw typeError(
      'ERR_DIRALIGN_DTYPE',
      `${name}: a ${data[Symbol.toStringTag]} of dtype ${String(given)}.`,
    );
  }
  if (!(data instanceof Uint16Array)) return (index) => at(numbers, index);
  const decode = dtype === 'float16' ? decodeFloat16 : decodeBfloat16;
  return (index) => decode(at(numbers, index));
}

export function outline(batch: ReferenceRows): Omit<Rows, 'logit' | 'slope'> {
  const { offsets, labels, ignoreIndex = -100 } = batch;
  const shape = batch.shape as LogitsShape;
  const packed = shape.length === 2;
  const [rows, vocab] = shape.length === 2 ? shape : [shape[0] * shape[1], shape[2]];
  const sequences = shape.length === 2 ? (offsets?.length ?? 0) - 1 : shape[0];
  const offset = (b: number): number => (shape.length === 2 ? (offsets?.[b] ?? NaN) : b * shape[1]);
  if (packed ? offset(0) !== 0 || offset(sequences) !== rows : offsets !== undefined) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `offsets: expected ${packed ? `from 0 to ${rows}` : 'none, the batch being padded'}.`,
    );
  }
  for (const [name, given] of [
    ['labels', labels] as const,
    ['sftLabels', batch.sftLabels] as const,
  ]) {
    if (given === undefined) continue;
    if (given.length !== rows)
      throw rangeError('ERR_DIRALIGN_SHAPE', `${name}: ${given.length} of them; expected ${rows}.`);
    const outside = given.findIndex(
      (label) => label !== ignoreIndex && !(label >= 0 && label < vocab),
    );
    if (outside >= 0) {
      throw rangeError(
        'ERR_DIRALIGN_LABEL',
        `${name}[${outside}]: ${at(given, outside)}; expected [0, ${vocab}) or ${ignoreIndex}.`,
      );
    }
  }
  return { rows, vocab, sequences, offset, ignoreIndex };
}

/**
 * y = softcap(scale x) / temperature with softcap(v) = cap tanh(v / cap), and dy/dx. An infinity
 * stays what it is: -inf is probability 0 under a cap, too.
 */
function transform({ logitScale: scale = 1, logitSoftcap: cap, temperature = 1 }: FamilyFields) {
  const soft = (v: number): number => (cap === undefined ? v : cap * Math.tanh(v / cap));
  const softSlope = (v: number): number => (cap === undefined ? 1 : Math.cosh(v / cap) ** -2);
  return {
    value: (x: number) => (Number.isFinite(x) ? soft(scale * x) / temperature : x),
    slope: (x: number) => (softSlope(scale * x) * scale) / temperature,
  };
}

/** @throws DirAlignError for a batch that is none */
export function view(batch: ReferenceBatch): Rows {
  const rows = outline(batch);
  const { logits, dtype, rowStride = rows.vocab } = batch;
  const needed = rows.rows === 0 ? 0 : (rows.rows - 1) * rowStride + rows.vocab;
  if (rowStride < rows.vocab || logits.length < needed) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `logits: ${logits.length} elements; expected at least ${needed}.`,
    );
  }
  const element = reader('logits', logits, dtype);
  const { value, slope } = transform(batch);
  return {
    ...rows,
    logit: (row, v) => value(element(row * rowStride + v)),
    slope: (row, v) => slope(element(row * rowStride + v)),
  };
}

/** The softmax of a row, seen from its label. */
export interface Row {
  readonly logp: number;
  readonly logsumexp: number;
  /** d logp / dz: onehot - softmax. */
  readonly gradient: Float64Array;
  readonly entropy: () => number;
  /** d entropy / dz. */
  readonly entropyGradient: () => Float64Array;
  /** log sum_v p_v^2. */
  readonly logCollision: () => number;
}

/**
 * With z the row, m its largest element, a_v = z_v - m, e_v = exp(a_v) and `rest` the sum of e over
 * all v but the label y:
 *
 *   p_v = e_v / (rest + e_y),   1 - p_y = rest / (rest + e_y),
 *   log p_y = -log1p(rest) where y is the largest, so that a label near certainty keeps the digits
 *   of 1 - p_y;
 *   log p_y = a_y - log1p(others) elsewhere, `others` the sum over all v but one of the largest;
 *   entropy = sum_v p_v (log1p(others) - a_v), a sum without cancellation; p_v = 0 contributes 0;
 *   d entropy / dz_v = p_v (A - a_v), A = sum_v p_v a_v;
 *   log sum_v p_v^2 = log1p(sum of e^2 as in `others`) - 2 log1p(others).
 *
 * A row that holds a NaN or a +inf, or nothing but -inf, has no softmax: all of it is NaN.
 */
export function softmaxRow({ vocab, logit }: Rows, row: number, label: number): Row {
  const z = Float64Array.from({ length: vocab }, (_, v) => logit(row, v));
  const invalid = z.some(Number.isNaN);
  let top = z.reduce((best, x, v) => (x > at(z, best) ? v : best), 0);
  // The label itself where it shares the maximum: its log-probability then takes the exact form.
  if (at(z, label) === at(z, top)) top = label;
  const max = invalid || !Number.isFinite(at(z, top)) ? NaN : at(z, top);
  const a = z.map((x) => x - max);
  const e = a.map(Math.exp);
  const rest = sum(vocab, (v) => (v === label ? 0 : at(e, v)));
  const others = sum(vocab, (v) => (v === top ? 0 : at(e, v)));
  const total = rest + at(e, label);
  const logTotal = Math.log1p(others);
  /** Sum of p_v x(v); a probability of 0 contributes 0. */
  const expected = (x: (v: number) => number): number =>
    sum(vocab, (v) => (at(e, v) === 0 ? 0 : (at(e, v) / total) * x(v)));
  return {
    logp: at(z, label) - max - logTotal,
    logsumexp: max + logTotal,
    gradient: e.map((ev, v) => (v === label ? rest : -ev) / total),
    entropy: () => expected((v) => logTotal - at(a, v)),
    entropyGradient: () => {
      const average = expected((v) => at(a, v));
      return e.map((ev, v) => (ev === 0 ? 0 : (ev / total) * (average - at(a, v))));
    },
    logCollision: () =>
      Math.log1p(sum(vocab, (v) => (v === top ? 0 : at(e, v) ** 2))) - 2 * logTotal,
  };
}
