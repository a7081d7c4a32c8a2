/** Checks of arrays that native code is to read or write, and how messages name values. */
import { rangeError, typeError } from './errors.js';
import type { Float16ArrayLike } from './types.js';

/** A value as a message names it: primitives as they are, objects by their class. */
export function describe(value: unknown): string {
  if (typeof value === 'string') return `'${value}'`;
  if (typeof value === 'function') return 'a function';
  if (typeof value === 'object' && value !== null)
    return (value as { constructor?: { name?: string } }).constructor?.name ?? 'an object';
  return String(value);
}

/** The kind of a typed array. An array of another realm (a vm context, a test runner) has the same. */
export function tagOf(value: unknown): string | undefined {
  return ArrayBuffer.isView(value)
    ? ((value as unknown as Record<symbol, unknown>)[Symbol.toStringTag] as string | undefined)
    : undefined;
}

export function isFloat16Array(value: unknown): value is Float16ArrayLike {
  return tagOf(value) === 'Float16Array';
}

/** A view that native code may read and write: neither detached nor able to shrink under it. */
export function checkBuffer(name: string, view: ArrayBufferView): void {
  const buffer = view.buffer as ArrayBufferLike & { readonly resizable?: boolean };
  if (buffer instanceof ArrayBuffer && buffer.resizable) {
    throw typeError('ERR_DIRALIGN_SHAPE', `${name}: its ArrayBuffer is resizable; pass an array over one of fixed length`);
  }
  if (view.byteLength === 0 && isDetached(buffer)) {
    throw typeError('ERR_DIRALIGN_SHAPE', `${name}: its ArrayBuffer is detached (transferred elsewhere)`);
  }
}

function isDetached(buffer: ArrayBufferLike): boolean {
  try {
    new Uint8Array(buffer);
    return false;
  } catch {
    return true;
  }
}

export function checkArray(
  name: string,
  value: unknown,
  types: readonly string[],
  code: 'ERR_DIRALIGN_DTYPE' | 'ERR_DIRALIGN_REFERENCE' | 'ERR_DIRALIGN_LABEL' | 'ERR_DIRALIGN_SHAPE',
): ArrayBufferView & { readonly length: number } {
  if (!types.includes(tagOf(value) ?? '')) {
    throw typeError(code, `${name}: expected ${types.join(' or ')}, not ${describe(value)}`);
  }
  checkBuffer(name, value as ArrayBufferView);
  return value as ArrayBufferView & { readonly length: number };
}

export function checkLength(name: string, length: number, expected: number, of: string): void {
  if (length !== expected) {
    throw rangeError('ERR_DIRALIGN_SHAPE', `${name}: length ${String(length)}; expected ${String(expected)}, ${of}`);
  }
}

export function overlap(a: ArrayBufferView, b: ArrayBufferView): boolean {
  return a.buffer === b.buffer && a.byteOffset < b.byteOffset + b.byteLength && b.byteOffset < a.byteOffset + a.byteLength;
}
