import type { DeviceTensor } from './device.js';

/** How the 16 or 32 bits of a logit are read. */
export type Dtype = 'float32' | 'float16' | 'bfloat16';

/** A `Float16Array`, on runtimes that have one (Node 24 and later). */
export interface Float16ArrayLike extends ArrayBufferView {
  readonly length: number;
  readonly BYTES_PER_ELEMENT: number;
  readonly [Symbol.toStringTag]: 'Float16Array';
}

/** Host storage of logits and their gradient. `Uint16Array` holds raw float16 or bfloat16 bits, as `dtype` says. */
export type LogitsArray = Float32Array | Uint16Array | Float16ArrayLike;

/** Storage of logits and their gradient: an array of the host, or memory of a CUDA device. */
export type Logits = LogitsArray | DeviceTensor;

/** `[sequences, tokens, vocab]` (padded) or `[rows, vocab]` (packed, with `offsets`). */
export type LogitsShape = readonly [sequences: number, tokens: number, vocab: number] | readonly [rows: number, vocab: number];

/** What a batch has, whether of logits or of hidden states: its rows, what they score, and the reference's numbers. */
export interface BatchRows {
  /** Required for `Uint16Array`; otherwise implied by the array or the tensor. */
  readonly dtype?: Dtype;
  /** Of the logits. */
  readonly shape: LogitsShape;
  /** Packed batches: `sequences + 1` row offsets, from 0 to rows, non-decreasing. */
  readonly offsets?: Int32Array;
  /** One per row, already aligned: the logits of row t score `labels[t]`. */
  readonly labels: Int32Array;
  /** Rows with this label are prompt or padding: never read, gradient 0. Default -100. */
  readonly ignoreIndex?: number;
  /** Per sequence: the reference model's log-probability summed over the same rows. */
  readonly reference?: Float64Array | Float32Array;
  /** Labels of the likelihood term where they differ from `labels` (for instance prompt included); not with `'factored'`. */
  readonly sftLabels?: Int32Array;
}

/**
 * Logits, labels and reference numbers of a batch. Sequences: first half chosen, second half rejected; pair i is (i, i + sequences / 2).
 * Logits in device memory are a {@link DeviceTensor}, of at least the bytes that the shape takes; everything else is in host arrays.
 */
export interface LogitsBatch<L extends Logits = LogitsArray> extends BatchRows {
  /** Unnormalised scores, row-major. */
  readonly logits: L;
  /** Elements from the start of one row to the next, at least vocab; default vocab. */
  readonly rowStride?: number;
}

/**
 * A batch by its hidden states and the output layer that would make its logits of them: `logits = hidden weightᵀ + bias`. No array of
 * [rows, vocab] is made. Sequences, labels and reference are those of a {@link LogitsBatch}, and `shape` is that of the logits.
 *
 * The hidden states, the weight and the bias have one dtype, and are host arrays or device memory together; device memory is ordered
 * on one stream.
 */
export interface HiddenBatch<L extends Logits = LogitsArray> extends BatchRows {
  /** [rows, hiddenSize], row-major without gaps: what goes into the output layer. Rows with an ignored label are never read. */
  readonly hidden: L;
  /** [vocab, hiddenSize], row-major without gaps: one row per word, as the output layer or a tied embedding has it. */
  readonly weight: L;
  /** [vocab]; none by default. */
  readonly bias?: L;
  /**
   * Elements of a hidden state. Default: the elements of the weight over vocab. Required where the weight is a {@link DeviceTensor}
   * whose `byteLength` is unknown, or longer than the weight.
   */
  readonly hiddenSize?: number;
}

export type GradientMode = 'dense' | 'factored' | 'none';

export interface RunOptions<L extends Logits = LogitsArray> {
  /**
   * `'dense'` (default): dLoss/dlogits. `'factored'`: `gradLogits` is onehot - softmax and the gradient of row t is
   * `rowScale[t] * gradLogits[t]`; every logit is read and written once. `'none'`: no gradient.
   */
  readonly gradient?: GradientMode;
  /** Overwrite `batch.logits` with the gradient. */
  readonly inPlace?: boolean;
  /**
   * The caller's gradient buffer: same type and length as the logits; in device memory same dtype, device and stream, and at least the
   * bytes of the shape. Reusing one avoids the page faults of a fresh array, and the allocation of fresh device memory.
   */
  readonly out?: L;
  /**
   * `'auto'` (default): where the data is; it never moves data. `'cuda'` with host arrays: scored rows travel to device 0 and gradients
   * back, in pieces that overlap with the computation; arrays that were page-locked (`cuda.pin`) go at full speed.
   */
  readonly backend?: 'auto' | 'cpu' | 'cuda';
  /** At most this many CPU threads; default: all that the process may use. The result does not depend on it. */
  readonly threads?: number;
  /** `objective.async` only. */
  readonly signal?: AbortSignal;
}

export interface LossResult<L extends Logits = LogitsArray> {
  /** Mean of `losses`. */
  readonly loss: number;
  /** Per pair (per sequence for `sft`); for the batch-coupled `aot` methods, per rank, ascending. */
  readonly losses: Float64Array;
  /** Per sequence, summed over its scored rows. */
  readonly logps: Float64Array;
  /** Per sequence: scored rows. */
  readonly counts: Int32Array;
  /** Per sequence: beta * log-ratio to the reference (log-probability without one), per token where `normalize` is true. */
  readonly rewards: Float64Array;
  /** Per sequence: dLoss/dlogps, the likelihood term (`sftWeight`) left out. */
  readonly coefficients: Float64Array;
  /**
   * Present unless `gradient: 'none'`. For logits in device memory, without `inPlace` or `out`, it is in fresh memory of the device,
   * which `gradLogits.dispose()` frees; the work that fills it is done by the time the call returns or the promise resolves.
   */
  readonly gradLogits?: L;
  /** `gradient: 'factored'` only: one per row. */
  readonly rowScale?: Float32Array;
  readonly metrics: Readonly<Record<string, number>>;
  readonly backend: 'cpu' | 'cuda';
}

/** Where the gradients in float32 are that belong to hidden states of this kind. */
export type Float32Gradient<L extends Logits> = L extends DeviceTensor ? DeviceTensor : Float32Array;

/** The gradients of an output layer, by name. */
export type HiddenGradient = 'gradHidden' | 'gradWeight' | 'gradBias';

/** Where the gradients of `fromHidden` go. `false`: left out. `true`, or nothing said: into a fresh array, or fresh device memory. */
export interface HiddenOut<L extends Logits = LogitsArray> {
  /** A buffer of the type and length of `hidden`. */
  readonly gradHidden?: L | boolean;
  /** A float32 buffer of vocab * hiddenSize elements. `false` where the output layer is frozen: its product is then left out, too. */
  readonly gradWeight?: Float32Gradient<L> | boolean;
  /** A float32 buffer of vocab elements; only with a bias. */
  readonly gradBias?: Float32Gradient<L> | boolean;
}

export interface HiddenRunOptions<L extends Logits = LogitsArray> {
  /** `'dense'` (default): the gradients that `out` does not leave out. `'none'`: no gradient. */
  readonly gradient?: 'dense' | 'none';
  readonly out?: HiddenOut<L>;
  /**
   * Adds the gradients to what is in the buffers of `out`, instead of writing over it: `true` for every buffer given there, or the names
   * of those that are added to. Each needs its buffer. An accumulated `gradHidden` is rounded to its dtype once more per call.
   */
  readonly accumulate?: boolean | readonly HiddenGradient[];
  /**
   * Bytes that the workspace may take: the logits of a few rows at a time, and what the products need. Default: 256 MiB on the CPU, 2 GiB
   * on a device. A pair whose logits do not fit costs more: see docs/output-layer.md. Losses, log-probabilities and coefficients do not
   * depend on it, gradients in their last bits. Beside the workspace a call takes O(rows).
   */
  readonly memory?: number;
  /** As in {@link RunOptions}. */
  readonly backend?: 'auto' | 'cpu' | 'cuda';
  /** As in {@link RunOptions}. */
  readonly threads?: number;
  /** `objective.fromHidden.async` only. */
  readonly signal?: AbortSignal;
}

/** Everything of a {@link LossResult} but the gradient of the logits, and the gradients of the output layer. */
export interface HiddenLossResult<L extends Logits = LogitsArray> extends Omit<LossResult<L>, 'gradLogits' | 'rowScale'> {
  /**
   * dLoss/dhidden, [rows, hiddenSize], in the dtype and kind of memory of `hidden`; rows with an ignored label are 0. Fresh device
   * memory is freed by `gradHidden.dispose()`.
   */
  readonly gradHidden?: L;
  /** dLoss/dweight, [vocab, hiddenSize], in float32 whatever the dtype. */
  readonly gradWeight?: Float32Gradient<L>;
  /** dLoss/dbias, [vocab], in float32; where there is a bias. */
  readonly gradBias?: Float32Gradient<L>;
  /** Bytes of workspace that were used, at most `run.memory`. */
  readonly memory: number;
}

export interface SequenceLogps {
  /** Per sequence, summed over its scored rows. */
  readonly logps: Float64Array;
  /** Per sequence: scored rows. */
  readonly counts: Int32Array;
}

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
  readonly logps: Float64Array | Float32Array;
  /** Per sequence: scored tokens. A sequence with a count of 0 has log-probability 0. */
  readonly counts: Int32Array;
  /** Per sequence: the reference's summed log-probability. */
  readonly reference?: Float64Array | Float32Array;
}

export interface LogpsResult {
  readonly loss: number;
  readonly losses: Float64Array;
  readonly rewards: Float64Array;
  readonly metrics: Readonly<Record<string, number>>;
  /** Per sequence: dLoss/dlogps, the likelihood term included. */
  readonly gradLogps: Float64Array;
}

/** A CUDA device. Sizes are in bytes. */
export interface DeviceInfo {
  /** What `device` takes. */
  readonly index: number;
  readonly name: string;
  /** As nvidia-smi prints it. */
  readonly uuid: string;
  /** For instance `'9.0'`. */
  readonly computeCapability: string;
  readonly multiprocessors: number;
  readonly memory: number;
  /** Asked for when it is read. The first time starts the device for this process, which takes some hundred megabytes of it. */
  readonly freeMemory: number;
  readonly l2Cache: number;
  /** Most that a block can have. */
  readonly sharedMemory: number;
  /** Bytes per second by clock and bus width; 0 where the driver does not tell. */
  readonly memoryBandwidth: number;
}
