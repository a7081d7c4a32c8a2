/** Memory of gradients that the caller gives back, for later calls: no page of it is fresh. */
import {
  allocate,
  bytesPerElement,
  isDetached,
  spanOf,
  tagOf,
  viewOf,
  type Kind,
} from '../batch/arrays.js';
import type { LogitsArray } from '../batch/types.js';
import { hold, holdsOf, letGo } from '../device/holds.js';
import { disposeOf, type Held } from '../device/resource.js';
import { typeError } from '../errors.js';
import { describe } from '../given.js';

/** Idle arrays that are kept: the three gradients of an output layer, and one of another size. */
const mostIdle = 4;

/** The memory in a buffer of its own; the old one and its views are empty then. */
function moved(buffer: ArrayBuffer): ArrayBuffer {
  const { transfer } = buffer as { readonly transfer?: (this: ArrayBuffer) => ArrayBuffer };
  return transfer ? transfer.call(buffer) : structuredClone(buffer, { transfer: [buffer] });
}

/**
 * Memory for the gradients of calls that get it as `run.buffers`. Every gradient that has no place
 * of its own is lent an array, until the caller gives it back: by `release`, or by `using` the
 * result of the call. One is enough for any number of objectives, shapes and dtypes. It keeps the
 * four arrays that were given back last, and belongs to the thread that made it.
 *
 * @example
 * const buffers = new GradientBuffers();
 * for (const batch of batches) {
 *   const { gradLogits } = dpo(batch, { buffers });
 *   backward(gradLogits);
 *   buffers.release(gradLogits);
 * }
 */
export class GradientBuffers {
  /** The longest unused first. */
  readonly #idle: ArrayBuffer[] = [];
  readonly #loans = new WeakMap<ArrayBufferLike, Held>();

  /** A Proxy around one is none, nor is an object that only has its class. */
  static [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === 'object' && value !== null && #idle in value;
  }

  /**
   * Gives gradients back. They are empty then, of length 0, so that nobody takes the next gradient
   * for theirs. What asynchronous calls use is given back once they have settled.
   * @throws DirAlignError before any is given back: with code ERR_DIRALIGN_OPTION for what these
   *   buffers did not lend, what was given back before or is page-locked; with code
   *   ERR_DIRALIGN_SHAPE for what was transferred elsewhere, which stays there
   */
  release(...gradients: readonly LogitsArray[]): void {
    const loans = new Set<Held>();
    for (const gradient of gradients) {
      const loan = this.#loanOf(gradient);
      const { buffer } = spanOf(gradient);
      if (loan.disposed || loans.has(loan))
        throw typeError('ERR_DIRALIGN_OPTION', 'release: the array was given back before');
      if (isDetached(buffer))
        throw typeError(
          'ERR_DIRALIGN_SHAPE',
          'release: the ArrayBuffer is detached (transferred elsewhere)',
        );
      if (isLocked(buffer))
        throw typeError(
          'ERR_DIRALIGN_OPTION',
          'release: the array is page-locked; dispose of its PinnedArray first',
        );
      loans.add(loan);
    }
    for (const loan of loans) disposeOf(loan);
  }

  #loanOf(gradient: unknown): Held {
    const kind = tagOf(gradient);
    const loan = kind && this.#loans.get(spanOf(gradient as LogitsArray).buffer);
    if (loan) return loan;
    const other = kind ? `a ${kind} that they did not lend` : describe(gradient);
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `release: expected an array that a call was lent by these buffers, not ${other}`,
    );
  }

  /**
   * @internal An array, with what was last in its memory unless that is fresh, and all 0.
   * `giveBack` does so unless the caller has.
   * @throws DirAlignError with code ERR_DIRALIGN_MEMORY
   */
  lend<K extends Kind>(name: string, kind: K, length: number) {
    const used = this.#take(length * bytesPerElement(kind));
    const array = used ? viewOf(kind, used, length) : allocate(name, kind, length);
    const { buffer } = spanOf(array) as { readonly buffer: ArrayBuffer };
    const loan: Held = {
      what: name,
      disposed: false,
      uses: 0,
      free: () => {
        letGo(buffer, loan);
        if (isDetached(buffer)) return; // transferred while a call used it
        this.#idle.push(moved(buffer));
        if (this.#idle.length > mostIdle) this.#idle.shift();
      },
    };
    this.#loans.set(buffer, loan);
    hold(buffer, loan);
    return {
      array,
      fresh: !used,
      giveBack: (): void => {
        if (!loan.disposed && !isLocked(buffer)) disposeOf(loan);
      },
    };
  }

  /** The smallest that is large enough, and not more than twice as large. */
  #take(bytes: number): ArrayBuffer | undefined {
    const [best] = this.#idle
      .filter(({ byteLength }) => byteLength >= bytes && byteLength <= 2 * bytes)
      .sort((a, b) => a.byteLength - b.byteLength);
    if (best) this.#idle.splice(this.#idle.indexOf(best), 1);
    return best;
  }
}

/** Held by anything but its loan. */
const isLocked = (buffer: ArrayBufferLike): boolean => holdsOf(buffer).size > 1;

/** `run.buffers`, for memory of the host. */
export function checkBuffers(value: unknown, onDevice: boolean): GradientBuffers | undefined {
  if (value === undefined) return undefined;
  if (!(value instanceof GradientBuffers))
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `buffers: expected GradientBuffers of this thread, not ${describe(value)}`,
    );
  if (onDevice)
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      'buffers: are of host memory; for a gradient in device memory, pass out',
    );
  return value;
}

/** A result that gives back what was lent for it: `using result = dpo(batch, { buffers })`. */
export function makeLent(result: object, loans: readonly (() => void)[]): void {
  const symbol = (Symbol as { readonly dispose?: symbol }).dispose;
  if (symbol === undefined) return; // in a realm of its own on Node 20
  const value = (): void => {
    for (const giveBack of loans) giveBack();
  };
  Object.defineProperty(result, symbol, { value });
}
