/** Bytes that are compressed with gzip. */
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { DirAlignError } from '../errors.js';
import { messageOf } from '../given.js';
import { checkPiece, copied } from './pieces.js';
import { unreadable } from './source.js';

/** Copies, since what is read ahead must stay as it is. */
async function* compressed(
  chunks: AsyncIterable<unknown>,
  name: string,
): AsyncGenerator<unknown, void, undefined> {
  for await (const chunk of chunks) yield copied(checkPiece(chunk, name));
}

/**
 * The bytes that were compressed.
 * @throws DirAlignError with code ERR_DIRALIGN_FILE for what is damaged or cut off
 */
export async function* gunzipped(
  chunks: AsyncIterable<unknown>,
  name: string,
): AsyncGenerator<unknown, void, undefined> {
  const bytes = createGunzip();
  const source = Readable.from(compressed(chunks, name));
  // What fails comes out of the bytes, too; that the reader has seen enough is no failure.
  pipeline(source, bytes).catch(() => undefined);
  try {
    yield* bytes as AsyncIterable<unknown>;
  } catch (error) {
    if (error instanceof DirAlignError) throw error;
    throw unreadable(name, `cannot be decompressed: ${messageOf(error)}`, error);
  } finally {
    bytes.destroy();
  }
}
