import fs from 'node:fs';
import { endianness } from 'node:os';
import type { DirAlignError } from '../errors.js';
import type { Float16ArrayLike } from '../dtype.js';
import {
  checkFlags,
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

function checkWritable(path: string, name: string, { dtype, shape, data }: WritableTensor): void {
  const bad = (what: string): DirAlignError => defect(path, `tensor ${quote(name)}: ${what}`);
  if (name === '__metadata__') throw bad("this name is the format's own.");
  if (!isDecoded(dtype)) throw bad(`dtype ${quote(dtype)} cannot be written.`);
  if (!shape.every(isSize)) throw bad('shape is not an array of non-negative integers.');
  const type = Object.prototype.toString.call(data).slice(8, -1);
  if (type !== decoded[dtype].name && !(dtype === 'F16' && type === 'Float16Array')) {
    throw bad(`data is a ${type}; expected a ${decoded[dtype].name} for ${dtype}.`);
  }
  if (elements(shape) !== data.length)
    throw bad(`${data.length} elements; expected those of shape ${written(shape)}.`);
  if (data instanceof Uint8Array) checkFlags(path, name, dtype, data);
}

function isMap<T>(
  tensors: ReadonlyMap<string, T> | Readonly<Record<string, T>>,
): tensors is ReadonlyMap<string, T> {
  return tensors instanceof Map;
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
  if (endianness() !== 'LE')
    throw defect(path, 'safetensors are little-endian and this machine is not.');
  const entries = isMap(tensors) ? [...tensors] : Object.entries(tensors);
  for (const [name, tensor] of entries) checkWritable(path, name, tensor);
  for (const [key, value] of Object.entries(metadata ?? {})) {
    if (typeof value !== 'string')
      throw defect(path, `__metadata__ ${quote(key)} is not a string.`);
  }
  entries.sort(([, a], [, b]) => b.data.BYTES_PER_ELEMENT - a.data.BYTES_PER_ELEMENT);

  // Text, not an object of all tensors: names such as __proto__ or 7 would not keep their place in
  // one.
  const fields: string[] =
    metadata === undefined ? [] : [`"__metadata__":${JSON.stringify(metadata)}`];
  let end = 0;
  for (const [name, { dtype, shape, data }] of entries) {
    const begin = end;
    end += data.byteLength;
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
    for (const [, { data }] of entries)
      write(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  } finally {
    // Some file systems say only here that there was no space.
    guarded(path, 'cannot be written', () => {
      fs.closeSync(file);
    });
  }
}
