// What a refusal must be, and the arrays that must be refused.
import { expect } from 'vitest';
import { DirAlignError } from '../../ts/index.js';

export type Kind = typeof TypeError | typeof RangeError;

export function expectRefusal(
  error: unknown,
  kind: Kind,
  code: string,
  words: readonly (string | RegExp)[],
): void {
  expect(error).toBeInstanceOf(DirAlignError);
  expect(error).toBeInstanceOf(kind);
  expect(error).toBeInstanceOf(Error);
  expect(error).toMatchObject({ name: 'DirAlignError', code: `ERR_DIRALIGN_${code}` });
  for (const word of words)
    expect((error as Error).message).toMatch(
      word instanceof RegExp ? word : new RegExp(escape(word)),
    );
}
const escape = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');

export function thrownBy(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}

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
