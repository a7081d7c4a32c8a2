/** Which tokens of a completion are scored, where not all are. */
import { allocate, checkLength } from '../batch/arrays.js';
import { typeError } from '../errors.js';
import { describe } from '../given.js';
import { checkCount, integersOf, type IntegerArray } from './token-ids.js';

/**
 * One per token of a completion: 1 or true where the model wrote it, 0 or false where it is context
 * only, such as what a tool gave back or a user said in between.
 */
export type TokenMask = readonly (number | bigint | boolean)[] | IntegerArray;

/** A copy, with what messages call it. */
export interface NamedMask {
  readonly name: string;
  /** 0 or 1 for each token. */
  readonly flags: Uint8Array;
}

/**
 * @param length tokens of the completion
 * @throws DirAlignError for what is no mask, or has another length
 */
export function checkMask(name: string, value: unknown, length: number): NamedMask | undefined {
  if (value === undefined) return undefined;
  const given = integersOf(name, value);
  if (given === undefined) {
    throw typeError(
      'ERR_DIRALIGN_LABEL',
      `${name}: expected 0 or 1 for each token, as an array or a typed array of integers, ` +
        `not ${describe(value)}`,
    );
  }
  const count = checkCount(name, given.length, 'ERR_DIRALIGN_LABEL');
  checkLength(name, count, length, 'one per token of the completion');
  const flags = allocate(name, 'Uint8Array', length);
  for (let i = 0; i < length; i++) flags[i] = flagOf(`${name}[${i}]`, given[i]);
  return { name, flags };
}

function flagOf(name: string, value: unknown): 0 | 1 {
  if (value === 1 || value === true || value === 1n) return 1;
  if (value === 0 || value === false || value === 0n) return 0;
  throw typeError('ERR_DIRALIGN_LABEL', `${name}: expected 0 or 1, not ${describe(value)}`);
}
