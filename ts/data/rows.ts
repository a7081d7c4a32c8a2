/** Rows that a program gives, read once: whatever getters and Proxies do later. */
import { tagOf } from '../batch/arrays.js';
import { isArray, messageOf } from '../given.js';
import { isObject, kindOf, Refusal } from './records.js';
import { checkCount } from './token-ids.js';

/** No preference is nested as deeply; what holds itself is. */
const deepest = 100;

/** As JSON has it: numbers for big integers that are exact as numbers, arrays for typed arrays. */
function plainOf(name: string, value: unknown, depth: number): unknown {
  if (typeof value === 'bigint') {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : value;
  }
  if (typeof value !== 'object' || value === null) return value;
  if (depth > deepest)
    throw new Refusal('object', `${name}: is nested more than ${deepest} deep, or holds itself`);
  if (isArray(value)) {
    const length = checkCount(name, value.length, 'ERR_DIRALIGN_FILE');
    const elements: unknown[] = [];
    for (let i = 0; i < length; i++) {
      const element: unknown = value[i];
      // An array that has none may say any length of itself.
      if (element === undefined) throw new Refusal('object', `${name}[${i}]: is undefined`);
      elements.push(plainOf(`${name}[${i}]`, element, depth + 1));
    }
    return elements;
  }
  if (ArrayBuffer.isView(value)) {
    if (tagOf(value) === undefined) return value;
    const elements = Array.from(value as unknown as ArrayLike<unknown>);
    return elements.map((element) => plainOf(name, element, depth + 1));
  }
  const { toJSON } = value as { readonly toJSON?: unknown };
  if (typeof toJSON === 'function') return plainOf(name, toJSON.call(value), depth + 1);
  return Object.fromEntries(
    Object.keys(value).map((key) => {
      const inner = (value as Readonly<Record<string, unknown>>)[key];
      return [key, plainOf(`${name}.${key}`, inner, depth + 1)];
    }),
  );
}

/**
 * A row as a line would have it: each of its fields read once, those of `known` with all that is in
 * them. Others stay what they are.
 * @throws Refusal for what is no object, or cannot be read
 */
export function rowOf(row: unknown, known: ReadonlySet<string>): object {
  if (!isObject(row)) {
    throw new Refusal(
      'object',
      `expected an object with a prompt and completions, not ${kindOf(row)}`,
    );
  }
  try {
    const { toJSON } = row as { readonly toJSON?: unknown };
    const fields: unknown = typeof toJSON === 'function' ? toJSON.call(row) : row;
    if (!isObject(fields)) throw new Error(`its toJSON gives ${kindOf(fields)}`);
    return Object.fromEntries(
      Object.keys(fields).map((key) => {
        const value = (fields as Readonly<Record<string, unknown>>)[key];
        return [key, known.has(key) ? plainOf(key, value, 0) : value];
      }),
    );
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal('object', `cannot be read: ${messageOf(error)}`, error);
  }
}
