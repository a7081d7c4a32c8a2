// The forms in which preference data come: whatever the file does, the question is in the prompt,
// once, and nothing is lost.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { readPreferences, type Message, type PreferenceRecord } from '../../ts/data/index.js';
import { assistant, system, user } from '../support/turns.js';

const tool = (content: string) => ({ role: 'tool', content });

async function readOne(record: object): Promise<PreferenceRecord> {
  async function* source(): AsyncGenerator<string> {
    yield await Promise.resolve(JSON.stringify(record));
  }
  for await (const read of readPreferences(source())) return read;
  throw new Error('nothing was read');
}

/** Reads a record without further fields. */
async function form(record: object): Promise<unknown> {
  const { record: others, ...preference } = await readOne(record);
  expect(others).toEqual({});
  return preference;
}

const question = 'How many days has February 2028?';
const asked = [user(question)];
const right = [assistant('It has 29.')];
const wrong = [assistant('It has 28.')];
const pair = { prompt: asked, chosen: right, rejected: wrong };
const both = { chosen: [...asked, ...right], rejected: [...asked, ...wrong] };
const brief = system('Be brief.');
const briefly = { prompt: [brief, ...asked], chosen: right, rejected: wrong };
const bothBriefly = { chosen: [brief, ...both.chosen], rejected: [brief, ...both.rejected] };
/** The same pair with something before each completion. */
const after = (turns: readonly object[]) => ({
  chosen: [...turns, ...right],
  rejected: [...turns, ...wrong],
});

describe('one pair in many forms', () => {
  test.each<[string, object]>([
    ['prompt apart', pair],
    ['prompt in both', both],
    ['a prompt that is null, in both', { prompt: null, ...both }],
    ['a prompt that is empty text, in both', { prompt: '', ...both }],
    ['a prompt that is an empty list, in both', { prompt: [], ...both }],
    ['text apart', { prompt: question, chosen: right, rejected: wrong }],
    ['text, and in both', { prompt: question, ...both }],
    [
      'text up to whitespace, and in both',
      { prompt: `\n ${question.replaceAll(' ', '  ')}\t`, ...both },
    ],
    ['messages, and in both', { prompt: asked, ...both }],
    [
      'messages up to whitespace, and in both',
      { prompt: asked, ...after([user(` ${question}\n`)]) },
    ],
    [
      'messages, and in both with further fields',
      { prompt: asked, ...after([{ ...user(question), id: 7 }]) },
    ],
    ['messages, and in one of the two', { ...pair, chosen: both.chosen }],
    [
      'text apart from one of the two',
      { prompt: question, chosen: right, rejected: both.rejected },
    ],
    [
      'messages, and completions of text',
      { prompt: asked, chosen: 'It has 29.', rejected: 'It has 28.' },
    ],
    [
      'fields that are null',
      { ...after([{ ...user(question), name: null, tool_calls: null }]), prompt: null },
    ],
    [
      'text as ChatML has it, and in both',
      { prompt: `<|im_start|>user\n${question}<|im_end|>\n<|im_start|>assistant\n`, ...both },
    ],
    [
      'text as Llama 3 has it, and in both',
      {
        prompt:
          '<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n' +
          `${question}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n`,
        ...both,
      },
    ],
    ['text as Mistral has it, and in both', { prompt: `<s>[INST] ${question} [/INST]`, ...both }],
    [
      'text as HH-RLHF has it, and in both',
      { prompt: `\n\nHuman: ${question}\n\nAssistant:`, ...both },
    ],
  ])('%s', async (_, record) => {
    expect(await form(record)).toEqual(pair);
  });

  test.each<[string, object]>([
    ['system message and prompt apart', briefly],
    ['both in both', bothBriefly],
    ['text, and in both', { prompt: question, ...bothBriefly }],
    [
      'text of both, and in both',
      { prompt: `Be brief. ${question}`.replace('. ', '.\n\n'), ...bothBriefly },
    ],
    [
      'text as a template has it, without the system message',
      { prompt: `Human: ${question}\n\nAssistant:`, ...bothBriefly },
    ],
    [
      'text as a template has it, with it',
      {
        prompt: `<|system|>\nBe brief.</s>\n<|user|>\n${question}</s>\n<|assistant|>`,
        ...bothBriefly,
      },
    ],
    ['text apart, the system message in both', { prompt: question, ...after([brief]) }],
    ['prompt apart, and both in both', { prompt: asked, ...bothBriefly }],
    ['both apart, and both in both', { prompt: [brief, ...asked], ...bothBriefly }],
    ['both apart, and the prompt in both', { prompt: [brief, ...asked], ...both }],
    ['the system message apart, the prompt in both', { prompt: [brief], ...both }],
    ['the system message apart, and both in both', { prompt: [brief], ...bothBriefly }],
  ])('with a system message: %s', async (_, record) => {
    expect(await form(record)).toEqual(briefly);
  });

  const earlier = [user('Which year?'), assistant('2028.')];
  const later = { prompt: [...earlier, ...asked], chosen: right, rejected: wrong };
  test.each<[string, object]>([
    ['apart', later],
    ['in both', after([...earlier, ...asked])],
    [
      'in both, and text of the last question',
      { prompt: question, ...after([...earlier, ...asked]) },
    ],
    [
      'in both, and text of the first question',
      { prompt: 'Which year?', ...after([...earlier, ...asked]) },
    ],
    [
      'in both, and text of all of it',
      {
        prompt: `\n\nHuman: Which year?\n\nAssistant: 2028.\n\nHuman: ${question}\n\nAssistant:`,
        ...after([...earlier, ...asked]),
      },
    ],
    ['apart, and in both', { prompt: [...earlier, ...asked], ...after([...earlier, ...asked]) }],
    [
      'in both, and its last question as a message',
      { prompt: asked, ...after([...earlier, ...asked]) },
    ],
    ['apart, and its last question in both', { prompt: [...earlier, ...asked], ...both }],
    [
      'text of the first question, and the rest in both',
      { prompt: 'Which year?', ...after([...earlier.slice(1), ...asked]) },
    ],
  ])('with earlier turns: %s', async (_, record) => {
    expect(await form(record)).toEqual(later);
  });
});

describe("what both completions begin with is not the prompt at the question's price", () => {
  const call = {
    ...assistant(''),
    tool_calls: [{ function: { name: 'days', arguments: '{"month":"2028-02"}' } }],
  };
  const calling = [call, tool('29')];

  test('a tool call, the question apart', async () => {
    const expected = { prompt: asked, ...after(calling) };
    expect(await form(expected)).toEqual(expected);
    expect(await form({ ...expected, prompt: question })).toEqual(expected);
    expect(await form({ prompt: asked, ...after([...asked, ...calling]) })).toEqual(expected);
  });

  test('a tool call after the question, in both', async () => {
    const expected = { prompt: [...asked, ...calling], chosen: right, rejected: wrong };
    expect(await form(after([...asked, ...calling]))).toEqual(expected);
    expect(await form({ prompt: question, ...after([...asked, ...calling]) })).toEqual(expected);
  });

  test('another question: the text may be what it is about', async () => {
    expect(await form({ prompt: 'The calendar', ...both })).toEqual({
      ...pair,
      prompt: [user('The calendar'), ...asked],
    });
    expect(await form({ prompt: 'The calendar', ...bothBriefly })).toEqual({
      ...pair,
      prompt: [brief, user('The calendar'), ...asked],
    });
  });

  test('text is found as words, not as letters', async () => {
    // "his" stands in "this", and "days" in "holidays".
    const holidays = { prompt: 'his days', ...after([user('Is this holidays?')]) };
    expect(await form(holidays)).toMatchObject({
      prompt: [user('his days'), user('Is this holidays?')],
    });
    expect(await form({ prompt: 'this', ...after([user('Is this holidays?')]) })).toMatchObject({
      prompt: [user('Is this holidays?')],
    });
  });

  test('turns that both have in the middle stay where they are', async () => {
    const chosen = [assistant('Wait.'), user('Now?'), ...right];
    const rejected = [assistant('No.'), user('Now?'), ...wrong];
    expect(await form({ ...pair, chosen, rejected })).toEqual({ ...pair, chosen, rejected });
    expect(await form({ prompt: question, chosen, rejected })).toEqual({
      ...pair,
      chosen,
      rejected,
    });
  });

  test('messages keep their place: a system message stays in its completion', async () => {
    const expected = { prompt: asked, ...after([system('The tool failed.')]) };
    expect(await form(expected)).toEqual(expected);
  });

  test('questions that differ by a field are different questions', async () => {
    const [first, second] = ['a.png', 'b.png'].map((image) => ({ ...user(question), image }));
    await expect(form({ chosen: [first, ...right], rejected: [second, ...wrong] })).rejects.toThrow(
      /different messages/,
    );
    expect(await form({ chosen: [first, ...right], rejected: [first, ...wrong] })).toMatchObject({
      prompt: [first],
    });
  });
});

test('in any form: every turn of the file is there, once', async () => {
  const turns = (name: string, maxLength: number): fc.Arbitrary<Message[]> =>
    fc
      .array(fc.constantFrom('user', 'assistant', 'tool'), { maxLength })
      .map((roles) => roles.map((role, i) => ({ role, content: `${name} says ${i}` })));
  const forms = fc.record({
    system: fc.boolean(),
    earlier: turns('earlier', 3),
    shared: turns('shared', 2),
    chosen: turns('chosen', 2),
    rejected: turns('rejected', 2),
    // Whether the prompt is apart, as what, and with the system message; and which completions
    // begin with it.
    apart: fc.constantFrom('no', 'question', 'messages', 'last message'),
    systemApart: fc.boolean(),
    inChosen: fc.constantFrom('no', 'all', 'question'),
    inRejected: fc.constantFrom('no', 'all', 'question'),
  });
  let read = 0;
  const property = fc.asyncProperty(forms, async (given) => {
    const lead = given.system ? [brief] : [];
    const whole = [...given.earlier, ...asked];
    const side = (where: string, completion: readonly Message[]): Message[] => [
      ...(where === 'all' ? [...lead, ...whole] : where === 'question' ? asked : []),
      ...given.shared,
      ...completion,
      assistant('The end.'),
    ];
    const prompts: Record<string, unknown> = {
      question,
      messages: [...(given.systemApart ? lead : []), ...whole],
      'last message': [...(given.systemApart ? lead : []), ...asked],
    };
    const prompt = prompts[given.apart];
    // One completion with earlier turns that neither the prompt nor the other has: no such row is
    // known.
    const isOdd =
      given.earlier.length > 0 && (given.apart === 'question' || given.apart === 'last message');
    fc.pre(!isOdd || given.inChosen === given.inRejected);
    const record = {
      prompt,
      chosen: side(given.inChosen, given.chosen),
      rejected: side(given.inRejected, given.rejected),
    };
    let preference: PreferenceRecord;
    try {
      preference = await readOne(record);
    } catch (error) {
      // Only where the two completions do not say the same about what comes before them.
      if (given.inChosen === given.inRejected && (given.apart !== 'no' || given.inChosen !== 'no'))
        throw error;
      return;
    }
    read++;
    for (const name of ['chosen', 'rejected'] as const) {
      const found = [
        ...(preference.prompt as readonly Message[]),
        ...(preference[name] as readonly Message[]),
      ];
      const inPrompt = typeof prompt === 'string' ? asked : ((prompt ?? []) as readonly Message[]);
      const expected = new Set([...inPrompt, ...record[name]].map(({ content }) => content));
      const texts = found.map(({ content }) => content);
      expect(texts.filter((text) => expected.has(text)).sort()).toEqual([...expected].sort());
      expect(texts.filter((text) => text === question)).toHaveLength(
        expected.has(question) ? 1 : 0,
      );
      // What the other one has of the prompt may come in, and nothing else.
      expect(texts.length).toBe(new Set(texts).size);
    }
  });
  await fc.assert(property, { seed: 20250206, numRuns: 2000 });
  expect(read).toBeGreaterThan(1000);
});

describe('equal completions', () => {
  const equal = { prompt: asked, chosen: right, rejected: right };
  test.each<[string, object, unknown]>([
    ['apart', equal, equal],
    ['in both', { chosen: both.chosen, rejected: both.chosen }, equal],
    ['text, and in both', { prompt: question, chosen: both.chosen, rejected: both.chosen }, equal],
    ['messages, and in both', { prompt: asked, chosen: both.chosen, rejected: both.chosen }, equal],
    ['text apart', { prompt: question, chosen: right, rejected: right }, equal],
    [
      'with earlier turns',
      {
        chosen: [...asked, ...wrong, user('Sure?'), ...right],
        rejected: [...asked, ...wrong, user('Sure?'), ...right],
      },
      { ...equal, prompt: [...asked, ...wrong, user('Sure?')] },
    ],
    [
      'one begins with all of the other',
      { chosen: both.chosen, rejected: [...both.chosen, user('Sure?'), ...wrong] },
      { prompt: asked, chosen: right, rejected: [...right, user('Sure?'), ...wrong] },
    ],
    [
      'text',
      { prompt: question, chosen: ' 29', rejected: ' 29' },
      { prompt: question, chosen: ' 29', rejected: ' 29' },
    ],
  ])('%s', async (_, record, expected) => {
    expect(await form(record)).toEqual(expected);
  });
});

describe('messages as chat APIs have them', () => {
  const toolCall = {
    type: 'function',
    id: 'c1',
    function: { name: 'weather', arguments: '{"city":"Oslo"}' },
  };
  const chosenOf = async (message: object): Promise<Message | undefined> => {
    const { chosen } = await readOne({ ...pair, chosen: [message] });
    return (chosen as readonly Message[])[0];
  };

  test.each<[string, object, object]>([
    [
      'content null beside tool calls',
      { content: null, tool_calls: [toolCall] },
      { content: '', tool_calls: [toolCall] },
    ],
    [
      'no content beside tool calls',
      { tool_calls: [toolCall] },
      { content: '', tool_calls: [toolCall] },
    ],
    [
      'a function call',
      { content: null, function_call: { name: 'f', arguments: '{}' } },
      { content: '', function_call: { name: 'f', arguments: '{}' } },
    ],
    [
      'reasoning',
      { content: null, reasoning_content: 'Hm.' },
      { content: '', reasoning_content: 'Hm.' },
    ],
    ['content that is empty', { content: '' }, { content: '' }],
    [
      'parts of text',
      {
        content: [
          { type: 'text', text: 'It ' },
          { type: 'text', text: 'rains.', image: null },
        ],
      },
      { content: 'It rains.' },
    ],
    [
      'parts of other names',
      { content: ['It ', { text: 'rains' }, { type: 'output_text', text: '.' }] },
      { content: 'It rains.' },
    ],
    [
      'no parts beside tool calls',
      { content: [], tool_calls: [toolCall] },
      { content: '', tool_calls: [toolCall] },
    ],
    [
      'null wherever there is nothing',
      { content: 'a', name: null, audio: { id: null, data: 'x' } },
      { content: 'a', audio: { data: 'x' } },
    ],
    [
      'null in what a tool is called with, which is a value',
      {
        tool_calls: [
          { id: null, function: { name: 'f', arguments: { city: 'Oslo', unit: null } } },
        ],
      },
      {
        content: '',
        tool_calls: [{ function: { name: 'f', arguments: { city: 'Oslo', unit: null } } }],
      },
    ],
  ])('%s', async (_, given, expected) => {
    const message = await chosenOf({ role: 'assistant', ...given });
    expect(message).toEqual({ role: 'assistant', ...expected });
  });

  test('a tool that gives nothing back', async () => {
    const { chosen } = await readOne({
      ...pair,
      chosen: [{ role: 'tool', content: null, tool_call_id: 'c1' }, ...right],
    });
    expect(chosen).toEqual([{ role: 'tool', content: '', tool_call_id: 'c1' }, ...right]);
  });

  test('the question in parts, and as text', async () => {
    const parts = [{ role: 'user', content: [{ type: 'text', text: question }] }];
    expect(await form({ prompt: question, ...after(parts) })).toEqual(pair);
    expect(await form({ chosen: [...parts, ...right], rejected: both.rejected })).toEqual(pair);
  });

  test('who asks need not be called user', async () => {
    const turns = [{ role: 'human', content: question }];
    expect(await form(after(turns))).toEqual({ ...pair, prompt: turns });
    expect(await form({ prompt: question, ...after(turns) })).toEqual({ ...pair, prompt: turns });
    expect(await form({ ...pair, ...after(turns) })).toEqual(pair);
    expect(await form({ ...pair, prompt: question, chosen: [...turns, ...right] })).toEqual(pair);
    const equal = [...turns, { role: 'gpt', content: '29' }];
    expect(await form({ chosen: equal, rejected: equal })).toEqual({
      prompt: turns,
      chosen: equal.slice(1),
      rejected: equal.slice(1),
    });
  });
});

describe('text', () => {
  const dialogue = `\n\nHuman: Which year?\n\nAssistant: 2028.\n\nHuman: ${question}\n\nAssistant:`;
  const texts = { prompt: dialogue, chosen: ' It has 29.', rejected: ' It has 28.' };
  const full = { chosen: dialogue + texts.chosen, rejected: dialogue + texts.rejected };
  test.each<[string, object, unknown]>([
    ['a dialogue apart', texts, texts],
    ['a dialogue in both', full, texts],
    ['a dialogue in both, and apart', { prompt: dialogue, ...full }, texts],
    ['a dialogue in both, and its last question apart', { prompt: question, ...full }, texts],
    [
      'a dialogue in both, and apart without whitespace',
      { prompt: dialogue.trim(), ...full },
      texts,
    ],
    ['a prompt that is null, a dialogue in both', { prompt: null, ...full }, texts],
    [
      'equal dialogues',
      { chosen: full.chosen, rejected: full.chosen },
      { ...texts, rejected: texts.chosen },
    ],
    ['an empty answer', { chosen: full.chosen, rejected: dialogue }, { ...texts, rejected: '' }],
    [
      'answers that begin alike',
      { chosen: `${dialogue} Well, 29.`, rejected: `${dialogue} Well, 28.` },
      { prompt: dialogue, chosen: ' Well, 29.', rejected: ' Well, 28.' },
    ],
    [
      'ChatML in both',
      {
        chosen: `<|im_start|>user\n${question}<|im_end|>\n<|im_start|>assistant\n29<|im_end|>`,
        rejected: `<|im_start|>user\n${question}<|im_end|>\n<|im_start|>assistant\n28<|im_end|>`,
      },
      {
        prompt: `<|im_start|>user\n${question}<|im_end|>\n<|im_start|>assistant\n`,
        chosen: '29<|im_end|>',
        rejected: '28<|im_end|>',
      },
    ],
  ])('%s', async (_, record, expected) => {
    expect(await form(record)).toEqual(expected);
  });

  test('a prompt of several words that both begin with', async () => {
    const expected = { prompt: 'The sky is', chosen: ' blue.', rejected: ' green.' };
    expect(
      await form({ ...expected, chosen: 'The sky is blue.', rejected: 'The sky is green.' }),
    ).toEqual(expected);
    expect(
      await form({
        ...expected,
        prompt: ' The  sky is',
        chosen: 'The sky is blue.',
        rejected: 'The sky is green.',
      }),
    ).toEqual({
      ...expected,
      prompt: ' The  sky is',
    });
    const code = { prompt: 'def f(x):\n    ', chosen: 'return x', rejected: 'pass' };
    expect(
      await form({
        ...code,
        chosen: code.prompt + code.chosen,
        rejected: code.prompt + code.rejected,
      }),
    ).toEqual(code);
  });

  test.each<[string, object]>([
    [
      'one of them begins with it',
      { prompt: 'The sky is', chosen: 'The sky is blue.', rejected: 'It is green.' },
    ],
    [
      'they go on with the word',
      { prompt: 'The sky is', chosen: 'The sky isn’t', rejected: 'The sky isolates' },
    ],
    [
      'a word that an answer may begin with',
      { prompt: 'Hello', chosen: 'Hello there!', rejected: 'Hello you.' },
    ],
    [
      'words that an answer may begin with',
      { prompt: 'Good morning', chosen: 'Good morning!', rejected: 'Good morning, sir.' },
    ],
    ['a letter', { prompt: 'A', chosen: 'Apple', rejected: 'Another' }],
    ['nothing', { prompt: '', chosen: 'a', rejected: 'b' }],
    ['no words', { prompt: ' \n', chosen: ' \na', rejected: ' \nb' }],
    [
      'the prompt and no answer',
      { prompt: 'The sky is', chosen: 'The sky is', rejected: 'The sky is' },
    ],
    [
      'a dialogue that goes on after the prompt',
      {
        prompt: 'Human: a\n\nAssistant:',
        chosen: ' b\n\nHuman: c\n\nAssistant: d',
        rejected: ' b\n\nHuman: c\n\nAssistant: e',
      },
    ],
    [
      'an answer about a dialogue',
      {
        prompt: 'Write one.',
        chosen: 'Human: a\nAssistant: b',
        rejected: 'Human: a\nAssistant: c',
      },
    ],
  ])('stays as it is: %s', async (_, record) => {
    expect(await form(record)).toEqual(record);
  });

  test('no question of a user, no prompt', async () => {
    await expect(
      form({ chosen: '\n\nAssistant: a', rejected: '\n\nAssistant: b' }),
    ).rejects.toThrow(/prompt: is missing/);
    await expect(
      form({ chosen: 'The sky is blue.', rejected: 'The sky is green.' }),
    ).rejects.toThrow(/prompt: is missing/);
  });

  test('repetition without end takes no time without end', async () => {
    const [long, longer] = ['a'.repeat(2e6), 'a'.repeat(3e6)];
    expect(await form({ prompt: long, ...after([user(longer)]) })).toMatchObject({
      prompt: [user(long), user(longer)],
    });
    const spaces = ' '.repeat(1e6);
    expect(
      await form({ prompt: `a${spaces}b`, chosen: `a${spaces}c`, rejected: `a${spaces}c` }),
    ).toMatchObject({
      chosen: `a${spaces}c`,
    });
  });
});
