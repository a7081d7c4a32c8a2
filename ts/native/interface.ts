import { contract, contractHash } from '../contract.generated.js';
import type { FieldArrays } from '../batch/fields.js';
import type { NativeCuda } from './cuda.js';
import type { Described } from './described.js';
import type { NativeDistributed, ParallelRequest } from './distributed.js';
import { loadAddon } from './load.js';

export type * from './cuda.js';
export type * from './distributed.js';

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
    | Readonly<Record<'hidden' | 'weight' | 'bias', LayerGradientRequest | undefined>>
    | undefined;
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
