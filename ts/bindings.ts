/** What the bindings to tensor libraries have in common: batches without logits, and the checks of what is not the core's to check. */
import { describe } from './arrays.js';
import { rangeError, typeError, type DirAlignErrorCode } from './errors.js';
import type { ObjectiveCalls } from './objective.js';

export const batchKeys: ReadonlySet<string> = new Set(['labels', 'ignoreIndex', 'reference', 'sftLabels', 'offsets']);

/** Sizes of an array; a size is its number, or what it stands for where any will do. */
export type Outline = readonly (string | number)[];

export function checkObjective(objective: ObjectiveCalls): void {
  if (typeof (objective as unknown) !== 'function' || typeof (objective.fromHidden as unknown) !== 'function') {
    throw typeError('ERR_DIRALIGN_OPTION', `objective: expected what dirAlignLoss returns, not ${describe(objective)}`);
  }
}

/** `[2, 3]`, as messages have it. */
export function written(shape: readonly unknown[]): string {
  return `[${shape.join(', ')}]`;
}

/** @throws DirAlignError with `code`, unless the shape is the expected one */
export function checkShape(
  name: string,
  shape: readonly number[],
  expected: Outline,
  code: DirAlignErrorCode = 'ERR_DIRALIGN_SHAPE',
  what = '',
): void {
  const fits = shape.length === expected.length && expected.every((size, i) => typeof size === 'string' || size === shape[i]);
  if (!fits) throw rangeError(code, `${name}: its shape is ${written(shape)}; expected ${written(expected)}${what}`);
}

/** Of logits or of hidden states: their last axis after those of the rows. */
export function rowsOutline(packed: boolean, last: string): Outline {
  return packed ? ['rows', last] : ['sequences', 'tokens', last];
}
