/** What the charts of several experiments share. */
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
