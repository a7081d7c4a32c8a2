/** Weighted sums of objectives. */
import { typeError } from '../../errors.js';
import { type ReferenceConfig, resolve } from './config.js';
import { type ReferenceHiddenBatch, type ReferenceLayerGradients, throughLayer } from './hidden.js';
import { evaluate, type Weighted } from './logits.js';
import { type ReferenceLogpsBatch, scoreLogps, wholeGradient } from './logps.js';
import { at, sum } from './numbers.js';
import type { ReferenceBatch } from './rows.js';
import type { Scores } from './score.js';

/** An objective of a mixture. */
export interface ReferenceTerm {
  /** What multiplies its loss. */
  readonly weight: number;
  /** Its settings. */
  readonly config: ReferenceConfig;
}

interface MixValues {
  /** The weighted sum of the objectives' losses. */
  readonly loss: number;
  /** Losses of the objectives. */
  readonly terms: readonly number[];
  /** Per unit: the weighted sum of the objectives' losses of it. */
  readonly losses: Float64Array;
  /** Per sequence: those of the first objective. */
  readonly rewards: Float64Array;
}
/** What {@link referenceMix} gives for logits. */
export interface ReferenceMixResult extends MixValues {
  /** Per sequence, the weighted sum over its scored rows, in nats. */
  readonly logps: Float64Array;
  /** Per sequence: scored rows. */
  readonly counts: Int32Array;
  /** Per sequence: the weighted sum of the objectives' dLoss/dlogps, likelihood terms left out. */
  readonly coefficients: Float64Array;
  /** Per sequence: the weighted sum of those of the likelihood terms, by their own labels. */
  readonly likelihoodCoefficients: Float64Array;
  /** The weighted sum of the objectives' gradients. */
  readonly gradLogits: Float64Array;
}
/** What {@link referenceMix} gives for log-probabilities. */
export interface ReferenceMixLogpsResult extends MixValues {
  /** The weighted sum of the objectives' gradients. */
  readonly gradLogps: Float64Array;
}

/**
 * Objectives of one arity. `sft`, which is nothing but a likelihood, takes the arity of those
 * beside it, and is then the likelihood term of the chosen or of the desirable.
 */
function resolveTerms(terms: readonly ReferenceTerm[]): Weighted[] {
  const objectives = terms.map(({ weight, config }) => ({ weight, settings: resolve(config) }));
  const arities = new Set(
    objectives.flatMap(({ settings }) => (settings.loss ? [settings.arity] : [])),
  );
  const [arity] = arities;
  if (objectives.length === 0 || arities.size > 1)
    throw typeError('ERR_DIRALIGN_OPTION', 'terms: expected objectives of one arity.');
  return objectives.map(({ weight, settings }) => {
    if (settings.loss || arity === undefined) return { weight, settings };
    if (arity === 'group')
      throw typeError('ERR_DIRALIGN_OPTION', 'terms: no candidate of a group is the chosen.');
    // A likelihood term beside an alignment term of nothing.
    return { weight, settings: { ...settings, arity, loss: () => [] } };
  });
}

/** Weighted sums over the objectives. */
function weightedBy(objectives: readonly Weighted[], scores: readonly Scores[]) {
  const one = (x: (scores: Scores) => number): number =>
    sum(scores.length, (i) => at(objectives, i).weight * x(at(scores, i)));
  const each = (x: (scores: Scores) => Float64Array): Float64Array =>
    x(at(scores, 0)).map((_, i) => one((own) => at(x(own), i)));
  return { one, each };
}

function mixValues(objectives: readonly Weighted[], scores: readonly Scores[]): MixValues {
  const { one, each } = weightedBy(objectives, scores);
  return {
    loss: one(({ loss }) => loss),
    terms: scores.map(({ loss }) => loss),
    losses: each(({ losses }) => losses),
    rewards: at(scores, 0).rewards,
  };
}

/** The weighted sum of objectives of one arity, and its gradient. */
export function referenceMix(
  terms: readonly ReferenceTerm[],
  batch: ReferenceBatch,
): ReferenceMixResult;
export function referenceMix(
  terms: readonly ReferenceTerm[],
  batch: ReferenceHiddenBatch,
): ReferenceMixResult & ReferenceLayerGradients;
export function referenceMix(
  terms: readonly ReferenceTerm[],
  batch: ReferenceLogpsBatch,
): ReferenceMixLogpsResult;
export function referenceMix(
  terms: readonly ReferenceTerm[],
  batch: ReferenceBatch | ReferenceHiddenBatch | ReferenceLogpsBatch,
): ReferenceMixResult | ReferenceMixLogpsResult {
  if ('hidden' in batch) return throughLayer(batch, (logits) => referenceMix(terms, logits));
  const objectives = resolveTerms(terms);
  if ('logits' in batch) {
    const { scores, ...result } = evaluate(objectives, batch);
    const { each } = weightedBy(objectives, scores);
    return {
      ...result,
      ...mixValues(objectives, scores),
      coefficients: each(({ coefficients }) => coefficients),
      likelihoodCoefficients: each(({ likelihood }) => likelihood),
    };
  }
  const settings = objectives.map((each) => each.settings);
  const scores = scoreLogps(settings, batch);
  const gradLogps = weightedBy(objectives, scores).each(wholeGradient);
  return { ...mixValues(objectives, scores), gradLogps };
}
