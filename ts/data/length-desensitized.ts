/** Token weights of LD-DPO (arXiv:2409.06411). */
import { allocate, checkArray, checkLength, unshared } from '../batch/arrays.js';
import { checkIgnoreIndex } from '../batch/labels.js';
import { checkShape, type Layout } from '../batch/shape.js';
import { rangeError, typeError } from '../errors.js';
import { checkObject, describe, readAll, readElements } from '../given.js';
import { checkNumber } from '../interval.js';

/** The rows of a batch of pairs: what `collatePairs` returns, or the batch of a loss. */
export interface RowsOfPairs {
  /** One per row. */
  readonly labels: Int32Array;
  /** Of a padded batch that has no `shape`: the first half chosen, the second half rejected. */
  readonly sequences?: number | undefined;
  /** That of the logits, as the batch of a loss has it. */
  readonly shape?: readonly number[] | undefined;
  /** Of a packed batch: `sequences + 1` row offsets. */
  readonly offsets?: Int32Array | undefined;
  /** The label of rows that are not scored. Default -100. */
  readonly ignoreIndex?: number | undefined;
}

const keys = ['labels', 'sequences', 'shape', 'offsets', 'ignoreIndex'] as const;

type Given = Readonly<Record<string, unknown>>;

/** The layout of so many rows. A shape without a vocabulary has one of 1. */
function layoutOf({ shape, offsets, sequences }: Given, rows: number, labels: Int32Array): Layout {
  const given = (shape: unknown): Layout =>
    checkShape({ shape, offsets, labels } as Parameters<typeof checkShape>[0]);
  if (shape !== undefined) return given(readElements(shape, 4));
  if (offsets !== undefined) return given([rows, 1]);
  if (typeof sequences !== 'number') {
    throw typeError(
      'ERR_DIRALIGN_SHAPE',
      `sequences: expected their number, or shape or offsets, not ${describe(sequences)}`,
    );
  }
  const tokens = rows / sequences;
  if (sequences < 1 || !Number.isInteger(sequences) || !Number.isInteger(tokens)) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `sequences: ${sequences}; expected a number of which ${rows} labels are a multiple`,
    );
  }
  return given([sequences, tokens, 1]);
}

/**
 * The `tokenWeights` of LD-DPO, which lets the part of a completion that its rival does not reach
 * count for less (arXiv:2409.06411): of both completions of a pair, the first as many scored rows
 * as the shorter one has weigh 1, and the scored rows after these `alpha`. Rows that are not scored
 * have 0. With 1 it is the plain loss; with 0 a pair is compared over equal lengths.
 *
 *     const tokenWeights = lengthDesensitized(pairs, 0.5);
 *     const rows = { ...pairs, shape, tokenWeights };
 *     const { logps: reference } = sequenceLogps({ ...rows, logits: logitsOfReference });
 *     dpo({ ...rows, logits, reference });
 *
 * The reference counts with the same weights in TRL, as here; in LLaMA-Factory and ms-swift with
 * 1 everywhere: to have that, leave `tokenWeights` out of its `sequenceLogps`.
 *
 * @param batch padded or packed, the first half of the sequences chosen and the second rejected
 * @param alpha from 0 to 1
 * @returns one weight per row
 * @throws DirAlignError with code ERR_DIRALIGN_OPTION for alpha; ERR_DIRALIGN_SHAPE for a batch
 *   that is none of pairs; ERR_DIRALIGN_LABEL for labels that are no Int32Array
 */
export function lengthDesensitized(batch: RowsOfPairs, alpha: number): Float64Array {
  checkObject('batch', batch, 'ERR_DIRALIGN_SHAPE', 'an object with labels');
  const given = readAll(batch, keys);
  checkNumber('alpha', alpha, { min: 0, max: 1 });
  const ignoreIndex = checkIgnoreIndex(given.ignoreIndex);
  const labels = unshared(checkArray('labels', given.labels, ['Int32Array'], 'ERR_DIRALIGN_LABEL'));
  const { sequences, rows, offsets } = layoutOf(given, labels.length, labels);
  checkLength('labels', labels.length, rows, 'one per row');
  if (sequences < 2 || sequences % 2 !== 0) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `sequences: ${sequences}; expected an even number of at least 2: ` +
        'the chosen, then the rejected',
    );
  }

  const startOf = (i: number): number =>
    offsets === undefined ? (i * rows) / sequences : (offsets[i] as number);
  const scored = (i: number): number =>
    labels.subarray(startOf(i), startOf(i + 1)).filter((label) => label !== ignoreIndex).length;
  const weights = allocate('tokenWeights', 'Float64Array', rows);
  for (let i = 0; i < sequences; i++) {
    let left = Math.min(scored(i), scored((i + sequences / 2) % sequences));
    for (let row = startOf(i); row < startOf(i + 1); row++) {
      if (labels[row] === ignoreIndex) continue;
      weights[row] = left > 0 ? 1 : alpha;
      left--;
    }
  }
  return weights;
}
