import { escapeMarkup } from '../text/markup.js';
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

/** Panels side by side over one axis. */
export interface PanelRow {
  readonly axis: string;
  readonly range: readonly [from: number, to: number];
  /** Default: marks of round numbers within the range. */
  readonly across?: Ticks;
  readonly panels: readonly Panel[];
}

/** Rows with one legend. */
export interface Block {
  readonly heading?: string | undefined;
  readonly legend: readonly string[];
  readonly rows: readonly PanelRow[];
}

export interface Figure {
  readonly title: string;
  readonly subtitle: string;
  readonly blocks: readonly Block[];
}

/** Colours of a page, of what is written and drawn on it, and of the lines. */
export interface Theme {
  readonly page: string;
  readonly ink: string;
  readonly soft: string;
  readonly grid: string;
  readonly zero: string;
  readonly lines: readonly string[];
}

// Searched for: each line stands out from its page by 3:1, and any two differ by 36 in CIELAB or
// more, for readers without one of the three kinds of cone, too.
export const light: Theme = {
  ...{ page: '#ffffff', ink: '#1c2430', soft: '#556070', grid: '#e3e7ed', zero: '#8d97a5' },
  lines: ['#1038ee', '#d7790f', '#00a877', '#ae7dc7', '#663500', '#1c2430'],
};
export const dark: Theme = {
  ...{ page: '#14181e', ink: '#e6eaf0', soft: '#a3aebd', grid: '#2b323d', zero: '#7a8596' },
  lines: ['#8581e9', '#d34400', '#2ddf81', '#b85589', '#f8c500', '#e6eaf0'],
};
/** When the colours begin again. */
const dashes = ['', '7 3', '2 3', '9 3 2 3'];

const width = 840;
const margin = 18;
const gap = 14;
const axisRoom = 44;
const plotHeight = 150;
const titleRoom = 22;
const tickRoom = 18;
const axisTitleRoom = 20;
/** A wide guess at the width of a letter, for what has to break. */
const letter = 6.6;

function themeRules({ page, ink, soft, grid, zero, lines }: Theme): string {
  const strokes = lines.map((colour, i) => `.da-c${i}{stroke:${colour}}`).join('');
  return `.da-page{fill:${page}}.da-ink{fill:${ink}}.da-soft{fill:${soft}}.da-grid{stroke:${grid}}.da-zero{stroke:${zero}}${strokes}`;
}

/**
 * Every class begins with `da-`: in a page that includes the figure, its rules must meet nothing
 * else. Properties are written out, for renderers that do not read the shorthand `font`.
 */
const style =
  '.da{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;font-size:12px}.da-title{font-size:16px;font-weight:600}' +
  '.da-head{font-size:13px;font-weight:600}.da-small{font-size:11px}.da-line{fill:none;stroke-width:1.9;stroke-linejoin:round}' +
  `${themeRules(light)}@media (prefers-color-scheme:dark){${themeRules(dark)}}`;

type Point = readonly [x: number, y: number];

/** Two decimals: what an eye, and a change in a last bit, cannot move. */
const fixed = (value: number): number => Math.round(value * 100) / 100 + 0;

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

function lineClass(index: number): string {
  const dash = dashes[Math.floor(index / light.lines.length) % dashes.length];
  return `class="da-line da-c${index % light.lines.length}"${dash ? ` stroke-dasharray="${dash}"` : ''}`;
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

const text = (x: number, y: number, classes: string, content: string, anchor = 'start'): string =>
  `<text class="${classes}" x="${fixed(x)}" y="${fixed(y)}"${anchor === 'start' ? '' : ` text-anchor="${anchor}"`}>${escapeMarkup(content)}</text>`;

function drawPanel(
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
  const mark = (x: number, y: number, label: string | undefined): string =>
    `<text x="${fixed(x)}" y="${fixed(y)}">${escapeMarkup(label ?? '')}</text>`;
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
    `<g class="da-soft da-small" text-anchor="end">${up.values.map((value, i) => mark(x0 - 6, toY(value) + 4, up.labels[i])).join('')}</g>`,
    `<g class="da-soft da-small" text-anchor="middle">${across.values.map((value, i) => mark(toX(value), y0 + 15, across.labels[i])).join('')}</g>`,
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
      return `<path ${lineClass(line.index)} d="${d}${brackets(line, toX, toY)}"><title>${escapeMarkup(legend[line.index] ?? '')}</title></path>`;
    }),
    isOpen ? '</svg>' : '',
  ]
    .filter(Boolean)
    .join('\n');
}

interface Drawn {
  readonly svg: string;
  readonly height: number;
}

function drawLegend(legend: readonly string[], top: number): Drawn {
  // One line needs no name but the title's.
  if (legend.length < 2) return { svg: '', height: 0 };
  const [sample, space] = [26, 22];
  let [x, y] = [margin, top + 12];
  const entries = legend.map((label, i) => {
    const length = sample + label.length * letter;
    if (x > margin && x + length > width - margin) [x, y] = [margin, y + 18];
    const entry = `<path ${lineClass(i)} d="M${fixed(x)} ${y - 4}h20"/>${text(x + sample, y, 'da-ink', label)}`;
    x += length + space;
    return entry;
  });
  return { svg: entries.join('\n'), height: y + 14 - top };
}

function drawRow(
  { axis, range, panels, across = ticks(...range, panels.length > 2 ? 4 : 5, false) }: PanelRow,
  legend: readonly string[],
  top: number,
): Drawn {
  const each = (width - 2 * margin - gap * (panels.length - 1)) / panels.length;
  const drawn = panels.map((panel, i) => {
    const left = margin + i * (each + gap);
    // Room for half of the last mark's number.
    return drawPanel(panel, across, left, top, left + each - 10, legend);
  });
  const height = titleRoom + plotHeight + tickRoom + axisTitleRoom;
  drawn.push(text(width / 2, top + height - 4, 'da-soft', axis, 'middle'));
  return { svg: drawn.join('\n'), height: height + 14 };
}

/** Words on lines that fit the figure. */
function wrapped(words: string, perLetter = letter): string[] {
  const most = Math.floor((width - 2 * margin) / perLetter);
  return words.split(' ').reduce<string[]>((lines, word) => {
    const last = lines.at(-1);
    if (last === undefined || last.length + 1 + word.length > most) return [...lines, word];
    return [...lines.slice(0, -1), `${last} ${word}`];
  }, []);
}

/**
 * A figure as a document of its own, the same bytes for the same numbers. It follows the reader's
 * light or dark scheme, and has a white page where a program knows neither.
 */
export function toSvg({ title, subtitle, blocks }: Figure): string {
  const body: string[] = [];
  let y = margin;
  for (const line of wrapped(title, 9)) body.push(text(margin, (y += 16), 'da-ink da-title', line));
  for (const line of subtitle === '' ? [] : wrapped(subtitle))
    body.push(text(margin, (y += 18), 'da-soft', line));
  y += 14;
  for (const { heading, legend, rows } of blocks) {
    if (heading !== undefined)
      for (const line of wrapped(heading, 7.4))
        body.push(text(margin, (y += 14), 'da-ink da-head', line));
    if (heading !== undefined) y += 8;
    const parts = [
      (top: number) => drawLegend(legend, top),
      ...rows.map((row) => (top: number) => drawRow(row, legend, top)),
    ];
    for (const part of parts) {
      const { svg, height } = part(y);
      if (svg !== '') body.push(svg);
      y += height;
    }
  }
  const height = fixed(y);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" class="da" role="img" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">`,
    `<title>${escapeMarkup(title)}</title>`,
    `<desc>${escapeMarkup([subtitle, ...blocks.map(({ legend }) => legend.join(', '))].filter(Boolean).join('; '))}</desc>`,
    `<style>${style}</style>`,
    `<rect class="da-page" width="${width}" height="${height}"/>`,
    ...body,
    '</svg>\n',
  ].join('\n');
}
