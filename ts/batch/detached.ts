/**
 * Arrays that go while an asynchronous call uses them: structuredClone or postMessage with a
 * transfer list, a WebAssembly memory that grows. Node-API cannot keep the memory of a detached
 * array: it belongs to whoever has it now, and is freed with that one's last reference, whether or
 * not a thread of ours still reads it. What can be done is to notice, soon and in any case.
 */
import { clearInterval, setInterval } from 'node:timers';
import { bytesOfTyped, tagOf } from './arrays.js';
import { typeError } from '../errors.js';

export class AttachedArrays {
  private readonly arrays: readonly (readonly [name: string, array: unknown])[];

  /**
   * Before native code gets them; by their names in messages. Anything but a typed array is left
   * out.
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
      `${gone}: its ArrayBuffer was detached (transferred elsewhere) during the call; an array belongs to an asynchronous call until it settles`,
    );
  }

  /** The name of one that is detached. */
  gone(): string | undefined {
    return this.arrays.find(([, array]) => bytesOfTyped(array) === 0)?.[0];
  }
}

/**
 * Milliseconds between two looks at the arrays of the calls under way: long to a thread that
 * computes, short to a collector.
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
