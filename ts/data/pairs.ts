/** Preference pairs of token ids. */
import { checkArray, tagOf } from '../batch/arrays.js';
import { rangeError, typeError } from '../errors.js';
import { describe, readAll } from '../given.js';

/** Whole numbers from 0 to 2147483647. */
export type TokenIds = readonly number[] | Int32Array;

/**
 * One prompt with the completion that was preferred and the one that was not. End-of-sequence
 * tokens are the tokenizer's to add.
 */
export interface PreferencePair {
  /** May be empty; the first token of the completions is then their context, and not scored. */
  readonly prompt: TokenIds;
  /** Ids of the completion that was preferred. */
  readonly chosen: TokenIds;
  /** Ids of the completion that was not. */
  readonly rejected: TokenIds;
}

export const maxInt32 = 0x7fffffff;

function checkIds(name: string, value: unknown): TokenIds {
  if (!Array.isArray(value) && tagOf(value) !== 'Int32Array') {
    throw typeError(
      'ERR_DIRALIGN_LABEL',
      `${name}: expected an array or an Int32Array of token ids, not ${describe(value)}`,
    );
  }
  const ids: TokenIds = Array.isArray(value)
    ? (value as readonly number[])
    : checkArray(name, value, ['Int32Array'], 'ERR_DIRALIGN_LABEL');
  for (let i = 0; i < ids.length; i++) {
    const id: unknown = ids[i];
    if (typeof id !== 'number') {
      throw typeError(
        'ERR_DIRALIGN_LABEL',
        `${name}[${i}]: expected a token id, not ${describe(id)}`,
      );
    }
    if (!Number.isInteger(id) || id < 0 || id > maxInt32) {
      throw rangeError(
        'ERR_DIRALIGN_LABEL',
        `${name}[${i}]: ${id} is not a whole number from 0 to ${maxInt32}`,
      );
    }
  }
  return ids;
}

export function checkPair(index: number, value: unknown): PreferencePair {
  const name = `examples[${index}]`;
  if (typeof value !== 'object' || value === null) {
    throw typeError(
      'ERR_DIRALIGN_LABEL',
      `${name}: expected { prompt, chosen, rejected }, not ${describe(value)}`,
    );
  }
  const { prompt, chosen, rejected } = readAll(value, ['prompt', 'chosen', 'rejected']);
  const pair = {
    prompt: checkIds(`${name}.prompt`, prompt),
    chosen: checkIds(`${name}.chosen`, chosen),
    rejected: checkIds(`${name}.rejected`, rejected),
  };
  for (const key of ['chosen', 'rejected'] as const) {
    if (pair[key].length === 0) {
      throw rangeError(
        'ERR_DIRALIGN_LABEL',
        `${name}.${key}: has no tokens; expected at least one, such as the end of sequence`,
      );
    }
    if (pair.prompt.length === 0 && pair[key].length === 1) {
      throw rangeError(
        'ERR_DIRALIGN_LABEL',
        `${name}.${key}: has 1 token after an empty prompt, and the first token of a sequence is never scored; expected a prompt or a second token`,
      );
    }
  }
  return pair;
}
