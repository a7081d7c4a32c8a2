/** JSONL in pieces of any size: its lines. */
import { checkPiece, copied, part, Pieces, type Item } from './pieces.js';

/**
 * Lines end at line feeds only: readline would end them at the separators U+2028 and U+2029 too,
 * which may stand in a JSON string. Carriage returns before a line feed are whitespace to JSON.
 *
 * @param name what errors call the source
 * @param most bytes or characters of a line
 * @throws DirAlignError with code ERR_DIRALIGN_FILE for what is neither bytes nor text
 */
export async function* linesOf(
  chunks: AsyncIterable<unknown>,
  name: string,
  most?: number,
): AsyncGenerator<Item, void, undefined> {
  let number = 1;
  const pieces = new Pieces(most);
  for await (const chunk of chunks) {
    const piece = checkPiece(chunk, `${name}:${number}`);
    let start = 0;
    for (;;) {
      const end =
        typeof piece === 'string' ? piece.indexOf('\n', start) : piece.indexOf(0x0a, start);
      if (end < 0) break;
      pieces.add(part(piece, start, end), `${name}:${number}`);
      yield { kind: 'line', place: `:${number}`, pieces: pieces.take() };
      number++;
      start = end + 1;
    }
    if (start < piece.length) pieces.add(copied(part(piece, start)), `${name}:${number}`);
  }
  if (!pieces.isEmpty) yield { kind: 'line', place: `:${number}`, pieces: pieces.take() };
}
