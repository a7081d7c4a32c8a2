import { bandwidthLine, digits, machineLine, percent, settingLine, tablesOf } from './report.js';
import type { BenchResult } from './run.js';
import type { SweepPoint } from './sweep.js';

const escape = (text: string): string =>
  text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/"/g, '&quot;');

/** Lengths across are percentages and heights are pixels: bars stretch with the page, letters stay as they are. */
const across = (share: number): string => `${(100 * share).toFixed(2)}%`;

const style = `
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5d6878; --line: #dde2e9; --page: #fff; --one: #1f6feb; --pale: #b6d2fb; --two: #d9730d; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaf0; --soft: #9aa6b6; --line: #323a46; --page: #14181e; --one: #4c92ff; --pale: #2b4a78; --two: #f0994a; }
}
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 3rem; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.5rem; }
h2 { margin: 2.5rem 0 0.25rem; font-size: 1.15rem; }
p { margin: 0.25rem 0; color: var(--soft); }
svg { display: block; width: 100%; margin-top: 0.75rem; overflow: visible; font: 13px system-ui, sans-serif; fill: var(--ink); }
svg text { paint-order: stroke; stroke: var(--page); stroke-width: 4px; }
svg .soft { fill: var(--soft); }
svg .grid { stroke: var(--line); }
.one { fill: var(--one); stroke: var(--one); }
.two { fill: var(--two); stroke: var(--two); }
.pale { fill: var(--pale); }
rect { stroke: none; }
.key { display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.35em; border-radius: 2px; vertical-align: -0.05em; }
.key + span { margin-right: 1.2em; }
@media (max-width: 30rem) { svg { font-size: 12px; } .wide { display: none; } }
summary { margin-top: 2.5rem; cursor: pointer; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; white-space: nowrap; }
th, td { padding: 0.2rem 0.8rem 0.2rem 0; border-bottom: 1px solid var(--line); text-align: left; }
`;

const key = (colour: string, text: string): string =>
  `<i class="key" style="background: var(--${colour})"></i><span>${escape(text)}</span>`;

interface Bar {
  readonly label: string;
  readonly value: string;
  /** Behind the value, where there is room. */
  readonly more?: string;
  /** Share of the width, and of a part drawn stronger. */
  readonly length: number;
  readonly strong: number;
  readonly hint: string;
}

/** Labels stand above their bars, so that they have the whole width of a phone. */
function bars(title: string, list: readonly Bar[], grid: readonly (readonly [at: number, text: string])[] = []): string {
  const step = 44;
  const height = list.length * step;
  const lines = grid.map(
    ([at, text]) =>
      `<line class="grid" x1="${across(at)}" x2="${across(at)}" y1="0" y2="${height}"/>` +
      `<text class="soft" x="${across(at)}" y="${height + 16}" text-anchor="${at === 0 ? 'start' : at > 0.95 ? 'end' : 'middle'}">${escape(text)}</text>`,
  );
  const drawn = list.map(
    ({ label, value, more = '', length, strong, hint }, i) =>
      `<g><title>${escape(hint)}</title>` +
      `<text x="0" y="${i * step + 16}">${escape(label)}</text>` +
      `<text class="soft" x="100%" y="${i * step + 16}" text-anchor="end">${escape(value)}<tspan class="wide">${escape(more)}</tspan></text>` +
      `<rect class="pale" x="0" y="${i * step + 22}" width="${across(length)}" height="13" rx="2"/>` +
      `<rect class="one" x="0" y="${i * step + 22}" width="${across(strong)}" height="13" rx="2"/></g>`,
  );
  return (
    `<svg role="img" aria-label="${escape(title)}" height="${height + (grid.length > 0 ? 24 : 4)}">` +
    `${lines.join('')}${drawn.join('')}</svg>`
  );
}

function modeChart({ modes }: BenchResult): string {
  const longest = Math.max(...modes.map(({ ms }) => ms.median));
  return bars(
    'Median time of each mode and the time that memory alone needs',
    modes.map(({ title, dtype, fraction, ms, floorMs, share }) => ({
      label: `${title}, ${dtype}${fraction === 1 ? '' : `, ${percent(fraction)}`}`,
      value: `${digits(ms.median)} ms`,
      more: `, ${percent(share)}`,
      length: ms.median / longest,
      strong: Math.min(floorMs, ms.median) / longest,
      hint: `median ${digits(ms.median)} ms, quartiles ${digits(ms.q1)} to ${digits(ms.q3)}; memory alone ${digits(floorMs)} ms`,
    })),
  );
}

function peerChart({ peers }: BenchResult): string {
  const decades = Math.max(1, ...peers.map(({ ratio }) => Math.log10(ratio.value))) * 1.04;
  const at = (ratio: number): number => Math.max(0, Math.log10(ratio) / decades);
  const grid = [1, 10, 100, 1000, 10000].filter((ratio) => at(ratio) <= 1).map((ratio) => [at(ratio), `${ratio} x`] as const);
  return bars(
    'Time of each peer over ours, on a logarithmic scale',
    [...peers]
      .sort((a, b) => a.ratio.value - b.ratio.value)
      .map(({ title, ratio, work, ms, version }) => ({
        label: title,
        value: `${digits(ratio.value)} x`,
        length: at(ratio.value),
        strong: at(ratio.value),
        hint: `${version}: ${work}, ${digits(ms.median)} ms; quartiles of the ratio ${digits(ratio.q1)} to ${digits(ratio.q3)}`,
      })),
    grid,
  );
}

/** Two lines over places as far apart as each other: the numbers on that axis double from one to the next. */
function lineChart(title: string, points: readonly SweepPoint[], along: 'vocab' | 'rows'): string {
  const height = 180;
  const top = Math.max(...points.flatMap(({ forward, inPlace }) => [forward, inPlace]));
  const unit = niceStep(top / 4);
  const steps = Math.ceil((top * 1.02) / unit);
  const x = (i: number): string => across(0.1 + (0.86 * i) / Math.max(1, points.length - 1));
  const y = (ns: number): string => (10 + (height - 10) * (1 - ns / (steps * unit))).toFixed(1);
  const grid = Array.from({ length: steps + 1 }, (_, i) => {
    const ns = Number((i * unit).toPrecision(3));
    return (
      `<line class="grid" x1="0" x2="100%" y1="${y(ns)}" y2="${y(ns)}"/>` +
      `<text class="soft" x="0" y="${Number(y(ns)) - 3}">${ns}</text>`
    );
  });
  // More names than eight would touch on a phone.
  const every = Math.ceil(points.length / 8);
  const names = points.map((point, i) =>
    (points.length - 1 - i) % every === 0
      ? `<text class="soft" x="${x(i)}" y="${height + 18}" text-anchor="middle">${short(point[along])}</text>`
      : '',
  );
  const line = (colour: string, field: 'forward' | 'inPlace'): string =>
    points
      .map((point, i) => {
        const next = points[i + 1];
        const to = next
          ? `<line class="${colour}" stroke-width="2" x1="${x(i)}" y1="${y(point[field])}" x2="${x(i + 1)}" y2="${y(next[field])}"/>`
          : '';
        const hint = `${point.rows} rows of ${point.vocab}: ${digits(point[field])} ns per logit`;
        return `${to}<circle class="${colour}" cx="${x(i)}" cy="${y(point[field])}" r="3"><title>${hint}</title></circle>`;
      })
      .join('');
  return (
    `<svg role="img" aria-label="${escape(title)}" height="${height + 26}">` +
    `${grid.join('')}${names.join('')}${line('two', 'inPlace')}${line('one', 'forward')}</svg>`
  );
}

/** 1, 2 or 5 times a power of ten, at least the given length. */
function niceStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(least));
  return ([1, 2, 5].find((n) => n * power >= least) ?? 10) * power;
}

const short = (n: number): string => (n >= 1000 ? `${Number((n / 1000).toFixed(1))}k` : String(n));

/** One page with charts and tables that needs nothing else: no scripts, no fonts, no network. */
export function htmlReport(result: BenchResult): string {
  const { peers, sweep } = result;
  const section = (title: string, note: string, chart: string): string =>
    `<section><h2>${escape(title)}</h2><p>${note}</p>${chart}</section>`;
  const sections = [
    section(
      'Time of each mode',
      `${key('one', 'what the memory loops of the same run need for the bytes')} ${key('pale', 'the rest')}` +
        '<br>Median, and the share of the measured bandwidth. Where a percentage stands by the name, only so many rows are scored.',
      modeChart(result),
    ),
  ];
  if (peers.length > 0) {
    sections.push(
      section(
        'Other implementations',
        'Their time over ours for the same work, on a logarithmic scale. Losses and gradients agree.',
        peerChart(result),
      ),
    );
  }
  if (sweep) {
    const keys = `${key('one', 'loss only')} ${key('two', 'gradient in place')}<br>Nanoseconds per logit`;
    sections.push(
      section(
        'Over the vocabulary',
        `${keys}, the same number of logits throughout.`,
        lineChart('Nanoseconds per logit over the vocabulary', sweep.overVocab, 'vocab'),
      ),
      section(
        'Over the rows',
        `${keys}, vocabulary ${result.setting.vocab}. With few rows the cost of a call shows.`,
        lineChart('Nanoseconds per logit over the rows', sweep.overRows, 'rows'),
      ),
    );
  }
  const tables = tablesOf(result).map(
    ({ title, head, rows, note }) =>
      `<h2>${escape(title)}</h2><div class="scroll"><table><thead><tr>${cells('th', head)}</tr></thead>` +
      `<tbody>${rows.map((row) => `<tr>${cells('td', row)}</tr>`).join('\n')}</tbody></table></div>` +
      (note ? `<p>${escape(note)}</p>` : ''),
  );
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>diralign bench</title>
<style>${style}</style>
</head>
<body>
<h1>diralign bench</h1>
<p>${escape(machineLine(result.machine))}</p>
<p>${escape(settingLine(result))}. Memory: ${escape(bandwidthLine(result))}.</p>
${sections.join('\n')}
<details><summary>All numbers</summary>
${tables.join('\n')}
</details>
</body>
</html>
`;
}

const cells = (tag: 'th' | 'td', texts: readonly string[]): string =>
  texts.map((text) => `<${tag}>${escape(text)}</${tag}>`).join('');
