/** Batches of hidden states and an output layer. */
import { DeviceTensor } from '../device/memory.js';
import type { CheckedParallel } from '../distributed/parallel.js';
import { hiddenReason } from '../device/status.js';
import { elementBytes, type Dtype } from '../dtype.js';
import { rangeError, typeError } from '../errors.js';
import { describe } from '../given.js';
import { Target, type BatchRequest, type LayerRequest } from '../native/interface.js';
import { allocate } from './arrays.js';
import { checkLike, rawMemory, type Backend } from './dtype-and-place.js';
import { checkElements } from './elements.js';
import { extent, rowInputs, type Extents } from './extent.js';
import { checkOutline, checkRows } from './rows.js';
import { placeShard } from './shard.js';
import type { HiddenBatch, Logits } from './types.js';

/** Default bytes of workspace: enough for fast products, little beside weights and gradients. */
const defaultMemory = { host: 2 ** 28, device: 2 ** 31 } as const;

function checkMemory(memory: unknown, target: Target): number {
  if (memory === undefined)
    return target === Target.cpu ? defaultMemory.host : defaultMemory.device;
  if (!Number.isSafeInteger(memory) || (memory as number) < 1) {
    const message = `memory: ${describe(memory)} is not a whole number of bytes of at least 1`;
    throw typeof memory === 'number'
      ? rangeError('ERR_DIRALIGN_OPTION', message)
      : typeError('ERR_DIRALIGN_OPTION', message);
  }
  return memory as number;
}

export interface CheckedHiddenBatch {
  /** The hidden states as a plain array or a tensor. */
  readonly hidden: Logits;
  readonly base: BatchRequest;
  readonly layer: LayerRequest;
  readonly dtype: Dtype;
  /** Everything the call reads, by name. */
  readonly inputs: Extents;
}

/** Elements of a hidden state, as the batch says or the weight implies. */
function checkHiddenSize(given: unknown, weight: Logits, vocab: number): number {
  if (given !== undefined) {
    if (Number.isSafeInteger(given) && (given as number) >= 1) return given as number;
    const message = `hiddenSize: ${describe(given)} is not a whole number of at least 1`;
    throw typeof given === 'number'
      ? rangeError('ERR_DIRALIGN_SHAPE', message)
      : typeError('ERR_DIRALIGN_SHAPE', message);
  }
  let elements: number;
  if (weight instanceof DeviceTensor) {
    if (weight.byteLength === undefined) {
      throw typeError(
        'ERR_DIRALIGN_SHAPE',
        'hiddenSize: required, for the byteLength of the weight is not known',
      );
    }
    elements = weight.byteLength / elementBytes[weight.dtype];
  } else elements = weight.length;
  const size = elements / vocab;
  if (Number.isInteger(size) && size >= 1) return size;
  const expected = `expected vocab, ${vocab}, times the size of a hidden state`;
  throw rangeError('ERR_DIRALIGN_SHAPE', `weight: ${elements} elements; ${expected}`);
}

export function checkHiddenBatch(
  batch: HiddenBatch<Logits>,
  threads: number | undefined,
  backend: Backend,
  memory: unknown,
  parallel?: CheckedParallel,
): CheckedHiddenBatch {
  const outline = checkOutline('hidden', batch.hidden, batch, backend);
  const { data: hidden, dtype, target, layout } = outline;
  const { rows, vocab } = layout;
  if (target !== Target.cpu) {
    const reason = hiddenReason();
    if (reason !== undefined)
      throw typeError('ERR_DIRALIGN_BACKEND', `fromHidden is not available on a device: ${reason}`);
  }
  const weight = checkLike('weight', batch.weight, dtype, 'hidden', hidden);
  const bias =
    batch.bias === undefined ? undefined : checkLike('bias', batch.bias, dtype, 'hidden', hidden);
  const hiddenSize = checkHiddenSize(batch.hiddenSize, weight, vocab);
  checkElements('hidden', hidden, rows * hiddenSize, `${rows} rows of hiddenSize ${hiddenSize}`);
  checkElements(
    'weight',
    weight,
    vocab * hiddenSize,
    `vocab ${vocab} rows of hiddenSize ${hiddenSize}`,
  );
  if (bias !== undefined) checkElements('bias', bias, vocab, 'one per word');
  const base = checkRows(outline, batch, threads);
  placeShard(base, batch.shard, parallel, 'float32');
  const layer = {
    hidden: rawMemory(hidden),
    weight: rawMemory(weight),
    bias: bias && rawMemory(bias),
    hiddenSize,
    memory: checkMemory(memory, target),
    memoryUsed: allocate('memory', 'Float64Array', 1),
  };
  const inputs = {
    hidden: extent(hidden, rows * hiddenSize),
    weight: extent(weight, vocab * hiddenSize),
    bias: bias && extent(bias, vocab),
    ...rowInputs(batch),
  };
  return { hidden, base, layer, dtype, inputs };
}
