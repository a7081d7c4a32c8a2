/** What a batch carries besides its rows and the reference, as the contract describes it. */
import type { MethodInfo } from '../catalogue.js';
import { contract } from '../contract.generated.js';
import { rangeError, typeError } from '../errors.js';
import { checkObject, describe, isArray, readElements, readProperties } from '../given.js';
import { checkNumber, within } from '../interval.js';
import { filled, giveBack } from '../native/filled.js';
import { checkArray, checkLength, unshared } from './arrays.js';
import type { BatchFields, LogitTransforms } from './types.js';

type FieldInfo = (typeof contract)['fields'][number];
export type FieldName = FieldInfo['name'];
/**
 * What the native side takes: the place of a field in the contract and its numbers, then the next
 * one's. An object by names would be asked for every field, 100 ns each.
 */
export type FieldArrays = (number | Float64Array)[];
/** What a method makes of a field: whether it needs it, and the values it may have. */
export type FieldOfMethod = NonNullable<MethodInfo['fields'][FieldName]>;
export type FieldsOfMethod = Readonly<Partial<Record<FieldName, FieldOfMethod>>>;
/** How many numbers fields have; `groups` where the units are groups of sequences. */
export interface Sizes {
  readonly unit: number;
  readonly sequence: number;
  readonly row: number;
  readonly groups: Int32Array | undefined;
}

export const fieldNames: readonly FieldName[] = contract.fields.map(({ name }) => name);

/** What becomes of the logits, which means the same to every loss. */
export const transformNames = ['logitScale', 'logitSoftcap', 'temperature'] as const;

const placeOf: ReadonlyMap<string, number> = new Map(fieldNames.map((name, i) => [name, i]));

const needs = new WeakMap<FieldsOfMethod, readonly FieldInfo[]>();

/** Those that have to be there. */
function neededOf(fields: FieldsOfMethod): readonly FieldInfo[] {
  let needed = needs.get(fields);
  if (needed === undefined) {
    needed = contract.fields.filter(({ name }) => ownOf(fields, name)?.needed);
    needs.set(fields, needed);
  }
  return needed;
}

/** Those that are there without rows. */
export const sequenceFieldNames: readonly FieldName[] = contract.fields
  .filter(({ per }) => per !== 'row')
  .map(({ name }) => name);

type Given = Readonly<Partial<Record<FieldName, unknown>>>;

/** Ignores what a program has added to Object.prototype. */
export function ownOf<T extends object, K extends keyof T>(object: T, key: K): T[K] | undefined {
  return Object.hasOwn(object, key) ? object[key] : undefined;
}

/** The numbers of a field. */
export function numbersOf(
  fields: FieldArrays | undefined,
  name: FieldName,
): Float64Array | undefined {
  const place = placeOf.get(name);
  for (let i = 0; fields && i < fields.length; i += 2)
    if (fields[i] === place) return fields[i + 1] as Float64Array;
  return undefined;
}

/** Fields with one more. */
function withField(
  fields: FieldArrays | undefined,
  name: FieldName,
  numbers: Float64Array,
): FieldArrays {
  const all = fields ?? [];
  all.push(placeOf.get(name) as number, numbers);
  return all;
}

function single(name: FieldName, value: number): Float64Array {
  const numbers = filled(name, 'Float64Array', 1);
  numbers[0] = value;
  return numbers;
}

/** Fields with one more, a number of the batch. */
export const withNumber = (
  fields: FieldArrays | undefined,
  name: FieldName,
  value: number,
): FieldArrays => withField(fields, name, single(name, value));

/** Of a call that has ended. */
export function giveBackFields(fields: FieldArrays | undefined): void {
  for (let i = 1; fields && i < fields.length; i += 2) giveBack(fields[i] as Float64Array);
}

const ofTokenWeights = { needed: false, min: 0 };

/** The weights of rows, which mean the same to everything that sums rows. */
export function checkTokenWeights(given: unknown, rows: number): FieldArrays | undefined {
  if (given === undefined) return undefined;
  const name = 'tokenWeights';
  const field = contract.fields[placeOf.get(name) as number] as FieldInfo;
  const sizes = { unit: 0, sequence: 0, row: rows, groups: undefined };
  return withField(undefined, name, checkField(field, ofTokenWeights, given, sizes));
}

/**
 * Copies, which nobody else can write to; undefined where there are none.
 * @param who has these fields, in messages: the name of a method, as a rule.
 * @param given properties that were read: none is inherited.
 * @param ofRows the weights of rows, where they are checked already.
 * @param keepLogRatios takes what the baseline `kl` is the mean of, where it was not a number.
 * @throws DirAlignError for a field that is needed and not there, or there without a meaning
 */
export function checkFields(
  who: string,
  fields: FieldsOfMethod,
  given: Given,
  sizes: Sizes,
  ofRows?: FieldArrays,
  keepLogRatios?: (ratios: Float64Array) => void,
): FieldArrays | undefined {
  for (const field of neededOf(fields)) {
    if (given[field.name] !== undefined) continue;
    const what = expected(field, sizes);
    throw typeError('ERR_DIRALIGN_OPTION', `${field.name}: ${who} needs ${what}`);
  }
  let arrays = ofRows;
  for (const name of Object.keys(given) as FieldName[]) {
    const place = placeOf.get(name);
    const value = given[name];
    if (place === undefined || value === undefined) continue;
    const own = ownOf(fields, name);
    if (!own) throw typeError('ERR_DIRALIGN_OPTION', `${name}: ${who} gives it no meaning`);
    if (ofRows && name === 'tokenWeights') continue;
    const field = contract.fields[place] as FieldInfo;
    arrays = withField(arrays, name, checkField(field, own, value, sizes, keepLogRatios));
  }
  return arrays;
}

function expected({ name, per, kind }: FieldInfo, sizes: Sizes): string {
  if (name === 'kl') return 'a number of at least 0, or { logps, reference }';
  const what = { number: 'a number', flag: 'a boolean', rank: 'a rank' }[kind];
  return per === 'batch' ? what : `${what} per ${per}, ${sizes[per]}`;
}

function checkField(
  field: FieldInfo,
  own: FieldOfMethod,
  value: unknown,
  sizes: Sizes,
  keepLogRatios?: (ratios: Float64Array) => void,
): Float64Array {
  const { name, per, kind } = field;
  if (per === 'batch') {
    const number = name === 'kl' ? baselineOf(value, keepLogRatios) : value;
    return single(name, checkNumber(name, number, own));
  }
  const length = sizes[per];
  const arrays = kind === 'rank' ? rankArrays : kind === 'flag' ? flagArrays : numberArrays;
  const values = isArray(value)
    ? (readElements(value, length + 1) as unknown[])
    : unshared(checkArray(name, value, arrays, 'ERR_DIRALIGN_DTYPE') as Float64Array);
  checkLength(name, values.length, length, `one per ${per}`);
  if (kind === 'rank') return bestFirst(values, sizes.groups);
  const checked = filled(name, 'Float64Array', length);
  const [isRight, check] = kind === 'flag' ? [isFlag, refuseFlag] : [within(own), checkNumber];
  for (let i = 0; i < length; i++) {
    const x = values[i];
    // What is right needs no message.
    checked[i] = isRight(x) ? Number(x) : check(`${name}[${i}]`, x, own);
  }
  return checked;
}

const flagArrays = ['Uint8Array'] as const;
const numberArrays = ['Float64Array', 'Float32Array'] as const;
const rankArrays = ['Int32Array', 'Float64Array', 'Float32Array'] as const;

const isFlag = (value: unknown): value is boolean | 0 | 1 =>
  value === 1 || value === 0 || typeof value === 'boolean';

function refuseFlag(what: string, value: unknown): never {
  throw rangeError('ERR_DIRALIGN_OPTION', `${what}: ${describe(value)} is not 0 or 1`);
}

/** The baseline of mismatched completions: the mean of their log-ratios, but at least 0. */
function baselineOf(value: unknown, keep?: (ratios: Float64Array) => void): unknown {
  if (typeof value !== 'object' || value === null) return value;
  checkObject('kl', value, 'ERR_DIRALIGN_OPTION', 'a number or { logps, reference }');
  const given = readProperties('kl', value, ['logps', 'reference']);
  const [logps, reference] = (['logps', 'reference'] as const).map((name) => {
    const what = `kl.${name}`;
    const array = given[name];
    return isArray(array)
      ? (readElements(array, 2 ** 31) as unknown[])
      : unshared(checkArray(what, array, numberArrays, 'ERR_DIRALIGN_DTYPE'));
  }) as unknown as [ArrayLike<unknown>, ArrayLike<unknown>];
  checkLength('kl.reference', reference.length, logps.length, 'that of kl.logps');
  if (logps.length === 0) throw rangeError('ERR_DIRALIGN_SHAPE', 'kl.logps: has no sequences');
  const ratios = new Float64Array(logps.length);
  let sum = 0;
  for (let s = 0; s < logps.length; s++) {
    for (const [name, array] of Object.entries({ logps, reference })) {
      if (!Number.isFinite(array[s]))
        throw rangeError(
          'ERR_DIRALIGN_OPTION',
          `kl.${name}[${s}]: ${describe(array[s])} is not a finite number`,
        );
    }
    const ratio = (logps[s] as number) - (reference[s] as number);
    ratios[s] = ratio;
    sum += ratio;
  }
  keep?.(ratios);
  return Math.max(0, sum / logps.length);
}

/** The places of each group's candidates, best first. */
function bestFirst(ranks: ArrayLike<unknown>, groups: Int32Array | undefined): Float64Array {
  const order = filled('ranks', 'Float64Array', ranks.length);
  for (let g = 0; groups && g + 1 < groups.length; g++) {
    const first = groups[g] as number;
    const size = (groups[g + 1] as number) - first;
    const places = Array.from({ length: size }, (_, k) => k);
    for (const k of places) {
      const rank = ranks[first + k];
      if (!Number.isSafeInteger(rank))
        throw rangeError(
          'ERR_DIRALIGN_OPTION',
          `ranks[${first + k}]: ${describe(rank)} is not a whole number`,
        );
    }
    places.sort((a, b) => (ranks[first + a] as number) - (ranks[first + b] as number));
    places.forEach((place, k) => {
      order[first + k] = place;
      const before = places[k - 1];
      if (before !== undefined && ranks[first + before] === ranks[first + place])
        throw rangeError(
          'ERR_DIRALIGN_OPTION',
          `ranks[${first + place}]: ${String(ranks[first + place])} is the rank of another ` +
            `candidate of group ${g}`,
        );
    });
  }
  return order;
}

/**
 * Offsets of groups over sequences: from 0, increasing, to all of them.
 * @param mayBeNone of a process that others share a batch with.
 */
export function checkGroups(given: unknown, sequences: number, mayBeNone: boolean): Int32Array {
  const groups = unshared(checkArray('groups', given, ['Int32Array'], 'ERR_DIRALIGN_SHAPE'));
  const last = groups[groups.length - 1];
  if (groups.length < (mayBeNone ? 1 : 2) || groups[0] !== 0 || last !== sequences) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `groups: goes from ${String(groups[0])} to ${String(last)}; ` +
        `expected 0 to the number of sequences, ${sequences}`,
    );
  }
  for (let g = 1; g < groups.length; g++) {
    if ((groups[g] as number) <= (groups[g - 1] as number))
      throw rangeError(
        'ERR_DIRALIGN_SHAPE',
        `groups: group ${g - 1} has no candidates; expected offsets that increase`,
      );
  }
  // Not slice, which asks the array for its class.
  return new Int32Array(groups);
}

type Same<A, B extends A, C extends B> = C;
type Names = FieldName | 'groups' | (typeof transformNames)[number];
/** Compiles where the fields that batches are declared with are the contract's. */
export type DeclaredFields = Same<Names, keyof (BatchFields & LogitTransforms), Names>;
