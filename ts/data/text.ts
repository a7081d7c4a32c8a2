/** How text stands in other text, whatever the whitespace. */

const wordCharacter = /[\p{L}\p{N}]/u;
const isInside = (a: string | undefined, b: string | undefined): boolean =>
  a !== undefined && b !== undefined && wordCharacter.test(a) && wordCharacter.test(b);

/** Matches where one of the forms does. */
export function anyOf(flags: string, ...forms: readonly RegExp[]): RegExp {
  return new RegExp(forms.map(({ source }) => source).join('|'), flags);
}

/** Single spaces between words. */
export function squeezed(text: string): string {
  return text.trim().replace(/\s+/g, ' ');
}

/**
 * Where a part stands in a text as whole words, from a position on; -1 where it does not. Both are
 * squeezed.
 */
export function findWords(text: string, part: string, from = 0): number {
  let at = text.indexOf(part, from);
  while (at >= 0) {
    const startsInside = isInside(text[at - 1], part[0]);
    if (!startsInside && !isInside(part.at(-1), text[at + part.length])) return at;
    at++;
    // To the end of the word: in a long one, trying every letter would take the square of its
    // length.
    if (startsInside) while (wordCharacter.test(text[at] ?? '')) at++;
    at = text.indexOf(part, at);
  }
  return -1;
}

/**
 * Where a text that begins with the words of another goes on after them; -1 where it begins with
 * something else.
 */
export function afterWords(text: string, words: readonly string[]): number {
  let at = 0;
  for (const [i, word] of words.entries()) {
    const start = at + (/^\s*/.exec(text.slice(at, at + maxSpaces))?.[0].length ?? 0);
    if ((i > 0 && start === at) || !text.startsWith(word, start)) return -1;
    at = start + word.length;
  }
  return at;
}

/** More whitespace than between any two words that belong together. */
const maxSpaces = 256;

/** Number of characters that two texts begin with both. */
export function commonStart(a: string, b: string): number {
  const most = Math.min(a.length, b.length);
  let length = 0;
  while (length < most && a.charCodeAt(length) === b.charCodeAt(length)) length++;
  return length;
}
