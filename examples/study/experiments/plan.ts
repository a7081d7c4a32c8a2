/** How much of each experiment a scale has. */
import { alignmentMethods, type AlignmentMethod } from '../model/tasks.js';
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
  /** Of orpo and asft with the likelihood term, 1 among them: the form without tempering. */
  readonly betas: Readonly<Record<AlignmentMethod, readonly number[]>>;
  /** Per cent of the demonstrations, 100 last. */
  readonly shares: readonly number[];
}

const firstSearchSeed = 101;

const sizes = {
  quick: { search: 1, seeds: 2, shareSeeds: 2, shares: [5, 100] },
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

const grids = {
  quick: {
    learningRates: [1e-3],
    baseLearningRates: [2e-3],
    betas: betasOf({ orpo: [0.2, 1], asft: [0.2, 1] }),
  },
  full: {
    learningRates: [3e-4, 1e-3, 3e-3],
    baseLearningRates: [1e-3, 2e-3, 4e-3],
    betas: betasOf({ orpo: [0.05, 0.1, 0.2, 0.5, 1, 2], asft: [0.05, 0.1, 0.2, 0.5, 1, 2] }),
  },
} as const;

function betasOf(own: Partial<Record<AlignmentMethod, readonly number[]>>): Plan['betas'] {
  return Object.fromEntries(alignmentMethods.map((method) => [method, own[method] ?? [0.1]])) as Plan['betas'];
}

function range(first: number, count: number): readonly number[] {
  return Array.from({ length: count }, (_, i) => first + i);
}
