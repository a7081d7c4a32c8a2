// Numbers for the tests: a generator that is the same in every run, and the 16-bit formats by their definition.
import { decodeBfloat16, decodeFloat16 } from '../../ts/reference.js';

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

export interface Format {
  /** Digits of the significand behind its leading 1. */
  readonly fraction: number;
  /** Exponent of the smallest normal number. */
  readonly lowest: number;
}
export const formats = {
  float32: { fraction: 23, lowest: -126 },
  float16: { fraction: 10, lowest: -14 },
  bfloat16: { fraction: 7, lowest: -126 },
} as const satisfies Record<string, Format>;

/** The distance between neighbours of a format at |x|. */
export function ulp(x: number, { fraction, lowest }: Format): number {
  let exponent = Math.floor(Math.log2(Math.abs(x)));
  if (2 ** exponent > Math.abs(x)) exponent--;
  return 2 ** (Math.max(exponent, lowest) - fraction);
}

/** Nearest multiple of the format's spacing, ties to even. */
function roundTo(x: number, format: Format): number {
  if (x === 0 || !Number.isFinite(x)) return x;
  const unit = ulp(x, format);
  const quotient = x / unit;
  const below = Math.floor(quotient);
  const fraction = quotient - below;
  const up = fraction > 0.5 || (fraction === 0.5 && below % 2 !== 0);
  return (up ? below + 1 : below) * unit;
}

function encode(x: number, format: Format, exponentBits: number): number {
  const sign = x < 0 || Object.is(x, -0) ? 1 << (format.fraction + exponentBits) : 0;
  const special = (2 ** exponentBits - 1) << format.fraction;
  if (Number.isNaN(x)) return special | 1 | (1 << (format.fraction - 1));
  const magnitude = Math.abs(roundTo(x, format));
  if (magnitude >= 2 ** (-format.lowest + 2)) return sign | special;
  if (magnitude < 2 ** format.lowest) return sign | (magnitude / 2 ** (format.lowest - format.fraction));
  const exponent = Math.floor(Math.log2(magnitude));
  const significand = magnitude / 2 ** exponent - 1;
  return sign | ((exponent - format.lowest + 1) << format.fraction) | (significand * 2 ** format.fraction);
}

/** Bits of the nearest float16, ties to even. */
export function encodeFloat16(x: number): number {
  return encode(x, formats.float16, 5);
}

/** Bits of the nearest bfloat16, ties to even. */
export function encodeBfloat16(x: number): number {
  return encode(x, formats.bfloat16, 8);
}

export type HalfDtype = 'float16' | 'bfloat16';

export function encodeHalf(values: ArrayLike<number>, dtype: HalfDtype): Uint16Array<ArrayBuffer> {
  const one = dtype === 'float16' ? encodeFloat16 : encodeBfloat16;
  return Uint16Array.from({ length: values.length }, (_, i) => one(at(values, i)));
}

export function decodeHalf(bits: ArrayLike<number>, dtype: HalfDtype): Float64Array {
  const one = dtype === 'float16' ? decodeFloat16 : decodeBfloat16;
  return Float64Array.from({ length: bits.length }, (_, i) => one(at(bits, i)));
}

/** Whether two arrays hold the same bits: NaN payloads and signs of zero count. */
export function sameBits(a: ArrayBufferView, b: ArrayBufferView): boolean {
  const raw = (view: ArrayBufferView): Buffer => Buffer.from(view.buffer as ArrayBuffer, view.byteOffset, view.byteLength);
  // Empty ones may be detached.
  return a.byteLength === b.byteLength && (a.byteLength === 0 || raw(a).equals(raw(b)));
}

/** The value, which is there. */
export function present<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('a value is missing');
  return value;
}
