import { availability, hiddenReason, nativeCuda } from './status.js';
import { checkDevice, onDevice, readOptions, type DeviceOptions } from './arguments.js';
import {
  alloc,
  foreignTensor,
  type AllocOptions,
  type DeviceBuffer,
  type DeviceTensor,
  type ForeignTensor,
} from './memory.js';
import { PinnedArray } from './pinned.js';
import { checkStream, CudaEvent, CudaStream, type EventOptions } from './streams.js';
import { typeError } from '../errors.js';
import { describe } from '../given.js';
import type { DeviceInfo } from './info.js';

/** The CUDA backend: its devices, and their memory, streams and events. */
export interface Cuda {
  /** Whether there is a device that can be used. Never throws. */
  readonly available: boolean;
  /**
   * Why there is none: not in this build, no driver, a driver that is too old, no device; undefined
   * where there is one. Never throws.
   */
  readonly reason: string | undefined;
  /**
   * Why `fromHidden` cannot run on a device: CUDA itself, or cuBLASLt, which is loaded when this is
   * first read or needed; undefined where it can. Never throws.
   */
  readonly hiddenReason: string | undefined;
  /** The devices that can be used; empty where CUDA is not available. */
  devices(): readonly DeviceInfo[];
  /**
   * Allocates device memory. Dispose of it, or declare it with `using`: the collector frees what
   * was forgotten, late and with a warning (`DIRALIGN_LEAK`).
   *
   * @example
   * using x = cuda.alloc(logits.byteLength);
   * x.copyFrom(logits);
   * const logits = x.tensor('float32');
   * const { loss } = dpo({ logits, shape, labels, reference }, { inPlace: true });
   */
  alloc(bytes: number, options?: AllocOptions): DeviceBuffer;
  /**
   * Wraps device memory that another library owns, by its address. What the address is is checked
   * whenever it is used. The memory must stay until the call that uses it returns or its promise
   * settles; work that fills it must be enqueued on `stream`, or be done.
   */
  tensor(init: ForeignTensor): DeviceTensor;
  /** A new stream, that does not wait for the default stream. */
  stream(options?: DeviceOptions): CudaStream;
  /** A new event. */
  event(options?: EventOptions): CudaEvent;
  /**
   * Waits, blocking this thread, for the work of a stream; default: the default stream of device 0.
   */
  synchronize(options?: AllocOptions): void;
  /**
   * Page-locks a host array: its copies go faster, and overlap with other work. Costs a system call
   * per page; keep it.
   */
  pin<A extends ArrayBufferView>(array: A): PinnedArray<A>;
}

/**
 * CUDA on this machine. Reading it never throws, whatever is missing; {@link Cuda} has what it
 * offers.
 */
export const cuda: Cuda = Object.freeze({
  get available() {
    return availability().reason === undefined;
  },
  get reason() {
    return availability().reason;
  },
  get hiddenReason() {
    return hiddenReason();
  },
  devices() {
    const { devices } = availability();
    return Array.from({ length: devices }, (_, index) =>
      Object.freeze({
        ...onDevice(`asking for device ${index}`, (native) => native.device(index)),
        get freeMemory() {
          return onDevice(`asking for the memory of device ${index}`, (native) =>
            native.freeMemory(index),
          );
        },
      }),
    );
  },
  alloc,
  tensor: foreignTensor,
  stream(options: DeviceOptions = {}) {
    nativeCuda();
    const { device } = readOptions(options, ['device']);
    return new CudaStream(checkDevice(device ?? 0));
  },
  event(options: EventOptions = {}) {
    nativeCuda();
    const { device, timing = false } = readOptions(options, ['device', 'timing']);
    if (typeof timing !== 'boolean') {
      throw typeError('ERR_DIRALIGN_OPTION', `timing: ${describe(timing)} is not a boolean`);
    }
    return new CudaEvent(checkDevice(device ?? 0), timing);
  },
  synchronize(options: AllocOptions = {}) {
    nativeCuda();
    const { device = 0, stream = 0n } = readOptions(options, ['device', 'stream']);
    const { handle } = checkStream('stream', stream, checkDevice(device));
    onDevice('waiting for a stream', (native) => {
      native.synchronize(device, handle);
    });
  },
  pin<A extends ArrayBufferView>(array: A) {
    nativeCuda();
    return new PinnedArray(array);
  },
});
