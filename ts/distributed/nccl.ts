/** NCCL: exchanges between the devices of processes that another communicator brings together. */
import { bytesOf } from '../batch/arrays.js';
import { checkDevice } from '../device/arguments.js';
import { availability } from '../device/status.js';
import { DirAlignError, distributedError, typeError } from '../errors.js';
import { checkObject, describe, messageOf, readProperties } from '../given.js';
import { answered, nativeError } from '../native/call.js';
import { native, type CarrierHandle, type CarrierPlace } from '../native/interface.js';
import {
  carriers,
  checkTimeout,
  defaultTimeout,
  exchangeBy,
  groupOf,
  type Communicator,
  type Engine,
  type NativeCommunicator,
} from './communicator.js';

/** Options of {@link nccl}. */
export interface NcclOptions {
  /** Index in `cuda.devices()` of the device whose tensors calls take; default 0. */
  readonly device?: number | undefined;
  /** Milliseconds that one exchange may take; default: that of `control`, or 10 minutes. */
  readonly timeout?: number | undefined;
  /**
   * The file of the NCCL library, 2.14 or later. Default: what the environment variable
   * DIRALIGN_NCCL names, or libnccl.so.2.
   */
  readonly library?: string | undefined;
}

interface CheckedOptions {
  readonly device: number;
  readonly timeout: number;
  readonly library: string;
}

function checkOptions(control: Communicator, options: NcclOptions): CheckedOptions {
  checkObject('options', options);
  const given = readProperties('options', options, ['device', 'timeout', 'library']);
  const { library = '' } = given;
  if (typeof library !== 'string')
    throw typeError('ERR_DIRALIGN_OPTION', `library: ${describe(library)} is not a string`);
  const timeout = checkTimeout('timeout', given.timeout ?? control.timeout ?? defaultTimeout);
  const { reason } = availability();
  if (reason !== undefined)
    throw typeError('ERR_DIRALIGN_BACKEND', `nccl: cuda is not available: ${reason}`);
  return { device: checkDevice(given.device ?? 0), timeout, library };
}

/**
 * What ranks tell each other before they join: 1 and the id of rank 0, or 0 and why this one
 * cannot.
 */
const idBytes = 128;
const textBytes = 255;

async function findId(control: Communicator, open: () => Uint8Array): Promise<Uint8Array> {
  const mine = new Uint8Array(1 + idBytes + textBytes);
  let failure: Error | undefined;
  try {
    mine.set(open(), 1);
    mine[0] = 1;
  } catch (error) {
    failure = error as Error;
    const text =
      error instanceof DirAlignError ? `${error.code}: ${error.message}` : messageOf(error);
    new TextEncoder().encodeInto(text, mine.subarray(1 + idBytes));
  }
  const all = await exchangeBy(control, false, mine).catch((cause: unknown) => {
    if (cause instanceof DirAlignError) throw cause;
    const text = `nccl: the transport failed: ${messageOf(cause)}`;
    throw distributedError('ERR_DIRALIGN_ENGINE', text, { cause });
  });
  if (failure !== undefined) throw failure;
  for (let rank = 0; rank < control.size; rank++) {
    const theirs = all.subarray(rank * mine.length, (rank + 1) * mine.length);
    if (theirs[0] === 1) continue;
    const text = new TextDecoder().decode(theirs.subarray(1 + idBytes)).replace(/\0+$/, '');
    throw distributedError(
      'ERR_DIRALIGN_PEER',
      `nccl: rank ${rank} of ${control.size} failed: ${text}`,
    );
  }
  return all.slice(1, 1 + idBytes);
}

class NcclCommunicator implements NativeCommunicator {
  readonly rank: number;
  readonly size: number;
  readonly timeout: number;
  readonly #control: Communicator;
  readonly #options: CheckedOptions;

  constructor(
    control: Communicator,
    readonly engine: Engine,
    options: CheckedOptions,
    carrier: CarrierHandle,
  ) {
    this.rank = control.rank;
    this.size = control.size;
    this.timeout = options.timeout;
    this.#control = control;
    this.#options = options;
    carriers.set(this, { control, carrier, device: options.device });
    Object.freeze(this);
  }
  async allGather(bytes: Uint8Array): Promise<Uint8Array> {
    return exchangeBy(this.#control, false, bytesOf('bytes', bytes));
  }
  async allToAll(bytes: Uint8Array): Promise<Uint8Array> {
    return exchangeBy(this.#control, true, bytesOf('bytes', bytes));
  }
  async split(color: number, key: number): Promise<NativeCommunicator> {
    const { split } = this.#control as Partial<NativeCommunicator>;
    if (typeof split !== 'function')
      throw typeError('ERR_DIRALIGN_OPTION', 'split: a transport of your own is not split by nccl');
    return nccl(await split.call(this.#control, color, key), this.#options);
  }
  async close(): Promise<void> {
    const { handle } = groupOf('control', this.#control);
    const place = carriers.get(this);
    if (!place) return;
    await new Promise<void>((resolve) => {
      native().distributed.closeNccl(handle, place.carrier, () => {
        resolve();
      });
    });
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/**
 * A communicator for tensors in device memory: NCCL carries sums of rows and the gradient of hidden
 * states from device to device, on the tensors' stream. `control` brings the ranks together, and
 * carries everything else, of host arrays all. Collective; closing it leaves `control` open.
 *
 * @param control every rank of it takes part.
 * @throws DirAlignError with code ERR_DIRALIGN_ENGINE where no library can be opened, or it fails,
 *   ERR_DIRALIGN_PEER where that is so for another rank, ERR_DIRALIGN_TIMEOUT where one does not
 *   come
 *
 * @example
 * const { data, vocab } = await layout(await mpi(), { data: 8, vocab: 8 });
 * const devices = await nccl(vocab, { device: vocab.rank });
 * const run = { parallel: { data, vocab: devices } };
 */
export async function nccl(
  control: Communicator,
  options: NcclOptions = {},
): Promise<NativeCommunicator> {
  const { handle } = groupOf('control', control);
  const { distributed } = native();
  let checked!: CheckedOptions;
  let about: { readonly version: string; readonly library: string } | undefined;
  const id = await findId(control, () => {
    checked = checkOptions(control, options); // what is refused here is told to the others, too
    try {
      about = distributed.openNccl(checked.library);
      return control.rank === 0 ? distributed.ncclId() : new Uint8Array(idBytes);
    } catch (cause) {
      throw nativeError(cause);
    }
  });
  const { rank, size } = control;
  const { device, timeout } = checked;
  const place: CarrierPlace = { id, device, rank, size, timeout, carrier: undefined, handle };
  await answered<boolean>((done) => {
    distributed.joinNccl(place, done);
  });
  const engine = Object.freeze({ name: 'NCCL', version: '', library: '', ...about });
  return new NcclCommunicator(control, engine, checked, place.carrier as CarrierHandle);
}
