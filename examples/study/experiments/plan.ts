/** How much of each experiment a scale has. */
import { grids, type Grids } from '../model/grids.js';
import type { Scale } from '../study.js';

export type OddsMethod = 'orpo' | 'asft';
/** The methods that have a one-stage form, and a likelihood term. */
export const oddsMethods: readonly OddsMethod[] = ['orpo', 'asft'];

export interface Plan extends Grids {
  readonly scale: Scale;
  /** Settings are chosen on these, and no figure is taken from them. */
  readonly searchSeeds: readonly number[];
  /** Behind every figure and interval. */
  readonly seeds: readonly number[];
  /** Of the experiment with shares of the demonstrations: the first of the same. */
  readonly shareSeeds: readonly number[];
  /** Per cent of the demonstrations, 100 last. */
  readonly shares: readonly number[];
}

/** Seed 1 is neither's: the sizes of model and data and the grids were laid out on it. */
const [firstSearchSeed, firstSeed] = [2, 11];

const sizes = {
  quick: { search: 1, seeds: 3, shareSeeds: 1, shares: [5, 100] },
  full: { search: 1, seeds: 5, shareSeeds: 3, shares: [1, 3, 5, 10, 25, 50, 100] },
} as const;

/** @param seeds - how many evaluation seeds, if not the scale's own number */
export function planOf(scale: Scale, seeds?: number): Plan {
  const size = sizes[scale];
  const all = range(firstSeed, seeds ?? size.seeds);
  return {
    scale,
    searchSeeds: range(firstSearchSeed, size.search),
    seeds: all,
    shareSeeds: all.slice(0, seeds ?? size.shareSeeds),
    shares: size.shares,
    ...grids[scale],
  };
}

function range(first: number, count: number): readonly number[] {
  return Array.from({ length: count }, (_, i) => first + i);
}
