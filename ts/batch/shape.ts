/** Shapes of batches, and the offsets of packed ones. */
import { rangeError, typeError } from '../errors.js';
import { describe, isArray, written } from '../given.js';
import { checkArray, unshared } from './arrays.js';
import type { BatchRows } from './types.js';

/** Sequences, rows and vocabulary. */
export interface Layout {
  readonly sequences: number;
  readonly rows: number;
  readonly vocab: number;
  /** Of a packed batch; nobody else can write to them. */
  readonly offsets: Int32Array | undefined;
}

/** Without tokens. */
const maxEmptySequences = 2 ** 16;

/** The layout that `shape` and `offsets` say. */
export function checkShape(batch: BatchRows): Layout {
  const shape: unknown = batch.shape;
  if (!isArray(shape) || !shape.every((n) => Number.isSafeInteger(n) && (n as number) >= 0)) {
    throw typeError(
      'ERR_DIRALIGN_SHAPE',
      'shape: expected [sequences, tokens, vocab] or [rows, vocab] of whole numbers, ' +
        `not ${isArray(shape) ? written(shape) : describe(shape)}`,
    );
  }
  const dimensions = shape as number[];
  const vocab = dimensions.at(-1) ?? 0;
  if (dimensions.length !== 2 && dimensions.length !== 3) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `shape: ${String(dimensions.length)} dimensions; expected 3 (padded) or 2 (packed)`,
    );
  }
  // Of several processes one may have no columns.
  const least = batch.shard === undefined ? 1 : 0;
  if (vocab < least || vocab > 0x7fffffff) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `shape: vocab is ${String(vocab)}; expected ${least} to 2147483647`,
    );
  }
  return dimensions.length === 3
    ? paddedLayout(dimensions, vocab, batch.offsets)
    : packedLayout(dimensions, vocab, batch.offsets);
}

function paddedLayout(dimensions: readonly number[], vocab: number, offsets: unknown): Layout {
  if (offsets !== undefined) {
    throw typeError(
      'ERR_DIRALIGN_SHAPE',
      'offsets: only packed batches, of shape [rows, vocab], have them',
    );
  }
  const [sequences = 0, tokens = 0] = dimensions;
  // No array of the caller stands for sequences without tokens: a few are an edge, millions are a
  // mistake.
  if (tokens === 0 && sequences > maxEmptySequences) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `shape: ${sequences} sequences of no tokens; expected at most ${maxEmptySequences} of them`,
    );
  }
  return { sequences, rows: sequences * tokens, vocab, offsets: undefined };
}

function packedLayout(dimensions: readonly number[], vocab: number, given: unknown): Layout {
  // More often a shape that lacks a dimension than a packed batch that lacks its offsets.
  if (given === undefined) {
    throw typeError(
      'ERR_DIRALIGN_SHAPE',
      `offsets: undefined; expected an Int32Array, as shape ${written(dimensions)} is that of ` +
        'packed rows, or a shape of [sequences, tokens, vocab]',
    );
  }
  const rows = dimensions[0] ?? 0;
  const offsets = checkOffsets(given, rows);
  return { sequences: offsets.length - 1, rows, vocab, offsets };
}

function checkOffsets(value: unknown, rows: number): Int32Array {
  const offsets = unshared(checkArray('offsets', value, ['Int32Array'], 'ERR_DIRALIGN_SHAPE'));
  const last = offsets[offsets.length - 1];
  if (offsets.length < 1 || offsets[0] !== 0 || last !== rows) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `offsets: goes from ${String(offsets[0])} to ${String(last)}; ` +
        `expected 0 to rows, ${String(rows)}`,
    );
  }
  for (let i = 1; i < offsets.length; i++) {
    if ((offsets[i] as number) < (offsets[i - 1] as number)) {
      throw rangeError('ERR_DIRALIGN_SHAPE', `offsets: decreases at index ${String(i)}`);
    }
  }
  return offsets;
}
