/** How sequences are cut and laid out. */
import { rangeError, typeError } from '../errors.js';
import { checkObject, describe, readProperties } from '../given.js';
import { maxInt32 } from './token-ids.js';

/**
 * Which tokens of a sequence longer than `maxLength` are kept: its first (`'keep_start'`) or its
 * last (`'keep_end'`). With `maxPromptLength`, which end of the prompt.
 */
export type Truncation = 'keep_start' | 'keep_end';

/** How sequences are cut and laid out. */
export interface CollateOptions {
  /**
   * `'padded'` (default): [sequences, tokens], padded on the right. `'packed'`: rows without
   * padding, and `offsets`.
   */
  readonly layout?: 'padded' | 'packed';
  /**
   * The id that padding gets in `inputIds`; required for the padded layout, without effect on the
   * packed one.
   */
  readonly pad?: number;
  /** Most tokens of a sequence, prompt and completion together, at least 2. Default: no limit. */
  readonly maxLength?: number;
  /**
   * Default `'keep_start'`, as in TRL. Without effect on sequences that are not longer than
   * `maxLength`.
   */
  readonly truncation?: Truncation;
  /**
   * Truncates the prompt first, as older trainers do: where a prompt and the longest of its
   * completions have more than `maxLength` tokens, the prompt is cut to this many for all of them,
   * at the end that `truncation` does not keep; where that is not enough, each completion keeps
   * its first `maxLength - maxPromptLength` tokens. From 1 to `maxLength - 1`; needs `maxLength`.
   * Default: prompt and completion are cut as one sequence.
   */
  readonly maxPromptLength?: number;
}

/** How sequences are cut, and padded. */
export interface PaddedOptions extends CollateOptions {
  /** The default. */
  readonly layout?: 'padded';
  /** The id that padding gets in `inputIds`. */
  readonly pad: number;
}

/** How sequences are cut, and packed. */
export interface PackedOptions extends CollateOptions {
  /** Rows without padding, and `offsets`. */
  readonly layout: 'packed';
}

export interface CollateSettings {
  readonly layout: 'padded' | 'packed';
  readonly pad: number;
  readonly maxLength: number;
  readonly truncation: Truncation;
  readonly maxPromptLength: number | undefined;
}

const optionNames = ['layout', 'pad', 'maxLength', 'truncation', 'maxPromptLength'] as const;

function checkWhole(name: string, value: unknown, low: number, high: number): number {
  if (typeof value !== 'number') {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `${name}: expected a whole number from ${low} to ${high}, not ${describe(value)}`,
    );
  }
  if (!Number.isInteger(value) || value < low || value > high) {
    throw rangeError(
      'ERR_DIRALIGN_OPTION',
      `${name}: ${value} is not a whole number from ${low} to ${high}`,
    );
  }
  return value;
}

function checkChoice<T extends string>(name: string, value: unknown, choices: readonly T[]): T {
  if (choices.includes(value as T)) return value as T;
  throw typeError(
    'ERR_DIRALIGN_OPTION',
    `${name}: ${describe(value)} is not one of ${choices.map((c) => `'${c}'`).join(', ')}`,
  );
}

export function checkOptions(options: unknown): CollateSettings {
  checkObject('options', options);
  const given = readProperties('options', options, optionNames);
  const layout = checkChoice('layout', given.layout ?? 'padded', ['padded', 'packed']);
  // Padding is needed as soon as two lengths differ: better refused in the first batch than in some
  // later one.
  const pad =
    layout === 'packed' && given.pad === undefined ? 0 : checkWhole('pad', given.pad, 0, maxInt32);
  const maxLength =
    given.maxLength === undefined
      ? maxInt32
      : checkWhole('maxLength', given.maxLength, 2, maxInt32);
  const truncation = checkChoice('truncation', given.truncation ?? 'keep_start', [
    'keep_start',
    'keep_end',
  ]);
  if (given.maxPromptLength === undefined)
    return { layout, pad, maxLength, truncation, maxPromptLength: undefined };
  if (given.maxLength === undefined) {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `maxPromptLength: ${describe(given.maxPromptLength)} needs a maxLength; it is undefined`,
    );
  }
  const maxPromptLength = checkWhole('maxPromptLength', given.maxPromptLength, 1, maxLength - 1);
  return { layout, pad, maxLength, truncation, maxPromptLength };
}
