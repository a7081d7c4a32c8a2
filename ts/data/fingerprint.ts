/** SHA-256 of what a result depends on. */
import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { types } from 'node:util';
import { bytesOf, tagOf } from '../batch/arrays.js';
import { rangeError, typeError } from '../errors.js';
import { describe, readProperties, isRevoked } from '../given.js';
import { filesOf } from './model-files.js';

/**
 * What a fingerprint is taken of: text, a number, the bits of an array, or the bytes of a file (by
 * its content, not its name). Where `file` stands for others, such as an index of shards, a
 * numbered shard or a directory, those of all its files.
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
  if (typeof part !== 'object' || part === null || isRevoked(part) || Array.isArray(part))
    return undefined;
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
 * A `file` that stands for others counts with all of them, whatever they are called:
 * - an index of shards (`model.safetensors.index.json`, `pytorch_model.bin.index.json`)
 * - a numbered shard (`model-00001-of-00003.gguf`): all shards of its set
 * - `model.onnx`, with the data beside it (`model.onnx_data`, `model.onnx.data`)
 * - the `model.json` of TensorFlow.js
 * - `adapter_config.json` or the weights of an adapter, such as `adapter_model.safetensors`: both
 * - a directory: of an adapter, both, and the base model if that is there too; else
 *   `model.safetensors`, an index, numbered shards, or a single file of tensors; where there are no
 *   safetensors, the same of PyTorch, GGUF or ONNX
 *
 * @throws DirAlignError (as a rejection) with code ERR_DIRALIGN_OPTION for no parts, or a part of
 *   another kind; ERR_DIRALIGN_FILE for a file that cannot be read, a shard that is missing, and a
 *   directory without tensors or with several files of them that do not belong together;
 *   ERR_DIRALIGN_SHAPE for an array over a detached or resizable buffer
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
        `${name}: expected a string, a number, a typed array, an ArrayBuffer or { file }, ` +
          `not ${describe(part)}`,
      );
    }
  }
  return hash.digest('hex');
}
