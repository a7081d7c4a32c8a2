/** The files that a model is in, where one of them, or their folder, stands for all. */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { quoted } from '../given.js';
import {
  besideIndex,
  filesOfDirectory,
  isIndex,
  readJsonFile,
  shardNames,
  shardsOfIndex,
  wholeSet,
} from '../safetensors.js';

/**
 * The weights that a model of TensorFlow.js has beside its model.json; none where that is something
 * else.
 */
function weightsOfTensorFlow(file: string): string[] {
  let groups: unknown;
  try {
    groups = readJsonFile(file).get('weightsManifest');
  } catch {
    return [];
  }
  const listed = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);
  const names = listed(groups).flatMap((group) =>
    listed((group as { readonly paths?: unknown } | null)?.paths),
  );
  return names.filter((name) => typeof name === 'string').map((name) => besideIndex(file, name));
}

/** Without hidden files, which are not the folder's own content. */
const namesIn = (directory: string): string[] =>
  readdirSync(directory)
    .filter((name) => !name.startsWith('.'))
    .sort();

const adapterConfig = 'adapter_config.json';
const isAdapter = (name: string): boolean => /^adapter_model\b.*\.(safetensors|bin)$/.test(name);
const isOfSafetensors = (name: string): boolean =>
  /\.safetensors(\.index(\.[\w-]+)?\.json)?$/.test(name);

/** An adapter scales its weights by numbers that are in its configuration only. */
function filesOfAdapter(directory: string): string[] {
  const names = namesIn(directory);
  const found = names.filter(isAdapter);
  const isSharded = found.some((name) => shardNames(name) !== undefined);
  const weights = isSharded ? wholeSet(directory, found) : found;
  const files = [adapterConfig, ...weights].filter((name) => names.includes(name));
  return files.map((name) => join(directory, name));
}

/** The protocol buffer of a large model has its graph only. */
function filesOfOnnx(file: string): string[] {
  const name = basename(file);
  const suffixes = namesIn(dirname(file))
    .filter((other) => other.startsWith(name))
    .map((other) => other.slice(name.length));
  const data = suffixes.filter((suffix) => /^(_data(_\d+)?|\.data)$/.test(suffix));
  return [file, ...data.map((suffix) => file + suffix)];
}

/** What a folder without safetensors holds its tensors in: one file, which may stand for others. */
function otherFiles(directory: string, names: readonly string[]): string[] {
  const index = names.find((name) => isIndex(name) && name.startsWith('pytorch_model.bin.'));
  if (index !== undefined) return [index];
  for (const extension of ['.bin', '.gguf', '.onnx']) {
    const found = names.filter((name) => name.endsWith(extension));
    const whole = [`pytorch_model${extension}`, `model${extension}`].find((name) =>
      found.includes(name),
    );
    const shards = found.filter((name) => shardNames(name) !== undefined);
    if (whole !== undefined) return [whole];
    if (shards.length > 0) return wholeSet(directory, shards).slice(0, 1);
    if (found.length > 1)
      throw new Error(`it holds ${quoted(found.slice(0, 8))}; expected one: name the file`);
    if (found.length === 1) return found;
  }
  return [];
}

/** The base model of a directory. */
function filesOfBase(directory: string, names: readonly string[]): string[] {
  if (names.some(isOfSafetensors)) return filesOfDirectory(directory).flatMap(filesOf);
  const [other] = otherFiles(directory, names);
  // Its error says what was expected.
  return other === undefined ? filesOfDirectory(directory) : filesOf(join(directory, other));
}

function filesOfFolder(directory: string): string[] {
  const names = namesIn(directory);
  if (!names.includes(adapterConfig)) return filesOfBase(directory, names);
  const isBase = (name: string): boolean =>
    /^(model|pytorch_model)\b/.test(name) && (isOfSafetensors(name) || /\.bin\b/.test(name));
  const base = names.filter(isBase);
  return [...filesOfAdapter(directory), ...(base.length > 0 ? filesOfBase(directory, base) : [])];
}

/**
 * The file and all that it stands for: a fingerprint of an index, of one shard or of an adapter
 * without its configuration would be the same for other weights.
 * @throws Error where one of them is missing, or it is not clear which they are
 */
export function filesOf(file: string): string[] {
  if (statSync(file).isDirectory()) return filesOfFolder(file);
  const name = basename(file);
  if (name === 'model.json') return [file, ...weightsOfTensorFlow(file)];
  if (name === adapterConfig || isAdapter(name)) return filesOfAdapter(dirname(file));
  if (name.endsWith('.onnx')) return filesOfOnnx(file);
  const shards = /\.(safetensors|bin|gguf)$/.test(name) ? shardNames(name) : undefined;
  if (shards !== undefined) {
    const there = shards.filter((shard) => existsSync(join(dirname(file), shard)));
    return wholeSet(dirname(file), there).map((shard) => join(dirname(file), shard));
  }
  const isOfShards = isIndex(file) && readJsonFile(file).has('weight_map');
  return isOfShards ? [file, ...shardsOfIndex(file).map((shard) => shard.file)] : [file];
}
