/** Where gradients go: over the logits, into the caller's buffers, or into fresh memory. */
import { allocate, checkArray, checkLength, tagOf, type Kind } from '../batch/arrays.js';
import { checkLike, rawArray, rawMemory } from '../batch/dtype-and-place.js';
import { checkElements, checkTensor, neededElements, tensorElements } from '../batch/elements.js';
import { checkApart, extent, type Extent, type Extents } from '../batch/extent.js';
import type { CheckedHiddenBatch } from '../batch/hidden.js';
import type { Logits, LogitsArray } from '../batch/types.js';
import { allocateLike, DeviceTensor, type DeviceBuffer } from '../device/memory.js';
import { elementBytes, type Dtype } from '../dtype.js';
import type { BatchRequest, LayerGradientRequest } from '../native/interface.js';
import type { GradientMode, HiddenGradient, RunOptions } from './options.js';

/** Fresh memory for a gradient, in the place of other data. */
function allocateFresh(
  name: string,
  like: Logits,
  elements: number,
  array: Kind,
  dtype?: Dtype,
): { readonly data: Logits; readonly buffer?: DeviceBuffer } {
  if (!(like instanceof DeviceTensor)) return { data: allocate(name, array, elements) as Logits };
  const bytes = elements * elementBytes[dtype ?? like.dtype];
  const { tensor, buffer } = allocateLike(like, bytes, dtype);
  return { data: tensor, buffer };
}

/** The gradient of logits. */
export interface PreparedGradient {
  /** What the caller sees: the very array that was given, where one was. */
  readonly gradLogits: Logits | undefined;
  /** The same memory, as a plain array or a tensor. */
  readonly data: Logits | undefined;
  readonly elements: number;
  readonly discard: () => void;
}

export function prepareGradient(
  given: Logits,
  logits: Logits,
  base: BatchRequest,
  mode: GradientMode,
  run: RunOptions<Logits>,
  inputs: Extents,
): PreparedGradient {
  const elementsOf = (gradient: Logits): number =>
    gradient instanceof DeviceTensor ? tensorElements(gradient, base) : rawArray(gradient).length;
  const discard = (): void => undefined; // the caller's own
  if (run.inPlace) {
    checkInPlace(logits, base, inputs);
    return { gradLogits: given, data: logits, elements: elementsOf(logits), discard };
  }
  if (run.out !== undefined) {
    const data = checkOut(run.out, logits, base, inputs);
    return { gradLogits: run.out, data, elements: elementsOf(data), discard };
  }
  if (mode === 'none') return { gradLogits: undefined, data: undefined, elements: 0, discard };
  const elements = elementsOf(logits);
  const { data, buffer } = allocateFresh('gradLogits', logits, elements, tagOf(logits) as Kind);
  return {
    gradLogits: data,
    data,
    elements,
    discard: () => {
      buffer?.discard();
    },
  };
}

/** The caller's buffer for the gradient of logits. */
function checkOut(value: unknown, logits: Logits, batch: BatchRequest, inputs: Extents): Logits {
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

/** Refuses to overwrite logits whose memory holds another input. */
function checkInPlace(logits: Logits, batch: BatchRequest, inputs: Extents): void {
  checkApart('inPlace: logits', extent(logits, neededElements(batch)), inputs);
}

export const gradientNames: readonly HiddenGradient[] = ['gradHidden', 'gradWeight', 'gradBias'];

/** What is wanted of each gradient: a buffer, a fresh array (true), or nothing (false). */
export type Wanted = Readonly<Record<HiddenGradient, unknown>>;

/** What a call does with each gradient. */
export interface GradientChoice {
  readonly wanted: Wanted;
  /** Those that are added to their buffers. */
  readonly accumulated: ReadonlySet<HiddenGradient>;
}

/** The form of one gradient of an output layer. */
interface Form {
  readonly dtype: Dtype;
  /** Of an array on the host. */
  readonly array: Kind;
  readonly elements: number;
  /** For messages. */
  readonly of: string;
}

function formsOf(
  hidden: Logits,
  { base, layer, dtype }: CheckedHiddenBatch,
): Readonly<Record<HiddenGradient, Form>> {
  const { rows, rowStride: vocab } = base; // with the padding past a vocabulary
  const { hiddenSize } = layer;
  const own = tagOf(hidden) as Kind;
  const float32 = { dtype: 'float32', array: 'Float32Array' } as const;
  return {
    gradHidden: { dtype, array: own, elements: rows * hiddenSize, of: 'that of hidden' },
    gradWeight: { ...float32, elements: vocab * hiddenSize, of: 'that of the weight' },
    gradBias: { ...float32, elements: vocab, of: 'that of the bias' },
  };
}

/** The caller's buffer. The gradient of hidden states is an array of their own type. */
function checkBuffer(
  name: HiddenGradient,
  value: unknown,
  { dtype, array, elements, of }: Form,
  hidden: Logits,
): Logits {
  const what = `out.${name}`;
  let out: Logits;
  if (hidden instanceof DeviceTensor || value instanceof DeviceTensor)
    out = checkLike(what, value, dtype, 'hidden', hidden);
  else out = checkArray(what, value, [array], 'ERR_DIRALIGN_DTYPE') as LogitsArray;
  checkElements(what, out, elements, of);
  return out;
}

/** The gradients of an output layer, those that are wanted. */
export interface PreparedGradients {
  readonly data: Readonly<Partial<Record<HiddenGradient, Logits>>>;
  readonly request: Readonly<Record<HiddenGradient, LayerGradientRequest | undefined>>;
  readonly discard: () => void;
}

/** Checks every buffer before it allocates anything. */
export function prepareGradients(
  { wanted, accumulated }: GradientChoice,
  hidden: Logits,
  checked: CheckedHiddenBatch,
): PreparedGradients {
  const forms = formsOf(hidden, checked);
  const data: Partial<Record<HiddenGradient, Logits>> = {};
  const written: Record<string, Extent> = {};
  for (const name of gradientNames) {
    if (typeof wanted[name] === 'boolean') continue;
    const buffer = checkBuffer(name, wanted[name], forms[name], hidden);
    const memory = extent(buffer, forms[name].elements);
    checkApart(`out.${name}`, memory, { ...checked.inputs, ...written });
    data[name] = buffer;
    written[`out.${name}`] = memory;
  }
  // From here on only the system or the device can refuse: memory.
  const fresh: DeviceBuffer[] = [];
  const discard = (): void => {
    for (const buffer of fresh) buffer.discard();
  };
  const request: Record<HiddenGradient, LayerGradientRequest | undefined> = {
    gradHidden: undefined,
    gradWeight: undefined,
    gradBias: undefined,
  };
  for (const name of gradientNames) {
    if (wanted[name] === false) continue;
    const given = data[name];
    let zeroed = false;
    if (!given) {
      try {
        const { elements, array, dtype: own } = forms[name];
        const made = allocateFresh(name, hidden, elements, array, own);
        if (made.buffer) fresh.push(made.buffer);
        data[name] = made.data;
        zeroed = made.buffer === undefined;
      } catch (error) {
        discard();
        throw error;
      }
    }
    request[name] = {
      data: rawMemory(data[name] as Logits),
      accumulate: accumulated.has(name),
      zeroed,
    };
  }
  return { data, request, discard };
}
