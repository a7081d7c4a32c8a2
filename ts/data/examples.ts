/** Examples of token ids, and the sequences that each of them stands for. */
import { checkArray, checkLength } from '../batch/arrays.js';
import { rangeError, typeError, type DirAlignErrorCode } from '../errors.js';
import { checkObject, describe, isArray, readAll, readElements } from '../given.js';
import { checkNumber } from '../interval.js';
import { checkMask, type NamedMask, type TokenMask } from './masks.js';
import { checkCount, checkIds, type NamedIds, type TokenIds } from './token-ids.js';

/**
 * One prompt with the completion that was preferred and the one that was not. The tokenizer adds
 * end-of-sequence tokens.
 */
export interface PreferencePair<Ids extends TokenIds = TokenIds> {
  /** May be empty; the first token of the completions is then their context, and not scored. */
  readonly prompt: Ids;
  /** Ids of the completion that was preferred. */
  readonly chosen: Ids;
  /** Ids of the completion that was not. */
  readonly rejected: Ids;
  /** Which tokens of `chosen` are scored. Default: all. */
  readonly chosenMask?: TokenMask | undefined;
  /** Which tokens of `rejected` are scored. Default: all. */
  readonly rejectedMask?: TokenMask | undefined;
}

/** One prompt with one completion, judged by itself. */
export interface UnpairedExample<Ids extends TokenIds = TokenIds> {
  /** May be empty; the first token of the completion is then its context, and not scored. */
  readonly prompt: Ids;
  /** Ids of the completion. */
  readonly completion: Ids;
  /** Which of its tokens are scored. Default: all. */
  readonly completionMask?: TokenMask | undefined;
  /** Whether the completion is one to learn, rather than one to unlearn. */
  readonly desirable: boolean;
}

/** One prompt with all its completions, and what was said of each. */
export interface CompletionGroup<Ids extends TokenIds = TokenIds> {
  /** May be empty; the first token of the completions is then their context, and not scored. */
  readonly prompt: Ids;
  /** Ids of each completion: at least one. */
  readonly completions: readonly Ids[];
  /** Which tokens of each completion are scored. Default: all of all. */
  readonly completionMasks?: readonly (TokenMask | undefined)[] | undefined;
  /** One per completion: distinct whole numbers, of which the lowest is the best. */
  readonly ranks?: Judgements | undefined;
  /** One per completion: finite numbers, more for a better one. */
  readonly rewards?: Judgements | undefined;
}

/** A number for each completion of a group. */
export type Judgements = readonly number[] | Int32Array | Float32Array | Float64Array;

/** A sequence to be, and the length of the longest completion that has the same prompt. */
export interface Candidate {
  readonly prompt: NamedIds;
  readonly completion: NamedIds;
  /** Which tokens of the completion are scored; undefined where all are. */
  readonly mask: NamedMask | undefined;
  readonly longest: number;
}

/**
 * Checks each element when it is read, once: what is wrong ends it, however long the array is.
 * @param kind what messages call the elements
 * @param check gets the name of an element, and what is there
 * @throws DirAlignError also for anything but an array that has elements
 */
function readEach<T>(
  name: string,
  value: unknown,
  kind: string,
  code: DirAlignErrorCode,
  check: (name: string, value: unknown) => T,
): T[] {
  if (!isArray(value))
    throw typeError(code, `${name}: expected an array of ${kind}, not ${describe(value)}`);
  const length = checkCount(name, value.length, 'ERR_DIRALIGN_SHAPE');
  if (length === 0)
    throw rangeError('ERR_DIRALIGN_SHAPE', `${name}: has no ${kind}; expected at least one`);
  const checked: T[] = [];
  for (let i = 0; i < length; i++) checked.push(check(`${name}[${i}]`, value[i]));
  return checked;
}

/** The examples that a collator was given. */
export function readExamples<T>(
  examples: unknown,
  kind: string,
  check: (name: string, value: unknown) => T,
): T[] {
  return readEach('examples', examples, kind, 'ERR_DIRALIGN_SHAPE', check);
}

/**
 * The properties of an example, each read once.
 * @param optional those that messages about something else do not name
 */
export function readExample(
  name: string,
  value: unknown,
  keys: readonly string[],
  optional: readonly string[] = [],
): Readonly<Record<string, unknown>> {
  checkObject(name, value, 'ERR_DIRALIGN_LABEL', `{ ${keys.join(', ')} }`);
  return readAll(value, [...keys, ...optional]);
}

/** @throws DirAlignError where a completion has no token that can be scored */
function candidatesOf(
  prompt: NamedIds,
  completions: readonly NamedIds[],
  masks: readonly (NamedMask | undefined)[],
): readonly Candidate[] {
  for (const { name, length } of completions) {
    if (length === 0) {
      throw rangeError(
        'ERR_DIRALIGN_LABEL',
        `${name}: has no tokens; expected at least one, such as the end of sequence`,
      );
    }
    if (prompt.length === 0 && length === 1) {
      throw rangeError(
        'ERR_DIRALIGN_LABEL',
        `${name}: has 1 token after an empty prompt, and the first token of a sequence is ` +
          'never scored; expected a prompt or a second token',
      );
    }
  }
  const longest = completions.reduce((most, { length }) => Math.max(most, length), 0);
  return completions.map((completion, i) => ({ prompt, completion, mask: masks[i], longest }));
}

/** @returns chosen and rejected */
export function checkPair(name: string, value: unknown): readonly Candidate[] {
  const keys = ['prompt', 'chosen', 'rejected'];
  const given = readExample(name, value, keys, ['chosenMask', 'rejectedMask']);
  const prompt = checkIds(`${name}.prompt`, given.prompt);
  const chosen = checkIds(`${name}.chosen`, given.chosen);
  const rejected = checkIds(`${name}.rejected`, given.rejected);
  return candidatesOf(
    prompt,
    [chosen, rejected],
    [
      checkMask(`${name}.chosenMask`, given.chosenMask, chosen.length),
      checkMask(`${name}.rejectedMask`, given.rejectedMask, rejected.length),
    ],
  );
}

export interface Unpaired {
  readonly candidates: readonly Candidate[];
  readonly desirable: boolean;
}

export function checkUnpaired(name: string, value: unknown): Unpaired {
  const keys = ['prompt', 'completion', 'desirable'];
  const given = readExample(name, value, keys, ['completionMask']);
  const { desirable } = given;
  const prompt = checkIds(`${name}.prompt`, given.prompt);
  const completion = checkIds(`${name}.completion`, given.completion);
  const mask = checkMask(`${name}.completionMask`, given.completionMask, completion.length);
  const candidates = candidatesOf(prompt, [completion], [mask]);
  if (typeof desirable !== 'boolean') {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `${name}.desirable: expected true or false, not ${describe(desirable)}`,
    );
  }
  return { candidates, desirable };
}

export interface Group {
  readonly candidates: readonly Candidate[];
  readonly ranks: readonly number[] | undefined;
  readonly rewards: readonly number[] | undefined;
}

export function checkGroup(name: string, value: unknown): Group {
  const optional = ['completionMasks', 'ranks', 'rewards'];
  const given = readExample(name, value, ['prompt', 'completions'], optional);
  const prompt = checkIds(`${name}.prompt`, given.prompt);
  const completions = readEach(
    `${name}.completions`,
    given.completions,
    'completions',
    'ERR_DIRALIGN_LABEL',
    checkIds,
  );
  return {
    candidates: candidatesOf(
      prompt,
      completions,
      checkMasks(`${name}.completionMasks`, given.completionMasks, completions),
    ),
    ranks: checkRanks(`${name}.ranks`, given.ranks, completions.length),
    rewards: checkNumbers(`${name}.rewards`, given.rewards, completions.length),
  };
}

function checkMasks(
  name: string,
  value: unknown,
  completions: readonly NamedIds[],
): readonly (NamedMask | undefined)[] {
  if (value === undefined) return [];
  const masks = readElements(value, completions.length + 1);
  if (!isArray(masks)) {
    throw typeError(
      'ERR_DIRALIGN_LABEL',
      `${name}: expected an array of masks, not ${describe(value)}`,
    );
  }
  checkLength(name, masks.length, completions.length, 'one per completion');
  return completions.map(({ length }, i) => checkMask(`${name}[${i}]`, masks[i], length));
}

/** A copy of one finite number per completion, where there are any. */
function checkNumbers(name: string, value: unknown, count: number): number[] | undefined {
  if (value === undefined) return undefined;
  const values = isArray(value)
    ? (readElements(value, count + 1) as unknown[])
    : checkArray(name, value, ['Int32Array', 'Float32Array', 'Float64Array'], 'ERR_DIRALIGN_DTYPE');
  checkLength(name, values.length, count, 'one per completion');
  return Array.from(values as ArrayLike<unknown>, (x, i) => checkNumber(`${name}[${i}]`, x, {}));
}

function checkRanks(name: string, value: unknown, count: number): number[] | undefined {
  const ranks = checkNumbers(name, value, count);
  const first = new Map<number, number>();
  ranks?.forEach((rank, i) => {
    if (!Number.isSafeInteger(rank)) {
      throw rangeError('ERR_DIRALIGN_OPTION', `${name}[${i}]: ${rank} is not a whole number`);
    }
    const other = first.get(rank);
    if (other !== undefined) {
      throw rangeError(
        'ERR_DIRALIGN_OPTION',
        `${name}[${i}]: ${rank} is the rank of completion ${other}, too; expected distinct ranks`,
      );
    }
    first.set(rank, i);
  });
  return ranks;
}
