// The bounds that results are held to, against float64 values of the already rounded inputs.
import { at, formats, ulp, type HalfDtype } from './numbers.js';

/** The smallest positive float32: what rounding to float32 costs a number that is nearly 0. */
const subnormal = 2 ** -149;

/** Losses: 1e-6 of the value, or 1e-6 where it is below 1. */
export function lossBound(expected: number): number {
  return 1e-6 * Math.max(1, Math.abs(expected));
}

/** A log-probability summed over so many tokens. */
export function logpBound(expected: number, tokens: number): number {
  return 1e-6 * tokens + 1e-6 * Math.abs(expected);
}

/**
 * An element of the gradient. `scale` is |coefficient| * probability, at the label |coefficient| * (1 - probability); `largest`
 * the largest element of the whole gradient.
 */
export function gradientBound(scale: number, largest: number): number {
  return 1e-5 * scale + 1e-9 * largest + subnormal;
}

/** A 16-bit element: half a unit for its rounding, a hundredth for the float32 value it was rounded from. */
export function halfBound(expected: number, dtype: HalfDtype): number {
  return 0.51 * ulp(expected, formats[dtype]);
}

/** What was looked at; a function where saying it costs more than looking. */
type What = string | (() => string);
const say = (what: What): string => (typeof what === 'string' ? what : what());

/** Collects what is out of bounds; `expect(misses.list).toEqual([])`. */
export class Misses {
  readonly list: string[] = [];
  /** The largest error met, in units of its bound. */
  worst = 0;
  checked = 0;

  /** Passes on |actual - expected| <= bound; a NaN never does. */
  near(what: What, actual: number | undefined, expected: number, bound: number): void {
    this.checked++;
    if (actual === expected) return;
    const error = Math.abs((actual ?? NaN) - expected) / bound;
    if (error > this.worst) this.worst = error;
    if (!(error <= 1)) this.add(`${say(what)}: ${String(actual)}, expected ${String(expected)} within ${String(bound)}`);
  }

  each(
    what: string,
    actual: ArrayLike<number>,
    expected: ArrayLike<number>,
    bound: (expected: number, index: number) => number,
  ): void {
    if (actual.length !== expected.length) this.add(`${what}: ${String(actual.length)} of ${String(expected.length)}`);
    for (let i = 0; i < expected.length; i++) {
      this.near(() => `${what}[${String(i)}]`, actual[i], at(expected, i), bound(at(expected, i), i));
    }
  }

  require(condition: boolean, what: What): void {
    this.checked++;
    if (!condition) this.add(say(what));
  }

  private add(what: string): void {
    // The first few say what is wrong.
    if (this.list.length < 20) this.list.push(what);
  }
}
