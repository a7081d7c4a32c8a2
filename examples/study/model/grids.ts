/**
 * Learning rates and betas that are searched, laid around the best of a coarse look at five to nine
 * settings a method, on one seed, 1.
 *
 * The paper's grids do not carry over. Its learning rates (3e-7 to 1e-6 after SFT) are of models
 * with billions of weights; this one has 60 thousand, and takes some thousand times as much. Its
 * betas for DPO, IPO, APO-Zero, NCA and Cal-DPO are of summed log-ratios of texts of hundreds of
 * tokens; summaries here have five, so that betas are ten to a thousand times as large. SimPO, ORPO
 * and ASFT divide by the length, and their grids are nearly the paper's. SimPO has the margin that
 * is its default here, gamma 0.5.
 */
import type { Scale } from '../study.js';
import type { AlignmentMethod, UnpairedMethod } from './tasks.js';

export interface Grids {
  /** Of alignment after SFT. */
  readonly learningRates: readonly number[];
  /** Of alignment from the base model, in one stage. */
  readonly baseLearningRates: readonly number[];
  /**
   * At full scale as many for every method; 1, which is no tempering, is among those of orpo and
   * asft.
   */
  readonly betas: Readonly<Record<AlignmentMethod | UnpairedMethod, readonly number[]>>;
  /** Of the sweeps, down to where less makes no difference. */
  readonly sweptBetas: Readonly<Record<'orpo' | 'asft', readonly number[]>>;
}

export const grids: Readonly<Record<Scale, Grids>> = {
  quick: {
    learningRates: [2e-3],
    baseLearningRates: [4e-3],
    betas: {
      dpo: [0.5],
      ipo: [0.1],
      simpo: [1],
      orpo: [0.2, 1],
      apo_zero: [0.5],
      nca: [0.1],
      cal_dpo: [0.05],
      asft: [0.2, 1],
      kto: [0.5],
    },
    sweptBetas: { orpo: [0.2, 1], asft: [0.2, 1] },
  },
  full: {
    learningRates: [1e-3, 2e-3, 4e-3, 8e-3],
    baseLearningRates: [2e-3, 4e-3, 8e-3],
    betas: {
      dpo: [0.2, 0.5, 1, 2],
      ipo: [0.03, 0.05, 0.1, 0.2],
      simpo: [0.5, 1, 2, 4],
      orpo: [0.1, 0.2, 0.5, 1],
      apo_zero: [0.2, 0.5, 1, 2],
      nca: [0.05, 0.1, 0.2, 0.5],
      cal_dpo: [0.02, 0.05, 0.1, 0.2],
      asft: [0.1, 0.2, 0.5, 1],
      kto: [0.2, 0.5, 1, 2],
    },
    sweptBetas: {
      orpo: [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2],
      asft: [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2],
    },
  },
};
