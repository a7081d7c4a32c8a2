/** A figure as an SVG document: blocks with a legend, rows of panels. */
import { escapeMarkup } from '../text/markup.js';
import { drawPanel, fixed, plotHeight, text, titleRoom, type Panel } from './panel.js';
import { lineClass, style } from './theme.js';
import { ticks, type Ticks } from './ticks.js';

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

const width = 840;

const margin = 18;

const gap = 14;

const tickRoom = 18;

const axisTitleRoom = 20;

/** A wide guess at the width of a letter, for what has to break. */
const letter = 6.6;

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
    const entry =
      `<path ${lineClass(i)} d="M${fixed(x)} ${y - 4}h20"/>` + text(x + sample, y, 'da-ink', label);
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
  const legends = blocks.map(({ legend }) => legend.join(', '));
  const description = [subtitle, ...legends].filter(Boolean).join('; ');
  return [
    '<svg xmlns="http://www.w3.org/2000/svg" class="da" role="img" ' +
      `viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">`,
    `<title>${escapeMarkup(title)}</title>`,
    `<desc>${escapeMarkup(description)}</desc>`,
    `<style>${style}</style>`,
    `<rect class="da-page" width="${width}" height="${height}"/>`,
    ...body,
    '</svg>\n',
  ].join('\n');
}
