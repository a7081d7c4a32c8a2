/** One panel of a figure: its axes, and the lines within. */
import { escapeMarkup } from '../text/markup.js';
import { lineClass } from './theme.js';
import { logTicks, ticks, type Ticks } from './ticks.js';

/** A line of a panel: `y` over `x`, broken where `y` is not finite. */
export interface Line {
  readonly x: ArrayLike<number>;
  readonly y: ArrayLike<number>;
  /** Ends of a bracket at each point, for instance quartiles. */
  readonly low?: ArrayLike<number>;
  readonly high?: ArrayLike<number>;
  /** Which of the legend's; it decides colour and dashes. */
  readonly index: number;
}

export interface Panel {
  readonly title: string;
  readonly lines: readonly Line[];
  /** Whether equal factors are equal steps, and what is not above 0 is left out. */
  readonly log?: boolean | undefined;
  /** Ends of the axis, beyond which nothing is drawn; default: where the values end. */
  readonly range?: readonly [from: number, to: number] | undefined;
}

export const axisRoom = 44;

export const plotHeight = 150;

export const titleRoom = 22;

type Point = readonly [x: number, y: number];

/** Two decimals: what an eye, and a change in a last bit, cannot move. */
export const fixed = (value: number): number => Math.round(value * 100) / 100 + 0;

/**
 * Drops the points that lie within `tolerance` pixels of the line through those that stay (Ramer,
 * Douglas and Peucker).
 */
function simplified(points: readonly Point[], tolerance: number): Point[] {
  const keep = new Set([0, points.length - 1]);
  const open: [number, number][] = [[0, points.length - 1]];
  for (let span = open.pop(); span; span = open.pop()) {
    const [first, last] = span;
    const [[x0, y0], [x1, y1]] = [points[first] as Point, points[last] as Point];
    const length = Math.hypot(x1 - x0, y1 - y0) || 1;
    let [farthest, distance] = [first, tolerance];
    for (let i = first + 1; i < last; i++) {
      const [x, y] = points[i] as Point;
      const away = Math.abs((x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)) / length;
      if (away > distance) [farthest, distance] = [i, away];
    }
    if (farthest === first) continue;
    keep.add(farthest);
    open.push([first, farthest], [farthest, last]);
  }
  return points.filter((_, i) => keep.has(i));
}

/** Beyond it nobody sees where a line goes. */
const farthest = 1e5;

/** The pieces of a line between its gaps. */
function pieces({ x, y }: Line, toX: (x: number) => number, toY: (y: number) => number): Point[][] {
  const all: Point[][] = [[]];
  for (let i = 0; i < x.length; i++) {
    const height = toY(y[i] as number);
    if (Number.isFinite(height))
      all
        .at(-1)
        ?.push([
          fixed(toX(x[i] as number)),
          fixed(Math.max(-farthest, Math.min(farthest, height))),
        ]);
    else all.push([]);
  }
  return all.filter((piece) => piece.length > 0);
}

/** The brackets at the points of a line, 6 pixels wide. */
function brackets(
  { x, low = [], high = [] }: Line,
  toX: (x: number) => number,
  toY: (y: number) => number,
): string {
  const end = (at: number, y: number): string => `M${fixed(at - 3)} ${fixed(y)}h6`;
  return Array.from(low, (bottom, i) => {
    const [at, y0, y1] = [toX(x[i] as number), toY(bottom), toY(high[i] as number)];
    return `${end(at, y0)}M${fixed(at)} ${fixed(y0)}V${fixed(y1)}${end(at, y1)}`;
  }).join('');
}

function valueTicks({ lines, log = false, range }: Panel): Ticks {
  if (range) return log ? logTicks(...range, false) : ticks(...range, 4, false);
  let [low, high] = [Infinity, -Infinity];
  for (const value of lines.flatMap(({ y, low: least = [], high: most = [] }) =>
    [y, least, most].flatMap((all) => Array.from(all)),
  )) {
    if (!Number.isFinite(value) || (log && value <= 0)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return log ? logTicks(1, 10, true) : ticks(0, 1, 4, true);
  if (log) return logTicks(low, high, true);
  // Differences that are rounding are none.
  const size = Math.max(Math.abs(low), Math.abs(high));
  return high - low <= 1e-9 * size ? ticks(low, low, 4, true) : ticks(low, high, 4, true);
}

export const text = (
  x: number,
  y: number,
  classes: string,
  content: string,
  anchor = 'start',
): string =>
  `<text class="${classes}" x="${fixed(x)}" y="${fixed(y)}"` +
  `${anchor === 'start' ? '' : ` text-anchor="${anchor}"`}>${escapeMarkup(content)}</text>`;

export function drawPanel(
  panel: Panel,
  across: Ticks,
  left: number,
  top: number,
  right: number,
  legend: readonly string[],
): string {
  const { title, lines, log = false, range } = panel;
  const up = valueTicks(panel);
  const place = (y: number): number => (!log ? y : y > 0 ? Math.log10(y) : NaN);
  const [bottom, end] = [place(up.from), place(up.to)];
  const [x0, y0, y1] = [left + axisRoom, top + titleRoom + plotHeight, top + titleRoom];
  const toX = (x: number): number =>
    x0 + ((x - across.from) / (across.to - across.from)) * (right - x0);
  const toY = (y: number): number => y0 - ((place(y) - bottom) / (end - bottom)) * (y0 - y1);
  // As one path each: there are more marks than anything else in a figure.
  const marks = [
    ...up.values.map(
      (value) => [value, `M${fixed(x0)} ${fixed(toY(value))}H${fixed(right)}`] as const,
    ),
    ...across.values.map((value) => [value, `M${fixed(toX(value))} ${y1}V${y0}`] as const),
  ];
  const rules = (classes: string, drawn: readonly (readonly [number, string])[]): string =>
    drawn.length === 0 ? '' : `<path class="${classes}" d="${drawn.map(([, d]) => d).join('')}"/>`;
  const scale = (
    { values, labels }: Ticks,
    anchor: 'end' | 'middle',
    at: (value: number) => readonly [x: number, y: number],
  ): string => {
    const texts = values.map((value, i) => {
      const [x, y] = at(value);
      return `<text x="${fixed(x)}" y="${fixed(y)}">${escapeMarkup(labels[i] ?? '')}</text>`;
    });
    return `<g class="da-soft da-small" text-anchor="${anchor}">${texts.join('')}</g>`;
  };
  const isOpen = range !== undefined || log;
  const [x, y, w, h] = [fixed(x0), fixed(y1), fixed(right - x0), fixed(y0 - y1)];
  return [
    text(x0, top + 13, 'da-ink', title),
    rules(
      'da-grid',
      marks.filter(([value]) => value !== 0),
    ) +
      rules(
        'da-zero',
        marks.filter(([value]) => value === 0),
      ),
    scale(up, 'end', (value) => [x0 - 6, toY(value) + 4]),
    scale(across, 'middle', (value) => [toX(value), y0 + 15]),
    // What may leave the panel is in an element of its own, which draws nothing outside of its box.
    isOpen
      ? `<svg x="${x}" y="${y}" width="${w}" height="${h}" viewBox="${x} ${y} ${w} ${h}">`
      : '',
    ...lines.map((line) => {
      const d = pieces(line, toX, toY)
        .map(
          (piece) =>
            `M${simplified(piece, 0.06)
              .map((point) => point.join(' '))
              .join('L')}`,
        )
        .join('');
      return (
        `<path ${lineClass(line.index)} d="${d}${brackets(line, toX, toY)}">` +
        `<title>${escapeMarkup(legend[line.index] ?? '')}</title></path>`
      );
    }),
    isOpen ? '</svg>' : '',
  ]
    .filter(Boolean)
    .join('\n');
}
