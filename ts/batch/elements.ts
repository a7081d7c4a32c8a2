/** How many elements a batch needs, and whether its memory has them. */
import { DeviceTensor } from '../device/memory.js';
import { elementBytes } from '../dtype.js';
import { rangeError } from '../errors.js';
import { describe } from '../given.js';
import type { BatchRequest } from '../native/interface.js';
import { checkLength } from './arrays.js';
import type { Logits, LogitsArray } from './types.js';

/** How logits lie in their memory. */
type Rows = Pick<BatchRequest, 'rows' | 'rowStride' | 'vocab'>;

export function checkRowStride(rowStride: number, vocab: number): number {
  if (Number.isSafeInteger(rowStride) && rowStride >= vocab) return rowStride;
  throw rangeError(
    'ERR_DIRALIGN_SHAPE',
    `rowStride: ${describe(rowStride)} is not a whole number of at least vocab, ${vocab}`,
  );
}

/** Elements from the first row to the end of the last one's vocabulary. */
export function neededElements({ rows, rowStride, vocab }: Rows): number {
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

export function checkTensor(name: string, tensor: DeviceTensor, elements: number): void {
  tensor.region.check(name, 0, elements * elementBytes[tensor.dtype]);
  if (tensor.ptr % BigInt(elementBytes[tensor.dtype]) !== 0n) {
    throw rangeError(
      'ERR_DIRALIGN_DEVICE',
      `${name}: 0x${tensor.ptr.toString(16)} is not aligned to an element of ${tensor.dtype}`,
    );
  }
}

/** An array has exactly so many elements, a tensor at least so many. */
export function checkElements(name: string, data: Logits, elements: number, of: string): void {
  if (data instanceof DeviceTensor) checkTensor(name, data, elements);
  else checkLength(name, data.length, elements, of);
}

export function checkLogitsLength(logits: LogitsArray, { rows, rowStride, vocab }: Rows): void {
  const full = rows * rowStride;
  const { length } = logits;
  // The last row may come without its padding.
  if (length !== full && !(rows > 0 && length === neededElements({ rows, rowStride, vocab }))) {
    const what = `${rows} rows of ${rowStride === vocab ? 'vocab' : 'rowStride'} ${rowStride}`;
    throw rangeError('ERR_DIRALIGN_SHAPE', `logits: length ${length}; expected ${full}, ${what}`);
  }
}

/** A launch numbers its work in 32 bits: at most two pieces per 8192 logits of a row. */
export function checkLaunchSize({ rows, vocab }: Rows): void {
  const pieces = 2 * rows * Math.ceil(vocab / 8192);
  if (pieces >= 2 ** 31) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `shape: ${String(rows)} rows of ${String(vocab)} are more than one CUDA launch ` +
        'takes; split the batch',
    );
  }
}
