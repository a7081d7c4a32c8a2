/**
 * Typed arrays that native code reads or writes. The engine tells their kind, length and buffer,
 * never the object, whose own properties, class and realm change nothing.
 */
import { types } from 'node:util';
import { rangeError, typeError, type DirAlignErrorCode } from '../errors.js';
import { describe } from '../given.js';
import type { Float16ArrayLike } from '../dtype.js';

const typedArray = Object.getPrototypeOf(Uint8Array.prototype) as object;

type Getter<Value> = (object: unknown) => Value;

/**
 * The engine's getter, which works on any object of any realm; undefined where the engine has none.
 */
function engine(prototype: object, key: PropertyKey): Getter<unknown> | undefined {
  const { get } = (Object.getOwnPropertyDescriptor(prototype, key) ?? {}) as {
    readonly get?: (this: unknown) => unknown;
  };
  return get && ((object) => get.call(object));
}

const lengthOf = engine(typedArray, 'length') as Getter<number>;
const bufferOfTyped = engine(typedArray, 'buffer') as Getter<ArrayBufferLike>;
const offsetOfTyped = engine(typedArray, 'byteOffset') as Getter<number>;
/** Of a typed array; 0 once it is detached. */
export const bytesOfTyped = engine(typedArray, 'byteLength') as Getter<number>;
const bufferOfData = engine(DataView.prototype, 'buffer') as Getter<ArrayBufferLike>;
const offsetOfData = engine(DataView.prototype, 'byteOffset') as Getter<number>;
const bytesOfData = engine(DataView.prototype, 'byteLength') as Getter<number>;
const isResizable = engine(ArrayBuffer.prototype, 'resizable') as Getter<boolean> | undefined;
const isGrowable = engine(SharedArrayBuffer.prototype, 'growable') as Getter<boolean> | undefined;

/** The kind of a typed array, for instance 'Float32Array'; undefined for anything else. */
export const tagOf = engine(typedArray, Symbol.toStringTag) as Getter<string | undefined>;

/** Constructors of this realm. */
const constructors = {
  Float32Array,
  Float64Array,
  Int32Array,
  Int8Array,
  Uint8Array,
  Int16Array,
  Uint16Array,
  Uint32Array,
  BigInt64Array,
  BigUint64Array,
  Float16Array: (globalThis as { readonly Float16Array?: unknown })
    .Float16Array as Uint16ArrayConstructor,
} as const;
export type Kind = keyof typeof constructors;
type Instance<K extends Kind> = InstanceType<(typeof constructors)[K]>;

export function isFloat16Array(value: unknown): value is Float16ArrayLike {
  return tagOf(value) === 'Float16Array';
}

/** Where a view lies in its buffer. */
export interface Span {
  readonly buffer: ArrayBufferLike;
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** @throws TypeError on an out-of-bounds DataView, which checkBuffer refuses first */
export function spanOf(view: ArrayBufferView): Span {
  return tagOf(view) === undefined
    ? { buffer: bufferOfData(view), byteOffset: offsetOfData(view), byteLength: bytesOfData(view) }
    : {
        buffer: bufferOfTyped(view),
        byteOffset: offsetOfTyped(view),
        byteLength: bytesOfTyped(view),
      };
}

const isShared = (view: ArrayBufferView): boolean => types.isSharedArrayBuffer(bufferOfTyped(view));

/**
 * A view that native code may read and write: neither detached nor able to change its size
 * meanwhile.
 */
export function checkBuffer(name: string, view: ArrayBufferView): void {
  const buffer = tagOf(view) === undefined ? bufferOfData(view) : bufferOfTyped(view);
  if (types.isSharedArrayBuffer(buffer) ? isGrowable?.(buffer) : isResizable?.(buffer)) {
    const kind = types.isSharedArrayBuffer(buffer)
      ? 'SharedArrayBuffer is growable'
      : 'ArrayBuffer is resizable';
    throw typeError(
      'ERR_DIRALIGN_SHAPE',
      `${name}: its ${kind}; pass an array over one of fixed length`,
    );
  }
  if (isDetached(buffer)) {
    throw typeError(
      'ERR_DIRALIGN_SHAPE',
      `${name}: its ArrayBuffer is detached (transferred elsewhere)`,
    );
  }
}

const byteLengthOf = engine(ArrayBuffer.prototype, 'byteLength') as Getter<number>;

export function isDetached(buffer: ArrayBufferLike): boolean {
  if (types.isSharedArrayBuffer(buffer) || byteLengthOf(buffer) > 0) return false;
  try {
    new Uint8Array(buffer);
    return false;
  } catch {
    return true;
  }
}

/** The same memory as an array of this realm, without a class or properties of its own. */
export function plain<K extends Kind>(kind: K, view: ArrayBufferView): Instance<K> {
  const constructor = constructors[kind];
  if (Object.getPrototypeOf(view) === constructor.prototype && !Object.hasOwn(view, 'length'))
    return view as Instance<K>;
  return new constructor(
    bufferOfTyped(view) as ArrayBuffer,
    offsetOfTyped(view),
    lengthOf(view),
  ) as Instance<K>;
}

/**
 * The array, of one of these kinds, checked and {@link plain}.
 * @throws DirAlignError with `code` for another kind, with ERR_DIRALIGN_SHAPE for memory that may
 *   change its size or is gone
 */
export function checkArray<K extends Kind>(
  name: string,
  value: unknown,
  kinds: readonly K[],
  code: DirAlignErrorCode,
): Instance<K> {
  const kind = tagOf(value) as K | undefined;
  if (kind === undefined || !kinds.includes(kind)) {
    throw typeError(
      code,
      `${name}: expected ${kinds.join(' or ')}, not ${kind ?? describe(value)}`,
    );
  }
  checkBuffer(name, value as ArrayBufferView);
  return plain(kind, value as ArrayBufferView);
}

/**
 * An array that nobody else can write to while it is checked and used: a copy of shared memory,
 * otherwise the array itself.
 */
export function unshared<A extends Int32Array | Float32Array | Float64Array>(array: A): A {
  // By the engine: `slice` may be the array's own.
  return isShared(array) ? (new constructors[tagOf(array) as 'Int32Array'](array) as A) : array;
}

/** The bytes of any view, for native code. */
export function bytesOf(name: string, view: unknown): Uint8Array {
  if (!ArrayBuffer.isView(view)) {
    throw typeError('ERR_DIRALIGN_DTYPE', `${name}: expected a typed array, not ${describe(view)}`);
  }
  checkBuffer(name, view);
  const { buffer, byteOffset, byteLength } = spanOf(view);
  return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
}

export function checkLength(name: string, length: number, expected: number, of: string): void {
  if (length !== expected) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `${name}: length ${length}; expected ${expected}, ${of}`,
    );
  }
}

/**
 * A fresh array of this realm, all 0. The system zeroes its pages on first touch: what is not
 * written costs nothing.
 * @throws DirAlignError with code ERR_DIRALIGN_MEMORY
 */
export function allocate<K extends Kind>(name: string, kind: K, length: number): Instance<K> {
  const constructor = constructors[kind];
  try {
    return new constructor(length) as Instance<K>;
  } catch (cause) {
    throw outOfMemory(name, length * constructor.BYTES_PER_ELEMENT, cause);
  }
}

export const bytesPerElement = (kind: Kind): number => constructors[kind].BYTES_PER_ELEMENT;

/** The beginning of a buffer, as an array of this realm. */
export function viewOf<K extends Kind>(kind: K, buffer: ArrayBuffer, length: number): Instance<K> {
  return new constructors[kind](buffer, 0, length) as Instance<K>;
}

/** An allocation that the system, or the engine, refused. */
export function outOfMemory(what: string, bytes: number | undefined, cause: unknown): Error {
  const size = bytes === undefined ? 'memory' : `${bytes} bytes`;
  return rangeError('ERR_DIRALIGN_MEMORY', `${what}: ${size} could not be allocated`, { cause });
}
