/**
 * Arrays that are detached while an asynchronous call uses them: by structuredClone or postMessage
 * with a transfer list, or by a WebAssembly memory that grows. Node-API cannot keep the memory of a
 * detached array: its new owner frees it, whether or not a thread of ours still reads it. All we
 * can do is notice, soon and in any case.
 */
import { clearInterval, setInterval } from 'node:timers';
import { bytesOfTyped, tagOf } from './arrays.js';
import { typeError } from '../errors.js';

export class AttachedArrays {
  private readonly arrays: readonly (readonly [name: string, array: unknown])[];

  /**
   * Takes the arrays before native code gets them, by their names in messages. Leaves out anything
   * but typed arrays.
   */
  constructor(arrays: Readonly<Record<string, unknown>>) {
    this.arrays = Object.entries(arrays).filter(
      ([, array]) => tagOf(array) !== undefined && bytesOfTyped(array) > 0,
    );
  }

  /** When native code is done with them. @throws DirAlignError with code ERR_DIRALIGN_SHAPE */
  check(): void {
    const gone = this.gone();
    if (gone === undefined) return;
    throw typeError(
      'ERR_DIRALIGN_SHAPE',
      `${gone}: its ArrayBuffer was detached (transferred elsewhere) during the call; ` +
        'an array belongs to an asynchronous call until it settles',
    );
  }

  /** The name of an array that is detached, if any. */
  gone(): string | undefined {
    return this.arrays.find(([, array]) => bytesOfTyped(array) === 0)?.[0];
  }
}

/**
 * Milliseconds between two looks at the arrays of the calls under way: seldom enough not to slow a
 * computation, often enough to be before the collector.
 */
const interval = 10;
const watched = new Map<AttachedArrays, () => void>();
let timer: NodeJS.Timeout | undefined;

/** Calls `stop` soon after one of the arrays is detached, until the returned function is called. */
export function watchArrays(arrays: AttachedArrays, stop: () => void): () => void {
  watched.set(arrays, stop);
  timer ??= setInterval(() => {
    for (const [each, stopEach] of watched) if (each.gone() !== undefined) stopEach();
  }, interval).unref();
  return () => {
    watched.delete(arrays);
    if (watched.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  };
}
