import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { DirAlignError } from '../../ts/errors.js';
import {
  readBatch,
  readSafetensors,
  readSafetensorsFile,
  type WritableTensor,
  writeSafetensors,
} from '../../ts/safetensors.js';
import { expectRefusal } from '../support/refusal.js';

let folder: string;
let file: string;

beforeAll(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-safetensors-'));
  file = path.join(folder, 'file.safetensors');
});

afterAll(() => {
  fs.rmSync(folder, { recursive: true });
});

/** A file with this header, as text or as the object of it, and so many bytes after it. */
function encode(header: unknown, dataBytes = 0, headerBytes?: bigint): Buffer {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(headerBytes ?? BigInt(json.length));
  return Buffer.concat([length, json, Buffer.alloc(dataBytes)]);
}

function refusal(bytes: Uint8Array, read: (path: string) => unknown = readSafetensors): string {
  fs.writeFileSync(file, bytes);
  try {
    read(file);
  } catch (error) {
    if (!(error instanceof DirAlignError)) throw error;
    expect(error).toMatchObject({
      code: 'ERR_DIRALIGN_FILE',
      message: expect.stringContaining(file) as string,
    });
    return error.message.slice(file.length + 2);
  }
  return 'accepted';
}

/** Whatever the bytes are: a result, or a DirAlignError that names the file. */
function survives(bytes: Uint8Array): void {
  refusal(bytes);
  refusal(bytes, readBatch);
}

const tensor = (dtype: string, shape: unknown, data_offsets: unknown): object => ({
  dtype,
  shape,
  data_offsets,
});

const batch: Record<string, WritableTensor> = {
  logits: {
    dtype: 'BF16',
    shape: [2, 3, 4],
    data: Uint16Array.from({ length: 24 }, (_, i) => 0x3f00 + i),
  },
  labels: { dtype: 'I64', shape: [2, 3], data: BigInt64Array.of(-100n, 1n, 2n, -100n, 3n, -100n) },
  reference: { dtype: 'F64', shape: [2], data: Float64Array.of(-1.5, -2.5) },
};

describe('round trips', () => {
  const element: Record<string, fc.Arbitrary<ArrayLike<number> | ArrayLike<bigint>>> = {
    F64: fc.float64Array({ maxLength: 9 }),
    F32: fc.float32Array({ maxLength: 9 }),
    F16: fc.uint16Array({ maxLength: 9 }),
    BF16: fc.uint16Array({ maxLength: 9 }),
    I32: fc.int32Array({ maxLength: 9 }),
    I64: fc.bigInt64Array({ maxLength: 9 }),
  };
  const anyTensor = fc
    .constantFrom(...Object.keys(element))
    .chain((dtype) => fc.tuple(fc.constant(dtype), element[dtype] ?? fc.constant([])))
    .map(([dtype, data]) => ({ dtype, shape: [data.length], data }) as unknown as WritableTensor);
  const name = fc.string({ unit: 'grapheme' }).filter((text) => text !== '__metadata__');

  test('names, shapes, bits and metadata come back', () => {
    const tensors = fc.uniqueArray(fc.tuple(name, anyTensor), {
      selector: ([key]) => key,
      maxLength: 6,
    });
    const metadata = fc.dictionary(name, fc.string({ unit: 'grapheme' }));
    fc.assert(
      fc.property(tensors, metadata, (written, notes) => {
        writeSafetensors(file, new Map(written), notes);
        const read = readSafetensors(file);
        expect(new Map(read)).toEqual(new Map(written));
        expect(read.metadata).toEqual(new Map(Object.entries(notes)));
        expect(fs.statSync(file).size % 2).toBe(0);
      }),
    );
  });

  test('any dimensions, none and empty ones included', () => {
    const shapes = [[], [0], [3, 0, 2], [1, 2, 3]];
    const tensors = shapes.map((shape, i): [string, WritableTensor] => {
      const length = shape.reduce((product, size) => product * size, 1);
      return [`t${i}`, { dtype: 'F32', shape, data: Float32Array.from({ length }, Math.sqrt) }];
    });
    writeSafetensors(file, new Map(tensors));
    expect(new Map(readSafetensors(file))).toEqual(new Map(tensors));
  });

  test('the same tensors make the same bytes, each aligned to its elements', () => {
    writeSafetensors(file, batch, { note: 'x' });
    const once = fs.readFileSync(file);
    writeSafetensors(file, batch, { note: 'x' });
    expect(fs.readFileSync(file).equals(once)).toBe(true);
    const headerBytes = Number(once.readBigUInt64LE());
    expect(headerBytes % 8).toBe(0);
    const entries = JSON.parse(once.toString('utf8', 8, 8 + headerBytes)) as Record<
      string,
      unknown
    >;
    delete entries.__metadata__;
    for (const { dtype, data_offsets } of Object.values(entries) as {
      dtype: string;
      data_offsets: [number, number];
    }[]) {
      expect(data_offsets[0] % (dtype === 'BF16' ? 2 : 8)).toBe(0);
    }
  });

  test('tensors at odd offsets are read', () => {
    const header = { flag: tensor('BOOL', [1], [0, 1]), x: tensor('F64', [2], [1, 17]) };
    const bytes = encode(header, 17);
    bytes.writeDoubleLE(Math.PI, bytes.length - 8);
    fs.writeFileSync(file, bytes);
    const read = readSafetensors(file);
    expect(read.get('x')?.data).toEqual(Float64Array.of(0, Math.PI));
    expect(read.get('flag')).toEqual({ dtype: 'BOOL', shape: [1], data: Uint8Array.of(0) });
  });

  // Bits of an element, by the format's own list of types.
  const bits: Readonly<Record<string, number>> = {
    ...{
      BOOL: 8,
      U8: 8,
      I8: 8,
      I16: 16,
      U16: 16,
      I32: 32,
      U32: 32,
      I64: 64,
      U64: 64,
      F16: 16,
      BF16: 16,
      F32: 32,
      F64: 64,
      C64: 64,
    },
    ...{
      F8_E5M2: 8,
      F8_E4M3: 8,
      F8_E8M0: 8,
      F8_E4M3FNUZ: 8,
      F8_E5M2FNUZ: 8,
      F4: 4,
      F6_E2M3: 6,
      F6_E3M2: 6,
    },
  };
  test.each(Object.entries(bits))('%s: eight elements take eight times %i bits', (dtype, size) => {
    fs.writeFileSync(file, encode({ x: tensor(dtype, [2, 4], [0, size]) }, size));
    expect(readSafetensors(file).get('x')).toMatchObject({ dtype, shape: [2, 4] });
    expect(refusal(encode({ x: tensor(dtype, [2, 4], [0, size + 1]) }, size + 1))).toMatch(
      /does not fill/,
    );
  });

  test('a type of a later version of the format harms only who asks for its tensor', () => {
    const own = { dtype: 'F2_E1M0', shape: [5], data_offsets: [8, 10] };
    fs.writeFileSync(
      file,
      encode({ x: tensor('F32', [2], [0, 8]), scales: own, y: tensor('I32', [1], [10, 14]) }, 14),
    );
    const read = readSafetensors(file);
    expect(read.get('x')?.data).toEqual(new Float32Array(2));
    expect(read.get('scales')).toEqual({ dtype: 'F2_E1M0', shape: [5] });
    expect(read.get('y')?.data).toEqual(new Int32Array(1));
  });

  test('metadata that is null, and further fields of an entry', () => {
    const x = { ...tensor('F32', [1], [0, 4]), strides: [1], note: null };
    fs.writeFileSync(file, encode({ __metadata__: null, x }, 4));
    const read = readSafetensors(file);
    expect(read.metadata.size).toBe(0);
    expect([...read]).toEqual([['x', { dtype: 'F32', shape: [1], data: new Float32Array(1) }]]);
  });

  test('bytes and flags come back as they were', () => {
    const tensors: Record<string, WritableTensor> = {
      bytes: { dtype: 'U8', shape: [3], data: Uint8Array.of(0, 7, 255) },
      flags: { dtype: 'BOOL', shape: [2, 1], data: Uint8Array.of(1, 0) },
    };
    writeSafetensors(file, tensors);
    expect(Object.fromEntries(readSafetensors(file))).toEqual(tensors);
    const header = encode({ x: tensor('BOOL', [2], [0, 2]) });
    expect(refusal(Buffer.concat([header, Buffer.of(1, 2)]))).toMatch(
      /tensor "x": element 1 is 2; a BOOL is 0 or 1/,
    );
  });

  test('only what is asked for is read; the rest is listed', () => {
    writeSafetensors(file, {
      x: { dtype: 'F32', shape: [1], data: Float32Array.of(1) },
      y: batch.labels as WritableTensor,
    });
    expect(Object.fromEntries(readSafetensors(file, ['x', 'z']))).toEqual({
      x: { dtype: 'F32', shape: [1], data: Float32Array.of(1) },
      y: { dtype: 'I64', shape: [2, 3] },
    });
  });
});

describe('defects', () => {
  const one = { x: tensor('F32', [2], [0, 8]) };
  test.each<[string, Uint8Array, RegExp]>([
    ['an empty file', Buffer.alloc(0), /has 0 bytes/],
    ['seven bytes', Buffer.alloc(7), /has 7 bytes/],
    ['a header beyond 100 MB', encode('{}', 0, 100_000_001n), /header of 100000001 bytes/],
    [
      'a header length of all ones',
      encode('{}', 0, 2n ** 64n - 1n),
      /header of 18446744073709551615 bytes/,
    ],
    ['a header longer than the file', encode('{}', 0, 3n), /truncated/],
    ['an empty header', encode(''), /begin with \{/],
    ['a byte order mark', encode('\ufeff{}'), /begin with \{/],
    ['an array', encode('[]'), /begin with \{/],
    ['broken JSON', encode('{"x":'), /not JSON/],
    ['broken UTF-8', Buffer.concat([encode('', 0, 2n), Buffer.of(0x7b, 0xff)]), /not UTF-8/],
    [
      'a tensor twice',
      encode('{"x":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"\\u0078":0}', 4),
      /key "x" twice/,
    ],
    [
      'a field twice',
      encode('{"x":{"dtype":"F32","shape":[],"shape":[1],"data_offsets":[0,4]}}', 4),
      /key "shape" twice/,
    ],
    ['an entry that is no object', encode({ x: null }), /"x": its header entry/],
    [
      'a further field twice',
      encode('{"x":{"dtype":"F32","shape":[],"data_offsets":[0,4],"note":1,"note":2}}', 4),
      /"note" twice/,
    ],
    [
      'a dtype that is no string',
      encode('{"x":{"dtype":{"toString":0},"shape":[],"data_offsets":[0,4]}}', 4),
      /dtype is not/,
    ],
    ['no dtype', encode({ x: { shape: [2], data_offsets: [0, 8] } }, 8), /dtype is not/],
    ['a shape of an unknown dtype', encode({ x: tensor('F33', ['2'], [0, 8]) }, 8), /shape is not/],
    [
      'a product of an unknown dtype',
      encode({ x: tensor('F33', [2 ** 40, 2 ** 40], [0, 8]) }, 8),
      /does not fill/,
    ],
    [
      'an unknown dtype that overlaps',
      encode({ ...one, y: tensor('F33', [1], [4, 8]) }, 8),
      /overlaps/,
    ],
    [
      'a product beyond 64 bits, times 0',
      encode({ x: tensor('F32', [2 ** 40, 2 ** 40, 0], [0, 0]) }),
      /does not fill/,
    ],
    ['a fractional dimension', encode({ x: tensor('F32', [0.5], [0, 2]) }, 2), /shape is not/],
    ['a negative dimension', encode({ x: tensor('F32', [-1, -2], [0, 8]) }, 8), /shape is not/],
    [
      'a negative zero',
      encode('{"x":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}'),
      /shape is not/,
    ],
    [
      'a dimension beyond 2^53',
      encode('{"x":{"dtype":"F32","shape":[1e300],"data_offsets":[0,8]}}', 8),
      /shape is not/,
    ],
    [
      'dimensions whose product is',
      encode({ x: tensor('F32', [2 ** 31, 2 ** 31, 2], [0, 8]) }, 8),
      /does not fill/,
    ],
    ['a shape that is a number', encode({ x: tensor('F32', 2, [0, 8]) }, 8), /shape is not/],
    ['three offsets', encode({ x: tensor('F32', [2], [0, 4, 8]) }, 8), /data_offsets is not/],
    ['offsets backwards', encode({ x: tensor('F32', [2], [8, 0]) }, 8), /before their begin/],
    [
      'too few bytes for the shape',
      encode({ x: tensor('F32', [3], [0, 8]) }, 8),
      /does not fill its 8 bytes/,
    ],
    ['half a byte', encode({ x: tensor('F4', [1], [0, 1]) }, 1), /does not fill/],
    ['an overlap', encode({ ...one, y: tensor('F32', [1], [4, 8]) }, 8), /overlaps/],
    ['a gap', encode({ ...one, y: tensor('F32', [1], [12, 16]) }, 16), /gap/],
    ['missing bytes', encode(one, 7), /truncated/],
    ['bytes at the end', encode(one, 9), /belong to no tensor/],
    [
      'metadata of numbers',
      encode({ __metadata__: { epoch: 1 } }),
      /__metadata__ "epoch" is not a string/,
    ],
    ['metadata that is an array', encode({ __metadata__: [] }), /__metadata__ is not an object/],
    ['a bottomless header', encode(`{"x":${'['.repeat(200_000)}`), /not JSON/],
  ])('%s', (_, bytes, message) => {
    expect(refusal(bytes)).toMatch(message);
  });

  test('a missing file, a folder, an impossible path', () => {
    const empty = fs.mkdtempSync(path.join(folder, 'empty-'));
    for (const bad of [path.join(folder, 'none'), empty, '\0']) {
      expect(() => readSafetensors(bad)).toThrow(
        expect.objectContaining({ code: 'ERR_DIRALIGN_FILE' }) as Error,
      );
    }
    expect(() => readSafetensorsFile(folder)).toThrow(/not a regular file/);
    expect(() => {
      writeSafetensors(path.join(folder, 'none', 'x'), {});
    }).toThrow(expect.objectContaining({ code: 'ERR_DIRALIGN_FILE' }) as Error);
  });

  test.each<[string, WritableTensor]>([
    ['another type of array', { dtype: 'F32', shape: [1], data: Float64Array.of(1) }],
    ['another length', { dtype: 'F32', shape: [2], data: Float32Array.of(1) }],
    ['a fractional dimension', { dtype: 'F32', shape: [0.5, 2], data: Float32Array.of(1) }],
    [
      'a type that cannot be written',
      { dtype: 'I8' as 'I32', shape: [1], data: Int8Array.of(1) as unknown as Int32Array },
    ],
    ['a flag of 2', { dtype: 'BOOL', shape: [2], data: Uint8Array.of(1, 2) }],
  ])('%s is not written', (_, written) => {
    expect(() => {
      writeSafetensors(file, { x: written });
    }).toThrow(/tensor "x"/);
  });
});

describe('what callers give is no text, tensor or list', () => {
  const lists = {
    get length(): number {
      throw new Error('went through it');
    },
    toString: (): string => {
      throw new Error('asked for its text');
    },
  };
  test('paths', () => {
    const paths = [undefined, null, 0, -1, 1n, Symbol('s'), {}, lists, ['x'], Buffer.from('x')];
    for (const bad of paths) {
      const calls = [
        () => readSafetensors(bad as never),
        () => readSafetensorsFile(bad as never),
        () => readBatch(bad as never),
        () => {
          writeSafetensors(bad as never, {});
        },
      ];
      for (const call of calls)
        expectRefusal(call, 'TypeError FILE', [/^path: expected a string, not /]);
    }
  });
  test.each([0, true, 'logits', {}, () => 1, null])('names: %s', (bad) => {
    expectRefusal(() => readSafetensors('x', bad as never), 'TypeError OPTION', [
      /^only: expected an iterable/,
    ]);
  });
  test.each([undefined, null, 'x', [], 1n, new Uint8Array(2)])('tensors: %s', (bad) => {
    expectRefusal(
      () => {
        writeSafetensors('x', bad as never);
      },
      'TypeError FILE',
      [/^tensors: expected an object/],
    );
    expectRefusal(
      () => {
        writeSafetensors('x', { y: bad } as never);
      },
      'TypeError FILE',
      [/^tensor "y": expected/],
    );
  });
  test.each([null, 'x', [], 1n])('metadata: %s', (bad) => {
    expectRefusal(
      () => {
        writeSafetensors('x', {}, bad as never);
      },
      'TypeError FILE',
      [/^metadata: expected/],
    );
  });
  test('a tensor is what the engine says, read once', () => {
    const data = new Float32Array([1, 2]);
    Object.defineProperty(data, 'byteLength', { value: 99 });
    Object.defineProperty(data, 'length', { value: 4 });
    let reads = 0;
    const tensor = {
      dtype: 'F32',
      get shape() {
        return reads++ === 0 ? [2] : [2 ** 30];
      },
      data,
    } as const;
    writeSafetensors(file, { tensor });
    expect(readSafetensors(file).get('tensor')).toMatchObject({
      shape: [2],
      data: new Float32Array([1, 2]),
    });
    const spoofed = {
      dtype: 'F32',
      shape: [2],
      data: { [Symbol.toStringTag]: 'Float32Array', length: 2 },
    };
    expectRefusal(
      () => {
        writeSafetensors(file, { spoofed } as never);
      },
      'RangeError FILE',
      [/data is a/],
    );
  });
});

describe('batches', () => {
  test('padded', () => {
    writeSafetensors(file, batch);
    expect(readBatch(file)).toEqual({
      logits: batch.logits?.data,
      dtype: 'bfloat16',
      shape: [2, 3, 4],
      labels: Int32Array.of(-100, 1, 2, -100, 3, -100),
      reference: Float64Array.of(-1.5, -2.5),
    });
  });

  test('packed, with separate likelihood labels', () => {
    const labels = Int32Array.of(-100, 0, 1);
    writeSafetensors(file, {
      logits: { dtype: 'F32', shape: [3, 2], data: Float32Array.of(1, 2, 3, 4, 5, 6) },
      offsets: { dtype: 'I64', shape: [3], data: BigInt64Array.of(0n, 2n, 3n) },
      labels: { dtype: 'I32', shape: [3], data: labels },
      sft_labels: { dtype: 'I32', shape: [3], data: Int32Array.of(0, 0, -100) },
    });
    expect(readBatch(file)).toEqual({
      logits: Float32Array.of(1, 2, 3, 4, 5, 6),
      dtype: 'float32',
      shape: [3, 2],
      offsets: Int32Array.of(0, 2, 3),
      labels,
      sftLabels: Int32Array.of(0, 0, -100),
    });
  });

  test('beside tensors of any type', () => {
    writeSafetensors(file, batch);
    const bytes = fs.readFileSync(file);
    const headerBytes = Number(bytes.readBigUInt64LE());
    const header = JSON.parse(bytes.toString('utf8', 8, 8 + headerBytes)) as Record<string, object>;
    const data = bytes.subarray(8 + headerBytes);
    for (const dtype of ['F8_E4M3FNUZ', 'F8_E5M2FNUZ', 'F4_E2M1', '__proto__']) {
      const others = { scales: tensor(dtype, [4], [data.length, data.length + 4]) };
      fs.writeFileSync(
        file,
        Buffer.concat([encode({ ...header, ...others }), data, Buffer.alloc(4)]),
      );
      expect(readBatch(file)).toMatchObject({
        dtype: 'bfloat16',
        shape: [2, 3, 4],
        logits: batch.logits?.data,
      });
      const logits = tensor(dtype, [2, 3, 4], [0, 48]);
      expect(refusal(encode({ logits }, 48), readBatch)).toMatch(
        dtype.startsWith('F8') ? /does not fill/ : /"logits": dtype .*; expected F32, F16 or BF16/,
      );
    }
  });

  test('shapes of 2^31 sequences without a byte allocate nothing', () => {
    const shape = [2 ** 31, 0, 5];
    const header = {
      logits: tensor('F32', shape, [0, 0]),
      labels: tensor('I32', shape.slice(0, 2), [0, 0]),
    };
    fs.writeFileSync(file, encode(header));
    const { logits, labels, ...rest } = readBatch(file);
    expect([logits.byteLength, labels.byteLength, rest]).toEqual([
      0,
      0,
      { dtype: 'float32', shape },
    ]);
  });

  const int32 = (shape: number[], ...values: number[]): WritableTensor => ({
    dtype: 'I32',
    shape,
    data: Int32Array.from(values),
  });
  const packed = {
    logits: { dtype: 'F32', shape: [3, 2], data: new Float32Array(6) },
    labels: int32([3], 0, 0, 0),
  } as const;
  test.each<[string, Record<string, WritableTensor>, RegExp]>([
    ['no logits', { labels: int32([0]) }, /"logits" is missing; there are: "labels"/],
    ['logits of integers', { ...batch, logits: int32([1, 1, 1], 0) }, /dtype I32; expected F32/],
    [
      'logits of one dimension',
      { ...batch, logits: { dtype: 'F32', shape: [1], data: new Float32Array(1) } },
      /shape \[1\]/,
    ],
    [
      'labels of another shape',
      { ...batch, labels: int32([3, 2], 0, 0, 0, 0, 0, 0) },
      /shape \[3, 2\]; expected \[2, 3\]/,
    ],
    [
      'labels of floats',
      { ...batch, labels: { dtype: 'F32', shape: [2, 3], data: new Float32Array(6) } },
      /expected I32 or I64/,
    ],
    [
      'labels beyond 32 bits',
      {
        ...batch,
        labels: { dtype: 'I64', shape: [2, 3], data: new BigInt64Array(6).fill(2n ** 31n) },
      },
      /element 0 is 2147483648/,
    ],
    [
      'a reference of three',
      { ...batch, reference: { dtype: 'F64', shape: [3], data: new Float64Array(3) } },
      /expected \[2\]/,
    ],
    ['a reference of integers', { ...batch, reference: int32([2], 0, 0) }, /expected F32 or F64/],
    [
      'offsets beside three dimensions',
      { ...batch, offsets: int32([2], 0, 2) },
      /belongs to logits of shape/,
    ],
    ['packed logits without offsets', packed, /"offsets" is missing/],
    ['offsets that fall', { ...packed, offsets: int32([4], 0, 2, 1, 3) }, /rise from 0 to 3/],
    ['offsets that end early', { ...packed, offsets: int32([2], 0, 2) }, /rise from 0 to 3/],
    ['no offsets at all', { ...packed, offsets: int32([0]) }, /rise from 0 to 3/],
  ])('%s', (_, tensors, message) => {
    writeSafetensors(file, tensors);
    expect(refusal(fs.readFileSync(file), readBatch)).toMatch(message);
  });
});

describe('shards', () => {
  const int32 = (...values: number[]): WritableTensor => ({
    dtype: 'I32',
    shape: [values.length],
    data: Int32Array.from(values),
  });
  /** A folder with these files: tensors, or an index. */
  function model(files: Readonly<Record<string, Record<string, WritableTensor> | string>>): string {
    const directory = fs.mkdtempSync(path.join(folder, 'model-'));
    for (const [name, content] of Object.entries(files)) {
      const place = path.join(directory, name);
      fs.mkdirSync(path.dirname(place), { recursive: true });
      if (typeof content === 'string') fs.writeFileSync(place, content);
      else writeSafetensors(place, content, { [name]: 'seen' });
    }
    return directory;
  }
  const indexName = 'model.safetensors.index.json';
  const index = (weight_map: unknown, more: object = {}): string =>
    JSON.stringify({ metadata: { total_size: 8 }, weight_map, ...more });
  const map = { b: 'model-00002-of-00002.safetensors', a: 'model-00001-of-00002.safetensors' };
  const shards = {
    'model-00001-of-00002.safetensors': { a: int32(1) },
    'model-00002-of-00002.safetensors': { b: int32(2) },
  };
  const values = (place: string): Record<string, unknown> =>
    Object.fromEntries(
      [...readSafetensors(place)].map(([name, { data }]) => [name, [...(data as Int32Array)]]),
    );

  test('of an index, by its name or that of its folder', () => {
    const directory = model({
      ...shards,
      [indexName]: index(map),
      'reference.safetensors': { a: int32(7) },
    });
    for (const place of [directory, path.join(directory, indexName)]) {
      expect(values(place)).toEqual({ a: [1], b: [2] });
      const [first, second] = Object.keys(shards);
      expect(Object.fromEntries(readSafetensors(place).metadata)).toEqual({
        [first as string]: 'seen',
        [second as string]: 'seen',
      });
    }
  });

  test('tensors that the index does not name are not of it', () => {
    const directory = model({
      'x.safetensors': { a: int32(1), c: int32(3) },
      [indexName]: ` ${index({ a: 'x.safetensors' })}`,
    });
    expect(values(directory)).toEqual({ a: [1] });
  });

  test.each<
    [string, Record<string, Record<string, WritableTensor> | string>, Record<string, unknown>]
  >([
    [
      'model.safetensors',
      { 'model.safetensors': { a: int32(1) }, 'reference.safetensors': { a: int32(2) } },
      { a: [1] },
    ],
    [
      'an index of another name',
      {
        'unet.safetensors.index.fp16.json': index({ a: 'x.safetensors' }),
        'x.safetensors': { a: int32(1) },
      },
      { a: [1] },
    ],
    [
      'the index of a subfolder',
      { [indexName]: index({ a: 'parts/x.safetensors' }), 'parts/x.safetensors': { a: int32(1) } },
      { a: [1] },
    ],
    [
      'shards without an index',
      { ...shards, 'reference.safetensors': { a: int32(7) } },
      { a: [1], b: [2] },
    ],
    [
      'the only file',
      {
        'adapter_model.safetensors': { a: int32(1) },
        'README.md': '',
        '._adapter_model.safetensors': '',
      },
      { a: [1] },
    ],
    [
      'an index of other files beside it',
      { 'a.safetensors': { a: int32(1) }, 'pytorch_model.bin.index.json': '{}' },
      { a: [1] },
    ],
  ])('of a folder: %s', (_, files, expected) => {
    expect(values(model(files))).toEqual(expected);
  });

  const first = { 'x.safetensors': { a: int32(1) } };
  test.each<[string, Record<string, Record<string, WritableTensor> | string>, RegExp]>([
    ['nothing', { 'README.md': '' }, /holds no \*\.safetensors/],
    [
      'two files',
      { ...first, 'y.safetensors': { a: int32(1) } },
      /"x\.safetensors", "y\.safetensors"; expected one/,
    ],
    [
      'a tensor twice',
      { ...shards, 'model-00002-of-00002.safetensors': { a: int32(1) } },
      /"a": another shard has it/,
    ],
    [
      'shards of several sets',
      { ...shards, 'model-00003-of-00003.safetensors': { c: int32(1) } },
      /shards of several sets/,
    ],
    [
      'a set of which one is missing',
      { 'model-00001-of-00003.safetensors': { a: int32(1) } },
      /"model-00001-of-00003\.safetensors" but not "model-00002-of-00003\.safetensors"/,
    ],
    ['an index that is no JSON', { ...first, [indexName]: '{' }, /not JSON/],
    ['an index that is a list', { ...first, [indexName]: '[]' }, /not an object/],
    ['no map', { ...first, [indexName]: '{"metadata":{}}' }, /weight_map is not an object/],
    [
      'a map of numbers',
      { ...first, [indexName]: index({ a: 1 }) },
      /weight_map "a" is not a string/,
    ],
    [
      'a tensor twice in the map',
      { ...first, [indexName]: '{"weight_map":{"a":"x.safetensors","a":"y.safetensors"}}' },
      /"a" twice/,
    ],
    [
      'a shard that is not there',
      { ...first, [indexName]: index({ a: 'y.safetensors' }) },
      /y\.safetensors.*ENOENT/,
    ],
    [
      'a tensor that is not there',
      { ...first, [indexName]: index({ a: 'x.safetensors', b: 'x.safetensors' }) },
      /"b" is missing/,
    ],
    [
      'a file of another folder',
      { ...first, [indexName]: index({ a: '../x.safetensors' }) },
      /does not lie in its folder/,
    ],
    [
      'a file of the machine',
      { ...first, [indexName]: index({ a: path.join(os.tmpdir(), 'x') }) },
      /does not lie in its folder/,
    ],
    [
      'the folder itself',
      { ...first, [indexName]: index({ a: '.' }) },
      /does not lie in its folder/,
    ],
  ])('refused: %s', (_, files, message) => {
    const directory = model(files);
    expect(() => readSafetensors(directory)).toThrow(
      expect.objectContaining({
        code: 'ERR_DIRALIGN_FILE',
        message: expect.stringMatching(message) as string,
      }) as Error,
    );
    expect(() => readSafetensors(directory)).toThrow(directory);
  });

  test('a batch of three shards', () => {
    const names = Object.keys(batch);
    const files = Object.fromEntries(
      names.map((name) => [`${name}.safetensors`, { [name]: batch[name] as WritableTensor }]),
    );
    const directory = model({
      ...files,
      [indexName]: index(Object.fromEntries(names.map((name) => [name, `${name}.safetensors`]))),
    });
    writeSafetensors(file, batch);
    expect(readBatch(directory)).toEqual(readBatch(file));
    expect(readBatch(path.join(directory, indexName))).toEqual(readBatch(file));
  });
});

describe('fuzzing: a result or a DirAlignError, nothing else', () => {
  const valid = (): Buffer => {
    writeSafetensors(file, batch, { note: 'some text' });
    return fs.readFileSync(file);
  };

  test('every truncation', () => {
    const bytes = valid();
    for (let length = 0; length < bytes.length; length++)
      expect(refusal(bytes.subarray(0, length))).not.toBe('accepted');
  });

  test('every flipped bit of the header', () => {
    const bytes = valid();
    const end = 8 + Number(bytes.readBigUInt64LE());
    for (let bit = 0; bit < 8 * end; bit++) {
      const flipped = Buffer.from(bytes);
      flipped.writeUInt8(flipped.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
      survives(flipped);
    }
  });

  test('bytes', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), survives));
  });

  test('any JSON header', () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 5 }), fc.nat(32), (json, dataBytes) => {
        survives(encode(json, dataBytes));
        survives(encode(`{"logits":${json}}`, dataBytes));
        survives(encode(`{"__metadata__":${json}}`, dataBytes));
      }),
      { numRuns: 300 },
    );
  });

  test('headers that are nearly right', () => {
    const odd = fc.oneof(
      fc.integer({ min: -2, max: 70 }),
      fc.double(),
      fc.constantFrom(2 ** 31, 2 ** 53, null, '1', [], {}),
    );
    const entry = fc.record(
      {
        dtype: fc.oneof(
          fc.constantFrom('F64', 'F32', 'BF16', 'I32', 'I64', 'U8', 'BOOL', 'F4'),
          fc.jsonValue(),
        ),
        shape: fc.oneof(fc.array(fc.nat(6), { maxLength: 4 }), fc.array(odd, { maxLength: 4 })),
        data_offsets: fc.oneof(fc.tuple(fc.nat(64), fc.nat(64)), fc.array(odd, { maxLength: 3 })),
      },
      { requiredKeys: [] },
    );
    const names = fc.constantFrom(
      'logits',
      'labels',
      'reference',
      'offsets',
      'sft_labels',
      'desirable',
      'groups',
      'kl.logps',
      'token_weights',
      '__proto__',
      '__metadata__',
      '',
    );
    fc.assert(
      fc.property(
        fc.array(fc.tuple(names, entry), { maxLength: 4 }),
        fc.nat(64),
        (entries, dataBytes) => {
          const fields = entries.map(
            ([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`,
          );
          survives(encode(`{${fields.join()}}`, dataBytes));
        },
      ),
      { numRuns: 500 },
    );
  });

  test('batches of any shapes', () => {
    const size = fc.nat(3);
    const some = (shape: number[], dtype: string): WritableTensor => {
      const length = shape.reduce((product, n) => product * n, 1);
      const data = {
        F32: Float32Array,
        F64: Float64Array,
        I32: Int32Array,
        I64: BigInt64Array,
        BF16: Uint16Array,
        U8: Uint8Array,
        BOOL: Uint8Array,
      }[dtype];
      return {
        dtype,
        shape,
        data: new (data ?? Float32Array)(length),
      } as unknown as WritableTensor;
    };
    const anything = fc
      .tuple(
        fc.array(size, { maxLength: 4 }),
        fc.constantFrom('F32', 'F64', 'I32', 'I64', 'BF16', 'U8', 'BOOL'),
      )
      .map(([shape, dtype]) => some(shape, dtype));
    const fields = ['desirable', 'groups', 'ranks', 'weights', 'kl', 'kl.logps', 'kl.reference'];
    const names = fc.constantFrom(
      ...['logits', 'labels', 'reference', 'offsets', 'sft_labels', 'sftLabels'],
      ...[...fields, 'tokenWeights', 'token_weights', 'temperature'],
    );
    fc.assert(
      fc.property(fc.dictionary(names, anything), (tensors) => {
        writeSafetensors(file, tensors);
        refusal(fs.readFileSync(file), readBatch);
      }),
      { numRuns: 500 },
    );
  });
});
