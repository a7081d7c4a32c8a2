// What a refusal must be, and the arrays that must be refused.
import { inspect } from 'node:util';
import { expect } from 'vitest';
import { DirAlignError } from '../../ts/index.js';

/** The class and the code of an error. */
export type Kind = `${'TypeError' | 'RangeError'} ${string}`;
/** What its message has, as text with ` | ` between. */
export type Words = string | readonly (string | RegExp)[];

/** @param thrown the error, or what throws it */
export function expectRefusal(thrown: unknown, kind: Kind, words: Words): void {
  const error = typeof thrown === 'function' ? thrownBy(thrown as () => unknown) : thrown;
  const [name, code] = kind.split(' ');
  expect(error).toBeInstanceOf(DirAlignError);
  expect(error).toBeInstanceOf(name === 'TypeError' ? TypeError : RangeError);
  expect(error).toMatchObject({ name: 'DirAlignError', code: `ERR_DIRALIGN_${code}` });
  for (const word of typeof words === 'string' ? words.split(' | ') : words) {
    if (word instanceof RegExp) expect((error as Error).message).toMatch(word);
    else expect((error as Error).message).toContain(word);
  }
}

export function thrownBy(action: () => unknown): Error & { readonly code?: string } {
  try {
    action();
  } catch (error) {
    return error as Error;
  }
  throw new Error('nothing was thrown');
}

/** The error of what is rejected. */
export async function rejection(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error('nothing was rejected');
}

/** Cases of a table that are named after what is done in them. */
export const titled = <R extends readonly [unknown, ...unknown[]]>(
  rows: readonly R[],
): (readonly [string, ...R])[] =>
  rows.map((row) => {
    const [what] = row;
    const text =
      typeof what === 'function' ? String(what) : inspect(what, { breakLength: Infinity });
    return [
      text
        .replace(/\s+/g, ' ')
        .replace(/^\(\w*\) => /, '')
        .slice(0, 120),
      ...row,
    ];
  });

/** Every array in a value, with its bits. */
export function arraysIn(value: unknown): [ArrayBufferView, Buffer][] {
  if (ArrayBuffer.isView(value)) {
    const bytes =
      value.byteLength === 0
        ? Buffer.alloc(0)
        : Buffer.from(value.buffer as ArrayBuffer, value.byteOffset, value.byteLength);
    return [[value, Buffer.from(bytes)]];
  }
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(arraysIn) : [];
}

export function detached<T extends ArrayBufferView>(view: T): T {
  structuredClone(view.buffer, { transfer: [view.buffer as ArrayBuffer] });
  return view;
}
type Resizable = new (bytes: number, options: { maxByteLength: number }) => ArrayBuffer;
export function resizable(bytes: number): ArrayBuffer {
  return new (ArrayBuffer as unknown as Resizable)(bytes, { maxByteLength: 2 * bytes });
}
