/** Token ids, as callers give them. */
import { checkArray, tagOf } from '../batch/arrays.js';
import { rangeError, typeError, type DirAlignErrorCode } from '../errors.js';
import { describe, isArray } from '../given.js';

/** Whole numbers from 0 to 2147483647. */
export type TokenIds = readonly number[] | Int32Array;

export const maxInt32 = 0x7fffffff;

/**
 * Ids with what messages call them. Each id is checked whenever it is read: an array may have
 * getters, or be written meanwhile, and a copy of every example would double its memory.
 */
export interface NamedIds {
  readonly name: string;
  readonly ids: TokenIds;
  readonly length: number;
}

/** @throws DirAlignError where the element is no token id */
export function idAt({ name, ids }: NamedIds, i: number): number {
  const id: unknown = ids[i];
  if (typeof id !== 'number') {
    throw typeError(
      'ERR_DIRALIGN_LABEL',
      `${name}[${i}]: expected a token id, not ${describe(id)}`,
    );
  }
  if (!Number.isInteger(id) || id < 0 || id > maxInt32) {
    throw rangeError(
      'ERR_DIRALIGN_LABEL',
      `${name}[${i}]: ${id} is not a whole number from 0 to ${maxInt32}`,
    );
  }
  return id;
}

/**
 * @param length what an array says of itself: a Proxy may say anything
 * @throws DirAlignError for what no array has that memory could hold
 */
export function checkCount(name: string, length: unknown, code: DirAlignErrorCode): number {
  if (Number.isInteger(length) && (length as number) >= 0 && (length as number) < 2 ** 32)
    return length as number;
  throw rangeError(code, `${name}: its length is ${describe(length)}; expected that of an array`);
}

/** @throws DirAlignError for anything but token ids */
export function checkIds(name: string, value: unknown): NamedIds {
  if (!isArray(value) && tagOf(value) !== 'Int32Array') {
    throw typeError(
      'ERR_DIRALIGN_LABEL',
      `${name}: expected an array or an Int32Array of token ids, not ${describe(value)}`,
    );
  }
  const ids = isArray(value)
    ? (value as readonly number[])
    : checkArray(name, value, ['Int32Array'], 'ERR_DIRALIGN_LABEL');
  const named = { name, ids, length: checkCount(name, ids.length, 'ERR_DIRALIGN_LABEL') };
  for (let i = 0; i < named.length; i++) idAt(named, i);
  return named;
}
