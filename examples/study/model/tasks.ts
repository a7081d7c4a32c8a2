/**
 * The stages of the language model: what each is asked for and what it says. Pretraining makes a
 * base model that has seen records and careless summaries of them; SFT trains it on demonstrations;
 * alignment trains either on preferences. SFT needs the pretraining of its seed to have run;
 * alignment the SFT on all demonstrations, too, and where it starts from. Pretraining says what SFT
 * says.
 */
import type { Method } from 'diralign';
import type { Scale, Task } from '../study.js';

/** The paper's: everything but `sft`. */
export const alignmentMethods = [
  'dpo',
  'ipo',
  'simpo',
  'orpo',
  'apo_zero',
  'nca',
  'cal_dpo',
  'asft',
] as const satisfies readonly Method[];
export type AlignmentMethod = (typeof alignmentMethods)[number];
/** Beside them, on single examples. */
export type UnpairedMethod = 'kto';

export const pairwiseMethods: readonly AlignmentMethod[] = ['dpo', 'ipo', 'simpo', 'orpo'];
export const pointwiseMethods: readonly AlignmentMethod[] = ['apo_zero', 'nca', 'cal_dpo', 'asft'];

export interface PretrainParams {
  readonly scale: Scale;
  readonly seed: number;
}

export interface SftParams extends PretrainParams {
  /** Per cent of the demonstrations. */
  readonly share: number;
}

export interface AlignParams extends PretrainParams {
  /**
   * What it starts from: the base model, or the model after SFT on that share of the
   * demonstrations.
   */
  readonly init: 'base' | { readonly share: number };
  /** An unpaired one takes the completions of the pairs as single examples. */
  readonly method: AlignmentMethod | UnpairedMethod;
  readonly beta: number;
  readonly learningRate: number;
  /** Weight of the likelihood term, for orpo and asft; 0 is the align-only form. */
  readonly lambda: number;
}

/** By the judge, on held-out prompts. */
export interface Evaluation {
  /** Mean score of the judge over sampled summaries, 0 to 1. */
  readonly quality: number;
  /** Share of summaries that hold every fact and nothing else. */
  readonly perfect: number;
  /** Means per summary. */
  readonly kept: number;
  readonly invented: number;
  /** Tokens of a summary, mean. */
  readonly length: number;
}

export interface SftResult {
  readonly evaluation: Evaluation;
  readonly losses: readonly number[];
  readonly seconds: number;
}

export interface AlignResult {
  readonly evaluation: Evaluation;
  /**
   * Shares of held-out prompts where the summary is better than, as good as and worse than that of
   * the model after SFT on all demonstrations, of the same seed, whatever this run started from.
   */
  readonly win: number;
  readonly tie: number;
  readonly lose: number;
  /**
   * KL(policy || that SFT model) in nats per summary, estimated on summaries sampled from the
   * policy: the mean of log p(y|x) - log q(y|x).
   */
  readonly kl: number;
  /** Loss and the share of preferences ranked right, over the steps; of single examples none. */
  readonly losses: readonly number[];
  readonly accuracies: readonly number[];
  /**
   * The run ended with numbers that are not finite; the evaluation is of the last finite weights.
   */
  readonly diverged: boolean;
  readonly seconds: number;
}

export function pretrainTask(params: PretrainParams): Task {
  return { stage: 'pretrain', params: { ...params } };
}

export function sftTask(params: SftParams): Task {
  return { stage: 'sft', params: { ...params } };
}

export function alignTask(params: AlignParams): Task {
  return { stage: 'align', params: { ...params } };
}
