/** Streams and events. */
import { rangeError, typeError } from '../errors.js';
import { describe } from '../given.js';
import { checkHandle, type DeviceOptions, onDevice } from './arguments.js';
import { Resource } from './resource.js';
import { nativeCuda } from './status.js';

/**
 * A stream, or the handle (`cudaStream_t`) of one that another library made; 0n is the default
 * stream. 2n, `cudaStreamPerThread`, is another stream on every thread and refused.
 */
export type StreamLike = CudaStream | bigint;
/** An event, or the handle (`cudaEvent_t`) of one that another library made. */
export type EventLike = CudaEvent | bigint;

/** Which device an event is on, and whether it takes the time. */
export interface EventOptions extends DeviceOptions {
  /** Whether it takes the time; default false. */
  readonly timing?: boolean;
}

/**
 * A queue of work on one device: what is on it runs in order; streams run beside one another. Made
 * by `cuda.stream`.
 */
export class CudaStream extends Resource {
  /** The `cudaStream_t`. */
  readonly handle: bigint;
  /** Index of its device in `cuda.devices()`. */
  readonly device: number;

  /** @internal */
  constructor(device: number) {
    const handle = onDevice('creating a stream', (cuda) => cuda.createStream(device));
    super('a CudaStream', () => {
      nativeCuda().destroyStream(handle);
    });
    this.handle = handle;
    this.device = device;
    Object.freeze(this);
  }

  /** Waits, blocking this thread, for all work on the stream. Errors of that work surface here. */
  synchronize(): void {
    this.alive('stream');
    onDevice('waiting for a stream', (cuda) => {
      cuda.synchronize(this.device, this.handle);
    });
  }

  /** Makes later work of the stream wait for what the event recorded; this thread goes on. */
  wait(event: EventLike): void {
    this.alive('stream');
    const handle =
      event instanceof CudaEvent
        ? (event.alive('event'), event.handle)
        : checkHandle('event', event);
    onDevice('making a stream wait', (cuda) => {
      cuda.wait(this.device, this.handle, handle);
    });
  }

  /** Records the work enqueued so far in an event, a new one if none is given, and returns it. */
  record(event: CudaEvent = new CudaEvent(this.device, false)): CudaEvent {
    return event.record(this);
  }
}

/** A mark in a stream. Made by `cuda.event` or `stream.record`. */
export class CudaEvent extends Resource {
  /** The `cudaEvent_t`. */
  readonly handle: bigint;
  /** Index of its device in `cuda.devices()`. */
  readonly device: number;
  /** Whether it takes the time. */
  readonly timing: boolean;

  /** @internal */
  constructor(device: number, timing: boolean) {
    const handle = onDevice('creating an event', (cuda) => cuda.createEvent(device, timing));
    super('a CudaEvent', () => {
      nativeCuda().destroyEvent(handle);
    });
    this.handle = handle;
    this.device = device;
    this.timing = timing;
    Object.freeze(this);
  }

  /**
   * Marks the work enqueued on the stream so far (default: the default stream), and returns the
   * event.
   */
  record(stream: StreamLike = 0n): this {
    this.alive('event');
    const { handle } = checkStream('stream', stream, this.device);
    onDevice('recording an event', (cuda) => {
      cuda.record(this.device, this.handle, handle);
    });
    return this;
  }

  /** Whether the recorded work is done; true where nothing was recorded. */
  get ended(): boolean {
    this.alive('event');
    return onDevice('asking for an event', (cuda) => cuda.ended(this.device, this.handle));
  }

  /** Waits, blocking this thread, for the recorded work. */
  synchronize(): void {
    this.alive('event');
    onDevice('waiting for an event', (cuda) => {
      cuda.synchronizeEvent(this.device, this.handle);
    });
  }

  /** The time between two recorded and ended events that were made with `timing: true`. */
  millisecondsSince(earlier: CudaEvent): number {
    this.alive('event');
    if (!(earlier instanceof CudaEvent)) {
      throw typeError(
        'ERR_DIRALIGN_DEVICE',
        `earlier: expected a CudaEvent, not ${describe(earlier)}`,
      );
    }
    earlier.alive('earlier');
    if (!this.timing || !earlier.timing) {
      throw typeError(
        'ERR_DIRALIGN_DEVICE',
        'millisecondsSince: both events need { timing: true }',
      );
    }
    return onDevice('reading the time between events', (cuda) =>
      cuda.milliseconds(this.device, earlier.handle, this.handle),
    );
  }
}

/**
 * A reference to a stream: its handle, and the CudaStream behind it, if any, which may be disposed
 * of.
 */
export interface StreamRef {
  readonly handle: bigint;
  readonly stream: CudaStream | undefined;
}

/**
 * cudaStreamPerThread, which means another stream on every thread: we may enqueue and wait on
 * different ones.
 */
const perThreadStream = 2n;

export function checkStream(name: string, value: unknown, device: number): StreamRef {
  if (!(value instanceof CudaStream)) {
    const handle = checkHandle(name, value);
    if (handle !== perThreadStream) return { handle, stream: undefined };
    throw rangeError(
      'ERR_DIRALIGN_DEVICE',
      `${name}: 2 is cudaStreamPerThread, another stream on every thread; ` +
        'expected the handle of one stream',
    );
  }
  value.alive(name);
  if (value.device !== device) {
    throw rangeError(
      'ERR_DIRALIGN_DEVICE',
      `${name}: it is of device ${value.device}; expected one of device ${device}`,
    );
  }
  return { handle: value.handle, stream: value };
}
