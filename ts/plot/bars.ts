import { escapeMarkup } from '../text/markup.js';

export interface Bar {
  readonly label: string;
  readonly value: string;
  /** Behind the value, where there is room. */
  readonly more?: string;
  /** Shares of the width: of the bar, and of a part drawn stronger. */
  readonly length: number;
  readonly strong: number;
  /** Shares of the width between which the quartiles lie. */
  readonly quartiles: readonly [q1: number, q3: number];
  readonly hint: string;
}

/** What a page with bars needs beside its own style. */
export const barStyle = `
.bars { display: block; width: 100%; margin-top: .75rem; overflow: visible;
  font: 13px system-ui, sans-serif; fill: var(--ink) }
.bars text { paint-order: stroke; stroke: var(--page); stroke-width: 4px }
.bars .soft { fill: var(--soft) }
.bars .grid { stroke: var(--line) }
.bars .whisker { stroke: var(--ink); stroke-width: 1.5; fill: none }
.bars .strong { fill: var(--c0) }
.bars .pale { fill: var(--c0); opacity: .35 }
@media (max-width: 30rem) { .bars { font-size: 12px } .bars .more { display: none } }
`;

/**
 * Lengths across are percentages and heights are pixels: bars stretch with the page, letters stay
 * as they are.
 */
const across = (share: number): string => `${(100 * share).toFixed(2)}%`;

/**
 * Labels stand above their bars, so that they have the whole width of a phone. A bracket spans the
 * quartiles of each.
 */
export function bars(
  title: string,
  list: readonly Bar[],
  grid: readonly (readonly [at: number, text: string])[] = [],
): string {
  const step = 44;
  const height = list.length * step;
  const lines = grid.map(
    ([at, text]) =>
      `<line class="grid" x1="${across(at)}" x2="${across(at)}" y1="0" y2="${height}"/>` +
      `<text class="soft" x="${across(at)}" y="${height + 16}" ` +
      `text-anchor="${at === 0 ? 'start' : at > 0.95 ? 'end' : 'middle'}">` +
      `${escapeMarkup(text)}</text>`,
  );
  const drawn = list.map(({ label, value, more = '', length, strong, quartiles, hint }, i) => {
    const y = i * step;
    const [q1, q3] = quartiles.map(across) as [string, string];
    const rule = (x1: string, x2: string, y1: number, y2: number): string =>
      `<line class="whisker" x1="${x1}" x2="${x2}" y1="${y1}" y2="${y2}"/>`;
    return (
      `<g><title>${escapeMarkup(hint)}</title>` +
      `<text x="0" y="${y + 16}">${escapeMarkup(label)}</text>` +
      `<text class="soft" x="100%" y="${y + 16}" text-anchor="end">${escapeMarkup(value)}` +
      `<tspan class="more">${escapeMarkup(more)}</tspan></text>` +
      `<rect class="pale" x="0" y="${y + 22}" width="${across(length)}" height="13" rx="2"/>` +
      `<rect class="strong" x="0" y="${y + 22}" width="${across(strong)}" height="13" rx="2"/>` +
      rule(q1, q3, y + 28.5, y + 28.5) +
      `${rule(q1, q1, y + 24, y + 33)}${rule(q3, q3, y + 24, y + 33)}</g>`
    );
  });
  return (
    `<svg class="bars" role="img" aria-label="${escapeMarkup(title)}" ` +
    `height="${height + (grid.length > 0 ? 24 : 4)}">` +
    `${lines.join('')}${drawn.join('')}</svg>`
  );
}
