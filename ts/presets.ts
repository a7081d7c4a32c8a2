import type { Method } from './catalogue.js';
import { deepFreeze } from './freeze.js';

/** The paper's setups: data and model. */
export type PresetSetup =
  | 'tldr-llama-3.2-3b'
  | 'ultrafeedback-llama-3.2-3b'
  | 'ultrafeedback-llama-3.1-8b'
  | 'ultrafeedback-mistral-7b'
  | 'math-qwen2.5-7b'
  | 'math-qwen2.5-14b';

/** A setting that the paper found best, for one method in one setup. */
export interface BestSetting {
  /** Peak of the schedule in `presets.recipe`. */
  readonly learningRate: number;
  /** As `dirAlignLoss` takes it. */
  readonly beta: number;
}

/** What the paper tried, and what it found best. */
export interface PaperSettings {
  readonly betaGrid: readonly number[];
  readonly best: Readonly<Partial<Record<PresetSetup, BestSetting>>>;
}

/** By method, in the order of the catalogue. */
const paper: Readonly<Partial<Record<Method, PaperSettings>>> = deepFreeze({
  dpo: {
    betaGrid: [0.001, 0.003, 0.005, 0.01, 0.05, 0.1],
    best: {
      'tldr-llama-3.2-3b': { learningRate: 7e-7, beta: 0.05 },
      'ultrafeedback-llama-3.2-3b': { learningRate: 1e-6, beta: 0.01 },
      'ultrafeedback-llama-3.1-8b': { learningRate: 1e-6, beta: 0.003 },
      'ultrafeedback-mistral-7b': { learningRate: 3e-7, beta: 0.005 },
      'math-qwen2.5-7b': { learningRate: 5e-7, beta: 0.1 },
      'math-qwen2.5-14b': { learningRate: 3e-7, beta: 0.05 },
    },
  },
  ipo: {
    betaGrid: [0.0007, 0.001, 0.005, 0.01, 0.05, 0.1],
    best: {
      'tldr-llama-3.2-3b': { learningRate: 1e-6, beta: 0.005 },
      'ultrafeedback-llama-3.2-3b': { learningRate: 7e-7, beta: 0.001 },
      'ultrafeedback-llama-3.1-8b': { learningRate: 1e-6, beta: 0.001 },
      'ultrafeedback-mistral-7b': { learningRate: 3e-7, beta: 0.001 },
      'math-qwen2.5-7b': { learningRate: 1e-6, beta: 0.05 },
      'math-qwen2.5-14b': { learningRate: 3e-7, beta: 0.005 },
    },
  },
  simpo: {
    betaGrid: [0.05, 0.1, 0.2, 0.5, 1, 2, 5],
    best: {
      'tldr-llama-3.2-3b': { learningRate: 3e-7, beta: 0.5 },
      'ultrafeedback-llama-3.2-3b': { learningRate: 7e-7, beta: 1 },
      'ultrafeedback-llama-3.1-8b': { learningRate: 6e-7, beta: 1 },
      'ultrafeedback-mistral-7b': { learningRate: 3e-7, beta: 2 },
      'math-qwen2.5-7b': { learningRate: 3e-7, beta: 20 },
      'math-qwen2.5-14b': { learningRate: 3e-7, beta: 20 },
    },
  },
  orpo: {
    betaGrid: [0.05, 0.1, 0.2, 0.5, 1, 2],
    best: {
      'tldr-llama-3.2-3b': { learningRate: 3e-7, beta: 0.5 },
      'ultrafeedback-llama-3.2-3b': { learningRate: 5e-7, beta: 0.2 },
      'ultrafeedback-llama-3.1-8b': { learningRate: 5e-7, beta: 0.5 },
      'ultrafeedback-mistral-7b': { learningRate: 3e-7, beta: 0.7 },
      'math-qwen2.5-7b': { learningRate: 3e-7, beta: 0.001 },
      'math-qwen2.5-14b': { learningRate: 3e-7, beta: 0.005 },
    },
  },
  asft: {
    betaGrid: [0.05, 0.1, 0.2, 0.5, 1, 2],
    best: {
      'tldr-llama-3.2-3b': { learningRate: 3e-7, beta: 0.001 },
      'ultrafeedback-llama-3.2-3b': { learningRate: 1e-6, beta: 0.2 },
      'ultrafeedback-llama-3.1-8b': { learningRate: 7e-7, beta: 0.1 },
      'ultrafeedback-mistral-7b': { learningRate: 5e-7, beta: 0.3 },
      'math-qwen2.5-7b': { learningRate: 3e-7, beta: 0.1 },
      'math-qwen2.5-14b': { learningRate: 7e-7, beta: 0.5 },
    },
  },
  apo_zero: {
    betaGrid: [0.001, 0.003, 0.005, 0.01, 0.05, 0.1, 0.2],
    best: {
      'tldr-llama-3.2-3b': { learningRate: 3e-7, beta: 0.001 },
      'ultrafeedback-llama-3.2-3b': { learningRate: 3e-7, beta: 0.005 },
      'ultrafeedback-llama-3.1-8b': { learningRate: 3e-7, beta: 0.003 },
      'ultrafeedback-mistral-7b': { learningRate: 3e-7, beta: 0.01 },
      'math-qwen2.5-7b': { learningRate: 1e-6, beta: 0.01 },
      'math-qwen2.5-14b': { learningRate: 3e-7, beta: 0.0005 },
    },
  },
  nca: {
    betaGrid: [0.0001, 0.0003, 0.0005, 0.001, 0.005, 0.007, 0.01, 0.03, 0.05],
    best: {
      'tldr-llama-3.2-3b': { learningRate: 3e-7, beta: 0.0001 },
      'ultrafeedback-llama-3.2-3b': { learningRate: 3e-7, beta: 0.0005 },
      'ultrafeedback-llama-3.1-8b': { learningRate: 3e-7, beta: 0.0003 },
      'ultrafeedback-mistral-7b': { learningRate: 7e-7, beta: 0.001 },
      'math-qwen2.5-7b': { learningRate: 1e-6, beta: 0.001 },
      'math-qwen2.5-14b': { learningRate: 3e-7, beta: 0.0001 },
    },
  },
  cal_dpo: {
    betaGrid: [0.00005, 0.0001, 0.0003, 0.0005, 0.001, 0.003],
    best: {
      'tldr-llama-3.2-3b': { learningRate: 3e-7, beta: 0.00003 },
      'ultrafeedback-llama-3.2-3b': { learningRate: 5e-7, beta: 0.0003 },
      'ultrafeedback-llama-3.1-8b': { learningRate: 3e-7, beta: 0.0003 },
      'ultrafeedback-mistral-7b': { learningRate: 3e-7, beta: 0.0005 },
      'math-qwen2.5-7b': { learningRate: 1e-6, beta: 0.0003 },
      'math-qwen2.5-14b': { learningRate: 3e-7, beta: 0.00001 },
    },
  },
});

const none: PaperSettings = deepFreeze({ betaGrid: [], best: {} });

/** @internal The paper's settings of a method; empty where it has none. */
export function paperSettings(method: Method): PaperSettings {
  return paper[method] ?? none;
}

/** One thing of each method that has it. */
function byMethod<T>(
  read: (settings: PaperSettings) => T | undefined,
): Readonly<Partial<Record<Method, T>>> {
  const found: Partial<Record<Method, T>> = {};
  for (const [method, settings] of Object.entries(paper)) {
    const value = read(settings);
    if (value !== undefined) found[method as Method] = value;
  }
  return Object.freeze(found);
}

const setups: readonly PresetSetup[] = [
  'tldr-llama-3.2-3b',
  'ultrafeedback-llama-3.2-3b',
  'ultrafeedback-llama-3.1-8b',
  'ultrafeedback-mistral-7b',
  'math-qwen2.5-7b',
  'math-qwen2.5-14b',
];

/** The settings of arXiv 2502.01237 (v3, tables 5 to 11), as data. */
export const presets = Object.freeze({
  /** The beta values that were tried with Llama models. */
  grids: byMethod(({ betaGrid }) => betaGrid),
  /** The best learning rate and beta, per setup and method. */
  best: Object.freeze(
    Object.fromEntries(setups.map((setup) => [setup, byMethod(({ best }) => best[setup])])),
  ) as Readonly<Record<PresetSetup, Readonly<Partial<Record<Method, BestSetting>>>>>,
  /** What was the same everywhere. */
  recipe: Object.freeze({
    /** By its name. */
    optimizer: 'adam',
    /** Adam's decay rates of the first and the second moment. */
    adamBetas: Object.freeze([0.9, 0.95] as const),
    /** Pairs of an optimiser step. */
    batchSize: 128,
    /** Of the learning rate: a linear decay to 0 after the warm-up. */
    schedule: 'linear',
    /** Share of the steps in which the learning rate rises. */
    warmupRatio: 0.03,
    /** Gradients are scaled down to this Euclidean norm. */
    maxGradNorm: 2,
    /** Passes over the data. */
    epochs: 1,
    /** Peak learning rate of fine-tuning before alignment. */
    sftLearningRate: 6e-6,
    /** Align-only, after SFT. */
    alignmentLearningRates: Object.freeze([3e-7, 5e-7, 7e-7, 1e-6] as const),
    /** One-stage from the base model. */
    baseLearningRates: Object.freeze([6e-6, 8e-6, 1e-5] as const),
    /** Most tokens of a sequence. */
    maxTokens: Object.freeze({
      /** TL;DR. */
      tldr: 1024,
      /** UltraFeedback. */
      ultrafeedback: 4096,
    }),
  }),
});
