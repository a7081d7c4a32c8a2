// Lines that are no pairs: single completions with a label, responses with scores, and the margins
// of pairs with scores.
import { describe, expect, expectTypeOf, test } from 'vitest';
import {
  isConversational,
  readPreferences,
  type ConversationalCompletion,
  type GroupRecord,
  type PreferenceReader,
  type PreferenceRecord,
  type ReadPreferencesOptions,
  type ScoredPreferenceRecord,
  type SkipReason,
  type UnpairedRecord,
} from '../../ts/data/index.js';
import { expectRefusal, rejection } from '../support/refusal.js';
import { assistant, system, user } from '../support/turns.js';

const loose = readPreferences as unknown as (
  source: unknown,
  options?: unknown,
) => PreferenceReader<unknown>;

async function* linesOf(...records: readonly unknown[]): AsyncGenerator<string> {
  for (const record of records)
    yield await Promise.resolve(
      `${typeof record === 'string' ? record : JSON.stringify(record)}\n`,
    );
}
async function all(records: readonly unknown[], options?: object): Promise<unknown[]> {
  const read: unknown[] = [];
  for await (const record of loose(linesOf(...records), options)) read.push(record);
  return read;
}

const pair = { prompt: 'The sky is', chosen: ' blue.', rejected: ' green.' };
const single = { prompt: 'The sky is', completion: ' blue.', label: true };
const several = {
  prompt: 'The sky is',
  responses: [' blue.', ' grey.', ' green.'],
  scores: [9, 6.5, 1],
};
const asked = [user('Which?')];

describe('single completions', () => {
  test.each([
    [true, true],
    [false, false],
    [1, true],
    [0, false],
  ])('a label of %j is %j', async (label, expected) => {
    for (const options of [undefined, { form: 'unpaired' }]) {
      const [record] = await all([{ ...single, label, id: 7, score: null }], options);
      expect(record).toStrictEqual({ ...single, label: expected, record: { id: 7 } });
    }
  });

  const talk = { prompt: asked, completion: [assistant('That.')], label: true };
  test.each<[string, object, object]>([
    ['text', single, single],
    ['an empty answer', { ...single, completion: '' }, { ...single, completion: '' }],
    ['messages', talk, talk],
    ['text before messages', { ...talk, prompt: 'Which?' }, talk],
    ['text after messages', { ...talk, completion: 'That.' }, talk],
    [
      'messages that repeat the prompt',
      { ...talk, completion: [...asked, ...talk.completion] },
      talk,
    ],
    [
      'messages that have the prompt, and none apart',
      { completion: [...asked, ...talk.completion], label: true },
      talk,
    ],
    [
      'text that is a turn of the messages',
      { ...talk, prompt: ' Which? ', completion: [...asked, ...talk.completion] },
      talk,
    ],
    [
      'a system message in the completion',
      { ...talk, prompt: 'Which?', completion: [system('Brief.'), ...talk.completion] },
      { ...talk, prompt: [system('Brief.'), ...asked] },
    ],
    ['text that repeats the prompt', { ...single, completion: 'The sky is blue.' }, single],
    [
      'a dialogue',
      { completion: '\n\nHuman: Which?\n\nAssistant: That.', label: false },
      { prompt: '\n\nHuman: Which?\n\nAssistant:', completion: ' That.', label: false },
    ],
    [
      'further turns, which are part of the completion',
      { ...talk, prompt: 'Which?', completion: [assistant('a'), user('b'), assistant('c')] },
      { ...talk, completion: [assistant('a'), user('b'), assistant('c')] },
    ],
    [
      'further turns that have the words of the text',
      { ...talk, prompt: 'Hi', completion: [assistant('a'), user('Hi again'), assistant('c')] },
      {
        ...talk,
        prompt: [user('Hi')],
        completion: [assistant('a'), user('Hi again'), assistant('c')],
      },
    ],
    [
      'further turns that have the prompt again',
      { ...talk, completion: [assistant('a'), ...asked, assistant('c')] },
      { ...talk, completion: [assistant('a'), ...asked, assistant('c')] },
    ],
    [
      'a conversation after a system message',
      { ...talk, prompt: [system('a')], completion: [assistant('Hi.'), ...asked, assistant('c')] },
      { ...talk, prompt: [system('a'), assistant('Hi.'), ...asked], completion: [assistant('c')] },
    ],
    [
      'a tool, as the other fields',
      { ...talk, completion: [{ role: 'assistant', content: null, tool_calls: [{ id: 'c' }] }] },
      { ...talk, completion: [{ role: 'assistant', content: '', tool_calls: [{ id: 'c' }] }] },
    ],
  ])('%s', async (_, given, expected) => {
    expect(await all([given])).toStrictEqual([{ ...expected, record: {} }]);
  });
});

describe('groups', () => {
  const talk = {
    prompt: asked,
    responses: [[assistant('This.')], [assistant('That.')], [assistant('None.')]],
    scores: [0, -2, 1e300],
  };
  const repeated = talk.responses.map((turns) => [...asked, ...turns]);
  test.each<[string, object, object]>([
    ['text', several, several],
    [
      'one response',
      { ...several, responses: ['a'], scores: [1] },
      { ...several, responses: ['a'], scores: [1] },
    ],
    ['equal scores', { ...several, scores: [1, 1, 1] }, { ...several, scores: [1, 1, 1] }],
    ['messages', talk, talk],
    ['text before messages', { ...talk, prompt: 'Which?' }, talk],
    ['text after messages', { ...talk, responses: ['This.', 'That.', 'None.'] }, talk],
    ['messages that repeat the prompt', { ...talk, responses: repeated }, talk],
    ['no prompt apart', { ...talk, prompt: undefined, responses: repeated }, talk],
    [
      'text that all repeat',
      { ...several, responses: several.responses.map((text) => `The sky is${text}`) },
      several,
    ],
    [
      'text that only some repeat',
      { ...several, responses: ['The sky is blue.', ' grey.', ' green.'] },
      { ...several, responses: ['The sky is blue.', ' grey.', ' green.'] },
    ],
    [
      'dialogues',
      {
        responses: ['a', 'b', 'a'].map((text) => `\n\nHuman: Which?\n\nAssistant: ${text}`),
        scores: [1, 2, 3],
      },
      {
        prompt: '\n\nHuman: Which?\n\nAssistant:',
        responses: [' a', ' b', ' a'],
        scores: [1, 2, 3],
      },
    ],
    [
      'turns that all share',
      {
        responses: ['x', 'y', 'z'].map((text) => [
          user('a'),
          assistant('b'),
          user('c'),
          assistant(text),
        ]),
        scores: [1, 2, 3],
      },
      {
        prompt: [user('a'), assistant('b'), user('c')],
        responses: ['x', 'y', 'z'].map((text) => [assistant(text)]),
        scores: [1, 2, 3],
      },
    ],
    [
      'turns that two of three share',
      {
        responses: [
          [user('a'), assistant('b'), user('c'), assistant('x')],
          [user('a'), assistant('b'), user('c'), assistant('y')],
          [user('a'), assistant('z')],
        ],
        scores: [1, 2, 3],
      },
      {
        prompt: [user('a')],
        responses: [
          [assistant('b'), user('c'), assistant('x')],
          [assistant('b'), user('c'), assistant('y')],
          [assistant('z')],
        ],
        scores: [1, 2, 3],
      },
    ],
  ])('%s', async (_, given, expected) => {
    expect(await all([{ ...given, id: 7 }])).toStrictEqual([{ ...expected, record: { id: 7 } }]);
    // Under their other name.
    const { responses, ...others } = given as { responses: unknown };
    const renamed = { ...others, completions: responses, responses: null };
    expect(await all([renamed], { form: 'groups' })).toStrictEqual([{ ...expected, record: {} }]);
  });

  test('a hundred thousand responses', async () => {
    const count = 1e5;
    const given = {
      responses: Array.from({ length: count }, (_, i) => [...asked, assistant(String(i))]),
      scores: Array.from({ length: count }, (_, i) => i),
    };
    const [record] = (await all([given])) as [GroupRecord];
    expect([record.prompt, record.responses.length, record.responses[count - 1]]).toEqual([
      asked,
      count,
      [assistant(String(count - 1))],
    ]);
  });
});

describe('margins', () => {
  const scored = { ...pair, score_chosen: 8.5, score_rejected: 3 };
  const scores = { score_chosen: 8.5, score_rejected: 3 };

  test('on request, and the scores stay in the record', async () => {
    expect(await all([scored])).toStrictEqual([{ ...pair, record: scores }]);
    expect(await all([scored], { margins: false })).toStrictEqual([{ ...pair, record: scores }]);
    expect(
      await all([scored, { ...scored, score_chosen: 1 }], { margins: true, form: 'pairs' }),
    ).toStrictEqual([
      { ...pair, margin: 5.5, record: scores },
      { ...pair, margin: -2, record: { ...scores, score_chosen: 1 } },
    ]);
  });

  test('a field called margin stays in the record', async () => {
    const [record] = await all([{ ...scored, margin: 'wide' }], { margins: true });
    expect(record).toMatchObject({ margin: 5.5, record: { margin: 'wide' } });
  });

  test('without margins, scores are whatever the line has', async () => {
    const odd = { score_chosen: 'high' };
    expect(await all([{ ...pair, ...odd }])).toStrictEqual([{ ...pair, record: odd }]);
  });

  test.each<[string, object | string, string]>([
    ['no score', pair, 'score_chosen: is missing'],
    ['one score', { ...scored, score_rejected: null }, 'score_rejected: is missing'],
    [
      'text',
      { ...scored, score_chosen: '8.5' },
      'score_chosen: expected a finite number | a string',
    ],
    ['a list', { ...scored, score_rejected: [3] }, 'score_rejected | an array'],
    ['true', { ...scored, score_chosen: true }, 'score_chosen | true'],
    ['infinite', JSON.stringify(scored).replace('8.5', '1e999'), 'score_chosen | Infinity'],
    [
      'too far apart',
      { ...scored, score_chosen: 1.7e308, score_rejected: -1.7e308 },
      'score_chosen - score_rejected | Infinity',
    ],
    ['a single completion', single, 'chosen: is missing'],
  ])('refused, or skipped: %s', async (_, line, words) => {
    const error = await rejection(all([scored, line], { margins: true }));
    expectRefusal(error, 'RangeError FILE', `stream:2: ${words}`);
    expect(await all([scored, line, scored], { margins: true, onError: 'skip' })).toHaveLength(2);
  });

  test('only pairs have them, whatever the first line is', async () => {
    const line = { ...single, score_chosen: 1, score_rejected: 0 };
    const error = await rejection(all([line, scored], { margins: true }));
    expectRefusal(error, 'RangeError FILE', 'stream:1: chosen: is missing');
  });
});

describe('refused, by line, or skipped and counted', () => {
  test.each<[SkipReason, unknown, string]>([
    ['field', { prompt: 'a', completion: 'b' }, 'label: is missing'],
    ['field', { prompt: 'a', label: true }, 'completion: is missing'],
    ['field', { ...single, label: null }, 'label: is missing'],
    ['field', { ...single, label: 'true' }, 'label: expected true, false, 0 or 1 | a string'],
    ['field', { ...single, label: 2 }, 'label | 2'],
    ['field', { ...single, label: -1 }, 'label | -1'],
    ['field', { ...single, label: [true] }, 'label | an array'],
    ['field', { ...single, completion: 5 }, 'completion: expected a string or messages | 5'],
    ['field', { ...single, completion: {} }, 'completion | an object'],
    ['field', { ...single, prompt: 5 }, 'prompt: expected a string | 5'],
    ['prompt', { completion: 'a', label: true }, 'prompt: is missing'],
    ['prompt', { completion: [assistant('a')], label: true }, 'completion has no turn of a user'],
    ['completion', { ...single, completion: [] }, 'completion: has no messages'],
    ['completion', { completion: asked, label: true }, 'completion: has no message after the 1'],
    ['message', { ...single, completion: [{ role: 'user' }] }, 'completion[0]: has no content'],
    [
      'prompt',
      {
        prompt: [system('a'), ...asked],
        completion: [system('b'), ...asked, assistant('c')],
        label: 1,
      },
      'prompt: different system messages | completion',
    ],
    ['object', [single], 'expected an object | an array'],
    ['json', '{"prompt": "a", "completion": ', 'not JSON'],
  ])('single completions: %s: %j', async (reason, line, words) => {
    await expectSkipped(single, { form: 'unpaired' }, reason, line, words);
  });

  test.each<[SkipReason, unknown, string]>([
    ['field', { prompt: 'a', scores: [1] }, 'responses: is missing'],
    ['field', { ...several, scores: null }, 'scores: is missing'],
    ['field', { ...several, scores: [1, 2] }, 'scores: has 2 | 3 responses'],
    ['field', { ...several, scores: [1, 2, 3, 4] }, 'scores: has 4 | 3 responses'],
    ['field', { ...several, scores: 'abc' }, 'scores: expected a list | a string'],
    [
      'field',
      { ...several, scores: [1, 2, '3'] },
      'scores[2]: expected a finite number | a string',
    ],
    ['field', { ...several, scores: [1, null, 3] }, 'scores[1] | null'],
    ['field', JSON.stringify(several).replace('6.5', '-1e999'), 'scores[1] | -Infinity'],
    [
      'field',
      { ...several, responses: [], scores: [] },
      'responses: expected a list | empty array',
    ],
    ['field', { ...several, responses: 'abc' }, 'responses: expected a list | a string'],
    ['field', { ...several, responses: [' blue.', 5, ' green.'] }, 'responses[1] | 5'],
    ['field', { ...several, responses: [' blue.', null, ' green.'] }, 'responses[1] | null'],
    ['field', { ...several, responses: [asked, ' grey.', asked] }, 'responses[1] | a string'],
    ['field', { ...several, completions: several.responses }, 'completions | beside responses'],
    ['prompt', { responses: ['a', 'b'], scores: [1, 2] }, 'prompt: is missing'],
    [
      'prompt',
      { responses: [[user('a')], [user('a')], [user('b')]], scores: [1, 2, 3] },
      'responses[0] to responses[2] begin with different messages',
    ],
    [
      'completion',
      { prompt: 'a', responses: [[assistant('b')], []], scores: [1, 2] },
      'responses[1]: has no messages',
    ],
    [
      'message',
      { prompt: 'a', responses: [[assistant('b')], [{ content: 'c' }]], scores: [1, 2] },
      'responses[1][0]: has no role',
    ],
    [
      'message',
      { prompt: 'a', completions: [[assistant('b')], [{ content: 'c' }]], scores: [1, 2] },
      'completions[1][0]: has no role',
    ],
  ])('groups: %s: %j', async (reason, line, words) => {
    await expectSkipped(several, { form: 'groups' }, reason, line, words);
  });

  async function expectSkipped(
    good: object,
    options: object,
    reason: SkipReason,
    line: unknown,
    words: string,
  ): Promise<void> {
    const read = { ...good, record: {} };
    expectRefusal(
      await rejection(all([good, line, good], options)),
      'RangeError FILE',
      `stream:2: | ${words}`,
    );
    const reader = loose(linesOf(good, line, good), { ...options, onError: 'skip' });
    const records: unknown[] = [];
    for await (const record of reader) records.push(record);
    expect(records).toEqual([read, read]);
    expect(reader.report).toMatchObject({ read: 2, skipped: 1, reasons: { [reason]: 1 } });
  }
});

describe('a file has one form', () => {
  const forms = { pairs: pair, unpaired: single, groups: several };
  const lacks = { pairs: 'chosen', unpaired: 'completion', groups: 'responses' };
  const names = ['pairs', 'unpaired', 'groups'] as const;
  const mixtures = names.flatMap((first) =>
    names.filter((other) => other !== first).map((other) => [first, other] as const),
  );

  test.each(mixtures)(
    'the first record says %s: %s are refused, or skipped',
    async (first, other) => {
      const lines = [forms[first], forms[other], forms[first]];
      const read = { ...forms[first], record: {} };
      const words = `stream:2: ${lacks[first]}: is missing`;
      for (const options of [{}, { form: first }]) {
        expectRefusal(await rejection(all(lines, options)), 'RangeError FILE', words);
        const reader = loose(linesOf(...lines), { ...options, onError: 'skip' });
        const records: unknown[] = [];
        for await (const record of reader) records.push(record);
        expect(records).toEqual([read, read]);
        expect(reader.report).toMatchObject({ form: first, read: 2, reasons: { field: 1 } });
      }
    },
  );

  test.each(mixtures)('asked for %s, the first line too is refused of %s', async (form, other) => {
    const error = await rejection(all([forms[other]], { form }));
    expectRefusal(error, 'RangeError FILE', `stream:1: ${lacks[form]}: is missing`);
  });

  test('lines that are skipped say nothing of the form', async () => {
    const lines = [
      { prompt: 'a', chosen: 'b' },
      'nonsense',
      { prompt: 'a', responses: [] },
      single,
    ];
    expect(await all(lines, { onError: 'skip' })).toEqual([{ ...single, record: {} }]);
  });

  test('a line that has fields of several forms is what is asked for', async () => {
    const line = { ...pair, completion: ' blue.', label: 1, responses: ['a', 'b'], scores: [1, 2] };
    const { prompt, chosen, rejected, completion, label, responses, scores } = line;
    expect(await all([line])).toEqual([
      { ...pair, record: { completion, label, responses, scores } },
    ]);
    expect(await all([line], { form: 'unpaired' })).toEqual([
      { prompt, completion, label: true, record: { chosen, rejected, responses, scores } },
    ]);
    expect(await all([line], { form: 'groups' })).toEqual([
      { prompt, responses, scores, record: { chosen, rejected, completion, label } },
    ]);
  });

  test('text and messages may stand in one file', async () => {
    const talk = { prompt: asked, completion: [assistant('That.')], label: false };
    const records = (await all([single, talk])) as UnpairedRecord[];
    expect(records.map((record) => isConversational(record))).toEqual([false, true]);
  });
});

test.each<[unknown, readonly string[]]>([
  [{ form: 'pair' }, ['form', "'pair'", "'pairs', 'unpaired', 'groups'"]],
  [{ form: null }, ['form', 'null']],
  [{ form: ['pairs'] }, ['form', 'Array']],
  [{ form: 'toString' }, ['form', "'toString'"]],
  [{ margins: 1 }, ['margins', '1']],
  [{ margins: 'yes' }, ['margins', "'yes'"]],
  [{ margins: true, form: 'unpaired' }, ['margins', "'unpaired'"]],
  [{ margins: true, form: 'groups' }, ['margins', "'groups'"]],
  [{ margin: true }, ['margin', "'margins'"]],
])('options of another kind, at once: %o', (options, words) => {
  expectRefusal(() => loose(linesOf(), options), 'TypeError OPTION', words);
});

test('what a program adds to Object.prototype changes nothing', async () => {
  const added = Object.prototype as unknown as Record<string, unknown>;
  const names = ['form', 'margins', 'label', 'completion', 'responses', 'scores', 'score_chosen'];
  try {
    Object.assign(added, Object.fromEntries(names.map((name) => [name, 'added'])));
    expect(await all([pair])).toEqual([{ ...pair, record: {} }]);
    const lines = [
      { prompt: 'a', completion: 'b' },
      { prompt: 'a', responses: ['b'] },
    ];
    for (const line of lines)
      expectRefusal(await rejection(all([line])), 'RangeError FILE', 'is missing');
    expectRefusal(
      await rejection(all([pair], { margins: true })),
      'RangeError FILE',
      'score_chosen',
    );
  } finally {
    for (const name of names) Reflect.deleteProperty(added, name);
  }
});

test('the records by type', () => {
  const source = linesOf();
  expectTypeOf(readPreferences(source)).toEqualTypeOf<PreferenceReader>();
  expectTypeOf<PreferenceReader>().toExtend<AsyncIterable<PreferenceRecord>>();
  expectTypeOf((options?: ReadPreferencesOptions) =>
    readPreferences(source, options),
  ).returns.toEqualTypeOf<PreferenceReader>();
  expectTypeOf(readPreferences(source, { form: 'pairs' })).toEqualTypeOf<PreferenceReader>();
  expectTypeOf(readPreferences(source, { form: 'unpaired', onError: 'skip' })).toEqualTypeOf<
    PreferenceReader<UnpairedRecord>
  >();
  expectTypeOf(readPreferences(source, { form: 'groups' })).toEqualTypeOf<
    PreferenceReader<GroupRecord>
  >();
  expectTypeOf(readPreferences(source, { margins: true })).toEqualTypeOf<
    PreferenceReader<ScoredPreferenceRecord>
  >();
  const narrowed = (record: UnpairedRecord) => (isConversational(record) ? record : undefined);
  expectTypeOf(narrowed).returns.toExtend<ConversationalCompletion | undefined>();
});
