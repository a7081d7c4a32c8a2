/** Sequences as rows: ids, labels and where each of them is. */
import { allocate } from '../batch/arrays.js';
import { rangeError } from '../errors.js';
import type { CollateSettings } from './collate-options.js';
import { idAt, maxInt32 } from './token-ids.js';
import { lengthOf, type Sequence } from './truncation.js';

/** What both layouts have. Arrays are fresh, one element per row. */
export interface CollatedRows {
  /** Number of sequences. */
  readonly sequences: number;
  /** Token ids, for the model. */
  readonly inputIds: Int32Array;
  /**
   * Row t scores the token after it: `inputIds[t + 1]` where that is of the completion, and its
   * mask has 1 there; -100 in every other row, the last included.
   */
  readonly labels: Int32Array;
  /** 1 for tokens, 0 for padding. */
  readonly attentionMask: Int32Array;
}

/** What truncation did. */
export interface Truncated {
  /** Pairs, single completions or groups of which at least one sequence lost tokens. */
  readonly truncated: number;
}

/** Arrays of [sequences, tokens]; the logits' shape is `[sequences, tokens, vocab]`. */
export interface PaddedRows extends CollatedRows {
  /** Those of the longest sequence. */
  readonly tokens: number;
}

/** Arrays of [rows]; the logits' shape is `[rows, vocab]`. */
export interface PackedRows extends CollatedRows {
  /** Tokens of all sequences. */
  readonly rows: number;
  /** `sequences + 1` row offsets: sequence i has rows `offsets[i]` to `offsets[i + 1] - 1`. */
  readonly offsets: Int32Array;
  /** The place of each token in its sequence, from 0, for models that attend to packed rows. */
  readonly positionIds: Int32Array;
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
    inputIds[row++] = idAt(sequence.prompt, i);
  for (let i = sequence.completionStart; i < sequence.completionEnd; i++) {
    const id = idAt(sequence.completion, i);
    if (row > start && sequence.mask?.flags[i] !== 0) labels[row - 1] = id;
    inputIds[row++] = id;
  }
  attentionMask.fill(1, start, row);
}

/** Writes the sequences one after another. @throws DirAlignError */
export function layOut(
  cuts: readonly Sequence[],
  settings: CollateSettings,
): PaddedRows | PackedRows {
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
  const offsets = offsetsOf('offsets', cuts.map(lengthOf));
  const positionIds = allocate('positionIds', 'Int32Array', rows);
  cuts.forEach((sequence, i) => {
    const start = offsets[i] as number;
    write(sequence, start, collated);
    for (let j = 0; j < lengthOf(sequence); j++) positionIds[start + j] = j;
  });
  return { ...collated, rows, offsets, positionIds };
}

/** Where each of so many things starts, and where the last ends. */
export function offsetsOf(name: string, counts: readonly number[]): Int32Array {
  const offsets = allocate(name, 'Int32Array', counts.length + 1);
  counts.forEach((count, i) => {
    offsets[i + 1] = (offsets[i] as number) + count;
  });
  return offsets;
}
