/** The part of a prompt and a completion that a sequence keeps. */
import { rangeError } from '../errors.js';
import type { CollateSettings } from './collate-options.js';
import type { Candidate } from './examples.js';
import type { NamedIds } from './token-ids.js';

/**
 * A sequence to be: the prompt's ids from `promptStart` to `promptEnd`, then the completion's from
 * `completionStart` to `completionEnd`.
 */
export interface Sequence {
  readonly prompt: NamedIds;
  readonly promptStart: number;
  readonly promptEnd: number;
  readonly completion: NamedIds;
  readonly completionStart: number;
  readonly completionEnd: number;
}

/** The part of a prompt and one completion that `settings` keep. */
export function cut(
  { prompt, completion, longest }: Candidate,
  { maxLength, truncation, maxPromptLength }: CollateSettings,
): Sequence {
  let promptStart = 0;
  let promptEnd = prompt.length;
  let completionStart = 0;
  let completionEnd = completion.length;
  if (maxPromptLength !== undefined) {
    // The longest completion decides for all, so that they have the same prompt.
    if (prompt.length + longest > maxLength) {
      if (truncation === 'keep_start') promptEnd = Math.min(promptEnd, maxPromptLength);
      else promptStart = Math.max(0, prompt.length - maxPromptLength);
      const fits = promptEnd - promptStart + longest <= maxLength;
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
  if (completionEnd === completionStart) {
    throw rangeError(
      'ERR_DIRALIGN_LABEL',
      `${completion.name}: 'keep_start' leaves none of its ${completion.length} tokens after a prompt of ${prompt.length}; expected a prompt shorter than maxLength, ${maxLength}, or a maxPromptLength`,
    );
  }
  if (promptEnd === promptStart && completionEnd - completionStart === 1) {
    throw rangeError(
      'ERR_DIRALIGN_LABEL',
      `${completion.name}: truncation leaves 1 token and no prompt, and the first token of a sequence is never scored; expected a larger maxLength than ${maxLength}`,
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
