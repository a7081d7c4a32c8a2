/** Preference data: lines of JSONL, elements of JSON arrays, or rows, as records. */
import { type DirAlignError, rangeError } from '../errors.js';
import { formOf, knownFields } from './fields.js';
import { readForm, type AnyRecord } from './forms.js';
import { itemsOf } from './items.js';
import { textOf, type Item } from './pieces.js';
import { checkOptions, type ReadPreferencesOptions } from './preference-options.js';
import {
  Refusal,
  type ConversationalPreference,
  type GroupRecord,
  type Preference,
  type PreferenceForm,
  type PreferenceFormat,
  type PreferenceRecord,
  type ScoredPreferenceRecord,
  type SkipReason,
  type UnpairedRecord,
} from './records.js';
import { rowOf } from './rows.js';
import { openSource, type PreferenceSource, type Source } from './source.js';

/** What has been read so far. */
export interface PreferenceReport {
  /** What records are; undefined until there is one. */
  readonly form: PreferenceForm | undefined;
  /** Records that were given. */
  readonly read: number;
  /** These records by the names of their fields: only formats that there were. */
  readonly formats: Readonly<Partial<Record<PreferenceFormat, number>>>;
  /** Lines, elements or rows that were skipped; empty lines are none. */
  readonly skipped: number;
  /** These by reason: only reasons that there were. */
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

interface Report extends PreferenceReport {
  form: PreferenceForm | undefined;
  read: number;
  skipped: number;
  readonly formats: Partial<Record<PreferenceFormat, number>>;
  readonly reasons: Partial<Record<SkipReason, number>>;
}

/** What an item says; undefined for an empty line. @throws Refusal */
function parsed(item: Item): unknown {
  if (item.kind === 'row') return item.row;
  const json = textOf(item.pieces);
  if (item.kind === 'line' && !/[^ \t\r]/.test(json)) return undefined;
  try {
    return JSON.parse(json);
  } catch (error) {
    throw new Refusal('json', `not JSON: ${(error as Error).message}`, error);
  }
}

/**
 * @param form undefined until there is a record that says it
 * @returns undefined for an empty line
 * @throws Refusal for what is no preference
 */
function recordOf(item: Item, form: PreferenceForm | undefined, margins: boolean) {
  const value = parsed(item);
  if (value === undefined && item.kind === 'line') return undefined;
  try {
    const line = rowOf(value, item.kind === 'row' ? knownFields : new Set());
    const found = form ?? formOf(line);
    return { form: found, ...readForm(line, found, margins) };
  } catch (error) {
    // JSON of any depth can be parsed, but not compared.
    throw error instanceof Refusal
      ? error
      : new Refusal('json', `not JSON: ${(error as Error).message}`, error);
  }
}

// ----------------------------------------------------------------------------------------------
// Reading

type OnRefusal = (error: DirAlignError, reason: SkipReason) => void;

/** How items are read. */
interface Reading {
  readonly form: PreferenceForm | undefined;
  readonly margins: boolean;
  readonly onRefusal: OnRefusal;
}

async function* recordsOf(
  source: Source,
  name: string,
  { form, margins, onRefusal }: Reading,
  report: Report,
): AsyncGenerator<AnyRecord, void, undefined> {
  for await (const item of itemsOf(source, name)) {
    let read: ReturnType<typeof recordOf>;
    try {
      read = recordOf(item, form ?? report.form, margins);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      const cause = error.cause === undefined ? undefined : { cause: error.cause };
      onRefusal(
        rangeError('ERR_DIRALIGN_FILE', `${name}${item.place}: ${error.message}`, cause),
        error.reason,
      );
      continue;
    }
    if (read === undefined) continue;
    report.read++;
    report.form = read.form;
    report.formats[read.format] = (report.formats[read.format] ?? 0) + 1;
    yield read.record;
  }
}

/**
 * The records of a source, in its order, one in memory at a time. A source is JSONL, a JSON array
 * of objects, either of them compressed with gzip, or rows that a program gives. One record is
 * one of
 *
 *     {"prompt": "text", "chosen": "text", "rejected": "text"}
 *     {"prompt": [messages], "chosen": [messages], "rejected": [messages]}
 *     {"prompt": "text", "chosen": [messages], "rejected": [messages]}
 *     {"chosen": [messages], "rejected": [messages]}
 *
 * with messages of `{"role": "user", "content": "text"}`, or with text in parts as content; or it
 * has the names of another {@link PreferenceFormat}. Null counts as absent, in every field of the
 * record and of its messages. The question is in the prompt, and nowhere else:
 *
 * - Without a prompt, or where its text is a turn of both conversations (or these turns as a chat
 *   template writes them), the prompt is the turns that both begin with; of equal conversations,
 *   those up to the last question.
 * - A prompt that the completions do not have comes before them: text as a user's turn, after the
 *   system message if they begin with one.
 * - A prompt that the completions repeat, with a system message or without, is taken off them. So
 *   is text of several words that both texts begin with, and dialogues of "Human:" and "Assistant:"
 *   may have it implicitly, too.
 *
 * Other fields come along in `record`. Lines may end in CRLF, the last in nothing; empty lines and
 * a byte order mark are skipped. The source is closed when the reader ends, early or not.
 *
 *     const reader = readPreferences('pairs.jsonl', { onError: 'skip' });
 *     for await (const { prompt, chosen, rejected, record } of reader) {
 *       train(prompt, chosen, rejected, record.tools);
 *     }
 *     console.log(reader.report.reasons); // { json: 1, message: 1 }
 *
 * A source may have single completions or groups instead, as text or messages, and the prompt of
 * these is found in the same way:
 *
 *     {"prompt": "text", "completion": "text", "label": true}
 *     {"prompt": "text", "responses": ["text", "text", "text"], "scores": [9, 6.5, 1]}
 *
 * with a label of true, false, 1 or 0, and with `completions` as another name of `responses`. A
 * source has one form: `form`, or where that is not given, what the first record is. What lacks the
 * fields of that form is no preference.
 *
 * Of rows each field is read once. Their big integers may be numbers, their typed arrays lists, and
 * objects with a `toJSON` what that gives, as in Arrow; fields that go into `record` are not
 * touched.
 *
 * @throws DirAlignError at once, with code ERR_DIRALIGN_OPTION, for a source or options of another
 *   kind; while reading, with code ERR_DIRALIGN_FILE, for what is no preference, unless `onError`
 *   is `'skip'`, with its place before what is wrong: `NAME:LINE: `, or `NAME[INDEX]: ` of arrays
 *   and rows; and with the same code for a source that cannot be read, is cut off, or is of another
 *   format, whatever `onError` is
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
  const opened = openSource(source);
  const report: Report = { form: undefined, read: 0, formats: {}, skipped: 0, reasons: {} };
  const skip: OnRefusal = (error, reason) => {
    report.skipped++;
    report.reasons[reason] = (report.reasons[reason] ?? 0) + 1;
    onSkip?.(error, reason);
  };
  const fail: OnRefusal = (error) => {
    throw error;
  };
  const reading = {
    form: margins ? 'pairs' : form,
    margins,
    onRefusal: onError === 'skip' ? skip : fail,
  } as const;
  return Object.assign(recordsOf(opened, name ?? opened.called, reading, report), { report });
}
