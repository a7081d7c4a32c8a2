/** The part of a prompt and a completion that a sequence keeps. */
import { rangeError } from '../errors.js';
import type { CollateSettings } from './collate-options.js';
import type { Candidate } from './examples.js';
import type { NamedMask } from './masks.js';
import { idAt, type NamedIds } from './token-ids.js';

/**
 * A sequence to be: the prompt's ids from `promptStart` to `promptEnd`, then the completion's from
 * `completionStart` to `completionEnd`.
 */
export interface Sequence {
  readonly prompt: NamedIds;
  readonly promptStart: number;
  readonly promptEnd: number;
  readonly completion: NamedIds;
  readonly mask: NamedMask | undefined;
  readonly completionStart: number;
  readonly completionEnd: number;
}

/** The part of a prompt and one completion that `settings` keep. */
export function cut(
  { prompt, completion, mask, longest }: Candidate,
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
      `${completion.name}: 'keep_start' leaves none of its ${completion.length} tokens after ` +
        `a prompt of ${prompt.length}; expected a prompt shorter than maxLength, ${maxLength}, ` +
        'or a maxPromptLength',
    );
  }
  if (promptEnd === promptStart && completionEnd - completionStart === 1) {
    throw rangeError(
      'ERR_DIRALIGN_LABEL',
      `${completion.name}: truncation leaves 1 token and no prompt, and the first token of a ` +
        `sequence is never scored; expected a larger maxLength than ${maxLength}`,
    );
  }
  if (mask !== undefined) {
    // The first token of a sequence is never scored.
    const first = promptEnd === promptStart ? completionStart + 1 : completionStart;
    if (!mask.flags.subarray(first, completionEnd).includes(1)) {
      throw rangeError(
        'ERR_DIRALIGN_LABEL',
        `${mask.name}: leaves no token to score in the ${completionEnd - completionStart} ` +
          `that are kept of ${completion.length}; expected 1 for at least one of them`,
      );
    }
  }
  return { prompt, promptStart, promptEnd, completion, mask, completionStart, completionEnd };
}

export function lengthOf({
  promptStart,
  promptEnd,
  completionStart,
  completionEnd,
}: Sequence): number {
  return promptEnd - promptStart + completionEnd - completionStart;
}

export const isCut = (sequence: Sequence): boolean =>
  lengthOf(sequence) < sequence.prompt.length + sequence.completion.length;

/** The token at a place of a completion, apart from others and from itself unscored. */
const tokenAt = ({ completion, mask }: Sequence, i: number): number =>
  idAt(completion, i) * 2 + (mask?.flags[i] ?? 1);

const haveSame = (length: number, a: (i: number) => number, b: (i: number) => number): boolean => {
  for (let i = 0; i < length; i++) if (a(i) !== b(i)) return false;
  return true;
};

/** Whether two completions of a prompt differ, and what truncation keeps of them does not. */
export function areMadeIdentical(a: Sequence, b: Sequence): boolean {
  if (!isCut(a) && !isCut(b)) return false;
  const isSamePrompt = a.promptStart === b.promptStart && a.promptEnd === b.promptEnd;
  const length = a.completionEnd - a.completionStart;
  if (!isSamePrompt || b.completionEnd - b.completionStart !== length) return false;
  const kept = (sequence: Sequence) => (i: number) =>
    tokenAt(sequence, sequence.completionStart + i);
  if (!haveSame(length, kept(a), kept(b))) return false;
  const whole = (sequence: Sequence) => (i: number) => tokenAt(sequence, i);
  const isSameLength = a.completion.length === b.completion.length;
  return !(isSameLength && haveSame(a.completion.length, whole(a), whole(b)));
}
