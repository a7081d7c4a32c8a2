/** What the calls return. */
import type { Like, Logits, LogitsArray } from '../batch/types.js';
import type { Method } from '../catalogue.js';
import type { AskedMetrics, Metrics, RowMetric } from '../metrics.js';
import type { GradientBuffers } from './gradient-buffers.js';
import type { Float32Gradient, GradientMode, HiddenGradientMode } from './options.js';

/** What every call of a loss gives, whatever its gradients. */
export interface LossValues<
  M extends Method = Method,
  Names extends readonly RowMetric[] = readonly RowMetric[],
> {
  /** The weighted sum of `losses` over `denominator`: without these, their mean. */
  readonly loss: number;
  /**
   * Per unit: pair, sequence or group, weights left out; for the batch-coupled `aot` methods, per
   * rank, ascending.
   */
  readonly losses: Float64Array;
  /** Per sequence, summed over its scored rows. */
  readonly logps: Float64Array;
  /** Per sequence: scored rows. */
  readonly counts: Int32Array;
  /**
   * Per sequence: beta * log-ratio to the reference (log-probability without one), per token where
   * `normalize` is true.
   */
  readonly rewards: Float64Array;
  /** Per sequence: dLoss/dlogps, the likelihood term (`sftWeight`) left out. */
  readonly coefficients: Float64Array;
  /** Counts, and means over the batch, by the names that TRL logs: docs/metrics.md has each. */
  readonly metrics: Metrics<M> & AskedMetrics<Names>;
  /** Who computed. */
  readonly backend: 'cpu' | 'cuda';
  /** Of `mixLosses`: its losses, in their order. */
  readonly terms?: readonly LossTerm[];
}

/** A loss of a mixture. */
export interface LossTerm {
  /** Whose loss. */
  readonly method: Method;
  /** What multiplies it. */
  readonly weight: number;
  /** Its value, the weight left out. */
  readonly loss: number;
}

/** A field that is there, is not, or may be, where only the run tells. */
type Field<Name extends string, Value, There extends boolean> = [There] extends [true]
  ? Readonly<Record<Name, Value>>
  : [There] extends [false]
    ? Readonly<Partial<Record<Name, undefined>>>
    : Readonly<Partial<Record<Name, Value>>>;

type Is<Mode, Value> = [Mode] extends [Value] ? true : Value extends Mode ? boolean : false;
type IsNot<Mode, Value> = [Mode] extends [Value] ? false : Value extends Mode ? boolean : true;

interface Lender {
  /** Gives back what was lent for the result. */
  readonly [Symbol.dispose]: () => void;
}

/**
 * What a result has with `run.buffers`: `using result = dpo(batch, { buffers })` gives its
 * gradients back, those that were not before.
 */
export type LentBy<Lent extends GradientBuffers | undefined> = [Lent] extends [GradientBuffers]
  ? Lender
  : [Lent] extends [undefined]
    ? unknown
    : Partial<Lender>;

/**
 * `gradLogits` is there unless `gradient: 'none'`. For logits in device memory, without `inPlace`
 * or `out`, it is in fresh memory of the device, which `gradLogits.dispose()` frees; the work that
 * fills it is done by the time the call returns or the promise resolves. `rowScale`, one per row,
 * is there with `gradient: 'factored'`.
 */
export type LogitsGradient<L extends Logits, Mode extends GradientMode> = Field<
  'gradLogits',
  L,
  IsNot<Mode, 'none'>
> &
  Field<'rowScale', Float32Array<ArrayBuffer>, Is<Mode, 'factored'>>;

/** The result of a loss of logits; `Mode` is the run's `gradient`. */
export type LossResult<
  L extends Logits = LogitsArray,
  Mode extends GradientMode = GradientMode,
  M extends Method = Method,
  Names extends readonly RowMetric[] = readonly RowMetric[],
  Lent extends GradientBuffers | undefined = undefined,
> = LossValues<M, Names> & LogitsGradient<L, Mode> & LentBy<Lent>;

/** Whether a gradient is made: not with `gradient: 'none'`, and not where `out` says false. */
type Wanted<Mode, Given> =
  IsNot<Mode, 'none'> extends true
    ? IsNot<Given, false>
    : [Mode] extends ['none']
      ? false
      : boolean;
type WithBias<Bias, There extends boolean> = [Bias] extends [undefined]
  ? false
  : undefined extends Bias
    ? boolean
    : There;

/**
 * The gradients of an output layer, those that the run asks for. `gradHidden`: dLoss/dhidden,
 * [rows, hiddenSize], in the dtype and kind of memory of `hidden`; rows with an ignored label are
 * 0. `gradWeight`: dLoss/dweight, [vocab, hiddenSize], in float32 whatever the dtype. `gradBias`:
 * dLoss/dbias, [vocab], in float32, where there is a bias. Fresh device memory is freed by their
 * `dispose()`.
 */
export type LayerGradients<
  L extends Logits,
  Bias extends Like<L> | undefined,
  Mode extends HiddenGradientMode,
  OfHidden extends Like<L> | boolean,
  OfWeight extends Float32Gradient<L> | boolean,
  OfBias extends Float32Gradient<L> | boolean,
> = Field<'gradHidden', L, Wanted<Mode, OfHidden>> &
  Field<'gradWeight', Float32Gradient<L>, Wanted<Mode, OfWeight>> &
  Field<'gradBias', Float32Gradient<L>, WithBias<Bias, Wanted<Mode, OfBias>>>;

/** The values of a loss, the gradients of the output layer, and what the call took. */
export type HiddenLossResult<
  L extends Logits = LogitsArray,
  Bias extends Like<L> | undefined = Like<L> | undefined,
  Mode extends HiddenGradientMode = HiddenGradientMode,
  OfHidden extends Like<L> | boolean = Like<L> | boolean,
  OfWeight extends Float32Gradient<L> | boolean = Float32Gradient<L> | boolean,
  OfBias extends Float32Gradient<L> | boolean = Float32Gradient<L> | boolean,
  M extends Method = Method,
  Names extends readonly RowMetric[] = readonly RowMetric[],
  Lent extends GradientBuffers | undefined = undefined,
> = LossValues<M, Names> &
  LayerGradients<L, Bias, Mode, OfHidden, OfWeight, OfBias> &
  LentBy<Lent> & {
    /** Bytes of workspace that were used, at most `run.memory`. */
    readonly memory: number;
  };

/** Log-probabilities of sequences, in nats. */
export interface SequenceLogps {
  /** Per sequence, summed over its scored rows. */
  readonly logps: Float64Array;
  /** Per sequence: scored rows. */
  readonly counts: Int32Array;
}

/** What the rows' logits say of each token; `logCollision` where it was asked for. */
export type TokenLogps<Asked extends boolean = false> = TokenLogpsValues &
  Field<'logCollision', Float64Array, Asked>;

/** What the rows' logits say of each token, whatever was asked for. */
export interface TokenLogpsValues {
  /** Per row: log-probability of the label; 0 where ignored. */
  readonly logps: Float64Array;
  /** Per row: log of the sum of exponentiated logits; 0 where ignored. */
  readonly logsumexp: Float64Array;
  /** Per row: entropy of the softmax in nats; 0 where ignored. */
  readonly entropy: Float64Array;
}

/** What `fromLogps` gives. */
export interface LogpsResult<M extends Method = Method> {
  /** As in {@link LossValues}. */
  readonly loss: number;
  /** As in {@link LossValues}. */
  readonly losses: Float64Array;
  /**
   * Per sequence: beta * log-ratio to the reference (log-probability without one), per token where
   * `normalize` is true.
   */
  readonly rewards: Float64Array;
  /** As in {@link LossValues}. */
  readonly metrics: Metrics<M>;
  /** As in {@link LossValues}. */
  readonly terms?: readonly LossTerm[];
  /** Per sequence: dLoss/dlogps, the likelihood term included, times `run.gradientScale`. */
  readonly gradLogps: Float64Array;
}
