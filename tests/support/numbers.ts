// Numbers for the tests, from a generator that is the same in every run.
import { decoder, encode } from '../../ts/verification/verification.js';

/** An element that is known to be there. */
export function at(array: ArrayLike<number>, index: number): number {
  return array[index] ?? NaN;
}

export type Random = () => number;

/** Uniform numbers in [0, 1) (mulberry32). */
export function generator(seed: number): Random {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A normal deviate (Box-Muller). */
export function normal(random: Random): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** A whole number in [low, high]. */
export function integer(random: Random, low: number, high: number): number {
  return low + Math.floor(random() * (high - low + 1));
}

export function choose<T>(random: Random, values: readonly T[]): T {
  return values[integer(random, 0, values.length - 1)] as T;
}

export type HalfDtype = 'float16' | 'bfloat16';

export function encodeHalf(values: ArrayLike<number>, dtype: HalfDtype): Uint16Array<ArrayBuffer> {
  return Uint16Array.from({ length: values.length }, (_, i) => encode(at(values, i), dtype));
}

export function decodeHalf(bits: ArrayLike<number>, dtype: HalfDtype): Float64Array {
  const decode = decoder(dtype);
  return Float64Array.from({ length: bits.length }, (_, i) => decode(at(bits, i)));
}

/** Whether two arrays hold the same bits: NaN payloads and signs of zero count. */
export function sameBits(a: ArrayBufferView, b: ArrayBufferView): boolean {
  const raw = (view: ArrayBufferView): Buffer =>
    Buffer.from(view.buffer as ArrayBuffer, view.byteOffset, view.byteLength);
  // Empty ones may be detached.
  return a.byteLength === b.byteLength && (a.byteLength === 0 || raw(a).equals(raw(b)));
}

/** The value, which is there. */
export function present<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('a value is missing');
  return value;
}
