/** From token ids of prompts and completions to the rows and labels that `dirAlignLoss` takes. */
import { allocate, checkArray, tagOf } from '../batch/arrays.js';
import { rangeError, typeError } from '../errors.js';
import { checkObject, describe, readAll, readProperties } from '../given.js';

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
   * Truncates the prompt first, as older trainers do: where the prompt and the longer completion of
   * a pair have more than `maxLength` tokens, the prompt of both is cut to this many, at the end
   * that `truncation` does not keep; where that is not enough, both completions keep their first
   * `maxLength - maxPromptLength` tokens. From 1 to `maxLength - 1`; needs `maxLength`. Default:
   * prompt and completion are cut as one sequence.
   */
  readonly maxPromptLength?: number;
}

/**
 * What both layouts have. Arrays are fresh, one element per row; the first half of the sequences
 * are the chosen.
 */
interface CollatedRows {
  /** Twice the number of pairs; pair i is sequences i and i + sequences / 2. */
  readonly sequences: number;
  /** Token ids, for the model. */
  readonly inputIds: Int32Array;
  /**
   * Row t scores the token after it: `inputIds[t + 1]` where that is of the completion; -100 in
   * every other row, the last included.
   */
  readonly labels: Int32Array;
  /** 1 for tokens, 0 for padding. */
  readonly attentionMask: Int32Array;
}

/** Arrays of [sequences, tokens]; the logits' shape is `[sequences, tokens, vocab]`. */
export interface PaddedPairs extends CollatedRows {
  /** Those of the longest sequence. */
  readonly tokens: number;
}

/** Arrays of [rows]; the logits' shape is `[rows, vocab]`. */
export interface PackedPairs extends CollatedRows {
  /** Tokens of all sequences. */
  readonly rows: number;
  /** `sequences + 1` row offsets: sequence i has rows `offsets[i]` to `offsets[i + 1] - 1`. */
  readonly offsets: Int32Array;
}

const ignoreIndex = -100;
const maxInt32 = 0x7fffffff;

type Completion = 'chosen' | 'rejected';

/**
 * A sequence to be: ids of the prompt from `promptStart` to `promptEnd`, then of the completion,
 * likewise.
 */
interface Sequence {
  readonly prompt: TokenIds;
  readonly promptStart: number;
  readonly promptEnd: number;
  readonly completion: TokenIds;
  readonly completionStart: number;
  readonly completionEnd: number;
}

interface Settings {
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

function checkOptions(options: unknown): Settings {
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

function checkPair(index: number, value: unknown): PreferencePair {
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

/** What `settings` keep of the prompt and one completion of a checked pair. */
function cut(index: number, pair: PreferencePair, key: Completion, settings: Settings): Sequence {
  const { maxLength, truncation, maxPromptLength } = settings;
  const { prompt, [key]: completion } = pair;
  let promptStart = 0;
  let promptEnd = prompt.length;
  let completionStart = 0;
  let completionEnd = completion.length;
  if (maxPromptLength !== undefined) {
    // Both sequences by the longer completion: so the two are given the same prompt.
    const longer = Math.max(pair.chosen.length, pair.rejected.length);
    if (prompt.length + longer > maxLength) {
      if (truncation === 'keep_start') promptEnd = Math.min(promptEnd, maxPromptLength);
      else promptStart = Math.max(0, prompt.length - maxPromptLength);
      const fits = promptEnd - promptStart + longer <= maxLength;
      if (!fits) completionEnd = Math.min(completionEnd, maxLength - maxPromptLength);
    }
  } else if (truncation === 'keep_start') {
    promptEnd = Math.min(promptEnd, maxLength);
    completionEnd = Math.min(completionEnd, maxLength - promptEnd);
  } else {
    const removed = Math.max(0, prompt.length + completion.length - maxLength);
    promptStart = Math.min(removed, prompt.length);
    completionStart = removed - promptStart;
  }
  const name = `examples[${index}].${key}`;
  if (completionEnd === completionStart) {
    throw rangeError(
      'ERR_DIRALIGN_LABEL',
      `${name}: 'keep_start' leaves none of its ${completion.length} tokens after a prompt of ${prompt.length}; expected a prompt shorter than maxLength, ${maxLength}, or a maxPromptLength`,
    );
  }
  if (promptEnd === promptStart && completionEnd - completionStart === 1) {
    throw rangeError(
      'ERR_DIRALIGN_LABEL',
      `${name}: truncation leaves 1 token and no prompt, and the first token of a sequence is never scored; expected a larger maxLength than ${maxLength}`,
    );
  }
  return { prompt, promptStart, promptEnd, completion, completionStart, completionEnd };
}

function lengthOf({ promptStart, promptEnd, completionStart, completionEnd }: Sequence): number {
  return promptEnd - promptStart + completionEnd - completionStart;
}

/** Writes the ids of a sequence and the labels of its rows, from row `start`. */
function write(
  sequence: Sequence,
  start: number,
  { inputIds, labels, attentionMask }: CollatedRows,
): void {
  let row = start;
  for (let i = sequence.promptStart; i < sequence.promptEnd; i++)
    inputIds[row++] = sequence.prompt[i] as number;
  for (let i = sequence.completionStart; i < sequence.completionEnd; i++) {
    const id = sequence.completion[i] as number;
    if (row > start) labels[row - 1] = id;
    inputIds[row++] = id;
  }
  attentionMask.fill(1, start, row);
}

/**
 * A batch of preference pairs, in memory of its own: the chosen sequences (prompt, then completion)
 * in the order of the examples, then the rejected. It can be spread into the batch of a loss beside
 * its logits:
 *
 *     const pairs = collatePairs(examples, { pad: 0, maxLength: 512 });
 *     const logits = model.forward(pairs.inputIds, pairs.attentionMask);
 *     dpo({ ...pairs, logits, shape: [pairs.sequences, pairs.tokens, vocab], reference });
 *
 * Every sequence has at least one scored row. The first token of a sequence is context only, also
 * where truncation leaves no prompt.
 *
 * @throws DirAlignError with code ERR_DIRALIGN_OPTION for options; ERR_DIRALIGN_LABEL for token ids
 *   that are no token ids, an empty completion and one of which truncation leaves nothing to score;
 *   ERR_DIRALIGN_SHAPE for no examples, or 2^31 rows and more; ERR_DIRALIGN_MEMORY where the batch
 *   does not fit memory.
 */
export function collatePairs(
  examples: readonly PreferencePair[],
  options: CollateOptions & { readonly layout: 'packed' },
): PackedPairs;
export function collatePairs(
  examples: readonly PreferencePair[],
  options: CollateOptions & { readonly layout?: 'padded'; readonly pad: number },
): PaddedPairs;
export function collatePairs(
  examples: readonly PreferencePair[],
  options: CollateOptions,
): PaddedPairs | PackedPairs;
export function collatePairs(
  examples: readonly PreferencePair[],
  options: CollateOptions,
): PaddedPairs | PackedPairs {
  const settings = checkOptions(options);
  if (!Array.isArray(examples)) {
    throw typeError(
      'ERR_DIRALIGN_SHAPE',
      `examples: expected an array of pairs, not ${describe(examples)}`,
    );
  }
  if (examples.length === 0)
    throw rangeError('ERR_DIRALIGN_SHAPE', 'examples: has no pairs; expected at least one');
  const pairs = Array.from(examples as readonly unknown[], (value, i) => checkPair(i, value));
  const cuts = (['chosen', 'rejected'] as const).flatMap((key) =>
    pairs.map((pair, i) => cut(i, pair, key, settings)),
  );

  const sequences = cuts.length;
  const tokens = cuts.reduce((most, sequence) => Math.max(most, lengthOf(sequence)), 0);
  const rows =
    settings.layout === 'padded'
      ? sequences * tokens
      : cuts.reduce((sum, sequence) => sum + lengthOf(sequence), 0);
  if (rows > maxInt32)
    throw rangeError('ERR_DIRALIGN_SHAPE', `examples: ${rows} rows; expected at most ${maxInt32}`);

  const collated: CollatedRows = {
    sequences,
    inputIds: allocate('inputIds', 'Int32Array', rows),
    labels: allocate('labels', 'Int32Array', rows).fill(ignoreIndex),
    attentionMask: allocate('attentionMask', 'Int32Array', rows),
  };
  if (settings.layout === 'padded') {
    collated.inputIds.fill(settings.pad);
    cuts.forEach((sequence, i) => {
      write(sequence, i * tokens, collated);
    });
    return { ...collated, tokens };
  }
  const offsets = new Int32Array(sequences + 1);
  cuts.forEach((sequence, i) => {
    const start = offsets[i] as number;
    write(sequence, start, collated);
    offsets[i + 1] = start + lengthOf(sequence);
  });
  return { ...collated, rows, offsets };
}
