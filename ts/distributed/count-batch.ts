/** How much there is in a batch, from its labels alone. */
import { checkFields, checkGroups, numbersOf } from '../batch/fields.js';
import { readBatch } from '../batch/given-batch.js';
import { checkIgnoreIndex, checkLabels } from '../batch/labels.js';
import { checkShape } from '../batch/shape.js';
import type { BatchRows } from '../batch/types.js';
import type { BatchRequest } from '../native/interface.js';

/** Sums over batches. */
export interface BatchCounts {
  /** Sequences: twice the pairs. */
  readonly sequences: number;
  /** Groups, of batches that have `groups`; otherwise 0. */
  readonly groups: number;
  /** Scored rows, those whose label is not `ignoreIndex`. */
  readonly tokens: number;
  /**
   * Rows of the first half of each batch's sequences, the chosen of pairs, that a likelihood term
   * scores (by `sftLabels`, where there are some), or the sum of their `tokenWeights`.
   */
  readonly chosenTokens: number;
  /** The same of the sequences that are not undesirable: without `desirable`, of all. */
  readonly desirableTokens: number;
}

export const noCounts: BatchCounts = Object.freeze({
  sequences: 0,
  groups: 0,
  tokens: 0,
  chosenTokens: 0,
  desirableTokens: 0,
});

export function addCounts(a: BatchCounts, b: BatchCounts): BatchCounts {
  return {
    sequences: a.sequences + b.sequences,
    groups: a.groups + b.groups,
    tokens: a.tokens + b.tokens,
    chosenTokens: a.chosenTokens + b.chosenTokens,
    desirableTokens: a.desirableTokens + b.desirableTokens,
  };
}

type Counted = Pick<
  BatchRequest,
  'sequences' | 'rows' | 'offsets' | 'labels' | 'sftLabels' | 'ignoreIndex' | 'groups' | 'fields'
>;

/** Of a batch that is checked. */
export function countRows(batch: Counted): BatchCounts {
  const { sequences, rows, offsets, labels, sftLabels = labels, ignoreIndex, groups } = batch;
  const tokenWeights = numbersOf(batch.fields, 'tokenWeights');
  const desirable = numbersOf(batch.fields, 'desirable');
  let [tokens, chosenTokens, desirableTokens] = [0, 0, 0];
  const each = sequences > 0 ? rows / sequences : 0;
  for (let s = 0; s < sequences; s++) {
    const end = offsets ? (offsets[s + 1] as number) : (s + 1) * each;
    let likely = 0;
    for (let row = offsets ? (offsets[s] as number) : s * each; row < end; row++) {
      if (labels[row] !== ignoreIndex) tokens++;
      if (sftLabels[row] !== ignoreIndex) likely += tokenWeights?.[row] ?? 1;
    }
    if (s < Math.floor(sequences / 2)) chosenTokens += likely;
    if (desirable?.[s] !== 0) desirableTokens += likely;
  }
  return {
    sequences,
    groups: groups ? groups.length - 1 : 0,
    tokens,
    chosenTokens,
    desirableTokens,
  };
}

const counted = { tokenWeights: { needed: false, min: 0 }, desirable: { needed: false } } as const;

/**
 * Counts what batches have, whatever else they hold: what gradients that are accumulated over them
 * are to be divided by. `objective.window` takes it.
 * @throws DirAlignError where a shape, offsets, labels, groups or weights do not go together
 *
 * @example
 * const window = await dpo.window(countBatch(...microBatches), { data });
 */
export function countBatch(...batches: readonly Partial<BatchRows>[]): BatchCounts {
  let all = noCounts;
  for (const given of batches) {
    const batch = readBatch(given) as unknown as BatchRows;
    const { sequences, rows, offsets } = checkShape(batch);
    const { sftLabels, tokenWeights, desirable } = batch;
    const groups =
      batch.groups === undefined ? undefined : checkGroups(batch.groups, sequences, true);
    const sizes = { unit: 0, sequence: sequences, row: rows, groups };
    const own = countRows({
      sequences,
      rows,
      offsets,
      labels: checkLabels('labels', batch.labels, rows),
      sftLabels: sftLabels === undefined ? undefined : checkLabels('sftLabels', sftLabels, rows),
      ignoreIndex: checkIgnoreIndex(batch.ignoreIndex),
      groups,
      fields: checkFields('countBatch', counted, { tokenWeights, desirable }, sizes),
    });
    all = addCounts(all, own);
  }
  return all;
}
