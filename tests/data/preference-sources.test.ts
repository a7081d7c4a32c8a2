// Where preference data comes from: bytes, text, gzip, JSON arrays, and rows that other readers
// give. A source changes how records are found, never what they are.
import fs from 'node:fs';
import { Readable } from 'node:stream';
import zlib from 'node:zlib';
import fc from 'fast-check';
import { asyncBufferFromFile, parquetReadObjects } from 'hyparquet';
import { describe, expect, test } from 'vitest';
import { detectForm, readPreferences, type PreferenceReader } from '../../ts/data/index.js';
import { expectRefusal, rejection } from '../support/refusal.js';
import { assistant, user } from '../support/turns.js';

const loose = readPreferences as unknown as (
  source: unknown,
  options?: unknown,
) => PreferenceReader<unknown>;
async function all(source: unknown, options?: object): Promise<unknown[]> {
  const records: unknown[] = [];
  for await (const record of loose(source, options)) records.push(record);
  return records;
}
const fixture = (name: string): string =>
  new URL(`../fixtures/data/${name}`, import.meta.url).pathname;

const pair = { prompt: 'The sky is', chosen: ' blue.', rejected: ' green.' };
const read = { ...pair, record: {} };
const lines = `${JSON.stringify(pair)}\n${JSON.stringify(pair)}\n`;
const array = JSON.stringify([pair, pair], null, 2);
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

// oxlint-disable-next-line typescript/require-await
async function* later<T>(...chunks: readonly T[]): AsyncGenerator<T> {
  yield* chunks;
}

test.each<[string, () => unknown]>([
  ['bytes', () => bytes(lines)],
  ['a Buffer', () => Buffer.from(lines)],
  ['an ArrayBuffer', () => bytes(lines).buffer],
  [
    'bytes that another thread may write to',
    () => {
      const shared = new Uint8Array(new SharedArrayBuffer(lines.length));
      shared.set(bytes(lines));
      return shared;
    },
  ],
  ['text', () => ({ text: lines })],
  ['text of an array', () => ({ text: array })],
  ['a Blob', () => new Blob([lines])],
  ['an array of text', () => [lines.slice(0, 20), lines.slice(20)]],
  ['a set of bytes', () => new Set([bytes(lines)])],
  ['a Node stream', () => Readable.from([Buffer.from(array)])],
  ['a web stream', () => new Response(lines).body],
  ['compressed bytes', () => zlib.gzipSync(lines)],
  ['a compressed array', () => zlib.gzipSync(array)],
  ['a compressed Blob', () => new Blob([zlib.gzipSync(`\ufeff${array}`)])],
  [
    'two compressed files, one after another',
    () => [zlib.gzipSync(JSON.stringify(pair)), zlib.gzipSync(`\n${JSON.stringify(pair)}`)],
  ],
  ['an array of rows', () => [pair, pair]],
  ['an array of arrays of rows', () => [[pair], [], [pair]]],
  ['rows one by one', () => later(pair, pair)],
  ['rows in arrays', () => later([pair, pair])],
  ['rows of a Node stream', () => Readable.from([pair, pair])],
])('the same records: %s', async (_, source) => {
  expect(await all(source())).toEqual([read, read]);
});

describe('JSON arrays', () => {
  test('wherever the pieces end, as bytes or as text', async () => {
    const text = fc.string({ unit: 'binary', maxLength: 6 });
    const records = fc.array(fc.record({ prompt: text, chosen: text, rejected: text }), {
      maxLength: 4,
    });
    const property = fc.asyncProperty(
      records,
      fc.integer({ min: 1, max: 9 }),
      fc.constantFrom('text', 'bytes', 'gzip'),
      fc.constantFrom(undefined, 1, '\t'),
      async (given, size, kind, space) => {
        const json = ` \n${JSON.stringify(given, null, space)}\r\n`;
        const whole =
          kind === 'text' ? json : kind === 'bytes' ? Buffer.from(json) : zlib.gzipSync(json);
        const pieces = Array.from({ length: Math.ceil(whole.length / size) }, (_, i) =>
          whole.slice(i * size, (i + 1) * size),
        );
        expect(await all(pieces)).toEqual(given.map((record) => ({ ...record, record: {} })));
      },
    );
    await fc.assert(property, { seed: 20261129, numRuns: 300 });
  });

  test('brackets, commas and quotes in strings structure nothing', async () => {
    const odd = {
      prompt: '[{"},{"',
      chosen: '\\",]}',
      rejected: '\\\\',
      list: [[1, [2]], { a: '],' }],
    };
    const { list, ...others } = odd;
    expect(await all({ text: JSON.stringify([odd]) })).toEqual([{ ...others, record: { list } }]);
  });

  test.each([
    ['nothing', '[]'],
    ['whitespace', ' [ \n ] '],
  ])('an array of %s has no records', async (_, text) => {
    expect(await all({ text })).toEqual([]);
  });

  test.each([
    ['a comma at the end', `[${JSON.stringify(pair)},]`, 1, 'json'],
    ['two commas', `[${JSON.stringify(pair)},,${JSON.stringify(pair)}]`, 1, 'json'],
    ['an element that is not JSON', `[${JSON.stringify(pair)}, {"prompt": }]`, 1, 'json'],
    ['a number', `[${JSON.stringify(pair)}, 5]`, 1, 'object'],
    ['an array', `[[${JSON.stringify(pair)}]]`, 0, 'object'],
    ['a brace too many', `[${JSON.stringify(pair)}}]`, 0, 'json'],
  ])('an element is refused by its place, or skipped: %s', async (_, text, place, reason) => {
    expectRefusal(await rejection(all({ text })), 'RangeError FILE', `text[${place}]: `);
    const reader = loose({ text }, { onError: 'skip' });
    for await (const record of reader) expect(record).toEqual(read);
    expect(reader.report).toMatchObject({ skipped: 1, reasons: { [reason]: 1 } });
  });

  test.each([
    ['is cut off', array.slice(0, -1), 'ends in element 1'],
    ['is cut off in a string', array.slice(0, 30), 'ends in element 0'],
    ['goes on', `${array}{}`, 'goes on after the ]'],
  ])('an array that %s is an error, whatever is skipped', async (_, text, words) => {
    const options = { onError: 'skip', name: 'the file' };
    const error = await rejection(all({ text }, options));
    expectRefusal(error, 'RangeError FILE', `the file: ${words}`);
  });
});

describe('compressed', () => {
  const zipped = zlib.gzipSync(lines);
  test('cut off, or damaged', async () => {
    const damaged = Uint8Array.from(zipped).fill(0, 12, 30);
    for (const wrong of [zipped.subarray(0, -9), damaged]) {
      const error = await rejection(all(wrong, { onError: 'skip' }));
      expectRefusal(error, 'RangeError FILE', 'bytes: cannot be decompressed');
    }
  });

  test('memory that the source fills again while it is decompressed', async () => {
    const many = Array.from({ length: 500 }, (_, i) => ({ ...pair, chosen: ` ${i * i}` }));
    const file = zlib.gzipSync(many.map((one) => JSON.stringify(one)).join('\n'));
    async function* pieces(): AsyncGenerator<Uint8Array> {
      const memory = new Uint8Array(7);
      for (let i = 0; i < file.length; i += 7) {
        const piece = file.subarray(i, i + 7);
        memory.set(piece);
        yield await Promise.resolve(memory.subarray(0, piece.length));
      }
    }
    expect(await all(pieces())).toEqual(many.map((one) => ({ ...one, record: {} })));
  });

  test('the source is closed before the reader ends, and its own error is the cause', async () => {
    let closed = 0;
    const file = zlib.gzipSync(lines.repeat(1000));
    async function* pieces(): AsyncGenerator<Uint8Array> {
      try {
        for (let i = 0; i < file.length; i += 10)
          yield await Promise.resolve(file.subarray(i, i + 10));
      } finally {
        closed++;
      }
    }
    for await (const record of loose(pieces())) {
      expect(record).toEqual(read);
      break;
    }
    expect(closed).toBe(1);
    const cause = new Error('cable cut');
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield await Promise.resolve(file.subarray(0, 20));
      throw cause;
    }
    const error = await rejection(all(failing()));
    expectRefusal(error, 'RangeError FILE', 'stream: cannot be read: cable cut');
    expect((error as Error).cause).toBe(cause);
  });

  test.each([
    ['Parquet', 'PAR1\u0015\u0004\u0015', 'hyparquet'],
    ['Arrow', 'ARROW1\0\0', 'apache-arrow'],
    ['zstd', '\x28\xb5\x2f\xfd\x24\0\0\0', 'zstd -d'],
    ['xz', '\xfd7zXZ\0\0', 'xz -d'],
    ['bzip2', 'BZh91AY&SY', 'bzip2 -d'],
    ['ZIP', 'PK\x03\x04\x14\0\0\0', 'a file of it'],
  ])('what is %s says so, and what to do', async (name, start, advice) => {
    const error = await rejection(all(Buffer.from(start, 'latin1'), { onError: 'skip' }));
    expectRefusal(error, 'RangeError FILE', [`bytes: is `, name, advice]);
  });
});

describe('rows', () => {
  const skipped = async (row: unknown): Promise<string> => {
    const messages: string[] = [];
    const onSkip = (error: Error): void => void messages.push(error.message);
    const reader = loose([pair, row, pair], { onError: 'skip', onSkip });
    let count = 0;
    for await (const record of reader) count += Number(record !== undefined);
    expect([count, reader.report.skipped]).toEqual([2, 1]);
    return messages.join();
  };

  test.each<[unknown, string]>([
    [null, 'not null'],
    [undefined, 'not undefined'],
    [5, 'not 5'],
    ['text', 'not a string'],
    [() => 1, 'not a function'],
    [{}, 'chosen: is missing'],
    [new Date(0), 'its toJSON gives a string'],
    [{ ...pair, chosen: () => 1 }, 'chosen: expected a string or messages, not a function'],
    [{ ...pair, chosen: [undefined] }, 'chosen[0]: is undefined'],
  ])('what is no preference is skipped: %o', async (row, words) => {
    expect(await skipped(row)).toMatch(/^rows\[1\]: /);
    expect(await skipped(row)).toContain(words);
  });

  test('getters and Proxies that throw, values that hold themselves, endless arrays', async () => {
    const fails = (): never => {
      throw new Error('no more');
    };
    const loop: unknown[] = [];
    loop.push(loop);
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    const endless = new Proxy([], {
      get: (_, key) => (key === 'length' ? 2 ** 32 - 1 : undefined),
    });
    const rows: [unknown, string][] = [
      [
        {
          ...pair,
          get chosen() {
            return fails();
          },
        },
        'cannot be read: no more',
      ],
      [new Proxy(pair, { ownKeys: fails }), 'cannot be read: no more'],
      [{ ...pair, chosen: loop }, 'holds itself'],
      [{ ...pair, chosen: proxy }, 'cannot be read'],
      [proxy, 'cannot be read'],
      [{ ...pair, chosen: endless }, 'chosen[0]: is undefined'],
    ];
    for (const [row, words] of rows) expect(await skipped(row)).toContain(words);
  });

  test('every field is read once, and fields that no format has are left alone', async () => {
    const reads = new Map<string, number>();
    const counted = <T extends object>(name: string, value: T): T =>
      new Proxy(value, {
        get(target, key, receiver) {
          const place = `${name}.${String(key)}`;
          reads.set(place, (reads.get(place) ?? 0) + 1);
          return Reflect.get(target, key, receiver);
        },
      });
    const other = counted('other', { deep: 1 });
    const turns = counted('turns', [user('a'), assistant('b')]);
    const row = counted('row', { chosen: turns, rejected: [user('a'), assistant('c')], other });
    const [record] = (await all([row])) as [{ chosen: unknown; record: { other: unknown } }];
    expect(record.chosen).toEqual([assistant('b')]);
    expect(record.record.other).toBe(other);
    expect([...reads].filter(([, count]) => count > 1)).toEqual([]);
    expect(reads.has('turns.0')).toBe(true);
    expect(reads.has('other.deep')).toBe(false);
  });

  test('as readers of tables have them: bigints, typed arrays, objects with a toJSON', async () => {
    const single = { prompt: 'a', completion: 'b', label: 1n };
    expect(await all([single])).toEqual([{ ...single, label: true, record: {} }]);
    const rated = { prompt: 'a', responses: ['b', 'c'], scores: Float32Array.of(1, 2.5) };
    expect(await all([rated])).toEqual([{ ...rated, scores: [1, 2.5], record: {} }]);
    const exact = { ...rated, scores: BigInt64Array.of(3n, -4n) };
    expect(await all([exact])).toEqual([{ ...rated, scores: [3, -4], record: {} }]);
    class Vector {
      constructor(readonly values: unknown) {}
      toJSON(): unknown {
        return this.values;
      }
    }
    const turns = [user('a'), assistant('b')];
    const row = new Vector({
      chosen: new Vector(turns.map((turn) => new Vector(turn))),
      rejected: new Vector([user('a'), new Vector(assistant('c'))]),
      votes: 2n ** 60n,
    });
    expect(await all([row])).toEqual([
      {
        prompt: [user('a')],
        chosen: [assistant('b')],
        rejected: [assistant('c')],
        record: { votes: 2n ** 60n },
      },
    ]);
    const huge = { prompt: 'a', responses: ['b'], scores: [2n ** 60n] };
    expectRefusal(await rejection(all([huge])), 'RangeError FILE', 'scores[0]: expected a finite');
  });

  test('Parquet, by hyparquet', async () => {
    const rows = await parquetReadObjects({
      file: await asyncBufferFromFile(fixture('preferences.parquet')),
    });
    const fromTable = (await all(rows, { margins: true })) as { record: object }[];
    const fromLines = (await all(fixture('ultrafeedback-like.jsonl'), { margins: true })) as {
      record: object;
    }[];
    const withoutRecord = (all: { record: object }): object => ({ ...all, record: {} });
    expect(fromTable).toHaveLength(3);
    expect(fromTable.map(withoutRecord)).toEqual(fromLines.map(withoutRecord));
    expect(fromTable[1]?.record).toEqual({ score_chosen: 9, score_rejected: 1.5, votes: 4n });
    expect(detectForm(rows[0] as object)).toEqual({ form: 'pairs', format: 'trl' });

    const blob = new Blob([fs.readFileSync(fixture('preferences.parquet'))]);
    const slice = (start: number, end?: number): Promise<ArrayBuffer> =>
      blob.slice(start, end).arrayBuffer();
    const fromBlob = await parquetReadObjects({ file: { byteLength: blob.size, slice } });
    expect(await all(fromBlob, { margins: true })).toEqual(fromTable);
  });
});

describe('a source of another kind', () => {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  test.each<[string, unknown, string]>([
    ['an object', {}, 'not Object'],
    ['a function', () => lines, 'not a function'],
    ['floats', Float64Array.of(1), 'not Float64Array'],
    ['a response', new Response(lines), 'not Response'],
    ['text that is none', { text: 5 }, 'source.text: expected a string, not 5'],
    ['text with more', { text: lines, name: 'a' }, 'source.name'],
    [
      'a getter that throws',
      {
        get [Symbol.asyncIterator]() {
          throw new Error('no');
        },
      },
      ': no',
    ],
    ['a revoked Proxy', proxy, 'a revoked Proxy'],
  ])('is refused at once: %s', (_, source, words) => {
    expectRefusal(() => loose(source), 'TypeError OPTION', ['source', words]);
  });

  test('an iterator that breaks its promises is an error of the source', async () => {
    const sources = [
      { [Symbol.asyncIterator]: () => undefined },
      { [Symbol.asyncIterator]: () => ({ next: () => undefined }) },
      { [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(new Error('gone')) }) },
      { [Symbol.iterator]: () => ({ next: 5 }) },
    ];
    for (const source of sources)
      expectRefusal(await rejection(all(source)), 'RangeError FILE', 'cannot be read');
  });

  test('arrays of rows that cannot be read are an error of the source', async () => {
    const trap = (key: PropertyKey) =>
      new Proxy([pair], {
        get(target, asked, receiver) {
          if (asked === key) throw new Error('no more');
          return Reflect.get(target, asked, receiver) as unknown;
        },
      });
    for (const batch of [trap('length'), trap('0')])
      expectRefusal(await rejection(all([batch])), 'RangeError FILE', 'rows: | no more');
    const boundless = new Proxy([pair], { get: () => Infinity });
    expectRefusal(await rejection(all([boundless])), 'RangeError FILE', 'its length is Infinity');
  });

  test('what is iterated is asked for its iterator and its path once', async () => {
    const asked: string[] = [];
    const source = new Proxy(Readable.from([pair]), {
      get(target, key) {
        asked.push(String(key));
        const value: unknown = Reflect.get(target, key);
        return typeof value === 'function' ? (value.bind(target) as unknown) : value;
      },
    });
    expect(await all(source)).toEqual([read]);
    expect(asked.filter((key) => key === 'Symbol(Symbol.asyncIterator)')).toHaveLength(1);
    expect(asked.filter((key) => key === 'path')).toHaveLength(1);
  });

  test.each<[string, unknown[], string]>([
    ['rows after text', [lines, pair], 'rows:3: expected pieces of bytes or text'],
    ['bytes after text', ['{"a', bytes('"')], 'not both by turns'],
    ['numbers', [5], 'rows:1: expected pieces of bytes or text'],
  ])('is an error where it comes: %s', async (_, source, words) => {
    const error = await rejection(all(source, { onError: 'skip' }));
    expectRefusal(error, error instanceof TypeError ? 'TypeError FILE' : 'RangeError FILE', words);
  });
});
