import { methods, type BestSetting, type Method } from './catalogue.js';

/** The paper's setups: data and model. */
export type PresetSetup =
  | 'tldr-llama-3.2-3b'
  | 'ultrafeedback-llama-3.2-3b'
  | 'ultrafeedback-llama-3.1-8b'
  | 'ultrafeedback-mistral-7b'
  | 'math-qwen2.5-7b'
  | 'math-qwen2.5-14b';

const setups: readonly PresetSetup[] = [
  'tldr-llama-3.2-3b',
  'ultrafeedback-llama-3.2-3b',
  'ultrafeedback-llama-3.1-8b',
  'ultrafeedback-mistral-7b',
  'math-qwen2.5-7b',
  'math-qwen2.5-14b',
];

function pick<T>(
  read: (info: ReturnType<typeof methods>[number]) => T | undefined,
): Readonly<Partial<Record<Method, T>>> {
  const found: Partial<Record<Method, T>> = {};
  for (const info of methods()) {
    const value = read(info);
    if (value !== undefined) found[info.name] = value;
  }
  return Object.freeze(found);
}

/** The settings of arXiv 2502.01237 (v3, tables 5 to 11), as data. */
export const presets = Object.freeze({
  /** The beta values that were tried with Llama models. */
  grids: pick((info) => (info.betaGrid.length > 0 ? info.betaGrid : undefined)),
  /** The best learning rate and beta, per setup and method. */
  best: Object.freeze(
    Object.fromEntries(setups.map((setup) => [setup, pick((info) => info.best[setup])])),
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
