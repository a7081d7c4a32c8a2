/** Marks of an axis: where it begins and ends, what it marks, and how that is written. */
export interface Ticks {
  readonly from: number;
  readonly to: number;
  readonly values: readonly number[];
  readonly labels: readonly string[];
}

const minus = '\u2212';

/**
 * A multiple of 1, 2 or 5 times a power of ten, `digit * 10 ** power`, that makes about `count`
 * steps of a length.
 */
function stepOf(length: number, count: number): { readonly digit: number; readonly power: number } {
  const raw = length / count;
  const power = Math.floor(Math.log10(raw));
  const mantissa = raw / 10 ** power;
  if (mantissa > 7) return { digit: 1, power: power + 1 };
  return { digit: mantissa > 3.5 ? 5 : mantissa > 1.5 ? 2 : 1, power };
}

/** `index * digit * 10 ** power` as it is written, without the noise of a product. */
function write(multiple: number, power: number, exponent: boolean): string {
  const value = Number(`${multiple}e${power}`);
  if (value === 0) return '0';
  const text = exponent ? value.toExponential() : value.toFixed(Math.max(0, -power));
  return text.replace('e+', 'e').replaceAll('-', minus);
}

/**
 * @param widen whether the ends move out to marks; else marks lie within them.
 * @param count about how many steps.
 */
export function ticks(from: number, to: number, count: number, widen: boolean): Ticks {
  if (!(to > from)) {
    const room = Math.abs(from) / 2 || 1;
    return ticks(from - room, from + room, count, widen);
  }
  const { digit, power } = stepOf(to - from, count);
  const step = Number(`${digit}e${power}`);
  // What lies within rounding of a mark lies on it.
  const slack = 1e-9;
  const [first, last] = widen
    ? [Math.floor(from / step + slack), Math.ceil(to / step - slack)]
    : [Math.ceil(from / step - slack), Math.floor(to / step + slack)];
  const multiples = Array.from({ length: last - first + 1 }, (_, i) => (first + i) * digit);
  const values = multiples.map((multiple) => Number(`${multiple}e${power}`));
  const largest = Math.max(...values.map(Math.abs));
  const exponent = largest >= 1e5 || largest < 1e-3 || power < -4;
  return {
    from: widen ? (values[0] as number) : from,
    to: widen ? (values.at(-1) as number) : to,
    values,
    labels: multiples.map((multiple) => write(multiple, power, exponent)),
  };
}

/** Of values that are far below the greatest, a line on a logarithmic scale tells nothing. */
const mostDecades = 12;
/** Powers of ten that a double can be. */
const [leastPower, greatestPower] = [-323, 308];

/**
 * The same for a logarithmic scale, 0 < from <= to: marks are powers of ten, or those of a linear
 * scale where fewer than two lie within.
 *
 * @param widen whether the ends move out to marks, the lower one not further than what is worth
 *   drawing.
 */
export function logTicks(from: number, to: number, widen: boolean): Ticks {
  const slack = 1e-9;
  const [low, high] = [Math.log10(from), Math.log10(to)];
  const last = Math.min(greatestPower, widen ? Math.ceil(high - slack) : Math.floor(high + slack));
  const whole = widen
    ? Math.max(last - mostDecades, Math.min(last - 1, Math.floor(low + slack)))
    : Math.ceil(low - slack);
  const first = Math.max(leastPower, whole);
  if (last <= first) return ticks(from, to, 4, false);
  const step = Math.ceil((last - first) / 4);
  const powers = Array.from(
    { length: Math.floor((last - first) / step) + 1 },
    (_, i) => last - i * step,
  ).reverse();
  return {
    from: widen ? Number(`1e${first}`) : from,
    to: widen ? Number(`1e${last}`) : to,
    values: powers.map((power) => Number(`1e${power}`)),
    labels: powers.map((power) => write(1, power, power < -3 || power > 4)),
  };
}
