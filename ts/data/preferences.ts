/** Preference data as JSONL: one JSON object a line, plain or conversational. */
import { DirAlignError, rangeError, typeError } from '../errors.js';
import { checkObject, describe, quoted, readProperties } from '../given.js';
import { formFields, formOf, readForm, type AnyRecord } from './forms.js';
import { linesOf, openSource, textOf, type Line } from './lines.js';
import {
  isObject,
  kindOf,
  Refusal,
  type ConversationalPreference,
  type GroupRecord,
  type Preference,
  type PreferenceForm,
  type PreferenceRecord,
  type ScoredPreferenceRecord,
  type SkipReason,
  type UnpairedRecord,
} from './records.js';

/**
 * A path or file URL, or UTF-8 bytes or text in pieces of any size: a Node or web stream, or any
 * other async iterable.
 */
export type PreferenceSource = string | URL | AsyncIterable<Uint8Array | string>;

/** What is read, what errors say, and what happens after one. */
export interface ReadPreferencesOptions<Form extends PreferenceForm = 'pairs'> {
  /**
   * What every line is read as: `'pairs'`, `'unpaired'` or `'groups'`. Default: what the first
   * record is, where the type of the records is that of pairs.
   */
  readonly form?: Form;
  /**
   * Whether records have a `margin`, `score_chosen - score_rejected`; a line without these scores
   * is then no preference. Of pairs only. Default false.
   */
  readonly margins?: boolean;
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
export interface PreferenceReader<Read = PreferenceRecord> extends AsyncGenerator<
  Read,
  void,
  undefined
> {
  /** Counts what is read while it is read: complete when the loop has ended. */
  readonly report: PreferenceReport;
}

/** Whether a record's fields are messages rather than text. */
export function isConversational<Of extends Pick<Preference, 'prompt'>>(
  record: Of,
): record is Extract<Of, Pick<ConversationalPreference, 'prompt'>> {
  return typeof record.prompt !== 'string';
}

// ----------------------------------------------------------------------------------------------
// Records

/** How lines are read. */
interface Reading {
  /** Undefined until there is a record that says it. */
  form: PreferenceForm | undefined;
  readonly margins: boolean;
}

/** @returns undefined for an empty line; throws a Refusal for one that is no preference */
function recordOf(line: Line, reading: Reading): AnyRecord | undefined {
  const text = textOf(line);
  const json = line.number === 1 && text.startsWith('\ufeff') ? text.slice(1) : text;
  if (!/[^ \t\r]/.test(json)) return undefined;
  try {
    const value: unknown = JSON.parse(json);
    if (!isObject(value)) {
      throw new Refusal(
        'object',
        `expected an object with a prompt and completions, not ${kindOf(value)}`,
      );
    }
    const form = reading.form ?? formOf(value);
    const record = readForm(value, form, reading.margins);
    reading.form = form;
    return record;
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
  reading: Reading,
  report: Report,
  onRefusal: OnRefusal,
): AsyncGenerator<AnyRecord, void, undefined> {
  for await (const line of linesOf(source, name)) {
    let record: AnyRecord | undefined;
    try {
      record = recordOf(line, reading);
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

function checkOptions(options: unknown = {}): ReadPreferencesOptions<PreferenceForm> {
  checkObject('options', options);
  const { form, margins, name, onError, onSkip } = readProperties('options', options, [
    'form',
    'margins',
    'name',
    'onError',
    'onSkip',
  ]);
  const forms = Object.keys(formFields);
  if (form !== undefined && !forms.includes(form as string)) {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `form: ${describe(form)} is not one of ${quoted(forms)}`,
    );
  }
  if (margins !== undefined && typeof margins !== 'boolean') {
    throw typeError('ERR_DIRALIGN_OPTION', `margins: expected a boolean, not ${describe(margins)}`);
  }
  if (margins === true && form !== undefined && form !== 'pairs') {
    throw typeError('ERR_DIRALIGN_OPTION', `margins: only pairs have them, not ${describe(form)}`);
  }
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
  return { form, margins, name, onError, onSkip } as ReadPreferencesOptions<PreferenceForm>;
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
 * A file may have single completions or groups instead, as text or messages, and the prompt of
 * these is found in the same way:
 *
 *     {"prompt": "text", "completion": "text", "label": true}
 *     {"prompt": "text", "responses": ["text", "text", "text"], "scores": [9, 6.5, 1]}
 *
 * with a label of true, false, 1 or 0, and with `completions` as another name of `responses`. A
 * file has one form: `form`, or where that is not given, what the first record is. To lines of
 * another form applies what they lack.
 *
 * @throws DirAlignError at once, with code ERR_DIRALIGN_OPTION, for a source or options of another
 *   kind; while reading, with code ERR_DIRALIGN_FILE and `NAME:LINE: ` before what is wrong, for a
 *   line that is no preference, unless `onError` is `'skip'`, and for a source that cannot be read
 */
export function readPreferences(
  source: PreferenceSource,
  options: ReadPreferencesOptions<'unpaired'> & { readonly form: 'unpaired' },
): PreferenceReader<UnpairedRecord>;

export function readPreferences(
  source: PreferenceSource,
  options: ReadPreferencesOptions<'groups'> & { readonly form: 'groups' },
): PreferenceReader<GroupRecord>;

export function readPreferences(
  source: PreferenceSource,
  options: ReadPreferencesOptions & { readonly margins: true },
): PreferenceReader<ScoredPreferenceRecord>;

export function readPreferences(
  source: PreferenceSource,
  options?: ReadPreferencesOptions,
): PreferenceReader;

export function readPreferences(
  source: PreferenceSource,
  options?: ReadPreferencesOptions<PreferenceForm>,
): PreferenceReader<AnyRecord> {
  const { form, margins = false, name, onError, onSkip } = checkOptions(options);
  const { chunks, called } = openSource(source);
  const report: Report = { read: 0, skipped: 0, reasons: {} };
  const skip: OnRefusal = (error, reason) => {
    report.skipped++;
    report.reasons[reason] = (report.reasons[reason] ?? 0) + 1;
    onSkip?.(error, reason);
  };
  const fail: OnRefusal = (error) => {
    throw error;
  };
  const reading = { form: margins ? 'pairs' : form, margins };
  const onRefusal = onError === 'skip' ? skip : fail;
  return Object.assign(recordsOf(chunks, name ?? called, reading, report, onRefusal), { report });
}
