/** Labels of rows. The native side looks at their values, and reports one that is wrong. */
import { rangeError, type DirAlignError } from '../errors.js';
import { describe } from '../given.js';
import type { BadLabel, BatchRequest } from '../native/interface.js';
import { checkArray, checkLength, unshared } from './arrays.js';

/**
 * Labels by row, of either term, in memory that nobody else can write to. The native side checks
 * their values.
 */
export function checkLabels(
  name: 'labels' | 'sftLabels',
  value: unknown,
  rows: number,
): Int32Array {
  const labels = checkArray(name, value, ['Int32Array'], 'ERR_DIRALIGN_LABEL');
  checkLength(name, labels.length, rows, 'one per row');
  return unshared(labels);
}

/** The label of rows that are not scored: -100 by default. */
export function checkIgnoreIndex(value: unknown): number {
  const index = value ?? -100;
  if (typeof index === 'number' && (index | 0) === index) return index;
  throw rangeError('ERR_DIRALIGN_LABEL', `ignoreIndex: ${describe(index)} is not a 32-bit integer`);
}

/** The error of a label that the native side found. */
export function labelError(bad: BadLabel, request: BatchRequest): DirAlignError {
  const name = bad.sft ? 'sftLabels' : 'labels';
  return rangeError(
    'ERR_DIRALIGN_LABEL',
    `${name}[${String(bad.row)}]: ${String(bad.label)} is neither ignoreIndex, ` +
      `${String(request.ignoreIndex)}, nor in [0, ` +
      `${String(request.parallel?.words ?? request.vocab)})`,
  );
}
