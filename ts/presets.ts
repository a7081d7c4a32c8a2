import { methods, type Method } from './catalogue.js';

export interface BestSetting {
  readonly learningRate: number;
  readonly beta: number;
}

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

function pick<T>(read: (info: ReturnType<typeof methods>[number]) => T | undefined): Readonly<Partial<Record<Method, T>>> {
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
  best: Object.freeze(Object.fromEntries(setups.map((setup) => [setup, pick((info) => info.best[setup])]))) as Readonly<
    Record<PresetSetup, Readonly<Partial<Record<Method, BestSetting>>>>
  >,
  /** What was the same everywhere. */
  recipe: Object.freeze({
    optimizer: 'adam',
    adamBetas: Object.freeze([0.9, 0.95] as const),
    batchSize: 128,
    schedule: 'linear',
    warmupRatio: 0.03,
    maxGradNorm: 2,
    epochs: 1,
    sftLearningRate: 6e-6,
    /** Align-only, after SFT. */
    alignmentLearningRates: Object.freeze([3e-7, 5e-7, 7e-7, 1e-6] as const),
    /** One-stage from the base model. */
    baseLearningRates: Object.freeze([6e-6, 8e-6, 1e-5] as const),
    maxTokens: Object.freeze({ tldr: 1024, ultrafeedback: 4096 }),
  }),
});
