/** SHA-256 of what a result depends on. */
import { createHash, type Hash } from 'node:crypto';
import { createReadStream, statSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { types } from 'node:util';
import { bytesOf, tagOf } from '../batch/arrays.js';
import { rangeError, typeError } from '../errors.js';
import { describe, readProperties } from '../given.js';
import {
  besideIndex,
  filesOfDirectory,
  isIndex,
  readJsonFile,
  shardsOfIndex,
} from '../safetensors.js';

/**
 * What a fingerprint is taken of: text, a number, the bits of an array, or the bytes of a file (by
 * its content, not its name). Where `file` is an index of shards or a directory of tensors, those
 * of all its files.
 */
export type FingerprintPart =
  | string
  | number
  | ArrayBufferView
  | ArrayBuffer
  | {
      /** Its path or file URL. */
      readonly file: string | URL;
    };

/**
 * Every part begins with its kind and its size, so that no two lists of parts feed the same bytes.
 */
function begin(hash: Hash, kind: string, byteLength: number): void {
  hash.update(`${kind}:${byteLength}\n`);
}

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

/**
 * The file and all that it stands for: a fingerprint of the index alone would be the same for other
 * weights.
 */
function filesOf(file: string): string[] {
  if (statSync(file).isDirectory()) return filesOfDirectory(file).flatMap(filesOf);
  if (basename(file) === 'model.json') return [file, ...weightsOfTensorFlow(file)];
  const isOfShards = isIndex(file) && readJsonFile(file).has('weight_map');
  return isOfShards ? [file, ...shardsOfIndex(file).map((shard) => shard.file)] : [file];
}

async function updateFile(hash: Hash, name: string, file: string | URL): Promise<void> {
  const digests: Buffer[] = [];
  try {
    for (const each of filesOf(file instanceof URL ? fileURLToPath(file) : file)) {
      const content = createHash('sha256');
      for await (const chunk of createReadStream(each)) content.update(chunk as Buffer);
      digests.push(content.digest());
    }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw rangeError('ERR_DIRALIGN_FILE', `${name}: ${String(file)} cannot be read: ${reason}`, {
      cause: error,
    });
  }
  begin(hash, digests.length === 1 ? 'file' : 'files', 32 * digests.length);
  for (const digest of digests) hash.update(digest);
}

function viewOf(name: string, buffer: ArrayBuffer): Uint8Array {
  try {
    return new Uint8Array(buffer);
  } catch (cause) {
    throw typeError('ERR_DIRALIGN_SHAPE', `${name}: it is detached (transferred elsewhere)`, {
      cause,
    });
  }
}

/** A Buffer is the same bytes as any other Uint8Array. */
function updateBytes(hash: Hash, name: string, kind: string, view: ArrayBufferView): void {
  const bytes = bytesOf(name, view);
  begin(hash, kind, bytes.length);
  hash.update(bytes);
}

/** The file that a part names; undefined for a part of another kind. */
function fileOf(name: string, part: unknown): string | URL | undefined {
  if (typeof part !== 'object' || part === null || Array.isArray(part)) return undefined;
  if (ArrayBuffer.isView(part) || types.isAnyArrayBuffer(part)) return undefined;
  const { file } = readProperties(name, part, ['file']);
  return typeof file === 'string' || file instanceof URL ? file : undefined;
}

/**
 * The SHA-256 of the parts, in their order, as 64 hexadecimal digits: a name for the data and the
 * model that numbers were computed from. Text and bytes count, and so do the kind of each part (a
 * `Float32Array` is not the `Uint8Array` of its bytes) and where one ends. Files are streamed.
 *
 *     const model = { file: 'model.safetensors' };
 *     await fingerprint(model, { file: 'preferences.jsonl' }, 'maxLength', 512);
 *
 * A `file` that stands for others counts with all of them, whatever they are called: an index of
 * shards (`model.safetensors.index.json`), the `model.json` of TensorFlow.js, and a directory,
 * which holds `model.safetensors`, an index, numbered shards, or a single file of tensors.
 *
 * @throws DirAlignError (as a rejection) with code ERR_DIRALIGN_OPTION for no parts, or a part of
 *   another kind; ERR_DIRALIGN_FILE for a file that cannot be read, and a directory without tensors
 *   or with several files of them that do not belong together; ERR_DIRALIGN_SHAPE for an array over
 *   a detached or resizable buffer
 */
export async function fingerprint(...parts: readonly FingerprintPart[]): Promise<string> {
  if (parts.length === 0)
    throw rangeError('ERR_DIRALIGN_OPTION', 'parts: there are none; expected at least one');
  const hash = createHash('sha256').update('diralign fingerprint 1\n');
  for (const [i, part] of (parts as readonly unknown[]).entries()) {
    const name = `parts[${i}]`;
    const file = fileOf(name, part);
    if (typeof part === 'string') {
      // UTF-8 would not tell lone surrogates apart.
      begin(hash, 'string', 2 * part.length);
      hash.update(part, 'utf16le');
    } else if (typeof part === 'number') {
      begin(hash, 'number', 8);
      hash.update(new Float64Array([part]));
    } else if (ArrayBuffer.isView(part)) {
      updateBytes(hash, name, tagOf(part) ?? 'DataView', part);
    } else if (types.isArrayBuffer(part)) {
      updateBytes(hash, name, 'ArrayBuffer', viewOf(name, part));
    } else if (file !== undefined) {
      await updateFile(hash, name, file);
    } else {
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        `${name}: expected a string, a number, a typed array, an ArrayBuffer or { file }, not ${describe(part)}`,
      );
    }
  }
  return hash.digest('hex');
}
