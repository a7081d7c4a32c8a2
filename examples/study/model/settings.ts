/** Sizes of the study's language model, its data and its training. */
import type { Scale } from '../study.js';
import { positionCount } from './batch.js';
import type { ModelShape } from './weights.js';

/** The same at both scales: a quick study shows less of it, and not something else. */
export const modelShape: ModelShape = { layers: 2, heads: 4, width: 48, positions: positionCount };

export interface Sizes {
  /** Of pretraining: batches of fresh summaries. */
  readonly pretrainSteps: number;
  readonly demonstrations: number;
  readonly preferences: number;
  /** Held-out records that are summarised for an evaluation. */
  readonly prompts: number;
}

/** Examples, or pairs, of a step. */
export const batchSize = 32;

export const sizes: Readonly<Record<Scale, Sizes>> = {
  quick: { pretrainSteps: 600, demonstrations: 1920, preferences: 1280, prompts: 128 },
  full: { pretrainSteps: 1800, demonstrations: 4800, preferences: 3840, prompts: 512 },
};

export const pretrainLearningRate = 6e-3;
export const sftLearningRate = 4e-3;
