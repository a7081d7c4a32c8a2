/** What loggers have in common: the checks, and a queue in front of whatever is written to. */
import { DirAlignError, rangeError, typeError } from '../errors.js';
import { checkObject, describe } from '../given.js';

/** Takes the numbers of a training run, step by step. */
export interface Logger extends AsyncDisposable {
  /**
   * Takes the numbers of a step, for instance `{ loss, ...metrics }`. Returns at once: they are
   * written behind it, in order, off the event loop. A value of undefined is left out.
   * @param step a whole number of at least 0.
   * @throws DirAlignError with code ERR_DIRALIGN_OPTION for a step or a value of another kind, or a
   *   closed logger; with ERR_DIRALIGN_FILE
   *   where an earlier write has failed.
   */
  log<Values extends { readonly [Name in keyof Values]: number | undefined }>(
    step: number,
    values: Values,
  ): void;
  /**
   * Resolves when everything logged so far is handed to the system.
   * @throws DirAlignError (as a rejection) with code ERR_DIRALIGN_FILE where a write has failed;
   *   `cause` is the system's error.
   */
  flush(): Promise<void>;
  /**
   * Flushes, and lets go of the file. Later calls of `log` are refused, later calls of `close` do
   * nothing more.
   */
  close(): Promise<void>;
}

/** Where the bytes go. */
export interface Sink {
  /** For messages. */
  readonly name: string;
  /** Called again only when it has resolved. */
  write(bytes: Uint8Array): Promise<void>;
  /** Called once, after the last write. */
  close(): Promise<void>;
}

/** The numbers of a step, checked. */
export interface Entry {
  readonly step: number;
  /** Seconds since 1970. */
  readonly time: number;
  readonly values: readonly (readonly [name: string, value: number])[];
}

function readEntry(step: unknown, given: unknown): Entry {
  if (!Number.isSafeInteger(step) || (step as number) < 0) {
    const message = `step: ${describe(step)} is not a whole number of at least 0`;
    throw typeof step === 'number'
      ? rangeError('ERR_DIRALIGN_OPTION', message)
      : typeError('ERR_DIRALIGN_OPTION', message);
  }
  checkObject('values', given);
  const values: [string, number][] = [];
  for (const [name, value] of Object.entries(given) as [string, unknown][]) {
    if (value === undefined) continue;
    if (typeof value !== 'number') {
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        `values['${name}']: expected a number, not ${describe(value)}`,
      );
    }
    values.push([name, value]);
  }
  return { step: step as number, time: Date.now() / 1000, values };
}

/**
 * A logger that writes what `encode` makes of each step to a sink, several steps at once where they
 * come faster than it takes them.
 */
export class QueuedLogger implements Logger {
  readonly #sink: Sink;
  readonly #encode: (entry: Entry) => Uint8Array;
  #waiting: Uint8Array[] = [];
  #writing: Promise<void> | undefined;
  #failure: DirAlignError | undefined;
  #closed: Promise<void> | undefined;

  constructor(sink: Sink, encode: (entry: Entry) => Uint8Array) {
    this.#sink = sink;
    this.#encode = encode;
  }

  log(step: number, values: object): void {
    if (this.#closed)
      throw typeError('ERR_DIRALIGN_OPTION', `log: the logger of ${this.#sink.name} is closed`);
    if (this.#failure) throw this.#failure;
    this.#waiting.push(this.#encode(readEntry(step, values)));
    this.#writing ??= this.#write();
  }

  async flush(): Promise<void> {
    await this.#writing;
    if (this.#failure) throw this.#failure;
  }

  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    await this.#writing;
    await this.#attempt(() => this.#sink.close());
    if (this.#failure) throw this.#failure;
  }

  /** Never rejects: whoever flushes is told. */
  async #write(): Promise<void> {
    await Promise.resolve(); // steps that are logged together are written together
    while (this.#waiting.length > 0 && !this.#failure) {
      const bytes = Buffer.concat(this.#waiting);
      this.#waiting = [];
      await this.#attempt(() => this.#sink.write(bytes));
    }
    this.#writing = undefined;
  }

  async #attempt(action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      this.#failure ??= rangeError(
        'ERR_DIRALIGN_FILE',
        `${this.#sink.name}: cannot be written: ${reason}`,
        { cause },
      );
    }
  }
}
