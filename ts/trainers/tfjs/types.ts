/** What the ops of TensorFlow.js take and give. */
import type { Scalar, Tensor } from '@tensorflow/tfjs-core';
import type { Method, ReferenceNeed } from '../../catalogue.js';
import type { HiddenLossResult, LossValues } from '../../loss/results.js';
import type { GradientBuffers } from '../../loss/gradient-buffers.js';
import type { RowMetric } from '../../metrics.js';
import type { Carried } from '../bindings.js';

/**
 * What goes with the logits. Sequences: first half chosen, second half rejected. Tensors here are
 * read and never differentiated.
 */
export interface TfBatch extends Carried {
  /**
   * One per row, already aligned: the logits of row t score `labels[t]`. An int32 tensor has the
   * shape of the logits without vocab.
   */
  readonly labels: Int32Array | Tensor;
  /** Rows with this label are prompt or padding: never read, gradient 0. Default -100. */
  readonly ignoreIndex?: number;
  /**
   * [sequences], in nats: the reference model's log-probabilities summed over the same rows, as
   * {@link sequenceLogps} gives them.
   */
  readonly reference?: Float64Array | Float32Array | Tensor | undefined;
  /** Labels of the likelihood term where they differ from `labels`. */
  readonly sftLabels?: Int32Array | Tensor;
  /**
   * Packed batches, logits [rows, vocab]: `sequences + 1` row offsets, from 0 to rows,
   * non-decreasing.
   */
  readonly offsets?: Int32Array;
}

/** Everything a call of the objective gives but the gradients, in float64. */
export type TfLossResult<M extends Method = Method> = LossValues<M>;

/** The same from hidden states. */
export type TfHiddenLossResult<M extends Method = Method> = LossValues<M> &
  Pick<HiddenLossResult, 'memory'>;

/** How a call is made, and who gets the rest of its result. */
export interface TfRunOptions<Result = TfLossResult> {
  /** Called with losses, rewards, metrics and the rest of the result, before the op returns. */
  readonly onResult?: (result: Result) => void;
  /**
   * At most this many CPU threads; default: all that the process may use. The result does not
   * depend on it.
   */
  readonly threads?: number;
  /**
   * Multiplies the gradient, and neither the loss nor what `onResult` gets: any finite number,
   * default 1.
   */
  readonly gradientScale?: number;
  /**
   * Metrics of the logits that the result for `onResult` is to have, as in an objective's
   * `run.metrics`.
   */
  readonly metrics?: readonly RowMetric[];
}

/** The same from hidden states. */
export interface TfHiddenRunOptions<M extends Method = Method> extends TfRunOptions<
  TfHiddenLossResult<M>
> {
  /** Bytes that the workspace may take; default 256 MiB. */
  readonly memory?: number;
  /**
   * Lend the gradients their memory until TensorFlow.js has copied them, on the wasm backend; other
   * backends may keep the arrays, which are fresh there.
   */
  readonly buffers?: GradientBuffers | undefined;
}

/**
 * The output layer that would make the logits: `logits = hidden weightᵀ + bias`. Float32 tensors.
 */
export interface TfOutputLayer {
  /** [sequences, tokens, hiddenSize], or packed [rows, hiddenSize]. */
  readonly hidden: Tensor;
  /**
   * [vocab, hiddenSize], as a tied embedding has it. A dense layer's kernel is its transpose: pass
   * `transpose(kernel)`.
   */
  readonly weight: Tensor;
  /** [vocab]; none by default. */
  readonly bias?: Tensor;
}

/** A {@link TfBatch} as the method of an objective needs it. */
export type TfNeeded<Need extends ReferenceNeed> = {
  required: Required<Pick<TfBatch, 'reference'>>;
  optional: unknown;
}[Need];

/** An objective as a differentiable op: what {@link tfDirAlignLoss} returns. */
export interface TfLoss<M extends Method = Method, Need extends ReferenceNeed = ReferenceNeed> {
  /**
   * The loss, a float32 scalar, of float32 logits [sequences, tokens, vocab], or packed [rows,
   * vocab] with `offsets`. Differentiable in the logits, once.
   *
   * Loss and gradient are computed together, by one native call, where a gradient is being
   * recorded, and the loss alone elsewhere. On the cpu backend the call reads the logits where they
   * are and TensorFlow.js takes the gradient array over; other backends copy both. On wasm the
   * gradient is written over the copy of the logits.
   * @throws DirAlignError before anything is computed; `code` says what is wrong.
   */
  (logits: Tensor, batch: TfBatch & TfNeeded<Need>, run?: TfRunOptions<TfLossResult<M>>): Scalar;
  /**
   * The same from hidden states and the output layer, without the logits ever being there.
   * Differentiable in hidden states, weight and bias, once.
   * @throws DirAlignError before anything is computed; a `memory` that is too small is told how
   *   many bytes would do.
   */
  fromHidden(
    layer: TfOutputLayer,
    batch: TfBatch & TfNeeded<Need>,
    run?: TfHiddenRunOptions<M>,
  ): Scalar;
}
