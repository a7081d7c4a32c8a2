import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { DirAlignError } from '../ts/errors.js';
import { readBatch, readSafetensors, type WritableTensor, writeSafetensors } from '../ts/safetensors.js';

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
    expect(error).toMatchObject({ code: 'ERR_DIRALIGN_FILE', message: expect.stringContaining(file) as string });
    return error.message.slice(file.length + 2);
  }
  return 'accepted';
}

/** Whatever the bytes are: a result, or a DirAlignError that names the file. */
function survives(bytes: Uint8Array): void {
  refusal(bytes);
  refusal(bytes, readBatch);
}

const tensor = (dtype: string, shape: unknown, data_offsets: unknown): object => ({ dtype, shape, data_offsets });

const batch: Record<string, WritableTensor> = {
  logits: { dtype: 'BF16', shape: [2, 3, 4], data: Uint16Array.from({ length: 24 }, (_, i) => 0x3f00 + i) },
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
    const tensors = fc.uniqueArray(fc.tuple(name, anyTensor), { selector: ([key]) => key, maxLength: 6 });
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
    const entries = JSON.parse(once.toString('utf8', 8, 8 + headerBytes)) as Record<string, unknown>;
    delete entries.__metadata__;
    for (const { dtype, data_offsets } of Object.values(entries) as { dtype: string; data_offsets: [number, number] }[]) {
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
    expect(read.get('flag')).toEqual({ dtype: 'BOOL', shape: [1] });
  });

  test('types that are not decoded are listed', () => {
    const header = { a: tensor('F8_E4M3', [3], [0, 3]), b: tensor('F4', [2], [3, 4]), c: tensor('C64', [1], [4, 12]) };
    fs.writeFileSync(file, encode(header, 12));
    expect([...readSafetensors(file)]).toEqual([
      ['a', { dtype: 'F8_E4M3', shape: [3] }],
      ['b', { dtype: 'F4', shape: [2] }],
      ['c', { dtype: 'C64', shape: [1] }],
    ]);
  });
});

describe('defects', () => {
  const one = { x: tensor('F32', [2], [0, 8]) };
  test.each<[string, Uint8Array, RegExp]>([
    ['an empty file', Buffer.alloc(0), /has 0 bytes/],
    ['seven bytes', Buffer.alloc(7), /has 7 bytes/],
    ['a header beyond 100 MB', encode('{}', 0, 100_000_001n), /header of 100000001 bytes/],
    ['a header length of all ones', encode('{}', 0, 2n ** 64n - 1n), /header of 18446744073709551615 bytes/],
    ['a header longer than the file', encode('{}', 0, 3n), /truncated/],
    ['an empty header', encode(''), /begin with \{/],
    ['a byte order mark', encode('\ufeff{}'), /begin with \{/],
    ['an array', encode('[]'), /begin with \{/],
    ['broken JSON', encode('{"x":'), /not JSON/],
    ['broken UTF-8', Buffer.concat([encode('', 0, 2n), Buffer.of(0x7b, 0xff)]), /not UTF-8/],
    ['a tensor twice', encode('{"x":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"\\u0078":0}', 4), /key "x" twice/],
    ['a field twice', encode('{"x":{"dtype":"F32","shape":[],"shape":[1],"data_offsets":[0,4]}}', 4), /key "shape" twice/],
    ['an entry that is no object', encode({ x: null }), /"x": its header entry/],
    ['an unexpected field', encode({ x: { ...one.x, strides: [1] } }, 8), /unexpected field "strides"/],
    ['a dtype that is no string', encode('{"x":{"dtype":{"toString":0},"shape":[],"data_offsets":[0,4]}}', 4), /dtype is not/],
    ['an unknown dtype', encode({ x: tensor('F33', [2], [0, 8]) }, 8), /dtype "F33" is unknown/],
    ['a dtype of Object.prototype', encode({ x: tensor('toString', [2], [0, 8]) }, 8), /is unknown/],
    ['a fractional dimension', encode({ x: tensor('F32', [0.5], [0, 2]) }, 2), /shape is not/],
    ['a negative dimension', encode({ x: tensor('F32', [-1, -2], [0, 8]) }, 8), /shape is not/],
    ['a negative zero', encode('{"x":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}'), /shape is not/],
    ['a dimension beyond 2^53', encode('{"x":{"dtype":"F32","shape":[1e300],"data_offsets":[0,8]}}', 8), /shape is not/],
    ['dimensions whose product is', encode({ x: tensor('F32', [2 ** 31, 2 ** 31, 2], [0, 8]) }, 8), /does not fill/],
    ['a shape that is a number', encode({ x: tensor('F32', 2, [0, 8]) }, 8), /shape is not/],
    ['three offsets', encode({ x: tensor('F32', [2], [0, 4, 8]) }, 8), /data_offsets is not/],
    ['offsets backwards', encode({ x: tensor('F32', [2], [8, 0]) }, 8), /before their begin/],
    ['too few bytes for the shape', encode({ x: tensor('F32', [3], [0, 8]) }, 8), /does not fill its 8 bytes/],
    ['half a byte', encode({ x: tensor('F4', [1], [0, 1]) }, 1), /does not fill/],
    ['an overlap', encode({ ...one, y: tensor('F32', [1], [4, 8]) }, 8), /overlaps/],
    ['a gap', encode({ ...one, y: tensor('F32', [1], [12, 16]) }, 16), /gap/],
    ['missing bytes', encode(one, 7), /truncated/],
    ['bytes at the end', encode(one, 9), /belong to no tensor/],
    ['metadata of numbers', encode({ __metadata__: { epoch: 1 } }), /__metadata__ "epoch" is not a string/],
    ['metadata that is an array', encode({ __metadata__: [] }), /__metadata__ is not an object/],
    ['a bottomless header', encode(`{"x":${'['.repeat(200_000)}`), /not JSON/],
  ])('%s', (_, bytes, message) => {
    expect(refusal(bytes)).toMatch(message);
  });

  test('a missing file, a folder, an impossible path', () => {
    for (const bad of [path.join(folder, 'none'), folder, '\0']) {
      expect(() => readSafetensors(bad)).toThrow(expect.objectContaining({ code: 'ERR_DIRALIGN_FILE' }) as Error);
    }
    expect(() => {
      writeSafetensors(path.join(folder, 'none', 'x'), {});
    }).toThrow(expect.objectContaining({ code: 'ERR_DIRALIGN_FILE' }) as Error);
  });

  test.each<[string, WritableTensor]>([
    ['another type of array', { dtype: 'F32', shape: [1], data: Float64Array.of(1) }],
    ['another length', { dtype: 'F32', shape: [2], data: Float32Array.of(1) }],
    ['a fractional dimension', { dtype: 'F32', shape: [0.5, 2], data: Float32Array.of(1) }],
    ['a type that cannot be written', { dtype: 'U8' as 'I32', shape: [1], data: Uint8Array.of(1) }],
  ])('%s is not written', (_, written) => {
    expect(() => {
      writeSafetensors(file, { x: written });
    }).toThrow(/tensor "x"/);
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

  const int32 = (shape: number[], ...values: number[]): WritableTensor => ({
    dtype: 'I32',
    shape,
    data: Int32Array.from(values),
  });
  const packed = { logits: { dtype: 'F32', shape: [3, 2], data: new Float32Array(6) }, labels: int32([3], 0, 0, 0) } as const;
  test.each<[string, Record<string, WritableTensor>, RegExp]>([
    ['no logits', { labels: int32([0]) }, /"logits" is missing; there are: "labels"/],
    ['logits of integers', { ...batch, logits: int32([1, 1, 1], 0) }, /dtype I32; expected F32/],
    ['logits of one dimension', { ...batch, logits: { dtype: 'F32', shape: [1], data: new Float32Array(1) } }, /shape \[1\]/],
    ['labels of another shape', { ...batch, labels: int32([3, 2], 0, 0, 0, 0, 0, 0) }, /shape \[3, 2\]; expected \[2, 3\]/],
    ['labels of floats', { ...batch, labels: { dtype: 'F32', shape: [2, 3], data: new Float32Array(6) } }, /expected I32 or I64/],
    [
      'labels beyond 32 bits',
      { ...batch, labels: { dtype: 'I64', shape: [2, 3], data: new BigInt64Array(6).fill(2n ** 31n) } },
      /element 0 is 2147483648/,
    ],
    ['a reference of three', { ...batch, reference: { dtype: 'F64', shape: [3], data: new Float64Array(3) } }, /expected \[2\]/],
    ['a reference of integers', { ...batch, reference: int32([2], 0, 0) }, /expected F32 or F64/],
    ['offsets beside three dimensions', { ...batch, offsets: int32([2], 0, 2) }, /belongs to logits of shape/],
    ['packed logits without offsets', packed, /"offsets" is missing/],
    ['offsets that fall', { ...packed, offsets: int32([4], 0, 2, 1, 3) }, /rise from 0 to 3/],
    ['offsets that end early', { ...packed, offsets: int32([2], 0, 2) }, /rise from 0 to 3/],
    ['no offsets at all', { ...packed, offsets: int32([0]) }, /rise from 0 to 3/],
  ])('%s', (_, tensors, message) => {
    writeSafetensors(file, tensors);
    expect(refusal(fs.readFileSync(file), readBatch)).toMatch(message);
  });
});

describe('fuzzing: a result or a DirAlignError, nothing else', () => {
  const valid = (): Buffer => {
    writeSafetensors(file, batch, { note: 'some text' });
    return fs.readFileSync(file);
  };

  test('every truncation', () => {
    const bytes = valid();
    for (let length = 0; length < bytes.length; length++) expect(refusal(bytes.subarray(0, length))).not.toBe('accepted');
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
    const odd = fc.oneof(fc.integer({ min: -2, max: 70 }), fc.double(), fc.constantFrom(2 ** 31, 2 ** 53, null, '1', [], {}));
    const entry = fc.record(
      {
        dtype: fc.oneof(fc.constantFrom('F64', 'F32', 'BF16', 'I32', 'I64', 'U8', 'F4'), fc.jsonValue()),
        shape: fc.oneof(fc.array(fc.nat(6), { maxLength: 4 }), fc.array(odd, { maxLength: 4 })),
        data_offsets: fc.oneof(fc.tuple(fc.nat(64), fc.nat(64)), fc.array(odd, { maxLength: 3 })),
      },
      { requiredKeys: [] },
    );
    const names = fc.constantFrom('logits', 'labels', 'reference', 'offsets', 'sft_labels', '__proto__', '__metadata__', '');
    fc.assert(
      fc.property(fc.array(fc.tuple(names, entry), { maxLength: 4 }), fc.nat(64), (entries, dataBytes) => {
        const fields = entries.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`);
        survives(encode(`{${fields.join()}}`, dataBytes));
      }),
      { numRuns: 2000 },
    );
  });

  test('batches of any shapes', () => {
    const size = fc.nat(3);
    const some = (shape: number[], dtype: string): WritableTensor => {
      const length = shape.reduce((product, n) => product * n, 1);
      const data = { F32: Float32Array, F64: Float64Array, I32: Int32Array, I64: BigInt64Array, BF16: Uint16Array }[dtype];
      return { dtype, shape, data: new (data ?? Float32Array)(length) } as unknown as WritableTensor;
    };
    const anything = fc
      .tuple(fc.array(size, { maxLength: 4 }), fc.constantFrom('F32', 'F64', 'I32', 'I64', 'BF16'))
      .map(([shape, dtype]) => some(shape, dtype));
    const names = fc.constantFrom('logits', 'labels', 'reference', 'offsets', 'sft_labels');
    fc.assert(
      fc.property(fc.dictionary(names, anything), (tensors) => {
        writeSafetensors(file, tensors);
        refusal(fs.readFileSync(file), readBatch);
      }),
      { numRuns: 500 },
    );
  });
});
