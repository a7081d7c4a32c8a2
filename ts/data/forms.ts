/** What the fields of a line say: a pair, a completion with a label, or responses with scores. */
import { conversationOf, isSystem } from './conversations.js';
import {
  formOf,
  groupFields,
  knownFields,
  needed,
  pairFields,
  singleFields,
  type Fields,
} from './fields.js';
import { messagesOf } from './messages.js';
import { plainOf } from './plain.js';
import {
  field,
  kindOf,
  Refusal,
  type Answered,
  type GroupRecord,
  type Message,
  type PreferenceForm,
  type PreferenceFormat,
  type PreferenceRecord,
  type ScoredPreferenceRecord,
  type Side,
  type UnpairedRecord,
} from './records.js';
import { rowOf } from './rows.js';

export const preferenceForms: readonly PreferenceForm[] = ['pairs', 'unpaired', 'groups'];

function finite(name: string, value: unknown): number {
  // JSON has numbers beyond the largest, which are read as infinite.
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  throw new Refusal('field', `${name}: expected a finite number, not ${kindOf(value)}`);
}

type Split = Answered<string> | Answered<readonly Message[]>;

const areTexts = (sides: readonly Side<unknown>[]): sides is readonly Side<string>[] =>
  sides.every(({ said }) => typeof said === 'string');

/** The turns of a prompt, after the system message that the line has elsewhere. @throws Refusal */
function turnsOf({ name, said }: Side<unknown>, system: unknown): readonly Message[] {
  const turns = messagesOf(name, said);
  if (system === undefined || system === '' || turns.slice(0, 1).some(isSystem)) return turns;
  if (typeof system !== 'string')
    throw new Refusal('field', `system: expected a string, not ${kindOf(system)}`);
  return [{ role: 'system', content: system }, ...turns];
}

/** The question in the prompt, and nowhere else. @throws Refusal */
function split({ prompt, system, completions: sides }: Fields): Split {
  const { name, said: given } = prompt;
  const isText = typeof given === 'string' || given === undefined;
  if (areTexts(sides) && !Array.isArray(given)) {
    if (!isText) throw new Refusal('field', `${name}: expected a string, not ${kindOf(given)}`);
    return plainOf(
      given,
      sides.map(({ said }) => said),
    );
  }
  for (const { name: side, said } of sides) {
    if (typeof said === 'string' || Array.isArray(said)) continue;
    throw new Refusal('field', `${side}: expected a string or messages, not ${kindOf(said)}`);
  }
  // After messages, text is what the assistant says.
  const messages = areTexts(sides)
    ? sides.map(({ name: side, said }) => ({
        name: side,
        said: [{ role: 'assistant', content: said }],
      }))
    : sides;
  const turns = messages.map(({ name: side, said }) => ({
    name: side,
    said: messagesOf(side, said),
  }));
  // An empty list is what stores of columns write where there is no prompt.
  const isAbsent = given === undefined || (Array.isArray(given) && given.length === 0);
  if (!isAbsent) return conversationOf(isText ? given : turnsOf(prompt, system), turns);
  const { prompt: implicit, completions } = conversationOf(undefined, turns);
  return { prompt: turnsOf({ name, said: implicit }, system), completions };
}

function marginOf(line: object): number {
  const [chosen, rejected] = ['score_chosen', 'score_rejected'].map((name) =>
    finite(name, needed(line, name).said),
  ) as [number, number];
  return finite('score_chosen - score_rejected', chosen - rejected);
}

function labelOf(line: object): boolean {
  const name =
    field(line, 'label') === undefined && field(line, 'kto_tag') !== undefined
      ? 'kto_tag'
      : 'label';
  const { said: label } = needed(line, name);
  if (typeof label !== 'boolean' && label !== 0 && label !== 1)
    throw new Refusal('field', `${name}: expected true, false, 0 or 1, not ${kindOf(label)}`);
  return Boolean(label);
}

/** A line as a record of its form, and the fields that it was read from. */
type Read = readonly [record: object, fields: Fields];

function pairOf(line: object): Read {
  const fields = pairFields(line);
  const { prompt, completions } = split(fields);
  const [chosen, rejected] = completions;
  return [{ prompt, chosen, rejected }, fields];
}

function unpairedOf(line: object): Read {
  const fields = singleFields(line);
  const { prompt, completions } = split(fields);
  return [{ prompt, completion: completions[0], label: labelOf(line) }, fields];
}

function groupOf(line: object): Read {
  const fields = groupFields(line);
  const scores = fields.scores.map((score, i) => finite(`scores[${i}]`, score));
  const { prompt, completions } = split(fields);
  return [{ prompt, responses: completions, scores }, fields];
}

export type AnyRecord = PreferenceRecord | ScoredPreferenceRecord | UnpairedRecord | GroupRecord;

/** A line's object as a record of that form, and the format that it has. @throws Refusal */
export function readForm(
  line: object,
  form: PreferenceForm,
  margins: boolean,
): { readonly record: AnyRecord; readonly format: PreferenceFormat } {
  const read = { pairs: pairOf, unpaired: unpairedOf, groups: groupOf }[form];
  const [record, { used, further, format }] = read(line);
  const others = Object.entries(line).filter(
    ([name, other]) => !used.includes(name) && (other ?? undefined) !== undefined,
  );
  return {
    format,
    record: {
      ...record,
      ...(margins && { margin: marginOf(line) }),
      record: { ...further, ...Object.fromEntries(others) },
    } as AnyRecord,
  };
}

/** What a row is, for {@link detectForm}. */
export interface DetectedForm {
  /** What `readPreferences` gives for it. */
  readonly form: PreferenceForm;
  /** Whose names its fields have. */
  readonly format: PreferenceFormat;
}

/**
 * What {@link readPreferences} takes a row for; undefined for a row that it would refuse.
 *
 *     detectForm({ messages, rejected_response: 'No.' }); // { form: 'pairs', format: 'ms-swift' }
 *
 * @param row an object, as a line of JSONL has it or as a reader of tables gives it
 */
export function detectForm(row: object): DetectedForm | undefined {
  try {
    const line = rowOf(row, knownFields);
    const form = formOf(line);
    return { form, format: readForm(line, form, false).format };
  } catch (error) {
    if (error instanceof Refusal) return undefined;
    throw error;
  }
}
