import { describe } from './arrays.js';
import {
  checkBackend,
  checkBatch,
  checkCounts,
  checkLogps,
  checkOut,
  checkReference,
  checkSequences,
  checkSftLabels,
  labelError,
  rawLogits,
  tensorElements,
  type Backend,
} from './batch.js';
import { metricNames, type Method, type MethodOptions } from './catalogue.js';
import { allocateLike, DeviceTensor, elementBytes, retainPinned } from './device.js';
import { abortError, cudaError, typeError } from './errors.js';
import { native, Target, type BadLabel, type BatchRequest, type LossRequest } from './native.js';
import { resolveSettings, type Settings } from './settings.js';
import type {
  GradientMode,
  Logits,
  LogitsBatch,
  LogpsBatch,
  LogpsResult,
  LossResult,
  RunOptions,
  SequenceLogps,
  TokenLogps,
} from './types.js';

/**
 * A loss with its settings: call it on a batch. Immutable, reusable, safe to share.
 * Its settings are read-only properties: `method`, `beta`, `normalize`, and every option of the method.
 */
export interface ObjectiveCalls {
  /**
   * Loss, metrics and gradient of a batch, computed before it returns. Logits in device memory are read in the order of their tensor's
   * stream, which the call waits for.
   * @throws DirAlignError before anything is written, unless a device fails (ERR_DIRALIGN_DEVICE); `code` says what is wrong.
   */
  <L extends Logits>(batch: LogitsBatch<L>, run?: RunOptions<L>): LossResult<L>;
  /**
   * The same, bit for bit, off the event loop. The arrays of the batch belong to the computation until the promise settles; do not
   * transfer them. `run.signal` aborts: the promise rejects with code ERR_DIRALIGN_ABORTED.
   *
   * With logits in device memory, the call enqueues its work on their stream and returns; nothing waits on a thread, and later work
   * can be enqueued behind it at once. The promise resolves when the stream is past it. Aborting does not stop work that is enqueued:
   * the promise rejects once it has ended.
   */
  async<L extends Logits>(batch: LogitsBatch<L>, run?: RunOptions<L>): Promise<LossResult<L>>;
  /** Loss, metrics and dLoss/dlogps from sequence log-probabilities that a trainer already has. */
  fromLogps(batch: LogpsBatch): LogpsResult;
}

export type Objective<M extends Method = Method> = ObjectiveCalls & {
  readonly method: M;
  /** Undefined for `sft` only. */
  readonly beta: M extends 'sft' ? undefined : number;
  readonly normalize: boolean;
} & Readonly<Required<MethodOptions<M>>>;

type Config<M extends Method> = M extends 'sft'
  ? { readonly method: M; readonly beta?: number; readonly normalize?: boolean } & MethodOptions<M>
  : M extends Method
    ? { readonly method: M; readonly beta: number; readonly normalize?: boolean } & MethodOptions<M>
    : never;

/**
 * Builds the loss of a direct alignment algorithm.
 *
 * @param method its name; `methods()` lists them with formulas and sources.
 * @param beta temperature on the score, a finite number > 0; the target scale for `ipo` and `cal_dpo`; ignored for `sft`.
 * @param normalize divide each sequence's log-probability, and the reference's, by its scored tokens; default: the method's
 *   original setting.
 * @param options those of the method; anything else is refused.
 * @throws DirAlignError with code ERR_DIRALIGN_OPTION
 *
 * @example
 * const dpo = dirAlignLoss('dpo', 0.1);
 * const { loss, gradLogits } = dpo({ logits, shape: [4, 512, 32000], labels, reference });
 */
export function dirAlignLoss(method: 'sft', beta?: number, normalize?: boolean, options?: MethodOptions<'sft'>): Objective<'sft'>;
export function dirAlignLoss<M extends Method>(
  method: M,
  beta: number,
  normalize?: boolean,
  options?: MethodOptions<M>,
): Objective<M>;
export function dirAlignLoss<M extends Method>(config: Config<M>): Objective<M>;
export function dirAlignLoss(method: unknown, beta?: unknown, normalize?: unknown, options?: unknown): unknown {
  if (typeof method === 'object' && method !== null) {
    if (beta !== undefined || normalize !== undefined || options !== undefined) {
      throw typeError('ERR_DIRALIGN_OPTION', 'dirAlignLoss: takes one object, or method, beta, normalize and options, not both');
    }
    const { method: name, beta: b, normalize: n, ...rest } = method as Readonly<Record<string, unknown>>;
    return build(resolveSettings(name, b, n, rest));
  }
  if (options !== undefined) checkObject('options', options);
  return build(resolveSettings(method, beta, normalize, (options ?? {}) as Record<string, unknown>));
}

function build(settings: Settings): unknown {
  const call = (batch: LogitsBatch<Logits>, run: RunOptions<Logits> = {}): LossResult<Logits> => {
    checkObject('run', run);
    if (run.signal !== undefined) {
      throw typeError('ERR_DIRALIGN_OPTION', 'signal: a synchronous call cannot be aborted; use objective.async');
    }
    const prepared = prepareLoss(settings, batch, run);
    try {
      compute(prepared.request.batch, () => native().loss(prepared.request));
    } catch (error) {
      prepared.discard();
      throw error;
    }
    return prepared.result();
  };
  const properties = {
    method: settings.info.name,
    beta: settings.beta,
    normalize: settings.normalize,
    ...settings.options,
    async: (batch: LogitsBatch<Logits>, run: RunOptions<Logits> = {}) => computeAsync(settings, batch, run),
    fromLogps: (batch: LogpsBatch) => fromLogps(settings, batch),
  };
  for (const [key, value] of Object.entries(properties)) Object.defineProperty(call, key, { value, enumerable: true });
  return Object.freeze(call);
}

const gradientModes: readonly GradientMode[] = ['none', 'dense', 'factored'];
const runKeys: ReadonlySet<string> = new Set(['gradient', 'inPlace', 'out', 'backend', 'threads', 'signal']);
const logpsKeys: ReadonlySet<string> = new Set(['backend', 'threads']);

function checkObject(name: string, value: unknown): asserts value is object {
  if (typeof value !== 'object' || value === null) {
    throw typeError('ERR_DIRALIGN_OPTION', `${name}: expected an object, not ${describe(value)}`);
  }
}

function checkKeys(name: string, given: object, known: ReadonlySet<string>): void {
  for (const key in given) {
    if (!known.has(key))
      throw typeError('ERR_DIRALIGN_OPTION', `${name}.${key}: no such option; there are ${[...known].join(', ')}`);
  }
}

const computing = 'computing on the device';

/** Calls the native side at once. What it refuses are labels; what fails is the device. */
function compute(batch: BatchRequest, action: () => BadLabel | undefined): void {
  let bad: BadLabel | undefined;
  try {
    bad = action();
  } catch (cause) {
    throw cudaError(computing, cause);
  }
  if (bad) throw labelError(bad, batch);
}

function checkRun(run: RunOptions<Logits>): { readonly mode: GradientMode; readonly backend: Backend } {
  checkKeys('run', run, runKeys);
  const { gradient = 'dense', inPlace = false, out, backend = 'auto' } = run;
  if (!gradientModes.includes(gradient)) {
    throw typeError('ERR_DIRALIGN_OPTION', `gradient: '${gradient as string}' is not one of 'dense', 'factored', 'none'`);
  }
  if (typeof inPlace !== 'boolean') throw typeError('ERR_DIRALIGN_OPTION', `inPlace: ${String(inPlace)} is not a boolean`);
  if (inPlace && out !== undefined) throw typeError('ERR_DIRALIGN_OPTION', 'out: not together with inPlace');
  if (gradient === 'none' && (inPlace || out !== undefined)) {
    throw typeError('ERR_DIRALIGN_OPTION', `${inPlace ? 'inPlace' : 'out'}: gradient is 'none', so there is nothing to write`);
  }
  return { mode: gradient, backend: checkBackend(backend) };
}

interface PreparedLoss {
  readonly request: LossRequest;
  /** The public result, once the native side has filled the request. */
  result(): LossResult<Logits>;
  /** Keeps device and page-locked memory for an asynchronous call, until the returned function is called. */
  retain(): () => void;
  /** Frees what was allocated for a call that failed. */
  discard(): void;
}

/** Everything that can be refused is refused here, but for the labels. */
function prepareLoss(settings: Settings, batch: LogitsBatch<Logits>, run: RunOptions<Logits>): PreparedLoss {
  const { mode, backend } = checkRun(run);
  const base = checkBatch(batch, run.threads, backend);
  const paired = settings.info.name !== 'sft';
  checkSequences(base.sequences, paired);
  const reference = settings.usesReference ? checkReference(batch.reference, base.sequences, settings.info.name) : undefined;
  if (batch.sftLabels !== undefined) {
    if (!paired) throw typeError('ERR_DIRALIGN_OPTION', "sftLabels: 'sft' has one set of labels; pass them as labels");
    if (mode === 'factored')
      throw typeError('ERR_DIRALIGN_OPTION', "sftLabels: not with gradient 'factored', which has one scale per row");
    const sftLabels = checkSftLabels(batch.sftLabels, base.rows);
    if (settings.hasSftTerm) base.sftLabels = sftLabels;
  }
  const { labels, offsets, sftLabels, reference: given } = batch;
  const inputs = { labels, offsets, sftLabels, reference: given };
  const { gradLogits, elements, discard } = prepareGradient(batch.logits, base, mode, run, inputs);
  const pairs = paired ? base.sequences / 2 : base.sequences;
  const request: LossRequest = {
    batch: base,
    method: settings.method,
    settings: settings.native,
    reference,
    losses: new Float64Array(pairs),
    rewards: new Float64Array(base.sequences),
    coefficients: new Float64Array(base.sequences),
    metrics: new Float64Array(metricNames.length + 1),
    logps: new Float64Array(base.sequences),
    gradientMode: gradientModes.indexOf(mode),
    gradient: gradLogits && rawLogits(gradLogits),
    gradientElements: elements,
    gradientIsFresh: base.target !== Target.device && gradLogits !== undefined && !run.inPlace && run.out === undefined,
    rowScale: mode === 'factored' ? new Float32Array(base.rows) : undefined,
  };
  const result = (): LossResult<Logits> => {
    const values: LossResult<Logits> = {
      loss: request.metrics[metricNames.length] as number,
      losses: request.losses,
      logps: request.logps,
      counts: base.counts,
      rewards: request.rewards,
      coefficients: request.coefficients,
      metrics: readMetrics(settings, request.metrics),
      backend: base.target === Target.cpu ? 'cpu' : 'cuda',
    };
    if (!gradLogits) return values;
    return request.rowScale ? { ...values, gradLogits, rowScale: request.rowScale } : { ...values, gradLogits };
  };
  const retain = (): (() => void) => {
    const used: readonly (Logits | undefined)[] = [batch.logits, gradLogits];
    const releases = used.map((one) => (one instanceof DeviceTensor ? one.region.retain() : retainPinned([one])));
    return () => {
      for (const release of releases) release();
    };
  };
  return { request, result, retain, discard };
}

interface PreparedGradient {
  readonly gradLogits: Logits | undefined;
  readonly elements: number;
  readonly discard: () => void;
}

function prepareGradient(
  logits: Logits,
  base: BatchRequest,
  mode: GradientMode,
  run: RunOptions<Logits>,
  inputs: Readonly<Record<string, ArrayBufferView | undefined>>,
): PreparedGradient {
  const given = run.inPlace ? logits : run.out === undefined ? undefined : checkOut(run.out, logits, base, inputs);
  const elementsOf = (gradient: Logits): number =>
    gradient instanceof DeviceTensor ? tensorElements(gradient, base) : gradient.length;
  const discard = (): void => undefined; // the caller's own
  if (given) return { gradLogits: given, elements: elementsOf(given), discard };
  if (mode === 'none') return { gradLogits: undefined, elements: 0, discard };
  const elements = elementsOf(logits);
  if (!(logits instanceof DeviceTensor)) {
    // Zeroed by the system page by page, on first touch: ignored rows of it cost nothing.
    return { gradLogits: new (logits.constructor as new (length: number) => typeof logits)(elements), elements, discard };
  }
  const { tensor, buffer } = allocateLike(logits, elements * elementBytes[logits.dtype]);
  return {
    gradLogits: tensor,
    elements,
    discard: () => {
      buffer.discard();
    },
  };
}

/** The metrics that mean something to the method. */
function readMetrics(settings: Settings, values: Float64Array): Record<string, number> {
  const paired = settings.info.name !== 'sft';
  const metrics: Record<string, number> = {};
  metricNames.forEach((name, i) => {
    if (name.startsWith('log_odds') && settings.info.score !== 'log-odds') return;
    if (name === 'nll_loss' && paired && !settings.hasSftTerm) return;
    if (!paired && (name.endsWith('/rejected') || name === 'rewards/accuracies' || name === 'rewards/margins')) return;
    metrics[name] = values[i] as number;
  });
  return metrics;
}

async function computeAsync(
  settings: Settings,
  batch: LogitsBatch<Logits>,
  run: RunOptions<Logits>,
): Promise<LossResult<Logits>> {
  checkObject('run', run);
  const { signal } = run;
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw typeError('ERR_DIRALIGN_OPTION', `signal: expected an AbortSignal, not ${describe(signal)}`);
  }
  if (signal?.aborted) throw abortError(signal.reason);
  const prepared = prepareLoss(settings, batch, run);
  const release = prepared.retain();
  try {
    await new Promise<void>((resolve, reject) => {
      const started = native().loss(prepared.request, (error, cancelled) => {
        if (signal && typeof started === 'function') signal.removeEventListener('abort', started);
        if (error) reject(error);
        else if (cancelled) reject(abortError(signal?.reason));
        else resolve();
      });
      if (typeof started !== 'function') reject(labelError(started, prepared.request.batch));
      else signal?.addEventListener('abort', started, { once: true });
    });
  } catch (cause) {
    prepared.discard();
    throw cudaError(computing, cause);
  } finally {
    release();
  }
  return prepared.result();
}

function fromLogps(settings: Settings, batch: LogpsBatch): LogpsResult {
  if (typeof batch !== 'object' || (batch as unknown) === null) {
    throw typeError('ERR_DIRALIGN_SHAPE', `fromLogps: expected an object with logps and counts, not ${describe(batch)}`);
  }
  const logps = checkLogps('logps', batch.logps, undefined, 'ERR_DIRALIGN_DTYPE');
  const sequences = logps.length;
  const paired = settings.info.name !== 'sft';
  checkSequences(sequences, paired);
  const counts = checkCounts(batch.counts, sequences);
  const reference = settings.usesReference ? checkReference(batch.reference, sequences, settings.info.name) : undefined;
  const request = {
    method: settings.method,
    settings: settings.native,
    logps,
    counts,
    reference,
    losses: new Float64Array(paired ? sequences / 2 : sequences),
    rewards: new Float64Array(sequences),
    coefficients: new Float64Array(sequences),
    metrics: new Float64Array(metricNames.length + 1),
    gradLogps: new Float64Array(sequences),
  };
  native().fromLogps(request);
  return {
    loss: request.metrics[metricNames.length] as number,
    losses: request.losses,
    rewards: request.rewards,
    metrics: readMetrics(settings, request.metrics),
    gradLogps: request.gradLogps,
  };
}

/** Options of {@link sequenceLogps} and {@link tokenLogps}. */
export interface LogpsOptions {
  readonly backend?: 'auto' | 'cpu' | 'cuda';
  readonly threads?: number;
}

function prepareLogps(batch: LogitsBatch<Logits>, options: LogpsOptions): BatchRequest {
  checkObject('options', options);
  checkKeys('options', options, logpsKeys);
  return checkBatch(batch, options.threads, checkBackend(options.backend ?? 'auto'));
}

/**
 * Log-probability of each sequence, summed over its scored rows: how a reference model's numbers are made. The same kernel as
 * training, so that a policy equal to its reference has margins of exactly 0.
 * @throws DirAlignError before anything is computed
 */
export function sequenceLogps(batch: LogitsBatch<Logits>, options: LogpsOptions = {}): SequenceLogps {
  const base = prepareLogps(batch, options);
  const request = { batch: base, logps: new Float64Array(base.sequences) };
  compute(base, () => native().sequenceLogps(request));
  return { logps: request.logps, counts: base.counts };
}

/**
 * Per row: log-probability of the label, logsumexp of the logits, entropy of the softmax in nats; all 0 on ignored rows.
 * @throws DirAlignError before anything is computed
 */
export function tokenLogps(batch: LogitsBatch<Logits>, options: LogpsOptions = {}): TokenLogps {
  const base = prepareLogps(batch, options);
  const request = {
    batch: base,
    logps: new Float64Array(base.rows),
    logsumexp: new Float64Array(base.rows),
    entropy: new Float64Array(base.rows),
  };
  compute(base, () => native().tokenLogps(request));
  return { logps: request.logps, logsumexp: request.logsumexp, entropy: request.entropy };
}
