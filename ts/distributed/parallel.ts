/** `run.parallel`: which processes have other parts of a call's batch. */
import { typeError, DirAlignError } from '../errors.js';
import { checkObject, describe, isRevoked, messageOf, readProperties } from '../given.js';
import { native, type ParallelRequest } from '../native/interface.js';
import { groupOf, isNative, type Communicator } from './communicator.js';

/** Who has what else of a batch. A rank is at the same place in every group of a call. */
export interface Parallel {
  /** The same rows and labels, other columns: `batch.shard` says which. */
  readonly vocab?: Communicator | undefined;
  /** The same sequences, other tokens of theirs. */
  readonly sequence?: Communicator | undefined;
  /** Other units: pairs, sequences or groups. */
  readonly data?: Communicator | undefined;
  /**
   * Columns that are summed as a unit, a multiple of 512; default: all that a rank has. With shards
   * that begin at multiples of it, results have the same bits for any number of ranks, one
   * included.
   */
  readonly columnGrid?: number | undefined;
  /**
   * Of `fromHidden` with `vocab`: `'sum'` (default), gradHidden is complete on every rank;
   * `'partial'`, it is that of the own columns, for a trainer that adds up itself.
   */
  readonly gradHidden?: 'sum' | 'partial' | undefined;
}

const axes = ['vocab', 'sequence', 'data'] as const;
const keys = [...axes, 'columnGrid', 'gradHidden'] as const;

/** The kernels sum blocks of so many columns. */
const blockColumns = 512;

/** A checked `run.parallel`, for one call. */
export interface CheckedParallel {
  /** The shard is not in it yet. */
  readonly request: ParallelRequest;
  /** Whether there are other ranks, or columns are summed in cells. */
  readonly isAsked: boolean;
}

/**
 * @param isLater whether the call is asynchronous.
 * @throws DirAlignError with code ERR_DIRALIGN_OPTION, which other ranks do not hear of: which they
 *   are is not known
 */
export function checkParallel(given: unknown, isLater: boolean): CheckedParallel {
  const request: ParallelRequest = {
    begun: false,
    groups: [undefined, undefined, undefined],
    first: 0,
    words: 0,
    columnGrid: 0,
    sumsHidden: true,
    logRatios: undefined,
    losses: undefined,
  };
  if (given === undefined) return { request, isAsked: false };
  checkObject('parallel', given);
  const read = readProperties('parallel', given, keys);
  const groups = axes.map((axis) =>
    read[axis] === undefined ? undefined : groupOf(`parallel.${axis}`, read[axis]),
  );
  const some = groups.filter((group) => group !== undefined);
  if (!isLater && !some.every(isNative))
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      'parallel: a synchronous call needs communicators of mpi(); with a transport of your own use the asynchronous one',
    );
  if (some.some(isNative) && !some.every(isNative))
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      'parallel: communicators of mpi() and of a transport of your own do not go together in a call',
    );
  request.groups = groups;
  request.columnGrid = checkColumnGrid(read.columnGrid);
  request.sumsHidden = checkGradHidden(read.gradHidden);
  return { request, isAsked: some.length > 0 || request.columnGrid > 0 };
}

function checkColumnGrid(grid: unknown): number {
  if (grid === undefined) return 0;
  if (Number.isSafeInteger(grid) && (grid as number) > 0 && (grid as number) % blockColumns === 0)
    return grid as number;
  throw typeError(
    'ERR_DIRALIGN_OPTION',
    `parallel.columnGrid: ${describe(grid)} is not a multiple of ${blockColumns}`,
  );
}

function checkGradHidden(how: unknown): boolean {
  if (how === undefined || how === 'sum') return true;
  if (how === 'partial') return false;
  throw typeError(
    'ERR_DIRALIGN_OPTION',
    `parallel.gradHidden: ${describe(how)} is not one of 'sum', 'partial'`,
  );
}

/** What the other ranks are told of a call that was refused here. */
function textOf(error: unknown): string {
  const isOurs = !isRevoked(error) && error instanceof DirAlignError;
  return isOurs ? `${error.code}: ${messageOf(error)}` : messageOf(error);
}

/** Whether others wait for a call that was not begun. */
function isAwaited({ request }: CheckedParallel): boolean {
  return !request.begun && request.groups.some((group) => group !== undefined);
}

/** Tells the other ranks of a call that was refused here before it began, and waits for them. */
export function tellNow(parallel: CheckedParallel, error: unknown): void {
  if (isAwaited(parallel)) native().distributed.refuse(parallel.request, textOf(error));
}

/**
 * The same off the event loop. It has its place in the order of the calls when this returns, and
 * the promise settles when the others know.
 */
export function tellLater(parallel: CheckedParallel | undefined, error: unknown): Promise<void> {
  if (!parallel || !isAwaited(parallel)) return Promise.resolve();
  return new Promise((resolve) => {
    native().distributed.refuse(parallel.request, textOf(error), () => {
      resolve();
    });
  });
}
