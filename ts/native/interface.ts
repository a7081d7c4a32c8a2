import { contract, contractHash } from '../contract.generated.js';
import type { FieldArrays } from '../batch/fields.js';
import { loadAddon } from './load.js';
import type { DeviceInfo } from '../device/info.js';
import type { Engine } from '../distributed/communicator.js';

/** Of a request: its properties in the contract's order. */
export type Arguments = readonly unknown[];

/**
 * What src/node/addon.cc exports. Arrays were checked in ts/batch/; their kinds and lengths
 * are asked of the engine and checked against the request's numbers once more. Every property is
 * the request's own, so that nothing is looked up in Object.prototype.
 */
export interface Native {
  /** {@link contractHash} of the sources that it was built from. */
  readonly revision: string;
  /** JSON of the contract that ts/contract.generated.ts holds. */
  readonly contract: string;
  // Requests are those below, through ts/native/requests.ts.
  readonly loss: (...request: Arguments) => BadLabel | Cancel | undefined;
  readonly sequenceLogps: (...request: Arguments) => BadLabel | Cancel | undefined;
  readonly tokenLogps: (...request: Arguments) => BadLabel | Cancel | undefined;
  readonly logpsBackward: (...request: Arguments) => BadLabel | Cancel | undefined;
  readonly fromLogps: (...request: Arguments) => Cancel | undefined;
  /**
   * Index of the first of `views` that shares memory with `view`, judged by addresses; -1 where
   * none does.
   */
  firstOverlap(view: HostArray, ...views: readonly HostArray[]): number;
  /** `isa`: in use; `isas`: those that the processor runs, the best first. */
  cpuInfo(): {
    readonly isa: string;
    readonly isas: readonly string[];
    readonly threads: number;
  };
  /**
   * One pass of a plain loop over float32 on the kernels' thread pool: 0 reads `source`, 1 scales
   * `target` by 1, 2 copies.
   */
  memoryLoop(kind: 0 | 1 | 2, source: Float32Array, target: Float32Array, threads: number): void;
  /**
   * For benchmarks: handles of events that the next synchronous call on device data records right
   * before and after its work on the device.
   */
  timeNext(begin: bigint, end: bigint): void;
  readonly cuda: NativeCuda;
  readonly distributed: NativeDistributed;
}

/** Of the native side: whoever has it keeps the communicator. */
export type CommunicatorHandle = object & { readonly brand?: 'communicator' };

export interface MadeCommunicator {
  readonly rank: number;
  readonly size: number;
  readonly handle: CommunicatorHandle;
}

export type Answer<T> = (error: Error | undefined, value: T) => void;

/** Of the native side: what carries exchanges between devices. */
export type CarrierHandle = object & { readonly brand?: 'carrier' };

/** A rank among those that join NCCL. */
export interface CarrierPlace {
  readonly id: Uint8Array;
  readonly device: number;
  readonly rank: number;
  readonly size: number;
  readonly timeout: number;
  /** Kept until it has joined. */
  readonly handle: CommunicatorHandle;
  /** Out: of use once all have joined. */
  carrier: CarrierHandle | undefined;
}

/**
 * What src/node/distributed.cc exports. Handles of `split`, `close` and `exchange` are MPI's. Calls
 * of a communicator are carried out in the order in which they are made.
 */
export interface NativeDistributed {
  /**
   * Before anything is opened: bytes of a rank that go at once, and whether MPI is called by one
   * thread, as a library has it that allows for no more.
   */
  forTests(longestPiece: number, funneled: boolean): void;
  /** Opens the library at `path`, or the launcher's for ''. Throws at once where there is none. */
  openMpi(path: string, timeout: number, done: Answer<MadeCommunicator & { engine: Engine }>): void;
  split(
    communicator: CommunicatorHandle,
    color: number,
    key: number,
    done: Answer<MadeCommunicator>,
  ): void;
  close(communicator: CommunicatorHandle, done: Answer<undefined>): void;
  exchange(
    communicator: CommunicatorHandle,
    toAll: boolean,
    bytes: Uint8Array,
    done: Answer<Uint8Array>,
  ): void;
  /** Opens the library of NCCL; throws where there is none. */
  openNccl(path: string): { readonly version: string; readonly library: string };
  /** What rank 0 gives the others. */
  ncclId(): Uint8Array;
  joinNccl(place: CarrierPlace, done: Done): Cancel;
  /** Once the communicator's earlier calls have ended. */
  closeNccl(
    communicator: CommunicatorHandle,
    carrier: CarrierHandle,
    done: Answer<undefined>,
  ): void;
  /** Ends MPI, where it was opened; where an exchange was given up, the job. */
  finalize(): void;
  /** Ends every process of the job. */
  abort(code: number): void;
  /** Of a transport of the caller's. */
  communicator(rank: number, size: number, timeout: number): MadeCommunicator;
  /** Takes part in the place of a call that was refused; with a callback, off this thread. */
  refuse(parallel: ParallelRequest, failure: string, done?: Done): void;
  /**
   * Fills `all` with `mine` of every rank: by its rank of data, then by its rank of sequence.
   * `about` must be the same on all.
   */
  gather(
    request: {
      readonly parallel: ParallelRequest;
      readonly about: string;
      readonly mine: Float64Array;
      readonly all: Float64Array;
    },
    done: Done,
  ): void;
}

/**
 * Carries out an exchange by a transport of the caller's: `bytes` go to all, or, in pieces, one to
 * each rank. Calls `settle` once, with what went wrong or with what arrived.
 */
export type CarryTransfer = (
  toAll: boolean,
  bytes: Uint8Array,
  settle: (error: string | undefined, bytes?: Uint8Array) => void,
) => void;

export interface GroupRequest {
  readonly handle: CommunicatorHandle;
  /** Undefined: MPI. */
  readonly carry: CarryTransfer | undefined;
  /** Undefined: what is in device memory goes through the hosts. */
  readonly device: CarrierHandle | undefined;
}

interface ParallelRequestShape {
  /** Out: whether the other processes count on the call. */
  begun: boolean;
  /** Of vocab, sequence and data. */
  groups: readonly (GroupRequest | undefined)[];
  /** The batch's first column, in a vocabulary of so many words. */
  first: number;
  words: number;
  /** 0: none. */
  columnGrid: number;
  sumsHidden: boolean;
  nativeWire: boolean;
  /** Whose mean is the field `kl`, where that was not given as a number. */
  logRatios: Float64Array | undefined;
  /** Out, of an objective that sorts its batch: the losses of the whole batch. */
  losses: Float64Array | undefined;
}
export type ParallelRequest = Described<'parallel', ParallelRequestShape>;

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

type Contract = typeof contract;
/** The index of a name in one of the contract's lists. */
type IndexIn<List extends readonly string[]> = Readonly<Record<List[number], number>>;
function indices<const List extends readonly string[]>(list: List): IndexIn<List> {
  return Object.fromEntries(list.map((name, index) => [name, index])) as IndexIn<List>;
}

/**
 * Who computes: `cpu`; `staged`, a device, on host arrays that travel there in pieces; `device`, a
 * device, on data in its memory.
 */
export const Target = indices(contract.targets);
export type Target = number;

type Requests = Contract['requests'];
type Parts = Contract['parts'];
type PropertyOf<Name extends keyof Requests> =
  Requests[Name][number] | (Name extends keyof Parts ? Parts[Name][number] : never);
/** `Shape`, whose properties are those that the contract names: no others, and all of them. */
type Described<Name extends keyof Requests, Shape extends object> = [
  Exclude<keyof Shape, PropertyOf<Name>>,
  Exclude<PropertyOf<Name>, keyof Shape>,
] extends [never, never]
  ? Shape
  : never;

/**
 * Returned instead of a result when a label is outside [0, vocab) and not the ignore index; nothing
 * was written.
 */
export interface BadLabel {
  readonly sft: boolean;
  readonly row: number;
  readonly label: number;
}
export type Done = (error: Error | undefined, cancelled: boolean) => void;
export type Cancel = () => void;

/** Any array whose kind Node-API knows, which a Float16Array is not. */
export type HostArray = Float32Array | Float64Array | Int32Array | Uint16Array | Uint8Array;
/** A host array, 16-bit floats by their bits; a bigint is an address in device memory. */
export type Memory = Float32Array | Uint16Array | bigint;

export interface BatchRequest {
  target: Target;
  /** Where a device is the target. */
  device: number;
  stream: bigint;
  /** Undefined where the request has a layer. */
  logits: Memory | undefined;
  /** 0 float32, 1 float16, 2 bfloat16. */
  dtype: number;
  rows: number;
  vocab: number;
  rowStride: number;
  sequences: number;
  offsets: Int32Array | undefined;
  labels: Int32Array;
  sftLabels: Int32Array | undefined;
  /** Offsets of the units of a method of groups. */
  groups: Int32Array | undefined;
  /** Undefined where there are none. */
  fields: FieldArrays | undefined;
  logitScale: number;
  /** 0: none. */
  logitSoftcap: number;
  temperature: number;
  ignoreIndex: number;
  threads: number;
  /** Where other processes have parts of the batch. */
  parallel: ParallelRequest | undefined;
  /** Out, per sequence. */
  counts: Int32Array;
}
/** An output layer in place of logits; all in the batch's dtype. */
export interface LayerRequest {
  hidden: Memory;
  weight: Memory;
  bias: Memory | undefined;
  hiddenSize: number;
  /**
   * Bytes that the workspace may take; less than the least throws an error named WorkspaceTooSmall,
   * with the `bytes` needed.
   */
  memory: number;
  /** Out: one number, the bytes that it took. */
  memoryUsed: Float64Array;
}
export interface LayerGradientRequest {
  data: Memory;
  /** Whether it is added to what is there. */
  accumulate: boolean;
  /** Fresh memory, all 0. */
  zeroed: boolean;
}
export interface ObjectiveRequest {
  /** Of each loss of the mixture: its index in the catalogue. */
  methods: Int32Array;
  /** Of one loss after another, in the catalogue's order of settings. */
  settings: Float64Array;
  /** Of each loss: what multiplies it. */
  shares: Float64Array;
}
/** Of one loss of the mixture after another, but for the coefficients, which are those of all. */
export interface LossOutputs {
  losses: Float64Array;
  rewards: Float64Array;
  coefficients: Float64Array;
  /** In the catalogue's order of metrics. */
  metrics: Float64Array;
  /** The losses of the batch. */
  values: Float64Array;
}
/** Where gradients go, and what of them is wanted. */
interface GradientRequestShape {
  /** 0 none, 1 dense, 2 factored. */
  gradientMode: number;
  gradient: Memory | undefined;
  /** The last row of the gradient ends with its padding, or without. */
  gradientElements: number;
  gradientIsFresh: boolean;
  /** Multiplies every gradient; finite. */
  gradientScale: number;
  rowScale: Float32Array | undefined;
  /** With a layer: where its gradients go; undefined is left out. */
  layerGradients:
    Readonly<Record<'hidden' | 'weight' | 'bias', LayerGradientRequest | undefined>> | undefined;
}
export type GradientRequest = Described<'gradients', GradientRequestShape>;
/** What a call with a gradient has beside its batch. */
export interface Differentiated {
  layer: LayerRequest | undefined;
  gradients: GradientRequest;
}
interface LossRequestShape extends ObjectiveRequest, LossOutputs, Differentiated {
  batch: BatchRequest;
  reference: Float64Array | Float32Array | undefined;
  logps: Float64Array;
  /** A sum: 1 entropy, 2 mean_token_accuracy, 4 logits/chosen, 8 logits/rejected. */
  metricsAsked: number;
}
export type LossRequest = Described<'loss', LossRequestShape>;
interface BackwardRequestShape extends Differentiated {
  batch: BatchRequest;
  /** Derivatives by the log-probability of each row. */
  rows: Float64Array | Float32Array | undefined;
  /** In place of `rows`: by that of each sequence. */
  sequences: Float64Array | Float32Array | undefined;
  /** By the entropy of each row. */
  entropy: Float64Array | Float32Array | undefined;
  /** What `tokenLogps` found of the rows; all three, or none. */
  forwardLogps: Float64Array | undefined;
  forwardLogsumexp: Float64Array | undefined;
  forwardEntropy: Float64Array | undefined;
}
export type BackwardRequest = Described<'logpsBackward', BackwardRequestShape>;
export interface SequenceLogpsRequest {
  batch: BatchRequest;
  layer: LayerRequest | undefined;
  logps: Float64Array;
}
export interface TokenLogpsRequest {
  batch: BatchRequest;
  layer: LayerRequest | undefined;
  logps: Float64Array;
  logsumexp: Float64Array;
  entropy: Float64Array;
  collision: Float64Array | undefined;
}
interface FromLogpsRequestShape extends ObjectiveRequest, LossOutputs {
  sequences: number;
  logps: Float64Array | Float32Array;
  /** Scored tokens, or the sums of their weights. */
  counts: Float64Array;
  reference: Float64Array | Float32Array | undefined;
  groups: Int32Array | undefined;
  fields: FieldArrays | undefined;
  gradLogps: Float64Array;
  gradientScale: number;
  parallel: ParallelRequest | undefined;
}
export type FromLogpsRequest = Described<'fromLogps', FromLogpsRequestShape>;

let loaded: { readonly addon: Native; readonly file: string } | undefined;

/** The addon, loaded on first use: importing the package never throws and costs nothing. */
export function native(): Native {
  return (loaded ??= loadAddon(contractHash)).addon;
}

/** The file that {@link native} loaded. */
export function nativePath(): string {
  return (loaded ??= loadAddon(contractHash)).file;
}
