/** What CUDA gave and takes back: by `dispose`, by `using`, or when the collector finds it. */
import { cudaError, typeError } from '../errors.js';

/**
 * Something to give back, and how many asynchronous calls still use it. The finalizer holds this,
 * so it must not hold its owner.
 */
export interface Held {
  readonly what: string;
  free: (() => void) | undefined;
  disposed: boolean;
  uses: number;
}

function freeNow(held: Held): void {
  const { free } = held;
  held.free = undefined;
  free?.();
}

/** For the collector, where nobody is left to be told of a failure. */
function freeQuietly(held: Held): void {
  try {
    freeNow(held);
  } catch {
    // CUDA fails here after an error that another call has reported.
  }
}

/** Frees it, once no asynchronous call uses it. */
export function disposeOf(held: Held): void {
  held.disposed = true;
  if (held.uses === 0) freeNow(held);
}

/** Keeps it until the returned function is called. */
export function retain(held: Held): () => void {
  held.uses++;
  return () => {
    if (--held.uses === 0 && held.disposed) freeQuietly(held);
  };
}

let hasWarned = false;

const net = new FinalizationRegistry<Held>((held) => {
  if (!hasWarned) {
    hasWarned = true;
    process.emitWarning(
      `${held.what} was collected before dispose() was called on it, and is freed now. ` +
        'Device memory and handles are dear and the ' +
        'collector is late: call dispose(), or declare it with `using`. This is said once.',
      { type: 'DirAlignWarning', code: 'DIRALIGN_LEAK' },
    );
  }
  held.disposed = true;
  freeQuietly(held);
});

const ordinaryHasInstance = Function.prototype[Symbol.hasInstance];

/**
 * Something outside the heap. `dispose` gives it back; where that was forgotten, a finalizer does,
 * with a warning.
 */
export abstract class Resource {
  readonly #held: Held;
  /** `dispose`, for `using`. */
  declare readonly [Symbol.dispose]: () => void;

  /** A Proxy around a resource is none, nor is an object that only has its class. */
  static [Symbol.hasInstance](value: unknown): boolean {
    return (
      typeof value === 'object' &&
      value !== null &&
      #held in value &&
      ordinaryHasInstance.call(this, value)
    );
  }

  /** @internal */
  constructor(what: string, free: () => void) {
    this.#held = { what, free, disposed: false, uses: 0 };
    net.register(this, this.#held, this.#held);
  }

  /** Whether `dispose` was called. */
  get disposed(): boolean {
    return this.#held.disposed;
  }

  /**
   * Gives it back, once the asynchronous calls that use it have settled. A second call does
   * nothing.
   */
  dispose(): void {
    const held = this.#held;
    if (held.disposed) return;
    net.unregister(held);
    try {
      disposeOf(held);
    } catch (cause) {
      throw cudaError(`freeing ${held.what}`, cause);
    }
  }

  /** @internal After a call that failed, whose error is the news. */
  discard(): void {
    try {
      this.dispose();
    } catch {
      // A device that failed takes nothing back either.
    }
  }

  /** @internal @throws DirAlignError once it was disposed of */
  alive(name: string): void {
    if (this.#held.disposed)
      throw typeError('ERR_DIRALIGN_DEVICE', `${name}: ${this.#held.what} was disposed of`);
  }

  /** @internal Keeps it until the returned function is called. */
  retain(): () => void {
    return retain(this.#held);
  }

  /** @internal What can be held without keeping this alive. */
  protected get held(): unknown {
    return this.#held;
  }
}

/**
 * Adds `[Symbol.dispose]`, where there is one: a realm of its own, such as a vm context, has none
 * on Node 20. `dispose` is there in any case.
 */
export function makeDisposable(prototype: { dispose(): void }): void {
  const symbol = (Symbol as { readonly dispose?: symbol }).dispose;
  if (symbol === undefined) return;
  const value = function (this: { dispose(): void }): void {
    this.dispose();
  };
  Object.defineProperty(prototype, symbol, { value, writable: true, configurable: true });
}
makeDisposable(Resource.prototype);

/** Calls them all. */
export const release = (releases: readonly (() => void)[]) => () => {
  for (const one of releases) one();
};
