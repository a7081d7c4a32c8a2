/** Preference data as JSONL: one JSON object a line, plain or conversational. */
import { fileURLToPath } from 'node:url';
import { DirAlignError, rangeError, typeError } from '../errors.js';
import { checkObject, describe, quoted, readProperties } from '../given.js';
import { conversationOf } from './conversations.js';
import { fileBytes, linesOf, textOf, type Line } from './lines.js';
import { messagesOf } from './messages.js';
import { plainOf } from './plain.js';
import {
  field,
  isObject,
  kindOf,
  Refusal,
  type ConversationalPreference,
  type Preference,
  type PreferenceRecord,
  type SkipReason,
} from './records.js';

/**
 * A path or file URL, or UTF-8 bytes or text in pieces of any size: a Node or web stream, or any
 * other async iterable.
 */
export type PreferenceSource = string | URL | AsyncIterable<Uint8Array | string>;

/** What errors say, and what happens after one. */
export interface ReadPreferencesOptions {
  /** What errors call the source. Default: its path; `'stream'` where it has none. */
  readonly name?: string;
  /**
   * What happens at a line that is no preference: `'throw'` (default) ends the reading with an
   * error that names the line; `'skip'` goes on with the next, and `report` counts it. A source
   * that cannot be read is an error either way.
   */
  readonly onError?: 'throw' | 'skip';
  /**
   * Called with each line that is skipped, as the error that `'throw'` would throw. Needs `onError:
   * 'skip'`.
   */
  readonly onSkip?: (error: DirAlignError, reason: SkipReason) => void;
}

/** What has been read so far. */
export interface PreferenceReport {
  /** Records that were given. */
  readonly read: number;
  /** Lines that were skipped; empty lines are none. */
  readonly skipped: number;
  /** The skipped lines by reason: only reasons that there were. */
  readonly reasons: Readonly<Partial<Record<SkipReason, number>>>;
}

/** The records of a source, in its order. */
export interface PreferenceReader extends AsyncGenerator<PreferenceRecord, void, undefined> {
  /** Counts what is read while it is read: complete when the loop has ended. */
  readonly report: PreferenceReport;
}

/** Whether a record's fields are messages rather than text. */
export function isConversational(preference: Preference): preference is ConversationalPreference {
  return typeof preference.prompt !== 'string';
}

// ----------------------------------------------------------------------------------------------
// Records

const fields: readonly string[] = ['prompt', 'chosen', 'rejected'];

function preferenceOf(line: object): Preference {
  const [prompt, chosen, rejected] = fields.map((name) => field(line, name));
  for (const [name, value] of Object.entries({ chosen, rejected })) {
    if (value === undefined) throw new Refusal('field', `${name}: is missing`);
  }
  const isText = typeof prompt === 'string' || prompt === undefined;
  if (typeof chosen === 'string' && typeof rejected === 'string' && !Array.isArray(prompt)) {
    if (!isText) throw new Refusal('field', `prompt: expected a string, not ${kindOf(prompt)}`);
    return plainOf(prompt, chosen, rejected);
  }
  const sides = { chosen, rejected };
  for (const [name, value] of Object.entries(sides)) {
    if (typeof value === 'string' || Array.isArray(value)) continue;
    throw new Refusal('field', `${name}: expected a string or messages, not ${kindOf(value)}`);
  }
  // After messages, text is what the assistant says.
  const areTexts = typeof chosen === 'string' && typeof rejected === 'string';
  const said = areTexts
    ? [chosen, rejected].map((content) => [{ role: 'assistant', content }])
    : [chosen, rejected];
  const messages = [messagesOf('chosen', said[0]), messagesOf('rejected', said[1])] as const;
  // An empty list is what stores of columns write where there is no prompt.
  const isAbsent = Array.isArray(prompt) && prompt.length === 0;
  return conversationOf(
    isAbsent ? undefined : isText ? prompt : messagesOf('prompt', prompt),
    ...messages,
  );
}

/** @returns undefined for an empty line; throws a Refusal for one that is no preference */
function recordOf(line: Line): PreferenceRecord | undefined {
  const text = textOf(line);
  const json = line.number === 1 && text.startsWith('\ufeff') ? text.slice(1) : text;
  if (!/[^ \t\r]/.test(json)) return undefined;
  try {
    const value: unknown = JSON.parse(json);
    if (!isObject(value)) {
      throw new Refusal(
        'object',
        `expected an object with prompt, chosen and rejected, not ${kindOf(value)}`,
      );
    }
    const others = Object.entries(value).filter(
      ([name, other]) => !fields.includes(name) && other !== null,
    );
    return { ...preferenceOf(value), record: Object.fromEntries(others) };
  } catch (error) {
    // JSON of any depth can be parsed, but not compared.
    throw error instanceof Refusal
      ? error
      : new Refusal('json', `not JSON: ${(error as Error).message}`, error);
  }
}

// ----------------------------------------------------------------------------------------------
// Reading

interface Report extends PreferenceReport {
  read: number;
  skipped: number;
  readonly reasons: Partial<Record<SkipReason, number>>;
}

type OnRefusal = (error: DirAlignError, reason: SkipReason) => void;

async function* recordsOf(
  source: AsyncIterable<unknown>,
  name: string,
  report: Report,
  onRefusal: OnRefusal,
): AsyncGenerator<PreferenceRecord, void, undefined> {
  for await (const line of linesOf(source, name)) {
    let record: PreferenceRecord | undefined;
    try {
      record = recordOf(line);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      const cause = error.cause === undefined ? undefined : { cause: error.cause };
      onRefusal(
        rangeError('ERR_DIRALIGN_FILE', `${name}:${line.number}: ${error.message}`, cause),
        error.reason,
      );
      continue;
    }
    if (record === undefined) continue;
    report.read++;
    yield record;
  }
}

function checkOptions(options: unknown): ReadPreferencesOptions {
  if (options === undefined) return {};
  checkObject('options', options);
  const { name, onError, onSkip } = readProperties('options', options, [
    'name',
    'onError',
    'onSkip',
  ]);
  if (name !== undefined && typeof name !== 'string') {
    throw typeError('ERR_DIRALIGN_OPTION', `name: expected a string, not ${describe(name)}`);
  }
  if (onError !== undefined && onError !== 'throw' && onError !== 'skip') {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `onError: ${describe(onError)} is not one of ${quoted(['throw', 'skip'])}`,
    );
  }
  if (onSkip !== undefined && typeof onSkip !== 'function') {
    throw typeError('ERR_DIRALIGN_OPTION', `onSkip: expected a function, not ${describe(onSkip)}`);
  }
  if (onSkip !== undefined && onError !== 'skip') {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `onSkip: needs onError 'skip'; it is ${describe(onError)}`,
    );
  }
  return { name, onError, onSkip } as ReadPreferencesOptions;
}

function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return (
    typeof (value as Partial<AsyncIterable<unknown>> | null | undefined)?.[Symbol.asyncIterator] ===
    'function'
  );
}

/** The bytes or text of a source, and what messages call it. */
function open(source: unknown): {
  readonly chunks: AsyncIterable<unknown>;
  readonly called: string;
} {
  if (typeof source === 'string') return { chunks: fileBytes(source), called: source };
  if (source instanceof URL && source.protocol === 'file:') {
    try {
      const path = fileURLToPath(source);
      return { chunks: fileBytes(path), called: path };
    } catch (cause) {
      const reason = (cause as Error).message;
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        `source: ${source.href} stands for no path: ${reason}`,
        { cause },
      );
    }
  }
  if (!isAsyncIterable(source)) {
    const given = source instanceof URL ? source.href : describe(source);
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `source: expected a path, a file URL or an async iterable of bytes or text, not ${given}`,
    );
  }
  const path = 'path' in source && typeof source.path === 'string' ? source.path : undefined;
  return { chunks: source, called: path ?? 'stream' };
}

/**
 * The records of a JSONL file or stream, in its order, one line in memory at a time. A line is one
 * of
 *
 *     {"prompt": "text", "chosen": "text", "rejected": "text"}
 *     {"prompt": [messages], "chosen": [messages], "rejected": [messages]}
 *     {"prompt": "text", "chosen": [messages], "rejected": [messages]}
 *     {"chosen": [messages], "rejected": [messages]}
 *
 * with messages of `{"role": "user", "content": "text"}`, or with text in parts as content. Null
 * counts as absent, in every field of the line and of its messages. The question is in the prompt,
 * and nowhere else:
 *
 * - Without a prompt, or where its text is a turn of both conversations (or these turns as a chat
 *   template writes them), the prompt is
 *   the turns that both begin with; of equal conversations, those up to the last question.
 * - A prompt that the completions do not have comes before them: text as a user's turn, after the
 *   system message if they begin with one.
 * - A prompt that the completions repeat, with a system message or without, is taken off them. So
 *   is text of several words that both
 *   texts begin with, and dialogues of "Human:" and "Assistant:" may have it implicitly, too.
 *
 * Other fields come along in `record`. Lines may end in CRLF, the last in nothing; empty lines and
 * a byte order mark are skipped. The source is closed when the reader ends, early or not.
 *
 *     const reader = readPreferences('pairs.jsonl', { onError: 'skip' });
 *     for await (const { prompt, chosen, rejected, record } of reader) {
 *       train(prompt, chosen, rejected, record.tools);
 *     }
 *     console.log(reader.report); // { read: 998, skipped: 2, reasons: { json: 1, message: 1 } }
 *
 * @throws DirAlignError at once, with code ERR_DIRALIGN_OPTION, for a source or options of another
 *   kind; while reading, with code ERR_DIRALIGN_FILE and `NAME:LINE: ` before what is wrong, for a
 *   line that is no preference, unless `onError` is `'skip'`, and for a source that cannot be read
 */
export function readPreferences(
  source: PreferenceSource,
  options?: ReadPreferencesOptions,
): PreferenceReader {
  const { name, onError, onSkip } = checkOptions(options);
  const { chunks, called } = open(source);
  const report: Report = { read: 0, skipped: 0, reasons: {} };
  const skip: OnRefusal = (error, reason) => {
    report.skipped++;
    report.reasons[reason] = (report.reasons[reason] ?? 0) + 1;
    onSkip?.(error, reason);
  };
  const fail: OnRefusal = (error) => {
    throw error;
  };
  const records = recordsOf(chunks, name ?? called, report, onError === 'skip' ? skip : fail);
  return Object.assign(records, { report });
}
