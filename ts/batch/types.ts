/** Batches as callers give them. */
import type { GroupMethod, Method, MethodFields, ReferenceNeed } from '../catalogue.js';
import type { DeviceTensor } from '../device/memory.js';
import type { Dtype, Float16ArrayLike } from '../dtype.js';
import type { Shard } from './shard.js';

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

/** What method `M` needs of a batch: the reference's numbers, and fields. */
export type Needed<Need extends ReferenceNeed, M extends Method = Method> = {
  /** A batch without them does not compile. */
  required: WithReference;
  /** They may be there. */
  optional: unknown;
}[Need] &
  NeededFields<M>;

/** The fields without which method `M` refuses a batch. */
export type NeededFields<M extends Method> = M extends Method
  ? {
      readonly [
        F in (MethodFields<M> & keyof BatchFields) | (M extends GroupMethod ? 'groups' : never)
      ]: NonNullable<BatchFields[F]>;
    }
  : never;

/** A batch with the numbers of a reference model. */
export interface WithReference {
  /** Per sequence: the reference model's log-probability summed over the same rows. */
  readonly reference: Logps;
}

/** Numbers, one for each of something. */
export type Numbers = Float64Array | Float32Array | readonly number[];

/** Of completions under prompts that are not theirs: what the baseline of `kto` is made of. */
export interface MismatchedLogps {
  /** Per completion: the policy's log-probability, finite. */
  readonly logps: Numbers;
  /** The reference's, as many. */
  readonly reference: Numbers;
}

/**
 * What a batch may carry besides. A method refuses what means nothing to it
 * (ERR_DIRALIGN_OPTION); `methods()` says which fields each takes. A unit is a pair, a sequence or
 * a group of candidates, as the method compares them; its loss is multiplied by its weight, and the
 * sum divided by `denominator`.
 */
export interface BatchFields {
  /** Per sequence, of the unpaired methods: whether it is desirable. */
  readonly desirable?: Uint8Array | readonly boolean[] | readonly number[] | undefined;
  /**
   * Of `kto`: the log-ratio that counts as none, at least 0; or the log-probabilities of mismatched
   * completions, whose mean log-ratio it is, or 0 where that is negative. It has no gradient.
   */
  readonly kl?: number | MismatchedLogps | undefined;
  /** Of `bco`: the running mean of the rewards, which the caller keeps; default 0. */
  readonly shift?: number | undefined;
  /**
   * Of the group methods: groups + 1 offsets over the sequences, from 0 to their number,
   * increasing.
   */
  readonly groups?: Int32Array | undefined;
  /** Per sequence, of `plackett_luce`: whole numbers, distinct in a group; the lowest is best. */
  readonly ranks?: Int32Array | Numbers | undefined;
  /** Per sequence, of `info_nca` and `nca_listwise`: rewards, finite. */
  readonly rewards?: Numbers | undefined;
  /**
   * Per unit, at least 0: multiplies its loss and its likelihood term. A weight of 0 leaves the
   * unit out, whatever it holds. Not of the `aot` methods.
   */
  readonly weights?: Numbers | undefined;
  /** Per pair: subtracted from beta times the margin of the scores. */
  readonly margins?: Numbers | undefined;
  /**
   * Per pair, in place of `labelSmoothing`: the probability that the chosen is better, from 0 to 1
   * (`robust`: above 1/2; `exo_pair`: neither 0 nor 1).
   */
  readonly preferences?: Numbers | undefined;
  /** Per pair, of `ipo`: what the margin is drawn to, in place of 1 / (2 beta). */
  readonly targets?: Numbers | undefined;
  /** Above 0: divides the weighted sum of the units' losses. Default: the number of units. */
  readonly denominator?: number | undefined;
  /**
   * Above 0, of a likelihood term with `sftReduction: 'token'`: divides its sum. Default: its
   * scored tokens, weighted where they have weights.
   */
  readonly sftDenominator?: number | undefined;
  /**
   * Per row, at least 0: S is the sum of w log p, and the sum of w takes the place of the number of
   * scored tokens everywhere but in `counts`. Those of ignored rows are not read.
   */
  readonly tokenWeights?: Numbers | undefined;
}

/**
 * What becomes of the logits before the softmax: y = softcap(logitScale x) / temperature,
 * softcap(v) = cap tanh(v / cap). Gradients are those of x. An infinite logit stays one under a
 * cap.
 */
export interface LogitTransforms {
  /** Above 0; default 1. */
  readonly logitScale?: number | undefined;
  /** Above 0; default none. */
  readonly logitSoftcap?: number | undefined;
  /** Above 0; default 1. */
  readonly temperature?: number | undefined;
}

/**
 * What a batch has, whether of logits or of hidden states: its rows, what they score, and the
 * reference's numbers.
 */
export interface BatchRows extends BatchFields, LogitTransforms {
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
  /**
   * The columns that are here, of a vocabulary over several processes; by default all. Of losses:
   * {@link RunOptions.parallel} says which processes.
   */
  readonly shard?: Shard | undefined;
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
export interface LogpsBatch extends Omit<BatchFields, 'tokenWeights'> {
  /** Per sequence, summed over scored tokens; first half chosen. */
  readonly logps: Logps;
  /**
   * Per sequence: scored tokens, or, in a Float64Array, the sum of their weights. A sequence with a
   * count of 0 has log-probability 0.
   */
  readonly counts: Int32Array | Float64Array;
  /** Per sequence: the reference's summed log-probability. */
  readonly reference?: Logps | undefined;
}
