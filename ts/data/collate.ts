/** From token ids of prompts and completions to the rows and labels that `dirAlignLoss` takes. */
import { allocate } from '../batch/arrays.js';
import { rangeError, typeError } from '../errors.js';
import { describe } from '../given.js';
import { checkOptions, type CollateOptions } from './collate-options.js';
import { checkPair, maxInt32, type PreferencePair } from './pairs.js';
import { cut, lengthOf, type Sequence } from './truncation.js';

/**
 * What both layouts have. Arrays are fresh, one element per row; the first half of the sequences
 * are the chosen.
 */
interface CollatedRows {
  /** Twice the number of pairs; pair i is sequences i and i + sequences / 2. */
  readonly sequences: number;
  /** Token ids, for the model. */
  readonly inputIds: Int32Array;
  /**
   * Row t scores the token after it: `inputIds[t + 1]` where that is of the completion; -100 in
   * every other row, the last included.
   */
  readonly labels: Int32Array;
  /** 1 for tokens, 0 for padding. */
  readonly attentionMask: Int32Array;
}

/** Arrays of [sequences, tokens]; the logits' shape is `[sequences, tokens, vocab]`. */
export interface PaddedPairs extends CollatedRows {
  /** Those of the longest sequence. */
  readonly tokens: number;
}

/** Arrays of [rows]; the logits' shape is `[rows, vocab]`. */
export interface PackedPairs extends CollatedRows {
  /** Tokens of all sequences. */
  readonly rows: number;
  /** `sequences + 1` row offsets: sequence i has rows `offsets[i]` to `offsets[i + 1] - 1`. */
  readonly offsets: Int32Array;
}

const ignoreIndex = -100;

/** Writes the ids of a sequence and the labels of its rows, from row `start`. */
function write(
  sequence: Sequence,
  start: number,
  { inputIds, labels, attentionMask }: CollatedRows,
): void {
  let row = start;
  for (let i = sequence.promptStart; i < sequence.promptEnd; i++)
    inputIds[row++] = sequence.prompt[i] as number;
  for (let i = sequence.completionStart; i < sequence.completionEnd; i++) {
    const id = sequence.completion[i] as number;
    if (row > start) labels[row - 1] = id;
    inputIds[row++] = id;
  }
  attentionMask.fill(1, start, row);
}

/**
 * A batch of preference pairs, in memory of its own: the chosen sequences (prompt, then completion)
 * in the order of the examples, then the rejected. It can be spread into the batch of a loss beside
 * its logits:
 *
 *     const pairs = collatePairs(examples, { pad: 0, maxLength: 512 });
 *     const logits = model.forward(pairs.inputIds, pairs.attentionMask);
 *     dpo({ ...pairs, logits, shape: [pairs.sequences, pairs.tokens, vocab], reference });
 *
 * Every sequence has at least one scored row. The first token of a sequence is context only, also
 * where truncation leaves no prompt.
 *
 * @throws DirAlignError with code ERR_DIRALIGN_OPTION for options; ERR_DIRALIGN_LABEL for token ids
 *   that are no token ids, an empty completion and one of which truncation leaves nothing to score;
 *   ERR_DIRALIGN_SHAPE for no examples, or 2^31 rows and more; ERR_DIRALIGN_MEMORY where the batch
 *   does not fit memory.
 */
export function collatePairs(
  examples: readonly PreferencePair[],
  options: CollateOptions & { readonly layout: 'packed' },
): PackedPairs;

export function collatePairs(
  examples: readonly PreferencePair[],
  options: CollateOptions & { readonly layout?: 'padded'; readonly pad: number },
): PaddedPairs;

export function collatePairs(
  examples: readonly PreferencePair[],
  options: CollateOptions,
): PaddedPairs | PackedPairs;

export function collatePairs(
  examples: readonly PreferencePair[],
  options: CollateOptions,
): PaddedPairs | PackedPairs {
  const settings = checkOptions(options);
  if (!Array.isArray(examples)) {
    throw typeError(
      'ERR_DIRALIGN_SHAPE',
      `examples: expected an array of pairs, not ${describe(examples)}`,
    );
  }
  if (examples.length === 0)
    throw rangeError('ERR_DIRALIGN_SHAPE', 'examples: has no pairs; expected at least one');
  const pairs = Array.from(examples as readonly unknown[], (value, i) => checkPair(i, value));
  const cuts = (['chosen', 'rejected'] as const).flatMap((key) =>
    pairs.map((pair, i) => cut(i, pair, key, settings)),
  );

  const sequences = cuts.length;
  const tokens = cuts.reduce((most, sequence) => Math.max(most, lengthOf(sequence)), 0);
  const rows =
    settings.layout === 'padded'
      ? sequences * tokens
      : cuts.reduce((sum, sequence) => sum + lengthOf(sequence), 0);
  if (rows > maxInt32)
    throw rangeError('ERR_DIRALIGN_SHAPE', `examples: ${rows} rows; expected at most ${maxInt32}`);

  const collated: CollatedRows = {
    sequences,
    inputIds: allocate('inputIds', 'Int32Array', rows),
    labels: allocate('labels', 'Int32Array', rows).fill(ignoreIndex),
    attentionMask: allocate('attentionMask', 'Int32Array', rows),
  };
  if (settings.layout === 'padded') {
    collated.inputIds.fill(settings.pad);
    cuts.forEach((sequence, i) => {
      write(sequence, i * tokens, collated);
    });
    return { ...collated, tokens };
  }
  const offsets = new Int32Array(sequences + 1);
  cuts.forEach((sequence, i) => {
    const start = offsets[i] as number;
    write(sequence, start, collated);
    offsets[i + 1] = start + lengthOf(sequence);
  });
  return { ...collated, rows, offsets };
}
