// The bounds are those of `diralign verify`; what collects the misses is the tests' own.
import { at } from './numbers.js';

export {
  gradientBound,
  halfGradientBound as halfBound,
  logpBound,
  lossBound,
  rowSumBound,
} from '../../ts/verification/verification.js';

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
    if (!(error <= 1))
      this.add(
        `${say(what)}: ${String(actual)}, expected ${String(expected)} within ${String(bound)}`,
      );
  }

  each(
    what: string,
    actual: ArrayLike<number>,
    expected: ArrayLike<number>,
    bound: (expected: number, index: number) => number,
  ): void {
    if (actual.length !== expected.length)
      this.add(`${what}: ${String(actual.length)} of ${String(expected.length)}`);
    for (let i = 0; i < expected.length; i++) {
      this.near(
        () => `${what}[${String(i)}]`,
        actual[i],
        at(expected, i),
        bound(at(expected, i), i),
      );
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

/** The largest magnitude. */
export function largestOf(values: ArrayLike<number>): number {
  return Array.from(values).reduce((largest, x) => Math.max(largest, Math.abs(x)), 0);
}
