/** The part of a prompt and a completion that a sequence keeps. */
import { rangeError } from '../errors.js';
import type { CollateSettings } from './collate-options.js';
import type { PreferencePair, TokenIds } from './pairs.js';

export type Completion = 'chosen' | 'rejected';

/**
 * A sequence to be: the prompt's ids from `promptStart` to `promptEnd`, then the completion's from
 * `completionStart` to `completionEnd`.
 */
export interface Sequence {
  readonly prompt: TokenIds;
  readonly promptStart: number;
  readonly promptEnd: number;
  readonly completion: TokenIds;
  readonly completionStart: number;
  readonly completionEnd: number;
}

/** The part of a checked pair's prompt and one completion that `settings` keep. */
export function cut(
  index: number,
  pair: PreferencePair,
  key: Completion,
  settings: CollateSettings,
): Sequence {
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

export function lengthOf({
  promptStart,
  promptEnd,
  completionStart,
  completionEnd,
}: Sequence): number {
  return promptEnd - promptStart + completionEnd - completionStart;
}
