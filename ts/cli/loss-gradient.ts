/** The gradient of `diralign loss`: its array, its norm and its file. */
import type { LogitsArray, LogitsBatch } from '../batch/types.js';
import type { GradientMode } from '../loss/options.js';
import type { LossResult } from '../loss/results.js';
import { writeSafetensors } from '../safetensors.js';
import { decoder } from '../verification/verification.js';
import { objectiveOf, type Outcome } from './loss-output.js';

/** Euclidean norm of dLoss/dlogits. */
export function norm({ gradLogits, rowScale }: LossResult, { shape, dtype }: LogitsBatch): number {
  const vocab = shape.at(-1) ?? 1;
  const values = gradLogits as Float32Array | Uint16Array;
  const decode = decoder(dtype ?? 'float32');
  const scored = rowScale ?? new Float32Array(values.length / vocab).fill(1);
  let sum = 0;
  for (const [row, scale] of scored.entries()) {
    let rowSum = 0;
    for (let i = row * vocab; i < (row + 1) * vocab; i++) rowSum += decode(values[i] ?? NaN) ** 2;
    sum += scale * scale * rowSum;
  }
  return Math.sqrt(sum);
}

/** An array of the same type and length. */
export function alike(logits: LogitsArray): LogitsArray {
  return logits instanceof Float32Array
    ? new Float32Array(logits.length)
    : new Uint16Array(logits.length);
}

/** Writes the gradient in the dtype and shape of the logits. */
export function writeGradient(
  path: string,
  outcome: Outcome,
  batch: LogitsBatch,
  gradient: GradientMode,
): void {
  const { shape, dtype = 'float32', offsets } = batch;
  const { gradLogits, rowScale, loss } = outcome.result;
  if (!gradLogits) return;
  const dtypes = { float32: 'F32', float16: 'F16', bfloat16: 'BF16' } as const;
  writeSafetensors(
    path,
    {
      gradLogits: { dtype: dtypes[dtype], shape, data: gradLogits },
      ...(rowScale && {
        rowScale: {
          dtype: 'F32' as const,
          shape: offsets ? shape.slice(0, 1) : shape.slice(0, 2),
          data: rowScale,
        },
      }),
    },
    { objective: JSON.stringify(objectiveOf(outcome)), gradient, loss: String(loss) },
  );
}
