/** Preference data as JSONL: one JSON object a line, plain or conversational. */
import { createReadStream } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import { tagOf } from '../arrays.js';
import { DirAlignError, rangeError, typeError } from '../errors.js';
import { describe } from '../given.js';

/** One turn of a conversation. Other fields that a message has in the file are kept. */
export interface Message {
  /** Not empty; for instance `'system'`, `'user'` or `'assistant'`. */
  readonly role: string;
  readonly content: string;
}

/** Text before a chat template, or without one. */
export interface PlainPreference {
  readonly prompt: string;
  readonly chosen: string;
  readonly rejected: string;
}

/** The turns before the completions, and those of each completion: at least one everywhere. */
export interface ConversationalPreference {
  readonly prompt: readonly Message[];
  readonly chosen: readonly Message[];
  readonly rejected: readonly Message[];
}

export type Preference = PlainPreference | ConversationalPreference;

/** A path or file URL, or UTF-8 bytes or text in pieces of any size: a Node or web stream, or any other async iterable. */
export type PreferenceSource = string | URL | AsyncIterable<Uint8Array | string>;

export interface ReadPreferencesOptions {
  /** What errors call the source. Default: its path; `'stream'` where it has none. */
  readonly name?: string;
}

/** Whether a record's fields are messages rather than text. */
export function isConversational(preference: Preference): preference is ConversationalPreference {
  return typeof preference.prompt !== 'string';
}

// ---------------------------------------------------------------------------------------------------------------------
// Lines

/** Makes the error of one line. */
type Defect = (what: string, cause?: unknown) => DirAlignError;

function defectOf(name: string, line?: number): Defect {
  const place = line === undefined ? name : `${name}:${line}`;
  return (what, cause) => rangeError('ERR_DIRALIGN_FILE', `${place}: ${what}`, cause === undefined ? undefined : { cause });
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

type Piece = Uint8Array | string;

/** The text of a line from its pieces, joined once whatever their number. */
function textOf(pieces: readonly Piece[], defect: Defect): string {
  const texts = pieces.filter((piece) => typeof piece === 'string');
  if (texts.length > 0 && texts.length < pieces.length) throw defect('expected bytes or text, not both by turns');
  try {
    if (texts.length > 0) return texts.join('');
    const bytes = pieces.length === 1 ? (pieces[0] as Uint8Array) : Buffer.concat(pieces as Uint8Array[]);
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw defect(`not UTF-8, or longer than a string can be: ${reasonOf(error)}`, error);
  }
}

/**
 * Lines end at line feeds only: readline would end them at the separators U+2028 and U+2029 too, which may stand in a JSON string.
 * Carriage returns before a line feed are whitespace to JSON.
 */
async function* linesOf(source: AsyncIterable<unknown>, name: string): AsyncGenerator<{ text: string; line: number }> {
  let line = 1;
  let pieces: Piece[] = [];
  const chunks = source[Symbol.asyncIterator]();
  let ended = false;
  try {
    for (;;) {
      let next: IteratorResult<unknown>;
      try {
        next = await chunks.next();
      } catch (error) {
        ended = true;
        throw defectOf(name)(`cannot be read: ${reasonOf(error)}`, error);
      }
      if (next.done === true) {
        ended = true;
        break;
      }
      const chunk = next.value;
      if (typeof chunk !== 'string' && tagOf(chunk) !== 'Uint8Array') {
        throw typeError('ERR_DIRALIGN_FILE', `${name}:${line}: expected pieces of bytes or text, not ${describe(chunk)}`);
      }
      const piece = chunk as Piece;
      let start = 0;
      for (;;) {
        const end = typeof piece === 'string' ? piece.indexOf('\n', start) : piece.indexOf(0x0a, start);
        if (end < 0) break;
        pieces.push(typeof piece === 'string' ? piece.slice(start, end) : piece.subarray(start, end));
        yield { text: textOf(pieces, defectOf(name, line)), line };
        pieces = [];
        line++;
        start = end + 1;
      }
      // A copy: the source may fill the same memory again.
      if (start < piece.length)
        pieces.push(typeof piece === 'string' ? piece.slice(start) : Uint8Array.from(piece.subarray(start)));
    }
    if (pieces.length > 0) yield { text: textOf(pieces, defectOf(name, line)), line };
  } finally {
    // An error, or a reader that has seen enough: the source is closed.
    if (!ended) await chunks.return?.();
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Records

/** A JSON value as a message names it. */
function kindOf(value: unknown): string {
  if (Array.isArray(value)) return value.length === 0 ? 'an empty array' : 'an array';
  if (typeof value === 'string') return value === '' ? 'an empty string' : 'a string';
  return typeof value === 'object' && value !== null ? 'an object' : JSON.stringify(value);
}

function messagesOf(field: string, value: unknown, defect: Defect): readonly Message[] {
  if (!Array.isArray(value)) throw defect(`${field}: expected messages, as the other fields have, not ${kindOf(value)}`);
  if (value.length === 0) throw defect(`${field}: has no messages; expected at least one`);
  for (const [i, message] of (value as readonly unknown[]).entries()) {
    const name = `${field}[${i}]`;
    if (typeof message !== 'object' || message === null || Array.isArray(message)) {
      throw defect(`${name}: expected { role, content }, not ${kindOf(message)}`);
    }
    for (const key of ['role', 'content'] as const) {
      if (!Object.hasOwn(message, key)) throw defect(`${name}: has no ${key}`);
      const text = (message as Record<string, unknown>)[key];
      if (typeof text !== 'string') throw defect(`${name}.${key}: expected a string, not ${kindOf(text)}`);
      if (key === 'role' && text === '') throw defect(`${name}.role: is empty`);
    }
  }
  return value as readonly Message[];
}

/** Number of messages, from the first, that two conversations have in common. */
function commonLength(a: readonly Message[], b: readonly Message[]): number {
  let length = 0;
  while (length < Math.min(a.length, b.length) && isDeepStrictEqual(a[length], b[length])) length++;
  return length;
}

function conversationalOf(record: Readonly<Record<string, unknown>>, defect: Defect): ConversationalPreference {
  const chosen = messagesOf('chosen', record.chosen, defect);
  const rejected = messagesOf('rejected', record.rejected, defect);
  const common = commonLength(chosen, rejected);
  // Text beside conversations is a copy of what they begin with, as in UltraFeedback.
  if (!Object.hasOwn(record, 'prompt') || typeof record.prompt === 'string') {
    if (common === 0) throw defect('prompt: is missing, and chosen and rejected begin with different messages');
    for (const [field, messages] of Object.entries({ chosen, rejected })) {
      if (messages.length === common) {
        throw defect(`${field}: has no message after the ${common} that chosen and rejected both begin with, the prompt`);
      }
    }
    return { prompt: chosen.slice(0, common), chosen: chosen.slice(common), rejected: rejected.slice(common) };
  }
  const prompt = messagesOf('prompt', record.prompt, defect);
  if (commonLength(prompt, chosen) === prompt.length && commonLength(prompt, rejected) === prompt.length) {
    throw defect('prompt: chosen and rejected begin with it, so it would stand there twice; leave it out here or there');
  }
  return { prompt, chosen, rejected };
}

function preferenceOf(text: string, defect: Defect): Preference {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw defect(`not JSON: ${reasonOf(error)}`, error);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw defect(`expected an object with prompt, chosen and rejected, not ${kindOf(value)}`);
  }
  const record = value as Record<string, unknown>;
  for (const field of ['chosen', 'rejected']) {
    if (!Object.hasOwn(record, field)) throw defect(`${field}: is missing`);
  }
  const { prompt, chosen, rejected } = record;
  if (Array.isArray(chosen) || Array.isArray(rejected)) return conversationalOf(record, defect);
  if (!Object.hasOwn(record, 'prompt')) throw defect('prompt: is missing; only conversations may have it implicitly');
  for (const [field, text] of Object.entries({ prompt, chosen, rejected })) {
    if (typeof text !== 'string') throw defect(`${field}: expected a string, not ${kindOf(text)}`);
  }
  return { prompt, chosen, rejected } as PlainPreference;
}

async function* preferencesOf(source: AsyncIterable<unknown>, name: string): AsyncGenerator<Preference, void, undefined> {
  for await (const { text, line } of linesOf(source, name)) {
    const json = line === 1 && text.startsWith('\ufeff') ? text.slice(1) : text;
    if (/[^ \t\r]/.test(json)) yield preferenceOf(json, defectOf(name, line));
  }
}

function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value;
}

/** Opened when the first record is asked for. */
async function* fileBytes(path: string): AsyncGenerator {
  yield* createReadStream(path);
}

/**
 * The records of a JSONL file or stream, in its order, one line in memory at a time. A line is one of
 *
 *     {"prompt": "text", "chosen": "text", "rejected": "text"}
 *     {"prompt": [messages], "chosen": [messages], "rejected": [messages]}
 *     {"chosen": [messages], "rejected": [messages]}
 *
 * with messages of `{"role": "user", "content": "text"}`. In the third form the prompt is the messages that both begin with; a `prompt`
 * that is text beside conversations is taken for a copy of it and not read. Other fields are not read. Lines may end in CRLF, the last
 * in nothing; empty lines and a byte order mark are skipped. The source is closed when the reader ends, early or not.
 *
 * @throws DirAlignError at once, for a source of another kind; while reading, with code ERR_DIRALIGN_FILE and `NAME:LINE: ` before what
 * is wrong, for a line that is none of the three or not UTF-8, and for a source that cannot be read
 */
export function readPreferences(
  source: PreferenceSource,
  options: ReadPreferencesOptions = {},
): AsyncGenerator<Preference, void, undefined> {
  const { name } = options;
  if (name !== undefined && typeof name !== 'string') {
    throw typeError('ERR_DIRALIGN_OPTION', `name: expected a string, not ${describe(name)}`);
  }
  if (typeof source === 'string' || (source instanceof URL && source.protocol === 'file:')) {
    const path = typeof source === 'string' ? source : fileURLToPath(source);
    return preferencesOf(fileBytes(path), name ?? path);
  }
  if (!isAsyncIterable(source)) {
    const given = source instanceof URL ? source.href : describe(source);
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `source: expected a path, a file URL or an async iterable of bytes or text, not ${given}`,
    );
  }
  const path = 'path' in source && typeof source.path === 'string' ? source.path : undefined;
  return preferencesOf(source, name ?? path ?? 'stream');
}
