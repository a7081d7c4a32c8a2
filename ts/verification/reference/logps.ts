/** Objectives of sequence log-probabilities that a trainer already has. */
import { typeError } from '../../errors.js';
import type { LogpsBatch } from '../../batch/types.js';
import { type ReferenceConfig, type Resolved, resolve } from './config.js';
import { type FamilyFields, rowFields } from './fields.js';
import { checkObjectives, score, type Scores } from './score.js';
import { at } from './numbers.js';

/** Sequence log-probabilities, with the fields of the reference. */
export type ReferenceLogpsBatch = Omit<LogpsBatch, 'counts' | keyof FamilyFields> &
  Omit<FamilyFields, (typeof rowFields)[number]> & {
    /** Per sequence: scored rows, or the sums of their weights. */
    readonly counts: ArrayLike<number>;
  };

/** What {@link referenceFromLogps} gives. */
export interface ReferenceLogpsResult {
  /** Sum over units of weight times loss, over the denominator, the likelihood term included. */
  readonly loss: number;
  /** Per unit, before weights and denominator, the likelihood term included. */
  readonly losses: Float64Array;
  /**
   * Per sequence: beta times the log-ratio (the log-probability without a reference), per token
   * where `normalize` is true.
   */
  readonly rewards: Float64Array;
  /** dLoss/dlogps per sequence, the likelihood term included. */
  readonly gradLogps: Float64Array;
}

/** The scores of every objective. */
export function scoreLogps(objectives: readonly Resolved[], batch: ReferenceLogpsBatch): Scores[] {
  const given = rowFields.find(
    (name) => name in batch && (batch as FamilyFields)[name] !== undefined,
  );
  if (given !== undefined)
    throw typeError('ERR_DIRALIGN_OPTION', `${given}: is of rows, which are not here.`);
  checkObjectives(objectives, batch, 0);
  return objectives.map((settings) => score(settings, batch));
}

/** dLoss/dlogps per sequence, the likelihood term included. */
export function wholeGradient({ coefficients, likelihood }: Scores): Float64Array {
  return coefficients.map((c, b) => c + at(likelihood, b));
}

/** The objective of sequence log-probabilities, and its gradient in them. */
export function referenceFromLogps(
  config: ReferenceConfig,
  batch: ReferenceLogpsBatch,
): ReferenceLogpsResult {
  const scores = at(scoreLogps([resolve(config)], batch), 0);
  const { loss, losses, rewards } = scores;
  return { loss, losses, rewards, gradLogps: wholeGradient(scores) };
}
