// diralign/logging: what is written, read back by parsers that know nothing of the writers.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { PassThrough, Writable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { dirAlignLoss } from '../../ts/index.js';
import { crc32c } from '../../ts/logging/events.js';
import { jsonLinesLogger, tensorBoardLogger, type Logger } from '../../ts/logging/index.js';
import { randomBatch } from '../support/batches.js';
import { at } from '../support/numbers.js';
import { expectRefusal, thrownBy } from '../support/refusal.js';

let folder: string;
beforeAll(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-logging-'));
});
afterAll(() => {
  fs.rmSync(folder, { recursive: true });
});
const linesOf = (file: string): unknown[] =>
  fs
    .readFileSync(file, 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((line): unknown => JSON.parse(line));

describe('JSON lines', () => {
  test('a line for each step, with the metrics of a loss', async () => {
    const file = path.join(folder, 'steps.jsonl');
    const logger = jsonLinesLogger(file);
    const { loss, metrics } = dirAlignLoss(
      'simpo',
      2,
    )(randomBatch({ seed: 1, sequences: 4, tokens: 3, vocab: 9 }));
    const since = Date.now() / 1000;
    logger.log(0, metrics);
    logger.log(7, { loss, ...metrics });
    await logger.close();
    const [first, second] = linesOf(file) as Record<string, number>[];
    expect(first).toEqual({ step: 0, time: expect.any(Number) as number, ...metrics });
    expect(second).toEqual({ step: 7, time: expect.any(Number) as number, loss, ...metrics });
    expect(first?.time).toBeGreaterThanOrEqual(since);
    expect(fs.readFileSync(file, 'utf8').endsWith('}\n')).toBe(true);
  });

  test('appends; a line that was cut off is ended, and takes nothing with it', async () => {
    const file = path.join(folder, 'cut.jsonl');
    fs.writeFileSync(file, '{"step":1,"loss":1}\n{"step":2,"lo');
    const logger = jsonLinesLogger(file);
    logger.log(3, { loss: 0.5 });
    await logger.flush();
    logger.log(4, { loss: 0.25 });
    await logger.close();
    const lines = fs.readFileSync(file, 'utf8').split('\n');
    expect(lines.slice(0, 2)).toEqual(['{"step":1,"loss":1}', '{"step":2,"lo']);
    expect(lines.slice(2, 4).map((line) => (JSON.parse(line) as { step: number }).step)).toEqual([
      3, 4,
    ]);
    expect(lines[4]).toBe('');
  });

  test('what is not finite is null, what is undefined is not there', async () => {
    const file = path.join(folder, 'special.jsonl');
    const logger = jsonLinesLogger(file);
    logger.log(1, { a: NaN, b: Infinity, c: undefined, d: -0.5 });
    await logger.close();
    expect(linesOf(file)).toEqual([
      { step: 1, time: expect.any(Number) as number, a: null, b: null, d: -0.5 },
    ]);
  });

  test('ten thousand steps in one turn arrive in order, without waiting for the loop', async () => {
    const file = path.join(folder, 'many.jsonl');
    const logger = jsonLinesLogger(file);
    for (let step = 0; step < 10_000; step++) logger.log(step, { loss: step });
    // Nothing was written while the loop was busy.
    expect(fs.existsSync(file)).toBe(false);
    await logger.close();
    expect(linesOf(file).map((line) => (line as { step: number }).step)).toEqual(
      Array.from({ length: 10_000 }, (_, i) => i),
    );
  });

  test('a slow stream is waited for, and stays open', async () => {
    const received: string[] = [];
    const slow = new Writable({
      highWaterMark: 1,
      write(chunk: Buffer, _, done) {
        received.push(chunk.toString());
        setTimeout(done, 2);
      },
    });
    const logger = jsonLinesLogger(slow);
    for (let step = 0; step < 5; step++) {
      logger.log(step, { loss: 1 });
      await logger.flush();
    }
    await logger.close();
    expect(received).toHaveLength(5);
    expect(slow.writableEnded).toBe(false);
    expect(slow.listenerCount('error')).toBe(0);
  });

  test('a stream that fails', async () => {
    const broken = new Writable({
      write(_chunk, _encoding, done) {
        done(new Error('no more room'));
      },
    });
    const logger = jsonLinesLogger(broken);
    logger.log(1, { loss: 1 });
    await expect(logger.flush()).rejects.toMatchObject({
      code: 'ERR_DIRALIGN_FILE',
      message: /no more room/,
    });
    expectRefusal(
      () => {
        logger.log(2, { loss: 1 });
      },
      'RangeError FILE',
      'the stream | no more room',
    );
    await expect(logger.close()).rejects.toMatchObject({ code: 'ERR_DIRALIGN_FILE' });
  });
});

// ----------------------------------------------------------------------------------------------
// TensorBoard

/** CRC-32C bit by bit, from its polynomial: independent of the table of the writer. */
function crcByBits(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    for (let bit = 0; bit < 8; bit++) {
      const carry = ((crc ^ (byte >>> bit)) & 1) === 1;
      crc >>>= 1;
      if (carry) crc ^= 0x82f63b78;
    }
  }
  return ~crc >>> 0;
}
const maskedCrc = (bytes: Uint8Array): number => {
  const crc = BigInt(crcByBits(bytes));
  return Number((((crc >> 15n) | (crc << 17n)) + 0xa282ead8n) & 0xffffffffn);
};

/** The records of a TFRecord file, whose checksums must fit. */
function recordsOf(file: Buffer): Buffer[] {
  const records: Buffer[] = [];
  for (let offset = 0; offset < file.length;) {
    const length = Number(file.readBigUInt64LE(offset));
    expect(file.readUInt32LE(offset + 8)).toBe(maskedCrc(file.subarray(offset, offset + 8)));
    const data = file.subarray(offset + 12, offset + 12 + length);
    expect(data).toHaveLength(length);
    expect(file.readUInt32LE(offset + 12 + length)).toBe(maskedCrc(data));
    records.push(data);
    offset += 16 + length;
  }
  return records;
}

/** The fields of a protobuf message, in order. */
function fieldsOf(message: Buffer): [field: number, value: Buffer | bigint][] {
  const fields: [number, Buffer | bigint][] = [];
  let offset = 0;
  const varint = (): bigint => {
    let [value, shift] = [0n, 0n];
    for (;;) {
      const byte = BigInt(message[offset++] ?? 0);
      value |= (byte & 0x7fn) << shift;
      if (byte < 0x80n) return value;
      shift += 7n;
    }
  };
  const take = (length: number): Buffer => message.subarray(offset, (offset += length));
  while (offset < message.length) {
    const tag = Number(varint());
    const kind = tag & 7;
    fields.push([
      tag >> 3,
      kind === 0 ? varint() : take(kind === 1 ? 8 : kind === 5 ? 4 : Number(varint())),
    ]);
  }
  return fields;
}

interface Event {
  readonly time: number;
  readonly step: bigint | undefined;
  readonly version: string | undefined;
  readonly scalars: Record<string, number>;
}
function eventOf(record: Buffer): Event {
  const fields = new Map(fieldsOf(record));
  const summary = fields.get(5) as Buffer | undefined;
  const values = summary
    ? fieldsOf(summary).map(([field, value]) => {
        expect(field).toBe(1);
        const own = new Map(fieldsOf(value as Buffer));
        return [(own.get(1) as Buffer).toString(), (own.get(2) as Buffer).readFloatLE()] as const;
      })
    : [];
  return {
    time: (fields.get(1) as Buffer).readDoubleLE(),
    step: fields.get(2) as bigint | undefined,
    version: (fields.get(3) as Buffer | undefined)?.toString(),
    scalars: Object.fromEntries(values),
  };
}

test('CRC-32C has the values of RFC 3720', () => {
  const ascending = Uint8Array.from({ length: 32 }, (_, i) => i);
  const cases: [Uint8Array, number][] = [
    [new Uint8Array(32), 0x8a9136aa],
    [new Uint8Array(32).fill(0xff), 0x62a8ab43],
    [ascending, 0x46dd794e],
    [ascending.slice().reverse(), 0x113fdb5c],
    [Buffer.from('123456789'), 0xe3069283],
    [new Uint8Array(0), 0],
  ];
  for (const [bytes, crc] of cases) {
    expect(crc32c(bytes)).toBe(crc);
    expect(crcByBits(bytes)).toBe(crc);
  }
});

describe('event files of TensorBoard', () => {
  const eventsIn = (directory: string): Event[][] =>
    fs
      .readdirSync(directory)
      .sort()
      .map((name) => recordsOf(fs.readFileSync(path.join(directory, name))).map(eventOf));

  test('the version, then an event for each step with its scalars', async () => {
    const directory = path.join(folder, 'runs/first');
    const logger = tensorBoardLogger(directory);
    const { loss, metrics } = dirAlignLoss(
      'simpo',
      2,
    )(randomBatch({ seed: 2, sequences: 4, tokens: 3, vocab: 9 }));
    logger.log(0, { loss, ...metrics });
    await logger.flush();
    // Beyond 32 bits, names beyond ASCII, numbers beyond JSON.
    logger.log(2 ** 40 + 1, { größe: NaN, tiny: 1e-40, large: -Infinity });
    await logger.close();
    const names = fs.readdirSync(directory);
    expect(names).toHaveLength(1);
    expect(names[0]).toMatch(/^events\.out\.tfevents\.\d{10}\./);
    const [events = []] = eventsIn(directory);
    expect(events.map(({ version }) => version)).toEqual(['brain.Event:2', undefined, undefined]);
    expect(events.map(({ step }) => step)).toEqual([undefined, 0n, BigInt(2 ** 40 + 1)]);
    const logged: Record<string, number | undefined> = { loss, ...metrics };
    const rounded = Object.fromEntries(
      Object.entries(logged).map(([name, x]) => [name, Math.fround(x ?? NaN)]),
    );
    expect(events[1]?.scalars).toEqual(rounded);
    expect(events[2]?.scalars).toEqual({ größe: NaN, tiny: Math.fround(1e-40), large: -Infinity });
    for (const { time } of events) expect(Math.abs(time - Date.now() / 1000)).toBeLessThan(600);
  });

  test('a run that goes on writes beside what is there', async () => {
    const directory = path.join(folder, 'runs/second');
    for (const step of [1, 2]) {
      const logger = tensorBoardLogger(directory);
      logger.log(step, { loss: step });
      await logger.close();
    }
    const files = eventsIn(directory);
    expect(files).toHaveLength(2);
    const losses = files.map((events) => at(Object.values(events[1]?.scalars ?? {}), 0));
    expect(losses.sort((a, b) => a - b)).toEqual([1, 2]);
  });

  test('a logger without steps makes nothing', async () => {
    const directory = path.join(folder, 'runs/none');
    await tensorBoardLogger(directory).close();
    expect(fs.existsSync(directory)).toBe(false);
  });
});

describe.each<[string, (name: string) => Logger]>([
  ['JSON lines', (name) => jsonLinesLogger(path.join(folder, name, 'x.jsonl'))],
  ['TensorBoard', (name) => tensorBoardLogger(path.join(folder, name, 'runs'))],
])('%s: what is refused', (kind, make) => {
  const log = (logger: Logger, ...args: unknown[]) =>
    thrownBy(() => {
      (logger.log as (...args: unknown[]) => void)(...args);
    });

  test('steps and values of other kinds', async () => {
    const folderOf = `kinds ${kind}`;
    fs.mkdirSync(path.join(folder, folderOf));
    const logger = make(folderOf);
    for (const step of [-1, 1.5, NaN, Infinity, 2 ** 53])
      expectRefusal(log(logger, step, {}), 'RangeError OPTION', 'step: ');
    for (const step of ['1', undefined, null, 1n])
      expectRefusal(log(logger, step, {}), 'TypeError OPTION', 'step: ');
    for (const values of [undefined, null, 3, [1], new Float32Array(1)]) {
      expectRefusal(log(logger, 1, values), 'TypeError OPTION', 'values: expected an object');
    }
    expectRefusal(
      log(logger, 1, { loss: '0.5' }),
      'TypeError OPTION',
      "values['loss']: expected a number, not '0.5'",
    );
    if (kind === 'JSON lines')
      expectRefusal(log(logger, 1, { step: 5 }), 'TypeError OPTION', "values['step']");
    // And what was refused leaves no trace.
    logger.log(1, { loss: 1 });
    await logger.close();
  });

  test('flush, the next log and close tell of a failed write, with its cause', async () => {
    fs.writeFileSync(path.join(folder, `file ${kind}`), '');
    const logger = make(`file ${kind}`);
    logger.log(1, { loss: 1 });
    const error: unknown = await logger.flush().catch((reason: unknown) => reason);
    expectRefusal(error, 'RangeError FILE', `${folder} | cannot be written | ENOTDIR`);
    expect((error as Error).cause).toMatchObject({ code: 'ENOTDIR' });
    expect(log(logger, 2, { loss: 1 })).toBe(error);
    await expect(logger.close()).rejects.toBe(error);
  });

  test('a closed logger takes nothing more; closing twice is closing once', async () => {
    const folderOf = `closed ${kind}`;
    fs.mkdirSync(path.join(folder, folderOf));
    const logger = make(folderOf);
    logger.log(1, { loss: 1 });
    await Promise.all([logger.close(), logger.close()]);
    expectRefusal(log(logger, 2, { loss: 1 }), 'TypeError OPTION', 'closed');
    await logger.flush();
  });
});

test('targets of other kinds', async () => {
  for (const target of [undefined, null, 5, {}, []]) {
    expectRefusal(() => jsonLinesLogger(target as never), 'TypeError OPTION', 'target: expected');
    expectRefusal(
      () => tensorBoardLogger(target as never),
      'TypeError OPTION',
      'directory: expected',
    );
  }
  const stream = new PassThrough();
  {
    await using logger = jsonLinesLogger(stream);
    logger.log(3, { loss: 1 });
  }
  expect(JSON.parse(String(stream.read()))).toMatchObject({ step: 3, loss: 1 });
});
