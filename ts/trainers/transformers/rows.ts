/** The sequences of a collated batch, and the part of them that a model gets at a time. */
import { checkArray, checkLength } from '../../batch/arrays.js';
import { rangeError, typeError } from '../../errors.js';
import { checkObject, describe, readAll } from '../../given.js';
import type { ScoredRows } from './types.js';

const keys = ['inputIds', 'labels', 'sequences', 'tokens', 'attentionMask', 'offsets'] as const;

/** Copies: the caller's arrays may be filled again while a model runs. */
export interface Sequences {
  readonly inputIds: Int32Array;
  readonly labels: Int32Array;
  /** Rows of each sequence, without padding. */
  readonly spans: readonly { readonly start: number; readonly length: number }[];
}

function spansOfPacked(offsets: Int32Array, rows: number): Sequences['spans'] {
  const isRising = offsets.every((row, i) => row > (offsets[i - 1] ?? -1));
  if (offsets.length < 2 || offsets[0] !== 0 || offsets.at(-1) !== rows || !isRising) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `offsets: expected rows that rise from 0 to ${rows}, that of inputIds`,
    );
  }
  return Array.from(offsets.subarray(1), (end, i) => {
    const start = offsets[i] as number;
    return { start, length: end - start };
  });
}

function checkSize(name: string, value: unknown): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 1) return value;
  throw typeError(
    'ERR_DIRALIGN_SHAPE',
    `${name}: expected a whole number of at least 1, or offsets, not ${describe(value)}`,
  );
}

function spansOfPadded(
  sequences: number,
  tokens: number,
  attentionMask: Int32Array,
): Sequences['spans'] {
  return Array.from({ length: sequences }, (_, i) => {
    const mask = attentionMask.subarray(i * tokens, (i + 1) * tokens);
    const end = mask.indexOf(0);
    const length = end < 0 ? tokens : end;
    if (length === 0 || mask.subarray(length).some((bit) => bit !== 0)) {
      throw rangeError(
        'ERR_DIRALIGN_SHAPE',
        `attentionMask: sequence ${i} does not begin with its tokens; ` +
          'expected padding on the right, as the collators have it',
      );
    }
    return { start: i * tokens, length };
  });
}

/** @throws DirAlignError for what no collator returns */
export function readSequences(batch: ScoredRows): Sequences {
  checkObject('batch', batch, 'ERR_DIRALIGN_SHAPE', 'what a collator returns');
  const given = readAll(batch, keys);
  const array = (name: (typeof keys)[number]): Int32Array =>
    checkArray(name, given[name], ['Int32Array'], 'ERR_DIRALIGN_LABEL').slice();
  const [inputIds, labels] = [array('inputIds'), array('labels')];
  const rows = inputIds.length;
  checkLength('labels', labels.length, rows, 'one per row');
  if (given.offsets !== undefined)
    return { inputIds, labels, spans: spansOfPacked(array('offsets'), rows) };
  const sequences = checkSize('sequences', given.sequences);
  const tokens = checkSize('tokens', given.tokens);
  checkLength('inputIds', rows, sequences * tokens, 'sequences times tokens');
  const attentionMask = array('attentionMask');
  checkLength('attentionMask', attentionMask.length, rows, 'one per row');
  return { inputIds, labels, spans: spansOfPadded(sequences, tokens, attentionMask) };
}

/** Sequences that are padded to the longest of them, on the right. */
export interface Part {
  /** [sequences, tokens]. */
  readonly dims: readonly [number, number];
  readonly inputIds: Int32Array;
  readonly attentionMask: Int32Array;
  readonly positionIds: Int32Array;
  readonly labels: Int32Array;
}

export function partOf({ inputIds, labels, spans }: Sequences, first: number, end: number): Part {
  const chosen = spans.slice(first, end);
  const tokens = chosen.reduce((most, { length }) => Math.max(most, length), 0);
  const rows = chosen.length * tokens;
  const part: Part = {
    dims: [chosen.length, tokens],
    inputIds: new Int32Array(rows),
    attentionMask: new Int32Array(rows),
    positionIds: new Int32Array(rows),
    labels: new Int32Array(rows).fill(-100),
  };
  chosen.forEach(({ start, length }, i) => {
    const row = i * tokens;
    part.inputIds.set(inputIds.subarray(start, start + length), row);
    part.labels.set(labels.subarray(start, start + length), row);
    part.attentionMask.fill(1, row, row + length);
    for (let t = 0; t < tokens; t++) part.positionIds[row + t] = Math.min(t, length - 1);
  });
  return part;
}
