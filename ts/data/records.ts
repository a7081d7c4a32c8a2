/** What the reader of preferences gives, and why a line is none. */
import { isArray } from '../given.js';

/**
 * One turn of a conversation. Other fields that a message has in the file are kept, without those
 * that are null.
 */
export interface Message {
  /** Not empty; for instance `'system'`, `'user'` or `'assistant'`. */
  readonly role: string;
  /** Parts of text are joined. Empty where the message calls a tool and says nothing. */
  readonly content: string;
}

/** Text before a chat template, or without one. */
export interface PlainPreference {
  /** What both completions answer. */
  readonly prompt: string;
  /** The completion that was preferred. */
  readonly chosen: string;
  /** The completion that was not. */
  readonly rejected: string;
}

/** The turns before the completions, and those of each completion: at least one everywhere. */
export interface ConversationalPreference {
  /** The turns that both completions answer. */
  readonly prompt: readonly Message[];
  /** Those of the completion that was preferred. */
  readonly chosen: readonly Message[];
  /** Those of the completion that was not. */
  readonly rejected: readonly Message[];
}

/** A prompt and two completions, as text or as messages. */
export type Preference = PlainPreference | ConversationalPreference;

/** A preference as a line has it. */
export type PreferenceRecord = Preference & {
  /**
   * The other fields of the line, as they are: `tools`, scores, the reference's log-probabilities.
   * None that is null.
   */
  readonly record: Readonly<Record<string, unknown>>;
};

/** A preference with the difference of its scores, which are in `record` as the line has them. */
export type ScoredPreferenceRecord = PreferenceRecord & {
  /** `score_chosen - score_rejected` of the line; finite. */
  readonly margin: number;
};

/** A prompt and one completion, as text. */
export interface PlainCompletion {
  /** What the completion answers. */
  readonly prompt: string;
  /** What was answered. */
  readonly completion: string;
}

/** The turns before a completion, and those of the completion: at least one in each. */
export interface ConversationalCompletion {
  /** The turns that the completion answers. */
  readonly prompt: readonly Message[];
  /** Those of the completion. */
  readonly completion: readonly Message[];
}

/** One completion, judged by itself. */
export type UnpairedRecord = (PlainCompletion | ConversationalCompletion) &
  Pick<PreferenceRecord, 'record'> & {
    /** Whether the completion is desirable. */
    readonly label: boolean;
  };

/** A prompt and any number of completions, as text. */
export interface PlainResponses {
  /** What all of them answer. */
  readonly prompt: string;
  /** At least one. */
  readonly responses: readonly string[];
}

/** The turns before the completions, and those of each completion: at least one everywhere. */
export interface ConversationalResponses {
  /** The turns that all of them answer. */
  readonly prompt: readonly Message[];
  /** At least one. */
  readonly responses: readonly (readonly Message[])[];
}

/** Completions of one prompt, each with its score. */
export type GroupRecord = (PlainResponses | ConversationalResponses) &
  Pick<PreferenceRecord, 'record'> & {
    /** One per response; finite. */
    readonly scores: readonly number[];
  };

/** What a line is read as: a preference, a completion with a label, or responses with scores. */
export type PreferenceForm = 'pairs' | 'unpaired' | 'groups';

/**
 * Whose names the fields of a line have:
 * - `trl`: `prompt`, `chosen`, `rejected`; `completion`, `label`; `responses`, `scores`
 * - `openai`: `input` with `messages`, `preferred_output`, `non_preferred_output`
 * - `sharegpt`: `conversations`, and `chosen` and `rejected`, or a label of the last answer
 * - `messages`: the same with `messages`
 * - `ms-swift`: `messages` that end with the chosen answer, or `query` and `response`; and
 *   `rejected_response` or `rejected_messages`
 */
export type PreferenceFormat = 'trl' | 'openai' | 'sharegpt' | 'messages' | 'ms-swift';

/** A completion, and what messages call it. */
export interface Side<Said> {
  readonly name: string;
  readonly said: Said;
}

/** A prompt and what was said after it. */
export interface Answered<Said> {
  readonly prompt: Said;
  readonly completions: readonly Said[];
}

/**
 * Why a line is no preference:
 * - `encoding`: not UTF-8, or longer than a string can be
 * - `json`: not JSON, or nested too deeply
 * - `object`: JSON of another kind; a row that is no object, or cannot be read
 * - `field`: one that its form needs is missing, or is none of what that form has there: text or
 *   messages, as the others are; a label; scores
 * - `message`: a message without a role, or without content that is text
 * - `prompt`: there is none, or it contradicts the completions
 * - `completion`: no message is left after the prompt
 */
export type SkipReason =
  | 'encoding'
  | 'json'
  | 'object'
  | 'field'
  | 'message'
  | 'prompt'
  | 'completion';

/** A line is no preference. The reader knows which line it is, and whether that ends the file. */
export class Refusal extends Error {
  constructor(
    readonly reason: SkipReason,
    message: string,
    cause?: unknown,
  ) {
    super(message, cause === undefined ? undefined : { cause });
  }
}

export function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !isArray(value);
}

/**
 * A field of a JSON object. Null counts as absent: stores of columns write every column in every
 * row.
 */
export function field(object: object, key: string): unknown {
  return Object.hasOwn(object, key)
    ? ((object as Record<string, unknown>)[key] ?? undefined)
    : undefined;
}

/** A JSON value as a message names it. */
export function kindOf(value: unknown): string {
  if (isArray(value)) return value.length === 0 ? 'an empty array' : 'an array';
  if (typeof value === 'function') return 'a function';
  if (typeof value === 'string') return value === '' ? 'an empty string' : 'a string';
  return isObject(value) ? 'an object' : String(value);
}
