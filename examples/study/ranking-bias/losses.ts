/**
 * The package's losses over scores that are real numbers, as this experiment has them, instead of
 * log-probabilities of text.
 */
import { dirAlignLoss } from 'diralign';

/** With beta 1 and scores of their own, SimPO and ORPO are the loss of DPO. */
export const rankedMethods = ['dpo', 'ipo', 'apo_zero', 'nca', 'cal_dpo', 'asft'] as const;
export type RankedMethod = (typeof rankedMethods)[number];

export const pairwiseRanked: readonly RankedMethod[] = ['dpo', 'ipo'];
export const pointwiseRanked: readonly RankedMethod[] = ['apo_zero', 'nca', 'cal_dpo', 'asft'];

export interface ScoreLoss {
  /** Mean over the pairs. */
  readonly loss: number;
  /** Per pair. */
  readonly losses: Float64Array;
  /** d loss / d scores. */
  readonly gradient: Float64Array;
}

/** A loss of `scores`: those of the chosen responses, then those of the rejected ones. */
export type RankingLoss = (scores: Float64Array) => ScoreLoss;

/**
 * With a reference of 0 the log-ratio of one token is its log-probability, so the scores take its
 * place. ASFT ranks log-odds; the same ranking loss of log-ratios, which may be any numbers, is
 * bco_pair.
 *
 * @param pairs how many pairs it will be called with.
 */
export function rankingLoss(method: RankedMethod, pairs: number): RankingLoss {
  const objective = dirAlignLoss(method === 'asft' ? 'bco_pair' : method, 1);
  const counts = new Int32Array(2 * pairs).fill(1);
  const reference = new Float64Array(2 * pairs);
  return (logps) => {
    const { loss, losses, gradLogps } = objective.fromLogps({ logps, counts, reference });
    return { loss, losses, gradient: gradLogps };
  };
}
