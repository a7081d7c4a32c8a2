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

/** `[sequences, tokens, vocab]` (padded) or `[rows, vocab]` (packed, with `offsets`). */
export type LogitsShape = readonly [sequences: number, tokens: number, vocab: number] | readonly [rows: number, vocab: number];

/** Logits, labels and reference numbers of a batch. Sequences: first half chosen, second half rejected; pair i is (i, i + sequences / 2). */
export interface LogitsBatch<L extends LogitsArray = LogitsArray> {
  /** Unnormalised scores, row-major. */
  readonly logits: L;
  /** Required for `Uint16Array`; otherwise implied by the array. */
  readonly dtype?: Dtype;
  readonly shape: LogitsShape;
  /** Packed batches: `sequences + 1` row offsets, from 0 to rows, non-decreasing. */
  readonly offsets?: Int32Array;
  /** Elements from the start of one row to the next, at least vocab; default vocab. */
  readonly rowStride?: number;
  /** One per row, already aligned: the logits of row t score `labels[t]`. */
  readonly labels: Int32Array;
  /** Rows with this label are prompt or padding: never read, gradient 0. Default -100. */
  readonly ignoreIndex?: number;
  /** Per sequence: the reference model's log-probability summed over the same rows. */
  readonly reference?: Float64Array | Float32Array;
  /** Labels of the likelihood term where they differ from `labels` (for instance prompt included); not with `'factored'`. */
  readonly sftLabels?: Int32Array;
}

export type GradientMode = 'dense' | 'factored' | 'none';

export interface RunOptions<L extends LogitsArray = LogitsArray> {
  /**
   * `'dense'` (default): dLoss/dlogits. `'factored'`: `gradLogits` is onehot - softmax and the gradient of row t is
   * `rowScale[t] * gradLogits[t]`; every logit is read and written once. `'none'`: no gradient.
   */
  readonly gradient?: GradientMode;
  /** Overwrite `batch.logits` with the gradient. */
  readonly inPlace?: boolean;
  /** The caller's gradient buffer: same type and length as the logits. Reusing one avoids the page faults of a fresh array. */
  readonly out?: L;
  /** `'auto'` (default): where the data is. */
  readonly backend?: 'auto' | 'cpu' | 'cuda';
  /** At most this many CPU threads; default: all that the process may use. The result does not depend on it. */
  readonly threads?: number;
  /** `objective.async` only. */
  readonly signal?: AbortSignal;
}

export interface LossResult<L extends LogitsArray = LogitsArray> {
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
  /** Present unless `gradient: 'none'`. */
  readonly gradLogits?: L;
  /** `gradient: 'factored'` only: one per row. */
  readonly rowScale?: Float32Array;
  readonly metrics: Readonly<Record<string, number>>;
  readonly backend: 'cpu' | 'cuda';
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
  /** Per sequence: scored tokens. */
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
