// The paper's settings, typed in from its tables (arXiv 2502.01237 v3, tables 5 to 11).
import { expect, test } from 'vitest';
import { dirAlignLoss, methods, presets } from '../../ts/index.js';

test('beta grids of the Llama experiments', () => {
  expect(presets.grids).toEqual({
    dpo: [0.001, 0.003, 0.005, 0.01, 0.05, 0.1],
    ipo: [0.0007, 0.001, 0.005, 0.01, 0.05, 0.1],
    simpo: [0.05, 0.1, 0.2, 0.5, 1, 2, 5],
    orpo: [0.05, 0.1, 0.2, 0.5, 1, 2],
    asft: [0.05, 0.1, 0.2, 0.5, 1, 2],
    apo_zero: [0.001, 0.003, 0.005, 0.01, 0.05, 0.1, 0.2],
    nca: [1e-4, 3e-4, 5e-4, 1e-3, 5e-3, 7e-3, 0.01, 0.03, 0.05],
    cal_dpo: [5e-5, 1e-4, 3e-4, 5e-4, 1e-3, 3e-3],
  });
});

/** [learning rate, beta] in the order of the columns. */
const best: Record<string, Record<string, [number, number]>> = {
  'tldr-llama-3.2-3b': {
    dpo: [7e-7, 0.05],
    ipo: [1e-6, 0.005],
    simpo: [3e-7, 0.5],
    orpo: [3e-7, 0.5],
    asft: [3e-7, 0.001],
    apo_zero: [3e-7, 0.001],
    nca: [3e-7, 1e-4],
    cal_dpo: [3e-7, 3e-5],
  },
  'ultrafeedback-llama-3.2-3b': {
    dpo: [1e-6, 0.01],
    ipo: [7e-7, 0.001],
    simpo: [7e-7, 1],
    orpo: [5e-7, 0.2],
    asft: [1e-6, 0.2],
    apo_zero: [3e-7, 0.005],
    nca: [3e-7, 5e-4],
    cal_dpo: [5e-7, 3e-4],
  },
  'ultrafeedback-llama-3.1-8b': {
    dpo: [1e-6, 0.003],
    ipo: [1e-6, 0.001],
    simpo: [6e-7, 1],
    orpo: [5e-7, 0.5],
    asft: [7e-7, 0.1],
    apo_zero: [3e-7, 0.003],
    nca: [3e-7, 3e-4],
    cal_dpo: [3e-7, 3e-4],
  },
  'ultrafeedback-mistral-7b': {
    dpo: [3e-7, 0.005],
    ipo: [3e-7, 0.001],
    simpo: [3e-7, 2],
    orpo: [3e-7, 0.7],
    asft: [5e-7, 0.3],
    apo_zero: [3e-7, 0.01],
    nca: [7e-7, 1e-3],
    cal_dpo: [3e-7, 5e-4],
  },
  'math-qwen2.5-7b': {
    dpo: [5e-7, 0.1],
    ipo: [1e-6, 0.05],
    simpo: [3e-7, 20],
    orpo: [3e-7, 0.001],
    asft: [3e-7, 0.1],
    apo_zero: [1e-6, 0.01],
    nca: [1e-6, 0.001],
    cal_dpo: [1e-6, 3e-4],
  },
  'math-qwen2.5-14b': {
    dpo: [3e-7, 0.05],
    ipo: [3e-7, 0.005],
    simpo: [3e-7, 20],
    orpo: [3e-7, 0.005],
    asft: [7e-7, 0.5],
    apo_zero: [3e-7, 5e-4],
    nca: [3e-7, 1e-4],
    cal_dpo: [3e-7, 1e-5],
  },
};

test('best learning rate and beta per setup and method', () => {
  const settings = Object.entries(best).map(([setup, table]) => [
    setup,
    Object.fromEntries(
      Object.entries(table).map(([method, [learningRate, beta]]) => [
        method,
        { learningRate, beta },
      ]),
    ),
  ]);
  expect(presets.best).toEqual(Object.fromEntries(settings));
});

test('the recipe', () => {
  expect(presets.recipe).toMatchObject({
    optimizer: 'adam',
    adamBetas: [0.9, 0.95],
    batchSize: 128,
    schedule: 'linear',
    warmupRatio: 0.03,
    maxGradNorm: 2,
    epochs: 1,
    sftLearningRate: 6e-6,
    alignmentLearningRates: [3e-7, 5e-7, 7e-7, 1e-6],
    baseLearningRates: [6e-6, 8e-6, 1e-5],
    maxTokens: { tldr: 1024, ultrafeedback: 4096 },
  });
});

test('presets are frozen all the way down', () => {
  const thawed: string[] = [];
  const visit = (value: unknown, path: string): void => {
    if (typeof value !== 'object' || value === null) return;
    if (!Object.isFrozen(value)) thawed.push(path);
    for (const [key, child] of Object.entries(value)) visit(child, `${path}.${key}`);
  };
  visit(presets, 'presets');
  expect(thawed).toEqual([]);
});

test('every preset builds an objective', () => {
  for (const settings of Object.values(presets.best)) {
    for (const { name } of methods()) {
      const preset = settings[name];
      if (preset)
        expect({ ...dirAlignLoss(name, preset.beta) }).toMatchObject({
          method: name,
          beta: preset.beta,
        });
    }
  }
});
