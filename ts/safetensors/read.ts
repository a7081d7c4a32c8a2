import fs from 'node:fs';
import { endianness } from 'node:os';
import { outOfMemory } from '../batch/arrays.js';
import { checkIterable } from '../given.js';
import {
  checkFlags,
  checkPath,
  decoded,
  defect,
  guarded,
  isDecoded,
  maxHeaderBytes,
  parseHeader,
  quote,
  type Entry,
} from './format.js';
import { shardsOf, type Shard } from './shards.js';

/**
 * The elements of a tensor: F16 and BF16 are a `Uint16Array` of their bits, as losses take them;
 * U8 and BOOL a `Uint8Array`.
 */
export type SafetensorsData =
  | Float64Array
  | Float32Array
  | Uint16Array
  | BigInt64Array
  | Int32Array
  | Uint8Array;

/** A tensor of a file. */
export interface SafetensorsTensor {
  /** As the file has it: one of the format's, or of a later version of the format. */
  readonly dtype: string;
  /** Sizes of the dimensions, the last one contiguous; `[]` of a scalar. */
  readonly shape: readonly number[];
  /** Missing for types that are listed but not decoded, and for tensors that were not asked for. */
  readonly data?: SafetensorsData;
}

/** Tensors by name. */
export interface SafetensorsFile extends ReadonlyMap<string, SafetensorsTensor> {
  /** What the file says of itself beside its tensors: text by name. */
  readonly metadata: ReadonlyMap<string, string>;
}

class Tensors extends Map<string, SafetensorsTensor> implements SafetensorsFile {
  constructor(readonly metadata = new Map<string, string>()) {
    super();
  }
}

/** One system call moves less than 2 GiB. */
const chunkBytes = 2 ** 30;

function readBytes(path: string, file: number, position: number, byteLength: number): ArrayBuffer {
  let buffer: ArrayBuffer;
  try {
    buffer = new ArrayBuffer(byteLength);
  } catch (error) {
    throw outOfMemory(path, byteLength, error);
  }
  for (let done = 0; done < byteLength;) {
    const part = new Uint8Array(buffer, done, Math.min(chunkBytes, byteLength - done));
    const count = guarded(path, 'cannot be read', () =>
      fs.readSync(file, part, 0, part.length, position + done),
    );
    if (count === 0)
      throw defect(path, `ends at byte ${position + done}; expected ${position + byteLength}.`);
    done += count;
  }
  return buffer;
}

/** Into memory of its own, which is aligned whatever the tensor's offset in the file. */
function readTensor(
  path: string,
  file: number,
  dataStart: number,
  entry: Entry,
): SafetensorsTensor {
  const { name, dtype, shape, begin, end } = entry;
  if (!isDecoded(dtype)) return { dtype, shape };
  const buffer = readBytes(path, file, dataStart + begin, end - begin);
  const data = guarded(path, `tensor ${quote(name)}`, () => new decoded[dtype](buffer));
  if (data instanceof Uint8Array) checkFlags(path, name, dtype, data);
  return { dtype, shape, data };
}

/**
 * Adds the tensors of one file. Nothing is allocated that its size does not back: the length of the
 * header, the offsets and the shapes are checked against it first.
 */
function readInto(
  tensors: Tensors,
  { file: path, names }: Shard,
  only: ReadonlySet<string> | undefined,
): void {
  const stat = guarded(path, 'cannot be opened', () => fs.statSync(path));
  // Opening a pipe would wait for a writer.
  if (!stat.isFile()) throw defect(path, 'is not a regular file.');
  const file = guarded(path, 'cannot be opened', () => fs.openSync(path, 'r'));
  try {
    if (stat.size < 8) throw defect(path, `has ${stat.size} bytes; a header begins with 8.`);
    const headerBytes = new DataView(readBytes(path, file, 0, 8)).getBigUint64(0, true);
    if (headerBytes > BigInt(maxHeaderBytes)) {
      throw defect(
        path,
        `header of ${headerBytes} bytes; expected at most ${maxHeaderBytes}: ` +
          'not a safetensors file?',
      );
    }
    const dataStart = 8 + Number(headerBytes);
    if (dataStart > stat.size)
      throw defect(
        path,
        `header of ${headerBytes} bytes in a file of ${stat.size}: it is truncated.`,
      );
    const header = new Uint8Array(readBytes(path, file, 8, Number(headerBytes)));
    const { entries, metadata } = parseHeader(path, header, stat.size - dataStart);

    for (const [key, text] of metadata) tensors.metadata.set(key, text);
    const wanted = names && new Set(names);
    for (const entry of entries) {
      const { name, dtype, shape } = entry;
      if (wanted && !wanted.delete(name)) continue;
      if (tensors.has(name))
        throw defect(path, `tensor ${quote(name)}: another shard has it, too.`);
      const asked = only === undefined || only.has(name);
      tensors.set(name, asked ? readTensor(path, file, dataStart, entry) : { dtype, shape });
    }
    const [missing] = wanted ?? [];
    if (missing !== undefined)
      throw defect(path, `tensor ${quote(missing)} is missing, which the index has here.`);
  } finally {
    fs.closeSync(file);
  }
}

function readShards(
  path: string,
  shards: readonly Shard[],
  only?: Iterable<string>,
): SafetensorsFile {
  // Arrays are the file's bytes as they are. No platform that Node is built for here has them the
  // other way round.
  if (endianness() !== 'LE')
    throw defect(path, 'safetensors are little-endian and this machine is not.');
  const tensors = new Tensors();
  const names = only && new Set(only);
  for (const shard of shards) readInto(tensors, shard, names);
  return tensors;
}

/**
 * The tensors of a file, in the order of their bytes; or of all shards of an index
 * (`model.safetensors.index.json`) or a directory, whose metadata come together. Each is read once,
 * straight into its array.
 *
 * @param only names of the tensors to read; others are listed without data. Default: all.
 * @throws DirAlignError with code ERR_DIRALIGN_FILE for files that cannot be read, are not what the
 * format says, or do not fit their index; ERR_DIRALIGN_MEMORY where a tensor does not fit memory
 */
export function readSafetensors(path: string, only?: Iterable<string>): SafetensorsFile {
  checkPath(path);
  if (only !== undefined) checkIterable('only', only, 'names of tensors');
  return readShards(path, shardsOf(path), only);
}

/** The same for a single file: a directory or an index is refused. */
export function readSafetensorsFile(path: string): SafetensorsFile {
  checkPath(path);
  return readShards(path, [{ file: path, names: undefined }]);
}
