/** Bytes or text of one record, whatever pieces it comes in. */
import { constants } from 'node:buffer';
import { types } from 'node:util';
import { spanOf } from '../batch/arrays.js';
import { rangeError, typeError } from '../errors.js';
import { describe, messageOf } from '../given.js';
import { Refusal } from './records.js';
import { isPiece } from './source.js';

export type Piece = Uint8Array | string;

/** What a record is read from. */
export type Item = { readonly place: string } & (
  | {
      /** A line may be empty, and is then no record; an element of an array may not. */
      readonly kind: 'line' | 'element';
      /** All bytes or all text; undefined where they are more than a string can have. */
      readonly pieces: readonly Piece[] | undefined;
    }
  | { readonly kind: 'row'; readonly row: unknown }
);

/** @throws DirAlignError for what is neither bytes nor text */
export function checkPiece(chunk: unknown, place: string): Piece {
  if (isPiece(chunk)) return chunk;
  throw typeError(
    'ERR_DIRALIGN_FILE',
    `${place}: expected pieces of bytes or text, not ${describe(chunk)}`,
  );
}

/** A copy: a source may fill the same memory again. */
export const copied = (piece: Piece): Piece =>
  typeof piece === 'string' ? piece : new Uint8Array(piece);

export function joined(pieces: readonly Piece[]): Piece {
  if (pieces.length === 1) return pieces[0] as Piece;
  return typeof pieces[0] === 'string'
    ? pieces.join('')
    : Buffer.concat(pieces as readonly Uint8Array[]);
}

/** The text of a record from its pieces, joined once whatever their number. @throws Refusal */
export function textOf(pieces: readonly Piece[] | undefined): string {
  if (pieces === undefined) throw new Refusal('encoding', 'longer than a string can be');
  const whole = pieces.length === 0 ? '' : joined(pieces);
  if (typeof whole === 'string') return whole;
  // The decoder takes no memory that another thread may write to.
  const bytes = types.isSharedArrayBuffer(spanOf(whole).buffer) ? new Uint8Array(whole) : whole;
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw new Refusal('encoding', `not UTF-8: ${messageOf(error)}`, error);
  }
}

/** The pieces of one record, as they come. What cannot become a string is not kept. */
export class Pieces {
  #pieces: Piece[] = [];
  #length = 0;

  /** @param most bytes or characters of a record */
  constructor(readonly most = constants.MAX_STRING_LENGTH) {}

  get isEmpty(): boolean {
    return this.#length === 0;
  }

  /** @throws DirAlignError for bytes after text, or text after bytes */
  add(piece: Piece, place: string): void {
    if (this.#pieces.length > 0 && typeof this.#pieces[0] !== typeof piece) {
      throw rangeError('ERR_DIRALIGN_FILE', `${place}: expected bytes or text, not both by turns`);
    }
    this.#length += piece.length;
    if (this.#length > this.most) this.#pieces = [];
    else if (piece.length > 0) this.#pieces.push(piece);
  }

  take(): readonly Piece[] | undefined {
    const pieces = this.#length > this.most ? undefined : this.#pieces;
    [this.#pieces, this.#length] = [[], 0];
    return pieces;
  }
}

/** Part of a piece, without a copy. */
export const part = (piece: Piece, start: number, end?: number): Piece =>
  typeof piece === 'string' ? piece.slice(start, end) : piece.subarray(start, end);
