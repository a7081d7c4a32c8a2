// Arrays in device memory.
import { cuda as ours, type DeviceBuffer, type DeviceTensor } from '../../ts/index.js';
import type { LogitsBatch, StreamLike, WithReference } from '../../ts/index.js';
import type { Dtype } from './batches.js';

export type Elements = Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>;
export type DeviceBatch = LogitsBatch<DeviceTensor> & WithReference;
export type Cuda = Pick<typeof ours, 'alloc' | 'tensor'>;

/** Bytes around the data; a multiple of the alignment of CUDA's allocations. */
const guard = 256;
const guardByte = 0xa5;

export interface CopyOptions {
  /** Elements between an aligned address and the data. */
  readonly shift?: number;
  readonly stream?: StreamLike;
  readonly device?: number;
  /**
   * Without bytes around it: the allocation ends where the data does, which is what a memory
   * checker needs to see an access behind it.
   */
  readonly exact?: boolean;
}

/** A copy of an array in device memory, between bytes that nobody may touch. */
export class Copy<A extends Elements = Elements> implements Disposable {
  readonly tensor: DeviceTensor;
  readonly buffer: DeviceBuffer;
  readonly #array: A;
  readonly #begin: number;

  constructor(array: A, dtype: Dtype = 'float32', options: CopyOptions = {}, cuda: Cuda = ours) {
    const { shift = 0, stream = 0n, device = 0, exact = false } = options;
    const around = exact ? 0 : guard;
    this.#array = array;
    this.#begin = around + shift * array.BYTES_PER_ELEMENT;
    const placed = device === 0 ? { stream } : { device };
    this.buffer = cuda.alloc(this.#begin + array.byteLength + around, placed);
    this.buffer.fill(guardByte);
    this.write(array);
    // As foreign memory of exactly this length, which only the buffer keeps.
    this.tensor = cuda.tensor({
      ...{ ptr: this.buffer.ptr + BigInt(this.#begin), dtype, byteLength: array.byteLength },
      ...placed,
    });
  }

  write(array: A): void {
    if (array.byteLength > 0) this.buffer.copyFrom(array, { offset: this.#begin });
  }

  /** What is there now; fails where something beside it was written. */
  read(): A {
    const all = new Uint8Array(this.buffer.byteLength);
    this.buffer.copyTo(all);
    const end = this.#begin + this.#array.byteLength;
    const around = [all.subarray(0, this.#begin), all.subarray(end)];
    if (!around.every((bytes) => bytes.every((byte) => byte === guardByte)))
      throw new Error('memory around an array was written');
    const make = this.#array.constructor as new (buffer: ArrayBuffer) => A;
    return new make(all.buffer.slice(this.#begin, end));
  }

  dispose(): void {
    this.buffer.dispose();
  }
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** What a gradient that a call allocated holds; it is freed. */
export function takeGradient<A extends Elements>(gradient: DeviceTensor | undefined, like: A): A {
  if (gradient === undefined) throw new Error('there is no gradient');
  const array = new (like.constructor as new (length: number) => A)(like.length);
  if (array.length > 0) gradient.copyTo(array);
  gradient.dispose();
  return array;
}
