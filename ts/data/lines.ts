/** The lines of a file or stream, whatever pieces it comes in. */
import { constants } from 'node:buffer';
import { createReadStream } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { tagOf } from '../batch/arrays.js';
import { rangeError, typeError } from '../errors.js';
import { describe } from '../given.js';
import { Refusal } from './records.js';

type Piece = Uint8Array | string;

export interface Line {
  /** From 1. */
  readonly number: number;
  /** All bytes or all text; undefined where they are more than a string can have. */
  readonly pieces: readonly Piece[] | undefined;
}

const reasonOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error);

/** Opened when the first line is asked for. */
async function* fileBytes(path: string): AsyncGenerator {
  yield* createReadStream(path);
}

function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return (
    typeof (value as Partial<AsyncIterable<unknown>> | null | undefined)?.[Symbol.asyncIterator] ===
    'function'
  );
}

/** The bytes or text of a source, and what messages call it. */
export function openSource(source: unknown): {
  readonly chunks: AsyncIterable<unknown>;
  readonly called: string;
} {
  if (typeof source === 'string') return { chunks: fileBytes(source), called: source };
  if (source instanceof URL && source.protocol === 'file:') {
    try {
      const path = fileURLToPath(source);
      return { chunks: fileBytes(path), called: path };
    } catch (cause) {
      const reason = (cause as Error).message;
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        `source: ${source.href} stands for no path: ${reason}`,
        { cause },
      );
    }
  }
  if (!isAsyncIterable(source)) {
    const given = source instanceof URL ? source.href : describe(source);
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `source: expected a path, a file URL or an async iterable of bytes or text, not ${given}`,
    );
  }
  const path = 'path' in source && typeof source.path === 'string' ? source.path : undefined;
  return { chunks: source, called: path ?? 'stream' };
}

/** The text of a line from its pieces, joined once whatever their number. @throws Refusal */
export function textOf({ pieces }: Line): string {
  if (pieces === undefined) throw new Refusal('encoding', 'longer than a string can be');
  if (typeof pieces[0] === 'string') return pieces.join('');
  const bytes =
    pieces.length === 1
      ? (pieces[0] as Uint8Array)
      : Buffer.concat(pieces as readonly Uint8Array[]);
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw new Refusal('encoding', `not UTF-8: ${reasonOf(error)}`, error);
  }
}

/** The pieces of one line, as they come. What cannot become a string is not kept. */
class Pieces {
  #pieces: Piece[] = [];
  #length = 0;

  constructor(readonly most: number) {}

  get isEmpty(): boolean {
    return this.#length === 0;
  }

  /** @returns false for bytes after text, or text after bytes */
  add(piece: Piece): boolean {
    if (this.#pieces.length > 0 && typeof this.#pieces[0] !== typeof piece) return false;
    this.#length += piece.length;
    if (this.#length > this.most) this.#pieces = [];
    else if (piece.length > 0) this.#pieces.push(piece);
    return true;
  }

  take(): readonly Piece[] | undefined {
    const pieces = this.#length > this.most ? undefined : this.#pieces;
    [this.#pieces, this.#length] = [[], 0];
    return pieces;
  }
}

/**
 * Lines end at line feeds only: readline would end them at the separators U+2028 and U+2029 too,
 * which may stand in a JSON string. Carriage returns before a line feed are whitespace to JSON. The
 * source is closed when the reader ends, early or not.
 *
 * @param most bytes or characters of a line
 * @throws DirAlignError with code ERR_DIRALIGN_FILE for a source that cannot be read, or gives
 *   something else
 */
export async function* linesOf(
  source: AsyncIterable<unknown>,
  name: string,
  most = constants.MAX_STRING_LENGTH,
): AsyncGenerator<Line, void, undefined> {
  let number = 1;
  const pieces = new Pieces(most);
  const add = (piece: Piece): void => {
    if (pieces.add(piece)) return;
    throw rangeError(
      'ERR_DIRALIGN_FILE',
      `${name}:${number}: expected bytes or text, not both by turns`,
    );
  };
  let chunks: AsyncIterator<unknown> | undefined;
  let ended = false;
  try {
    for (;;) {
      let next: IteratorResult<unknown>;
      try {
        chunks ??= source[Symbol.asyncIterator]();
        next = await chunks.next();
      } catch (error) {
        ended = true;
        throw rangeError('ERR_DIRALIGN_FILE', `${name}: cannot be read: ${reasonOf(error)}`, {
          cause: error,
        });
      }
      if (next.done === true) {
        ended = true;
        break;
      }
      const chunk = next.value;
      if (typeof chunk !== 'string' && tagOf(chunk) !== 'Uint8Array') {
        throw typeError(
          'ERR_DIRALIGN_FILE',
          `${name}:${number}: expected pieces of bytes or text, not ${describe(chunk)}`,
        );
      }
      const piece = chunk as Piece;
      let start = 0;
      for (;;) {
        const end =
          typeof piece === 'string' ? piece.indexOf('\n', start) : piece.indexOf(0x0a, start);
        if (end < 0) break;
        add(typeof piece === 'string' ? piece.slice(start, end) : piece.subarray(start, end));
        yield { number, pieces: pieces.take() };
        number++;
        start = end + 1;
      }
      // A copy: the source may fill the same memory again.
      if (start < piece.length)
        add(
          typeof piece === 'string' ? piece.slice(start) : Uint8Array.from(piece.subarray(start)),
        );
    }
    if (!pieces.isEmpty) yield { number, pieces: pieces.take() };
  } finally {
    // An error, or a reader that has seen enough.
    if (!ended) await chunks?.return?.();
  }
}
