// Arrays of a caller, between bytes that nobody may touch, on the host and on a device.
import type { DeviceTensor } from '../../ts/index.js';
import type { Dtype } from '../support/batches.js';
import { Copy, type Elements } from '../support/device.js';
import { sameBits } from '../support/numbers.js';

export type HostArray =
  | Float32Array<ArrayBuffer>
  | Float64Array<ArrayBuffer>
  | Int32Array<ArrayBuffer>
  | Uint8Array<ArrayBuffer>
  | Uint16Array<ArrayBuffer>;
export type View = ArrayBufferView & ArrayLike<number>;
export type Constructor = new (
  buffer: ArrayBufferLike,
  byteOffset: number,
  length: number,
) => HostArray;

/** Of runtimes that have one. */
export const Float16 = (globalThis as unknown as { readonly Float16Array?: Constructor })
  .Float16Array;

/** Memory that a call reads or writes, and what it held before. */
export interface Held {
  /** What the batch or `out` is given. */
  readonly value: View | DeviceTensor;
  /** Takes what it holds now for what it held before the call. */
  remember(): void;
  /** What is wrong with it now: bytes beside it were written or, unless it may be, its own. */
  fault(mayBeWritten: boolean): string | undefined;
  bytes(): Uint8Array;
  dispose(): void;
}

const guardBytes = 64;
const guardByte = 0xa5;

export class Guarded implements Held {
  value: HostArray;
  #all: Uint8Array;
  #before: Uint8Array<ArrayBuffer>;

  /** A copy of the values, `shift` elements behind an aligned address. */
  constructor(
    values: HostArray,
    options: {
      readonly shift?: number;
      readonly shared?: boolean;
      readonly kind?: Constructor;
    } = {},
  ) {
    const { shift = 0, shared = false, kind = values.constructor as Constructor } = options;
    const begin = guardBytes + shift * values.BYTES_PER_ELEMENT;
    const length = begin + values.byteLength + guardBytes;
    this.#all = new Uint8Array(shared ? new SharedArrayBuffer(length) : new ArrayBuffer(length));
    this.#all.fill(guardByte);
    this.#all.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), begin);
    this.value = new kind(this.#all.buffer, begin, values.length);
    this.#before = this.#all.slice();
  }

  /** Moves into a buffer that someone else made, of at least these bytes. */
  move(make: (byteLength: number) => ArrayBufferLike): void {
    const { constructor, byteOffset, length } = this.value;
    const all = new Uint8Array(make(this.#all.length), 0, this.#all.length);
    all.set(this.#all);
    this.#all = all;
    this.value = new (constructor as Constructor)(all.buffer, byteOffset, length);
    this.remember();
  }

  /** Whether the memory was transferred. */
  get isGone(): boolean {
    return this.#all.buffer.byteLength === 0;
  }

  remember(): void {
    if (!this.isGone) this.#before = this.#all.slice();
  }

  fault(mayBeWritten: boolean): string | undefined {
    const { byteOffset, byteLength } = this.value;
    if (this.isGone) return undefined;
    const before = this.#before;
    const touched = this.#all.findIndex((byte, i) => byte !== before[i]);
    if (touched < 0) return undefined;
    const inside = (i: number): boolean => i >= byteOffset && i < byteOffset + byteLength;
    if (!mayBeWritten && inside(touched)) return `byte ${touched - byteOffset} was written`;
    const beside = this.#all.findIndex((byte, i) => !inside(i) && byte !== before[i]);
    return beside < 0
      ? undefined
      : `byte ${beside - byteOffset} of an array of ${byteLength} was written`;
  }

  bytes(): Uint8Array {
    if (this.isGone) return new Uint8Array(0);
    return new Uint8Array(this.value.buffer, this.value.byteOffset, this.value.byteLength).slice();
  }

  dispose(): void {
    // The collector has it.
  }
}

export class OnDevice implements Held {
  readonly value: DeviceTensor;
  readonly copy: Copy;
  #before: Elements;

  constructor(values: Elements, dtype: Dtype, shift: number) {
    this.copy = new Copy(values, dtype, { shift });
    this.value = this.copy.tensor;
    this.#before = values.slice();
  }

  remember(): void {
    if (!this.copy.buffer.disposed) this.#before = this.copy.read();
  }

  fault(mayBeWritten: boolean): string | undefined {
    if (this.copy.buffer.disposed) return undefined;
    try {
      const now = this.copy.read();
      return mayBeWritten || sameBits(now, this.#before) ? undefined : 'it was written';
    } catch (error) {
      return (error as Error).message;
    }
  }

  bytes(): Uint8Array {
    if (this.copy.buffer.disposed) return new Uint8Array(0); // a twist freed it
    const { buffer, byteOffset, byteLength } = this.copy.read();
    return new Uint8Array(buffer, byteOffset, byteLength);
  }

  dispose(): void {
    this.copy.dispose();
  }
}
