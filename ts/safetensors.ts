/**
 * The safetensors format, read strictly: an eight-byte little-endian length, a JSON header of that length, and the tensors'
 * bytes without gaps or overlaps. A file that is anything else is refused with `ERR_DIRALIGN_FILE`, whatever is wrong with it.
 */
import fs from 'node:fs';
import { endianness } from 'node:os';
import { type DirAlignError, rangeError } from './errors.js';
import type { LogitsBatch } from './types.js';

/** Bits of an element. The format knows more types than are decoded here. */
const elementBits = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const;

/** Arrays of the decoded types; F16 and BF16 stay raw bits. */
const decoded = {
  F64: Float64Array,
  F32: Float32Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  I64: BigInt64Array,
  I32: Int32Array,
} as const;

export type SafetensorsDtype = keyof typeof elementBits;
type DecodedDtype = keyof typeof decoded;
export type SafetensorsData = Float64Array | Float32Array | Uint16Array | BigInt64Array | Int32Array;

export interface SafetensorsTensor {
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  /** Missing for types that are listed but not decoded. */
  readonly data?: SafetensorsData;
}

export interface SafetensorsFile extends ReadonlyMap<string, SafetensorsTensor> {
  readonly metadata: ReadonlyMap<string, string>;
}

/** What `writeSafetensors` takes. F16 also as a `Float16Array`. */
export interface WritableTensor {
  readonly dtype: DecodedDtype;
  readonly shape: readonly number[];
  readonly data: ArrayBufferView & { readonly length: number; readonly BYTES_PER_ELEMENT: number };
}

const maxHeaderBytes = 100_000_000;

function defect(path: string, what: string, cause?: unknown): DirAlignError {
  return rangeError('ERR_DIRALIGN_FILE', `${path}: ${what}`, cause === undefined ? undefined : { cause });
}

/** `read` with whatever it throws turned into a defect of the file. */
function guarded<T>(path: string, what: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw defect(path, `${what}: ${error instanceof Error ? error.message : String(error)}`, error);
  }
}

function quote(name: string): string {
  return JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}...` : name);
}

// ---------------------------------------------------------------------------------------------------------------------
// Header

interface Entry {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

interface Header {
  readonly entries: readonly Entry[];
  readonly metadata: ReadonlyMap<string, string>;
}

/** Position after the string that begins at `start` of a valid JSON text. */
function stringEnd(json: string, start: number): number {
  for (let quote = json.indexOf('"', start + 1); ; quote = json.indexOf('"', quote + 1)) {
    let first = quote;
    while (json[first - 1] === '\\') first--;
    if ((quote - first) % 2 === 0) return quote + 1;
  }
}

/**
 * The first key that an object of this valid JSON text has twice: `JSON.parse` would keep the last of them and say nothing. A loop,
 * not a regular expression, whose stack a long string could exhaust.
 */
function duplicateKey(json: string): string | undefined {
  const open: Set<string>[] = [];
  for (let position = 0; position < json.length;) {
    const character = json[position];
    if (character === '{') open.push(new Set());
    if (character === '}') open.pop();
    if (character !== '"') {
      position++;
      continue;
    }
    const start = position;
    position = stringEnd(json, start);
    let next = position;
    while (' \t\r\n'.includes(json[next] ?? '-')) next++;
    if (json[next] !== ':') continue;
    const key = JSON.parse(json.slice(start, position)) as string;
    const keys = open.at(-1);
    if (keys?.has(key)) return key;
    keys?.add(key);
  }
  return undefined;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && !Object.is(value, -0);
}

/** Number of elements; infinite where it is not an exact number. */
function elements(shape: readonly number[]): number {
  if (shape.includes(0)) return 0;
  let product = 1;
  for (const size of shape) {
    product *= size;
    if (product > Number.MAX_SAFE_INTEGER) return Infinity;
  }
  return product;
}

function parseEntry(path: string, name: string, value: unknown): Entry {
  const bad = (what: string): DirAlignError => defect(path, `tensor ${quote(name)}: ${what}`);
  if (!isObject(value)) throw bad('its header entry is not an object.');
  const { dtype, shape, data_offsets: offsets, ...others } = value;
  const unexpected = Object.keys(others)[0];
  if (unexpected !== undefined) throw bad(`unexpected field ${quote(unexpected)}.`);
  if (typeof dtype !== 'string') throw bad('dtype is not a string.');
  if (!Object.hasOwn(elementBits, dtype)) throw bad(`dtype ${quote(dtype)} is unknown.`);
  if (!Array.isArray(shape) || !shape.every(isSize)) throw bad('shape is not an array of non-negative integers.');
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    throw bad('data_offsets is not a pair of non-negative integers.');
  }
  const [begin = 0, end = 0] = offsets;
  if (end < begin) throw bad(`data_offsets end at ${end}, before their begin ${begin}.`);
  if (elements(shape) * elementBits[dtype as SafetensorsDtype] !== (end - begin) * 8) {
    throw bad(`${dtype} of shape [${shape.slice(0, 8).join(', ')}] does not fill its ${end - begin} bytes.`);
  }
  return { name, dtype: dtype as SafetensorsDtype, shape, begin, end };
}

function parseMetadata(path: string, value: unknown): Map<string, string> {
  if (!isObject(value)) throw defect(path, '__metadata__ is not an object.');
  const metadata = new Map<string, string>();
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== 'string') throw defect(path, `__metadata__ ${quote(key)} is not a string.`);
    metadata.set(key, text);
  }
  return metadata;
}

/** Checks everything that the header says about `dataBytes` bytes of tensors. */
function parseHeader(path: string, bytes: Uint8Array, dataBytes: number): Header {
  const json = guarded(path, 'header is not UTF-8', () =>
    new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes),
  );
  if (!json.startsWith('{')) throw defect(path, 'header does not begin with {.');
  const header = guarded(path, 'header is not JSON', () => JSON.parse(json) as Record<string, unknown>);
  const twice = duplicateKey(json);
  if (twice !== undefined) throw defect(path, `header has the key ${quote(twice)} twice.`);

  let metadata = new Map<string, string>();
  const entries: Entry[] = [];
  for (const [name, value] of Object.entries(header)) {
    if (name === '__metadata__') metadata = parseMetadata(path, value);
    else entries.push(parseEntry(path, name, value));
  }

  // In order of their bytes, each tensor begins where the one before it ends, and the last ends where the file does.
  entries.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let expected = 0;
  for (const { name, begin, end } of entries) {
    if (begin !== expected) {
      const what = begin < expected ? 'overlaps the tensor before it' : 'leaves a gap before it';
      throw defect(path, `tensor ${quote(name)}: begins at ${begin}; expected ${expected}: it ${what}.`);
    }
    expected = end;
  }
  if (expected !== dataBytes) {
    const what = expected > dataBytes ? 'is truncated' : 'has bytes that belong to no tensor';
    throw defect(path, `${dataBytes} bytes of tensors; expected ${expected}: the file ${what}.`);
  }
  return { entries, metadata };
}

// ---------------------------------------------------------------------------------------------------------------------
// Reading

/** One system call moves less than 2 GiB. */
const chunkBytes = 2 ** 30;

function readBytes(path: string, file: number, position: number, byteLength: number): ArrayBuffer {
  const buffer = guarded(path, `no memory for ${byteLength} bytes`, () => new ArrayBuffer(byteLength));
  for (let done = 0; done < byteLength;) {
    const part = new Uint8Array(buffer, done, Math.min(chunkBytes, byteLength - done));
    const count = guarded(path, 'cannot be read', () => fs.readSync(file, part, 0, part.length, position + done));
    if (count === 0) throw defect(path, `ends at byte ${position + done}; expected ${position + byteLength}.`);
    done += count;
  }
  return buffer;
}

class Tensors extends Map<string, SafetensorsTensor> implements SafetensorsFile {
  constructor(readonly metadata: ReadonlyMap<string, string>) {
    super();
  }
}

function isDecoded(dtype: SafetensorsDtype): dtype is DecodedDtype {
  return Object.hasOwn(decoded, dtype);
}

/**
 * All tensors of a file, in the order of their bytes. Each is read once, straight into memory of its own: so every array is
 * aligned, whatever its offset in the file, and files beyond 2 GiB need no single buffer of that size.
 */
export function readSafetensors(path: string): SafetensorsFile {
  // Arrays are the file's bytes as they are. No platform that Node is built for here has them the other way round.
  if (endianness() !== 'LE') throw defect(path, 'safetensors are little-endian and this machine is not.');
  const stat = guarded(path, 'cannot be opened', () => fs.statSync(path));
  // Opening a pipe would wait for a writer.
  if (!stat.isFile()) throw defect(path, 'is not a regular file.');
  const file = guarded(path, 'cannot be opened', () => fs.openSync(path, 'r'));
  try {
    if (stat.size < 8) throw defect(path, `has ${stat.size} bytes; a header begins with 8.`);
    const headerBytes = new DataView(readBytes(path, file, 0, 8)).getBigUint64(0, true);
    if (headerBytes > BigInt(maxHeaderBytes)) {
      throw defect(path, `header of ${headerBytes} bytes; expected at most ${maxHeaderBytes}: not a safetensors file?`);
    }
    const dataStart = 8 + Number(headerBytes);
    if (dataStart > stat.size) throw defect(path, `header of ${headerBytes} bytes in a file of ${stat.size}: it is truncated.`);
    const header = new Uint8Array(readBytes(path, file, 8, Number(headerBytes)));
    const { entries, metadata } = parseHeader(path, header, stat.size - dataStart);

    const tensors = new Tensors(metadata);
    for (const { name, dtype, shape, begin, end } of entries) {
      if (!isDecoded(dtype)) {
        tensors.set(name, { dtype, shape });
        continue;
      }
      const buffer = readBytes(path, file, dataStart + begin, end - begin);
      const data = guarded(path, `tensor ${quote(name)}`, () => new decoded[dtype](buffer));
      tensors.set(name, { dtype, shape, data });
    }
    return tensors;
  } finally {
    fs.closeSync(file);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Writing

function checkWritable(path: string, name: string, { dtype, shape, data }: WritableTensor): void {
  const bad = (what: string): DirAlignError => defect(path, `tensor ${quote(name)}: ${what}`);
  if (name === '__metadata__') throw bad("this name is the format's own.");
  if (!Object.hasOwn(decoded, dtype)) throw bad(`dtype ${quote(dtype)} cannot be written.`);
  if (!shape.every(isSize)) throw bad('shape is not an array of non-negative integers.');
  const type = Object.prototype.toString.call(data).slice(8, -1);
  if (type !== decoded[dtype].name && !(dtype === 'F16' && type === 'Float16Array')) {
    throw bad(`data is a ${type}; expected a ${decoded[dtype].name} for ${dtype}.`);
  }
  if (elements(shape) !== data.length) throw bad(`${data.length} elements; expected those of shape [${shape.join(', ')}].`);
}

function isMap<T>(tensors: ReadonlyMap<string, T> | Readonly<Record<string, T>>): tensors is ReadonlyMap<string, T> {
  return tensors instanceof Map;
}

/**
 * Writes the tensors, widest elements first and the header padded to 8 bytes, so that each is aligned in the file too. The same
 * tensors in the same order make the same bytes.
 */
export function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, WritableTensor> | Readonly<Record<string, WritableTensor>>,
  metadata?: Readonly<Record<string, string>>,
): void {
  if (endianness() !== 'LE') throw defect(path, 'safetensors are little-endian and this machine is not.');
  const entries = isMap(tensors) ? [...tensors] : Object.entries(tensors);
  for (const [name, tensor] of entries) checkWritable(path, name, tensor);
  for (const [key, value] of Object.entries(metadata ?? {})) {
    if (typeof value !== 'string') throw defect(path, `__metadata__ ${quote(key)} is not a string.`);
  }
  entries.sort(([, a], [, b]) => b.data.BYTES_PER_ELEMENT - a.data.BYTES_PER_ELEMENT);

  // Text, not an object of all tensors: names such as __proto__ or 7 would not keep their place in one.
  const fields: string[] = metadata === undefined ? [] : [`"__metadata__":${JSON.stringify(metadata)}`];
  let end = 0;
  for (const [name, { dtype, shape, data }] of entries) {
    const begin = end;
    end += data.byteLength;
    fields.push(`${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [begin, end] })}`);
  }
  const json = new TextEncoder().encode(`{${fields.join(',')}}`);
  const header = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20);
  if (header.length - 8 > maxHeaderBytes) throw defect(path, `header of ${json.length} bytes; at most ${maxHeaderBytes}.`);
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true);
  header.set(json, 8);

  const file = guarded(path, 'cannot be written', () => fs.openSync(path, 'w'));
  try {
    const write = (bytes: Uint8Array): void => {
      for (let done = 0; done < bytes.length;) {
        const length = Math.min(chunkBytes, bytes.length - done);
        const start = done;
        done += guarded(path, 'cannot be written', () => fs.writeSync(file, bytes, start, length));
      }
    };
    write(header);
    for (const [, { data }] of entries) write(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  } finally {
    fs.closeSync(file);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Batches

function toInt32(path: string, name: string, { dtype, data }: SafetensorsTensor): Int32Array {
  if (data instanceof Int32Array) return data;
  if (!(data instanceof BigInt64Array)) throw defect(path, `tensor ${quote(name)}: dtype ${dtype}; expected I32 or I64.`);
  const outside = data.findIndex((value) => BigInt.asIntN(32, value) !== value);
  if (outside >= 0) throw defect(path, `tensor ${quote(name)}: element ${outside} is ${data[outside] ?? ''}; expected 32 bits.`);
  return Int32Array.from(data, Number);
}

/**
 * A batch as `diralign loss` takes it: `logits` [sequences, tokens, vocab], or [rows, vocab] with `offsets` [sequences + 1];
 * `labels` and, where there are any, `sft_labels`, one per row; `reference`, where there is one, one per sequence.
 */
export function readBatch(path: string): LogitsBatch {
  const tensors = readSafetensors(path);
  const needed = (name: string): SafetensorsTensor => {
    const tensor = tensors.get(name);
    if (tensor !== undefined) return tensor;
    const names = [...tensors.keys()].slice(0, 8).map(quote).join(', ');
    throw defect(path, `tensor ${quote(name)} is missing; there are: ${names || 'none'}.`);
  };
  const shaped = (name: string, { shape }: SafetensorsTensor, expected: readonly number[]): void => {
    if (shape.length === expected.length && shape.every((size, axis) => size === expected[axis])) return;
    throw defect(path, `tensor ${quote(name)}: shape [${shape.join(', ')}]; expected [${expected.join(', ')}].`);
  };

  const logits = needed('logits');
  const { dtype, data } = logits;
  const [first, second, third] = logits.shape;
  if (first === undefined || second === undefined || logits.shape.length > 3) {
    throw defect(
      path,
      `tensor "logits": shape [${logits.shape.join(', ')}]; expected [sequences, tokens, vocab] or [rows, vocab].`,
    );
  }
  const dtypes = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' } as const;
  if (!(dtype in dtypes) || !(data instanceof Float32Array || data instanceof Uint16Array)) {
    throw defect(path, `tensor "logits": dtype ${dtype}; expected F32, F16 or BF16.`);
  }

  let offsets: Int32Array | undefined;
  if (third === undefined) {
    const tensor = needed('offsets');
    offsets = toInt32(path, 'offsets', tensor);
    shaped('offsets', tensor, [offsets.length]);
    const rising = offsets.every((row, b) => row >= (b === 0 ? 0 : (offsets?.[b - 1] ?? 0)));
    if (!rising || offsets[0] !== 0 || offsets.at(-1) !== first) {
      throw defect(path, `tensor "offsets": expected rows that rise from 0 to ${first}.`);
    }
  } else if (tensors.has('offsets')) {
    throw defect(path, 'tensor "offsets": belongs to logits of shape [rows, vocab].');
  }
  const rows = third === undefined ? [first] : [first, second];
  const labelsOf = (name: string): Int32Array => {
    const tensor = needed(name);
    shaped(name, tensor, rows);
    return toInt32(path, name, tensor);
  };
  const referenceOf = (): Float64Array | Float32Array => {
    const tensor = needed('reference');
    shaped('reference', tensor, [offsets === undefined ? first : offsets.length - 1]);
    if (tensor.data instanceof Float64Array || tensor.data instanceof Float32Array) return tensor.data;
    throw defect(path, `tensor "reference": dtype ${tensor.dtype}; expected F32 or F64.`);
  };

  return {
    logits: data,
    dtype: dtypes[dtype as keyof typeof dtypes],
    shape: third === undefined ? [first, second] : [first, second, third],
    ...(offsets && { offsets }),
    labels: labelsOf('labels'),
    ...(tensors.has('reference') && { reference: referenceOf() }),
    ...(tensors.has('sft_labels') && { sftLabels: labelsOf('sft_labels') }),
  };
}
