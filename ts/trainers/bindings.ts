/**
 * What the bindings to tensor libraries have in common: batches without logits, and the checks of
 * what is not the core's to check.
 */
import { fieldNames, transformNames } from '../batch/fields.js';
import type { BatchFields, LogitTransforms } from '../batch/types.js';
import { rangeError, typeError, type DirAlignErrorCode } from '../errors.js';
import { describe } from '../given.js';
import type { ObjectiveCalls } from '../objective.js';

/** What batches carry besides, in host memory whatever the library. */
export interface Carried extends BatchFields, LogitTransforms {}

const carriedKeys = [...fieldNames, 'groups', ...transformNames] as const;

export const batchKeys = [
  'labels',
  'ignoreIndex',
  'reference',
  'sftLabels',
  'offsets',
  ...carriedKeys,
] as const;

/** That part of a batch whose properties were read. */
export function carriedBy(batch: Carried): Carried {
  return Object.fromEntries(carriedKeys.map((key) => [key, batch[key]]));
}

/** Sizes of an array; a size is its number, or what it stands for where any will do. */
export type Outline = readonly (string | number)[];

export function checkObjective(objective: ObjectiveCalls): void {
  if (
    typeof (objective as unknown) !== 'function' ||
    typeof (objective.fromHidden as unknown) !== 'function'
  ) {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `objective: expected what dirAlignLoss returns, not ${describe(objective)}`,
    );
  }
}

/** @throws DirAlignError with `code`, unless the shape is the expected one */
export function checkShape(
  name: string,
  shape: readonly number[],
  expected: Outline,
  code: DirAlignErrorCode = 'ERR_DIRALIGN_SHAPE',
  what = '',
): void {
  const fits =
    shape.length === expected.length &&
    expected.every((size, i) => typeof size === 'string' || size === shape[i]);
  if (!fits)
    throw rangeError(
      code,
      `${name}: its shape is [${shape.join(', ')}]; expected [${expected.join(', ')}]${what}`,
    );
}

/** Of logits or of hidden states: their last axis after those of the rows. */
export function rowsOutline(packed: boolean, last: string): Outline {
  return packed ? ['rows', last] : ['sequences', 'tokens', last];
}
