/** Memory of CUDA devices, and tensors in it. */
import { type Dtype, elementBytes } from '../dtype.js';
import { rangeError } from '../errors.js';
import {
  checkBytes,
  checkDevice,
  checkHandle,
  checkTensorDtype,
  type DeviceOptions,
  onDevice,
  readOptions,
} from './arguments.js';
import { type CopyOptions, type FillOptions, Region } from './region.js';
import { makeDisposable, Resource } from './resource.js';
import { nativeCuda } from './status.js';
import { checkStream, type StreamLike, type StreamRef } from './streams.js';

/** Which device, and in which order of work. */
export interface AllocOptions extends DeviceOptions {
  /**
   * What copies, and calls on tensors in this memory, are ordered on; default: the default stream.
   */
  readonly stream?: StreamLike;
}
/** Where in a buffer a tensor lies. */
export interface TensorOptions {
  /** Where in the buffer it begins, in bytes; default 0. */
  readonly offset?: number;
  /** Default: that of the buffer. */
  readonly stream?: StreamLike;
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
    copyFrom(this.#region, 'buffer', source, options);
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
    copyFrom(this.#region, 'tensor', source, options);
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

function copyFrom(region: Region, name: string, source: unknown, options: CopyOptions): void {
  if (source instanceof DeviceBuffer || source instanceof DeviceTensor)
    region.copyFromRegion(name, source.region, options);
  else region.copyFrom(name, source, options);
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
