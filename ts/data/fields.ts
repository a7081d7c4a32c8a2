/** Where a line has its prompt and its completions: the fields of each format. */
import { isDeepStrictEqual } from 'node:util';
import { isQuestion, isSystem } from './conversations.js';
import { messagesOf } from './messages.js';
import {
  field,
  isObject,
  kindOf,
  Refusal,
  type PreferenceFormat,
  type PreferenceForm,
  type Side,
} from './records.js';

/** What a line has of a form, unread. */
export interface Fields {
  readonly format: PreferenceFormat;
  /** `said` is undefined where there is none. */
  readonly prompt: Side<unknown>;
  /** Text before the turns of the prompt, if these have no system message. */
  readonly system?: unknown;
  readonly completions: readonly Side<unknown>[];
  /** Names of fields that these are read from: not part of the `record`. */
  readonly used: readonly string[];
  /** Further fields of the `record`. */
  readonly further?: object;
}

/** Every field that some format reads. */
export const knownFields: ReadonlySet<string> = new Set([
  ...['prompt', 'chosen', 'rejected', 'completion', 'label', 'responses', 'completions', 'scores'],
  ...['score_chosen', 'score_rejected', 'input', 'preferred_output', 'non_preferred_output'],
  ...['conversations', 'messages', 'system', 'kto_tag', 'rejected_response', 'rejected_messages'],
  ...['query', 'response', 'history'],
]);

const has = (line: object, ...names: readonly string[]): boolean =>
  names.some((name) => field(line, name) !== undefined);

/** The form whose completions a line has; pairs where it has none. */
export function formOf(line: object): PreferenceForm {
  const ofPairs = ['preferred_output', 'non_preferred_output', 'rejected_response'];
  if (has(line, 'chosen', 'rejected', 'rejected_messages', ...ofPairs)) return 'pairs';
  if (has(line, 'completion')) return 'unpaired';
  if (has(line, 'responses', 'completions')) return 'groups';
  const isJudged = has(line, 'messages', 'conversations') && has(line, 'label', 'kto_tag');
  return isJudged ? 'unpaired' : 'pairs';
}

/** A field that the line must have. @throws Refusal */
export function needed(line: object, name: string): Side<unknown> {
  const said = field(line, name);
  if (said === undefined) throw new Refusal('field', `${name}: is missing`);
  return { name, said };
}

/** One turn as a list of turns. */
const listed = ({ name, said }: Side<unknown>): Side<unknown> => ({
  name,
  said: isObject(said) ? [said] : said,
});

const systemOf = (line: object): { readonly system?: unknown } =>
  has(line, 'system') ? { system: field(line, 'system') } : {};

/** `messages` beside conversations may be one of them, as in data for several trainers. */
function isOneOf(turns: unknown, sides: readonly Side<unknown>[]): boolean {
  return sides.some(
    ({ said }) =>
      Array.isArray(said) && Array.isArray(turns) && isDeepStrictEqual(said[0], turns[0]),
  );
}

/**
 * The prompt, in the field that has it. An empty list, or empty text beside a conversation, is what
 * stores of columns write where there is none.
 */
function promptOf(
  line: object,
  sides: readonly Side<unknown>[],
): Pick<Fields, 'format' | 'prompt' | 'used' | 'system'> {
  const said = field(line, 'prompt');
  const isAbsent = said === undefined || (Array.isArray(said) && said.length === 0);
  for (const name of ['conversations', 'messages']) {
    const turns = field(line, name);
    if (turns === undefined || !(isAbsent || said === '')) continue;
    if (name === 'messages' && isOneOf(turns, sides)) continue;
    return {
      format: name === 'messages' ? 'messages' : 'sharegpt',
      prompt: { name, said: turns },
      ...systemOf(line),
      used: ['prompt', name, 'system'],
    };
  }
  const prompt = { name: 'prompt', said: isAbsent ? undefined : said };
  return { format: 'trl', prompt, used: ['prompt'] };
}

/** `input` with `messages` and tools, `preferred_output` and `non_preferred_output`. */
function openAiFields(line: object): Fields {
  const input = field(line, 'input');
  const { messages, ...further } = isObject(input)
    ? (input as { readonly messages?: unknown })
    : { messages: input };
  const given = Object.entries(further).filter(([, value]) => value !== null);
  const names = ['preferred_output', 'non_preferred_output'];
  return {
    format: 'openai',
    prompt: listed({ name: 'input.messages', said: messages ?? undefined }),
    completions: names.map((name) => listed(needed(line, name))),
    used: ['input', ...names],
    further: Object.fromEntries(given),
  };
}

const turn = (role: string, content: unknown): object => ({ role, content });

/** Questions and answers of earlier turns. @throws Refusal */
function historyOf(line: object): readonly object[] {
  const history = field(line, 'history') ?? [];
  const isHistory =
    Array.isArray(history) &&
    history.every((pair: unknown) => Array.isArray(pair) && pair.length === 2);
  if (!isHistory)
    throw new Refusal('field', `history: expected pairs of texts, not ${kindOf(history)}`);
  return (history as [unknown, unknown][]).flatMap(([question, answer]) => [
    turn('user', question),
    turn('assistant', answer),
  ]);
}

/** What text says after turns. */
const answered = ({ name, said }: Side<unknown>): Side<unknown> => ({
  name,
  said: typeof said === 'string' ? [turn('assistant', said)] : said,
});

/** `query` and `response` of ms-swift, and turns before them. */
function queryFields(line: object): Fields {
  const query = needed(line, 'query');
  const completions = [needed(line, 'response'), needed(line, 'rejected_response')];
  const history = historyOf(line);
  const used = ['query', 'history', 'response', 'rejected_response'];
  const isTalk = history.length > 0 || has(line, 'system');
  if (!isTalk) return { format: 'ms-swift', prompt: query, completions, used };
  return {
    format: 'ms-swift',
    prompt: { name: 'history', said: [...history, turn('user', query.said)] },
    ...systemOf(line),
    completions: completions.map(answered),
    used: [...used, 'system'],
  };
}

/** `messages` that end with the answer that was chosen, and `rejected_response`. */
function swiftFields(line: object): Fields {
  if (!has(line, 'messages')) return queryFields(line);
  const all = { name: 'messages', said: field(line, 'messages') };
  if (!has(line, 'rejected_response')) {
    return {
      format: 'ms-swift',
      prompt: { name: 'prompt', said: undefined },
      ...systemOf(line),
      completions: [all, needed(line, 'rejected_messages')],
      used: ['messages', 'rejected_messages', 'system'],
    };
  }
  const turns = messagesOf(all.name, all.said);
  const last = turns.at(-1);
  if (last === undefined || isQuestion(last) || isSystem(last)) {
    throw new Refusal(
      'completion',
      'messages: end without an answer; expected the one that was chosen as the last message',
    );
  }
  return {
    format: 'ms-swift',
    prompt: { name: 'messages', said: turns.slice(0, -1) },
    ...systemOf(line),
    completions: [{ name: 'messages', said: [last] }, answered(needed(line, 'rejected_response'))],
    used: ['messages', 'rejected_response', 'system'],
  };
}

export function pairFields(line: object): Fields {
  if (has(line, 'preferred_output', 'non_preferred_output')) return openAiFields(line);
  if (has(line, 'rejected_response', 'rejected_messages')) return swiftFields(line);
  const names = ['chosen', 'rejected'];
  const sides = names.map((name) => needed(line, name));
  const read = promptOf(line, sides);
  const completions = read.format === 'trl' ? sides : sides.map(listed);
  return { ...read, completions, used: [...read.used, ...names] };
}

export function singleFields(line: object): Fields {
  const completion = { name: 'completion', said: field(line, 'completion') };
  const read = promptOf(line, [completion]);
  const used = [...read.used, 'completion', 'label', 'kto_tag'];
  if (completion.said === undefined && read.format !== 'trl') {
    // The last answer of a conversation is what the label is of.
    const prompt = { name: 'prompt', said: undefined };
    return { ...read, prompt, completions: [read.prompt], used };
  }
  if (read.format === 'trl') return { ...read, completions: [needed(line, 'completion')], used };
  return { ...read, completions: [listed(completion)], used };
}

/** A list that is not empty. @throws Refusal */
function listOf(line: object, name: string): readonly unknown[] {
  const { said } = needed(line, name);
  if (Array.isArray(said) && said.length > 0) return said;
  throw new Refusal('field', `${name}: expected a list, not ${kindOf(said)}`);
}

export function groupFields(line: object): Fields & { readonly scores: readonly unknown[] } {
  const [name, other] =
    has(line, 'responses') || !has(line, 'completions')
      ? ['responses', 'completions']
      : ['completions', 'responses'];
  if (has(line, other))
    throw new Refusal('field', `${other}: is there beside ${name}; expected one of them`);
  const responses = listOf(line, name);
  const scores = listOf(line, 'scores');
  if (scores.length !== responses.length) {
    throw new Refusal(
      'field',
      `scores: has ${scores.length}; expected one for each of the ${responses.length} ${name}`,
    );
  }
  const completions = responses.map((said, i) => ({ name: `${name}[${i}]`, said }));
  const read = promptOf(line, completions);
  return { ...read, completions, used: [...read.used, name, other, 'scores'], scores };
}
