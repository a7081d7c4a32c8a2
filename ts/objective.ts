import { allocate, tagOf, type Kind } from './batch/arrays.js';
import {
  asHiddenBatch,
  asLogitsBatch,
  isHidden,
  checkBackend,
  checkBatch,
  checkCounts,
  checkInPlace,
  checkLogps,
  checkOut,
  checkSequences,
  rawArray,
  rawMemory,
  readBatch,
  rowInputs,
  tensorElements,
  type Backend,
  type Extents,
} from './batch/batch.js';
import {
  methods,
  metricNames,
  type Method,
  type MethodOptions,
  type NeedOf,
  type ReferenceNeed,
} from './catalogue.js';
import { allocateLike, DeviceTensor } from './device/memory.js';
import { elementBytes } from './dtype.js';
import { typeError } from './errors.js';
import { checkObject, define, describe, readAll, readProperties } from './given.js';
import { fromHidden, prepareHiddenLogps, type FromHidden } from './hidden.js';
import {
  allocateOutputs,
  checkGradientScale,
  compute,
  computeLater,
  computeNow,
  nativeError,
  prepareValues,
  readMetrics,
  readReference,
  refuseSignal,
  valuesOf,
  type PreparedLoss,
} from './loss-call.js';
import { native, Target, type BatchRequest, type LayerRequest } from './native/interface.js';
import type { RowMetric } from './metrics.js';
import { resolveSettings, type Settings } from './settings.js';
import type { HiddenBatch, Logits, LogitsBatch, LogpsBatch, Needed } from './batch/types.js';
import type { GradientMode, LogpsRunOptions, RunOptions } from './loss/options.js';
import type { LogpsResult, LossResult, SequenceLogps, TokenLogps } from './loss/results.js';

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
  >(
    batch: LogitsBatch<L> & Needed<Need>,
    run?: RunOptions<L, Mode, Names>,
  ): LossResult<L, Mode, M, Names>;
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
   * The same, bit for bit, off the event loop. The arrays of the batch belong to the computation
   * until the promise settles; if one is transferred meanwhile, it rejects with code
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
  >(
    batch: LogitsBatch<L> & Needed<Need>,
    run?: RunOptions<L, Mode, Names>,
  ): Promise<LossResult<L, Mode, M, Names>>;
  /**
   * The same from hidden states and the output layer, without the logits ever being there: loss,
   * metrics and the layer's gradients.
   */
  readonly fromHidden: FromHidden<M, Need>;
  /** Loss, metrics and dLoss/dlogps from sequence log-probabilities that a trainer already has. */
  fromLogps(batch: LogpsBatch & Needed<Need>, run?: LogpsRunOptions): LogpsResult<M>;
}

/** What {@link dirAlignLoss} returns: its calls, and its settings as properties. */
export type Objective<
  M extends Method = Method,
  Need extends ReferenceNeed = NeedOf<M>,
> = ObjectiveCalls<M, Need> & {
  /** Its name. */
  readonly method: M;
  /** Temperature on the score. Undefined for `sft` only. */
  readonly beta: M extends 'sft' ? undefined : number;
  /** Whether log-probabilities are divided by the scored tokens of their sequence. */
  readonly normalize: boolean;
} & Readonly<Required<MethodOptions<M>>>;

type Config<M extends Method, Free extends boolean> = M extends 'sft'
  ? { readonly method: M; readonly beta?: number; readonly normalize?: boolean } & MethodOptions<
      M,
      Free
    >
  : M extends Method
    ? { readonly method: M; readonly beta: number; readonly normalize?: boolean } & MethodOptions<
        M,
        Free
      >
    : never;

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
export function dirAlignLoss(
  method: 'sft',
  beta?: number,
  normalize?: boolean,
  options?: MethodOptions<'sft'>,
): Objective<'sft'>;
export function dirAlignLoss<M extends Method, Free extends boolean = false>(
  method: M,
  beta: number,
  normalize?: boolean,
  options?: MethodOptions<M, Free>,
): Objective<M, NeedOf<M, Free>>;
export function dirAlignLoss<M extends Method, Free extends boolean = false>(
  config: Config<M, Free>,
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
  const call = (batch: unknown, run: unknown): LossResult<Logits> => {
    const options = readRun(run);
    refuseSignal(options.signal, 'objective.async');
    return computeNow(prepareLoss(settings, batch, options));
  };
  const properties = {
    method: settings.info.name,
    beta: settings.beta,
    normalize: settings.normalize,
    ...settings.options,
    async: async (batch: unknown, run: unknown) => {
      const options = readRun(run);
      return computeLater(options.signal, () => prepareLoss(settings, batch, options));
    },
    fromHidden: fromHidden(settings),
    fromLogps: (batch: unknown, run: unknown) => fromLogps(settings, batch, run),
  };
  for (const [key, value] of Object.entries(properties)) define(call, key, value);
  return Object.freeze(call);
}

const gradientModes: readonly GradientMode[] = ['none', 'dense', 'factored'];
const runKeys = [
  'gradient',
  'inPlace',
  'out',
  'gradientScale',
  'metrics',
  'backend',
  'threads',
  'signal',
] as const;
const logpsKeys = ['backend', 'threads', 'memory'] as const;

/** The options of a call, each read once. */
function readRun(run: unknown): RunOptions<Logits> {
  const given = run === undefined ? {} : run;
  checkObject('run', given);
  return readProperties('run', given, runKeys) as RunOptions<Logits>;
}

interface CheckedRun {
  readonly mode: GradientMode;
  readonly gradientScale: number;
  readonly backend: Backend;
}

function checkRun(run: RunOptions<Logits>): CheckedRun {
  const { gradient = 'dense', inPlace = false, out, backend = 'auto' } = run;
  if (!gradientModes.includes(gradient)) {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `gradient: ${describe(gradient)} is not one of 'dense', 'factored', 'none'`,
    );
  }
  if (typeof inPlace !== 'boolean')
    throw typeError('ERR_DIRALIGN_OPTION', `inPlace: ${describe(inPlace)} is not a boolean`);
  if (inPlace && out !== undefined)
    throw typeError('ERR_DIRALIGN_OPTION', 'out: not together with inPlace');
  if (gradient === 'none' && (inPlace || out !== undefined)) {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `${inPlace ? 'inPlace' : 'out'}: gradient is 'none', so there is nothing to write`,
    );
  }
  return {
    mode: gradient,
    gradientScale: checkGradientScale(run.gradientScale),
    backend: checkBackend(backend),
  };
}

/** Everything that can be refused is refused here, but for the labels. */
function prepareLoss(
  settings: Settings,
  given: unknown,
  run: RunOptions<Logits>,
): PreparedLoss<LossResult<Logits>> {
  const batch = asLogitsBatch(readBatch(given));
  const { mode, gradientScale, backend } = checkRun(run);
  const { request: base, logits } = checkBatch(batch, run.threads, backend);
  const values = prepareValues(settings, base, batch, mode, run.metrics);
  const rowScale =
    mode === 'factored' ? allocate('rowScale', 'Float32Array', base.rows) : undefined;
  // Last: what fails before it has no memory of a device to free.
  const { gradLogits, data, elements, discard } = prepareGradient(
    batch.logits,
    logits,
    base,
    mode,
    run,
    rowInputs(batch),
  );
  const request = {
    ...values,
    layer: undefined,
    layerGradients: undefined,
    gradientMode: gradientModes.indexOf(mode),
    gradient: data && rawMemory(data),
    gradientElements: elements,
    gradientScale,
    gradientIsFresh:
      base.target !== Target.device &&
      gradLogits !== undefined &&
      !run.inPlace &&
      run.out === undefined,
    rowScale,
  };
  const result = (): LossResult<Logits> => {
    const found = valuesOf(settings, request);
    if (!gradLogits) return found;
    return rowScale ? { ...found, gradLogits, rowScale } : { ...found, gradLogits };
  };
  return { request, memory: [logits, data], result, discard };
}

interface PreparedGradient {
  /** What the caller sees: the very array that was given, where one was. */
  readonly gradLogits: Logits | undefined;
  /** The same memory, as a plain array or a tensor. */
  readonly data: Logits | undefined;
  readonly elements: number;
  readonly discard: () => void;
}

function prepareGradient(
  given: Logits,
  logits: Logits,
  base: BatchRequest,
  mode: GradientMode,
  run: RunOptions<Logits>,
  inputs: Extents,
): PreparedGradient {
  const elementsOf = (gradient: Logits): number =>
    gradient instanceof DeviceTensor ? tensorElements(gradient, base) : rawArray(gradient).length;
  const discard = (): void => undefined; // the caller's own
  if (run.inPlace) {
    checkInPlace(logits, base, inputs);
    return { gradLogits: given, data: logits, elements: elementsOf(logits), discard };
  }
  if (run.out !== undefined) {
    const data = checkOut(run.out, logits, base, inputs);
    return { gradLogits: run.out, data, elements: elementsOf(data), discard };
  }
  if (mode === 'none') return { gradLogits: undefined, data: undefined, elements: 0, discard };
  const elements = elementsOf(logits);
  if (!(logits instanceof DeviceTensor)) {
    const data = allocate('gradLogits', tagOf(logits) as Kind, elements) as Logits;
    return { gradLogits: data, data, elements, discard };
  }
  const { tensor, buffer } = allocateLike(logits, elements * elementBytes[logits.dtype]);
  return {
    gradLogits: tensor,
    data: tensor,
    elements,
    discard: () => {
      buffer.discard();
    },
  };
}

function fromLogps(settings: Settings, given: unknown, run: unknown = {}): LogpsResult {
  checkObject('fromLogps', given, 'ERR_DIRALIGN_SHAPE', 'an object with logps and counts');
  const batch = readProperties(
    'batch',
    given,
    ['logps', 'counts', 'reference'],
    'ERR_DIRALIGN_SHAPE',
  );
  checkObject('run', run);
  const gradientScale = checkGradientScale(
    readProperties('run', run, ['gradientScale']).gradientScale,
  );
  const logps = checkLogps('logps', batch.logps, undefined, 'ERR_DIRALIGN_DTYPE');
  const sequences = logps.length;
  checkSequences(sequences, settings.info.name !== 'sft');
  const counts = checkCounts(batch.counts, logps);
  const reference = readReference(settings, batch.reference, sequences);
  const request = {
    method: settings.method,
    settings: settings.native,
    sequences,
    logps,
    counts,
    reference,
    gradLogps: allocate('gradLogps', 'Float64Array', sequences),
    gradientScale,
    ...allocateOutputs(settings, sequences),
  };
  try {
    native().fromLogps(request);
  } catch (cause) {
    throw nativeError(cause);
  }
  return {
    loss: request.metrics[metricNames.length] as number,
    losses: request.losses,
    rewards: request.rewards,
    metrics: readMetrics(settings, request.metrics, 0),
    gradLogps: request.gradLogps,
  };
}

/** Options of {@link sequenceLogps} and {@link tokenLogps}. */
export interface LogpsOptions {
  /** As in {@link RunOptions}. */
  readonly backend?: 'auto' | 'cpu' | 'cuda' | undefined;
  /** As in {@link RunOptions}. */
  readonly threads?: number | undefined;
  /** Of hidden states: bytes that the workspace may take, as {@link HiddenRunOptions} has it. */
  readonly memory?: number;
}

/** `logits`, or `hidden` and what goes with it. */
type AnyBatch = LogitsBatch<Logits> | HiddenBatch<Logits>;

interface PreparedLogps {
  readonly batch: BatchRequest;
  readonly layer: LayerRequest | undefined;
}

function prepareLogps(given: unknown, givenOptions: unknown): PreparedLogps {
  checkObject('options', givenOptions);
  const options = readProperties('options', givenOptions, logpsKeys) as LogpsOptions;
  const batch = readBatch(given);
  const { threads, memory } = options;
  const backend = checkBackend(options.backend ?? 'auto');
  if (isHidden(batch)) return prepareHiddenLogps(asHiddenBatch(batch), threads, backend, memory);
  if (memory !== undefined) {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      'memory: logits take no workspace; it is for a batch of hidden states',
    );
  }
  return { batch: checkBatch(asLogitsBatch(batch), threads, backend).request, layer: undefined };
}

/**
 * Log-probability of each sequence, summed over its scored rows: how a reference model's numbers
 * are made. The same kernel as training, from logits as from hidden states, so that a policy equal
 * to its reference has margins of exactly 0.
 * @throws DirAlignError before anything is computed
 */
export function sequenceLogps(batch: AnyBatch, options: LogpsOptions = {}): SequenceLogps {
  const prepared = prepareLogps(batch, options);
  const request = {
    ...prepared,
    logps: allocate('logps', 'Float64Array', prepared.batch.sequences),
  };
  compute(request, () => native().sequenceLogps(request));
  return { logps: request.logps, counts: request.batch.counts };
}

/**
 * Per row: log-probability of the label, logsumexp of the logits, entropy of the softmax in nats;
 * all 0 on ignored rows.
 * @throws DirAlignError before anything is computed
 */
export function tokenLogps(batch: AnyBatch, options: LogpsOptions = {}): TokenLogps {
  const prepared = prepareLogps(batch, options);
  const { rows } = prepared.batch;
  const request = {
    ...prepared,
    logps: allocate('logps', 'Float64Array', rows),
    logsumexp: allocate('logsumexp', 'Float64Array', rows),
    entropy: allocate('entropy', 'Float64Array', rows),
  };
  compute(request, () => native().tokenLogps(request));
  return { logps: request.logps, logsumexp: request.logsumexp, entropy: request.entropy };
}
