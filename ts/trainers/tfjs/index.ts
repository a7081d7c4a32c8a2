/** `diralign/tfjs`: the losses as differentiable ops of TensorFlow.js. */
import {
  customGrad,
  engine,
  mul,
  scalar,
  tensor,
  tidy,
  type Scalar,
  type Tensor,
} from '@tensorflow/tfjs-core';
import { batchKeys, checkObjective, rowsOutline } from '../bindings.js';
import type { Method, ReferenceNeed } from '../../catalogue.js';
import { typeError } from '../../errors.js';
import { checkObject, describe, readProperties } from '../../given.js';
import type { RowMetric } from '../../metrics.js';
import { sequenceLogps as sequenceLogpsOf } from '../../logps.js';
import type { ObjectiveCalls } from '../../objective.js';
import type { BatchRows, LogitsShape } from '../../batch/types.js';
import type { HiddenLossResult, LossValues, SequenceLogps } from '../../loss/results.js';
import { checkFloats, floatsOf, labelsOf, referenceOf } from './tensors.js';

/**
 * What goes with the logits. Sequences: first half chosen, second half rejected. Tensors here are
 * read and never differentiated.
 */
export interface TfBatch {
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

/** How a call is made, and who hears what it gives beside the loss. */
export interface TfRunOptions<Result = TfLossResult> {
  /** Is called with losses, rewards, metrics and the rest of the result, before the op returns. */
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
type TfNeeded<Need extends ReferenceNeed> = {
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
   * are and TensorFlow.js takes the gradient array over; other backends copy both.
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

const runKeys = ['onResult', 'threads', 'gradientScale', 'metrics'] as const;
const hiddenRunKeys = [...runKeys, 'memory'] as const;
const layerKeys = ['hidden', 'weight', 'bias'] as const;

/**
 * An objective as a differentiable op of TensorFlow.js.
 *
 * @param objective what `dirAlignLoss` returns.
 * @throws DirAlignError with code ERR_DIRALIGN_OPTION
 *
 * @example
 * const dpo = tfDirAlignLoss(dirAlignLoss('dpo', 0.1));
 * const onResult = ({ metrics }) => log(metrics);
 * optimizer.minimize(() => dpo(model.apply(tokens), { labels, reference }, { onResult }));
 */
export function tfDirAlignLoss<M extends Method, Need extends ReferenceNeed>(
  objective: ObjectiveCalls<M, Need>,
): TfLoss<M, Need> {
  checkObjective(objective);
  const calls: ObjectiveCalls = objective;
  const fromLogits = (logits: Tensor, given: TfBatch, run: TfRunOptions = {}): Scalar => {
    const { onResult, ...options } = readRun(run, runKeys);
    const batch = readBatch(given);
    checkLogits(logits, batch);
    const rows = rowsOf(batch, logits.shape as unknown as LogitsShape);
    return lossOf([logits], (gradient) => {
      const { gradLogits, ...result } = calls(
        { ...rows, logits: floatsOf(logits) },
        { ...options, gradient },
      );
      onResult?.(result);
      return { loss: result.loss, gradients: [gradLogits] };
    });
  };
  const fromHidden = (
    layer: TfOutputLayer,
    given: TfBatch,
    run: TfHiddenRunOptions = {},
  ): Scalar => {
    const { onResult, ...options } = readRun<TfHiddenRunOptions>(run, hiddenRunKeys);
    const { hidden, weight, bias } = readLayer(layer);
    const batch = readBatch(given);
    checkLayer({ hidden, weight, bias }, batch);
    const rows = rowsOf(batch, [
      ...hidden.shape.slice(0, -1),
      weight.shape[0],
    ] as unknown as LogitsShape);
    return lossOf(bias ? [hidden, weight, bias] : [hidden, weight], (gradient) => {
      const data = {
        hidden: floatsOf(hidden),
        weight: floatsOf(weight),
        bias: bias && floatsOf(bias),
      };
      const given = { ...rows, ...data, hiddenSize: weight.shape[1] as number };
      const { gradHidden, gradWeight, gradBias, ...result } = calls.fromHidden(given, {
        ...options,
        gradient,
      });
      onResult?.(result);
      return {
        loss: result.loss,
        gradients: bias ? [gradHidden, gradWeight, gradBias] : [gradHidden, gradWeight],
      };
    });
  };
  return Object.freeze(Object.assign(fromLogits, { fromHidden })) as unknown as TfLoss<M, Need>;
}

/**
 * Log-probability of each sequence, summed over its scored rows, in nats and float64: how a
 * reference model's numbers are made, by the same kernel as training. Logits are those of {@link
 * TfLoss}. The result is in host arrays, and no gradient flows through it.
 * @throws DirAlignError before anything is computed
 *
 * @example
 * const logits = referenceModel.predict(tokens);
 * const { logps: reference } = sequenceLogps(logits, { labels });
 * logits.dispose();
 */
export function sequenceLogps(
  logits: Tensor,
  given: Omit<TfBatch, 'reference' | 'sftLabels'>,
  run: Pick<TfRunOptions, 'threads'> = {},
): SequenceLogps {
  checkObject('run', run);
  const { threads } = readProperties('run', run, ['threads']) as typeof run;
  const batch = readBatch(given);
  checkLogits(logits, batch);
  const rows = rowsOf(batch, logits.shape as unknown as LogitsShape);
  return sequenceLogpsOf({ ...rows, logits: floatsOf(logits) }, { threads });
}

function readRun<Run extends { readonly onResult?: unknown }>(
  given: Run,
  keys: readonly (keyof Run & string)[],
): Run {
  checkObject('run', given);
  const run = readProperties('run', given, keys) as Run;
  const { onResult } = run;
  if (onResult !== undefined && typeof onResult !== 'function') {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `run.onResult: expected a function, not ${describe(onResult)}`,
    );
  }
  return run;
}

function readBatch(batch: TfBatch): TfBatch {
  checkObject('batch', batch);
  return readProperties('batch', batch, batchKeys) as unknown as TfBatch;
}

function checkLogits(logits: Tensor, batch: TfBatch): void {
  checkFloats('logits', logits, rowsOutline(batch.offsets !== undefined, 'vocab'));
}

function readLayer(layer: TfOutputLayer): TfOutputLayer {
  checkObject('layer', layer);
  return readProperties('layer', layer, layerKeys) as unknown as TfOutputLayer;
}

function checkLayer({ hidden, weight, bias }: TfOutputLayer, batch: TfBatch): void {
  checkFloats('hidden', hidden, rowsOutline(batch.offsets !== undefined, 'hiddenSize'));
  checkFloats('weight', weight, ['vocab', hidden.shape.at(-1) as number]);
  if (bias !== undefined) checkFloats('bias', bias, [weight.shape[0]]);
}

/** The batch without its logits, in host arrays. */
function rowsOf(batch: TfBatch, shape: LogitsShape): BatchRows {
  const rows = shape.slice(0, -1) as readonly number[];
  const { labels, ignoreIndex, reference, sftLabels, offsets } = batch;
  return {
    shape,
    offsets,
    ignoreIndex,
    labels: labelsOf('labels', labels, rows),
    sftLabels: sftLabels && labelsOf('sftLabels', sftLabels, rows),
    reference: reference && referenceOf(reference),
  };
}

interface Computed {
  readonly loss: number;
  /** One per input, of its size, where a gradient was asked for. */
  readonly gradients: readonly unknown[];
}

/**
 * The loss as a tensor whose gradient in the inputs is the native one.
 *
 * A recorded loss is there to be differentiated: the fused call, which has the logits in cache for
 * the gradient, is made then, in the forward pass, and not the loss's first and both once more in
 * the backward pass. The gradient waits as an array and not as a tensor, so that a tape which is
 * dropped leaves nothing to dispose of. Inputs are kept for the backward pass only where tapes are
 * nested.
 */
function lossOf(
  inputs: readonly Tensor[],
  compute: (gradient: 'dense' | 'none') => Computed,
): Scalar {
  // To be asked outside of the op: nothing is recorded inside.
  if (!engine().isTapeOn()) return scalar(compute('none').loss);
  const nested = engine().state.gradientDepth > 1;
  const op = customGrad((...args) => {
    const save = args.at(-1) as unknown as (tensors: Tensor[]) => void;
    const { loss, gradients } = compute('dense');
    save(nested ? [...inputs] : []);
    const gradFunc = (dy: Tensor, saved: Tensor[]): Tensor[] =>
      inputs.map(({ shape }, i) => gradientOf(gradients[i] as Float32Array, shape, dy, saved));
    return { value: scalar(loss), gradFunc };
  });
  return op(...inputs);
}

/**
 * dy times the gradient. Another tape that records it (`saved` has the inputs, then) must not take
 * it for a constant.
 */
function gradientOf(
  gradient: Float32Array,
  shape: number[],
  dy: Tensor,
  saved: readonly Tensor[],
): Tensor {
  const scaled = (): Tensor =>
    tidy(() => {
      const unscaled = tensor(gradient, shape, 'float32');
      return floatsOf(dy)[0] === 1 ? unscaled : mul(unscaled, dy);
    });
  if (saved.length === 0) return scaled();
  const gradFunc = (): never => {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      'tfDirAlignLoss: differentiable once; there is no gradient of its gradient',
    );
  };
  return customGrad(() => ({ value: scaled(), gradFunc }))(dy, ...saved);
}
