import { checkArray, checkLength, describe, isFloat16Array, overlap, tagOf } from './arrays.js';
import { availability } from './cuda-status.js';
import { DeviceTensor, elementBytes } from './device.js';
import { rangeError, typeError, type DirAlignError } from './errors.js';
import { native, Target, type BadLabel, type BatchRequest } from './native.js';
import type { Dtype, Logits, LogitsArray, LogitsBatch } from './types.js';

const dtypes: readonly Dtype[] = ['float32', 'float16', 'bfloat16'];
/** More threads than this are a mistake rather than a machine. */
const maxThreads = 1024;

let hardwareThreads: number | undefined;

/** @throws DirAlignError with code ERR_DIRALIGN_OPTION */
export function checkThreads(threads: number | undefined): number {
  if (threads === undefined) return (hardwareThreads ??= native().cpuInfo().threads);
  if (!Number.isInteger(threads) || threads < 1 || threads > maxThreads) {
    throw rangeError('ERR_DIRALIGN_OPTION', `threads: ${String(threads)} is not a whole number from 1 to ${String(maxThreads)}`);
  }
  return threads;
}

/** What native code takes: the address of a tensor, the raw bits of a float16 array, or the array itself. */
export function rawLogits(logits: Logits): Float32Array | Uint16Array | bigint {
  if (logits instanceof DeviceTensor) return logits.ptr;
  return isFloat16Array(logits) ? new Uint16Array(logits.buffer, logits.byteOffset, logits.length) : logits;
}

export type Backend = 'auto' | 'cpu' | 'cuda';

/** @throws DirAlignError for a backend that does not exist, or is not available */
export function checkBackend(backend: unknown): Backend {
  if (backend === 'cuda') {
    const { reason } = availability();
    if (reason !== undefined) throw typeError('ERR_DIRALIGN_BACKEND', `backend: 'cuda' is not available: ${reason}`);
    return backend;
  }
  if (backend !== 'auto' && backend !== 'cpu') {
    throw typeError('ERR_DIRALIGN_OPTION', `backend: ${describe(backend)} is not one of 'auto', 'cpu', 'cuda'`);
  }
  return backend;
}

function targetOf(backend: Backend, logits: Logits): Target {
  if (!(logits instanceof DeviceTensor)) return backend === 'cuda' ? Target.staged : Target.cpu;
  if (backend === 'cpu') {
    throw typeError(
      'ERR_DIRALIGN_BACKEND',
      "backend: 'cpu' does not read logits in device memory; leave backend out, or copy them to a host array",
    );
  }
  return Target.device;
}

function checkDtype(batch: LogitsBatch<Logits>): Dtype {
  const { logits, dtype } = batch;
  if (dtype !== undefined && !dtypes.includes(dtype)) {
    throw typeError('ERR_DIRALIGN_DTYPE', `dtype: ${describe(dtype)} is not one of 'float32', 'float16', 'bfloat16'`);
  }
  if (logits instanceof DeviceTensor) {
    if (dtype !== undefined && dtype !== logits.dtype) {
      throw typeError('ERR_DIRALIGN_DTYPE', `dtype: '${dtype}' does not fit logits in a DeviceTensor of ${logits.dtype}`);
    }
    return logits.dtype;
  }
  if (logits instanceof Object && 'ptr' in logits) {
    const { reason } = availability();
    if (reason !== undefined) {
      throw typeError('ERR_DIRALIGN_BACKEND', `logits: device memory needs the CUDA backend, which is not available: ${reason}`);
    }
    throw typeError(
      'ERR_DIRALIGN_DTYPE',
      `logits: expected an array or a DeviceTensor, not ${describe(logits)}; make one by cuda.tensor`,
    );
  }
  checkArray('logits', logits, ['Float32Array', 'Uint16Array', 'Float16Array'], 'ERR_DIRALIGN_DTYPE');
  const implied = isFloat16Array(logits) ? 'float16' : logits.BYTES_PER_ELEMENT === 4 ? 'float32' : undefined;
  if (implied === undefined) {
    if (dtype === 'float16' || dtype === 'bfloat16') return dtype;
    throw typeError(
      'ERR_DIRALIGN_DTYPE',
      `dtype: a Uint16Array holds 'float16' or 'bfloat16' bits; say which (given: ${describe(dtype)})`,
    );
  }
  if (dtype !== undefined && dtype !== implied) {
    throw typeError('ERR_DIRALIGN_DTYPE', `dtype: '${dtype}' does not fit logits in a ${describe(logits)}`);
  }
  return implied;
}

interface Layout {
  readonly sequences: number;
  readonly rows: number;
  readonly vocab: number;
  readonly rowStride: number;
}

function checkShape(batch: LogitsBatch<Logits>): Layout {
  const shape: unknown = batch.shape;
  if (!Array.isArray(shape) || !shape.every((n) => Number.isSafeInteger(n) && (n as number) >= 0)) {
    throw typeError(
      'ERR_DIRALIGN_SHAPE',
      `shape: expected [sequences, tokens, vocab] or [rows, vocab] of whole numbers, not ${Array.isArray(shape) ? JSON.stringify(shape) : describe(shape)}`,
    );
  }
  const dimensions = shape as number[];
  const vocab = dimensions.at(-1) ?? 0;
  if (dimensions.length !== 2 && dimensions.length !== 3) {
    throw rangeError('ERR_DIRALIGN_SHAPE', `shape: ${String(dimensions.length)} dimensions; expected 3 (padded) or 2 (packed)`);
  }
  if (vocab < 1 || vocab > 0x7fffffff) {
    throw rangeError('ERR_DIRALIGN_SHAPE', `shape: vocab is ${String(vocab)}; expected 1 to 2147483647`);
  }
  const rowStride = batch.rowStride ?? vocab;
  if (!Number.isSafeInteger(rowStride) || rowStride < vocab) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `rowStride: ${String(rowStride)} is not a whole number of at least vocab, ${String(vocab)}`,
    );
  }
  if (dimensions.length === 3) {
    if (batch.offsets !== undefined) {
      throw typeError('ERR_DIRALIGN_SHAPE', 'offsets: only packed batches, of shape [rows, vocab], have them');
    }
    const [sequences = 0, tokens = 0] = dimensions;
    return { sequences, rows: sequences * tokens, vocab, rowStride };
  }
  const rows = dimensions[0] ?? 0;
  return { sequences: checkOffsets(batch.offsets, rows), rows, vocab, rowStride };
}

function checkOffsets(value: unknown, rows: number): number {
  const offsets = checkArray('offsets', value, ['Int32Array'], 'ERR_DIRALIGN_SHAPE') as Int32Array;
  if (offsets.length < 1 || offsets[0] !== 0 || offsets.at(-1) !== rows) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `offsets: goes from ${String(offsets[0])} to ${String(offsets.at(-1))}; expected 0 to rows, ${String(rows)}`,
    );
  }
  for (let i = 1; i < offsets.length; i++) {
    if ((offsets[i] as number) < (offsets[i - 1] as number)) {
      throw rangeError('ERR_DIRALIGN_SHAPE', `offsets: decreases at index ${String(i)}`);
    }
  }
  return offsets.length - 1;
}

type Rows = Pick<Layout, 'rows' | 'rowStride' | 'vocab'>;

/** Elements from the first row to the end of the last one's vocabulary. */
function neededElements({ rows, rowStride, vocab }: Rows): number {
  return rows === 0 ? 0 : (rows - 1) * rowStride + vocab;
}

/**
 * Elements of logits or a gradient in device memory that belong to the batch. A tensor may be longer than the batch; it ends with the
 * padding of the last row where it is known to hold it.
 */
export function tensorElements(tensor: DeviceTensor, layout: Rows): number {
  const full = layout.rows * layout.rowStride;
  return (tensor.byteLength ?? 0) >= full * elementBytes[tensor.dtype] ? full : neededElements(layout);
}

function checkTensor(name: string, tensor: DeviceTensor, layout: Rows): void {
  const bytes = neededElements(layout) * elementBytes[tensor.dtype];
  tensor.region.check(name, 0, bytes);
  if (tensor.ptr % BigInt(elementBytes[tensor.dtype]) !== 0n) {
    throw rangeError(
      'ERR_DIRALIGN_DEVICE',
      `${name}: 0x${tensor.ptr.toString(16)} is not aligned to an element of ${tensor.dtype}`,
    );
  }
}

function checkLogitsLength(logits: LogitsArray, { rows, rowStride, vocab }: Layout): void {
  const full = rows * rowStride;
  const { length } = logits;
  // The last row may come without its padding.
  if (length !== full && !(rows > 0 && length === neededElements({ rows, rowStride, vocab }))) {
    const what = `${rows} rows of ${rowStride === vocab ? 'vocab' : 'rowStride'} ${rowStride}`;
    throw rangeError('ERR_DIRALIGN_SHAPE', `logits: length ${length}; expected ${full}, ${what}`);
  }
}

/** A launch numbers its work, at most two pieces of at least 8192 logits a row, in 32 bits. */
function checkLaunchSize({ rows, vocab }: Layout): void {
  const pieces = 2 * rows * Math.ceil(vocab / 8192);
  if (pieces >= 2 ** 31) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `shape: ${String(rows)} rows of ${String(vocab)} are more than one CUDA launch takes; split the batch`,
    );
  }
}

/** Checks everything of a batch but the label values, which the native side looks at once. @throws DirAlignError */
export function checkBatch(batch: LogitsBatch<Logits>, threads: number | undefined, backend: Backend): BatchRequest {
  if (typeof batch !== 'object' || (batch as unknown) === null) {
    throw typeError('ERR_DIRALIGN_SHAPE', `batch: expected an object with logits, shape and labels, not ${describe(batch)}`);
  }
  const dtype = checkDtype(batch);
  const { logits } = batch;
  const target = targetOf(backend, logits);
  const layout = checkShape(batch);
  const { sequences, rows, vocab, rowStride } = layout;
  if (target !== Target.cpu) checkLaunchSize(layout);
  if (logits instanceof DeviceTensor) checkTensor('logits', logits, layout);
  else checkLogitsLength(logits, layout);
  const labels = checkArray('labels', batch.labels, ['Int32Array'], 'ERR_DIRALIGN_LABEL') as Int32Array;
  checkLength('labels', labels.length, rows, 'one per row');
  const ignoreIndex = batch.ignoreIndex ?? -100;
  if ((ignoreIndex | 0) !== ignoreIndex) {
    throw rangeError('ERR_DIRALIGN_LABEL', `ignoreIndex: ${String(ignoreIndex)} is not a 32-bit integer`);
  }
  return {
    target,
    device: logits instanceof DeviceTensor ? logits.device : 0,
    stream: logits instanceof DeviceTensor ? logits.stream : 0n,
    logits: rawLogits(logits),
    dtype: dtypes.indexOf(dtype),
    rows,
    vocab,
    rowStride,
    sequences,
    offsets: batch.offsets,
    labels,
    sftLabels: undefined,
    ignoreIndex,
    threads: checkThreads(threads),
    counts: new Int32Array(sequences),
  };
}

/** Labels of the likelihood term. */
export function checkSftLabels(value: unknown, rows: number): Int32Array {
  const labels = checkArray('sftLabels', value, ['Int32Array'], 'ERR_DIRALIGN_LABEL') as Int32Array;
  checkLength('sftLabels', labels.length, rows, 'one per row');
  return labels;
}

/** Log-probabilities per sequence, of the policy or the reference. */
export function checkLogps(
  name: string,
  value: unknown,
  sequences: number | undefined,
  code: 'ERR_DIRALIGN_REFERENCE' | 'ERR_DIRALIGN_DTYPE',
): Float64Array | Float32Array {
  const logps = checkArray(name, value, ['Float64Array', 'Float32Array'], code) as Float64Array | Float32Array;
  if (sequences !== undefined && logps.length !== sequences) {
    throw rangeError(
      code === 'ERR_DIRALIGN_DTYPE' ? 'ERR_DIRALIGN_SHAPE' : code,
      `${name}: length ${String(logps.length)}; expected ${String(sequences)}, one per sequence`,
    );
  }
  return logps;
}

/** The reference's numbers are made by the caller: a NaN or an infinity there is a mistake, not a numerical event. */
export function checkReference(value: unknown, sequences: number, method: string): Float64Array | Float32Array {
  if (value === undefined) {
    throw typeError(
      'ERR_DIRALIGN_REFERENCE',
      `reference: '${method}' needs the reference's log-probability of each sequence (or referenceFree: true)`,
    );
  }
  const reference = checkLogps('reference', value, sequences, 'ERR_DIRALIGN_REFERENCE');
  const bad = reference.findIndex((x) => !Number.isFinite(x));
  if (bad >= 0) {
    throw rangeError('ERR_DIRALIGN_REFERENCE', `reference: ${String(reference[bad])} at index ${String(bad)} is not finite`);
  }
  return reference;
}

/** Scored tokens per sequence. */
export function checkCounts(value: unknown, sequences: number): Int32Array {
  const counts = checkArray('counts', value, ['Int32Array'], 'ERR_DIRALIGN_SHAPE') as Int32Array;
  checkLength('counts', counts.length, sequences, 'one per sequence');
  const bad = counts.findIndex((n) => n < 0);
  if (bad >= 0) throw rangeError('ERR_DIRALIGN_SHAPE', `counts: ${String(counts[bad])} at index ${String(bad)} is negative`);
  return counts;
}

/** Pairs need an even number of sequences; one at least. */
export function checkSequences(sequences: number, paired: boolean): void {
  if (sequences < (paired ? 2 : 1) || (paired && sequences % 2 !== 0)) {
    const expected = paired ? 'an even number of at least 2: the chosen, then the rejected' : 'at least 1';
    throw rangeError('ERR_DIRALIGN_SHAPE', `shape: ${String(sequences)} sequences; expected ${expected}`);
  }
}

/** The caller's gradient buffer. */
export function checkOut(
  value: unknown,
  logits: Logits,
  batch: BatchRequest,
  inputs: Readonly<Record<string, ArrayBufferView | undefined>>,
): Logits {
  if (logits instanceof DeviceTensor) return checkOutTensor(value, logits, batch);
  const out = checkArray('out', value, [tagOf(logits) as string], 'ERR_DIRALIGN_DTYPE') as LogitsArray;
  checkLength('out', out.length, logits.length, 'that of the logits');
  const all: Readonly<Record<string, ArrayBufferView | undefined>> = { logits, ...inputs };
  for (const [name, input] of Object.entries(all)) {
    if (input && overlap(out, input)) throw overlapError(name);
  }
  return out;
}

function overlapError(name: string): DirAlignError {
  const advice = name === 'logits' ? '; to overwrite the logits, use inPlace' : '';
  return rangeError('ERR_DIRALIGN_SHAPE', `out: overlaps ${name}${advice}`);
}

function checkOutTensor(out: unknown, logits: DeviceTensor, batch: BatchRequest): DeviceTensor {
  if (!(out instanceof DeviceTensor)) {
    throw typeError('ERR_DIRALIGN_DTYPE', `out: expected a DeviceTensor, as the logits are, not ${describe(out)}`);
  }
  for (const [key, code] of [
    ['dtype', 'ERR_DIRALIGN_DTYPE'],
    ['device', 'ERR_DIRALIGN_DEVICE'],
    ['stream', 'ERR_DIRALIGN_DEVICE'],
  ] as const) {
    if (out[key] !== logits[key]) {
      throw typeError(code, `out: its ${key} is ${out[key]}; expected that of the logits, ${logits[key]}`);
    }
  }
  checkTensor('out', out, batch);
  const bytes = BigInt(neededElements(batch) * elementBytes[out.dtype]);
  if (out.ptr < logits.ptr + bytes && logits.ptr < out.ptr + bytes) throw overlapError('logits');
  return out;
}

/** What the native pass over the labels found. */
export function labelError(bad: BadLabel, request: BatchRequest): DirAlignError {
  const name = bad.sft ? 'sftLabels' : 'labels';
  return rangeError(
    'ERR_DIRALIGN_LABEL',
    `${name}[${String(bad.row)}]: ${String(bad.label)} is neither ignoreIndex, ${String(request.ignoreIndex)}, nor in [0, ${String(request.vocab)})`,
  );
}
