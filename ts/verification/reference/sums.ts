/** Log-probabilities of rows and of sequences, and their gradients. */
import type { SequenceLogps, TokenLogpsValues } from '../../loss/results.js';
import { at, Sum } from './numbers.js';
import { type ReferenceBatch, type ReferenceRows, type Rows, softmaxRow, view } from './rows.js';

/** Weight of a row's log-probability. */
export type Weight = (row: number) => number;

export const weightOf =
  ({ tokenWeights }: ReferenceRows): Weight =>
  (row) =>
    tokenWeights ? at(tokenWeights, row) : 1;

export interface SequenceSums extends SequenceLogps {
  /** Sums of the weights of scored rows. */
  readonly lengths: Float64Array;
}

/** Sums over the scored rows of each sequence: a row of weight 0 is not read. */
export function sumRows(batch: Rows, labels: Int32Array, weight: Weight): SequenceSums {
  const logps = new Float64Array(batch.sequences);
  const counts = new Int32Array(batch.sequences);
  const lengths = new Float64Array(batch.sequences);
  for (let b = 0; b < batch.sequences; b++) {
    const [total, length] = [new Sum(), new Sum()];
    for (let row = batch.offset(b); row < batch.offset(b + 1); row++) {
      const label = at(labels, row);
      if (label === batch.ignoreIndex) continue;
      counts[b] = at(counts, b) + 1;
      length.add(weight(row));
      if (weight(row) !== 0) total.add(weight(row) * softmaxRow(batch, row, label).logp);
    }
    logps[b] = total.value;
    lengths[b] = length.value;
  }
  return { logps, counts, lengths };
}

/** Sequence log-probabilities: S = sum of log p_y over the rows whose label is not ignored. */
export function referenceLogps(batch: ReferenceBatch): SequenceLogps {
  const { logps, counts } = sumRows(view(batch), batch.labels, weightOf(batch));
  return { logps, counts };
}

/** What {@link referenceTokenLogps} gives, per row; 0 where the label is ignored. */
export interface ReferenceTokenLogps extends TokenLogpsValues {
  /** log sum_v p_v^2. */
  readonly logCollision: Float64Array;
}

/** Log-probability, logsumexp, entropy and collision of every row. */
export function referenceTokenLogps(batch: ReferenceBatch): ReferenceTokenLogps {
  const rows = view(batch);
  const logps = new Float64Array(rows.rows);
  const logsumexp = new Float64Array(rows.rows);
  const entropy = new Float64Array(rows.rows);
  const logCollision = new Float64Array(rows.rows);
  batch.labels.forEach((label, row) => {
    if (label === rows.ignoreIndex) return;
    const softmax = softmaxRow(rows, row, label);
    logps[row] = softmax.logp;
    logsumexp[row] = softmax.logsumexp;
    entropy[row] = softmax.entropy();
    logCollision[row] = softmax.logCollision();
  });
  return { logps, logsumexp, entropy, logCollision };
}

/** Adds to the gradient of the logits of a row what a gradient by the softmax's input makes. */
export function addRow(
  gradLogits: Float64Array,
  { vocab, slope }: Rows,
  row: number,
  coefficient: number,
  gradient: Float64Array,
): void {
  gradient.forEach((g, v) => {
    const index = row * vocab + v;
    gradLogits[index] = at(gradLogits, index) + coefficient * g * slope(row, v);
  });
}

/** Adds c_b dS_b/dlogits of every sequence. A coefficient of 0 leaves its rows unread. */
export function addSequences(
  gradLogits: Float64Array,
  rows: Rows,
  labels: Int32Array,
  coefficient: (b: number, row: number) => number,
): void {
  for (let b = 0; b < rows.sequences; b++) {
    for (let row = rows.offset(b); row < rows.offset(b + 1); row++) {
      const label = at(labels, row);
      if (label === rows.ignoreIndex || coefficient(b, row) === 0) continue;
      const { gradient } = softmaxRow(rows, row, label);
      addRow(gradLogits, rows, row, coefficient(b, row), gradient);
    }
  }
}
