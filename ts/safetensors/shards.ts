/** Tensors in several files: an index that maps their names to shards, and directories. */
import fs from 'node:fs';
import path from 'node:path';
import { defect, guarded, isObject, jsonFields, maxHeaderBytes, quote } from './format.js';

const extension = '.safetensors';

/** A file, and which of its tensors count: all, or those that an index takes from it. */
export interface Shard {
  readonly file: string;
  readonly names: readonly string[] | undefined;
}

/**
 * By its name: `model.safetensors.index.json`, or `model.safetensors.index.fp16.json` of a variant.
 */
export function isIndex(file: string): boolean {
  return /\.index(\.[\w-]+)?\.json$/.test(file);
}

/**
 * A path that a JSON file gives, from the JSON file's folder. A downloaded file must not have
 * others of this machine read.
 */
export function besideIndex(index: string, name: string): string {
  const folder = path.dirname(index);
  const file = path.resolve(folder, name);
  const relative = path.relative(path.resolve(folder), file);
  if (relative === '' || relative.split(path.sep)[0] === '..' || path.isAbsolute(relative)) {
    throw defect(index, `names ${quote(name)}, which does not lie in its folder.`);
  }
  return path.join(folder, relative);
}

/** The fields of a JSON file of at most 100 MB. */
export function readJsonFile(file: string): Map<string, unknown> {
  const stat = guarded(file, 'cannot be opened', () => fs.statSync(file));
  if (!stat.isFile()) throw defect(file, 'is not a regular file.');
  if (stat.size > maxHeaderBytes)
    throw defect(file, `has ${stat.size} bytes; expected at most ${maxHeaderBytes}.`);
  return jsonFields(
    file,
    'the index',
    guarded(file, 'cannot be read', () => fs.readFileSync(file)),
  );
}

/** The shards of an index, in the order in which its `weight_map` first names them. */
export function shardsOfIndex(index: string): Shard[] {
  const map = readJsonFile(index).get('weight_map');
  if (!isObject(map)) throw defect(index, 'weight_map is not an object: not an index of shards?');
  const shards = new Map<string, string[]>();
  for (const [name, shard] of Object.entries(map)) {
    if (typeof shard !== 'string')
      throw defect(index, `weight_map ${quote(name)} is not a string.`);
    const file = besideIndex(index, shard);
    const names = shards.get(file) ?? [];
    names.push(name);
    shards.set(file, names);
  }
  return [...shards].map(([file, names]) => ({ file, names }));
}

/** More shards than any model has: a name may say any number. */
const mostShards = 10_000;

/**
 * The names of all shards of the set that a shard is of, by its own name, for instance
 * `model-00002-of-00003.safetensors`; undefined for a name of another kind.
 */
export function shardNames(name: string): string[] | undefined {
  const [, prefix = '', number = '', total = '', suffix = ''] =
    /^(.*-)(\d+)-of-(\d+)(\.\w+)$/.exec(name) ?? [];
  const count = Number(total);
  if (suffix === '' || count < 1 || count > mostShards) return undefined;
  return Array.from(
    { length: count },
    (_, i) => `${prefix}${String(i + 1).padStart(number.length, '0')}-of-${total}${suffix}`,
  );
}

/**
 * The shards of the one set that these are of.
 * @throws DirAlignError with code ERR_DIRALIGN_FILE where one of them is missing, or there are
 *   several sets
 */
export function wholeSet(directory: string, shards: readonly string[]): string[] {
  const [first = ''] = shards;
  const all = shardNames(first) ?? [...shards];
  const other = shards.find((name) => !all.includes(name));
  if (other !== undefined) {
    throw defect(
      directory,
      `holds ${quote(first)} and ${quote(other)}, shards of several sets; expected one, ` +
        'or an index: name the file.',
    );
  }
  const missing = all.find((name) => !shards.includes(name));
  if (missing !== undefined) {
    throw defect(
      directory,
      `holds ${quote(first)} but not ${quote(missing)}: has it been downloaded?`,
    );
  }
  return all;
}

/**
 * What a directory holds its tensors in: `model.safetensors`, an index, the shards of a set that
 * has no index, or its only file of tensors; in this order, as the hub's libraries look for them.
 * @returns one file, which may be an index, or shards without an index
 */
export function filesOfDirectory(directory: string): string[] {
  const names = guarded(directory, 'cannot be read', () => fs.readdirSync(directory));
  // Hidden files are not the directory's own content: macOS keeps attributes in
  // ._model.safetensors.
  const visible = names.filter((name) => !name.startsWith('.')).sort();
  const tensors = visible.filter((name) => name.endsWith(extension));
  const indexes = visible.filter((name) => isIndex(name) && name.includes(`${extension}.`));
  const whole = [`model${extension}`, `model${extension}.index.json`].find((name) =>
    visible.includes(name),
  );
  const shards = tensors.filter((name) => shardNames(name) !== undefined);
  const found =
    whole !== undefined
      ? [whole]
      : ([indexes, shards, tensors].find(({ length }) => length > 0) ?? []);
  if (found.length === 0) throw defect(directory, `holds no *${extension} file.`);
  if (found === shards)
    return wholeSet(directory, shards).map((name) => path.join(directory, name));
  if (found.length > 1) {
    throw defect(
      directory,
      `holds ${found.slice(0, 8).map(quote).join(', ')}; expected one, or an index: name the file.`,
    );
  }
  return found.map((name) => path.join(directory, name));
}

/** The files of a file, an index or a directory, and which of their tensors count. */
export function shardsOf(name: string): Shard[] {
  const isDirectory = guarded(name, 'cannot be opened', () => fs.statSync(name)).isDirectory();
  const files = isDirectory ? filesOfDirectory(name) : [name];
  return files.flatMap((file) =>
    isIndex(file) ? shardsOfIndex(file) : [{ file, names: undefined }],
  );
}
