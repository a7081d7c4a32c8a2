/** How much there is in a batch, from its labels alone. */
import { readBatch } from '../batch/given-batch.js';
import { checkIgnoreIndex, checkLabels } from '../batch/labels.js';
import { checkShape } from '../batch/shape.js';
import type { BatchRows } from '../batch/types.js';

/** Sums over batches. */
export interface BatchCounts {
  /** Sequences: twice the pairs. */
  readonly sequences: number;
  /** Scored rows, those whose label is not `ignoreIndex`. */
  readonly tokens: number;
}

/**
 * Counts the sequences and the scored tokens of batches, whatever else they hold: what the gradient
 * accumulation over batches of different sizes is to be divided by (`denominator`,
 * `sftDenominator`).
 * @throws DirAlignError where a shape, offsets or labels do not go together
 */
export function countBatch(...batches: readonly Partial<BatchRows>[]): BatchCounts {
  let sequences = 0;
  let tokens = 0;
  for (const given of batches) {
    const batch = readBatch(given) as unknown as BatchRows;
    const layout = checkShape(batch);
    const labels = checkLabels('labels', batch.labels, layout.rows);
    const ignored = checkIgnoreIndex(batch.ignoreIndex);
    sequences += layout.sequences;
    for (const label of labels) tokens += label === ignored ? 0 : 1;
  }
  return { sequences, tokens };
}
