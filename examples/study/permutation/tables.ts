/**
 * Printed figures of "The Differences Between Direct Alignment Algorithms are a Blur", arXiv
 * 2502.01237: every method at its best setting after SFT, in per cent. The paper's MT-Bench,
 * Mistral and Qwen2.5 figures are not here.
 */
import { alignmentMethods, type AlignmentMethod } from '../model/tasks.js';

export const source = 'arXiv 2502.01237';

/** What was trained, on what data. */
export const models = {
  chat3B: 'Llama 3.2 3B, UltraFeedback',
  chat8B: 'Llama 3.1 8B, UltraFeedback',
  summaries3B: 'Llama 3.2 3B, TL;DR',
} as const;

export interface Benchmark {
  readonly model: keyof typeof models;
  readonly name: string;
  readonly values: Readonly<Record<AlignmentMethod, number>>;
  /** Whether the paper has a permutation test of it. */
  readonly tested: boolean;
}

type Row = readonly [
  dpo: number,
  ipo: number,
  simpo: number,
  orpo: number,
  apoZero: number,
  nca: number,
  calDpo: number,
  asft: number,
];

function benchmark(model: Benchmark['model'], name: string, row: Row, tested: boolean): Benchmark {
  const values = Object.fromEntries(
    alignmentMethods.map((method, i) => [method, row[i]]),
  ) as Record<AlignmentMethod, number>;
  return { model, name, values, tested };
}

export const benchmarks: readonly Benchmark[] = [
  benchmark(
    'chat3B',
    'AlpacaEval 2 LC',
    [11.43, 11.24, 10.56, 10.67, 10.36, 10.33, 10.62, 10.63],
    true,
  ),
  benchmark(
    'chat3B',
    'AlpacaEval 2 WR',
    [11.79, 11.67, 11.94, 12.23, 11.22, 11.02, 10.15, 9.21],
    true,
  ),
  benchmark('chat3B', 'ArenaHard', [6.8, 6.8, 6.4, 6.6, 6.0, 5.1, 4.8, 5.1], true),
  benchmark(
    'chat8B',
    'AlpacaEval 2 LC',
    [26.82, 28.18, 27.65, 28.25, 23.15, 23.21, 23.19, 20.82],
    true,
  ),
  benchmark(
    'chat8B',
    'AlpacaEval 2 WR',
    [23.69, 24.43, 25.62, 28.59, 19.03, 18.67, 18.85, 16.34],
    true,
  ),
  benchmark('chat8B', 'ArenaHard', [19.0, 19.1, 21.5, 20.9, 17.3, 15.1, 15.2, 13.5], true),
  benchmark(
    'summaries3B',
    'GPT-4 win rate',
    [91.2, 91.4, 91.6, 90.2, 92.6, 91.8, 91.4, 87.2],
    false,
  ),
];
