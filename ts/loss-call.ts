/**
 * What the calls of an objective have in common, whatever the batch holds: options, values, and how
 * the native side is called.
 */
import { checkSignal, onAbort, reasonOf, type SignalLike } from './abort.js';
import { allocate, outOfMemory } from './batch/arrays.js';
import {
  checkLabels,
  checkLogps,
  checkReference,
  checkSequences,
  labelError,
} from './batch/batch.js';
import { metricNames } from './catalogue.js';
import { AttachedArrays, watchArrays } from './batch/detached.js';
import { DeviceTensor } from './device/memory.js';
import { retainPinned } from './device/pinned.js';
import { abortError, cudaError, rangeError, typeError } from './errors.js';
import { describe, isArray, quoted, readElements } from './given.js';
import type { Metrics, RowMetric } from './metrics.js';
import {
  native,
  Target,
  type BadLabel,
  type BatchRequest,
  type Cancel,
  type LayerRequest,
  type LossRequest,
} from './native/interface.js';
import type { Settings } from './settings.js';
import type { BatchRows, Logits } from './batch/types.js';
import type { LossValues } from './loss/results.js';

const computing = 'computing on the device';

/** What native code threw, as a caller is to see it. */
export function nativeError(cause: unknown, layer?: LayerRequest): unknown {
  const { name, bytes, message } = cause as {
    readonly name?: unknown;
    readonly bytes?: number;
    readonly message?: string;
  };
  switch (name) {
    case 'WorkspaceTooSmall':
      return rangeError(
        'ERR_DIRALIGN_OPTION',
        `memory: ${String(layer?.memory)} bytes are too few for the workspace; expected at least ${String(bytes)}`,
      );
    case 'OutOfMemory':
      return outOfMemory('the computation', bytes, cause);
    case 'Refused':
      return typeError('ERR_DIRALIGN_SHAPE', String(message), { cause });
    default:
      return cudaError(computing, cause);
  }
}

/**
 * Calls the native side at once. What it refuses are labels, and a workspace that is too small;
 * what fails is the device.
 */
export function compute(
  { batch, layer }: { readonly batch: BatchRequest; readonly layer: LayerRequest | undefined },
  action: () => BadLabel | undefined,
): void {
  let bad: BadLabel | undefined;
  try {
    bad = action();
  } catch (cause) {
    throw nativeError(cause, layer);
  }
  if (bad) throw labelError(bad, batch);
}

/** A request without where its gradient goes. */
export type ValuesRequest = Pick<
  LossRequest,
  | 'batch'
  | 'method'
  | 'settings'
  | 'reference'
  | 'losses'
  | 'rewards'
  | 'coefficients'
  | 'metrics'
  | 'metricsAsked'
  | 'logps'
>;

/** Checks the objective against the batch, and makes room for the values. */
export function prepareValues(
  settings: Settings,
  base: BatchRequest,
  batch: BatchRows,
  gradient: 'dense' | 'factored' | 'none',
  metrics: unknown,
): ValuesRequest {
  const paired = settings.info.name !== 'sft';
  checkSequences(base.sequences, paired);
  const metricsAsked = readAsked(settings, metrics);
  const reference = readReference(settings, batch.reference, base.sequences);
  if (batch.sftLabels !== undefined) {
    if (!paired)
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        "sftLabels: 'sft' has one set of labels; pass them as labels",
      );
    if (gradient === 'factored')
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        "sftLabels: not with gradient 'factored', which has one scale per row",
      );
    const sftLabels = checkLabels('sftLabels', batch.sftLabels, base.rows);
    if (settings.hasSftTerm) base.sftLabels = sftLabels;
  }
  return {
    batch: base,
    method: settings.method,
    settings: settings.native,
    reference,
    metricsAsked,
    logps: allocate('logps', 'Float64Array', base.sequences),
    ...allocateOutputs(settings, base.sequences),
  };
}

/** What asks for each: `metricsAsked` in ts/native/interface.ts. */
const rowMetrics: ReadonlyMap<unknown, number> = new Map<RowMetric, number>([
  ['entropy', 1],
  ['mean_token_accuracy', 2],
  ['logits/chosen', 4],
  ['logits/rejected', 8],
]);
const rowMetricNames = quoted(rowMetrics.keys() as Iterable<RowMetric>);

/** The metrics that `run.metrics` asks for, as the native side takes them. */
function readAsked(settings: Settings, given: unknown): number {
  if (given === undefined) return 0;
  const names = readElements(given, rowMetrics.size + 1);
  if (!isArray(names)) {
    const message = `metrics: expected an array of names, not ${describe(given)}; there are ${rowMetricNames}`;
    throw typeError('ERR_DIRALIGN_OPTION', message);
  }
  let asked = 0;
  names.forEach((name, i) => {
    const bit = rowMetrics.get(name);
    const wrong =
      bit === undefined
        ? `is not one of ${rowMetricNames}`
        : (asked & bit) !== 0
          ? 'is there already'
          : name === 'logits/rejected' && settings.info.name === 'sft'
            ? "is not for 'sft', which has no rejected sequences"
            : undefined;
    if (wrong !== undefined)
      throw typeError('ERR_DIRALIGN_OPTION', `metrics[${i}]: ${describe(name)} ${wrong}`);
    asked += bit ?? 0;
  });
  return asked;
}

/** `run.gradientScale`: any finite number, 1 by default. */
export function checkGradientScale(scale: unknown = 1): number {
  if (Number.isFinite(scale)) return scale as number;
  const message = `gradientScale: ${describe(scale)} is not a finite number`;
  throw typeof scale === 'number'
    ? rangeError('ERR_DIRALIGN_OPTION', message)
    : typeError('ERR_DIRALIGN_OPTION', message);
}

/**
 * What the method needs of the reference; numbers that it does not need may be there, and are
 * looked at no further.
 */
export function readReference(
  settings: Settings,
  value: unknown,
  sequences: number,
): Float64Array | Float32Array | undefined {
  if (settings.usesReference) return checkReference(value, sequences, settings.info.name);
  if (value !== undefined) checkLogps('reference', value, undefined, 'ERR_DIRALIGN_REFERENCE');
  return undefined;
}

/** Room for the values of a loss. */
export function allocateOutputs(settings: Settings, sequences: number) {
  const paired = settings.info.name !== 'sft';
  return {
    losses: allocate('losses', 'Float64Array', paired ? sequences / 2 : sequences),
    rewards: allocate('rewards', 'Float64Array', sequences),
    coefficients: allocate('coefficients', 'Float64Array', sequences),
    metrics: allocate('metrics', 'Float64Array', metricNames.length + 1),
  };
}

/** The values of a request that the native side has filled. */
export function valuesOf(settings: Settings, request: ValuesRequest): LossValues {
  return {
    loss: request.metrics[metricNames.length] as number,
    losses: request.losses,
    logps: request.logps,
    counts: request.batch.counts,
    rewards: request.rewards,
    coefficients: request.coefficients,
    metrics: readMetrics(settings, request.metrics, request.metricsAsked),
    backend: request.batch.target === Target.cpu ? 'cpu' : 'cuda',
  };
}

const ofPairs: ReadonlySet<string> = new Set([
  'rewards/accuracies',
  'rewards/margins',
  'ranking_accuracy',
]);

/**
 * The metrics that mean something to the method, and of those that are made of rows the ones that
 * were asked for.
 */
export function readMetrics(settings: Settings, values: Float64Array, asked: number): Metrics {
  const paired = settings.info.name !== 'sft';
  const metrics: Record<string, number> = {};
  metricNames.forEach((name, i) => {
    if (name.startsWith('log_odds') && settings.info.score !== 'log-odds') return;
    if (name === 'nll_loss' && paired && !settings.hasSftTerm) return;
    if (!paired && (name.endsWith('/rejected') || ofPairs.has(name))) return;
    const bit = rowMetrics.get(name);
    if (bit !== undefined && (asked & bit) === 0) return;
    metrics[name] = values[i] as number;
  });
  return metrics as unknown as Metrics;
}

/** A call that everything but the labels has been checked of. */
export interface PreparedLoss<Result> {
  readonly request: LossRequest;
  /** What it reads and writes in the caller's memory, and in fresh memory of a device. */
  readonly memory: readonly (Logits | undefined)[];
  /** The public result, once the native side has filled the request. */
  result(): Result;
  /** Frees what was allocated for a call that failed. */
  discard(): void;
}

export function refuseSignal(signal: unknown, instead: string): void {
  if (signal === undefined) return;
  throw typeError(
    'ERR_DIRALIGN_OPTION',
    `signal: a synchronous call cannot be aborted; use ${instead}`,
  );
}

export function computeNow<Result>(prepared: PreparedLoss<Result>): Result {
  try {
    compute(prepared.request, () => native().loss(prepared.request));
  } catch (error) {
    prepared.discard();
    throw error;
  }
  return prepared.result();
}

/**
 * Keeps device and page-locked memory for an asynchronous call, until the returned function is
 * called.
 */
function retain(memory: readonly (Logits | undefined)[]): () => void {
  const releases = memory.map((one) =>
    one instanceof DeviceTensor ? one.region.retain() : retainPinned([one]),
  );
  return () => {
    for (const release of releases) release();
  };
}

/** The caller's arrays in a request, by their names in messages. */
function arraysOf({
  batch,
  reference,
  gradient,
  layer,
  layerGradients,
}: LossRequest): Readonly<Record<string, unknown>> {
  return {
    logits: batch.logits,
    hidden: layer?.hidden,
    weight: layer?.weight,
    bias: layer?.bias,
    offsets: batch.offsets,
    labels: batch.labels,
    sftLabels: batch.sftLabels,
    reference,
    out: gradient,
    'out.gradHidden': layerGradients?.hidden?.data,
    'out.gradWeight': layerGradients?.weight?.data,
    'out.gradBias': layerGradients?.bias?.data,
  };
}

/** `prepare` is not called where the signal has been aborted. */
export async function computeLater<Result>(
  signal: unknown,
  prepare: () => PreparedLoss<Result>,
): Promise<Result> {
  checkSignal(signal);
  if (signal?.aborted) throw abortError(reasonOf(signal));
  let cancel: Cancel | undefined;
  const stop = (): void => cancel?.();
  const forget = signal && onAbort(signal, stop);
  let prepared: PreparedLoss<Result> | undefined;
  try {
    try {
      prepared = prepare();
      await computePrepared(prepared, signal, stop, (begun) => {
        cancel = begun;
      });
    } finally {
      forget?.();
    }
    return prepared.result();
  } catch (error) {
    // Whoever threw it, a signal of the caller's own among them: nobody gets the result.
    prepared?.discard();
    throw error;
  }
}

async function computePrepared(
  { request, memory }: PreparedLoss<unknown>,
  signal: SignalLike | undefined,
  stop: () => void,
  begin: (cancel: Cancel) => void,
): Promise<void> {
  const release = retain(memory);
  const arrays = new AttachedArrays(arraysOf(request));
  const unwatch = watchArrays(arrays, stop);
  try {
    // Reading the batch may have run code of the caller's.
    if (signal?.aborted) throw abortError(reasonOf(signal));
    const cancelled = await new Promise<boolean>((resolve, reject) => {
      const started = native().loss(request, (error, wasCancelled) => {
        if (error) reject(error);
        else resolve(wasCancelled);
      });
      if (typeof started === 'function') begin(started);
      else reject(labelError(started, request.batch));
    });
    if (!cancelled || !signal?.aborted) arrays.check();
    if (cancelled) throw abortError(reasonOf(signal));
  } catch (cause) {
    throw nativeError(cause, request.layer);
  } finally {
    unwatch();
    release();
  }
}
