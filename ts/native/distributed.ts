import type { Engine } from '../distributed/communicator.js';
import type { Described } from './described.js';
import type { Cancel, Done } from './interface.js';

/** Of the native side: whoever has it keeps the communicator. */
export type CommunicatorHandle = object & { readonly brand?: 'communicator' };

export interface MadeCommunicator {
  readonly rank: number;
  readonly size: number;
  readonly handle: CommunicatorHandle;
}

export type Answer<T> = (error: Error | undefined, value: T) => void;

/** Of the native side: what carries exchanges between devices. */
export type CarrierHandle = object & { readonly brand?: 'carrier' };

/** A rank among those that join NCCL. */
export interface CarrierPlace {
  readonly id: Uint8Array;
  readonly device: number;
  readonly rank: number;
  readonly size: number;
  readonly timeout: number;
  /** Kept until it has joined. */
  readonly handle: CommunicatorHandle;
  /** Out: of use once all have joined. */
  carrier: CarrierHandle | undefined;
}

/**
 * What src/node/distributed.cc exports. Handles of `split`, `close` and `exchange` are MPI's. Calls
 * of a communicator are carried out in the order in which they are made.
 */
export interface NativeDistributed {
  /**
   * Before anything is opened: bytes of a rank that MPI is given at once, whether it is called by
   * one thread, as a library has it that allows for no more, and whether ranks of one machine share
   * memory. At any time: the protocol of calls, or 0 for this version's.
   */
  forTests(longestPiece: number, funneled: boolean, sharesMemory: boolean, protocol: number): void;
  /** Opens the library at `path`, or the launcher's for ''. Throws at once where there is none. */
  openMpi(path: string, timeout: number, done: Answer<MadeCommunicator & { engine: Engine }>): void;
  split(
    communicator: CommunicatorHandle,
    color: number,
    key: number,
    done: Answer<MadeCommunicator>,
  ): void;
  close(communicator: CommunicatorHandle, done: Answer<undefined>): void;
  exchange(
    communicator: CommunicatorHandle,
    toAll: boolean,
    bytes: Uint8Array,
    done: Answer<Uint8Array>,
  ): void;
  /** Opens the library of NCCL; throws where there is none. */
  openNccl(path: string): { readonly version: string; readonly library: string };
  /** What rank 0 gives the others. */
  ncclId(): Uint8Array;
  joinNccl(place: CarrierPlace, done: Done): Cancel;
  /** Once the communicator's earlier calls have ended. */
  closeNccl(
    communicator: CommunicatorHandle,
    carrier: CarrierHandle,
    done: Answer<undefined>,
  ): void;
  /** Ends MPI, where it was opened; where an exchange was given up, the job. */
  finalize(): void;
  /** Ends every process of the job. */
  abort(code: number): void;
  /** Of a transport of the caller's. */
  communicator(rank: number, size: number, timeout: number): MadeCommunicator;
  /** Takes part in the place of a call that was refused; with a callback, off this thread. */
  refuse(parallel: ParallelRequest, failure: string, done?: Done): void;
  /**
   * Fills `all` with `mine` of every rank: by its rank of data, then by its rank of sequence.
   * `about` must be the same on all.
   */
  gather(
    request: {
      readonly parallel: ParallelRequest;
      readonly about: string;
      readonly mine: Float64Array;
      readonly all: Float64Array;
    },
    done: Done,
  ): void;
  /** The same number in processes that compute with the same instructions and C library. */
  hardware(): number;
}

/**
 * Carries out an exchange by a transport of the caller's: `bytes` go to all, or, in pieces, one to
 * each rank. Calls `settle` once, with what went wrong or with what arrived.
 */
export type CarryTransfer = (
  toAll: boolean,
  bytes: Uint8Array,
  settle: (error: string | undefined, bytes?: Uint8Array) => void,
) => void;

export interface GroupRequest {
  readonly handle: CommunicatorHandle;
  /** Undefined: MPI. */
  readonly carry: CarryTransfer | undefined;
  /** Undefined: what is in device memory goes through the hosts. */
  readonly device: CarrierHandle | undefined;
}

interface ParallelRequestShape {
  /** Out: whether the other processes count on the call. */
  begun: boolean;
  /** Of vocab, sequence and data. */
  groups: readonly (GroupRequest | undefined)[];
  /** The batch's first column, in a vocabulary of so many words. */
  first: number;
  words: number;
  /** 0: none. */
  columnGrid: number;
  sumsHidden: boolean;
  nativeWire: boolean;
  /** Whose mean is the field `kl`, where that was not given as a number. */
  logRatios: Float64Array | undefined;
  /** Out, of an objective that sorts its batch: the losses of the whole batch. */
  losses: Float64Array | undefined;
}
export type ParallelRequest = Described<'parallel', ParallelRequestShape>;
