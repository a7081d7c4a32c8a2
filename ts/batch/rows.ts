/** What every batch has, whether of logits or of hidden states. */
import { DeviceTensor } from '../device/memory.js';
import { dtypes, type Dtype } from '../dtype.js';
import { rangeError } from '../errors.js';
import { describe } from '../given.js';
import { checkNumber } from '../interval.js';
import { filled } from '../native/filled.js';
import { native, type BatchRequest, type Target } from '../native/interface.js';
import { plain, tagOf, type Kind } from './arrays.js';
import { checkDtype, targetOf, type Backend } from './dtype-and-place.js';
import { checkTokenWeights } from './fields.js';
import { checkIgnoreIndex, checkLabels } from './labels.js';
import { checkShape, type Layout } from './shape.js';
import type { BatchRows, Logits, LogitsArray, LogitTransforms } from './types.js';

/** More threads than this are a mistake: no machine has as many. */
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

/** `name`: the batch's property that holds the data. */
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

const positive = { above: 0 };

/** What becomes of the logits, as the native side takes it. */
function checkTransforms({ logitScale, logitSoftcap, temperature }: LogitTransforms) {
  const check = (name: string, value: unknown, otherwise: number): number =>
    value === undefined ? otherwise : checkNumber(name, value, positive);
  return {
    logitScale: check('logitScale', logitScale, 1),
    logitSoftcap: check('logitSoftcap', logitSoftcap, 0),
    temperature: check('temperature', temperature, 1),
  };
}

/**
 * Checks the rest of what every batch has, except the label values, which only the native side
 * looks at.
 */
export function checkRows(
  { data, dtype, target, layout }: Outline,
  batch: BatchRows,
  threads: number | undefined,
): BatchRequest {
  const { rows, vocab, sequences, offsets } = layout;
  const labels = checkLabels('labels', batch.labels, rows);
  const fields = checkTokenWeights(batch.tokenWeights, rows);
  const { logitScale, logitSoftcap, temperature } = checkTransforms(batch);
  const ignoreIndex = checkIgnoreIndex(batch.ignoreIndex);
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
    groups: undefined,
    fields,
    logitScale,
    logitSoftcap,
    temperature,
    ignoreIndex,
    threads: checkThreads(threads),
    parallel: undefined,
    counts: filled('counts', 'Int32Array', sequences),
  };
}
