import fs from 'node:fs';
import { endianness } from 'node:os';
import { bytesOf, tagOf } from '../batch/arrays.js';
import type { DirAlignError } from '../errors.js';
import type { Float16ArrayLike } from '../dtype.js';
import { checkObject, describe, readElements } from '../given.js';
import {
  checkFlags,
  checkPath,
  decoded,
  defect,
  elements,
  guarded,
  isDecoded,
  isSize,
  maxHeaderBytes,
  quote,
  written,
  type DecodedDtype,
} from './format.js';
import type { SafetensorsData } from './read.js';

/** What `writeSafetensors` takes. F16 also as a `Float16Array`. */
export interface WritableTensor {
  /** Type of the elements in the file; `data` has to be the array for it. */
  readonly dtype: DecodedDtype;
  /** Sizes of the dimensions; their product is the length of `data`. */
  readonly shape: readonly number[];
  /**
   * `Float64Array` for F64, `Float32Array` for F32, `Uint16Array` for F16 and BF16, `BigInt64Array`
   * for I64, `Int32Array` for I32, `Uint8Array` for U8 and BOOL.
   */
  readonly data: SafetensorsData | Float16ArrayLike;
}

/** One system call moves less than 2 GiB. */
const chunkBytes = 2 ** 30;

/** What is written of a tensor. */
interface Entry {
  readonly name: string;
  readonly dtype: DecodedDtype;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** More dimensions than any tensor has. */
const mostDimensions = 1024;

/** Each property is read once: what is checked is what is written. */
function readTensor(path: string, name: string, tensor: unknown): Entry {
  const bad = (what: string): DirAlignError => defect(path, `tensor ${quote(name)}: ${what}`);
  if (name === '__metadata__') throw bad("this name is the format's own.");
  checkObject(`tensor ${quote(name)}`, tensor, 'ERR_DIRALIGN_FILE');
  const { dtype, shape: sizes, data } = tensor as Record<keyof WritableTensor, unknown>;
  if (typeof dtype !== 'string' || !isDecoded(dtype))
    throw bad(
      `dtype ${typeof dtype === 'string' ? quote(dtype) : describe(dtype)} cannot be written.`,
    );
  const shape = readElements(sizes, mostDimensions + 1);
  if (!Array.isArray(shape) || shape.length > mostDimensions || !shape.every(isSize))
    throw bad('shape is not an array of non-negative integers.');
  const expected = decoded[dtype];
  const type = tagOf(data);
  if (type !== expected.name && !(dtype === 'F16' && type === 'Float16Array')) {
    throw bad(`data is a ${type ?? describe(data)}; expected a ${expected.name} for ${dtype}.`);
  }
  const bytes = bytesOf(`tensor ${quote(name)}`, data);
  const length = bytes.length / expected.BYTES_PER_ELEMENT;
  if (elements(shape) !== length)
    throw bad(`${length} elements; expected those of shape ${written(shape)}.`);
  checkFlags(path, name, dtype, bytes);
  return { name, dtype, shape, bytes };
}

/** Its fields as JSON. */
function readMetadata(path: string, metadata: unknown): string[] | undefined {
  if (metadata === undefined) return undefined;
  checkObject('metadata', metadata, 'ERR_DIRALIGN_FILE');
  return Object.entries(metadata).map(([key, value]: [string, unknown]) => {
    if (typeof value !== 'string')
      throw defect(path, `__metadata__ ${quote(key)} is not a string.`);
    return `${JSON.stringify(key)}:${JSON.stringify(value)}`;
  });
}

/**
 * Writes the tensors, widest elements first and the header padded to 8 bytes, so that each is
 * aligned in the file too. The same tensors in the same order make the same bytes.
 *
 * @param path the file; one that is there is replaced
 * @param tensors by name
 * @param metadata text by name, for readers of the file
 * @throws DirAlignError with code ERR_DIRALIGN_FILE for a tensor whose dtype, shape and data do not
 *   fit each other, and for a file that cannot be written
 */
export function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, WritableTensor> | Readonly<Record<string, WritableTensor>>,
  metadata?: Readonly<Record<string, string>>,
): void {
  checkPath(path);
  if (endianness() !== 'LE')
    throw defect(path, 'safetensors are little-endian and this machine is not.');
  checkObject('tensors', tensors, 'ERR_DIRALIGN_FILE', 'an object or a Map of tensors');
  const given: Iterable<readonly [string, unknown]> =
    tensors instanceof Map ? tensors : Object.entries(tensors);
  const entries = Array.from(given, ([name, tensor]) => readTensor(path, name, tensor));
  const texts = readMetadata(path, metadata);
  const width = ({ dtype }: Entry): number => decoded[dtype].BYTES_PER_ELEMENT;
  entries.sort((a, b) => width(b) - width(a));

  // Text, not an object of all tensors: names such as __proto__ or 7 would not keep their place in
  // one.
  const fields: string[] = texts ? [`"__metadata__":{${texts.join()}}`] : [];
  let end = 0;
  for (const { name, dtype, shape, bytes } of entries) {
    const begin = end;
    end += bytes.length;
    fields.push(
      `${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [begin, end] })}`,
    );
  }
  const json = new TextEncoder().encode(`{${fields.join(',')}}`);
  const header = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20);
  if (header.length - 8 > maxHeaderBytes)
    throw defect(path, `header of ${json.length} bytes; at most ${maxHeaderBytes}.`);
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
    for (const { bytes } of entries) write(bytes);
  } finally {
    // Some file systems say only here that there was no space.
    guarded(path, 'cannot be written', () => {
      fs.closeSync(file);
    });
  }
}
