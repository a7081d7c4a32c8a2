/** The curves of `diralign plot`, as a table and as JSON. */
import type { Curve } from '../plot/curves.js';
import type { Plot } from '../plot/figure.js';
import { labelsOf } from '../plot/labels.js';
import { digits, table, wrap, type Cell } from '../text/table.js';
import { paint } from '../text/terminal.js';
import { optionsOf } from './choice.js';
import type { PlotRequest } from './plot-request.js';

export function jsonOf(curve: Curve) {
  const { series, ...data } = curve;
  const { objective } = series;
  return {
    method: objective.method,
    beta: objective.beta,
    normalize: objective.normalize,
    options: optionsOf(objective),
    ...data,
    unit: data.perToken ? 'nats per token' : 'nats',
  };
}

/** A curve as a line of text sees it. */
function sparkline(values: Float64Array): string {
  const finite = values.filter(Number.isFinite);
  const low = finite.reduce((a, b) => Math.min(a, b), Infinity);
  const high = finite.reduce((a, b) => Math.max(a, b), -Infinity);
  const cells = 16;
  return Array.from({ length: cells }, (_, i) => {
    const value = values[Math.round((i * (values.length - 1)) / (cells - 1))] ?? NaN;
    if (!Number.isFinite(value)) return ' ';
    // What differs by rounding is flat.
    const flat = high - low <= 1e-9 * Math.max(Math.abs(low), Math.abs(high));
    const share = flat ? 0 : (value - low) / (high - low);
    return String.fromCodePoint(0x2581 + Math.round(share * 7));
  }).join('');
}

export function summary({ groups }: Plot, { series, leftOut, out }: PlotRequest): string {
  const { common, labels } = labelsOf(series);
  const manyMethods = new Set(series.map(({ info }) => info.name)).size > 1;
  const rows = groups.flatMap(({ curves }) =>
    curves.map((curve): Cell[] => {
      const { over, perToken, x, loss, gradChosen, gradRejected } = curve;
      const label = labels[series.indexOf(curve.series)] ?? '';
      const middle = (x.length - 1) >> 1;
      const at = (values: Float64Array | undefined, i: number): string =>
        values ? digits(values[i] ?? NaN, 4) : '-';
      return [
        {
          text:
            manyMethods || label === curve.series.info.name
              ? label
              : `${curve.series.info.name}, ${label}`,
          style: 'bold',
        },
        `${over}${perToken ? ' per token' : ''}`,
        at(x, 0),
        at(x, x.length - 1),
        sparkline(loss),
        at(loss, 0),
        at(loss, middle),
        at(loss, x.length - 1),
        at(gradChosen, middle),
        at(gradRejected, middle),
      ];
    }),
  );
  const point = (title: string) => ({ title, align: 'point' as const });
  const columns = [
    ...[{ title: 'objective' }, { title: 'over' }, point('from'), point('to'), { title: 'loss' }],
    ...[
      point('first'),
      point('middle'),
      point('last'),
      point('dloss/dchosen, middle'),
      point('dloss/drejected'),
    ],
  ];
  const notes = [
    common,
    leftOut.length > 0 ? `Left out, for it has chosen sequences only: ${leftOut.join(', ')}.` : '',
    out === undefined ? 'Nothing was written; --out FILE.svg or FILE.png draws the figure.' : '',
  ];
  return [
    table(columns, rows),
    '',
    ...notes.filter(Boolean).map((note) => paint('dim', wrap(note))),
  ]
    .join('\n')
    .trimEnd();
}
