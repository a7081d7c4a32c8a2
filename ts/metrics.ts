/** The names of the metrics, by method. docs/metrics.md has more about each. */
import type {
  GroupMethod,
  LikelihoodMethod,
  Method,
  OddsMethod,
  UnpairedMethod,
} from './catalogue.js';

interface ChosenMetrics {
  /** Mean over pairs of the chosen's reward. */
  readonly 'rewards/chosen': number;
  /** Mean over pairs of the chosen's summed log-probability. */
  readonly 'logps/chosen': number;
  /** Pairs with a number that is not finite. */
  readonly nonfinite: number;
  /** Pairs with a sequence without a scored row. */
  readonly empty_sequences: number;
  /**
   * Scored rows of a dense gradient of logits whose entry at the label is not 0, but subnormal or 0
   * in the gradient's dtype; 0 without one.
   */
  readonly underflow: number;
  /** Rows that `labels` score, in all sequences of the call. */
  readonly num_tokens: number;
  /**
   * 1 where ranks of `run.parallel` compute with different instructions or C libraries: last digits
   * then depend on which rank has what. Otherwise it is not there.
   */
  readonly mixed_hardware?: number;
}

/**
 * Metrics that a method does not have: never there, but named, so that they can be looked up of any
 * method.
 */
type Without<Name extends string> = Readonly<Partial<Record<Name, number>>>;

type OtherMetric = keyof OddsMetrics | keyof UnpairedMetrics | keyof GroupMetrics;

/** Of `sft`, which knows no rejected sequences. */
export interface SftMetrics
  extends ChosenMetrics, Without<Exclude<OtherMetric, keyof ChosenMetrics | 'nll_loss'>> {
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
  /**
   * Share of the pairs whose chosen has a summed log-probability strictly above the rejected's:
   * what the policy itself would rank.
   */
  readonly ranking_accuracy: number;
  /** The likelihood term before its weight; where `sftWeight` is not 0. */
  readonly nll_loss?: number;
}

/** Of every method that compares a chosen with a rejected sequence, except those of log-odds. */
export interface PairMetrics
  extends ComparedMetrics, Without<'log_odds_chosen' | 'log_odds_ratio' | 'rewards/mean' | 'kl'> {}

/**
 * Of the unpaired methods: the chosen are the desirable sequences, the rejected the others; means
 * over them, 0 where there are none.
 */
export interface UnpairedMetrics
  extends
    ChosenMetrics,
    Without<'log_odds_chosen' | 'log_odds_ratio' | 'rewards/accuracies' | 'ranking_accuracy'> {
  /** Mean reward of the undesirable sequences. */
  readonly 'rewards/rejected': number;
  /** The difference of the two means; 0 where one of them is over nothing. */
  readonly 'rewards/margins': number;
  /** Mean summed log-probability of the undesirable sequences. */
  readonly 'logps/rejected': number;
  /** Mean over all sequences of the reward: what the `shift` of `bco` is a running mean of. */
  readonly 'rewards/mean': number;
  /** The baseline, of `kto`. */
  readonly kl?: number;
  /** The likelihood term before its weight; where `sftWeight` is not 0. */
  readonly nll_loss?: number;
}

/**
 * Of the group methods: the chosen is the best candidate of a group, by `ranks` or `rewards`, the
 * rejected are the others; means over them.
 */
export interface GroupMetrics
  extends
    ChosenMetrics,
    Without<'log_odds_chosen' | 'log_odds_ratio' | 'ranking_accuracy' | 'kl' | 'nll_loss'> {
  /** Mean reward of the other candidates. */
  readonly 'rewards/rejected': number;
  /** The difference of the two means; 0 where there are no others. */
  readonly 'rewards/margins': number;
  /** Share of the groups of several candidates whose best has strictly the highest reward. */
  readonly 'rewards/accuracies': number;
  /** Mean summed log-probability of the other candidates. */
  readonly 'logps/rejected': number;
  /** Mean over all candidates of the reward. */
  readonly 'rewards/mean': number;
}

/** Of the methods whose score is the log-odds. */
export interface OddsMetrics extends ComparedMetrics, Without<'rewards/mean' | 'kl'> {
  /** Mean over pairs of the chosen's log-odds minus the rejected's. */
  readonly log_odds_chosen: number;
  /** Mean over pairs of the log-sigmoid of that difference. */
  readonly log_odds_ratio: number;
}

/**
 * Metrics of the rows' logits, which cost: they are there where `run.metrics` asks for them, and 0
 * where there is no such row.
 */
export interface RowMetrics {
  /** Mean over the scored rows of the softmax's entropy, in nats. */
  readonly entropy: number;
  /**
   * Share of the chosen's scored rows whose label has a logit above every other's; a tie does not
   * count.
   */
  readonly mean_token_accuracy: number;
  /** Mean over the chosen's scored rows of the mean of their logits over the vocabulary. */
  readonly 'logits/chosen': number;
  /** The same of the rejected; `sft` has none, and refuses it. */
  readonly 'logits/rejected': number;
}

/** A name for `run.metrics`, by method: `sft` and groups have no rejected sequences there. */
export type RowMetric<M extends Method = Method> = M extends LikelihoodMethod | GroupMethod
  ? Exclude<keyof RowMetrics, 'logits/rejected'>
  : keyof RowMetrics;

/** The metrics that `run.metrics` asks for; where only the run tells which, each may be there. */
export type AskedMetrics<Names extends readonly RowMetric[]> = number extends Names['length']
  ? Partial<RowMetrics>
  : Pick<RowMetrics, Names[number]>;

/** As a type of its own, and not an interface: it can be read as a record of numbers. */
type Plain<T> = { readonly [Name in keyof T]: T[Name] };

type ByMethod = {
  readonly [M in Method]: M extends LikelihoodMethod
    ? Plain<SftMetrics>
    : M extends UnpairedMethod
      ? Plain<UnpairedMetrics>
      : M extends GroupMethod
        ? Plain<GroupMetrics>
        : M extends OddsMethod
          ? Plain<OddsMetrics>
          : Plain<PairMetrics>;
};

/**
 * The metrics of method `M`, each a number. Of a method that is known only at run time, those that
 * all have, and perhaps the others.
 */
export type Metrics<M extends Method = Method> = ByMethod[M];
