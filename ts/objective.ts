import type { Logits, LogitsBatch, Needed } from './batch/types.js';
import {
  methods,
  type Method,
  type MethodOptions,
  type MethodWithoutBeta,
  type NeedOf,
  type ReferenceNeed,
} from './catalogue.js';
import type { BatchCounts } from './distributed/count-batch.js';
import { openWindow } from './distributed/open-window.js';
import type { Window, WindowGroups } from './distributed/window.js';
import { typeError } from './errors.js';
import { checkObject, define, readAll } from './given.js';
import { fromHidden, type FromHidden } from './loss/from-hidden.js';
import { fromLogits } from './loss/from-logits.js';
import { fromLogps, type FromLogps } from './loss/from-logps.js';
import type { GradientBuffers } from './loss/gradient-buffers.js';
import type { GradientMode, RunOptions } from './loss/options.js';
import type { LossResult } from './loss/results.js';
import type { RowMetric } from './metrics.js';
import { mixtureOf, type Mixture } from './mixture.js';
import { resolveSettings, type Settings } from './settings.js';

/** The call of an objective. */
// A method, and not a function type: an objective that needs a reference is still an objective, and
// can be handed on as one.
type LossCall<M extends Method, Need extends ReferenceNeed> = {
  /**
   * Loss, metrics and gradient of a batch, computed before it returns. Logits in device memory are
   * read in the order of their tensor's stream, which the call waits for.
   * @throws DirAlignError before anything is written, unless a device fails (ERR_DIRALIGN_DEVICE);
   *   `code` says what is wrong.
   */
  call<
    L extends Logits,
    Mode extends GradientMode = 'dense',
    const Names extends readonly RowMetric<M>[] = readonly [],
    Lent extends GradientBuffers | undefined = undefined,
  >(
    batch: LogitsBatch<L> & Needed<Need, M>,
    run?: RunOptions<L, Mode, Names, Lent>,
  ): LossResult<L, Mode, M, Names, Lent>;
}['call'];

/**
 * A loss with its settings: call it on a batch. Immutable, reusable, safe to share. Its settings
 * are read-only properties: `method`, `beta`, `normalize`, and every option of the method.
 */
export interface ObjectiveCalls<
  M extends Method = Method,
  Need extends ReferenceNeed = ReferenceNeed,
> extends LossCall<M, Need> {
  /**
   * The same, bit for bit, off the event loop, but for logits so few (4096 on the CPU) that waking
   * a thread takes longer than they do. The arrays of the batch belong to the computation until the
   * promise settles; if one is transferred meanwhile, it rejects with code
   * ERR_DIRALIGN_SHAPE. `run.signal` aborts: the promise rejects with code ERR_DIRALIGN_ABORTED, at
   * once where the call still waits for others.
   *
   * With logits in device memory, the call enqueues its work on their stream and returns; nothing
   * waits on a thread, and later work can be enqueued behind it at once. The promise resolves when
   * the stream is past it. Aborting does not stop work that is enqueued: the promise rejects once
   * it has ended.
   */
  async<
    L extends Logits,
    Mode extends GradientMode = 'dense',
    const Names extends readonly RowMetric<M>[] = readonly [],
    Lent extends GradientBuffers | undefined = undefined,
  >(
    batch: LogitsBatch<L> & Needed<Need, M>,
    run?: RunOptions<L, Mode, Names, Lent>,
  ): Promise<LossResult<L, Mode, M, Names, Lent>>;
  /**
   * The same from hidden states and the output layer, without the logits ever being there: loss,
   * metrics and the layer's gradients.
   */
  readonly fromHidden: FromHidden<M, Need>;
  /**
   * Gradient accumulation over micro-batches, of any size, and over ranks with any number of them:
   * every call with the window in `run.parallel` gives its share of one loss, which is divided by
   * what all have. Collective over `groups`, whose ranks exchange something now and in `finish()`,
   * and nothing over `data` in between.
   *
   * @param counts of this rank's micro-batches, from `countBatch`.
   * @param groups who has others; by default there are none.
   * @throws DirAlignError with code ERR_DIRALIGN_OPTION for the batch-coupled `aot` methods
   *
   * @example
   * const window = await dpo.window(countBatch(...microBatches), { data });
   * for (const batch of microBatches)
   *   dpo.fromHidden(batch, { parallel: { window }, out: { gradWeight }, accumulate: true });
   * const { loss, metrics } = await window.finish();
   */
  window(counts: BatchCounts, groups?: WindowGroups): Promise<Window<M>>;
  /** Loss, metrics and dLoss/dlogps from sequence log-probabilities that a trainer already has. */
  readonly fromLogps: FromLogps<M, Need>;
}

/** What {@link dirAlignLoss} returns: its calls, and its settings as properties. */
export type Objective<
  M extends Method = Method,
  Need extends ReferenceNeed = NeedOf<M>,
> = ObjectiveCalls<M, Need> & {
  /** Its name. */
  readonly method: M;
  /** Temperature on the score. Undefined for `sft` only. */
  readonly beta: M extends MethodWithoutBeta ? undefined : number;
  /** Whether log-probabilities are divided by the scored tokens of their sequence. */
  readonly normalize: boolean;
} & Readonly<Required<MethodOptions<M>>>;

// Not one type for each method: a union of so many is not looked through for a method that is known
// only at run time.
type Config<M extends Method, Free extends boolean> = {
  readonly method: M;
  readonly normalize?: boolean;
} & ([M] extends [MethodWithoutBeta] ? { readonly beta?: number } : { readonly beta: number }) &
  MethodOptions<M, Free>;

/**
 * The same from one object.
 *
 * @param config method, beta, normalize and the options of the method; anything else is refused.
 * @throws DirAlignError with code ERR_DIRALIGN_OPTION
 */
export function dirAlignLoss<M extends Method, Free extends boolean = false>(
  config: Config<M, Free>,
): Objective<M, NeedOf<M, Free>>;

/**
 * Builds the loss of a direct alignment algorithm.
 *
 * @param method its name; `methods()` lists them with formulas and sources.
 * @param beta temperature on the score, a finite number > 0; the target scale for `ipo` and
 *   `cal_dpo`; ignored for `sft`.
 * @param normalize divide each sequence's log-probability, and the reference's, by its scored
 *   tokens; default: the method's
 *   original setting.
 * @param options those of the method; anything else is refused.
 * @throws DirAlignError with code ERR_DIRALIGN_OPTION
 *
 * @example
 * const dpo = dirAlignLoss('dpo', 0.1);
 * const { loss, gradLogits } = dpo({ logits, shape: [4, 512, 32000], labels, reference });
 */
export function dirAlignLoss<M extends MethodWithoutBeta>(
  method: M,
  beta?: number,
  normalize?: boolean,
  options?: MethodOptions<M>,
): Objective<M>;

export function dirAlignLoss<M extends Method, Free extends boolean = false>(
  method: M,
  beta: number,
  normalize?: boolean,
  options?: MethodOptions<M, Free>,
): Objective<M, NeedOf<M, Free>>;

export function dirAlignLoss(
  method: unknown,
  beta?: unknown,
  normalize?: unknown,
  options?: unknown,
): unknown {
  if (typeof method === 'object' && method !== null) {
    if (beta !== undefined || normalize !== undefined || options !== undefined) {
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        'dirAlignLoss: takes one object, or method, beta, normalize and options, not both',
      );
    }
    checkObject(
      'method',
      method,
      'ERR_DIRALIGN_OPTION',
      'a name, or an object with one and its settings',
    );
    const {
      method: name,
      beta: b,
      normalize: n,
      ...rest
    } = readAll(method, ['method', 'beta', 'normalize', ...optionNames]);
    return build(resolveSettings(name, b, n, readAll(rest, [])));
  }
  if (options !== undefined) checkObject('options', options);
  return build(resolveSettings(method, beta, normalize, readAll(options ?? {}, optionNames)));
}

/** Of all methods. */
const optionNames: ReadonlySet<string> = new Set(
  methods().flatMap((info) => Object.keys(info.options)),
);

function build(settings: Settings): unknown {
  return withCalls(mixtureOf([{ weight: 1, settings }], false), {
    method: settings.info.name,
    beta: settings.beta,
    normalize: settings.normalize,
    ...settings.options,
  });
}

/** @internal What the calls of an objective compute. */
const mixtures = new WeakMap<object, Mixture>();

/** @internal The losses of an objective; undefined for anything else. */
export function mixtureBehind(objective: unknown): Mixture | undefined {
  return typeof objective === 'function' ? mixtures.get(objective) : undefined;
}

/** @internal An objective: its calls, and its properties. */
export function withCalls(mixture: Mixture, own: Readonly<Record<string, unknown>>): unknown {
  const { call, later } = fromLogits(mixture);
  const properties = {
    ...own,
    async: later,
    fromHidden: fromHidden(mixture),
    window: (counts: unknown, groups: unknown) => openWindow(mixture, counts, groups),
    fromLogps: fromLogps(mixture),
  };
  for (const [key, value] of Object.entries(properties)) define(call, key, value);
  mixtures.set(call, mixture);
  return Object.freeze(call);
}
