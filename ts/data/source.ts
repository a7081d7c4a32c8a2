/** Where preference data comes from: a file, bytes, text, or what gives these or rows. */
import { createReadStream } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { types } from 'node:util';
import { bytesOf, tagOf } from '../batch/arrays.js';
import { DirAlignError, rangeError, typeError } from '../errors.js';
import { describe, isArray, readProperties, messageOf } from '../given.js';

/** What an iterable may give: UTF-8 in pieces of any size, or rows, one by one or in arrays. */
export type PreferenceChunk = Uint8Array | string | object;

/**
 * A path or file URL; UTF-8 as bytes, as a `Blob` or as `{ text }`; or an iterable, async or not,
 * of bytes or text in pieces of any size, or of rows: a Node or web stream, an array, a generator.
 * Bytes may be compressed with gzip. Bytes and text are JSONL, or a JSON array.
 */
export type PreferenceSource =
  | string
  | URL
  | Uint8Array
  | ArrayBuffer
  | Blob
  | {
      /** JSONL, or a JSON array. */
      readonly text: string;
    }
  | Iterable<PreferenceChunk>
  | AsyncIterable<PreferenceChunk>;

interface Chunks {
  readonly next: () => unknown;
  readonly return?: () => unknown;
}

/** A source that has not been read yet. */
export interface Source {
  /** What messages call it. */
  readonly called: string;
  /** Called once, when the first record is asked for. */
  readonly open: () => Chunks;
}

const expected =
  'expected a path, a file URL, bytes, a Blob, { text } or an iterable of bytes, text or objects';

const ofFile = (path: string): Source => ({
  called: path,
  open: () => createReadStream(path)[Symbol.asyncIterator](),
});

const ofOne = (called: string, chunk: unknown): Source => ({
  called,
  open: () => [chunk][Symbol.iterator](),
});

function ofUrl(url: URL): Source {
  if (url.protocol !== 'file:')
    throw typeError('ERR_DIRALIGN_OPTION', `source: ${expected}, not ${url.href}`);
  try {
    return ofFile(fileURLToPath(url));
  } catch (cause) {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `source: ${url.href} stands for no path: ${messageOf(cause)}`,
      { cause },
    );
  }
}

/** The iterator of an object, whose property is read once; undefined where it has none. */
function ofIterable(source: object): Source | undefined {
  for (const key of [Symbol.asyncIterator, Symbol.iterator]) {
    const iterate = (source as Record<symbol, unknown>)[key];
    if (typeof iterate !== 'function') continue;
    const path = key === Symbol.asyncIterator ? (source as { readonly path?: unknown }).path : 0;
    const kind = key === Symbol.asyncIterator ? 'stream' : 'rows';
    return {
      called: typeof path === 'string' ? path : kind,
      open: () => iterate.call(source) as Chunks,
    };
  }
  return undefined;
}

function ofObject(source: object): Source {
  if (tagOf(source) === 'Uint8Array') return ofOne('bytes', bytesOf('source', source));
  if (types.isArrayBuffer(source)) return ofOne('bytes', new Uint8Array(source));
  if (source instanceof URL) return ofUrl(source);
  if (source instanceof Blob)
    return { called: 'blob', open: () => source.stream()[Symbol.asyncIterator]() };
  const iterable = ArrayBuffer.isView(source) ? undefined : ofIterable(source);
  if (iterable !== undefined) return iterable;
  if (!ArrayBuffer.isView(source) && Object.hasOwn(source, 'text')) {
    const { text } = readProperties('source', source, ['text']);
    if (typeof text === 'string') return ofOne('text', text);
    throw typeError('ERR_DIRALIGN_OPTION', `source.text: expected a string, not ${describe(text)}`);
  }
  throw typeError('ERR_DIRALIGN_OPTION', `source: ${expected}, not ${describe(source)}`);
}

/** @throws DirAlignError with code ERR_DIRALIGN_OPTION for what cannot be read */
export function openSource(source: unknown): Source {
  if (typeof source === 'string') return ofFile(source);
  if (typeof source !== 'object' || source === null)
    throw typeError('ERR_DIRALIGN_OPTION', `source: ${expected}, not ${describe(source)}`);
  try {
    return ofObject(source);
  } catch (error) {
    if (error instanceof DirAlignError) throw error;
    // A getter, or the traps of a Proxy.
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `source: ${expected}, not ${describe(source)}: ${messageOf(error)}`,
      { cause: error },
    );
  }
}

/** A source that cannot be read is an error in any case, whatever is done about bad lines. */
export function unreadable(name: string, why: string, cause?: unknown): DirAlignError {
  return rangeError(
    'ERR_DIRALIGN_FILE',
    `${name}: ${why}`,
    cause === undefined ? undefined : { cause },
  );
}

/** What a source gives at a time, in a box: a bare row would be asked for `then`. */
export interface Chunk {
  readonly chunk: unknown;
}

/**
 * What a source gives, piece by piece. The source is closed when the reader ends, early or not.
 * @throws DirAlignError with code ERR_DIRALIGN_FILE for a source that cannot be read
 */
export async function* chunksOf(
  { open }: Source,
  name: string,
): AsyncGenerator<Chunk, void, undefined> {
  let chunks: Chunks | undefined;
  let ended = false;
  try {
    for (;;) {
      let chunk: unknown;
      try {
        chunks ??= open();
        const next = (await chunks.next()) as IteratorResult<unknown>;
        const { done } = next;
        if (done) {
          ended = true;
          return;
        }
        chunk = next.value;
      } catch (error) {
        ended = true;
        throw unreadable(name, `cannot be read: ${messageOf(error)}`, error);
      }
      yield { chunk };
    }
  } finally {
    // An error further on, or a reader that has seen enough.
    if (!ended) await chunks?.return?.();
  }
}

/** Whether a chunk is of JSON text rather than of rows. */
export function isPiece(chunk: unknown): chunk is Uint8Array | string {
  return typeof chunk === 'string' || tagOf(chunk) === 'Uint8Array';
}

/** Whether a chunk is a row, or an array of them. */
export function isRows(chunk: unknown): chunk is object {
  return (
    (typeof chunk === 'object' && chunk !== null && !ArrayBuffer.isView(chunk)) || isArray(chunk)
  );
}
