/** Objectives of batches of logits. */
import { typeError } from '../../errors.js';
import { type ReferenceConfig, type Resolved, resolve } from './config.js';
import { at } from './numbers.js';
import { type ReferenceBatch, view } from './rows.js';
import { checkObjectives, score, type Scores, type Sequences } from './score.js';
import { addSequences, sumRows, weightOf } from './sums.js';

/** What {@link referenceLoss} gives, under the names of a `LossResult`. */
export interface ReferenceResult {
  /** Sum over units of weight times loss, over the denominator, the likelihood term included. */
  readonly loss: number;
  /** Per unit, before weights and denominator, the likelihood term included. */
  readonly losses: Float64Array;
  /** Per sequence, the weighted sum over its scored rows, in nats. */
  readonly logps: Float64Array;
  /** Per sequence: scored rows. */
  readonly counts: Int32Array;
  /**
   * Per sequence: beta times the log-ratio (the log-probability without a reference), per token
   * where `normalize` is true.
   */
  readonly rewards: Float64Array;
  /** dLoss/dlogps per sequence, the likelihood term (`sftWeight`) left out. */
  readonly coefficients: Float64Array;
  /** dLoss/dlogps of the likelihood term beside it, by the sums over `sftLabels` if there are. */
  readonly likelihoodCoefficients: Float64Array;
  /** dLoss/dlogits, [rows, vocab] without the padding of `rowStride`. */
  readonly gradLogits: Float64Array;
}

/** An objective with its weight in a sum of them. */
export interface Weighted {
  readonly weight: number;
  readonly settings: Resolved;
}

/**
 * The scores of every objective, and the gradient of their weighted sum: row t of sequence b gets
 * (dLoss/dS_b) w_t (onehot(y_t) - softmax(z_t)), and the likelihood term's share with its own
 * labels.
 */
export function evaluate(objectives: readonly Weighted[], batch: ReferenceBatch) {
  const { labels, sftLabels } = batch;
  if (sftLabels && objectives.some(({ settings }) => !settings.loss)) {
    throw typeError(
      'ERR_DIRALIGN_LABEL',
      'sftLabels: are those of a likelihood term beside an alignment term; sft has only labels.',
    );
  }
  const rows = view(batch);
  const weight = weightOf(batch);
  const { logps, counts, lengths } = sumRows(rows, labels, weight);
  const own = sftLabels && sumRows(rows, sftLabels, weight);
  const sequences: Sequences = {
    ...batch,
    logps,
    counts: lengths,
    likelihood: own && { logps: own.logps, counts: own.lengths },
  };
  checkObjectives(
    objectives.map(({ settings }) => settings),
    sequences,
    rows.rows,
  );
  const scores = objectives.map(({ settings }) => score(settings, sequences));

  const gradLogits = new Float64Array(rows.rows * rows.vocab);
  const add = (targets: Int32Array, coefficient: (scores: Scores, b: number) => number): void => {
    const sums = logps.map((_, b) =>
      objectives.reduce((all, each, i) => all + each.weight * coefficient(at(scores, i), b), 0),
    );
    addSequences(gradLogits, rows, targets, (b, row) => at(sums, b) * weight(row));
  };
  if (sftLabels) {
    add(labels, ({ coefficients }, b) => at(coefficients, b));
    add(sftLabels, ({ likelihood }, b) => at(likelihood, b));
  } else {
    add(labels, ({ coefficients, likelihood }, b) => at(coefficients, b) + at(likelihood, b));
  }
  return { scores, logps, counts, gradLogits };
}

/** The objective of a batch of logits, and its gradient. */
export function referenceLoss(config: ReferenceConfig, batch: ReferenceBatch): ReferenceResult {
  const settings = resolve(config);
  const { scores, logps, counts, gradLogits } = evaluate([{ weight: 1, settings }], batch);
  const { likelihood: likelihoodCoefficients, ...own } = at(scores, 0);
  return { ...own, likelihoodCoefficients, logps, counts, gradLogits };
}
