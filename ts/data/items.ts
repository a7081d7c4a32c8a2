/** What records are read from: lines, elements of a JSON array, or rows that a program gives. */
import { plain, tagOf } from '../batch/arrays.js';
import { isArray, messageOf } from '../given.js';
import { elementsOf } from './elements.js';
import { gunzipped } from './gzip.js';
import { linesOf } from './lines.js';
import { copied, joined, part, type Item, type Piece } from './pieces.js';
import { chunksOf, isPiece, isRows, unreadable, type Chunk, type Source } from './source.js';
import { checkCount } from './token-ids.js';

/** Whitespace before JSON that may be looked through for how it begins. */
const mostSpace = 4096;

/** What comes first in formats that are not JSON, and what to do about them. */
const formats: readonly (readonly [start: string, advice: string])[] = [
  ['PAR1', 'is Parquet; read its rows with a package such as hyparquet, and pass them'],
  ['ARROW1', 'is Arrow; read its rows with a package such as apache-arrow, and pass them'],
  ['\x28\xb5\x2f\xfd', 'is compressed with zstd; decompress it first, with zstd -d'],
  ['\xfd7zXZ', 'is compressed with xz; decompress it first, with xz -d'],
  ['BZh', 'is compressed with bzip2; decompress it first, with bzip2 -d'],
  ['PK\x03\x04', 'is a ZIP archive; pass a file of it'],
];
const gzip = '\x1f\x8b';

interface Opened {
  /** The first characters, a byte each where they come as bytes, without a byte order mark. */
  readonly start: string;
  readonly kind: 'bytes' | 'text' | 'rows' | 'nothing' | 'another';
  /** All of it, without a byte order mark. */
  readonly chunks: AsyncIterable<Chunk>;
}

/** Whoever asks for the rest closes it. */
async function* resumed(
  held: readonly Chunk[],
  rest: AsyncIterator<Chunk, void, undefined>,
): AsyncGenerator<Chunk, void, undefined> {
  yield* held;
  for (;;) {
    const next = await rest.next();
    if (next.done === true) return;
    yield next.value;
  }
}

/** Reads until it is clear how the source begins, and gives all of it again. */
async function peeked(rest: AsyncIterator<Chunk, void, undefined>): Promise<Opened> {
  const held: Piece[] = [];
  const others: Chunk[] = [];
  let start = '';
  while (start.trimStart().length < 8 && start.length < mostSpace) {
    const next = await rest.next();
    if (next.done === true) break;
    const { chunk } = next.value;
    if (!isPiece(chunk) || (held.length > 0 && typeof held[0] !== typeof chunk)) {
      others.push(next.value);
      break;
    }
    held.push(copied(chunk));
    const head = part(chunk, 0, mostSpace);
    start += typeof head === 'string' ? head : Buffer.from(head).toString('latin1');
  }
  if (held.length === 0) return { start, kind: kindOf(others), chunks: resumed(others, rest) };
  const kind = typeof held[0] === 'string' ? 'text' : 'bytes';
  const mark = kind === 'text' ? '\ufeff' : '\xef\xbb\xbf';
  const skipped = start.startsWith(mark) ? mark.length : 0;
  const first = part(joined(held), skipped);
  return {
    start: start.slice(skipped),
    kind,
    chunks: resumed([{ chunk: first }, ...others], rest),
  };
}

function kindOf([first]: readonly Chunk[]): Opened['kind'] {
  if (first === undefined) return 'nothing';
  return isRows(first.chunk) ? 'rows' : 'another';
}

/** Arrays of a program's own, such as Proxies, may fail at any element. */
function guarded<T>(name: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw unreadable(name, `cannot be read: ${messageOf(error)}`, error);
  }
}

async function* rowsOf(
  chunks: AsyncIterable<Chunk>,
  name: string,
): AsyncGenerator<Item, void, undefined> {
  let index = 0;
  for await (const { chunk } of chunks) {
    if (!isArray(chunk)) {
      yield { kind: 'row', place: `[${index++}]`, row: chunk };
      continue;
    }
    const given: unknown = guarded(name, () => chunk.length);
    const length = checkCount(`${name}: an array of rows`, given, 'ERR_DIRALIGN_FILE');
    for (let i = 0; i < length; i++) {
      const row = guarded(name, () => chunk[i]);
      yield { kind: 'row', place: `[${index++}]`, row };
    }
  }
}

/** Bytes and text. What else there is, is an error of whoever reads them. */
async function* unboxed(chunks: AsyncIterable<Chunk>): AsyncGenerator<unknown, void, undefined> {
  for await (const { chunk } of chunks)
    yield tagOf(chunk) === 'Uint8Array' ? plain('Uint8Array', chunk as Uint8Array) : chunk;
}

async function* boxed(bytes: AsyncIterable<unknown>): AsyncGenerator<Chunk, void, undefined> {
  for await (const chunk of bytes) yield { chunk };
}

/** Lines, or the elements of an array. Decompressed bytes are looked at once more. */
async function* jsonOf(opened: Opened, name: string): AsyncGenerator<Item, void, undefined> {
  const { start, kind, chunks } = opened;
  if (kind === 'bytes' && start.startsWith(gzip)) {
    const bytes = boxed(gunzipped(unboxed(chunks), name));
    try {
      yield* jsonOf(await peeked(bytes), name);
    } finally {
      await bytes.return();
    }
    return;
  }
  const format = kind === 'bytes' ? formats.find(([first]) => start.startsWith(first)) : undefined;
  if (format !== undefined) throw unreadable(name, format[1]);
  const records = start.trimStart().startsWith('[') ? elementsOf : linesOf;
  yield* records(unboxed(chunks), name);
}

/**
 * The records of a source, unread, with their places. The source is closed when this ends.
 * @param name what errors call the source
 * @throws DirAlignError with code ERR_DIRALIGN_FILE for a source that cannot be read, or gives
 *   something else
 */
export async function* itemsOf(
  source: Source,
  name: string,
): AsyncGenerator<Item, void, undefined> {
  const all = chunksOf(source, name);
  try {
    const opened = await peeked(all);
    // What is neither text nor a row is an error of the lines.
    yield* opened.kind === 'rows' ? rowsOf(opened.chunks, name) : jsonOf(opened, name);
  } finally {
    await all.return();
  }
}
