// A result against float64, stage by stage: log-probabilities of the logits, the pair stage of
// those log-probabilities, the gradient of its coefficients. A stage is held to what it adds,
// however an objective magnifies the stage before.
import type { LossResult } from '../../ts/index.js';
import {
  decodeBfloat16,
  decodeFloat16,
  referenceFromLogps,
  type ReferenceConfig,
} from '../../ts/verification/reference.js';
import type { HostBatch } from './batches.js';
import { gradientBound, halfBound, logpBound, type Misses } from './bounds.js';
import { at, decodeHalf, present, type HalfDtype } from './numbers.js';
import { rowResidual } from './vectors.js';

export interface Float64Rows {
  /** onehot - softmax; 0 on ignored rows. */
  readonly residual: Float64Array;
  /** Per sequence. */
  readonly logps: Float64Array;
  readonly counts: Int32Array;
}

/** Of a padded batch without rowStride. */
export function float64Rows(batch: HostBatch): Float64Rows {
  const [sequences, tokens = 0, vocab = 0] = batch.shape;
  const { labels } = batch;
  const decode = batch.dtype === 'float16' ? decodeFloat16 : decodeBfloat16;
  const logits = Float64Array.from(batch.logits, (x) =>
    batch.logits instanceof Float32Array ? x : decode(x),
  );
  const residual = new Float64Array(logits.length);
  const logps = new Float64Array(sequences);
  const counts = new Int32Array(sequences);
  labels.forEach((label, row) => {
    if (label === (batch.ignoreIndex ?? -100)) return;
    const b = Math.floor(row / tokens);
    rowResidual(logits, row * vocab, vocab, label, residual);
    // log p = log1p(-(1 - p)) near certainty; elsewhere from the maximum.
    const rest = at(residual, row * vocab + label);
    let max = -Infinity;
    for (let v = 0; v < vocab; v++) max = Math.max(max, at(logits, row * vocab + v));
    let total = 0;
    for (let v = 0; v < vocab; v++) total += Math.exp(at(logits, row * vocab + v) - max);
    logps[b] =
      at(logps, b) +
      (rest < 0.5 ? Math.log1p(-rest) : at(logits, row * vocab + label) - max - Math.log(total));
    counts[b] = at(counts, b) + 1;
  });
  return { residual, logps, counts };
}

export function checkWithin(
  misses: Misses,
  what: string,
  config: ReferenceConfig,
  batch: HostBatch,
  result: LossResult,
  { residual, logps, counts } = float64Rows(batch),
): void {
  const [, tokens = 0, vocab = 0] = batch.shape;
  misses.each(`${what} counts`, result.counts, counts, () => 0);
  misses.each(`${what} logps`, result.logps, logps, (x, b) => logpBound(x, at(counts, b)));
  for (const x of result.logps)
    misses.require(x <= 0, `${what}: a log-probability of ${String(x)}`);

  const own = referenceFromLogps(config, {
    logps: result.logps,
    counts,
    reference: batch.reference,
  });
  const float64 = (x: number): number => 1e-11 * Math.max(1e-3, Math.abs(x));
  misses.near(`${what} loss`, result.loss, own.loss, float64(own.loss));
  misses.each(`${what} losses`, result.losses, own.losses, float64);
  misses.each(`${what} rewards`, result.rewards, own.rewards, float64);

  if (!result.gradLogits) return;
  const gradient = present(result.gradLogits);
  const { dtype } = batch;
  const values =
    gradient instanceof Float32Array
      ? gradient
      : decodeHalf(gradient as Uint16Array, dtype as HalfDtype);
  const { rowScale } = result;
  const coefficient = (i: number): number => at(own.gradLogps, Math.floor(i / (tokens * vocab)));
  if (rowScale) {
    const scales = Array.from(batch.labels, (label, row) =>
      label === (batch.ignoreIndex ?? -100) ? 0 : coefficient(row * vocab),
    );
    misses.each(`${what} rowScale`, rowScale, scales, (x) => gradientBound(Math.abs(x), 0));
  }
  const expected = rowScale ? residual : residual.map((x, i) => x * coefficient(i));
  const largest = expected.reduce((x, y) => Math.max(x, Math.abs(y)), 0);
  misses.each(`${what} gradient`, values, expected, (x) =>
    gradient instanceof Float32Array
      ? gradientBound(Math.abs(x), largest)
      : halfBound(x, dtype as HalfDtype),
  );
}
