/** What the fields of a line say: a pair, a completion with a label, or responses with scores. */
import { conversationOf } from './conversations.js';
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
  type PreferenceRecord,
  type ScoredPreferenceRecord,
  type Side,
  type UnpairedRecord,
} from './records.js';

/** The fields of each form. The others of a line are in its `record`. */
export const formFields: Readonly<Record<PreferenceForm, readonly string[]>> = {
  pairs: ['prompt', 'chosen', 'rejected'],
  unpaired: ['prompt', 'completion', 'label'],
  groups: ['prompt', 'responses', 'completions', 'scores'],
};

/** The form whose completions a line has; pairs where it has none. */
export function formOf(line: object): PreferenceForm {
  const has = (name: string): boolean => field(line, name) !== undefined;
  if (has('chosen') || has('rejected')) return 'pairs';
  if (has('completion')) return 'unpaired';
  return has('responses') || has('completions') ? 'groups' : 'pairs';
}

/** A field that the line must have. @throws Refusal */
function needed(line: object, name: string): unknown {
  const value = field(line, name);
  if (value === undefined) throw new Refusal('field', `${name}: is missing`);
  return value;
}

function finite(name: string, value: unknown): number {
  // JSON has numbers beyond the largest, which are read as infinite.
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  throw new Refusal('field', `${name}: expected a finite number, not ${kindOf(value)}`);
}

type Split = Answered<string> | Answered<readonly Message[]>;

const areTexts = (sides: readonly Side<unknown>[]): sides is readonly Side<string>[] =>
  sides.every(({ said }) => typeof said === 'string');

/** The question in the prompt, and nowhere else. @throws Refusal */
function split(line: object, sides: readonly Side<unknown>[]): Split {
  const prompt = field(line, 'prompt');
  const isText = typeof prompt === 'string' || prompt === undefined;
  if (areTexts(sides) && !Array.isArray(prompt)) {
    if (!isText) throw new Refusal('field', `prompt: expected a string, not ${kindOf(prompt)}`);
    return plainOf(
      prompt,
      sides.map(({ said }) => said),
    );
  }
  for (const { name, said } of sides) {
    if (typeof said === 'string' || Array.isArray(said)) continue;
    throw new Refusal('field', `${name}: expected a string or messages, not ${kindOf(said)}`);
  }
  // After messages, text is what the assistant says.
  const messages = areTexts(sides)
    ? sides.map(({ name, said }) => ({ name, said: [{ role: 'assistant', content: said }] }))
    : sides;
  const turns = messages.map(({ name, said }) => ({ name, said: messagesOf(name, said) }));
  // An empty list is what stores of columns write where there is no prompt.
  const isAbsent = Array.isArray(prompt) && prompt.length === 0;
  return conversationOf(
    isAbsent ? undefined : isText ? prompt : messagesOf('prompt', prompt),
    turns,
  );
}

function pairOf(line: object): object {
  const names = ['chosen', 'rejected'] as const;
  const sides = names.map((name) => ({ name, said: needed(line, name) }));
  const { prompt, completions } = split(line, sides);
  const [chosen, rejected] = completions;
  return { prompt, chosen, rejected };
}

function marginOf(line: object): number {
  const [chosen, rejected] = ['score_chosen', 'score_rejected'].map((name) =>
    finite(name, needed(line, name)),
  ) as [number, number];
  return finite('score_chosen - score_rejected', chosen - rejected);
}

function unpairedOf(line: object): object {
  const name = 'completion';
  const { prompt, completions } = split(line, [{ name, said: needed(line, name) }]);
  const label = needed(line, 'label');
  if (typeof label !== 'boolean' && label !== 0 && label !== 1)
    throw new Refusal('field', `label: expected true, false, 0 or 1, not ${kindOf(label)}`);
  return { prompt, completion: completions[0], label: Boolean(label) };
}

/** A list that is not empty. @throws Refusal */
function listOf(line: object, name: string): readonly unknown[] {
  const value = needed(line, name);
  if (Array.isArray(value) && value.length > 0) return value;
  throw new Refusal('field', `${name}: expected a list, not ${kindOf(value)}`);
}

function groupOf(line: object): object {
  const [name, other] =
    field(line, 'responses') !== undefined || field(line, 'completions') === undefined
      ? ['responses', 'completions']
      : ['completions', 'responses'];
  if (field(line, other) !== undefined)
    throw new Refusal('field', `${other}: is there beside ${name}; expected one of them`);
  const responses = listOf(line, name);
  const scores = listOf(line, 'scores').map((score, i) => finite(`scores[${i}]`, score));
  if (scores.length !== responses.length) {
    throw new Refusal(
      'field',
      `scores: has ${scores.length}; expected one for each of the ${responses.length} ${name}`,
    );
  }
  const { prompt, completions } = split(
    line,
    responses.map((said, i) => ({ name: `${name}[${i}]`, said })),
  );
  return { prompt, responses: completions, scores };
}

export type AnyRecord = PreferenceRecord | ScoredPreferenceRecord | UnpairedRecord | GroupRecord;

/** A line's object as a record of that form. @throws Refusal */
export function readForm(line: object, form: PreferenceForm, margins: boolean): AnyRecord {
  const own = formFields[form];
  const others = Object.entries(line).filter(
    ([name, other]) => !own.includes(name) && other !== null,
  );
  const read = { pairs: pairOf, unpaired: unpairedOf, groups: groupOf }[form];
  return {
    ...read(line),
    ...(margins && { margin: marginOf(line) }),
    record: Object.fromEntries(others),
  } as AnyRecord;
}
