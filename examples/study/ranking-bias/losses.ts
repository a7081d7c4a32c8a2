/** The package's losses over scores that are real numbers, as this experiment has them, instead of log-probabilities of text. */
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

/** @param pairs how many pairs it will be called with. */
export function rankingLoss(method: RankedMethod, pairs: number): RankingLoss {
  const counts = new Int32Array(2 * pairs).fill(1);
  return method === 'asft' ? ofLogOdds(pairs, counts) : ofLogRatio(method, pairs, counts);
}

/** With a reference of 0 the log-ratio is the log-probability, so the scores take its place. */
function ofLogRatio(method: Exclude<RankedMethod, 'asft'>, pairs: number, counts: Int32Array): RankingLoss {
  const objective = dirAlignLoss(method, 1);
  const reference = new Float64Array(2 * pairs);
  return (logps) => {
    const { loss, losses, gradLogps } = objective.fromLogps({ logps, counts, reference });
    return { loss, losses, gradient: gradLogps };
  };
}

/**
 * A score r is the log-odds of the probability sigmoid(r), so log sigmoid(r) of one token takes the place of the log-probability, and
 * d logp / d r = sigmoid(-r).
 *
 * Both keep their digits where sigmoid(r) rounds to 1: logp = -log1p(e^-r) is then -e^-r, to all its digits, and the loss forms the
 * log-odds from expm1(logp). It holds to where e^-r falls below the loss's clamp of 1e-37, at r = 85.
 */
function ofLogOdds(pairs: number, counts: Int32Array): RankingLoss {
  const objective = dirAlignLoss('asft', 1);
  const logps = new Float64Array(2 * pairs);
  const slopes = new Float64Array(2 * pairs);
  return (scores) => {
    for (let i = 0; i < scores.length; i++) {
      const r = scores[i] as number;
      const e = Math.exp(-Math.abs(r));
      logps[i] = Math.min(r, 0) - Math.log1p(e);
      slopes[i] = (r > 0 ? e : 1) / (1 + e);
    }
    const { loss, losses, gradLogps: gradient } = objective.fromLogps({ logps, counts });
    for (let i = 0; i < gradient.length; i++) gradient[i] = (gradient[i] as number) * (slopes[i] as number);
    return { loss, losses, gradient };
  };
}
