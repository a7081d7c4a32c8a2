/** Token ids, as callers give them. */
import { checkArray, tagOf } from '../batch/arrays.js';
import { rangeError, typeError, type DirAlignErrorCode } from '../errors.js';
import { describe, isArray } from '../given.js';

/** What tokenizers give: 64-bit tensors have big integers. */
export type IntegerArray =
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

/** Whole numbers from 0 to 2147483647, as numbers or big integers. */
export type TokenIds = readonly (number | bigint)[] | IntegerArray;

const integerKinds = [
  ...(['Int8Array', 'Uint8Array', 'Int16Array', 'Uint16Array'] as const),
  ...(['Int32Array', 'Uint32Array', 'BigInt64Array', 'BigUint64Array'] as const),
];

/**
 * An array of integers, checked; undefined for anything else.
 * @throws DirAlignError with code ERR_DIRALIGN_SHAPE for one over memory that is gone or may move
 */
export function integersOf(name: string, value: unknown): TokenIds | undefined {
  if (isArray(value)) return value as readonly number[];
  const kind = tagOf(value);
  return (integerKinds as readonly (string | undefined)[]).includes(kind)
    ? checkArray(name, value, integerKinds, 'ERR_DIRALIGN_LABEL')
    : undefined;
}

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
  const given: unknown = ids[i];
  // A big integer that no number stands for is far beyond any id.
  const id = typeof given === 'bigint' ? Number(given) : given;
  if (typeof id !== 'number') {
    throw typeError(
      'ERR_DIRALIGN_LABEL',
      `${name}[${i}]: expected a token id, not ${describe(id)}`,
    );
  }
  if (!Number.isInteger(id) || id < 0 || id > maxInt32) {
    throw rangeError(
      'ERR_DIRALIGN_LABEL',
      `${name}[${i}]: ${describe(given)} is not a whole number from 0 to ${maxInt32}`,
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
  const ids = integersOf(name, value);
  if (ids === undefined) {
    throw typeError(
      'ERR_DIRALIGN_LABEL',
      `${name}: expected token ids as an array or a typed array of integers, ` +
        `not ${describe(value)}`,
    );
  }
  const named = { name, ids, length: checkCount(name, ids.length, 'ERR_DIRALIGN_LABEL') };
  for (let i = 0; i < named.length; i++) idAt(named, i);
  return named;
}
