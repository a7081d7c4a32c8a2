// Batches in device memory.
import { expect, test } from 'vitest';
import {
  cuda,
  type DeviceBuffer,
  type DeviceTensor,
  type LogitsBatch,
  type StreamLike,
  type WithReference,
} from '../../ts/index.js';
import type { Dtype } from './batches.js';

/**
 * To be registered by every suite that needs a device: where one must be there, being without is a
 * failure and not a skip.
 */
export function expectDevice(): void {
  test('CUDA is available where it is expected', () => {
    if (process.env.DIRALIGN_EXPECT_CUDA === '1') expect(cuda.reason).toBeUndefined();
    else expect(cuda.available).toBe(cuda.reason === undefined);
  });
}

export type Elements = Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>;
export type DeviceBatch = LogitsBatch<DeviceTensor> & WithReference;

const guard = 256;
const guardByte = 0xa5;

/**
 * A copy of an array in device memory, `shift` elements behind an aligned address, between bytes
 * that nobody may touch.
 */
export class Copy<A extends Elements = Elements> implements Disposable {
  readonly tensor: DeviceTensor;
  readonly buffer: DeviceBuffer;
  readonly #array: A;
  readonly #begin: number;

  constructor(
    array: A,
    dtype: Dtype = 'float32',
    options: { readonly shift?: number; readonly stream?: StreamLike } = {},
  ) {
    const { shift = 0, stream = 0n } = options;
    this.#array = array;
    this.#begin = guard + shift * array.BYTES_PER_ELEMENT;
    this.buffer = cuda.alloc(this.#begin + array.byteLength + guard, { stream });
    this.buffer.fill(guardByte);
    this.buffer.copyFrom(array, { offset: this.#begin });
    // As foreign memory of exactly this length, which only the buffer keeps.
    this.tensor = cuda.tensor({
      ptr: this.buffer.ptr + BigInt(this.#begin),
      dtype,
      stream,
      byteLength: array.byteLength,
    });
  }

  /** What is there now; fails where something beside it was written. */
  read(): A {
    const all = new Uint8Array(this.buffer.byteLength);
    this.buffer.copyTo(all);
    const end = this.#begin + this.#array.byteLength;
    const touched = all.findIndex((byte, i) => (i < this.#begin || i >= end) && byte !== guardByte);
    if (touched >= 0)
      throw new Error(`byte ${touched - this.#begin} of ${this.#array.byteLength} was written`);
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
  gradient.copyTo(array);
  gradient.dispose();
  return array;
}
