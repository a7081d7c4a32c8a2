/** A JSON array in pieces of any size: its elements, one in memory at a time. */
import { checkPiece, copied, part, Pieces, type Item, type Piece } from './pieces.js';
import { unreadable } from './source.js';

const codes = {
  quote: 0x22,
  comma: 0x2c,
  openBracket: 0x5b,
  backslash: 0x5c,
  closeBracket: 0x5d,
  openBrace: 0x7b,
  closeBrace: 0x7d,
} as const;

const isSpace = (code: number): boolean =>
  code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09;

/** Where a scan of the array stands. All that structures JSON is ASCII: bytes do as characters. */
class Scan {
  #depth = 0;
  #isInString = false;
  #isEscaped = false;
  /** Whether the element has nothing but whitespace so far. */
  isBlank = true;
  hasEnded = false;

  /** @returns whether an element begins after this code, or ends before it, the last or another */
  take(code: number): 'begins' | 'ends' | 'closes' | undefined {
    if (this.#isInString) {
      if (this.#isEscaped) this.#isEscaped = false;
      else if (code === codes.backslash) this.#isEscaped = true;
      else if (code === codes.quote) this.#isInString = false;
      return undefined;
    }
    if (isSpace(code)) return undefined;
    if (code === codes.openBracket && this.#depth === 0) {
      this.#depth = 1;
      return 'begins';
    }
    if (code === codes.closeBracket && this.#depth === 1) {
      this.hasEnded = true;
      return 'closes';
    }
    if (code === codes.comma && this.#depth === 1) return 'ends';
    this.isBlank = false;
    if (code === codes.quote) this.#isInString = true;
    else if (code === codes.openBracket || code === codes.openBrace) this.#depth++;
    // A brace too many is for the parser of the element to find.
    else if ((code === codes.closeBracket || code === codes.closeBrace) && this.#depth > 1)
      this.#depth--;
    return undefined;
  }
}

const codeAt = (piece: Piece, i: number): number =>
  typeof piece === 'string' ? piece.charCodeAt(i) : (piece[i] as number);

/**
 * @param chunks bytes or text of which the first that is no whitespace is `[`
 * @param name what errors call the source
 * @throws DirAlignError with code ERR_DIRALIGN_FILE for an array that does not end, or after which
 *   there is more
 */
export async function* elementsOf(
  chunks: AsyncIterable<unknown>,
  name: string,
): AsyncGenerator<Item, void, undefined> {
  let index = 0;
  const pieces = new Pieces();
  const scan = new Scan();
  for await (const chunk of chunks) {
    const piece = checkPiece(chunk, `${name}[${index}]`);
    let start = 0;
    for (let i = 0; i < piece.length; i++) {
      const code = codeAt(piece, i);
      if (scan.hasEnded) {
        if (isSpace(code)) continue;
        throw unreadable(name, 'goes on after the ] of its array; expected one array, or JSONL');
      }
      const event = scan.take(code);
      if (event === undefined) continue;
      if (event !== 'begins') {
        pieces.add(part(piece, start, i), `${name}[${index}]`);
        const taken = pieces.take();
        // Between [ and ] there may be nothing.
        if (!(event === 'closes' && scan.isBlank && index === 0))
          yield { kind: 'element', place: `[${index}]`, pieces: taken };
        index++;
        scan.isBlank = true;
      }
      start = i + 1;
    }
    if (!scan.hasEnded && start < piece.length)
      pieces.add(copied(part(piece, start)), `${name}[${index}]`);
  }
  if (!scan.hasEnded)
    throw unreadable(name, `ends in element ${index}, before the ] of its array: is it cut off?`);
}
