/** The processes that mpirun, or a launcher of its kind, has started. */
import { isMainThread } from 'node:worker_threads';
import { bytesOf } from '../batch/arrays.js';
import { rangeError, typeError } from '../errors.js';
import { checkObject, describe, readProperties } from '../given.js';
import { answered } from '../native/call.js';
import { native, type CommunicatorHandle, type MadeCommunicator } from '../native/interface.js';
import { environment } from '../native/system.js';
import {
  checkTimeout,
  defaultTimeout,
  handles,
  nativeOnes,
  type Engine,
  type NativeCommunicator,
} from './communicator.js';

/** Options of {@link mpi}. */
export interface MpiOptions {
  /** Milliseconds that one exchange may take; default 10 minutes. */
  readonly timeout?: number | undefined;
  /**
   * The file of the MPI library. Default: what the environment variable DIRALIGN_MPI names, or the
   * library of the launcher that started the process.
   */
  readonly library?: string | undefined;
}

class MpiCommunicator implements NativeCommunicator {
  readonly rank: number;
  readonly size: number;
  readonly #handle: CommunicatorHandle;

  constructor(
    { rank, size, handle }: MadeCommunicator,
    readonly engine: Engine,
    readonly timeout: number,
  ) {
    this.rank = rank;
    this.size = size;
    this.#handle = handle;
    handles.set(this, handle);
    nativeOnes.add(this);
    Object.freeze(this);
  }
  #exchange(toAll: boolean, mine: Uint8Array): Promise<Uint8Array> {
    return answered((done) => {
      native().distributed.exchange(this.#handle, toAll, mine, done);
    });
  }
  async allGather(bytes: Uint8Array): Promise<Uint8Array> {
    return this.#exchange(false, bytesOf('bytes', bytes));
  }
  async allToAll(bytes: Uint8Array): Promise<Uint8Array> {
    const mine = bytesOf('bytes', bytes);
    if (mine.length % this.size === 0) return this.#exchange(true, mine);
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `bytes: length ${mine.length}; expected a multiple of the ranks, ${this.size}`,
    );
  }
  async split(color: number, key: number): Promise<NativeCommunicator> {
    for (const [name, value] of Object.entries({ color, key })) {
      if (!Number.isInteger(value) || value < 0 || value >= 2 ** 31)
        throw rangeError(
          'ERR_DIRALIGN_OPTION',
          `${name}: ${describe(value)} is not a whole number from 0 to ${2 ** 31 - 1}`,
        );
    }
    const made = await answered<MadeCommunicator>((done) => {
      native().distributed.split(this.#handle, color, key, done);
    });
    return new MpiCommunicator(made, this.engine, this.timeout);
  }
  async close(): Promise<void> {
    await answered((done) => {
      native().distributed.close(this.#handle, done);
    });
  }
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

let opened: Promise<NativeCommunicator> | undefined;

/**
 * Every process that the launcher started, over the MPI library that it belongs to, which is opened
 * now: nothing of MPI is needed to build or to install the package. A process that was not started
 * by a launcher is alone, of size 1. Further calls of a process return the same communicator.
 *
 * From then on MPI ends with the process: with exit code 0 in order, which waits for the other
 * processes; with another code, of an uncaught exception for instance, it ends the whole job. A
 * worker has a communicator of its own, of the workers that call this on all ranks; the main thread
 * calls it first, for MPI ends with that.
 *
 * @throws DirAlignError with code ERR_DIRALIGN_ENGINE where no library can be opened, with the
 *   files that were tried, or where it is not that of the launcher
 *
 * @example
 * const world = await mpi();
 */
export async function mpi(options: MpiOptions = {}): Promise<NativeCommunicator> {
  checkObject('options', options);
  const given = readProperties('options', options, ['timeout', 'library']);
  const timeout = checkTimeout('timeout', given.timeout ?? defaultTimeout);
  const library = given.library ?? environment('DIRALIGN_MPI') ?? '';
  if (typeof library !== 'string')
    throw typeError('ERR_DIRALIGN_OPTION', `library: ${describe(library)} is not a string`);
  return (opened ??= open(library, timeout));
}

async function open(library: string, timeout: number): Promise<NativeCommunicator> {
  // UCX, under MPICH and others, by default rewrites brk and mmap of the running process, whose
  // other threads are V8's: jobs ended in a torn heap. And it takes SIGSEGV, which is how V8
  // notices an access out of a WebAssembly memory. Messages out of our own buffers need neither.
  process.env.UCX_MEM_EVENTS ??= 'n';
  process.env.UCX_ERROR_SIGNALS ??= '';
  try {
    const { engine, ...made } = await answered<MadeCommunicator & { readonly engine: Engine }>(
      (done) => {
        native().distributed.openMpi(library, timeout, done);
      },
    );
    // A worker that ends is not the process.
    if (isMainThread)
      process.on('exit', (code) => {
        if (code === 0) native().distributed.finalize();
        else native().distributed.abort(code);
      });
    return new MpiCommunicator(made, Object.freeze(engine), timeout);
  } catch (error) {
    opened = undefined;
    throw error;
  }
}
