/** Where gradients go: over the logits, into the caller's buffers, or into fresh memory. */
import { allocate, checkArray, checkLength, tagOf, type Kind } from '../batch/arrays.js';
import { checkLike, rawArray, rawMemory } from '../batch/dtype-and-place.js';
import { checkElements, checkTensor, neededElements, tensorElements } from '../batch/elements.js';
import { checkApart, extent, type Extent, type Extents } from '../batch/extent.js';
import type { CheckedHiddenBatch } from '../batch/hidden.js';
import type { Logits, LogitsArray } from '../batch/types.js';
import { allocateLike, DeviceTensor } from '../device/memory.js';
import { elementBytes, type Dtype } from '../dtype.js';
import type { BatchRequest, LayerGradientRequest } from '../native/interface.js';
import { checkBuffers, type GradientBuffers } from './gradient-buffers.js';
import type { GradientMode, HiddenGradient, RunOptions } from './options.js';

/** Memory for a gradient that has no place of its own. */
interface Made {
  readonly data: Logits;
  /** Whether it is all 0. */
  readonly zeroed: boolean;
  /** Of what is lent. */
  readonly giveBack?: () => void;
  /** After a call that failed. */
  readonly discard?: () => void;
}

/** In the place of other data: of a device, lent by the caller's buffers, or fresh. */
function makeLike(
  name: string,
  like: Logits,
  elements: number,
  array: Kind,
  buffers: GradientBuffers | undefined,
  dtype?: Dtype,
): Made {
  if (like instanceof DeviceTensor) {
    const bytes = elements * elementBytes[dtype ?? like.dtype];
    const { tensor, buffer } = allocateLike(like, bytes, dtype);
    const discard = (): void => {
      buffer.discard();
    };
    return { data: tensor, zeroed: false, discard };
  }
  if (!buffers) return { data: allocate(name, array, elements) as Logits, zeroed: true };
  const { array: data, fresh, giveBack } = buffers.lend(name, array, elements);
  return { data: data as Logits, zeroed: fresh, giveBack, discard: giveBack };
}

/** The gradient of logits. */
export interface PreparedGradient {
  /** What the caller sees: the very array that was given, where one was. */
  readonly gradLogits: Logits | undefined;
  /** The same memory, as a plain array or a tensor. */
  readonly data: Logits | undefined;
  readonly elements: number;
  /** Whether it is in host memory that is all 0. */
  readonly isFresh: boolean;
  /** Each gives back what `run.buffers` lent. */
  readonly loans: readonly (() => void)[];
  readonly discard: () => void;
}

const nothing = (): void => undefined;

/** Of memory that is not the call's to give back. */
function ofCaller(
  gradLogits: Logits | undefined,
  data: Logits | undefined,
  elements: number,
): PreparedGradient {
  return { gradLogits, data, elements, isFresh: false, loans: [], discard: nothing };
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
  const buffers = checkBuffers(run.buffers, logits instanceof DeviceTensor);
  if (run.inPlace) {
    checkInPlace(logits, base, inputs);
    return ofCaller(given, logits, elementsOf(logits));
  }
  if (run.out !== undefined) {
    const data = checkOut(run.out, logits, base, inputs);
    return ofCaller(run.out, data, elementsOf(data));
  }
  if (mode === 'none') return ofCaller(undefined, undefined, 0);
  const elements = elementsOf(logits);
  const kind = tagOf(logits) as Kind;
  const { data, zeroed, giveBack, discard } = makeLike(
    'gradLogits',
    logits,
    elements,
    kind,
    buffers,
  );
  return {
    gradLogits: data,
    data,
    elements,
    isFresh: zeroed,
    loans: giveBack ? [giveBack] : [],
    discard: discard ?? nothing,
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
  /** Each gives back what `run.buffers` lent. */
  readonly loans: readonly (() => void)[];
  readonly discard: () => void;
}

/** Checks every buffer before it allocates anything. */
export function prepareGradients(
  { wanted, accumulated }: GradientChoice,
  hidden: Logits,
  checked: CheckedHiddenBatch,
  given: unknown,
): PreparedGradients {
  const buffers = checkBuffers(given, hidden instanceof DeviceTensor);
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
  const made: Made[] = [];
  const discard = (): void => {
    for (const each of made) each.discard?.();
  };
  const request: Record<HiddenGradient, LayerGradientRequest | undefined> = {
    gradHidden: undefined,
    gradWeight: undefined,
    gradBias: undefined,
  };
  for (const name of gradientNames) {
    if (wanted[name] === false) continue;
    let zeroed = false;
    if (!data[name]) {
      try {
        const { elements, array, dtype: own } = forms[name];
        const room = makeLike(name, hidden, elements, array, buffers, own);
        made.push(room);
        data[name] = room.data;
        zeroed = room.zeroed;
      } catch (error) {
        discard();
        throw error;
      }
    }
    request[name] = {
      data: rawMemory(data[name]),
      accumulate: accumulated.has(name),
      zeroed,
    };
  }
  const loans = made.flatMap(({ giveBack }) => giveBack ?? []);
  return { data, request, loans, discard };
}
