/**
 * The words of the records. An item says one field's value in one word, so that a fact is a token
 * and the model's task is what to say.
 */

/** In the canonical order of a summary. */
const fields = {
  ship: ['Aurora', 'Brise', 'Cutter', 'Delfin', 'Ester'],
  from: ['Bergen', 'Gdansk', 'Kiel', 'Riga', 'Turku'],
  to: ['Antwerp', 'Bilbao', 'Cork', 'Dover', 'Esbjerg'],
  cargo: ['barley', 'copper', 'glass', 'timber', 'wool'],
  tonnes: ['20', '40', '80', '160', '320'],
  day: ['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday'],
  master: ['Adler', 'Berg', 'Claes', 'Duval', 'Ekman'],
  flag: ['Danish', 'Dutch', 'Finnish', 'Polish', 'Swedish'],
} as const;

export const fieldCount = Object.keys(fields).length;
export const valueCount = 5;
export const itemCount = fieldCount * valueCount;

const items = Object.entries(fields).flatMap(([field, values]) =>
  values.map((value) => `${field}=${value}`),
);
const fillers = ['well', 'so', 'then', 'also', 'noted', 'erm'] as const;

/** Token ids are indices. Items come first, in canonical order. */
export const vocabulary: readonly string[] = [
  ...items,
  'no:',
  'rumour:',
  ...fillers,
  'summary:',
  'end',
];

/** The item after it replaces what was said of its field before. */
export const correction = vocabulary.indexOf('no:');
/** The item after it is no fact. */
export const rumour = vocabulary.indexOf('rumour:');
export const firstFiller = vocabulary.indexOf('well');
export const fillerCount = fillers.length;
/** Begins every summary. */
export const summaryStart = vocabulary.indexOf('summary:');
/** Ends every summary. */
export const summaryEnd = vocabulary.indexOf('end');

export function itemOf(field: number, value: number): number {
  return field * valueCount + value;
}

export function fieldOf(item: number): number {
  return Math.floor(item / valueCount);
}

export function isItem(token: number): boolean {
  return token < itemCount;
}

export function textOf(tokens: readonly number[]): string {
  return tokens.map((token) => vocabulary[token]).join(' ');
}
