/** Batches as callers give them. */
import type { ReferenceNeed } from '../catalogue.js';
import type { DeviceTensor } from '../device/memory.js';
import type { Dtype, Float16ArrayLike } from '../dtype.js';

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

/** Sequence log-probabilities a trainer already has. */
export interface LogpsBatch {
  /** Per sequence, summed over scored tokens; first half chosen. */
  readonly logps: Logps;
  /** Per sequence: scored tokens. A sequence with a count of 0 has log-probability 0. */
  readonly counts: Int32Array;
  /** Per sequence: the reference's summed log-probability. */
  readonly reference?: Logps | undefined;
}
