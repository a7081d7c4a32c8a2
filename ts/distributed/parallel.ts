/** `run.parallel`: which processes have other parts of a call's batch. */
import { distributedError, typeError, DirAlignError } from '../errors.js';
import { checkObject, describe, isRevoked, messageOf, readProperties } from '../given.js';
import { answered } from '../native/call.js';
import { native, type ParallelRequest } from '../native/interface.js';
import { groupOf, isNative, type AxisGroup, type Communicator } from './communicator.js';
import { windowBehind, type OpenWindow, type Window } from './window.js';

/** Who has what else of a batch. A rank is at the same place in every group of a call. */
export interface Parallel {
  /** The same rows and labels, other columns: `batch.shard` says which. */
  readonly vocab?: Communicator | undefined;
  /** The same sequences, other tokens of theirs. */
  readonly sequence?: Communicator | undefined;
  /** Other units: pairs, sequences or groups. */
  readonly data?: Communicator | undefined;
  /**
   * In place of `data`: the loss, and its gradients, are this batch's share of those of a window,
   * which `objective.window` opened. Its `sequence` is the call's.
   */
  readonly window?: Window | undefined;
  /**
   * Columns that are summed as a unit, a multiple of 512, and on a device of 1024, or 2048 for
   * logits of 16 bits; default: all that a rank has. With shards that begin at multiples of it,
   * results have the same bits for any number of ranks, one included.
   */
  readonly columnGrid?: number | undefined;
  /**
   * Of `fromHidden` with `vocab`: `'sum'` (default), gradHidden is complete on every rank;
   * `'partial'`, it is that of the own columns, for a trainer that adds up itself.
   */
  readonly gradHidden?: 'sum' | 'partial' | undefined;
  /**
   * Of that sum: `'float32'` (default), what ranks send each other is rounded once, to float32;
   * `'native'`, to the dtype of the hidden states, which halves the bytes of 16 bits: each rank's
   * part and the sum are then rounded to it.
   */
  readonly wire?: 'float32' | 'native' | undefined;
}

export const axes = ['vocab', 'sequence', 'data'] as const;
const ofLogits = [...axes, 'window', 'columnGrid'] as const;
const keys = [...ofLogits, 'gradHidden', 'wire'] as const;

/** A call, and what of `parallel` means something to it; by default all. */
export interface Door<Key extends keyof Parallel = keyof Parallel> {
  readonly name: string;
  readonly keys: readonly Key[];
}

/** What calls on logits take of it: they have no hidden states. */
export type LogitsParallel = Omit<Parallel, 'gradHidden' | 'wire'>;
/** Of calls on logits. */
export const logitsDoor: Door = { name: 'a call on logits', keys: ofLogits };

/** Of vocab, sequence and data. */
export type Groups = readonly (AxisGroup | undefined)[];

/** The kernels sum blocks of so many columns. */
const blockColumns = 512;

/** A checked `run.parallel`, for one call. */
export interface CheckedParallel {
  /** The shard is not in it yet. */
  readonly request: ParallelRequest;
  /** Whether there are other ranks, or columns are summed in cells. */
  readonly isAsked: boolean;
  /** Whose share the call computes. */
  readonly window: OpenWindow | undefined;
  readonly groups: Groups;
}

/** Of one call: whether it has begun is said in it. */
export function requestOf(groups: Groups): ParallelRequest {
  return {
    begun: false,
    groups,
    first: 0,
    words: 0,
    columnGrid: 0,
    sumsHidden: true,
    nativeWire: false,
    logRatios: undefined,
    losses: undefined,
  };
}

/** @throws DirAlignError with code ERR_DIRALIGN_OPTION */
export function groupsOf(
  name: string,
  given: Readonly<Partial<Record<(typeof axes)[number], unknown>>>,
): Groups {
  const groups: (AxisGroup | undefined)[] = [];
  let transports = 0;
  let natives = 0;
  for (const axis of axes) {
    const group = given[axis] === undefined ? undefined : groupOf(`${name}.${axis}`, given[axis]);
    groups.push(group);
    if (group && isNative(group)) natives++;
    else if (group) transports++;
  }
  if (natives > 0 && transports > 0)
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `${name}: communicators of mpi() and of a transport of your own do not go together in a call`,
    );
  return groups;
}

/**
 * @param isLater whether the call is asynchronous.
 * @throws DirAlignError with code ERR_DIRALIGN_OPTION, which other ranks do not hear of: which they
 *   are is not known
 */
export function checkParallel(given: unknown, isLater: boolean, door?: Door): CheckedParallel {
  if (given === undefined) {
    const groups = [undefined, undefined, undefined];
    return { request: requestOf(groups), isAsked: false, window: undefined, groups };
  }
  checkObject('parallel', given);
  const read = readProperties('parallel', given, keys);
  for (const key of keys)
    if (door && read[key] !== undefined && !door.keys.includes(key))
      throw typeError('ERR_DIRALIGN_OPTION', `parallel.${key}: ${door.name} gives it no meaning`);
  const window = checkWindow(read.window, read.data);
  const groups = withSequence(groupsOf('parallel', read), window);
  if (!isLater && groups.some((group) => group && !isNative(group)))
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      'parallel: a synchronous call needs communicators of mpi(); ' +
        'with a transport of your own use the asynchronous one',
    );
  const request = requestOf(groups);
  request.columnGrid = checkColumnGrid(read.columnGrid);
  request.sumsHidden = checkOneOf('gradHidden', read.gradHidden, ['sum', 'partial']);
  request.nativeWire = !checkOneOf('wire', read.wire, ['float32', 'native']);
  if (read.wire !== undefined && (read.vocab === undefined || !request.sumsHidden))
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      'parallel.wire: only where ranks of vocab add gradHidden up, which gradHidden: ' +
        "'partial' leaves to others",
    );
  return {
    request,
    isAsked: request.columnGrid > 0 || groups.some((group) => group !== undefined),
    window,
    groups,
  };
}

function checkWindow(given: unknown, data: unknown): OpenWindow | undefined {
  if (given === undefined) return undefined;
  const window = windowBehind(given);
  if (!window)
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `parallel.window: expected what objective.window resolved to, not ${describe(given)}`,
    );
  if (data !== undefined)
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      'parallel.data: not together with window, inside of which nothing is exchanged over data',
    );
  if (!window.isFinished) return window;
  throw distributedError('ERR_DIRALIGN_WINDOW', 'parallel.window: it is finished');
}

/** With the ranks that have other tokens of a window's sequences. */
function withSequence(groups: Groups, window: OpenWindow | undefined): Groups {
  if (!window) return groups;
  const [vocab, sequence] = groups;
  const [, own] = window.groups;
  if (sequence && sequence.handle !== own?.handle)
    throw typeError('ERR_DIRALIGN_OPTION', 'parallel.sequence: the window was opened with another');
  return [vocab, own, undefined];
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

/** Whether the first of two words was meant, as it is where nothing is said. */
function checkOneOf(
  key: keyof Parallel,
  given: unknown,
  words: readonly [string, string],
): boolean {
  if (given === undefined || given === words[0]) return true;
  if (given === words[1]) return false;
  throw typeError(
    'ERR_DIRALIGN_OPTION',
    `parallel.${key}: ${describe(given)} is not one of '${words[0]}', '${words[1]}'`,
  );
}

/** What the other ranks are told of a call that was refused here. */
function textOf(error: unknown): string {
  const isOurs = !isRevoked(error) && error instanceof DirAlignError;
  return isOurs ? `${error.code}: ${messageOf(error)}` : messageOf(error);
}

/** Whether others wait for a call that was not begun. */
function isAwaited(request: ParallelRequest): boolean {
  return !request.begun && request.groups.some((group) => group !== undefined);
}

/** Tells the other ranks of a call that was refused here before it began, and waits for them. */
export function tellNow(request: ParallelRequest, error: unknown): void {
  if (isAwaited(request)) native().distributed.refuse(request, textOf(error));
}

/**
 * The same off the event loop. It has its place in the order of the calls when this returns, and
 * the promise settles when the others know.
 */
export function tellLater(request: ParallelRequest | undefined, error: unknown): Promise<void> {
  if (!request || !isAwaited(request)) return Promise.resolve();
  return new Promise((resolve) => {
    native().distributed.refuse(request, textOf(error), () => {
      resolve();
    });
  });
}

/** What every rank has in `mine`: by its rank of data, then by its rank of sequence. */
export async function gatherNumbers(
  groups: Groups,
  about: string,
  mine: Float64Array,
): Promise<readonly (readonly Float64Array[])[]> {
  const [, ofTokens = 1, ofUnits = 1] = groups.map((group) => group?.size);
  const { length } = mine;
  const all = new Float64Array(ofUnits * ofTokens * length);
  const request = { parallel: requestOf(groups), about, mine, all };
  await answered<boolean>((done) => {
    native().distributed.gather(request, done);
  });
  const ranks = Array.from({ length: ofUnits * ofTokens }, (_, r) =>
    all.subarray(r * length, (r + 1) * length),
  );
  return Array.from({ length: ofUnits }, (_, d) => ranks.slice(d * ofTokens, (d + 1) * ofTokens));
}
