/** A stretch of device memory: its checks and its copies. */
import { bytesOf } from '../batch/arrays.js';
import { AttachedArrays } from '../batch/detached.js';
import { cudaError, rangeError, typeError } from '../errors.js';
import { describe } from '../given.js';
import { checkBytes, onDevice, readOptions } from './arguments.js';
import { retainHost } from './holds.js';
import { release, type Resource } from './resource.js';
import { nativeCuda } from './status.js';
import { checkStream, type StreamLike, type StreamRef } from './streams.js';

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

const copyKeys = ['offset', 'stream'] as const;

/** A stretch of device memory: a buffer's, a part of it, or foreign. */
export class Region {
  constructor(
    readonly ptr: bigint,
    readonly device: number,
    readonly stream: StreamRef,
    readonly byteLength: number | undefined,
    /** Keeps the memory. */
    readonly buffer: Resource | undefined,
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
    // Managed memory moves to any device that asks for it.
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
        `${name}: ${address} is ${rest} bytes from the end of its allocation; ` +
          `expected at least ${bytes}`,
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
    const { ptr, stream, host } = this.plan(name, 'source', source, readOptions(options, copyKeys));
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
    const free = release([this.retain(stream), retainHost([host])]);
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

  copyFromRegion(name: string, source: Region, options: CopyOptions): void {
    const { offset = 0, stream } = readOptions(options, copyKeys);
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
