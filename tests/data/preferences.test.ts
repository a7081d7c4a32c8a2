// Preference data from JSONL: lines and sources, what is refused or skipped, and what the reader
// counts. The forms of records are in preference-forms.test.ts.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { pathToFileURL } from 'node:url';
import fc from 'fast-check';
import { afterAll, describe, expect, expectTypeOf, test } from 'vitest';
import { linesOf } from '../../ts/data/lines.js';
import {
  isConversational,
  readPreferences,
  type Preference,
  type PreferenceReader,
  type PreferenceRecord,
  type PreferenceSource,
  type ReadPreferencesOptions,
  type SkipReason,
} from '../../ts/data/index.js';
import { expectRefusal, rejection } from '../support/refusal.js';
import { assistant, system, user } from '../support/turns.js';

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-preferences-'));
afterAll(() => {
  fs.rmSync(folder, { recursive: true });
});
let files = 0;
function fileOf(content: string | Uint8Array): string {
  const file = path.join(folder, `${files++}.jsonl`);
  fs.writeFileSync(file, content);
  return file;
}

async function all(
  source: PreferenceSource,
  options?: ReadPreferencesOptions,
): Promise<PreferenceRecord[]> {
  const records: PreferenceRecord[] = [];
  for await (const record of readPreferences(source, options)) records.push(record);
  return records;
}

const plain = { prompt: 'The sky is', chosen: ' blue.', rejected: ' green.' };
const line = JSON.stringify(plain);
const read = { ...plain, record: {} };

describe('readPreferences', () => {
  test('plain text and conversations, with their other fields', async () => {
    const tools = [{ type: 'function', function: { name: 'clock' } }];
    const talk = {
      prompt: [user('Time?')],
      chosen: [assistant('Noon.')],
      rejected: [assistant('No.')],
    };
    const lines = [
      plain,
      { ...plain, prompt: '', id: 7, scores: [1, null], images: null },
      { ...talk, tools, reference_chosen_logps: -12.5, __proto__: null },
    ];
    const records = await all(
      fileOf(`${lines.map((record) => JSON.stringify(record)).join('\n')}\n`),
    );
    expect(records).toEqual([
      read,
      { ...plain, prompt: '', record: { id: 7, scores: [1, null] } },
      { ...talk, record: { tools, reference_chosen_logps: -12.5 } },
    ]);
    expect(records.map(isConversational)).toEqual([false, false, true]);
  });

  test('fields of any name stay what they are', async () => {
    const [record] = await all(fileOf(`{"__proto__":{"tools":1},"constructor":2,${line.slice(1)}`));
    expect(record?.record.tools).toBeUndefined();
    expect(Object.entries(record?.record ?? {})).toEqual([
      ['__proto__', { tools: 1 }],
      ['constructor', 2],
    ]);
  });

  test('a byte order mark, CRLF, empty lines, no line feed at the end', async () => {
    expect(await all(fileOf(`\ufeff${line}\r\n\r\n  \t\n${line}\r\n${line}`))).toEqual([
      read,
      read,
      read,
    ]);
    expect(await all(fileOf(`${line}\n${line}\n\n`))).toEqual([read, read]);
    expect(await all(fileOf(''))).toEqual([]);
    expect(await all(fileOf('\ufeff\n'))).toEqual([]);
  });

  test('separators of Unicode do not end a line', async () => {
    const record = { ...plain, chosen: 'a\u2028b\u2029c\u0085d' };
    expect(await all(fileOf(JSON.stringify(record)))).toEqual([{ ...record, record: {} }]);
  });

  test('a file URL, a Node stream, a web stream, text in pieces', async () => {
    const file = fileOf(`${line}\n${line}`);
    expect(await all(pathToFileURL(file))).toEqual([read, read]);
    expect(await all(fs.createReadStream(file))).toEqual([read, read]);
    expect(await all(fs.createReadStream(file, 'utf8'))).toEqual([read, read]);
    expect(await all(new Response(`${line}\n`).body as AsyncIterable<Uint8Array>)).toEqual([read]);
  });

  test('wherever the pieces end, as bytes or as text', async () => {
    const record = fc.record({
      prompt: fc.string({ unit: 'binary', maxLength: 8 }),
      chosen: fc.string({ unit: 'binary', maxLength: 8 }),
      rejected: fc.string({ unit: 'binary', maxLength: 8 }),
    });
    const property = fc.asyncProperty(
      fc.array(record, { maxLength: 4 }),
      fc.integer({ min: 1, max: 9 }),
      fc.boolean(),
      async (records, size, asText) => {
        const text = records.map((r) => JSON.stringify(r)).join('\n');
        const whole = asText ? text : Buffer.from(text);
        async function* pieces(): AsyncGenerator<string | Uint8Array> {
          await Promise.resolve();
          // Bytes in one buffer that is filled again, as a source may do.
          const buffer = new Uint8Array(size);
          for (let i = 0; i < whole.length; i += size) {
            const part = whole.slice(i, i + size);
            if (typeof part !== 'string') buffer.set(part);
            yield typeof part === 'string' ? part : buffer.subarray(0, part.length);
          }
        }
        expect(await all(pieces())).toEqual(records.map((record) => ({ ...record, record: {} })));
      },
    );
    await fc.assert(property, { seed: 20250205, numRuns: 200 });
  });

  test('a line of 24 MB in small pieces, in time that is linear in it', async () => {
    const record = { ...plain, chosen: 'x'.repeat(24e6) };
    const bytes = Buffer.from(JSON.stringify(record));
    async function* pieces(): AsyncGenerator<Uint8Array> {
      await Promise.resolve();
      for (let i = 0; i < bytes.length; i += 256) yield bytes.subarray(i, i + 256);
    }
    const [first] = await all(pieces());
    expect(first?.chosen.length).toBe(24e6);
  });

  const message = [user('Hi')];
  const nested = '['.repeat(200_000) + ']'.repeat(200_000);
  const turn = `{"role":"user","content":"a","x":${nested}}`;
  const deep = `{"chosen":[${turn}],"rejected":[${turn}]}`;
  // By the reason for which it is skipped, and what the error says.
  const wrong: [SkipReason, unknown, string][] = [
    ['object', [line], 'expected an object | an array'],
    ['object', 3, 'expected an object | 3'],
    ['object', null, 'expected an object | null'],
    ['prompt', { chosen: 'a', rejected: 'b' }, 'prompt: is missing'],
    ['prompt', { ...plain, prompt: null }, 'prompt: is missing'],
    ['field', { ...plain, prompt: 5 }, 'prompt: expected a string | 5'],
    ['field', { ...plain, prompt: {} }, 'prompt: expected a string | an object'],
    ['field', { prompt: 'a', rejected: 'b' }, 'chosen: is missing'],
    ['field', { prompt: 'a', chosen: 'b' }, 'rejected: is missing'],
    ['field', { ...plain, rejected: null }, 'rejected: is missing'],
    ['field', { prompt: 'a', chosen: 'b', toString: 'c' }, 'rejected: is missing'],
    ['field', { ...plain, chosen: 5 }, 'chosen: expected a string | 5'],
    ['field', { ...plain, chosen: user('Hi') }, 'chosen: expected a string | an object'],
    ['field', { ...plain, rejected: message }, 'chosen: expected messages | a string'],
    ['field', { prompt: 1, chosen: message, rejected: message }, 'prompt: expected messages | 1'],
    ['completion', { prompt: message, chosen: message, rejected: [] }, 'rejected: has no messages'],
    ['message', { prompt: message, chosen: [null], rejected: message }, 'chosen[0] | null'],
    [
      'message',
      { prompt: [{ content: 'a' }], chosen: message, rejected: message },
      'prompt[0]: has no role',
    ],
    [
      'message',
      { chosen: [{ role: null, content: 'a' }], rejected: message },
      'chosen[0]: has no role',
    ],
    ['message', { chosen: [{ role: 1, content: 'a' }], rejected: message }, 'chosen[0].role | 1'],
    [
      'message',
      { prompt: message, chosen: message, rejected: [user('a'), { role: '' }] },
      'rejected[1].role: is empty',
    ],
    [
      'message',
      { prompt: message, chosen: [{ role: 'assistant' }], rejected: message },
      'chosen[0]: has no content',
    ],
    [
      'message',
      {
        prompt: message,
        chosen: [{ role: 'assistant', content: null, tool_calls: [], refusal: null }],
        rejected: message,
      },
      'chosen[0]: has no content',
    ],
    [
      'message',
      {
        prompt: message,
        chosen: [{ role: 'assistant', content: { text: 'a' } }],
        rejected: message,
      },
      'chosen[0].content | an object',
    ],
    [
      'message',
      {
        prompt: message,
        chosen: [{ role: 'user', content: [{ type: 'text', text: 'a' }, { type: 'image' }] }],
        rejected: message,
      },
      "chosen[0].content[1]: expected { type: 'text', text } | 'image'",
    ],
    [
      'message',
      {
        prompt: message,
        chosen: [{ role: 'user', content: [{ type: { toString: 0 } }] }],
        rejected: message,
      },
      'chosen[0].content[0] | an object',
    ],
    ['prompt', { chosen: [user('a')], rejected: [user('b')] }, 'prompt: is missing | different'],
    [
      'prompt',
      { chosen: [assistant('a'), assistant('b')], rejected: [assistant('a'), assistant('c')] },
      'prompt: is missing | no turn of a user',
    ],
    ['completion', { chosen: message, rejected: message }, 'chosen: has no message after the 1'],
    [
      'completion',
      { chosen: [...message, assistant('a')], rejected: message },
      'rejected: has no message after the 1',
    ],
    [
      'completion',
      { prompt: message, chosen: [...message, assistant('a')], rejected: message },
      'rejected: has no message after the 1',
    ],
    [
      'prompt',
      {
        prompt: 'Hi',
        chosen: [system('a'), user('Hi'), assistant('b')],
        rejected: [user('Hi'), assistant('c')],
      },
      'prompt | different system messages',
    ],
    [
      'prompt',
      {
        prompt: message,
        chosen: [user('before'), assistant('a'), ...message, assistant('b')],
        rejected: [assistant('c')],
      },
      'prompt | only one',
    ],
    [
      'prompt',
      {
        prompt: '<|system|>\nYou are a pirate.\n<|user|>\nHi\n<|assistant|>\n',
        chosen: [...message, assistant('a')],
        rejected: [...message, assistant('b')],
      },
      'prompt | more than the turns',
    ],
    ['json', deep, 'not JSON'],
  ];
  const textOfWrong = (record: unknown): string =>
    typeof record === 'string' ? record : JSON.stringify(record);
  test.each(wrong)(
    'refused by file and line, or skipped: %s: %j',
    async (reason, record, words) => {
      const file = fileOf(`${line}\n\n${textOfWrong(record)}\n${line}\n`);
      const error = await rejection(all(file));
      expectRefusal(error, 'RangeError FILE', `${file}:3: | ${words}`);
      const skipped: [string, SkipReason][] = [];
      const reader = readPreferences(file, {
        onError: 'skip',
        onSkip: (each, why) => {
          expectRefusal(each, 'RangeError FILE', '');
          skipped.push([each.message, why]);
        },
      });
      const records: Preference[] = [];
      for await (const each of reader) records.push(each);
      expect(records).toEqual([read, read]);
      expect(skipped).toEqual([[(error as Error).message, reason]]);
      expect(reader.report).toEqual({
        form: 'pairs',
        read: 2,
        formats: { trl: 2 },
        skipped: 1,
        reasons: { [reason]: 1 },
      });
    },
  );

  test.each([
    ['cut off', line.slice(0, -4)],
    ['two objects', line + line],
    ['a bare word', 'prompt'],
    ['a byte order mark inside', `\ufeff${line}`],
  ])('refused as not JSON: %s', async (_, text) => {
    const file = fileOf(`${line}\n${text}`);
    expectRefusal(await rejection(all(file)), 'RangeError FILE', `${file}:2: not JSON: `);
  });

  test('the records before a bad line are given, and nothing after it', async () => {
    const iterator = readPreferences(fileOf(`${line}\nnonsense\n${line}\n`));
    expect(await iterator.next()).toEqual({ done: false, value: read });
    expect(await rejection(iterator.next())).toBeInstanceOf(Error);
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
  });

  test('bytes that are not UTF-8', async () => {
    const file = fileOf(
      Buffer.concat([Buffer.from(`${line}\n{"prompt": "`), Buffer.of(0xff), Buffer.from('"}')]),
    );
    expectRefusal(await rejection(all(file)), 'RangeError FILE', `${file}:2: not UTF-8`);
  });

  test('sources that cannot be read', async () => {
    const missing = path.join(folder, 'none.jsonl');
    expectRefusal(
      await rejection(all(missing)),
      'RangeError FILE',
      `${missing} | cannot be read | ENOENT`,
    );
    expectRefusal(await rejection(all(folder)), 'RangeError FILE', `${folder} | EISDIR`);
    const cause = new Error('cable cut');
    async function* failing(): AsyncGenerator<string> {
      yield await Promise.resolve(`${line}\n`);
      throw cause;
    }
    const error = await rejection(all(failing(), { name: 'the archive' }));
    expectRefusal(error, 'RangeError FILE', 'the archive: cannot be read: cable cut');
    expect((error as Error).cause).toBe(cause);
    expectRefusal(await rejection(all(Readable.from([line, 5]))), 'TypeError FILE', 'stream:1 | 5');
    expectRefusal(
      await rejection(all(Readable.from(['{"a', Buffer.from('"')]))),
      'RangeError FILE',
      'stream:1 | both',
    );
  });

  test('sources of another kind, at once', () => {
    const loose = readPreferences as unknown as (...args: readonly unknown[]) => unknown;
    const sources: [unknown, string][] = [
      ...[undefined, null, 5, Symbol('x'), { [Symbol.asyncIterator]: 5 }].map(
        (each): [unknown, string] => [each, 'expected a path'],
      ),
      [new URL('https://example.org/a.jsonl'), 'file URL | https://example.org/a.jsonl'],
      [new URL('file://elsewhere/a.jsonl'), 'file://elsewhere/a.jsonl stands for no path'],
      [new URL('file:///a%2Fb'), 'stands for no path'],
    ];
    for (const [source, word] of sources) {
      expectRefusal(() => loose(source), 'TypeError OPTION', `source | ${word}`);
    }
  });

  test.each<[unknown, readonly string[]]>([
    [null, ['options', 'null']],
    [5, ['options', '5']],
    ['skip', ['options', "'skip'"]],
    [['skip'], ['options', 'Array']],
    [Symbol('x'), ['options', 'Symbol(x)']],
    [{ name: 5 }, ['name', '5']],
    [{ name: Symbol('x') }, ['name', 'Symbol(x)']],
    [{ name: null }, ['name', 'null']],
    [{ onError: 'ignore' }, ['onError', "'ignore'", "'throw', 'skip'"]],
    [{ onError: Symbol('x') }, ['onError', 'Symbol(x)']],
    [{ onError: Object.create(null) as unknown }, ['onError', 'an object']],
    [{ onError: 'skip', onSkip: 'log' }, ['onSkip', "'log'"]],
    [{ onSkip: () => undefined }, ['onSkip', "onError 'skip'", 'undefined']],
    [{ onerror: 'skip' }, ['onerror', "'onError'"]],
  ])('options of another kind, at once: %o', (options, words) => {
    const loose = readPreferences as unknown as (...args: readonly unknown[]) => unknown;
    expectRefusal(() => loose(path.join(folder, 'none'), options), 'TypeError OPTION', words);
  });

  test('what a program adds to Object.prototype changes nothing', async () => {
    const added = Object.prototype as unknown as Record<string, unknown>;
    try {
      Object.assign(added, {
        onError: 'ignore',
        name: 5,
        prompt: 'added',
        rejected: 'added',
        content: 'added',
      });
      expect(await all(fileOf(line))).toEqual([read]);
      const bad = [
        { prompt: 'a', chosen: 'b' },
        { chosen: 'a', rejected: 'b' },
        { chosen: [{ role: 'user' }], rejected: message },
      ];
      for (const record of bad)
        expect(await rejection(all(fileOf(JSON.stringify(record))))).toBeInstanceOf(RangeError);
    } finally {
      for (const key of ['onError', 'name', 'prompt', 'rejected', 'content'])
        Reflect.deleteProperty(added, key);
    }
  });

  test('the source is closed when the reader has seen enough, and after an error', async () => {
    for (const [text, fails] of [
      [`${line}\n${line}\n`, false],
      ['nonsense\n', true],
    ] as const) {
      let closed = 0;
      async function* source(): AsyncGenerator<string> {
        try {
          for (;;) yield await Promise.resolve(text);
        } finally {
          closed++;
        }
      }
      const reading = async (): Promise<void> => {
        for await (const record of readPreferences(source()))
          if (record.prompt === plain.prompt) break;
      };
      await (fails ? rejection(reading()) : reading());
      expect(closed).toBe(1);
    }
  });

  test('skipping: counts by reason, while it is read', async () => {
    const bad = [
      'nonsense',
      '[]',
      '{}',
      '{"chosen":"a","rejected":"b"}',
      '{"chosen":[{}],"rejected":[{}]}',
      line + line,
    ];
    const text = [line, ...bad, '', line, ...bad, line].join('\n');
    const bytes = Buffer.concat([
      Buffer.from(`${text}\n`),
      Buffer.of(0xff, 0x0a),
      Buffer.from(line),
    ]);
    const reader = readPreferences(fileOf(bytes), { onError: 'skip' });
    expectTypeOf(reader).toEqualTypeOf<PreferenceReader>();
    expect(reader.report).toEqual({
      form: undefined,
      read: 0,
      formats: {},
      skipped: 0,
      reasons: {},
    });
    await reader.next();
    await reader.next();
    expect(reader.report).toEqual({
      form: 'pairs',
      read: 2,
      formats: { trl: 2 },
      skipped: 6,
      reasons: { json: 2, object: 1, field: 1, prompt: 1, message: 1 },
    });
    let rest = 0;
    for await (const record of reader) rest += Number(record.prompt === plain.prompt);
    expect(rest).toBe(2);
    const reasons = { json: 4, object: 2, field: 2, prompt: 2, message: 2, encoding: 1 };
    expect(reader.report).toMatchObject({ read: 4, formats: { trl: 4 }, skipped: 13, reasons });
  });

  test('skipping does not hide a source that cannot be read, nor what onSkip throws', async () => {
    const missing = path.join(folder, 'none.jsonl');
    expectRefusal(await rejection(all(missing, { onError: 'skip' })), 'RangeError FILE', 'ENOENT');
    expectRefusal(
      await rejection(all(Readable.from([5]), { onError: 'skip' })),
      'TypeError FILE',
      '5',
    );
    const enough = new Error('enough');
    const onSkip = (): never => {
      throw enough;
    };
    expect(await rejection(all(fileOf('nonsense\n'), { onError: 'skip', onSkip }))).toBe(enough);
  });

  test('a web stream that another reader holds', async () => {
    const stream = new Response(line).body as ReadableStream<Uint8Array> &
      AsyncIterable<Uint8Array>;
    stream.getReader();
    expectRefusal(
      await rejection(all(stream)),
      'RangeError FILE',
      'stream: cannot be read | locked',
    );
  });

  test('a line longer than a string can be is refused, and the next one is read', async () => {
    const most = 64;
    async function* endless(): AsyncGenerator<Uint8Array> {
      yield await Promise.resolve(Buffer.from('a\n'));
      for (let i = 0; i < 1000; i++) yield Buffer.alloc(10, 'x');
      yield Buffer.from('\nb');
    }
    const lines: unknown[] = [];
    for await (const item of linesOf(endless(), 'stream', most)) {
      const pieces = item.kind === 'line' ? item.pieces : [];
      lines.push([item.place, pieces && Buffer.concat(pieces as Buffer[]).toString()]);
    }
    expect(lines).toEqual([
      [':1', 'a'],
      [':2', undefined],
      [':3', 'b'],
    ]);
  });
});
