import type { DeviceInfo } from '../device/info.js';
import type { Done } from './interface.js';

/**
 * What src/node/device.cc exports. In a build without CUDA, only `status` may be called. Addresses
 * and handles are bigints.
 */
export interface NativeCuda {
  status(): CudaStatus;
  /** Why output layers cannot be computed on a device, or ''. Loads the library that they need. */
  layerProblem(): string;
  device(index: number): Omit<DeviceInfo, 'freeMemory'>;
  freeMemory(index: number): number;
  /** How many blocks of each loss kernel a multiprocessor holds. */
  kernelResidency(index: number): readonly KernelResidency[];
  /** How many clusters of so many blocks run at a time. */
  clusterResidency(index: number): readonly ClusterResidency[];
  /**
   * The algorithms of cuBLASLt for an output layer's logits: offered, and of those the ones that
   * any number of rows may use.
   */
  layerAlgorithms(
    index: number,
    dtype: number,
    vocab: number,
    hidden: number,
  ): { readonly offered: number; readonly usable: number };
  allocate(device: number, bytes: number): bigint;
  /** `bytes` as they were allocated. */
  release(pointer: bigint, bytes: number): void;
  inspect(pointer: bigint, bytes: number): PointerInfo;
  /** The address, for `unpin`. */
  pin(memory: Uint8Array): bigint;
  unpin(address: bigint): void;
  copy(
    toDevice: boolean,
    device: number,
    stream: bigint,
    pointer: bigint,
    host: Uint8Array,
    done?: Done,
  ): void;
  copyOnDevice(device: number, stream: bigint, to: bigint, from: bigint, bytes: number): void;
  /** The yardstick of benchmarks: a plain copy kernel; addresses 16-byte aligned. Enqueued only. */
  copyKernel(device: number, stream: bigint, to: bigint, from: bigint, bytes: number): void;
  fill(device: number, stream: bigint, pointer: bigint, byte: number, bytes: number): void;
  createStream(device: number): bigint;
  destroyStream(stream: bigint): void;
  synchronize(device: number, stream: bigint): void;
  createEvent(device: number, timing: boolean): bigint;
  destroyEvent(event: bigint): void;
  record(device: number, event: bigint, stream: bigint): void;
  wait(device: number, stream: bigint, event: bigint): void;
  ended(device: number, event: bigint): boolean;
  synchronizeEvent(device: number, event: bigint): void;
  milliseconds(device: number, from: bigint, to: bigint): number;
}

export interface CudaStatus {
  readonly compiled: boolean;
  /** With machine code in this build, comma separated. */
  readonly architectures: string;
  /** With PTX, which later devices translate for themselves. */
  readonly ptx: string;
  /** 13000 is CUDA 13.0. */
  readonly runtime: number;
  /** The newest CUDA that the driver supports; 0 where none is installed. */
  readonly driver: number;
  /** cudaError_t of counting the devices. */
  readonly error: number;
  readonly errorText: string;
  readonly devices: number;
}

export interface KernelResidency {
  /** 0 float32, 1 float16, 2 bfloat16. */
  readonly logits: number;
  readonly gradient: number;
  /** 0 log-probabilities of sequences, 1 of tokens, 2 dense, 3 factored. */
  readonly pass: number;
  readonly blocks: number;
}

export interface ClusterResidency {
  /** 0 float32, 1 float16, 2 bfloat16. */
  readonly logits: number;
  readonly parts: number;
  /** 0: rows of so many parts are computed without clusters. */
  readonly clusters: number;
}

export interface PointerInfo {
  readonly kind: 'unregistered' | 'host' | 'device' | 'managed';
  readonly device: number;
  /**
   * The allocation around the address, or the mappings that follow one another there; 0n and 0
   * where unknown.
   */
  readonly base: bigint;
  readonly bytes: number;
}
