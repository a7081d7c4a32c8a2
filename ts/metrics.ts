/** The names of the metrics, by method. docs/metrics.md has more about each. */
import type { Method } from './catalogue.js';

interface ChosenMetrics {
  /** Mean over pairs of the chosen's reward. */
  readonly 'rewards/chosen': number;
  /** Mean over pairs of the chosen's summed log-probability. */
  readonly 'logps/chosen': number;
  /** Pairs with a number that is not finite. */
  readonly nonfinite: number;
  /** Pairs with a sequence without a scored row. */
  readonly empty_sequences: number;
}

/** Metrics that a method does not have: never there, but named, so that they can be looked up of any method. */
type Without<Name extends string> = Readonly<Partial<Record<Name, number>>>;

/** Of `sft`, which knows no rejected sequences. */
export interface SftMetrics extends ChosenMetrics, Without<Exclude<keyof OddsMetrics, keyof ChosenMetrics | 'nll_loss'>> {
  /** The loss itself, a negative log-likelihood. */
  readonly nll_loss: number;
}

interface ComparedMetrics extends ChosenMetrics {
  /** Mean over pairs of the rejected's reward. */
  readonly 'rewards/rejected': number;
  /** Share of the pairs whose chosen reward is strictly above the rejected's. */
  readonly 'rewards/accuracies': number;
  /** Mean over pairs of the chosen's reward minus the rejected's. */
  readonly 'rewards/margins': number;
  /** Mean over pairs of the rejected's summed log-probability. */
  readonly 'logps/rejected': number;
  /** The likelihood term before its weight; where `sftWeight` is not 0. */
  readonly nll_loss?: number;
}

/** Of every method that compares a chosen with a rejected sequence, but for those of log-odds. */
export interface PairMetrics extends ComparedMetrics, Without<'log_odds_chosen' | 'log_odds_ratio'> {}

/** Of the methods whose score is the log-odds. */
export interface OddsMetrics extends ComparedMetrics {
  /** Mean over pairs of the chosen's log-odds minus the rejected's. */
  readonly log_odds_chosen: number;
  /** Mean over pairs of the log-sigmoid of that difference. */
  readonly log_odds_ratio: number;
}

/** As a type of its own, and not an interface: it can be read as a record of numbers. */
type Plain<T> = { readonly [Name in keyof T]: T[Name] };

type ByMethod = {
  readonly [M in Method]: M extends 'sft'
    ? Plain<SftMetrics>
    : M extends 'orpo' | 'asft'
      ? Plain<OddsMetrics>
      : Plain<PairMetrics>;
};

/** The metrics of method `M`, each a number. Of a method that is known only at run time, those that all have, and perhaps the others. */
export type Metrics<M extends Method = Method> = ByMethod[M];
