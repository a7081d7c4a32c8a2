// Policies far from their reference.
import { encodeHalf } from './numbers.js';
import type { Dtype, HostBatch } from './batches.js';
import { sequenceLogps } from '../../ts/index.js';

/** The logits of every row: the label's first, then one that has nearly all the probability, and ever less down to none. */
const row = [0, 10, -20, -70, -Infinity];

/**
 * `pairs` equal pairs of sequences of two scored rows each, with a reference that puts their log-ratios at `chosen` and `rejected`.
 * A reference above 0 is no log-probability, but the arithmetic is that of a longer sequence.
 */
export function farFromReference(far: {
  readonly chosen: number;
  readonly rejected: number;
  readonly dtype?: Dtype;
  readonly pairs?: number;
}): HostBatch & { readonly reference: Float64Array } {
  const { chosen, rejected, dtype = 'float32', pairs = 1 } = far;
  const rows = 4 * pairs;
  const values = Float32Array.from({ length: rows * row.length }, (_, i) => row[i % row.length] as number);
  const batch = {
    logits: dtype === 'float32' ? values : encodeHalf(values, dtype),
    ...(dtype === 'float32' ? {} : { dtype }),
    shape: [2 * pairs, 2, row.length],
    labels: new Int32Array(rows),
  } as const;
  const { logps } = sequenceLogps(batch);
  return { ...batch, reference: logps.map((x, b) => x - (b < pairs ? chosen : rejected)) };
}
