/** Who exchanges bytes with whom: the interface that a call needs, and what it makes of one. */
import { typeError } from '../errors.js';
import { describe, messageOf } from '../given.js';
import {
  native,
  type CarrierHandle,
  type CarryTransfer,
  type CommunicatorHandle,
  type GroupRequest,
} from '../native/interface.js';

/**
 * A place among processes that exchange bytes: those of {@link mpi}, or a transport of your own.
 * Calls use one communicator for one exchange after another, in the order in which the calls were
 * made, which must be the same on every rank. A transport adds nothing up: it moves bytes.
 *
 * @example
 * // Worker threads that talk through one port to whoever started them.
 * const communicator = {
 *   rank, size,
 *   allGather: (bytes) => new Promise((resolve) => {
 *     port.once('message', resolve);
 *     port.postMessage({ rank, bytes });
 *   }),
 * };
 */
export interface Communicator {
  /** This process: from 0 on. */
  readonly rank: number;
  /** How many there are. */
  readonly size: number;
  /** Milliseconds that one exchange may take; default 10 minutes. */
  readonly timeout?: number;
  /** The bytes of every rank, by rank, in one array; each rank gives as many. */
  allGather(bytes: Uint8Array): Promise<Uint8Array>;
  /**
   * `size` pieces of one length, of which piece r goes to rank r: resolves to what every rank had
   * for this one, by rank. For the sum of `gradHidden`; without it, `allGather` carries `size`
   * times as much.
   */
  allToAll?(bytes: Uint8Array): Promise<Uint8Array>;
}

/** A communicator of an engine, which synchronous calls may use, too. */
export interface NativeCommunicator extends Communicator, AsyncDisposable {
  readonly timeout: number;
  /** What carries the bytes. */
  readonly engine: Engine;
  allToAll(bytes: Uint8Array): Promise<Uint8Array>;
  /**
   * Collective: the ranks that give one color form a communicator, ordered by key, then by rank.
   * @throws DirAlignError with code ERR_DIRALIGN_OPTION for what is no whole number
   */
  split(color: number, key: number): Promise<NativeCommunicator>;
  /** Collective: frees it. */
  close(): Promise<void>;
}

/** A library that moves bytes. */
export interface Engine {
  /** `'MPI'` or `'NCCL'`. */
  readonly name: string;
  /** As the library says it. */
  readonly version: string;
  /** Of the three ABIs of MPI: which. */
  readonly abi?: string;
  /** The file that was opened. */
  readonly library: string;
}

/** Default of `timeout`: longer than any step of a trainer takes. */
export const defaultTimeout = 600_000;

/** @throws DirAlignError with code ERR_DIRALIGN_OPTION */
export function checkTimeout(what: string, timeout: unknown): number {
  if (Number.isInteger(timeout) && (timeout as number) >= 1 && (timeout as number) < 2 ** 31)
    return timeout as number;
  throw typeError(
    'ERR_DIRALIGN_OPTION',
    `${what}: ${describe(timeout)} is not a whole number of milliseconds from 1 to ${2 ** 31 - 1}`,
  );
}

/** @internal Handles of the native side: of its own communicators, and of those seen in a call. */
export const handles = new WeakMap<object, CommunicatorHandle>();
/** @internal Communicators of an engine. */
export const nativeOnes = new WeakSet();
/** @internal Those whose ranks' devices exchange by themselves. */
export const carriers = new WeakMap<
  object,
  { readonly control: Communicator; readonly carrier: CarrierHandle; readonly device: number }
>();

const mostRanks = 0xffff;

/** A communicator as native code takes it, with what is checked of it in ts/. */
export interface AxisGroup extends GroupRequest {
  readonly size: number;
  /** Of the tensors that calls with it take. */
  readonly deviceIndex?: number;
}

/** @throws DirAlignError with code ERR_DIRALIGN_OPTION */
export function groupOf(name: string, value: unknown): AxisGroup {
  const refuse = (why: string): never => {
    throw typeError('ERR_DIRALIGN_OPTION', `${name}: ${why}`);
  };
  if (typeof value !== 'object' || value === null)
    return refuse(`expected a communicator, not ${describe(value)}`);
  const own = carriers.get(value);
  if (own) return { ...groupOf(name, own.control), device: own.carrier, deviceIndex: own.device };
  const given = value as Partial<Communicator>;
  const { rank, size } = given;
  const known = handles.get(value);
  if (known && nativeOnes.has(value))
    return { handle: known, carry: undefined, device: undefined, size: size ?? 1 };
  if (!Number.isInteger(size) || (size as number) < 1 || (size as number) > mostRanks)
    return refuse(`its size, ${describe(size)}, is not a whole number from 1 to ${mostRanks}`);
  if (!Number.isInteger(rank) || (rank as number) < 0 || (rank as number) >= (size as number))
    return refuse(`its rank, ${describe(rank)}, is not a whole number from 0 to size - 1`);
  if (typeof given.allGather !== 'function') return refuse('has no function allGather');
  const timeout = checkTimeout(`${name}.timeout`, given.timeout ?? defaultTimeout);
  let handle = known;
  if (!handle) {
    ({ handle } = native().distributed.communicator(rank as number, size as number, timeout));
    handles.set(value, handle);
  }
  return {
    handle,
    carry: carryBy(given as Communicator),
    device: undefined,
    size: size as number,
  };
}

/** Whether synchronous calls may use it. */
export function isNative({ carry }: GroupRequest): boolean {
  return carry === undefined;
}

function carryBy(communicator: Communicator): CarryTransfer {
  return (toAll, bytes, settle) => {
    exchangeBy(communicator, toAll, bytes).then(
      (all) => {
        settle(undefined, all);
      },
      (error: unknown) => {
        settle(`the transport failed: ${messageOf(error)}`);
      },
    );
  };
}

/** @internal One exchange. */
export async function exchangeBy(
  communicator: Communicator,
  toAll: boolean,
  bytes: Uint8Array,
): Promise<Uint8Array> {
  if (toAll && communicator.allToAll !== undefined)
    return checkBytes('allToAll', await communicator.allToAll(bytes), bytes.length);
  const { rank, size } = communicator;
  const all = checkBytes('allGather', await communicator.allGather(bytes), size * bytes.length);
  if (!toAll) return all;
  const piece = bytes.length / size;
  const own = new Uint8Array(bytes.length);
  for (let r = 0; r < size; r++) {
    const from = r * bytes.length + rank * piece;
    own.set(all.subarray(from, from + piece), r * piece);
  }
  return own;
}

function checkBytes(name: string, value: unknown, length: number): Uint8Array {
  if (!(value instanceof Uint8Array))
    throw new TypeError(`${name} gave ${describe(value)}, expected a Uint8Array`);
  if (value.length === length) return value;
  throw new RangeError(`${name} gave ${value.length} bytes, expected ${length}`);
}
