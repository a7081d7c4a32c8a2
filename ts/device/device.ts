/** Memory, streams and events of CUDA devices: what `cuda` (ts/device/cuda.ts) hands out. */
import { bytesOf, extentOf } from '../batch/arrays.js';
import { availability, nativeCuda } from './status.js';
import { AttachedArrays } from '../batch/detached.js';
import { cudaError, rangeError, typeError } from '../errors.js';
import { checkObject, describe, readProperties } from '../given.js';
import type { NativeCuda } from '../native/interface.js';
import type { Dtype } from '../types.js';

/**
 * A stream, or the handle (`cudaStream_t`) of one that another library made; 0n is the default
 * stream. 2n, `cudaStreamPerThread`, is another stream on every thread and refused.
 */
export type StreamLike = CudaStream | bigint;
/** An event, or the handle (`cudaEvent_t`) of one that another library made. */
export type EventLike = CudaEvent | bigint;

/** Which device. */
export interface DeviceOptions {
  /** Index in `cuda.devices()`; default 0. */
  readonly device?: number;
}
/** Which device, and in which order of work. */
export interface AllocOptions extends DeviceOptions {
  /**
   * What copies, and calls on tensors in this memory, are ordered on; default: the default stream.
   */
  readonly stream?: StreamLike;
}
/** A part of device memory, and in which order of work it is copied. */
export interface CopyOptions {
  /** Where in the device memory to begin, in bytes; default 0. */
  readonly offset?: number;
  /** Default: that of the memory. */
  readonly stream?: StreamLike;
}
/** Which bytes are set. */
export interface FillOptions extends CopyOptions {
  /** Default: to the end. */
  readonly byteLength?: number;
}
/** Where in a buffer a tensor lies. */
export interface TensorOptions {
  /** Where in the buffer it begins, in bytes; default 0. */
  readonly offset?: number;
  /** Default: that of the buffer. */
  readonly stream?: StreamLike;
}
/** What an event can tell. */
export interface EventOptions extends DeviceOptions {
  /** Whether it takes the time; default false. */
  readonly timing?: boolean;
}
/** Device memory that another library owns. */
export interface ForeignTensor extends AllocOptions {
  /** Its address. */
  readonly ptr: bigint | number;
  /** Of its elements. */
  readonly dtype: Dtype;
  /** From `ptr` to its end, where it is known. */
  readonly byteLength?: number;
}

/** Runs what calls CUDA; says what was being done where it fails. */
export function onDevice<T>(doing: string, action: (cuda: NativeCuda) => T): T {
  const cuda = nativeCuda();
  try {
    return action(cuda);
  } catch (cause) {
    throw cudaError(doing, cause);
  }
}

// ----------------------------------------------------------------------------------------------
// Arguments

/** The options of a call, each read once. */
export function readOptions<Options extends object>(
  options: Options,
  keys: readonly (keyof Options & string)[],
  name = 'options',
): Partial<Options> {
  checkObject(name, options);
  return readProperties(name, options, keys) as Partial<Options>;
}

/** @throws DirAlignError with code ERR_DIRALIGN_DEVICE */
export function checkDevice(device: unknown): number {
  const { devices } = availability();
  if (typeof device !== 'number')
    throw typeError('ERR_DIRALIGN_DEVICE', `device: expected a number, not ${describe(device)}`);
  if (!Number.isInteger(device) || device < 0 || device >= devices) {
    throw rangeError(
      'ERR_DIRALIGN_DEVICE',
      `device: there is no device ${device}; there are ${devices}, from 0`,
    );
  }
  return device;
}

function checkBytes(name: string, bytes: unknown): number {
  if (!Number.isSafeInteger(bytes) || (bytes as number) < 0) {
    const message = `${name}: ${describe(bytes)} is not a whole number of bytes`;
    throw typeof bytes === 'number'
      ? rangeError('ERR_DIRALIGN_SHAPE', message)
      : typeError('ERR_DIRALIGN_SHAPE', message);
  }
  return bytes as number;
}

/** An address or handle of 64 bits. */
function checkHandle(name: string, value: unknown): bigint {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return BigInt(value);
  if (typeof value !== 'bigint') {
    throw typeError('ERR_DIRALIGN_DEVICE', `${name}: expected a bigint, not ${describe(value)}`);
  }
  if (value < 0n || value > 0xffff_ffff_ffff_ffffn) {
    throw rangeError(
      'ERR_DIRALIGN_DEVICE',
      `${name}: ${value} is not an unsigned number of 64 bits`,
    );
  }
  return value;
}

export const elementBytes: Readonly<Record<Dtype, number>> = {
  float32: 4,
  float16: 2,
  bfloat16: 2,
};

function checkTensorDtype(dtype: unknown): Dtype {
  if (typeof dtype !== 'string' || !Object.hasOwn(elementBytes, dtype)) {
    throw typeError(
      'ERR_DIRALIGN_DTYPE',
      `dtype: ${describe(dtype)} is not one of 'float32', 'float16', 'bfloat16'`,
    );
  }
  return dtype as Dtype;
}

// ----------------------------------------------------------------------------------------------
// Lifetime

/**
 * What must be given back, and how many asynchronous calls still use it. The finalizer holds this,
 * and so must not hold its owner.
 */
interface Held {
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

/** Where nobody is left to be told of a failure. */
function freeQuietly(held: Held): void {
  try {
    freeNow(held);
  } catch {
    // CUDA fails here after an error that was reported by the call that caused it.
  }
}

function retain(held: Held): () => void {
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
      `${held.what} was collected before dispose() was called on it, and is freed now. Device memory and handles are dear and the ` +
        'collector is late: call dispose(), or declare it with `using`. This is said once.',
      { type: 'DirAlignWarning', code: 'DIRALIGN_LEAK' },
    );
  }
  held.disposed = true;
  freeQuietly(held);
});

const ordinaryHasInstance = Function.prototype[Symbol.hasInstance];

/**
 * Something outside the heap. `dispose` gives it back; a finalizer does, with a warning, where that
 * was forgotten.
 */
export abstract class Resource {
  readonly #held: Held;
  /** `dispose`, for `using`. */
  declare readonly [Symbol.dispose]: () => void;

  /** A Proxy around one, or an object that only has its class, holds nothing. */
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
    held.disposed = true;
    net.unregister(held);
    if (held.uses === 0) {
      try {
        freeNow(held);
      } catch (cause) {
        throw cudaError(`freeing ${held.what}`, cause);
      }
    }
  }

  /** @internal After a call that failed, whose error is the news. */
  discard(): void {
    try {
      this.dispose();
    } catch {
      // A device that failed does not take anything back either.
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
 * A realm of its own, for instance a vm context, has no Symbol.dispose on Node 20; `dispose` is
 * there in any case.
 */
function makeDisposable(prototype: { dispose(): void }): void {
  const symbol = (Symbol as { readonly dispose?: symbol }).dispose;
  if (symbol === undefined) return;
  const value = function (this: { dispose(): void }): void {
    this.dispose();
  };
  Object.defineProperty(prototype, symbol, { value, writable: true, configurable: true });
}
makeDisposable(Resource.prototype);

// ----------------------------------------------------------------------------------------------
// Streams and events

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
 * A stream as memory refers to it: the handle, and the object behind it where there is one, which
 * may be disposed of.
 */
interface StreamRef {
  readonly handle: bigint;
  readonly stream: CudaStream | undefined;
}

/**
 * cudaStreamPerThread: work and waiting may be on threads of ours, and each has another stream by
 * this handle.
 */
const perThreadStream = 2n;

export function checkStream(name: string, value: unknown, device: number): StreamRef {
  if (!(value instanceof CudaStream)) {
    const handle = checkHandle(name, value);
    if (handle !== perThreadStream) return { handle, stream: undefined };
    throw rangeError(
      'ERR_DIRALIGN_DEVICE',
      `${name}: 2 is cudaStreamPerThread, another stream on every thread; expected the handle of one stream`,
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

// ----------------------------------------------------------------------------------------------
// Memory

const release = (releases: readonly (() => void)[]) => () => {
  for (const one of releases) one();
};

const copyKeys = ['offset', 'stream'] as const;

/** A stretch of device memory: a buffer's, a part of it, or foreign. */
class Region {
  constructor(
    readonly ptr: bigint,
    readonly device: number,
    readonly stream: StreamRef,
    readonly byteLength: number | undefined,
    /** Keeps the memory. */
    readonly buffer: DeviceBuffer | undefined,
  ) {}

  /**
   * Refuses memory that was freed, is not where it should be, or is shorter than `bytes` from
   * `offset`.
   */
  check(name: string, offset: number, bytes: number): void {
    this.buffer?.alive(name);
    this.stream.stream?.alive(`${name}: its stream`);
    const { byteLength } = this;
    if (byteLength !== undefined && offset + bytes > byteLength) {
      const from = offset === 0 ? '' : ` from byte ${offset}`;
      throw rangeError(
        'ERR_DIRALIGN_SHAPE',
        `${name}: holds ${byteLength} bytes; expected at least ${bytes}${from}`,
      );
    }
    if (this.buffer === undefined && bytes > 0) this.inspect(name, offset + bytes);
  }

  private inspect(name: string, bytes: number): void {
    const { ptr, device } = this;
    const {
      kind,
      device: actual,
      base,
      bytes: size,
    } = onDevice(`${name}: asking what its address is`, (cuda) => cuda.inspect(ptr, bytes));
    const address = `0x${ptr.toString(16)}`;
    if (kind === 'unregistered' || kind === 'host') {
      const what =
        kind === 'host'
          ? 'is page-locked memory of the host'
          : 'is not in memory that CUDA has allocated, or was freed';
      throw rangeError(
        'ERR_DIRALIGN_DEVICE',
        `${name}: ${address} ${what}; expected memory of device ${device}`,
      );
    }
    // Managed memory goes to whatever device asks for it.
    if (kind === 'device' && actual !== device) {
      throw rangeError(
        'ERR_DIRALIGN_DEVICE',
        `${name}: ${address} is in memory of device ${actual}; expected device ${device}`,
      );
    }
    const rest = base === 0n ? Infinity : size - Number(ptr - base);
    if (rest < bytes) {
      throw rangeError(
        'ERR_DIRALIGN_DEVICE',
        `${name}: ${address} is ${rest} bytes from the end of its allocation; expected at least ${bytes}`,
      );
    }
  }

  /** Keeps the memory and its stream until the returned function is called. */
  retain(stream: StreamRef = this.stream): () => void {
    return release(
      [this.buffer, stream.stream].flatMap((resource) => (resource ? [resource.retain()] : [])),
    );
  }

  streamOf(given: StreamLike | undefined): StreamRef {
    return given === undefined ? this.stream : checkStream('stream', given, this.device);
  }

  copyFrom(name: string, source: unknown, options: CopyOptions): void {
    const given = readOptions(options, copyKeys);
    if (source instanceof DeviceBuffer || source instanceof DeviceTensor) {
      this.copyOnDevice(name, regionOf(source), given);
      return;
    }
    const { ptr, stream, host } = this.plan(name, 'source', source, given);
    onDevice(`copying ${host.byteLength} bytes to the device`, (cuda) => {
      if (host.byteLength > 0) cuda.copy(true, this.device, stream.handle, ptr, host);
    });
  }

  copyTo(name: string, target: unknown, options: CopyOptions): void {
    const { ptr, stream, host } = this.plan(name, 'target', target, readOptions(options, copyKeys));
    onDevice(`copying ${host.byteLength} bytes from the device`, (cuda) => {
      if (host.byteLength > 0) cuda.copy(false, this.device, stream.handle, ptr, host);
    });
  }

  async copyAsync(
    toDevice: boolean,
    name: string,
    array: unknown,
    options: CopyOptions,
  ): Promise<void> {
    const given = readOptions(options, copyKeys);
    const { ptr, stream, host } = this.plan(name, toDevice ? 'source' : 'target', array, given);
    if (host.byteLength === 0) return;
    const free = release([this.retain(stream), retainPinned([host])]);
    const arrays = new AttachedArrays({ [toDevice ? 'source' : 'target']: host });
    const doing = `copying ${host.byteLength} bytes ${toDevice ? 'to' : 'from'} the device`;
    try {
      await new Promise<void>((resolve, reject) => {
        nativeCuda().copy(toDevice, this.device, stream.handle, ptr, host, (error) => {
          if (error) reject(error);
          else resolve();
        });
      });
      arrays.check();
    } catch (cause) {
      throw cudaError(doing, cause);
    } finally {
      free();
    }
  }

  private plan(
    name: string,
    arrayName: string,
    array: unknown,
    { offset = 0, stream }: CopyOptions,
  ) {
    const host = bytesOf(arrayName, array);
    checkBytes('offset', offset);
    this.check(name, offset, host.byteLength);
    return { host, stream: this.streamOf(stream), ptr: this.ptr + BigInt(offset) };
  }

  private copyOnDevice(name: string, source: Region, { offset = 0, stream }: CopyOptions): void {
    checkBytes('offset', offset);
    const bytes = source.byteLength;
    if (bytes === undefined)
      throw typeError('ERR_DIRALIGN_SHAPE', 'source: its byteLength is not known');
    source.check('source', 0, bytes);
    this.check(name, offset, bytes);
    if (source.device !== this.device) {
      throw rangeError(
        'ERR_DIRALIGN_DEVICE',
        `source: it is on device ${source.device}; expected device ${this.device}`,
      );
    }
    const { handle } = this.streamOf(stream);
    onDevice(`copying ${bytes} bytes on the device`, (cuda) => {
      if (bytes > 0)
        cuda.copyOnDevice(this.device, handle, this.ptr + BigInt(offset), source.ptr, bytes);
    });
  }

  fill(name: string, byte: unknown, options: FillOptions): void {
    const given = readOptions(options, ['offset', 'stream', 'byteLength']);
    if (!Number.isInteger(byte) || (byte as number) < 0 || (byte as number) > 255) {
      throw rangeError(
        'ERR_DIRALIGN_OPTION',
        `byte: ${describe(byte)} is not a whole number from 0 to 255`,
      );
    }
    const offset = checkBytes('offset', given.offset ?? 0);
    const bytes = checkBytes(
      'byteLength',
      given.byteLength ?? Math.max(0, (this.byteLength ?? NaN) - offset),
    );
    this.check(name, offset, bytes);
    const { handle } = this.streamOf(given.stream);
    onDevice(`filling ${bytes} bytes on the device`, (cuda) => {
      if (bytes > 0)
        cuda.fill(this.device, handle, this.ptr + BigInt(offset), byte as number, bytes);
    });
  }
}

/** Any kind of array can be copied: what moves is bytes. */
type HostMemory = ArrayBufferView;

/**
 * Memory of a device. Made by `cuda.alloc`; freed by `dispose`, or by `using x =
 * cuda.alloc(bytes)`. An asynchronous call that uses it keeps it until the call settles.
 */
export class DeviceBuffer extends Resource {
  /** The address on the device. */
  readonly ptr: bigint;
  /** Bytes that were asked for. */
  readonly byteLength: number;
  /** Index of its device in `cuda.devices()`. */
  readonly device: number;
  /** Handle of the stream that copies and tensors are ordered on. */
  readonly stream: bigint;
  readonly #region: Region;

  /** @internal */
  constructor(byteLength: number, device: number, stream: StreamRef) {
    // Something to point at, where nothing is asked for.
    const bytes = Math.max(1, byteLength);
    const ptr = onDevice(`allocating ${byteLength} bytes on device ${device}`, (cuda) =>
      cuda.allocate(device, bytes),
    );
    super(`a DeviceBuffer of ${byteLength} bytes`, () => {
      nativeCuda().release(ptr, bytes);
    });
    this.ptr = ptr;
    this.byteLength = byteLength;
    this.device = device;
    this.stream = stream.handle;
    this.#region = new Region(ptr, device, stream, byteLength, this);
    Object.freeze(this);
  }

  /**
   * Copies from a host array of any type, or from memory of the same device. Done when it returns;
   * between device memories it is only enqueued.
   */
  copyFrom(source: HostMemory | DeviceBuffer | DeviceTensor, options: CopyOptions = {}): void {
    this.#region.copyFrom('buffer', source, options);
  }

  /** Fills a host array of any type, after the work enqueued so far. Done when it returns. */
  copyTo(target: HostMemory, options: CopyOptions = {}): void {
    this.#region.copyTo('buffer', target, options);
  }

  /**
   * As `copyFrom` does, off the event loop. The array belongs to the copy until the promise
   * settles.
   */
  copyFromAsync(source: HostMemory, options: CopyOptions = {}): Promise<void> {
    return this.#region.copyAsync(true, 'buffer', source, options);
  }

  /**
   * As `copyTo` does, off the event loop. The array belongs to the copy until the promise settles.
   */
  copyToAsync(target: HostMemory, options: CopyOptions = {}): Promise<void> {
    return this.#region.copyAsync(false, 'buffer', target, options);
  }

  /** Sets every byte; enqueued only. */
  fill(byte: number, options: FillOptions = {}): void {
    this.#region.fill('buffer', byte, options);
  }

  /**
   * Logits or a gradient in this memory, from `offset` to its end. It keeps the buffer from being
   * collected, not from `dispose`.
   */
  tensor(dtype: Dtype, options: TensorOptions = {}): DeviceTensor {
    this.alive('buffer');
    const given = readOptions(options, ['offset', 'stream']);
    checkTensorDtype(dtype);
    const offset = checkBytes('offset', given.offset ?? 0);
    this.#region.check('buffer', offset, 0);
    const stream = this.#region.streamOf(given.stream);
    const ptr = this.ptr + BigInt(offset);
    return new DeviceTensor(
      new Region(ptr, this.device, stream, this.byteLength - offset, this),
      dtype,
      undefined,
    );
  }

  /** @internal */
  get region(): Region {
    return this.#region;
  }
}

/**
 * Logits, or their gradient, in device memory: an address with a type, and the stream that the data
 * is ordered on. Made by `cuda.tensor` around memory of another library, by `buffer.tensor`, and by
 * calls that return a gradient. Immutable.
 */
export class DeviceTensor {
  /** The address on the device. */
  readonly ptr: bigint;
  /** Of its elements. */
  readonly dtype: Dtype;
  /** Index of its device in `cuda.devices()`. */
  readonly device: number;
  /**
   * Handle of the stream: calls on the tensor run after the work enqueued on it, and before later
   * work.
   */
  readonly stream: bigint;
  /** From `ptr` to the end; undefined where it is not known. */
  readonly byteLength: number | undefined;
  readonly #region: Region;
  readonly #owned: DeviceBuffer | undefined;
  /** `dispose`, for `using`. */
  declare readonly [Symbol.dispose]: () => void;

  /** A Proxy around a tensor, or an object that only has its class, is none. */
  static [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === 'object' && value !== null && #region in value;
  }

  /** @internal */
  constructor(region: Region, dtype: Dtype, owned: DeviceBuffer | undefined) {
    this.ptr = region.ptr;
    this.dtype = dtype;
    this.device = region.device;
    this.stream = region.stream.handle;
    this.byteLength = region.byteLength;
    this.#region = region;
    this.#owned = owned;
    Object.freeze(this);
  }

  /** As `DeviceBuffer` has it. */
  copyFrom(source: HostMemory | DeviceBuffer | DeviceTensor, options: CopyOptions = {}): void {
    this.#region.copyFrom('tensor', source, options);
  }

  /** As `DeviceBuffer` has it. */
  copyTo(target: HostMemory, options: CopyOptions = {}): void {
    this.#region.copyTo('tensor', target, options);
  }

  /** As `DeviceBuffer` has it. */
  copyFromAsync(source: HostMemory, options: CopyOptions = {}): Promise<void> {
    return this.#region.copyAsync(true, 'tensor', source, options);
  }

  /** As `DeviceBuffer` has it. */
  copyToAsync(target: HostMemory, options: CopyOptions = {}): Promise<void> {
    return this.#region.copyAsync(false, 'tensor', target, options);
  }

  /**
   * Whether the memory can no longer be used. Of foreign memory only its owner knows; then this is
   * false.
   */
  get disposed(): boolean {
    return this.#region.buffer?.disposed ?? false;
  }

  /**
   * Frees the memory of a gradient that a call allocated. Other tensors own none: then it does
   * nothing.
   */
  dispose(): void {
    this.#owned?.dispose();
  }

  /** @internal */
  get region(): Region {
    return this.#region;
  }
}
makeDisposable(DeviceTensor.prototype);

function regionOf(memory: DeviceBuffer | DeviceTensor): Region {
  return memory.region;
}

/** A tensor in memory of its own, where another one is. */
export function allocateLike(
  like: DeviceTensor,
  byteLength: number,
  dtype: Dtype = like.dtype,
): { tensor: DeviceTensor; buffer: DeviceBuffer } {
  const buffer = new DeviceBuffer(byteLength, like.device, like.region.stream);
  return { tensor: new DeviceTensor(buffer.region, dtype, buffer), buffer };
}

/** @throws DirAlignError with code ERR_DIRALIGN_BACKEND where CUDA is not available */
export function alloc(bytes: number, options: AllocOptions = {}): DeviceBuffer {
  nativeCuda();
  const given = readOptions(options, ['device', 'stream']);
  const device = checkDevice(given.device ?? 0);
  return new DeviceBuffer(
    checkBytes('bytes', bytes),
    device,
    checkStream('stream', given.stream ?? 0n, device),
  );
}

export function foreignTensor(tensor: ForeignTensor): DeviceTensor {
  nativeCuda();
  const init = readOptions(tensor, ['ptr', 'dtype', 'byteLength', 'device', 'stream'], 'tensor');
  const dtype = checkTensorDtype(init.dtype);
  const ptr = checkHandle('ptr', init.ptr);
  if (ptr === 0n)
    throw rangeError('ERR_DIRALIGN_DEVICE', 'ptr: expected an address in device memory, not 0');
  if (ptr % BigInt(elementBytes[dtype]) !== 0n) {
    throw rangeError(
      'ERR_DIRALIGN_DEVICE',
      `ptr: 0x${ptr.toString(16)} is not aligned to the ${elementBytes[dtype]} bytes of ${dtype}`,
    );
  }
  const device = checkDevice(init.device ?? 0);
  const stream = checkStream('stream', init.stream ?? 0n, device);
  const byteLength =
    init.byteLength === undefined ? undefined : checkBytes('byteLength', init.byteLength);
  return new DeviceTensor(new Region(ptr, device, stream, byteLength, undefined), dtype, undefined);
}

// ----------------------------------------------------------------------------------------------
// Host memory

/** By buffer, what of it is page-locked. */
const pinned = new WeakMap<ArrayBufferLike, Set<Held>>();

/** Keeps host memory page-locked that an asynchronous call uses. */
export function retainPinned(views: readonly (ArrayBufferView | undefined)[]): () => void {
  const all = new Set(
    views.flatMap((view) => (view ? [...(pinned.get(extentOf(view).buffer) ?? [])] : [])),
  );
  return release([...all].map(retain));
}

/**
 * A host array whose memory is page-locked, so that copies of it go at the full speed of the bus.
 * Made by `cuda.pin`. Do not transfer its buffer meanwhile.
 */
export class PinnedArray<A extends ArrayBufferView = ArrayBufferView> extends Resource {
  /** What was page-locked, and stays so until `dispose`. */
  readonly array: A;

  /** @internal */
  constructor(array: A) {
    const bytes = bytesOf('array', array);
    if (bytes.byteLength === 0)
      throw rangeError('ERR_DIRALIGN_SHAPE', 'array: there is nothing in it to page-lock');
    const address = onDevice(`page-locking ${bytes.byteLength} bytes`, (cuda) => cuda.pin(bytes));
    // The finalizer must find the memory in place: it holds the array.
    const { buffer } = bytes;
    super(`a PinnedArray of ${bytes.byteLength} bytes`, () => {
      pinned.get(buffer)?.delete(held);
      nativeCuda().unpin(address);
    });
    this.array = array;
    Object.freeze(this);
    const held = this.held as Held;
    pinned.set(buffer, (pinned.get(buffer) ?? new Set()).add(held));
  }
}
