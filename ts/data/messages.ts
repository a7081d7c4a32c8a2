/** Messages of chat APIs, as files have them. */
import { typeError } from '../errors.js';
import { checkObject, describe, isArray } from '../given.js';
import { field, isObject, kindOf, Refusal, type Message } from './records.js';

/**
 * Without fields that are null. What a tool is called with stays as it is: there null is a value of
 * the call.
 */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (!isObject(value)) return value;
  const entries = Object.entries(value).filter(([, inner]) => inner !== null);
  return Object.fromEntries(
    entries.map(([key, inner]) => [key, key === 'arguments' ? inner : withoutNulls(inner)]),
  );
}

function partText(name: string, part: unknown): string {
  if (typeof part === 'string') return part;
  const type = isObject(part) ? field(part, 'type') : undefined;
  const text = isObject(part) ? field(part, 'text') : undefined;
  const isText = type === undefined || (typeof type === 'string' && type.includes('text'));
  if (typeof text === 'string' && isText) return text;
  const given =
    typeof type === 'string'
      ? `a part of type '${type.slice(0, 40)}'; only text can be read`
      : kindOf(part);
  throw new Refusal('message', `${name}: expected { type: 'text', text }, not ${given}`);
}

/** Fields with which a message says something without content. */
const speaking = [
  'tool_calls',
  'function_call',
  'reasoning_content',
  'reasoning',
  'thinking',
  'refusal',
];

function maySayNothing(role: string, message: object): boolean {
  // A tool may give nothing back.
  if (role === 'tool' || role === 'function' || role === 'ipython') return true;
  return speaking.some((key) => {
    const value = field(message, key);
    return value !== undefined && value !== '' && !(Array.isArray(value) && value.length === 0);
  });
}

function contentOf(name: string, role: string, message: object): string {
  const content = field(message, 'content');
  if (typeof content === 'string') return content;
  if (Array.isArray(content)) {
    return content.map((part: unknown, i) => partText(`${name}.content[${i}]`, part)).join('');
  }
  if (content !== undefined)
    throw new Refusal('message', `${name}.content: expected a string, not ${kindOf(content)}`);
  if (!maySayNothing(role, message))
    throw new Refusal('message', `${name}: has no content, and calls no tool`);
  return '';
}

/** Who speaks, by the names that ShareGPT has. */
const speakers: ReadonlyMap<string, string> = new Map([
  ['human', 'user'],
  ['gpt', 'assistant'],
  ['chatgpt', 'assistant'],
  ['bing', 'assistant'],
  ['bard', 'assistant'],
  ['observation', 'tool'],
  ['function_response', 'tool'],
]);

/** Calls of tools that are written as content: `{ name, arguments }`, or several. */
function callsOf(name: string, content: string): readonly object[] {
  let value: unknown;
  try {
    value = JSON.parse(content);
  } catch {
    // What is no JSON is no call.
  }
  const calls: readonly unknown[] = Array.isArray(value) ? value : [value];
  return calls.map((call) => {
    if (isObject(call) && typeof field(call, 'name') === 'string')
      return { type: 'function', function: call };
    throw new Refusal('message', `${name}: expected a call as JSON, { name, arguments }`);
  });
}

/** A turn of ShareGPT, `{ from, value }`, as chat APIs have it. @throws Refusal */
function sharedTurn(name: string, turn: object): object {
  const { from, value, ...others } = turn as { readonly from?: unknown; readonly value?: unknown };
  if (typeof from !== 'string')
    throw new Refusal('message', `${name}.from: expected a string, not ${kindOf(from)}`);
  const isCall = from === 'function_call' || from === 'tool_call';
  if (isCall && typeof value === 'string')
    return { ...others, role: 'assistant', tool_calls: callsOf(`${name}.value`, value) };
  return { ...others, role: speakers.get(from) ?? from, content: value };
}

function messageOf(name: string, given: unknown): Message {
  if (!isObject(given))
    throw new Refusal('message', `${name}: expected { role, content }, not ${kindOf(given)}`);
  const isOfShareGpt = field(given, 'role') === undefined && field(given, 'from') !== undefined;
  const value = isOfShareGpt ? sharedTurn(name, given) : given;
  const role = field(value, 'role');
  if (role === undefined) throw new Refusal('message', `${name}: has no role`);
  if (typeof role !== 'string')
    throw new Refusal('message', `${name}.role: expected a string, not ${kindOf(role)}`);
  if (role === '') throw new Refusal('message', `${name}.role: is empty`);
  return { ...(withoutNulls(value) as object), role, content: contentOf(name, role, value) };
}

/** @throws Refusal for a value that is no list of messages, or an empty one */
export function messagesOf(name: string, value: unknown): readonly Message[] {
  if (!Array.isArray(value)) {
    throw new Refusal(
      'field',
      `${name}: expected messages, as the other fields have, not ${kindOf(value)}`,
    );
  }
  if (value.length === 0)
    throw new Refusal('completion', `${name}: has no messages; expected at least one`);
  return value.map((message: unknown, i) => messageOf(`${name}[${i}]`, message));
}

const writers = /^(assistant|model|gpt|bot|chatbot|ai|agent)$/i;

/**
 * Which turns of a completion the model is to learn: those that it wrote, and that are not left out
 * by `weight: 0`, as OpenAI has it, or `loss: false`, as ms-swift has it. The results of tools and
 * the turns of users are context; their tokens have 0 in the masks of `collatePairs`.
 *
 *     for (const [i, turn] of chosen.entries()) learned[i] ? score(turn) : skip(turn);
 *
 * @param turns those of a completion
 * @returns one flag per turn
 * @throws DirAlignError with code ERR_DIRALIGN_OPTION for what is no list of turns
 */
export function learnedTurns(turns: readonly Message[]): boolean[] {
  if (!isArray(turns))
    throw typeError('ERR_DIRALIGN_OPTION', `turns: expected an array, not ${describe(turns)}`);
  return turns.map((turn: unknown, i) => {
    checkObject(`turns[${i}]`, turn);
    const { role, weight, loss } = turn as Readonly<Record<'role' | 'weight' | 'loss', unknown>>;
    return typeof role === 'string' && writers.test(role) && weight !== 0 && loss !== false;
  });
}
