// The reference cases through device memory, as more than one suite takes them.
import type { DeviceTensor, LogitsBatch, LossResult } from '../../ts/index.js';
import { build } from './cases.js';
import { Copy, takeGradient, type Elements } from './device.js';
import { sameBits } from './numbers.js';
import type { VectorCase } from './vectors.js';

export type HostBatch = LogitsBatch<Elements>;
export type Gradient = 'dense' | 'factored' | 'none';
export interface Computed {
  readonly result: LossResult<DeviceTensor>;
  /** In an array of the host. */
  readonly gradient: Elements;
}

/**
 * One call on a copy of the batch on the device, with its gradient in fresh memory, in place or in
 * memory of the caller.
 */
export function compute(
  c: VectorCase,
  batch: HostBatch,
  where: 'fresh' | 'in place' | 'out',
  gradient: Gradient = 'dense',
  shift = 0,
): Computed {
  const { logits, dtype } = batch;
  const copy = new Copy(logits, dtype, { shift });
  const target =
    where === 'out' ? new Copy(logits.slice().fill(0x7c01), dtype, { shift }) : undefined;
  try {
    const run = where === 'in place' ? { inPlace: true } : target ? { out: target.tensor } : {};
    const result = build(c)({ ...batch, logits: copy.tensor }, { ...run, gradient });
    const after = copy.read();
    if (where === 'in place') {
      if (result.gradLogits !== copy.tensor) throw new Error(`${c.id}: not in place`);
      return { result, gradient: after };
    }
    if (!sameBits(after, logits)) throw new Error(`${c.id}: the logits were written`);
    if (!target) return { result, gradient: takeGradient(result.gradLogits, logits) };
    if (result.gradLogits !== target.tensor) throw new Error(`${c.id}: not into out`);
    return { result, gradient: target.read() };
  } finally {
    copy.dispose();
    target?.dispose();
  }
}

/** The gradient of a padded batch, from that of the same without the rows that nothing scores. */
export function unpacked(
  gradient: Elements,
  rows: readonly number[],
  length: number,
  vocab: number,
): Float32Array<ArrayBuffer> {
  const all = new Float32Array(length);
  rows.forEach((row, i) => {
    all.set(gradient.subarray(i * vocab, (i + 1) * vocab), row * vocab);
  });
  return all;
}
