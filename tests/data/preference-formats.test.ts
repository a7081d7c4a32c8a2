// The names that the fields of preference data have: the same pair from each, whoever wrote the
// file, and nothing of it lost.
import { describe, expect, test } from 'vitest';
import {
  detectForm,
  learnedTurns,
  readPreferences,
  type Message,
  type PreferenceReader,
} from '../../ts/data/index.js';
import { expectRefusal, rejection } from '../support/refusal.js';
import { assistant, system, user } from '../support/turns.js';

const loose = readPreferences as unknown as (
  source: unknown,
  options?: unknown,
) => PreferenceReader<unknown>;
const fixture = (name: string): URL => new URL(`../fixtures/data/${name}`, import.meta.url);
async function readAll(source: unknown, options?: object): Promise<unknown[]> {
  const records: unknown[] = [];
  for await (const record of loose(source, options)) records.push(record);
  return records;
}
async function readOne(row: object): Promise<unknown> {
  const [record] = await readAll([row]);
  return record;
}

const asked = [user('Which?')];
const right = [assistant('This.')];
const wrong = [assistant('That.')];
const talk = { prompt: asked, chosen: right, rejected: wrong };
const ofShareGpt = (from: string, value: string): object => ({ from, value });

describe('files', () => {
  test.each<[string, number, string, string]>([
    ['ultrafeedback-like.jsonl', 3, 'pairs', 'trl'],
    ['hh-rlhf-like.jsonl.gz', 2, 'pairs', 'trl'],
    ['kto-like.json', 3, 'unpaired', 'trl'],
    ['openai.jsonl', 2, 'pairs', 'openai'],
    ['sharegpt.json', 2, 'pairs', 'sharegpt'],
    ['sharegpt-kto.jsonl', 2, 'unpaired', 'sharegpt'],
    ['ms-swift.jsonl', 3, 'pairs', 'ms-swift'],
    ['messages.jsonl', 2, 'unpaired', 'messages'],
  ])('%s', async (name, count, form, format) => {
    const reader = loose(fixture(name));
    let read = 0;
    for await (const record of reader) read += Number(record !== undefined);
    expect(read).toBe(count);
    const report = { form, read: count, formats: { [format]: count }, skipped: 0, reasons: {} };
    expect(reader.report).toEqual(report);
  });

  test('of scores, in two formats', async () => {
    const reader = loose(fixture('scores.jsonl'));
    const records: unknown[] = [];
    for await (const record of reader) records.push(record);
    expect(reader.report).toMatchObject({ form: 'groups', formats: { trl: 1, messages: 1 } });
    expect(records[1]).toEqual({
      prompt: [user('Name a bird.')],
      responses: [[assistant('A robin.')], [assistant('A bat.')]],
      scores: [9, 2],
      record: {},
    });
  });

  test('what UltraFeedback has beside the pair stays in the record', async () => {
    const [first] = await readAll(fixture('ultrafeedback-like.jsonl'), { margins: true });
    const question = user('How many legs has an octopus?');
    const chosen = assistant('Eight arms, and no legs.');
    expect(first).toEqual({
      prompt: [question],
      chosen: [chosen],
      rejected: [assistant('Ten.')],
      margin: 6.5,
      record: {
        prompt_id: 'p0',
        messages: [question, chosen],
        score_chosen: 8.5,
        score_rejected: 2,
      },
    });
  });

  test('the prompt of HH-RLHF ends with the last header that both have', async () => {
    const [, second] = await readAll(fixture('hh-rlhf-like.jsonl.gz'));
    expect(second).toEqual({
      prompt:
        '\n\nHuman: A riddle?\n\nAssistant: What has keys and no locks?\n\nHuman: ' +
        'A map?\n\nAssistant:',
      chosen: ' Close: a piano.',
      rejected: ' Yes.',
      record: {},
    });
  });
});

describe('the same pair, by the names of', () => {
  test.each<[string, string, object, object?]>([
    [
      'OpenAI',
      'openai',
      { input: { messages: asked }, preferred_output: right, non_preferred_output: wrong },
    ],
    [
      'OpenAI, with tools, which are in the record',
      'openai',
      {
        input: { messages: asked, tools: [{ type: 'function' }], parallel_tool_calls: null },
        preferred_output: right,
        non_preferred_output: wrong,
        id: 7,
      },
      { tools: [{ type: 'function' }], id: 7 },
    ],
    [
      'OpenAI, one turn each',
      'openai',
      { input: { messages: asked[0] }, preferred_output: right[0], non_preferred_output: wrong[0] },
    ],
    [
      'ShareGPT, one turn each',
      'sharegpt',
      {
        conversations: [ofShareGpt('human', 'Which?')],
        chosen: ofShareGpt('gpt', 'This.'),
        rejected: ofShareGpt('gpt', 'That.'),
      },
    ],
    [
      'ShareGPT, with a prompt that is empty',
      'sharegpt',
      {
        prompt: '',
        conversations: [ofShareGpt('human', 'Which?')],
        chosen: 'This.',
        rejected: 'That.',
      },
    ],
    [
      'ShareGPT, in both completions',
      'trl',
      {
        chosen: [ofShareGpt('human', 'Which?'), ofShareGpt('gpt', 'This.')],
        rejected: [ofShareGpt('user', 'Which?'), ofShareGpt('assistant', 'That.')],
      },
    ],
    [
      'messages before one turn each',
      'messages',
      { messages: asked, chosen: right[0], rejected: wrong[0] },
    ],
    ['messages before text', 'messages', { messages: asked, chosen: 'This.', rejected: 'That.' }],
    ['messages before turns', 'messages', { messages: asked, chosen: right, rejected: wrong }],
    ['ms-swift', 'ms-swift', { messages: [...asked, ...right], rejected_response: 'That.' }],
    [
      'ms-swift, as turns',
      'ms-swift',
      { messages: [...asked, ...right], rejected_response: wrong },
    ],
    [
      'ms-swift, as conversations',
      'ms-swift',
      { messages: [...asked, ...right], rejected_messages: [...asked, ...wrong] },
    ],
    [
      'messages that are one of the conversations',
      'trl',
      {
        messages: [...asked, ...right],
        chosen: [...asked, ...right],
        rejected: [...asked, ...wrong],
      },
      { messages: [...asked, ...right] },
    ],
  ])('%s', async (_, format, row, record = {}) => {
    expect(await readOne(row)).toEqual({ ...talk, record });
    expect(detectForm(row)).toEqual({ form: 'pairs', format });
  });

  const briefly = { ...talk, prompt: [system('Be brief.'), ...asked] };
  test.each<[string, object]>([
    [
      'ShareGPT',
      {
        system: 'Be brief.',
        conversations: [ofShareGpt('human', 'Which?')],
        chosen: 'This.',
        rejected: 'That.',
      },
    ],
    [
      'ms-swift',
      { system: 'Be brief.', messages: [...asked, ...right], rejected_response: 'That.' },
    ],
    [
      'ms-swift, as conversations',
      {
        system: 'Be brief.',
        messages: [...asked, ...right],
        rejected_messages: [...asked, ...wrong],
      },
    ],
    [
      'ms-swift, as a query',
      { system: 'Be brief.', query: 'Which?', response: 'This.', rejected_response: 'That.' },
    ],
    [
      'conversations that have it, too',
      {
        system: 'Be brief.',
        conversations: [system('Be brief.'), ...asked],
        chosen: 'This.',
        rejected: 'That.',
      },
    ],
  ])('with a system message apart: %s', async (_, row) => {
    expect(await readOne(row)).toEqual({ ...briefly, record: {} });
  });

  test('ms-swift: a query is text, and has its earlier turns before it', async () => {
    const row = { query: 'Which?', response: 'This.', rejected_response: 'That.' };
    const text = { prompt: 'Which?', chosen: 'This.', rejected: 'That.', record: {} };
    expect(await readOne(row)).toEqual(text);
    expect(await readOne({ ...row, history: [] })).toEqual(text);
    expect(await readOne({ ...row, history: [['Hi.', 'Hello.']] })).toEqual({
      ...talk,
      prompt: [user('Hi.'), assistant('Hello.'), ...asked],
      record: {},
    });
  });

  test('ms-swift: only the last answer was chosen, what came before it is the prompt', async () => {
    const before = [...asked, assistant('Wait.'), user('Well?')];
    const row = { messages: [...before, ...right], rejected_response: 'That.' };
    expect(await readOne(row)).toEqual({ ...talk, prompt: before, record: {} });
  });
});

describe('single completions', () => {
  const single = { prompt: asked, completion: right, label: false, record: {} };
  test.each<[string, string, object]>([
    ['messages that end with it', 'messages', { messages: [...asked, ...right], label: false }],
    [
      'messages, and a label of a trainer',
      'messages',
      { messages: [...asked, ...right], kto_tag: 0 },
    ],
    ['messages before it', 'messages', { messages: asked, completion: 'This.', label: false }],
    [
      'messages before one turn',
      'messages',
      { messages: asked, completion: right[0], label: false },
    ],
    [
      'ShareGPT',
      'sharegpt',
      {
        conversations: [ofShareGpt('human', 'Which?'), ofShareGpt('gpt', 'This.')],
        kto_tag: false,
      },
    ],
  ])('%s', async (_, format, row) => {
    expect(await readOne(row)).toEqual(single);
    expect(detectForm(row)).toEqual({ form: 'unpaired', format });
  });

  test('messages that are the conversation of the completion stay in the record', async () => {
    const messages = [...asked, ...right];
    const row = { messages, completion: messages, label: false };
    expect(await readOne(row)).toEqual({ ...single, record: { messages } });
  });
});

describe('refused by name, or skipped and counted', () => {
  const swift = (messages: unknown): object => ({ messages, rejected_response: 'That.' });
  test.each<[string, object, string]>([
    [
      'field',
      { input: { messages: asked }, preferred_output: right },
      'non_preferred_output: is missing',
    ],
    ['prompt', { preferred_output: right, non_preferred_output: wrong }, 'prompt: is missing'],
    [
      'field',
      { conversations: 5, chosen: 'a', rejected: 'b' },
      'conversations: expected a string, not 5',
    ],
    [
      'message',
      { conversations: [{ from: 5 }], chosen: 'a', rejected: 'b' },
      'conversations[0].from: expected a string',
    ],
    [
      'message',
      { conversations: [ofShareGpt('function_call', 'clock()')], chosen: 'a', rejected: 'b' },
      'conversations[0].value: expected a call as JSON',
    ],
    [
      'field',
      { conversations: asked, system: 5, chosen: 'a', rejected: 'b' },
      'system: expected a string, not 5',
    ],
    ['completion', swift(asked), 'messages: end without an answer'],
    ['completion', swift([]), 'messages: has no messages'],
    ['field', { query: 'a', rejected_response: 'b' }, 'response: is missing'],
    [
      'field',
      { query: 'a', response: 'b', rejected_response: 'c', history: [['a']] },
      'history: expected pairs of texts',
    ],
    [
      'field',
      { messages: [...asked, ...right], kto_tag: 'yes' },
      'kto_tag: expected true, false, 0 or 1',
    ],
    [
      'message',
      { ...talk, chosen: [{ role: 'assistant', content: [{ type: 'image_url', image_url: {} }] }] },
      "not a part of type 'image_url'; only text can be read",
    ],
  ])('%s: %j', async (reason, row, words) => {
    expectRefusal(
      await rejection(readAll([row])),
      'RangeError FILE',
      `rows[0]: ${words}`.split(': ').slice(1).join(': '),
    );
    const reader = loose([row], { onError: 'skip' });
    expect(await reader.next()).toEqual({ done: true, value: undefined });
    expect(reader.report.reasons).toEqual({ [reason]: 1 });
    expect(detectForm(row)).toBeUndefined();
  });
});

describe('tools', () => {
  const call = { name: 'clock', arguments: { zone: 'UTC', unit: null } };
  test('a call in ShareGPT is a call, its result a turn of the tool', async () => {
    const [, second] = (await readAll(fixture('sharegpt.json'))) as { prompt: Message[] }[];
    expect(second?.prompt).toEqual([
      system('You are a clerk.'),
      user('What time is it?'),
      {
        ...assistant(''),
        tool_calls: [{ type: 'function', function: { name: 'clock', arguments: { zone: 'UTC' } } }],
      },
      { role: 'tool', content: '12:00' },
    ]);
  });

  test('several calls, whose arguments keep what is null in them', async () => {
    const value = JSON.stringify([call, call]);
    const conversations = [ofShareGpt('human', 'Which?'), ofShareGpt('function_call', value)];
    const record = await readOne({ conversations, chosen: 'a', rejected: 'b' });
    const calls = [call, call].map((one) => ({ type: 'function', function: one }));
    expect(record).toMatchObject({ prompt: [...asked, { tool_calls: calls }] });
  });

  test('what the model wrote is learned: not what tools give back, nor what users say', () => {
    const turns = [
      { ...assistant(''), tool_calls: [call] },
      { role: 'tool', content: '12:00' },
      assistant('Noon.'),
      user('Sure?'),
      { ...assistant('Hm.'), weight: 0 },
      { ...assistant('Hm.'), loss: false },
      { role: 'gpt', content: 'Yes.' },
      system('Stop.'),
      { ...assistant('Yes.'), weight: 1 },
    ];
    expect(learnedTurns(turns)).toEqual([
      ...[true, false, true, false, false, false],
      ...[true, false, true],
    ]);
  });
});

test.each([[null], [5], ['text'], [[]], [{}], [{ prompt: 'a' }], [{ messages: asked }]])(
  'detectForm says nothing of %j',
  (row) => {
    expect(detectForm(row as object)).toBeUndefined();
  },
);
