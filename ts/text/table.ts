import { paint, screenWidth, type Style } from './terminal.js';

export interface Column {
  readonly title: string;
  /** `'point'`: numbers one above the other by their decimal point. */
  readonly align?: 'left' | 'right' | 'point';
}
export type Cell = string | { readonly text: string; readonly style: Style };

const textOf = (cell: Cell | undefined): string =>
  typeof cell === 'object' ? cell.text : (cell ?? '');

/** What stands behind the decimal point, the point included; an exponent belongs to it. */
function tail(text: string): number {
  const number = /^[-+]?\d+/.exec(text)?.[0];
  return number === undefined ? 0 : text.length - number.length;
}

/** Pads the cells of a column to one width. */
function fit(texts: readonly string[], align: Column['align']): string[] {
  const longest = Math.max(...texts.slice(1).map(tail));
  const placed = texts.map((text, i) =>
    align === 'point' && i > 0 ? text + ' '.repeat(longest - tail(text)) : text,
  );
  const width = Math.max(...placed.map((text) => text.length));
  return placed.map((text) =>
    align === 'right' || align === 'point' ? text.padStart(width) : text.padEnd(width),
  );
}

const gap = '  ';

/**
 * Columns two spaces apart, titles above, no lines to read around. What is wider than the screen
 * goes below, in as many parts as it takes, each with the first column.
 */
export function table(
  columns: readonly Column[],
  rows: readonly (readonly Cell[])[],
  width = screenWidth(),
): string {
  const fitted = columns.map(({ title, align }, c) =>
    fit([title, ...rows.map((row) => textOf(row[c]))], align),
  );
  return parts(
    fitted.map(([title = '']) => title.length),
    width,
  )
    .map((shown) => draw(shown, fitted, rows))
    .join('\n\n');
}

/** Indices of the columns that fit beside the first. */
function parts([first = 0, ...others]: readonly number[], width: number): number[][] {
  const all: number[][] = [[0]];
  let used = first;
  for (const [i, length] of others.entries()) {
    const part = all.at(-1) as number[];
    if (part.length > 1 && used + gap.length + length > width) {
      all.push([0, i + 1]);
      used = first + gap.length + length;
    } else {
      part.push(i + 1);
      used += gap.length + length;
    }
  }
  return all;
}

function draw(
  shown: readonly number[],
  fitted: readonly (readonly string[])[],
  rows: readonly (readonly Cell[])[],
): string {
  const lines = ['', ...rows].map((_, r) =>
    shown
      .map((c) => {
        const text = fitted[c]?.[r] ?? '';
        const cell = r === 0 ? { text, style: 'dim' as const } : rows[r - 1]?.[c];
        return typeof cell === 'object' ? paint(cell.style, text) : text;
      })
      .join(gap)
      .trimEnd(),
  );
  return lines.join('\n');
}

/** Words on lines of the screen, each but the first indented. */
export function wrap(text: string, indent = 0, width = screenWidth()): string {
  const lines = text.split(' ').reduce<string[]>((all, word) => {
    const last = all.at(-1);
    const room = width - (all.length > 1 ? indent : 0);
    if (last === undefined || last.length + 1 + word.length > room) return [...all, word];
    return [...all.slice(0, -1), `${last} ${word}`];
  }, []);
  return lines.join(`\n${' '.repeat(indent)}`);
}

/** Names and values, one a line. */
export function list(entries: readonly (readonly [name: string, value: string])[]): string {
  const width = Math.max(...entries.map(([name]) => name.length));
  return entries
    .map(([name, value]) => `${paint('dim', name.padEnd(width))}  ${value}`.trimEnd())
    .join('\n');
}

/** Six significant digits, in powers of ten only where plain digits would be many. */
export function digits(value: number, significant = 6): string {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  return size >= 1e-4 && size < 10 ** significant
    ? value.toPrecision(significant)
    : value.toExponential(significant - 1);
}

/** `1 pair`, `2 pairs`. */
export function plural(count: number, noun: string): string {
  return `${count.toLocaleString('en')} ${noun}${count === 1 ? '' : 's'}`;
}
