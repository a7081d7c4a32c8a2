/** How much of each experiment a scale has. */
import type { AlignmentMethod } from '../model/tasks.js';
import type { Scale } from '../study.js';

export type OddsMethod = 'orpo' | 'asft';
/** The methods that have a one-stage form, and a likelihood term. */
export const oddsMethods: readonly OddsMethod[] = ['orpo', 'asft'];

export interface Plan {
  readonly scale: Scale;
  /** Settings are chosen on these, and no figure is taken from them. */
  readonly searchSeeds: readonly number[];
  /** Behind every figure and interval. */
  readonly seeds: readonly number[];
  /** Of the experiment with shares of the demonstrations: the first of the same. */
  readonly shareSeeds: readonly number[];
  /** After SFT. */
  readonly learningRates: readonly number[];
  /** From the base model, in one stage. */
  readonly baseLearningRates: readonly number[];
  /** After SFT, as many for every method; 1, which is no tempering, is among those of orpo and asft. */
  readonly betas: Readonly<Record<AlignmentMethod, readonly number[]>>;
  /** Of the sweeps. */
  readonly sweptBetas: Readonly<Record<OddsMethod, readonly number[]>>;
  /** Per cent of the demonstrations, 100 last. */
  readonly shares: readonly number[];
}

const firstSearchSeed = 101;

const sizes = {
  quick: { search: 1, seeds: 3, shareSeeds: 2, shares: [5, 100] },
  full: { search: 1, seeds: 5, shareSeeds: 3, shares: [1, 3, 5, 10, 25, 50, 100] },
} as const;

/** @param seeds - how many evaluation seeds, if not the scale's own number */
export function planOf(scale: Scale, seeds?: number): Plan {
  const size = sizes[scale];
  const all = range(1, seeds ?? size.seeds);
  return {
    scale,
    searchSeeds: range(firstSearchSeed, size.search),
    seeds: all,
    shareSeeds: all.slice(0, seeds ?? size.shareSeeds),
    shares: size.shares,
    ...grids[scale],
  };
}

type Grid = Pick<Plan, 'learningRates' | 'baseLearningRates' | 'betas' | 'sweptBetas'>;

const grids: Readonly<Record<Scale, Grid>> = {
  quick: {
    learningRates: [1e-3],
    baseLearningRates: [2e-3],
    betas: {
      ...{ dpo: [0.3], ipo: [0.1], simpo: [0.3], orpo: [0.2, 1] },
      ...{ apo_zero: [0.5], nca: [0.05], cal_dpo: [0.02], asft: [0.2, 1] },
    },
    sweptBetas: { orpo: [0.2, 1], asft: [0.2, 1] },
  },
  full: {
    learningRates: [5e-4, 1e-3, 2e-3],
    baseLearningRates: [1e-3, 2e-3, 4e-3],
    betas: {
      dpo: [0.03, 0.1, 0.3, 1],
      ipo: [0.03, 0.1, 0.3, 1],
      simpo: [0.1, 0.3, 1, 3],
      orpo: [0.05, 0.2, 0.5, 1],
      apo_zero: [0.1, 0.3, 1, 3],
      nca: [0.02, 0.05, 0.15, 0.5],
      cal_dpo: [0.005, 0.02, 0.06, 0.2],
      asft: [0.05, 0.2, 0.5, 1],
    },
    sweptBetas: { orpo: [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2], asft: [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2] },
  },
};

function range(first: number, count: number): readonly number[] {
  return Array.from({ length: count }, (_, i) => first + i);
}
