/** What the charts of several experiments share. */
import type { TopLevelSpec } from 'vega-lite';
import type { Interval } from '../statistics.js';

/** Colours by kind of ranking mean the same in every chart. */
export const rankingColor = {
  field: 'ranking',
  type: 'nominal',
  title: 'ranking',
  scale: { domain: ['pairwise', 'pointwise'] },
  legend: { orient: 'top' },
} as const;

/** Ends of an interval, for error bars. One seed has none. */
export function ends({ mean, halfWidth }: Interval): {
  readonly mean: number;
  readonly low: number;
  readonly high: number;
} {
  const half = Number.isFinite(halfWidth) ? halfWidth : 0;
  return { mean, low: mean - half, high: mean + half };
}

export const qualityAxis = { title: 'quality (judge, 0 to 1)', scale: { zero: false } } as const;

export const betaAxis = {
  title: 'beta',
  scale: { type: 'log', nice: false, padding: 12 },
  axis: { tickCount: 5, grid: false },
} as const;

/** An interval, named, and what kind of model it is of. */
export interface Bar {
  readonly label: string;
  readonly form: string;
  readonly found: Interval;
}

/** Qualities with their 95 % intervals, one below another; `domain`: the forms. */
export function intervalChart(bars: readonly Bar[], domain: readonly string[]): TopLevelSpec {
  const values = bars.map(({ label, form, found }) => ({ label, form, ...ends(found) }));
  const y = { field: 'label', type: 'nominal', title: null, sort: null } as const;
  const color = {
    field: 'form',
    type: 'nominal',
    title: null,
    scale: { domain: [...domain] },
    legend: { orient: 'top', columns: 2 },
  } as const;
  return {
    width: 380,
    height: { step: 26 },
    data: { values },
    layer: [
      {
        mark: { type: 'rule', strokeWidth: 2 },
        encoding: {
          y,
          color,
          x: { field: 'low', type: 'quantitative', ...qualityAxis },
          x2: { field: 'high' },
        },
      },
      { mark: 'point', encoding: { y, color, x: { field: 'mean', type: 'quantitative' } } },
    ],
  };
}
