/**
 * The safetensors format: an eight-byte little-endian length, a JSON header of that length, and the
 * tensors' bytes without gaps or overlaps. A header that says anything else is refused with
 * `ERR_DIRALIGN_FILE`.
 */
import { type DirAlignError, rangeError, typeError } from '../errors.js';
import { describe } from '../given.js';

/** Bits of an element, for every dtype of the format. */
const elementBits: Readonly<Record<string, number>> = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
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
};

/** Arrays of the decoded types; F16 and BF16 stay raw bits, BOOL is 0 and 1. */
export const decoded = {
  F64: Float64Array,
  F32: Float32Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  I64: BigInt64Array,
  I32: Int32Array,
  U8: Uint8Array,
  BOOL: Uint8Array,
} as const satisfies Record<DecodedDtype, unknown>;

/**
 * Types of elements that have an array: others of the format are listed and neither read nor
 * written.
 */
export type DecodedDtype = 'F64' | 'F32' | 'F16' | 'BF16' | 'I64' | 'I32' | 'U8' | 'BOOL';

export function isDecoded(dtype: string): dtype is DecodedDtype {
  return Object.hasOwn(decoded, dtype);
}

/** @throws DirAlignError for a BOOL with an element that is neither 0 nor 1 */
export function checkFlags(path: string, name: string, dtype: string, data: Uint8Array): void {
  const element = dtype === 'BOOL' ? data.findIndex((value) => value > 1) : -1;
  if (element >= 0)
    throw defect(
      path,
      `tensor ${quote(name)}: element ${element} is ${data[element] ?? ''}; a BOOL is 0 or 1.`,
    );
}

/**
 * @throws DirAlignError with code ERR_DIRALIGN_FILE: what is no string would be turned into one by
 *   its own code
 */
export function checkPath(path: unknown): asserts path is string {
  if (typeof path !== 'string')
    throw typeError('ERR_DIRALIGN_FILE', `path: expected a string, not ${describe(path)}`);
}

export const maxHeaderBytes = 100_000_000;

export function defect(path: string, what: string, cause?: unknown): DirAlignError {
  return rangeError(
    'ERR_DIRALIGN_FILE',
    `${path}: ${what}`,
    cause === undefined ? undefined : { cause },
  );
}

/** Calls `action`; whatever it throws becomes a defect of the file. */
export function guarded<T>(path: string, what: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw defect(path, `${what}: ${error instanceof Error ? error.message : String(error)}`, error);
  }
}

export function quote(name: string): string {
  return JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}...` : name);
}

/** `[2, 3]`, as messages have it. */
export function written(shape: readonly number[]): string {
  return `[${shape.slice(0, 8).join(', ')}${shape.length > 8 ? ', ...' : ''}]`;
}

export interface Entry {
  readonly name: string;
  /** One of the format's, or of a later version of it. */
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

export interface Header {
  /** In the order of their bytes. */
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
 * The first key that an object of this valid JSON text has twice: `JSON.parse` would keep the last
 * of them and say nothing. A loop, not a regular expression, whose stack a long string could
 * exhaust.
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

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The fields of a JSON object, of which no key stands there twice. */
export function jsonFields(path: string, what: string, bytes: Uint8Array): Map<string, unknown> {
  const json = guarded(path, `${what} is not UTF-8`, () =>
    new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes),
  );
  const value = guarded(path, `${what} is not JSON`, () => JSON.parse(json) as unknown);
  if (!isObject(value)) throw defect(path, `${what} is not an object.`);
  const twice = duplicateKey(json);
  if (twice !== undefined) throw defect(path, `${what} has the key ${quote(twice)} twice.`);
  return new Map(Object.entries(value));
}

export function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && !Object.is(value, -0);
}

/**
 * Number of elements; infinite where 64 bits do not hold a product on the way, whatever comes after
 * it.
 */
export function elements(shape: readonly number[]): number {
  let product = 1;
  for (const size of shape) {
    product *= size;
    if (product >= 2 ** 64) return Infinity;
  }
  return product;
}

function parseEntry(path: string, name: string, value: unknown): Entry {
  const bad = (what: string): DirAlignError => defect(path, `tensor ${quote(name)}: ${what}`);
  if (!isObject(value)) throw bad('its header entry is not an object.');
  // Further fields are a writer's own.
  const [dtype, shape, offsets] = ['dtype', 'shape', 'data_offsets'].map((key) =>
    Object.hasOwn(value, key) ? value[key] : undefined,
  );
  if (typeof dtype !== 'string') throw bad('dtype is not a string.');
  if (!Array.isArray(shape) || !shape.every(isSize))
    throw bad('shape is not an array of non-negative integers.');
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    throw bad('data_offsets is not a pair of non-negative integers.');
  }
  const [begin = 0, end = 0] = offsets;
  if (end < begin) throw bad(`data_offsets end at ${end}, before their begin ${begin}.`);
  const count = elements(shape);
  const bits = Object.hasOwn(elementBits, dtype) ? elementBits[dtype] : undefined;
  // How many bytes a type of a later version takes is not known: its tensor is listed, and the
  // others can be read.
  const fills = bits === undefined ? count < Infinity : count * bits === (end - begin) * 8;
  if (!fills)
    throw bad(`${dtype} of shape ${written(shape)} does not fill its ${end - begin} bytes.`);
  return { name, dtype, shape, begin, end };
}

function parseMetadata(path: string, value: unknown): Map<string, string> {
  const metadata = new Map<string, string>();
  if (value === null) return metadata;
  if (!isObject(value)) throw defect(path, '__metadata__ is not an object.');
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== 'string') throw defect(path, `__metadata__ ${quote(key)} is not a string.`);
    metadata.set(key, text);
  }
  return metadata;
}

/** Checks everything that the header says about `dataBytes` bytes of tensors. */
export function parseHeader(path: string, bytes: Uint8Array, dataBytes: number): Header {
  if (bytes[0] !== '{'.charCodeAt(0)) throw defect(path, 'header does not begin with {.');
  let metadata = new Map<string, string>();
  const entries: Entry[] = [];
  for (const [name, value] of jsonFields(path, 'header', bytes)) {
    if (name === '__metadata__') metadata = parseMetadata(path, value);
    else entries.push(parseEntry(path, name, value));
  }

  // In order of their bytes, each tensor begins where the one before it ends, and the last ends
  // where the file does.
  entries.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let expected = 0;
  for (const { name, begin, end } of entries) {
    if (begin !== expected) {
      const what = begin < expected ? 'overlaps the tensor before it' : 'leaves a gap before it';
      throw defect(
        path,
        `tensor ${quote(name)}: begins at ${begin}; expected ${expected}: it ${what}.`,
      );
    }
    expected = end;
  }
  if (expected !== dataBytes) {
    const what = expected > dataBytes ? 'is truncated' : 'has bytes that belong to no tensor';
    throw defect(path, `${dataBytes} bytes of tensors; expected ${expected}: the file ${what}.`);
  }
  return { entries, metadata };
}
