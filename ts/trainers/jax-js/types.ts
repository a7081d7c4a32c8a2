import type { Array as JaxArray, JsTree } from '@jax-js/jax';
import type { Method, ReferenceNeed } from '../../catalogue.js';
import type { GradientBuffers } from '../../loss/gradient-buffers.js';
import type { RowMetric } from '../../metrics.js';
import type { HiddenLossResult, LossValues, SequenceLogps } from '../../loss/results.js';
import type { Carried } from '../bindings.js';

/**
 * The output layer that would make the logits: `logits = hidden weightᵀ + bias`. Float32 arrays.
 */
export interface JaxOutputLayer {
  /** [sequences, tokens, hiddenSize], or packed [rows, hiddenSize]. */
  readonly hidden: JaxArray;
  /** [vocab, hiddenSize], as a tied embedding has it. */
  readonly weight: JaxArray;
  /** [vocab]; none by default. */
  readonly bias?: JaxArray | undefined;
}

/**
 * The model: from its parameters to float32 logits [sequences, tokens, vocab], or packed [rows,
 * vocab] with `offsets`; or to an output layer. As with every function of jax-js, it owns the
 * parameters that it is given, and what it returns is given away. It may be jitted.
 */
export type JaxForward<Params> = (params: Params) => JaxArray | JaxOutputLayer;

/**
 * What goes with the logits. Sequences: first half chosen, second half rejected. Arrays of jax-js
 * are read and stay the caller's.
 */
export interface JaxBatch extends Carried {
  /**
   * One per row, already aligned: the logits of row t score `labels[t]`. An int32 Array has the
   * shape of the logits without vocab.
   */
  readonly labels: Int32Array | JaxArray;
  /** Rows with this label are prompt or padding: never read, gradient 0. Default -100. */
  readonly ignoreIndex?: number;
  /**
   * [sequences], in nats: the reference model's log-probabilities summed over the same rows, as
   * `sequenceLogps` gives them.
   */
  readonly reference?: Float64Array | Float32Array | JaxArray | undefined;
  /** Labels of the likelihood term where they differ from `labels`. */
  readonly sftLabels?: Int32Array | JaxArray;
  /**
   * Packed batches, logits [rows, vocab]: `sequences + 1` row offsets, from 0 to rows,
   * non-decreasing.
   */
  readonly offsets?: Int32Array;
}

/** Whether gradients of the parameters are made. */
export type JaxGradientMode = 'dense' | 'none';

/** Everything a call of the objective gives but the gradients, in float64. */
export type JaxLossValues<M extends Method = Method> = LossValues<M> &
  // Where the model returns an output layer.
  Partial<Pick<HiddenLossResult, 'memory'>>;

/** The same with the gradients. */
export type JaxLossResult<
  Params,
  Mode extends JaxGradientMode = 'dense',
  M extends Method = Method,
> = Mode extends 'none'
  ? JaxLossValues<M>
  : JaxLossValues<M> & {
      /** dLoss/dparams: a tree like `params`, of new Arrays that are the caller's. */
      readonly grads: Params;
    };

/** How a step is computed. */
export interface JaxRunOptions<Mode extends JaxGradientMode = JaxGradientMode> {
  /**
   * `'dense'` (default), or `'none'` for the loss alone: no tape, no backward pass and no `grads`.
   */
  readonly gradient?: Mode;
  /**
   * At most this many CPU threads; default: all that the process may use. The result does not
   * depend on it.
   */
  readonly threads?: number;
  /** Multiplies `grads`, and neither loss nor metrics: any finite number, default 1. */
  readonly gradientScale?: number;
  /** Metrics of the logits that the result is to have, as in an objective's `run.metrics`. */
  readonly metrics?: readonly RowMetric[];
  /**
   * Where the model returns an output layer: bytes that the workspace may take; default 256 MiB.
   */
  readonly memory?: number;
  /**
   * Where the model returns an output layer: lend its gradients their memory, from one step to the
   * next. The gradient of logits needs none: it is written over what was read of them.
   */
  readonly buffers?: GradientBuffers | undefined;
}

/** How an asynchronous step is computed. */
export interface JaxAsyncRunOptions<
  Mode extends JaxGradientMode = JaxGradientMode,
> extends JaxRunOptions<Mode> {
  /** Aborts the native call: the promise rejects with code ERR_DIRALIGN_ABORTED. */
  readonly signal?: AbortSignal;
}

/** A {@link JaxBatch} as the method of an objective needs it. */
type JaxNeeded<Need extends ReferenceNeed> = {
  required: Required<Pick<JaxBatch, 'reference'>>;
  optional: unknown;
}[Need];

/** An objective as a training step up to its gradients: what `jaxDirAlignLoss` returns. */
export interface JaxLoss<M extends Method = Method, Need extends ReferenceNeed = ReferenceNeed> {
  /**
   * A training step up to its gradients: runs `forward(params)` under `vjp`, makes loss and
   * gradient of what it returns by one native call, and pulls the gradient back to the parameters.
   * Where the model returns an {@link JaxOutputLayer}, its logits are never there; of its arrays
   * those that do not depend on the parameters are taken for frozen, and cost no gradient.
   *
   * `params` and the arrays of `batch` are read and stay the caller's: nothing passed here needs
   * `.ref`. The arrays of `grads` are the caller's to consume or dispose of.
   * @throws DirAlignError before loss or gradient is computed; `code` says what is wrong.
   */
  <Params extends JsTree<JaxArray>, Mode extends JaxGradientMode = 'dense'>(
    forward: JaxForward<Params>,
    params: Params,
    batch: JaxBatch & JaxNeeded<Need>,
    run?: JaxRunOptions<Mode>,
  ): JaxLossResult<Params, Mode, M>;
  /**
   * The same, bit for bit, for devices that are read asynchronously (WebGPU), with the native call
   * off the event loop. `forward` is called before it returns. Host arrays of the batch belong to
   * the call until the promise settles.
   */
  readonly async: <Params extends JsTree<JaxArray>, Mode extends JaxGradientMode = 'dense'>(
    forward: JaxForward<Params>,
    params: Params,
    batch: JaxBatch & JaxNeeded<Need>,
    run?: JaxAsyncRunOptions<Mode>,
  ) => Promise<JaxLossResult<Params, Mode, M>>;
}

/** What {@link JaxSequenceLogps} takes of a batch. */
export type JaxLogpsBatch = Omit<JaxBatch, 'reference' | 'sftLabels'>;

/** How a call of {@link JaxSequenceLogps} is computed. */
export type JaxLogpsOptions = Pick<JaxRunOptions, 'threads' | 'memory'>;

/** The call of `sequenceLogps`. */
export interface JaxSequenceLogps {
  /** @throws DirAlignError before anything is computed but `forward(params)` */
  <Params extends JsTree<JaxArray>>(
    forward: JaxForward<Params>,
    params: Params,
    batch: JaxLogpsBatch,
    run?: JaxLogpsOptions,
  ): SequenceLogps;
  /** The same for devices that are read asynchronously. */
  readonly async: <Params extends JsTree<JaxArray>>(
    forward: JaxForward<Params>,
    params: Params,
    batch: JaxLogpsBatch,
    run?: JaxLogpsOptions,
  ) => Promise<SequenceLogps>;
}
