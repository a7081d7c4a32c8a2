import { rangeError, typeError, type DirAlignError } from './errors.js';
import { native, type BadLabel, type BatchRequest } from './native.js';
import type { Dtype, Float16ArrayLike, LogitsArray, LogitsBatch } from './types.js';

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

/** A value as a message names it: primitives as they are, objects by their class. */
export function describe(value: unknown): string {
  if (typeof value === 'string') return `'${value}'`;
  if (typeof value === 'function') return 'a function';
  if (typeof value === 'object' && value !== null)
    return (value as { constructor?: { name?: string } }).constructor?.name ?? 'an object';
  return String(value);
}

/** The kind of a typed array. An array of another realm (a vm context, a test runner) has the same. */
function tagOf(value: unknown): string | undefined {
  return ArrayBuffer.isView(value)
    ? ((value as unknown as Record<symbol, unknown>)[Symbol.toStringTag] as string | undefined)
    : undefined;
}

function isFloat16Array(value: unknown): value is Float16ArrayLike {
  return tagOf(value) === 'Float16Array';
}

/** A view that native code may read and write: neither detached nor able to shrink under it. */
function checkBuffer(name: string, view: ArrayBufferView): void {
  const buffer = view.buffer as ArrayBufferLike & { readonly resizable?: boolean };
  if (buffer instanceof ArrayBuffer && buffer.resizable) {
    throw typeError('ERR_DIRALIGN_SHAPE', `${name}: its ArrayBuffer is resizable; pass an array over one of fixed length`);
  }
  if (view.byteLength === 0 && isDetached(buffer)) {
    throw typeError('ERR_DIRALIGN_SHAPE', `${name}: its ArrayBuffer is detached (transferred elsewhere)`);
  }
}

function isDetached(buffer: ArrayBufferLike): boolean {
  try {
    new Uint8Array(buffer);
    return false;
  } catch {
    return true;
  }
}

function checkArray(
  name: string,
  value: unknown,
  types: readonly string[],
  code: 'ERR_DIRALIGN_DTYPE' | 'ERR_DIRALIGN_REFERENCE' | 'ERR_DIRALIGN_LABEL' | 'ERR_DIRALIGN_SHAPE',
): ArrayBufferView & { readonly length: number } {
  if (!types.includes(tagOf(value) ?? '')) {
    throw typeError(code, `${name}: expected ${types.join(' or ')}, not ${describe(value)}`);
  }
  checkBuffer(name, value as ArrayBufferView);
  return value as ArrayBufferView & { readonly length: number };
}

function checkLength(name: string, length: number, expected: number, of: string): void {
  if (length !== expected) {
    throw rangeError('ERR_DIRALIGN_SHAPE', `${name}: length ${String(length)}; expected ${String(expected)}, ${of}`);
  }
}

/** Raw bits of a float16 array, or the array itself. */
export function rawLogits(array: LogitsArray): Float32Array | Uint16Array {
  return isFloat16Array(array) ? new Uint16Array(array.buffer, array.byteOffset, array.length) : array;
}

function checkDtype(batch: LogitsBatch): Dtype {
  const { logits, dtype } = batch;
  if (dtype !== undefined && !dtypes.includes(dtype)) {
    throw typeError('ERR_DIRALIGN_DTYPE', `dtype: ${describe(dtype)} is not one of 'float32', 'float16', 'bfloat16'`);
  }
  if (logits instanceof Object && 'ptr' in logits) {
    throw typeError('ERR_DIRALIGN_BACKEND', 'logits: device tensors need the CUDA backend, which this build does not have');
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

function checkShape(batch: LogitsBatch): Layout {
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

/** Checks everything of a batch but the label values, which the native side looks at once. @throws DirAlignError */
export function checkBatch(batch: LogitsBatch, threads: number | undefined): BatchRequest {
  if (typeof batch !== 'object' || (batch as unknown) === null) {
    throw typeError('ERR_DIRALIGN_SHAPE', `batch: expected an object with logits, shape and labels, not ${describe(batch)}`);
  }
  const dtype = checkDtype(batch);
  const { sequences, rows, vocab, rowStride } = checkShape(batch);
  const full = rows * rowStride;
  const { length } = batch.logits;
  // The last row may come without its padding.
  if (length !== full && !(rows > 0 && length === full - rowStride + vocab)) {
    const what = `${String(rows)} rows of ${rowStride === vocab ? 'vocab' : 'rowStride'} ${String(rowStride)}`;
    throw rangeError('ERR_DIRALIGN_SHAPE', `logits: length ${String(length)}; expected ${String(full)}, ${what}`);
  }
  const labels = checkArray('labels', batch.labels, ['Int32Array'], 'ERR_DIRALIGN_LABEL') as Int32Array;
  checkLength('labels', labels.length, rows, 'one per row');
  const ignoreIndex = batch.ignoreIndex ?? -100;
  if ((ignoreIndex | 0) !== ignoreIndex) {
    throw rangeError('ERR_DIRALIGN_LABEL', `ignoreIndex: ${String(ignoreIndex)} is not a 32-bit integer`);
  }
  return {
    logits: rawLogits(batch.logits),
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
  logits: LogitsArray,
  inputs: Readonly<Record<string, ArrayBufferView | undefined>>,
): LogitsArray {
  const out = checkArray('out', value, [tagOf(logits) as string], 'ERR_DIRALIGN_DTYPE') as LogitsArray;
  checkLength('out', out.length, logits.length, 'that of the logits');
  for (const [name, input] of Object.entries(inputs)) {
    if (input && overlap(out, input)) {
      const advice = name === 'logits' ? '; to overwrite the logits, use inPlace' : '';
      throw rangeError('ERR_DIRALIGN_SHAPE', `out: overlaps ${name}${advice}`);
    }
  }
  return out;
}

function overlap(a: ArrayBufferView, b: ArrayBufferView): boolean {
  return a.buffer === b.buffer && a.byteOffset < b.byteOffset + b.byteLength && b.byteOffset < a.byteOffset + a.byteLength;
}

/** What the native pass over the labels found. */
export function labelError(bad: BadLabel, request: BatchRequest): DirAlignError {
  const name = bad.sft ? 'sftLabels' : 'labels';
  return rangeError(
    'ERR_DIRALIGN_LABEL',
    `${name}[${String(bad.row)}]: ${String(bad.label)} is neither ignoreIndex, ${String(request.ignoreIndex)}, nor in [0, ${String(request.vocab)})`,
  );
}
