/** Calls with a gradient, at once or off the event loop, whatever the batch holds. */
import { checkSignal, onAbort, reasonOf, type SignalLike } from '../abort.js';
import { AttachedArrays, watchArrays } from '../batch/detached.js';
import { labelError } from '../batch/labels.js';
import type { Logits } from '../batch/types.js';
import { DeviceTensor } from '../device/memory.js';
import { tellLater, tellNow, type CheckedParallel } from '../distributed/parallel.js';
import { retainHost } from '../device/holds.js';
import { release } from '../device/resource.js';
import { abortError, typeError } from '../errors.js';
import { compute, nativeError } from '../native/call.js';
import type { BadLabel, BatchRequest, Cancel, Differentiated, Done } from '../native/interface.js';

/** What every call with a gradient asks of the native side. */
type CallRequest = Differentiated & {
  readonly batch: BatchRequest;
  readonly reference: unknown;
};

/** A call whose arguments, except the labels, are validated. */
export interface PreparedCall<Result> {
  readonly request: CallRequest;
  /** Computes before it returns, or, with a callback, off the event loop. */
  readonly start: {
    (): BadLabel | undefined;
    (done: Done): BadLabel | Cancel;
  };
  /** What it reads and writes in the caller's memory, and in fresh memory of a device. */
  readonly memory: readonly (Logits | undefined)[];
  /** The public result, once the native side has filled the request. */
  result(): Result;
  /** Frees what was allocated for a call that failed. */
  discard(): void;
}

/** A synchronous call takes no signal. */
export function refuseSignal(signal: unknown, instead: string): void {
  if (signal === undefined) return;
  throw typeError(
    'ERR_DIRALIGN_OPTION',
    `signal: a synchronous call cannot be aborted; use ${instead}`,
  );
}

/**
 * Computes before it returns.
 * @param parallel where other processes are to hear of what is refused here.
 */
export function computeNow<Result>(
  prepare: () => PreparedCall<Result>,
  parallel?: CheckedParallel,
): Result {
  let prepared: PreparedCall<Result> | undefined;
  try {
    const { request, start } = (prepared = prepare());
    compute(request, () => start());
  } catch (error) {
    prepared?.discard();
    if (parallel) tellNow(parallel.request, error);
    throw error;
  }
  return prepared.result();
}

/**
 * Keeps the memory of an asynchronous call on a device, and what is page-locked or lent of it on
 * the host, until the returned function is called.
 */
function retain(memory: readonly unknown[]): () => void {
  const tensors = memory.filter((one) => one instanceof DeviceTensor);
  const views = memory.filter((one) => ArrayBuffer.isView(one));
  return release([...tensors.map((one) => one.region.retain()), retainHost(views)]);
}

/** The caller's arrays in a request, by their names in messages. */
function arraysOf({
  batch,
  reference,
  layer,
  gradients: { gradient, layerGradients },
}: CallRequest): Readonly<Record<string, unknown>> {
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

/**
 * Computes off the event loop. Where the signal is aborted already, `prepare` is not called.
 * @param parallel where other processes are to hear of what is refused here. They count calls, so
 *   that the refusal takes its place among them before this returns.
 */
export async function computeLater<Result>(
  signal: unknown,
  prepare: () => PreparedCall<Result>,
  parallel?: CheckedParallel,
): Promise<Result> {
  let told: Promise<void> | undefined;
  const tell = (error: unknown): Promise<void> => (told ??= tellLater(parallel?.request, error));
  let cancel: Cancel | undefined;
  const stop = (): void => cancel?.();
  let forget: (() => void) | undefined;
  let prepared: PreparedCall<Result> | undefined;
  try {
    try {
      checkSignal(signal);
      if (signal?.aborted) throw abortError(reasonOf(signal));
      forget = signal && onAbort(signal, stop);
      prepared = prepare();
      await computePrepared(prepared, signal, stop, tell, (begun) => {
        cancel = begun;
      });
    } finally {
      forget?.();
    }
    return prepared.result();
  } catch (error) {
    // Whoever threw it, even a signal of the caller's own: nobody gets the result.
    prepared?.discard();
    await tell(error);
    throw error;
  }
}

async function computePrepared(
  { request, start, memory }: PreparedCall<unknown>,
  signal: SignalLike | undefined,
  stop: () => void,
  tell: (error: unknown) => Promise<void>,
  begin: (cancel: Cancel) => void,
): Promise<void> {
  const own = arraysOf(request);
  const letGo = retain([...memory, ...Object.values(own)]);
  const arrays = new AttachedArrays(own);
  const unwatch = watchArrays(arrays, stop);
  try {
    // Reading the batch may have run code of the caller's.
    if (signal?.aborted) throw abortError(reasonOf(signal));
    let done!: Done;
    const ended = new Promise<boolean>((resolve, reject) => {
      done = (error, wasCancelled) => {
        if (error) reject(error);
        else resolve(wasCancelled);
      };
    });
    // Outside of the promise: what is refused at once is no rejection that nobody waits for.
    const started = start(done);
    if (typeof started !== 'function') throw labelError(started, request.batch);
    begin(started);
    const cancelled = await ended;
    if (!cancelled || !signal?.aborted) arrays.check();
    if (cancelled) throw abortError(reasonOf(signal));
  } catch (cause) {
    const error = nativeError(cause, request.layer);
    void tell(error); // at once, and not when this promise has settled
    throw error;
  } finally {
    unwatch();
    letGo();
  }
}
