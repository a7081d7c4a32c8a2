/** Intervals of numbers, as the contract has them. */
import { rangeError, typeError } from './errors.js';
import { describe, readAll } from './given.js';

type Ends = Readonly<Record<string, number | undefined>>;

const endsOf = (info: object): Ends => readAll(info, []) as Ends;

type IsWithin = (value: unknown) => value is number;
/** By the description: reading its ends takes longer than a small call's arithmetic. */
const known = new WeakMap<object, IsWithin>();

/** Whether a value is a finite number of the interval, whose ends are read once. */
export function within(info: object): IsWithin {
  let isWithin = known.get(info);
  if (isWithin) return isWithin;
  const { min = -Infinity, above = -Infinity, max = Infinity, below = Infinity } = endsOf(info);
  isWithin = (value): value is number =>
    typeof value === 'number' &&
    Number.isFinite(value) &&
    !(value < min || value <= above) &&
    !(value > max || value >= below);
  known.set(info, isWithin);
  return isWithin;
}

/** @throws DirAlignError for a value that is no finite number of the interval */
export function checkNumber(what: string, value: unknown, info: object): number {
  if (within(info)(value)) return value;
  const { min, above, max, below } = endsOf(info);
  const low =
    min !== undefined ? `at least ${min}` : above !== undefined ? `greater than ${above}` : '';
  const high =
    max !== undefined ? `at most ${max}` : below !== undefined ? `less than ${below}` : '';
  const ends = [low, high].filter(Boolean).join(' and ');
  throw (typeof value === 'number' ? rangeError : typeError)(
    'ERR_DIRALIGN_OPTION',
    `${what}: ${describe(value)} is not a finite number${ends && ` ${ends}`}`,
  );
}
