// Policies far from their reference, and gradients too small for their type.
import { at, encodeHalf } from './numbers.js';
import type { Dtype, HostBatch } from './batches.js';
import { sequenceLogps, tokenLogps } from '../../ts/index.js';
import type { LossResult } from '../../ts/index.js';

/**
 * The logits of every row: the label's first, then one that has nearly all the probability, and
 * ever less down to none.
 */
const row = [0, 10, -20, -70, -Infinity];

/**
 * `pairs` equal pairs of sequences of two scored rows each, with a reference that puts their
 * log-ratios at `chosen` and `rejected`. A reference above 0 is no log-probability, but the
 * arithmetic is that of a longer sequence.
 */
export function farFromReference(far: {
  readonly chosen: number;
  readonly rejected: number;
  readonly dtype?: Dtype;
  readonly pairs?: number;
}): HostBatch & { readonly reference: Float64Array } {
  const { chosen, rejected, dtype = 'float32', pairs = 1 } = far;
  const rows = 4 * pairs;
  const values = Float32Array.from(
    { length: rows * row.length },
    (_, i) => row[i % row.length] as number,
  );
  const batch = {
    logits: dtype === 'float32' ? values : encodeHalf(values, dtype),
    ...(dtype === 'float32' ? {} : { dtype }),
    shape: [2 * pairs, 2, row.length],
    labels: new Int32Array(rows),
  } as const;
  const { logps } = sequenceLogps(batch);
  return { ...batch, reference: logps.map((x, b) => x - (b < pairs ? chosen : rejected)) };
}

/**
 * Rows of a dense gradient whose label's entry is subnormal or 0 although neither the coefficient
 * nor 1 - p is, by the bits of the gradient: what `metrics.underflow` counts.
 */
export function underflowingRows(
  batch: HostBatch,
  { gradLogits, coefficients }: LossResult,
  likelihood = 0,
): number {
  const { labels, sftLabels, shape } = batch;
  const [sequences, , vocab] = shape as readonly [number, number, number];
  const bits =
    gradLogits instanceof Float32Array
      ? new Uint32Array(gradLogits.buffer)
      : (gradLogits as Uint16Array);
  const [magnitude, normal] = {
    float32: [0x7fffffff, 0x00800000],
    float16: [0x7fff, 0x0400],
    bfloat16: [0x7fff, 0x0080],
  }[batch.dtype ?? 'float32'] as [number, number];
  const ofLabels = (own: Int32Array): Float64Array =>
    tokenLogps({ ...batch, labels: own, sftLabels: undefined }).logps;
  const small = (row: number, label: number, coefficient: number, logps: Float64Array): boolean =>
    label >= 0 &&
    coefficient !== 0 &&
    logps[row] !== 0 &&
    (at(bits, row * vocab + label) & magnitude) < normal;
  const [own, other] = [ofLabels(labels), sftLabels && ofLabels(sftLabels)];
  return labels.reduce((count, label, row) => {
    const b = Math.floor((row * sequences) / labels.length);
    const share = b < sequences / 2 ? likelihood : 0;
    if (!sftLabels || !other)
      return count + Number(small(row, label, at(coefficients, b) + share, own));
    return (
      count +
      Number(
        small(row, label, at(coefficients, b), own) || small(row, at(sftLabels, row), share, other),
      )
    );
  }, 0);
}
