/**
 * Learning rates and betas that are searched. They were laid around the best of a first search on a seed of its own, four rates and four
 * betas for every method. The paper's grids do not carry over. Its learning rates (3e-7 to 1e-6 after SFT) are of models with billions of
 * weights; this one has 60 thousand, and takes a thousand times as much. Its betas are of summed log-ratios of texts of hundreds of tokens for
 * DPO, IPO, APO-Zero, NCA and Cal-DPO; summaries here have five, so that betas are ten to a thousand times as large. SimPO, ORPO and ASFT
 * divide by the length, and their grids are nearly the paper's. SimPO has the margin that is its default here, gamma 0.5.
 */
import type { Scale } from '../study.js';
import type { AlignmentMethod } from './tasks.js';

export interface Grids {
  /** Of alignment after SFT. */
  readonly learningRates: readonly number[];
  /** Of alignment from the base model, in one stage. */
  readonly baseLearningRates: readonly number[];
  readonly betas: Readonly<Record<AlignmentMethod, readonly number[]>>;
  /** Of the sweeps of orpo and asft: from the form without tempering, 1, and twice that, to where less makes no difference. */
  readonly sweepBetas: readonly number[];
}

export const grids: Readonly<Record<Scale, Grids>> = {
  quick: {
    learningRates: [2e-3],
    baseLearningRates: [4e-3],
    betas: {
      dpo: [0.2, 0.5],
      ipo: [0.05, 0.1],
      simpo: [0.5, 1],
      orpo: [0.1, 0.5],
      apo_zero: [0.5, 1],
      nca: [0.05, 0.2],
      cal_dpo: [0.02, 0.05],
      asft: [0.1, 0.5],
    },
    sweepBetas: [0.1, 0.5, 1],
  },
  full: {
    learningRates: [5e-4, 1e-3, 2e-3, 4e-3],
    baseLearningRates: [2e-3, 4e-3, 8e-3],
    betas: {
      dpo: [0.1, 0.2, 0.5, 1],
      ipo: [0.03, 0.05, 0.1, 0.2],
      simpo: [0.3, 0.5, 1, 2],
      orpo: [0.05, 0.1, 0.2, 0.5],
      apo_zero: [0.2, 0.5, 1, 2],
      nca: [0.03, 0.1, 0.2, 0.5],
      cal_dpo: [0.01, 0.02, 0.05, 0.1],
      asft: [0.05, 0.1, 0.2, 0.5],
    },
    sweepBetas: [0.05, 0.1, 0.2, 0.5, 1, 2],
  },
};
