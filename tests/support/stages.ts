// A result against float64, stage by stage: log-probabilities of the rows, the units of those
// log-probabilities, the gradient of its coefficients. A stage is held to what it adds, however an
// objective magnifies the stage before.
import type { LogitsArray, LogitsBatch, LossResult } from '../../ts/index.js';
import {
  hasLikelihoodTerm,
  lossOfLogps,
  type LossConfig,
} from '../../ts/verification/objectives.js';
import type { ReferenceBatch } from '../../ts/verification/reference.js';
import {
  checkGradient,
  expectation,
  logpBound,
  prepare,
  scaled,
  sequenceBatch,
  Tally,
  type Prepared,
} from '../../ts/verification/verification.js';
import { termsAt } from '../../ts/verification/hidden.js';
import type { Misses } from './bounds.js';
import { at } from './numbers.js';

/** What float64 arithmetic of a pair may be off by. */
export const float64Bound = (x: number): number => 1e-11 * Math.max(1e-3, Math.abs(x));

type Values = Omit<LossResult, 'gradLogits' | 'rowScale'>;

/** The first two stages. */
export function checkValueStages(
  tally: Tally,
  config: LossConfig,
  { batch, alignment }: Prepared<ReferenceBatch>,
  result: Values,
): void {
  const { logps, counts, lengths } = alignment;
  logps.forEach((logp, b) => {
    tally.near(
      'logps',
      at(result.logps, b),
      logp,
      logpBound(logp, at(lengths, b)),
      () => `logps[${b}]`,
    );
    tally.near('logps', at(result.counts, b), at(counts, b), 0, () => `counts[${b}]`);
    if (!(at(result.logps, b) <= 0))
      tally.near('logps', NaN, 0, 0, () => `a log-probability of ${at(result.logps, b)}`);
  });
  // The loss then holds two kinds of log-probabilities, one of which no result has.
  if (batch.sftLabels && hasLikelihoodTerm(config)) return;
  const own = lossOfLogps(config, sequenceBatch(batch, { logps: result.logps, lengths }));
  tally.near('loss', result.loss, own.loss, float64Bound(own.loss), () => 'loss');
  own.losses.forEach((loss, i) => {
    tally.near('loss', at(result.losses, i), loss, float64Bound(loss), () => `losses[${i}]`);
  });
  own.rewards.forEach((reward, i) => {
    tally.near('logps', at(result.rewards, i), reward, float64Bound(reward), () => `rewards[${i}]`);
  });
}

/**
 * Of a batch of logits, padded or packed, with any stride; 16-bit arrays by their bits; `scale` is
 * the run's `gradientScale`.
 */
export function checkLogitsStages(
  tally: Tally,
  config: LossConfig,
  batch: LogitsBatch,
  result: LossResult,
  scale = 1,
  prepared = prepare(batch),
): void {
  checkValueStages(tally, config, prepared, result);
  const gradient: LogitsArray | undefined = result.gradLogits;
  if (!gradient) return;
  const expected = expectation(config, prepared);
  const terms = termsAt(config, prepared, expected, result);
  checkGradient(tally, prepared, scaled({ ...expected, terms }, scale), gradient, result.rowScale);
}

/** {@link checkLogitsStages} for what collects misses. */
export function checkWithin(
  misses: Misses,
  what: string,
  config: LossConfig,
  batch: LogitsBatch,
  result: LossResult,
  prepared?: Prepared,
): void {
  const tally = new Tally();
  checkLogitsStages(tally, config, batch, result, 1, prepared);
  misses.require(tally.count === 0, () => `${what}: ${JSON.stringify(tally.misses)}`);
}
