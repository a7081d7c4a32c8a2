/** Signals that abort asynchronous calls: any number of calls to a signal, one listener. */
import { typeError } from './errors.js';
import { describe } from './given.js';

/**
 * What a call needs of a signal. A signal of another realm, or of a library for runtimes that had
 * none, has it too.
 */
export type SignalLike = Pick<
  AbortSignal,
  'aborted' | 'reason' | 'addEventListener' | 'removeEventListener'
>;

/** @throws DirAlignError with code ERR_DIRALIGN_OPTION */
export function checkSignal(signal: unknown): asserts signal is SignalLike | undefined {
  if (signal === undefined || isSignal(signal)) return;
  throw typeError(
    'ERR_DIRALIGN_OPTION',
    `signal: expected an AbortSignal, not ${describe(signal)}`,
  );
}

function isSignal(value: unknown): value is SignalLike {
  if (typeof value !== 'object' || value === null) return false;
  try {
    const { aborted, addEventListener, removeEventListener } = value as Partial<SignalLike>;
    return (
      typeof aborted === 'boolean' &&
      typeof addEventListener === 'function' &&
      typeof removeEventListener === 'function'
    );
  } catch {
    return false; // an object that only inherits from AbortSignal.prototype
  }
}

/** The reason of the signal, or the error that its getter threw. */
export function reasonOf(signal: SignalLike | undefined): unknown {
  try {
    return signal?.reason;
  } catch (error) {
    return error;
  }
}

interface Waiting {
  readonly cancels: Set<() => void>;
  readonly listener: () => void;
}
const waiting = new WeakMap<SignalLike, Waiting>();

/**
 * Calls `cancel` once the signal is aborted, until the returned function is called. One listener
 * for all calls of a signal: Node would warn of a leak for many, and each abort would take as many
 * turns.
 */
export function onAbort(signal: SignalLike, cancel: () => void): () => void {
  const { cancels, listener } = waiting.get(signal) ?? listen(signal);
  cancels.add(cancel);
  return () => {
    if (!cancels.delete(cancel) || cancels.size > 0) return;
    waiting.delete(signal);
    signal.removeEventListener('abort', listener);
  };
}

function listen(signal: SignalLike): Waiting {
  const cancels = new Set<() => void>();
  const listener = (): void => {
    for (const cancel of cancels) cancel();
  };
  signal.addEventListener('abort', listener);
  const made = { cancels, listener };
  waiting.set(signal, made);
  return made;
}
