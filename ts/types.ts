import type { Method, ReferenceNeed } from './catalogue.js';
import type { DeviceTensor } from './device/device.js';
import type { AskedMetrics, Metrics, RowMetric } from './metrics.js';

/** How the 16 or 32 bits of a logit are read. */
export type Dtype = 'float32' | 'float16' | 'bfloat16';

/** A `Float16Array`, on runtimes that have one (Node 24 and later). */
export interface Float16ArrayLike extends ArrayBufferView {
  /** Elements. */
  readonly length: number;
  /** 2. */
  readonly BYTES_PER_ELEMENT: number;
  /** Its name. */
  readonly [Symbol.toStringTag]: 'Float16Array';
}

/**
 * Host storage of logits and their gradient. `Uint16Array` holds raw float16 or bfloat16 bits, as
 * `dtype` says.
 */
export type LogitsArray = Float32Array | Uint16Array | Float16ArrayLike;

/** Storage of logits and their gradient: an array of the host, or memory of a CUDA device. */
export type Logits = LogitsArray | DeviceTensor;

/** Storage of the kind of `L`, over memory of any sort. */
export type Like<L extends Logits> = L extends Float32Array
  ? Float32Array
  : L extends Uint16Array
    ? Uint16Array
    : L extends DeviceTensor
      ? DeviceTensor
      : LogitsArray;

/** `[sequences, tokens, vocab]` (padded) or `[rows, vocab]` (packed, with `offsets`). */
export type LogitsShape =
  | readonly [sequences: number, tokens: number, vocab: number]
  | readonly [rows: number, vocab: number];

/** Log-probabilities by sequence. */
export type Logps = Float64Array | Float32Array;

/** The reference's numbers, where the method needs them. */
export type Needed<Need extends ReferenceNeed> = {
  /** A batch without them does not compile. */
  required: WithReference;
  /** They may be there. */
  optional: unknown;
}[Need];

/** A batch with the numbers of a reference model. */
export interface WithReference {
  /** Per sequence: the reference model's log-probability summed over the same rows. */
  readonly reference: Logps;
}

/**
 * What a batch has, whether of logits or of hidden states: its rows, what they score, and the
 * reference's numbers.
 */
export interface BatchRows {
  /** Required for `Uint16Array`; otherwise implied by the array or the tensor. */
  readonly dtype?: Dtype | undefined;
  /** Of the logits: a {@link LogitsShape}. An array of another length is refused by the call. */
  readonly shape: LogitsShape | readonly number[];
  /** Packed batches: `sequences + 1` row offsets, from 0 to rows, non-decreasing. */
  readonly offsets?: Int32Array | undefined;
  /** One per row, already aligned: the logits of row t score `labels[t]`. */
  readonly labels: Int32Array;
  /** Rows with this label are prompt or padding: never read, gradient 0. Default -100. */
  readonly ignoreIndex?: number | undefined;
  /** Per sequence: the reference model's log-probability summed over the same rows. */
  readonly reference?: Logps | undefined;
  /**
   * Labels of the likelihood term where they differ from `labels` (for instance prompt included);
   * not with `'factored'`.
   */
  readonly sftLabels?: Int32Array | undefined;
}

/**
 * Logits, labels and reference numbers of a batch. Sequences: first half chosen, second half
 * rejected; pair i is (i, i + sequences / 2). Logits in device memory are a {@link DeviceTensor},
 * of at least the bytes that the shape takes; everything else is in host arrays.
 */
export interface LogitsBatch<L extends Logits = LogitsArray> extends BatchRows {
  /** Unnormalised scores, row-major. */
  readonly logits: L;
  /** Elements from the start of one row to the next, at least vocab; default vocab. */
  readonly rowStride?: number | undefined;
}

/**
 * A batch by its hidden states and the output layer that would make its logits of them: `logits =
 * hidden weightᵀ + bias`. No array of [rows, vocab] is made. Sequences, labels and reference are
 * those of a {@link LogitsBatch}, and `shape` is that of the logits.
 *
 * The hidden states, the weight and the bias have one dtype, and are host arrays or device memory
 * together; device memory is ordered on one stream.
 */
export interface HiddenBatch<
  L extends Logits = LogitsArray,
  Bias extends Like<L> | undefined = Like<L> | undefined,
> extends BatchRows {
  /**
   * [rows, hiddenSize], row-major without gaps: what goes into the output layer. Rows with an
   * ignored label are never read.
   */
  readonly hidden: L;
  /**
   * [vocab, hiddenSize], row-major without gaps: one row per word, as the output layer or a tied
   * embedding has it.
   */
  readonly weight: L;
  /** [vocab]; none by default. */
  readonly bias?: Bias;
  /**
   * Elements of a hidden state. Default: the elements of the weight over vocab. Required where the
   * weight is a {@link DeviceTensor} whose `byteLength` is unknown, or longer than the weight.
   */
  readonly hiddenSize?: number | undefined;
}

/** Which gradient a call makes: {@link RunOptions.gradient} has what each means. */
export type GradientMode = 'dense' | 'factored' | 'none';

/** How a batch is computed. */
export interface RunOptions<
  L extends Logits = LogitsArray,
  Mode extends GradientMode = GradientMode,
  Names extends readonly RowMetric[] = readonly RowMetric[],
> {
  /**
   * `'dense'` (default): dLoss/dlogits. `'factored'`: `gradLogits` is onehot - softmax and the
   * gradient of row t is `rowScale[t] * gradLogits[t]`; every logit is read and written once, and
   * float16 does not have to hold small coefficients. `'none'`: no gradient.
   */
  readonly gradient?: Mode | undefined;
  /** Overwrite `batch.logits` with the gradient. */
  readonly inPlace?: boolean | undefined;
  /**
   * The caller's gradient buffer: same type and length as the logits; in device memory same dtype,
   * device and stream, and at least the bytes of the shape. Reusing one avoids the page faults of a
   * fresh array, and the allocation of fresh device memory.
   */
  readonly out?: L | undefined;
  /**
   * Multiplies the gradient before it is rounded (`rowScale` where it is factored), and nothing
   * else: any finite number, default 1. It is 1 / n for gradients that are added up over n
   * micro-batches, and the loss scale of float16. With 0 the gradient is 0, even where a
   * coefficient is not finite. The metrics `nonfinite` and `underflow` count what becomes of the
   * scaled gradient.
   */
  readonly gradientScale?: number | undefined;
  /**
   * Metrics of the rows' logits that `result.metrics` is to have besides those that cost nothing,
   * each name once; none by default. They change no other number. docs/metrics.md has what each
   * costs.
   */
  readonly metrics?: Names | undefined;
  /**
   * `'auto'` (default): where the data is; it never moves data. `'cuda'` with host arrays: scored
   * rows travel to device 0 and gradients back, in pieces that overlap with the computation; arrays
   * that were page-locked (`cuda.pin`) go at full speed.
   */
  readonly backend?: 'auto' | 'cpu' | 'cuda' | undefined;
  /**
   * At most this many CPU threads, 1 to 1024; default: the processors that the process may use, by
   * its affinity mask and the quota of its control groups. The result does not depend on it.
   */
  readonly threads?: number | undefined;
  /** `objective.async` only. Any number of calls may share one. */
  readonly signal?: AbortSignal | undefined;
}

/** What every call of a loss gives, whatever its gradients. */
export interface LossValues<
  M extends Method = Method,
  Names extends readonly RowMetric[] = readonly RowMetric[],
> {
  /** Mean of `losses`. */
  readonly loss: number;
  /**
   * Per pair (per sequence for `sft`); for the batch-coupled `aot` methods, per rank, ascending.
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
}

/** A field that is there, is not, or, where only the run tells, may be. */
type Field<Name extends string, Value, There extends boolean> = [There] extends [true]
  ? Readonly<Record<Name, Value>>
  : [There] extends [false]
    ? Readonly<Partial<Record<Name, undefined>>>
    : Readonly<Partial<Record<Name, Value>>>;

type Is<Mode, Value> = [Mode] extends [Value] ? true : Value extends Mode ? boolean : false;
type IsNot<Mode, Value> = [Mode] extends [Value] ? false : Value extends Mode ? boolean : true;

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
> = LossValues<M, Names> & LogitsGradient<L, Mode>;

/** Where the gradients in float32 are that belong to hidden states of this kind. */
export type Float32Gradient<L extends Logits> = L extends DeviceTensor
  ? DeviceTensor
  : Float32Array;

/** The gradients of an output layer, by name. */
export type HiddenGradient = 'gradHidden' | 'gradWeight' | 'gradBias';

/**
 * Where the gradients of `fromHidden` go. `false`: left out. `true`, or nothing said: into a fresh
 * array, or fresh device memory.
 */
export interface HiddenOut<
  L extends Logits = LogitsArray,
  OfHidden extends Like<L> | boolean = Like<L> | boolean,
  OfWeight extends Float32Gradient<L> | boolean = Float32Gradient<L> | boolean,
  OfBias extends Float32Gradient<L> | boolean = Float32Gradient<L> | boolean,
> {
  /** A buffer of the type and length of `hidden`. */
  readonly gradHidden?: OfHidden | undefined;
  /**
   * A float32 buffer of vocab * hiddenSize elements. `false` where the output layer is frozen: its
   * product is then left out, too.
   */
  readonly gradWeight?: OfWeight | undefined;
  /** A float32 buffer of vocab elements; only with a bias. */
  readonly gradBias?: OfBias | undefined;
}

/** What can be asked of the gradients of an output layer. */
export type HiddenGradientMode = 'dense' | 'none';

/** How a batch of hidden states is computed. */
export interface HiddenRunOptions<
  L extends Logits = LogitsArray,
  Mode extends HiddenGradientMode = HiddenGradientMode,
  OfHidden extends Like<L> | boolean = Like<L> | boolean,
  OfWeight extends Float32Gradient<L> | boolean = Float32Gradient<L> | boolean,
  OfBias extends Float32Gradient<L> | boolean = Float32Gradient<L> | boolean,
  Names extends readonly RowMetric[] = readonly RowMetric[],
> {
  /** `'dense'` (default): the gradients that `out` does not leave out. `'none'`: no gradient. */
  readonly gradient?: Mode | undefined;
  /** Where the gradients go, and which are left out. */
  readonly out?: HiddenOut<L, OfHidden, OfWeight, OfBias> | undefined;
  /**
   * Adds the gradients to what is in the buffers of `out`, instead of writing over it: `true` for
   * every buffer given there, or the names of those that are added to. Each needs its buffer. An
   * accumulated `gradHidden` is rounded to its dtype once more per call.
   */
  readonly accumulate?: boolean | readonly HiddenGradient[] | undefined;
  /** As in {@link RunOptions}, of all three gradients. What `accumulate` adds to is not scaled. */
  readonly gradientScale?: number | undefined;
  /** As in {@link RunOptions}. */
  readonly metrics?: Names | undefined;
  /**
   * Bytes that the workspace may take: the logits of a few rows at a time, and what the products
   * need. Default: 256 MiB on the CPU, 2 GiB on a device. A pair whose logits do not fit costs
   * more: see docs/output-layer.md. Losses, log-probabilities and coefficients do not depend on it,
   * gradients in their last bits. Beside the workspace a call takes O(rows).
   */
  readonly memory?: number | undefined;
  /** As in {@link RunOptions}. */
  readonly backend?: 'auto' | 'cpu' | 'cuda' | undefined;
  /** As in {@link RunOptions}. */
  readonly threads?: number | undefined;
  /** `objective.fromHidden.async` only. */
  readonly signal?: AbortSignal | undefined;
}

/** Whether a gradient is made: not without a gradient at all, not where `out` says false. */
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
> = LossValues<M, Names> &
  LayerGradients<L, Bias, Mode, OfHidden, OfWeight, OfBias> & {
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

/** What the rows' logits say of each token. */
export interface TokenLogps {
  /** Per row: log-probability of the label; 0 where ignored. */
  readonly logps: Float64Array;
  /** Per row: log of the sum of exponentiated logits; 0 where ignored. */
  readonly logsumexp: Float64Array;
  /** Per row: entropy of the softmax in nats; 0 where ignored. */
  readonly entropy: Float64Array;
}

/** Sequence log-probabilities a trainer already has. */
export interface LogpsBatch {
  /** Per sequence, summed over scored tokens; first half chosen. */
  readonly logps: Logps;
  /** Per sequence: scored tokens. A sequence with a count of 0 has log-probability 0. */
  readonly counts: Int32Array;
  /** Per sequence: the reference's summed log-probability. */
  readonly reference?: Logps | undefined;
}

/** How sequence log-probabilities are computed with: `fromLogps` takes no other options. */
export interface LogpsRunOptions {
  /** As in {@link RunOptions}, of `gradLogps`. */
  readonly gradientScale?: number | undefined;
}

/** What `fromLogps` gives. */
export interface LogpsResult<M extends Method = Method> {
  /** Mean of `losses`. */
  readonly loss: number;
  /**
   * Per pair (per sequence for `sft`); for the batch-coupled `aot` methods, per rank, ascending.
   */
  readonly losses: Float64Array;
  /**
   * Per sequence: beta * log-ratio to the reference (log-probability without one), per token where
   * `normalize` is true.
   */
  readonly rewards: Float64Array;
  /** As in {@link LossValues}. */
  readonly metrics: Metrics<M>;
  /** Per sequence: dLoss/dlogps, the likelihood term included, times `run.gradientScale`. */
  readonly gradLogps: Float64Array;
}

/** A CUDA device. Sizes are in bytes. */
export interface DeviceInfo {
  /** What `device` takes. */
  readonly index: number;
  /** As the driver has it. */
  readonly name: string;
  /** As nvidia-smi prints it. */
  readonly uuid: string;
  /** For instance `'9.0'`. */
  readonly computeCapability: string;
  /** Streaming multiprocessors. */
  readonly multiprocessors: number;
  /** All of it, in use or not. */
  readonly memory: number;
  /**
   * Asked for when it is read. The first time starts the device for this process, which takes some
   * hundred megabytes of it.
   */
  readonly freeMemory: number;
  /** Size of the level 2 cache. */
  readonly l2Cache: number;
  /** Most that a block can have. */
  readonly sharedMemory: number;
  /** Bytes per second by clock and bus width; 0 where the driver does not tell. */
  readonly memoryBandwidth: number;
}
