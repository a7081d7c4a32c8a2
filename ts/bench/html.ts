import { bars, barStyle } from '../plot/bars.js';
import { htmlPage, inlineSvg } from '../plot/page.js';
import type { Line } from '../plot/panel.js';
import { toSvg, type PanelRow } from '../plot/svg.js';
import { escapeMarkup } from '../text/markup.js';
import {
  bandwidthLine,
  digits,
  inconclusiveNote,
  isConclusive,
  machineLine,
  percent,
  quartiles,
  settingLine,
  tablesOf,
} from './report.js';
import type { BenchResult } from './run.js';
import type { Sweep, SweepPoint } from './sweep.js';

const style = `${barStyle}
p { margin: .25rem 0; color: var(--soft) }
.key { display: inline-block; width: .8em; height: .8em; margin-right: .35em;
  border-radius: 2px; vertical-align: -.05em; background: var(--c0) }
.key.pale { opacity: .35 }
.key + span { margin-right: 1.2em }
.wide .da { min-width: 40rem; max-width: 100% }
summary { margin-top: 2.5rem; cursor: pointer }
table { white-space: nowrap }
`;

const key = (kind: '' | ' pale', text: string): string =>
  `<i class="key${kind}"></i><span>${escapeMarkup(text)}</span>`;

function modeChart({ modes }: BenchResult): string {
  const longest = Math.max(...modes.map(({ ms }) => ms.q3));
  return bars(
    'Median time of each mode with quartiles, and the time that memory alone needs',
    modes.map(({ title, dtype, fraction, ms, floorMs, share }) => ({
      label: `${title}, ${dtype}${fraction === 1 ? '' : `, ${percent(fraction)}`}`,
      value: `${digits(ms.median)} ms`,
      more: isConclusive(ms) ? `, ${percent(share)}` : '',
      length: ms.median / longest,
      strong: isConclusive(ms) ? Math.min(floorMs, ms.median) / longest : 0,
      quartiles: [ms.q1 / longest, ms.q3 / longest] as const,
      hint:
        `median ${digits(ms.median)} ms, quartiles ${quartiles(ms)}; ` +
        `memory alone ${digits(floorMs)} ms`,
    })),
  );
}

function peerChart({ peers }: BenchResult): string {
  const decades =
    Math.max(1, ...peers.map(({ ratio }) => Math.log10(Math.max(ratio.value, ratio.q3)))) * 1.04;
  const at = (ratio: number): number => Math.max(0, Math.log10(ratio) / decades);
  const grid = [1, 10, 100, 1000, 10000]
    .filter((ratio) => at(ratio) <= 1)
    .map((ratio) => [at(ratio), `${ratio} x`] as const);
  return bars(
    'Time of each peer over ours with quartiles, on a logarithmic scale',
    [...peers]
      .sort((a, b) => a.ratio.value - b.ratio.value)
      .map(({ title, ratio, work, ms, version }) => ({
        label: title,
        value: isConclusive(ratio) ? `${digits(ratio.value)} x` : 'no conclusion',
        length: 0,
        strong: isConclusive(ratio) ? at(ratio.value) : 0,
        quartiles: [at(ratio.q1), at(ratio.q3)] as const,
        hint:
          `${version}: ${work}, ${digits(ms.median)} ms; ` +
          `quartiles of the ratio ${quartiles(ratio)}`,
      })),
    grid,
  );
}

const short = (n: number): string => (n >= 1000 ? `${Number((n / 1000).toFixed(1))}k` : String(n));

/** One row of the figure: medians and quartiles over numbers that double from one to the next. */
function sweepRow(
  points: readonly SweepPoint[],
  along: 'vocab' | 'rows',
  axis: string,
): PanelRow[] {
  if (points.length === 0) return [];
  const x = points.map((point) => Math.log2(point[along]));
  const line = (index: number, field: 'forward' | 'inPlace'): Line => {
    const all = points.map((point) => point[field]);
    return {
      index,
      x,
      y: all.map(({ median }) => median),
      low: all.map(({ q1 }) => q1),
      high: all.map(({ q3 }) => q3),
    };
  };
  const range = [Math.min(...x) - 0.5, Math.max(...x) + 0.5] as const;
  const across = {
    from: range[0],
    to: range[1],
    values: x,
    labels: points.map((point) => short(point[along])),
  };
  return [
    {
      axis,
      range,
      across,
      panels: [{ title: 'nanoseconds per logit', lines: [line(0, 'forward'), line(1, 'inPlace')] }],
    },
  ];
}

function sweepChart({ setting }: BenchResult, { overVocab, overRows }: Sweep): string {
  const rows = [
    ...sweepRow(overVocab, 'vocab', 'vocabulary, with the same number of logits throughout'),
    ...sweepRow(overRows, 'rows', `rows, with a vocabulary of ${setting.vocab}`),
  ];
  const figure = { title: 'Nanoseconds per logit', subtitle: 'medians and quartiles' };
  return inlineSvg(
    toSvg({ ...figure, blocks: [{ legend: ['loss only', 'gradient in place'], rows }] }),
  );
}

/** One page with charts and tables that needs nothing else. */
export function htmlReport(result: BenchResult): string {
  const { modes, peers, sweep } = result;
  const section = (title: string, notes: readonly string[], chart: string): string =>
    `<section><h2>${escapeMarkup(title)}</h2>` +
    `${notes.map((note) => (note ? `<p>${note}</p>` : '')).join('')}${chart}</section>`;
  const sections = [
    section(
      'Time of each mode',
      [
        `${key('', 'what the memory loops of the same run need for the bytes')} ` +
          key(' pale', 'the rest'),
        'Median with quartiles, and the share of the measured bandwidth. ' +
          'Where a percentage stands by the name, only so many rows are scored.',
        inconclusiveNote(modes.map(({ ms }) => ms)),
      ],
      modeChart(result),
    ),
  ];
  if (peers.length > 0) {
    const notes = [
      'Their time over ours for the same work, on a logarithmic scale. Losses and gradients agree.',
    ];
    notes.push(inconclusiveNote(peers.map(({ ratio }) => ratio)));
    sections.push(section('Other implementations', notes, peerChart(result)));
  }
  if (sweep) {
    const points = [...sweep.overVocab, ...sweep.overRows].map(({ forward }) => forward);
    sections.push(
      section(
        'Linearity',
        [inconclusiveNote(points)],
        `<div class="wide">${sweepChart(result, sweep)}</div>`,
      ),
    );
  }
  const cells = (tag: 'th' | 'td', texts: readonly string[]): string =>
    texts.map((text) => `<${tag}>${escapeMarkup(text)}</${tag}>`).join('');
  const tables = tablesOf(result).map(
    ({ title, head, rows, note }) =>
      `<h2>${escapeMarkup(title)}</h2><div class="wide"><table>` +
      `<thead><tr>${cells('th', head)}</tr></thead>` +
      `<tbody>${rows.map((row) => `<tr>${cells('td', row)}</tr>`).join('\n')}</tbody>` +
      '</table></div>' +
      (note ? `<p>${escapeMarkup(note)}</p>` : ''),
  );
  const intro = `<p>${escapeMarkup(machineLine(result.machine))}</p>
<p>${escapeMarkup(settingLine(result))}. Memory: ${escapeMarkup(bandwidthLine(result))}.</p>`;
  const numbers = `<details><summary>All numbers</summary>\n${tables.join('\n')}\n</details>`;
  return htmlPage('diralign bench', style, [intro, ...sections, numbers].join('\n'));
}
