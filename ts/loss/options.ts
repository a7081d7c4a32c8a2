/** How a call is computed: the options of `run`. */
import type { Like, Logits, LogitsArray } from '../batch/types.js';
import type { DeviceTensor } from '../device/memory.js';
import type { LogitsParallel, Parallel } from '../distributed/parallel.js';
import type { RowMetric } from '../metrics.js';
import type { GradientBuffers } from './gradient-buffers.js';

/** Which gradient a call makes: {@link RunOptions.gradient} has what each means. */
export type GradientMode = 'dense' | 'factored' | 'none';

/** How a batch is computed. */
export interface RunOptions<
  L extends Logits = LogitsArray,
  Mode extends GradientMode = GradientMode,
  Names extends readonly RowMetric[] = readonly RowMetric[],
  Lent extends GradientBuffers | undefined = GradientBuffers | undefined,
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
   * Lends the gradient its array, in host memory, where one is made: {@link GradientBuffers}.
   * Neither with `out` nor with `inPlace`. The result has `[Symbol.dispose]`, which gives it back.
   */
  readonly buffers?: Lent;
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
   * The processes that have other parts of the batch: docs/distributed.md. `loss` and `metrics` are
   * of the whole batch then, arrays per unit and per sequence of this process's part; gradients are
   * those of the whole batch's loss, so that trainers add them up over ranks of `data` and
   * `sequence`. Host arrays are the CPU's, and tensors in device memory the device's.
   */
  readonly parallel?: LogitsParallel | undefined;
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
  Lent extends GradientBuffers | undefined = GradientBuffers | undefined,
> {
  /** `'dense'` (default): the gradients that `out` does not leave out. `'none'`: no gradient. */
  readonly gradient?: Mode | undefined;
  /** Where the gradients go, and which are left out. */
  readonly out?: HiddenOut<L, OfHidden, OfWeight, OfBias> | undefined;
  /** As in {@link RunOptions}, for the gradients that have no buffer in `out`. */
  readonly buffers?: Lent;
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
  /** As in {@link RunOptions}. */
  readonly parallel?: Parallel | undefined;
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

/** The options of `fromLogps`. */
export interface LogpsRunOptions {
  /** As in {@link RunOptions}, of `gradLogps`. */
  readonly gradientScale?: number | undefined;
  /** Who has other units: `gradLogps` and arrays per unit are of the own ones. */
  readonly parallel?: Pick<Parallel, 'data'> | undefined;
}
