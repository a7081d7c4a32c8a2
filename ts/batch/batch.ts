import { types } from 'node:util';
import {
  allocate,
  checkArray,
  checkLength,
  extentOf,
  isFloat16Array,
  plain,
  tagOf,
  unshared,
  type Kind,
} from './arrays.js';
import { availability } from '../device/status.js';
import { DeviceTensor } from '../device/memory.js';
import { elementBytes, type Dtype } from '../dtype.js';
import { rangeError, typeError, type DirAlignError } from '../errors.js';
import { checkObject, describe, isArray, readElements, readProperties, written } from '../given.js';
import {
  native,
  Target,
  type BadLabel,
  type BatchRequest,
  type HostArray,
  type Memory,
} from '../native/interface.js';
import type { BatchRows, HiddenBatch, Logits, LogitsArray, LogitsBatch } from './types.js';

const dtypes: readonly Dtype[] = ['float32', 'float16', 'bfloat16'];
/** More threads than this are a mistake rather than a machine. */
const maxThreads = 1024;

let hardwareThreads: number | undefined;

/** @throws DirAlignError with code ERR_DIRALIGN_OPTION */
export function checkThreads(threads: number | undefined): number {
  if (threads === undefined) return (hardwareThreads ??= native().cpuInfo().threads);
  if (!Number.isInteger(threads) || threads < 1 || threads > maxThreads) {
    throw rangeError(
      'ERR_DIRALIGN_OPTION',
      `threads: ${describe(threads)} is not a whole number from 1 to ${maxThreads}`,
    );
  }
  return threads;
}

/** The raw bits of a float16 array, or the array itself. */
export function rawArray(data: LogitsArray): Float32Array | Uint16Array {
  if (!isFloat16Array(data)) return data;
  const { buffer, byteOffset, byteLength } = extentOf(data);
  return new Uint16Array(buffer as ArrayBuffer, byteOffset, byteLength / 2);
}

/** What native code takes: the address of a tensor, or an array of a kind that Node-API knows. */
export function rawMemory(data: Logits): Memory {
  return data instanceof DeviceTensor ? data.ptr : rawArray(data);
}

// ----------------------------------------------------------------------------------------------
// Reading

const batchKeys = [
  'logits',
  'rowStride',
  'hidden',
  'weight',
  'bias',
  'hiddenSize',
  'dtype',
  'shape',
  'offsets',
  'labels',
  'ignoreIndex',
  'reference',
  'sftLabels',
] as const;
/** What `collatePairs` returns beside labels and offsets. */
const collated: ReadonlySet<string> = new Set([
  'sequences',
  'tokens',
  'rows',
  'inputIds',
  'attentionMask',
]);
const ofLayers = ['hidden', 'weight', 'bias', 'hiddenSize'] as const;
const ofLogits = ['logits', 'rowStride'] as const;

/** A batch of either kind, each property read once. What the properties hold is not checked yet. */
export type GivenBatch = Readonly<Record<(typeof batchKeys)[number], unknown>>;

/** @throws DirAlignError for what is no object, or has properties that no batch has */
export function readBatch(
  batch: unknown,
  expected = 'an object with logits, shape and labels',
): GivenBatch {
  checkObject('batch', batch, 'ERR_DIRALIGN_SHAPE', expected);
  const given = readProperties('batch', batch, batchKeys, 'ERR_DIRALIGN_SHAPE', collated);
  given.shape = readElements(given.shape, 4); // as many as tell that there are too many
  return given;
}

/** Whether it is one of hidden states, where either kind will do. */
export function isHidden(batch: GivenBatch): boolean {
  return batch.logits === undefined && ofLayers.some((name) => batch[name] !== undefined);
}

export function asLogitsBatch(batch: GivenBatch): LogitsBatch<Logits> {
  const other = ofLayers.find((name) => batch[name] !== undefined);
  if (other !== undefined) {
    const advice = 'a batch of hidden states goes to fromHidden';
    throw typeError('ERR_DIRALIGN_SHAPE', `${other}: a batch of logits has none; ${advice}`);
  }
  return batch as unknown as LogitsBatch<Logits>;
}

export function asHiddenBatch(batch: GivenBatch): HiddenBatch<Logits> {
  const other = ofLogits.find((name) => batch[name] !== undefined);
  if (other !== undefined) {
    const why =
      other === 'logits'
        ? 'a batch of hidden states has none; they are what is never made'
        : 'hidden states have none; rows of hidden and weight follow one another without gaps';
    throw typeError('ERR_DIRALIGN_SHAPE', `${other}: ${why}`);
  }
  return batch as unknown as HiddenBatch<Logits>;
}

// ----------------------------------------------------------------------------------------------
// Checking

export type Backend = 'auto' | 'cpu' | 'cuda';

/** @throws DirAlignError for a backend that does not exist, or is not available */
export function checkBackend(backend: unknown): Backend {
  if (backend === 'cuda') {
    const { reason } = availability();
    if (reason !== undefined)
      throw typeError('ERR_DIRALIGN_BACKEND', `backend: 'cuda' is not available: ${reason}`);
    return backend;
  }
  if (backend !== 'auto' && backend !== 'cpu') {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `backend: ${describe(backend)} is not one of 'auto', 'cpu', 'cuda'`,
    );
  }
  return backend;
}

function targetOf(backend: Backend, name: string, data: Logits): Target {
  if (!(data instanceof DeviceTensor)) return backend === 'cuda' ? Target.staged : Target.cpu;
  if (backend === 'cpu') {
    throw typeError(
      'ERR_DIRALIGN_BACKEND',
      `backend: 'cpu' does not read ${name} in device memory; leave backend out, or copy them to a host array`,
    );
  }
  return Target.device;
}

/** Refuses what is meant as an address in device memory and is no DeviceTensor. */
function checkAddress(name: string, data: unknown): void {
  // What has its own kind, or answers by code of the caller's, is refused by its kind.
  if (typeof data !== 'object' || data === null || ArrayBuffer.isView(data) || types.isProxy(data))
    return;
  if (!('ptr' in data)) return;
  const { reason } = availability();
  if (reason !== undefined) {
    throw typeError(
      'ERR_DIRALIGN_BACKEND',
      `${name}: device memory needs the CUDA backend, which is not available: ${reason}`,
    );
  }
  throw typeError(
    'ERR_DIRALIGN_DTYPE',
    `${name}: expected an array or a DeviceTensor, not ${describe(data)}; make one by cuda.tensor`,
  );
}

/** The dtype of the batch's data, as the data implies or `dtype` says. */
function checkDtype(name: string, data: Logits, dtype: Dtype | undefined): Dtype {
  if (dtype !== undefined && !dtypes.includes(dtype)) {
    throw typeError(
      'ERR_DIRALIGN_DTYPE',
      `dtype: ${describe(dtype)} is not one of 'float32', 'float16', 'bfloat16'`,
    );
  }
  if (data instanceof DeviceTensor) {
    if (dtype !== undefined && dtype !== data.dtype) {
      throw typeError(
        'ERR_DIRALIGN_DTYPE',
        `dtype: '${dtype}' does not fit ${name} in a DeviceTensor of ${data.dtype}`,
      );
    }
    return data.dtype;
  }
  checkAddress(name, data);
  const kind = tagOf(data);
  checkArray(name, data, ['Float32Array', 'Uint16Array', 'Float16Array'], 'ERR_DIRALIGN_DTYPE');
  const implied =
    kind === 'Float16Array' ? 'float16' : kind === 'Float32Array' ? 'float32' : undefined;
  if (implied === undefined) {
    if (dtype === 'float16' || dtype === 'bfloat16') return dtype;
    throw typeError(
      'ERR_DIRALIGN_DTYPE',
      `dtype: a Uint16Array holds 'float16' or 'bfloat16' bits; say which (given: ${describe(dtype)})`,
    );
  }
  if (dtype !== undefined && dtype !== implied) {
    throw typeError('ERR_DIRALIGN_DTYPE', `dtype: '${dtype}' does not fit ${name} in a ${kind}`);
  }
  return implied;
}

const hostTypes: Readonly<Record<Dtype, readonly Kind[]>> = {
  float32: ['Float32Array'],
  float16: ['Uint16Array', 'Float16Array'],
  bfloat16: ['Uint16Array'],
};

/**
 * Data that goes with other data: of this dtype, and on the host or on the device and stream, as
 * that is.
 */
export function checkLike(
  name: string,
  value: unknown,
  dtype: Dtype,
  likeName: string,
  like: Logits,
): Logits {
  if (!(like instanceof DeviceTensor)) {
    if (value instanceof DeviceTensor) {
      throw typeError(
        'ERR_DIRALIGN_DTYPE',
        `${name}: expected an array, as ${likeName} is, not a DeviceTensor`,
      );
    }
    checkAddress(name, value);
    return checkArray(name, value, hostTypes[dtype], 'ERR_DIRALIGN_DTYPE') as LogitsArray;
  }
  if (!(value instanceof DeviceTensor)) {
    throw typeError(
      'ERR_DIRALIGN_DTYPE',
      `${name}: expected a DeviceTensor, as ${likeName} is, not ${describe(value)}`,
    );
  }
  if (value.dtype !== dtype) {
    throw typeError(
      'ERR_DIRALIGN_DTYPE',
      `${name}: its dtype is ${value.dtype}; expected ${dtype}`,
    );
  }
  for (const key of ['device', 'stream'] as const) {
    if (value[key] !== like[key]) {
      throw typeError(
        'ERR_DIRALIGN_DEVICE',
        `${name}: its ${key} is ${value[key]}; expected that of ${likeName}, ${like[key]}`,
      );
    }
  }
  return value;
}

/** So many elements: an array has exactly these, a tensor at least. */
export function checkElements(name: string, data: Logits, elements: number, of: string): void {
  if (data instanceof DeviceTensor) checkTensor(name, data, elements);
  else checkLength(name, data.length, elements, of);
}

export interface Layout {
  readonly sequences: number;
  readonly rows: number;
  readonly vocab: number;
  /** Of a packed batch; nobody else can write to them. */
  readonly offsets: Int32Array | undefined;
}

const maxEmptySequences = 2 ** 16;

function checkShape(batch: BatchRows): Layout {
  const shape: unknown = batch.shape;
  if (!isArray(shape) || !shape.every((n) => Number.isSafeInteger(n) && (n as number) >= 0)) {
    throw typeError(
      'ERR_DIRALIGN_SHAPE',
      `shape: expected [sequences, tokens, vocab] or [rows, vocab] of whole numbers, not ${isArray(shape) ? written(shape) : describe(shape)}`,
    );
  }
  const dimensions = shape as number[];
  const vocab = dimensions.at(-1) ?? 0;
  if (dimensions.length !== 2 && dimensions.length !== 3) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `shape: ${String(dimensions.length)} dimensions; expected 3 (padded) or 2 (packed)`,
    );
  }
  if (vocab < 1 || vocab > 0x7fffffff) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `shape: vocab is ${String(vocab)}; expected 1 to 2147483647`,
    );
  }
  if (dimensions.length === 3) {
    if (batch.offsets !== undefined) {
      throw typeError(
        'ERR_DIRALIGN_SHAPE',
        'offsets: only packed batches, of shape [rows, vocab], have them',
      );
    }
    const [sequences = 0, tokens = 0] = dimensions;
    // No array of the caller stands for sequences without tokens: a few are an edge, millions are a
    // mistake.
    if (tokens === 0 && sequences > maxEmptySequences) {
      throw rangeError(
        'ERR_DIRALIGN_SHAPE',
        `shape: ${sequences} sequences of no tokens; expected at most ${maxEmptySequences} of them`,
      );
    }
    return { sequences, rows: sequences * tokens, vocab, offsets: undefined };
  }
  // More often a shape that lacks a dimension than a packed batch that lacks its offsets.
  if (batch.offsets === undefined) {
    throw typeError(
      'ERR_DIRALIGN_SHAPE',
      `offsets: undefined; expected an Int32Array, as shape ${written(dimensions)} is that of packed rows, or a shape of [sequences, tokens, vocab]`,
    );
  }
  const rows = dimensions[0] ?? 0;
  const offsets = checkOffsets(batch.offsets, rows);
  return { sequences: offsets.length - 1, rows, vocab, offsets };
}

function checkOffsets(value: unknown, rows: number): Int32Array {
  const offsets = unshared(checkArray('offsets', value, ['Int32Array'], 'ERR_DIRALIGN_SHAPE'));
  const last = offsets[offsets.length - 1];
  if (offsets.length < 1 || offsets[0] !== 0 || last !== rows) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `offsets: goes from ${String(offsets[0])} to ${String(last)}; expected 0 to rows, ${String(rows)}`,
    );
  }
  for (let i = 1; i < offsets.length; i++) {
    if ((offsets[i] as number) < (offsets[i - 1] as number)) {
      throw rangeError('ERR_DIRALIGN_SHAPE', `offsets: decreases at index ${String(i)}`);
    }
  }
  return offsets;
}

type Rows = Pick<BatchRequest, 'rows' | 'rowStride' | 'vocab'>;

function checkRowStride(rowStride: number, vocab: number): number {
  if (Number.isSafeInteger(rowStride) && rowStride >= vocab) return rowStride;
  throw rangeError(
    'ERR_DIRALIGN_SHAPE',
    `rowStride: ${describe(rowStride)} is not a whole number of at least vocab, ${vocab}`,
  );
}

/** Elements from the first row to the end of the last one's vocabulary. */
function neededElements({ rows, rowStride, vocab }: Rows): number {
  return rows === 0 ? 0 : (rows - 1) * rowStride + vocab;
}

/**
 * Elements of logits or a gradient in device memory that belong to the batch. A tensor may be
 * longer than the batch; it ends with the padding of the last row where it is known to hold it.
 */
export function tensorElements(tensor: DeviceTensor, layout: Rows): number {
  const full = layout.rows * layout.rowStride;
  return (tensor.byteLength ?? 0) >= full * elementBytes[tensor.dtype]
    ? full
    : neededElements(layout);
}

function checkTensor(name: string, tensor: DeviceTensor, elements: number): void {
  tensor.region.check(name, 0, elements * elementBytes[tensor.dtype]);
  if (tensor.ptr % BigInt(elementBytes[tensor.dtype]) !== 0n) {
    throw rangeError(
      'ERR_DIRALIGN_DEVICE',
      `${name}: 0x${tensor.ptr.toString(16)} is not aligned to an element of ${tensor.dtype}`,
    );
  }
}

function checkLogitsLength(logits: LogitsArray, { rows, rowStride, vocab }: Rows): void {
  const full = rows * rowStride;
  const { length } = logits;
  // The last row may come without its padding.
  if (length !== full && !(rows > 0 && length === neededElements({ rows, rowStride, vocab }))) {
    const what = `${rows} rows of ${rowStride === vocab ? 'vocab' : 'rowStride'} ${rowStride}`;
    throw rangeError('ERR_DIRALIGN_SHAPE', `logits: length ${length}; expected ${full}, ${what}`);
  }
}

/** A launch numbers its work, at most two pieces of at least 8192 logits a row, in 32 bits. */
function checkLaunchSize({ rows, vocab }: Rows): void {
  const pieces = 2 * rows * Math.ceil(vocab / 8192);
  if (pieces >= 2 ** 31) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `shape: ${String(rows)} rows of ${String(vocab)} are more than one CUDA launch takes; split the batch`,
    );
  }
}

/**
 * A batch whose data has a dtype, a place and a shape that fit together; its length is not checked
 * yet.
 */
export interface Outline {
  readonly name: string;
  readonly data: Logits;
  readonly dtype: Dtype;
  readonly target: Target;
  readonly layout: Layout;
}

/** `name`: what the batch holds its data as. */
export function checkOutline(
  name: string,
  data: Logits,
  batch: BatchRows,
  backend: Backend,
): Outline {
  const dtype = checkDtype(name, data, batch.dtype);
  const own =
    data instanceof DeviceTensor ? data : (plain(tagOf(data) as Kind, data) as LogitsArray);
  return {
    name,
    data: own,
    dtype,
    target: targetOf(backend, name, data),
    layout: checkShape(batch),
  };
}

/**
 * Checks the rest of what every batch has, but for the label values, which the native side looks at
 * once.
 */
export function checkRows(
  { data, dtype, target, layout }: Outline,
  batch: BatchRows,
  threads: number | undefined,
): BatchRequest {
  const { rows, vocab, sequences, offsets } = layout;
  const labels = checkLabels('labels', batch.labels, rows);
  const ignoreIndex: unknown = batch.ignoreIndex ?? -100;
  if (typeof ignoreIndex !== 'number' || (ignoreIndex | 0) !== ignoreIndex) {
    throw rangeError(
      'ERR_DIRALIGN_LABEL',
      `ignoreIndex: ${describe(ignoreIndex)} is not a 32-bit integer`,
    );
  }
  return {
    target,
    device: data instanceof DeviceTensor ? data.device : 0,
    stream: data instanceof DeviceTensor ? data.stream : 0n,
    logits: undefined,
    dtype: dtypes.indexOf(dtype),
    rows,
    vocab,
    rowStride: vocab,
    sequences,
    offsets,
    labels,
    sftLabels: undefined,
    ignoreIndex,
    threads: checkThreads(threads),
    counts: allocate('counts', 'Int32Array', sequences),
  };
}

/** A batch of logits, and its logits as a plain array or a tensor. @throws DirAlignError */
export function checkBatch(
  batch: LogitsBatch<Logits>,
  threads: number | undefined,
  backend: Backend,
): { readonly request: BatchRequest; readonly logits: Logits } {
  const outline = checkOutline('logits', batch.logits, batch, backend);
  const { data: logits } = outline;
  const { vocab } = outline.layout;
  const layout = { ...outline.layout, rowStride: checkRowStride(batch.rowStride ?? vocab, vocab) };
  if (outline.target !== Target.cpu) checkLaunchSize(layout);
  if (logits instanceof DeviceTensor) checkTensor('logits', logits, neededElements(layout));
  else checkLogitsLength(logits, layout);
  const request = checkRows(outline, batch, threads);
  request.logits = rawMemory(logits);
  request.rowStride = layout.rowStride;
  return { request, logits };
}

/**
 * Labels by row, of either term; nobody else can write to what is returned. Their values are the
 * native side's to check.
 */
export function checkLabels(
  name: 'labels' | 'sftLabels',
  value: unknown,
  rows: number,
): Int32Array {
  const labels = checkArray(name, value, ['Int32Array'], 'ERR_DIRALIGN_LABEL');
  checkLength(name, labels.length, rows, 'one per row');
  return unshared(labels);
}

/** Log-probabilities per sequence, of the policy or the reference. */
export function checkLogps(
  name: string,
  value: unknown,
  sequences: number | undefined,
  code: 'ERR_DIRALIGN_REFERENCE' | 'ERR_DIRALIGN_DTYPE',
): Float64Array | Float32Array {
  const logps = unshared(checkArray(name, value, ['Float64Array', 'Float32Array'], code));
  if (sequences !== undefined && logps.length !== sequences) {
    throw rangeError(
      code === 'ERR_DIRALIGN_DTYPE' ? 'ERR_DIRALIGN_SHAPE' : code,
      `${name}: length ${String(logps.length)}; expected ${String(sequences)}, one per sequence`,
    );
  }
  return logps;
}

/**
 * The reference's numbers are made by the caller: a NaN or an infinity there is a mistake, not a
 * numerical event.
 */
export function checkReference(
  value: unknown,
  sequences: number,
  method: string,
): Float64Array | Float32Array {
  if (value === undefined) {
    throw typeError(
      'ERR_DIRALIGN_REFERENCE',
      `reference: '${method}' needs the reference's log-probability of each sequence (or referenceFree: true)`,
    );
  }
  const reference = checkLogps('reference', value, sequences, 'ERR_DIRALIGN_REFERENCE');
  // Not findIndex, which calls back for every sequence.
  for (let s = 0; s < reference.length; s++) {
    if (Number.isFinite(reference[s])) continue;
    throw rangeError(
      'ERR_DIRALIGN_REFERENCE',
      `reference: ${String(reference[s])} at index ${String(s)} is not finite`,
    );
  }
  return reference;
}

/**
 * Scored tokens per sequence. Without one, a sequence has log-probability 0: another says that the
 * count is wrong.
 */
export function checkCounts(value: unknown, logps: Float64Array | Float32Array): Int32Array {
  const counts = unshared(checkArray('counts', value, ['Int32Array'], 'ERR_DIRALIGN_SHAPE'));
  checkLength('counts', counts.length, logps.length, 'one per sequence');
  for (let s = 0; s < counts.length; s++) {
    const count = counts[s] as number;
    if (count > 0 || (count === 0 && logps[s] === 0)) continue;
    const why =
      count < 0
        ? 'is negative'
        : `says that no token is scored, but logps[${s}] is ${String(logps[s])}; expected its tokens`;
    throw rangeError('ERR_DIRALIGN_SHAPE', `counts: ${count} at index ${s} ${why}`);
  }
  return counts;
}

/** Pairs need an even number of sequences; one at least. */
export function checkSequences(sequences: number, paired: boolean): void {
  if (sequences < (paired ? 2 : 1) || (paired && sequences % 2 !== 0)) {
    const expected = paired
      ? 'an even number of at least 2: the chosen, then the rejected'
      : 'at least 1';
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `shape: ${String(sequences)} sequences; expected ${expected}`,
    );
  }
}

/** Memory of a call: a host array, or so many elements of a tensor. */
export type Extent = HostArray | { readonly tensor: DeviceTensor; readonly elements: number };
/** By their names in messages. */
export type Extents = Readonly<Record<string, Extent | undefined>>;

export function extent(data: Logits, elements: number): Extent {
  return data instanceof DeviceTensor ? { tensor: data, elements } : rawArray(data);
}

/** The host arrays that every batch is read from, checked before. */
export function rowInputs({ labels, offsets, sftLabels, reference }: BatchRows): Extents {
  return { labels, offsets, sftLabels, reference };
}

/** Refuses to write over what the call reads, or writes elsewhere. */
export function checkApart(name: string, out: Extent, others: Extents): void {
  const given = Object.entries(others).filter(
    (entry): entry is [string, Extent] => entry[1] !== undefined,
  );
  const found =
    'tensor' in out
      ? given.find(([, memory]) => 'tensor' in memory && meet(out, memory))
      : firstOverlap(out, given);
  if (found === undefined) return;
  const advice = found[0] === 'logits' ? '; to overwrite the logits, use inPlace' : '';
  throw rangeError('ERR_DIRALIGN_SHAPE', `${name}: overlaps ${found[0]}${advice}`);
}

type TensorExtent = Exclude<Extent, HostArray>;

function meet(a: TensorExtent, b: TensorExtent): boolean {
  const end = ({ tensor: { ptr, dtype }, elements }: TensorExtent): bigint =>
    ptr + BigInt(elements * elementBytes[dtype]);
  return a.tensor.ptr < end(b) && b.tensor.ptr < end(a);
}

function firstOverlap(out: HostArray, others: readonly (readonly [string, Extent])[]) {
  const onHost = others.filter((entry): entry is [string, HostArray] => !('tensor' in entry[1]));
  return onHost[
    native().firstOverlap(
      out,
      onHost.map(([, array]) => array),
    )
  ];
}

/** The caller's buffer for the gradient of logits. */
export function checkOut(
  value: unknown,
  logits: Logits,
  batch: BatchRequest,
  inputs: Extents,
): Logits {
  const needed = neededElements(batch);
  let out: Logits;
  if (logits instanceof DeviceTensor) {
    out = checkLike('out', value, logits.dtype, 'the logits', logits);
    checkTensor('out', out as DeviceTensor, needed);
  } else {
    out = checkArray('out', value, [tagOf(logits) as Kind], 'ERR_DIRALIGN_DTYPE') as LogitsArray;
    checkLength('out', out.length, logits.length, 'that of the logits');
  }
  checkApart('out', extent(out, needed), { logits: extent(logits, needed), ...inputs });
  return out;
}

/** Logits that are to be overwritten hold nothing else that the call reads. */
export function checkInPlace(logits: Logits, batch: BatchRequest, inputs: Extents): void {
  checkApart('inPlace: logits', extent(logits, neededElements(batch)), inputs);
}

/** What the native pass over the labels found. */
export function labelError(bad: BadLabel, request: BatchRequest): DirAlignError {
  const name = bad.sft ? 'sftLabels' : 'labels';
  return rangeError(
    'ERR_DIRALIGN_LABEL',
    `${name}[${String(bad.row)}]: ${String(bad.label)} is neither ignoreIndex, ${String(request.ignoreIndex)}, nor in [0, ${String(request.vocab)})`,
  );
}
