/** The same through an output layer: batches of hidden states. */
import { rangeError } from '../../errors.js';
import type { HiddenBatch, LogitsArray } from '../../batch/types.js';
import type { ReferenceConfig } from './config.js';
import type { FamilyFields } from './fields.js';
import { referenceLoss, type ReferenceResult } from './logits.js';
import { at } from './numbers.js';
import { outline, type ReferenceBatch, reader } from './rows.js';

type Numbers = LogitsArray | Float64Array;

/** A batch of hidden states, which may be in float64, too. */
export type ReferenceHiddenBatch = Omit<
  HiddenBatch,
  'hidden' | 'weight' | 'bias' | keyof FamilyFields
> &
  FamilyFields & {
    /** [rows, hiddenSize]. */
    readonly hidden: Numbers;
    /** [vocab, hiddenSize]. */
    readonly weight: Numbers;
    /** [vocab]. */
    readonly bias?: Numbers | undefined;
  };

/** The chain rule's share of an output layer. */
export interface ReferenceLayerGradients {
  /** [rows, hiddenSize]. */
  readonly gradHidden: Float64Array;
  /** [vocab, hiddenSize]. */
  readonly gradWeight: Float64Array;
  /** [vocab], as it is with a bias. */
  readonly gradBias: Float64Array;
}

/** `gradLogits` is the gradient of the logits that the layer would give. */
export interface ReferenceHiddenResult extends ReferenceResult, ReferenceLayerGradients {}

/** An output layer in float64. */
export interface ReferenceLayer {
  /** Elements of a hidden state. */
  readonly hiddenSize: number;
  /** [rows, hiddenSize]. */
  readonly hidden: Float64Array;
  /** [vocab, hiddenSize]. */
  readonly weight: Float64Array;
  /**
   * The batch by its logits; rows that no term scores are NaN, whatever their hidden states are.
   */
  readonly batch: Omit<ReferenceBatch, 'logits'> & {
    /** [rows, vocab]. */
    readonly logits: Float64Array;
  };
  /** Whether a term scores the row. */
  readonly isScored: (row: number) => boolean;
}

/** logits[row, v] = sum over k of hidden[row, k] weight[v, k], plus bias[v]. */
export function referenceLayer(given: ReferenceHiddenBatch): ReferenceLayer {
  const { hidden, weight, bias, dtype, hiddenSize: size, ...batch } = given;
  const { rows, vocab, ignoreIndex } = outline(batch);
  const hiddenSize = size ?? weight.length / vocab;
  for (const [name, length, expected] of [
    ['hidden', hidden.length, rows * hiddenSize],
    ['weight', weight.length, vocab * hiddenSize],
    ['bias', bias?.length ?? vocab, vocab],
  ] as const) {
    if (length !== expected)
      throw rangeError('ERR_DIRALIGN_SHAPE', `${name}: ${length} elements; expected ${expected}.`);
  }
  const { labels, sftLabels } = batch;
  const isScored = (row: number): boolean =>
    at(labels, row) !== ignoreIndex ||
    (sftLabels !== undefined && at(sftLabels, row) !== ignoreIndex);
  const values = (name: string, data: Numbers): Float64Array => {
    const element = reader(name, data, dtype);
    return Float64Array.from({ length: data.length }, (_, i) => element(i));
  };
  const [states, weights] = [values('hidden', hidden), values('weight', weight)];
  const biases = bias && values('bias', bias);
  const logits = new Float64Array(rows * vocab).fill(NaN);
  for (let row = 0; row < rows; row++) {
    if (!isScored(row)) continue;
    for (let v = 0; v < vocab; v++) {
      let total = biases ? at(biases, v) : 0;
      for (let k = 0; k < hiddenSize; k++)
        total += at(states, row * hiddenSize + k) * at(weights, v * hiddenSize + k);
      logits[row * vocab + v] = total;
    }
  }
  return { hiddenSize, hidden: states, weight: weights, batch: { ...batch, logits }, isScored };
}

/**
 * What a loss of logits gives for a batch of hidden states. With G the gradient of the logits, the
 * chain rule gives
 *
 *   dLoss/dhidden = G weight,   dLoss/dweight = transposed(G) hidden,
 *   dLoss/dbias = the sum of the rows of G.
 */
export function throughLayer<Result extends { readonly gradLogits: Float64Array }>(
  given: ReferenceHiddenBatch,
  loss: (batch: ReferenceBatch) => Result,
): Result & ReferenceLayerGradients {
  const { hiddenSize, hidden, weight, batch, isScored } = referenceLayer(given);
  const result = loss(batch);
  const { rows, vocab } = outline(batch);
  const gradHidden = new Float64Array(rows * hiddenSize);
  const gradWeight = new Float64Array(vocab * hiddenSize);
  const gradBias = new Float64Array(vocab);
  for (let row = 0; row < rows; row++) {
    if (!isScored(row)) continue;
    for (let v = 0; v < vocab; v++) {
      const g = at(result.gradLogits, row * vocab + v);
      // A row without a coefficient adds nothing, whatever its hidden state is.
      if (g === 0) continue;
      gradBias[v] = at(gradBias, v) + g;
      for (let k = 0; k < hiddenSize; k++) {
        const [i, j] = [row * hiddenSize + k, v * hiddenSize + k];
        gradHidden[i] = at(gradHidden, i) + g * at(weight, j);
        gradWeight[j] = at(gradWeight, j) + g * at(hidden, i);
      }
    }
  }
  return { ...result, gradHidden, gradWeight, gradBias };
}

/** The objective of a batch of hidden states, and its gradients. */
export function referenceHiddenLoss(
  config: ReferenceConfig,
  batch: ReferenceHiddenBatch,
): ReferenceHiddenResult {
  return throughLayer(batch, (logits) => referenceLoss(config, logits));
}
