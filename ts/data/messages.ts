/** Messages of chat APIs, as files have them. */
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
  const given = typeof type === 'string' ? `a part of type '${type.slice(0, 40)}'` : kindOf(part);
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

function messageOf(name: string, value: unknown): Message {
  if (!isObject(value))
    throw new Refusal('message', `${name}: expected { role, content }, not ${kindOf(value)}`);
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
