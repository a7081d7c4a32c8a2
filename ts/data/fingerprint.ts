/** SHA-256 of what a result depends on. */
import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { checkBuffer, tagOf } from '../arrays.js';
import { rangeError, typeError } from '../errors.js';
import { describe } from '../given.js';

/** What a fingerprint is taken of: text, a number, the bits of an array, or the bytes of a file (by its content, not its name). */
export type FingerprintPart = string | number | ArrayBufferView | ArrayBuffer | { readonly file: string | URL };

/** Every part begins with its kind and its size, so that no two lists of parts feed the same bytes. */
function begin(hash: Hash, kind: string, byteLength: number): void {
  hash.update(`${kind}:${byteLength}\n`);
}

async function fileDigest(name: string, file: string | URL): Promise<Buffer> {
  const hash = createHash('sha256');
  try {
    for await (const chunk of createReadStream(file)) hash.update(chunk as Buffer);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw rangeError('ERR_DIRALIGN_FILE', `${name}: ${String(file)} cannot be read: ${reason}`, { cause: error });
  }
  return hash.digest();
}

function isFile(part: unknown): part is { readonly file: string | URL } {
  return (
    typeof part === 'object' && part !== null && 'file' in part && (typeof part.file === 'string' || part.file instanceof URL)
  );
}

function updateBytes(hash: Hash, name: string, view: ArrayBufferView): void {
  checkBuffer(name, view);
  // A Buffer is the same bytes as any other Uint8Array.
  begin(hash, tagOf(view) ?? 'DataView', view.byteLength);
  hash.update(new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
}

/**
 * The SHA-256 of the parts, in their order, as 64 hexadecimal digits: a name for the data and the model that numbers were computed
 * from. Text and bytes count, and so do the kind of each part (a `Float32Array` is not the `Uint8Array` of its bytes) and where one
 * ends. Files are streamed.
 *
 *     await fingerprint({ file: 'model.safetensors' }, { file: 'preferences.jsonl' }, 'maxLength', 512);
 *
 * @throws DirAlignError (as a rejection) with code ERR_DIRALIGN_OPTION for no parts, or a part of another kind; ERR_DIRALIGN_FILE for a
 * file that cannot be read; ERR_DIRALIGN_SHAPE for an array over a detached or resizable buffer
 */
export async function fingerprint(...parts: readonly FingerprintPart[]): Promise<string> {
  if (parts.length === 0) throw rangeError('ERR_DIRALIGN_OPTION', 'parts: there are none; expected at least one');
  const hash = createHash('sha256').update('diralign fingerprint 1\n');
  for (const [i, part] of parts.entries()) {
    const name = `parts[${i}]`;
    if (typeof part === 'string') {
      // UTF-8 would not tell lone surrogates apart.
      begin(hash, 'string', 2 * part.length);
      hash.update(part, 'utf16le');
    } else if (typeof part === 'number') {
      begin(hash, 'number', 8);
      hash.update(new Float64Array([part]));
    } else if (ArrayBuffer.isView(part)) {
      updateBytes(hash, name, part);
    } else if (part instanceof ArrayBuffer) {
      begin(hash, 'ArrayBuffer', part.byteLength);
      hash.update(new Uint8Array(part));
    } else if (isFile(part)) {
      const digest = await fileDigest(name, part.file);
      begin(hash, 'file', digest.length);
      hash.update(digest);
    } else {
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        `${name}: expected a string, a number, a typed array, an ArrayBuffer or { file }, not ${describe(part)}`,
      );
    }
  }
  return hash.digest('hex');
}
