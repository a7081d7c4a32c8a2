/**
 * The output layer fused with the loss: batches of hidden states, and where the gradients of the
 * layer go.
 */
import {
  allocate,
  checkArray,
  checkLength,
  tagOf,
  type Kind as ArrayKind,
} from './batch/arrays.js';
import {
  asHiddenBatch,
  checkApart,
  checkBackend,
  checkElements,
  checkLike,
  checkOutline,
  checkRows,
  extent,
  rawMemory,
  readBatch,
  rowInputs,
  type Backend,
  type Extent,
  type Extents,
} from './batch/batch.js';
import { hiddenReason } from './device/status.js';
import { allocateLike, DeviceTensor, type DeviceBuffer } from './device/memory.js';
import { elementBytes, type Dtype } from './dtype.js';
import { rangeError, typeError } from './errors.js';
import {
  checkObject,
  define,
  describe,
  isArray,
  quoted,
  readElements,
  readProperties,
} from './given.js';
import {
  checkGradientScale,
  computeLater,
  computeNow,
  prepareValues,
  refuseSignal,
  valuesOf,
  type PreparedLoss,
} from './loss-call.js';
import {
  Target,
  type BatchRequest,
  type LayerGradientRequest,
  type LayerRequest,
} from './native/interface.js';
import type { Method, ReferenceNeed } from './catalogue.js';
import type { RowMetric } from './metrics.js';
import type { Settings } from './settings.js';
import type { HiddenBatch, Like, Logits, LogitsArray, Needed } from './batch/types.js';
import type {
  Float32Gradient,
  HiddenGradient,
  HiddenGradientMode,
  HiddenRunOptions,
} from './loss/options.js';
import type { HiddenLossResult } from './loss/results.js';

/**
 * The call of `objective.fromHidden`: a method, for the reason that the call of an objective is
 * one.
 */
type HiddenCall<M extends Method, Need extends ReferenceNeed> = {
  /**
   * Loss, metrics and the gradients of hidden states, output weight and bias, computed before it
   * returns. The logits of the batch are never there: they are made a few rows at a time, in a
   * workspace of at most `run.memory` bytes. Values and gradients are those that the logits would
   * give, for every method. Neither prompt rows nor rows without a coefficient take part in a
   * product that they do not need. Device memory is read in the order of its stream, which the call
   * waits for.
   * @throws DirAlignError before anything is written, unless a device fails (ERR_DIRALIGN_DEVICE);
   *   `code` says what is wrong. A `memory`
   *   that is too small (ERR_DIRALIGN_OPTION) is told how many bytes would do.
   *
   * @example
   * const batch = { hidden, weight, shape: [4, 512, 128256], labels, reference };
   * const { loss, gradHidden, gradWeight } = dpo.fromHidden(batch);
   */
  call<
    L extends Logits,
    Bias extends Like<L> | undefined = undefined,
    Mode extends HiddenGradientMode = 'dense',
    OfHidden extends Like<L> | boolean = true,
    OfWeight extends Float32Gradient<L> | boolean = true,
    OfBias extends Float32Gradient<L> | boolean = true,
    const Names extends readonly RowMetric<M>[] = readonly [],
  >(
    batch: HiddenBatch<L, Bias> & Needed<Need>,
    run?: HiddenRunOptions<L, Mode, OfHidden, OfWeight, OfBias, Names>,
  ): HiddenLossResult<L, Bias, Mode, OfHidden, OfWeight, OfBias, M, Names>;
}['call'];

/** `objective.fromHidden`. */
export interface FromHidden<
  M extends Method = Method,
  Need extends ReferenceNeed = ReferenceNeed,
> extends HiddenCall<M, Need> {
  /**
   * The same, bit for bit, off the event loop, on a device, too. The arrays of the batch and of
   * `run.out` belong to the computation until the promise settles; if one is transferred meanwhile,
   * it rejects with code ERR_DIRALIGN_SHAPE. `run.signal` aborts: the promise rejects with code
   * ERR_DIRALIGN_ABORTED once the rows in hand are done, and the buffers of `out` are then
   * incomplete.
   */
  async<
    L extends Logits,
    Bias extends Like<L> | undefined = undefined,
    Mode extends HiddenGradientMode = 'dense',
    OfHidden extends Like<L> | boolean = true,
    OfWeight extends Float32Gradient<L> | boolean = true,
    OfBias extends Float32Gradient<L> | boolean = true,
    const Names extends readonly RowMetric<M>[] = readonly [],
  >(
    batch: HiddenBatch<L, Bias> & Needed<Need>,
    run?: HiddenRunOptions<L, Mode, OfHidden, OfWeight, OfBias, Names>,
  ): Promise<HiddenLossResult<L, Bias, Mode, OfHidden, OfWeight, OfBias, M, Names>>;
}

export function fromHidden(settings: Settings): FromHidden {
  const call = (batch: unknown, run: unknown): HiddenLossResult<Logits> => {
    const options = readRun(run);
    refuseSignal(options.signal, 'objective.fromHidden.async');
    return computeNow(prepareHidden(settings, batch, options));
  };
  const later = async (batch: unknown, run: unknown): Promise<HiddenLossResult<Logits>> => {
    const options = readRun(run);
    return computeLater(options.signal, () => prepareHidden(settings, batch, options));
  };
  define(call, 'async', later);
  // The types of the result follow those of the batch, which the checks hold to.
  return Object.freeze(call) as unknown as FromHidden;
}

// ----------------------------------------------------------------------------------------------
// The batch

/**
 * Bytes of workspace, where nothing is said: enough for products to be fast, little beside weights
 * and gradients.
 */
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

interface CheckedHidden {
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

function checkHidden(
  batch: HiddenBatch<Logits>,
  threads: number | undefined,
  backend: Backend,
  memory: unknown,
): CheckedHidden {
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

/** What `sequenceLogps` and `tokenLogps` take of a batch of hidden states. */
export function prepareHiddenLogps(
  batch: HiddenBatch<Logits>,
  threads: number | undefined,
  backend: Backend,
  memory: unknown,
): { readonly batch: BatchRequest; readonly layer: LayerRequest } {
  const { base, layer } = checkHidden(batch, threads, backend, memory);
  return { batch: base, layer };
}

// ----------------------------------------------------------------------------------------------
// The gradients

const runKeys = [
  'gradient',
  'inPlace',
  'out',
  'accumulate',
  'gradientScale',
  'metrics',
  'memory',
  'backend',
  'threads',
  'signal',
] as const;
const gradientNames: readonly HiddenGradient[] = ['gradHidden', 'gradWeight', 'gradBias'];

type GivenRun = HiddenRunOptions<Logits> & { readonly inPlace?: unknown };

/** The options of a call, each read once, and those within them. */
function readRun(run: unknown): GivenRun {
  const given = run === undefined ? {} : run;
  checkObject('run', given);
  const options = readProperties('run', given, runKeys);
  const { out } = options;
  if (out !== undefined) {
    const isTensor = out instanceof DeviceTensor;
    const expected = 'an object with gradHidden, gradWeight and gradBias';
    if (isTensor)
      throw typeError('ERR_DIRALIGN_OPTION', `out: expected ${expected}, not ${describe(out)}`);
    checkObject('out', out, 'ERR_DIRALIGN_OPTION', expected);
    options.out = readProperties('out', out, gradientNames);
  }
  options.accumulate = readElements(options.accumulate, gradientNames.length + 1);
  return options as GivenRun;
}

/** What is wanted of each gradient: a buffer, a fresh array (true), or nothing (false). */
type Wanted = Readonly<Record<HiddenGradient, unknown>>;

function checkRun(
  run: GivenRun,
  hasBias: boolean,
): { wanted: Wanted; accumulated: ReadonlySet<HiddenGradient> } {
  if (run.inPlace !== undefined) {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      'inPlace: from hidden states there are no logits to overwrite; pass buffers in out',
    );
  }
  const nothing = { gradHidden: undefined, gradWeight: undefined, gradBias: undefined };
  const { gradient = 'dense', out = nothing, accumulate = false } = run;
  if ((gradient as string) === 'factored') {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      "gradient: 'factored' is for logits; from hidden states there are 'dense' and 'none'",
    );
  }
  if ((gradient as unknown) !== 'dense' && (gradient as unknown) !== 'none') {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `gradient: ${describe(gradient)} is not one of 'dense', 'none'`,
    );
  }
  const absent = gradientNames.find((name) => (out[name] as unknown) === null);
  if (absent)
    throw typeError(
      'ERR_DIRALIGN_DTYPE',
      `out.${absent}: expected a buffer, true or false, not null`,
    );
  const buffers = gradientNames.filter((name) => typeof out[name] === 'object');
  const accumulated = checkAccumulate(accumulate, buffers);
  if (gradient === 'none') {
    const asked = gradientNames.find((name) => out[name] !== undefined && out[name] !== false);
    if (asked)
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        `out.${asked}: gradient is 'none', so there is nothing to write`,
      );
    return { wanted: { gradHidden: false, gradWeight: false, gradBias: false }, accumulated };
  }
  if (!hasBias && out.gradBias !== undefined && out.gradBias !== false) {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      'out.gradBias: the batch has no bias, so there is no gradient of it',
    );
  }
  return {
    wanted: {
      gradHidden: out.gradHidden ?? true,
      gradWeight: out.gradWeight ?? true,
      gradBias: out.gradBias ?? hasBias,
    },
    accumulated,
  };
}

function checkAccumulate(
  accumulate: unknown,
  buffers: readonly HiddenGradient[],
): ReadonlySet<HiddenGradient> {
  if (accumulate === false) return new Set();
  if (accumulate === true) {
    if (buffers.length === 0)
      throw typeError('ERR_DIRALIGN_OPTION', 'accumulate: there is no buffer in out to add to');
    return new Set(buffers);
  }
  if (!isArray(accumulate)) {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `accumulate: expected a boolean or an array of names, not ${describe(accumulate)}`,
    );
  }
  for (const name of accumulate) {
    if (!gradientNames.includes(name as HiddenGradient)) {
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        `accumulate: ${describe(name)} is not one of ${quoted(gradientNames)}`,
      );
    }
    if (!buffers.includes(name as HiddenGradient)) {
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        `accumulate: '${name as string}' has no buffer in out to add to`,
      );
    }
  }
  return new Set(accumulate as HiddenGradient[]);
}

/** One gradient: what it is of, and its length. */
interface Kind {
  readonly dtype: Dtype;
  readonly elements: number;
  /** For messages. */
  readonly of: string;
}

/**
 * The caller's buffer. A gradient of hidden states is an array of the very type that they are in.
 */
function checkBuffer(
  name: HiddenGradient,
  value: unknown,
  { dtype, elements, of }: Kind,
  hidden: Logits,
): Logits {
  const what = `out.${name}`;
  let out: Logits;
  if (hidden instanceof DeviceTensor || value instanceof DeviceTensor)
    out = checkLike(what, value, dtype, 'hidden', hidden);
  else {
    const type = name === 'gradHidden' ? (tagOf(hidden) as ArrayKind) : 'Float32Array';
    out = checkArray(what, value, [type], 'ERR_DIRALIGN_DTYPE') as LogitsArray;
  }
  if (out instanceof DeviceTensor) checkElements(what, out, elements, of);
  else checkLength(what, out.length, elements, of);
  return out;
}

/** Fresh memory where the hidden states are. */
function allocateFresh(
  { dtype, elements }: Kind,
  name: HiddenGradient,
  hidden: Logits,
): { data: Logits; buffer?: DeviceBuffer } {
  if (hidden instanceof DeviceTensor) {
    const { tensor, buffer } = allocateLike(hidden, elements * elementBytes[dtype], dtype);
    return { data: tensor, buffer };
  }
  return {
    data: allocate(
      name,
      name === 'gradHidden' ? (tagOf(hidden) as ArrayKind) : 'Float32Array',
      elements,
    ) as Logits,
  };
}

interface PreparedGradients {
  readonly data: Readonly<Partial<Record<HiddenGradient, Logits>>>;
  readonly request: Readonly<Record<HiddenGradient, LayerGradientRequest | undefined>>;
  readonly discard: () => void;
}

function prepareGradients(
  { wanted, accumulated }: ReturnType<typeof checkRun>,
  hidden: Logits,
  { base, layer, dtype, inputs }: CheckedHidden,
): PreparedGradients {
  const { rows, vocab } = base;
  const { hiddenSize } = layer;
  const kinds: Readonly<Record<HiddenGradient, Kind>> = {
    gradHidden: { dtype, elements: rows * hiddenSize, of: 'that of hidden' },
    gradWeight: { dtype: 'float32', elements: vocab * hiddenSize, of: 'that of the weight' },
    gradBias: { dtype: 'float32', elements: vocab, of: 'that of the bias' },
  };
  const data: Partial<Record<HiddenGradient, Logits>> = {};
  const written: Record<string, Extent> = {};
  for (const name of gradientNames) {
    if (typeof wanted[name] === 'boolean') continue;
    const buffer = checkBuffer(name, wanted[name], kinds[name], hidden);
    const memory = extent(buffer, kinds[name].elements);
    checkApart(`out.${name}`, memory, { ...inputs, ...written });
    data[name] = buffer;
    written[`out.${name}`] = memory;
  }
  // Nothing is refused from here on, but memory by the system or the device.
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
        const { data: own, buffer } = allocateFresh(kinds[name], name, hidden);
        if (buffer) fresh.push(buffer);
        data[name] = own;
        zeroed = buffer === undefined;
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

/**
 * Everything that can be refused is refused here, but for the labels and a workspace that is too
 * small.
 */
function prepareHidden(
  settings: Settings,
  given: unknown,
  run: GivenRun,
): PreparedLoss<HiddenLossResult<Logits>> {
  const batch = asHiddenBatch(readBatch(given, 'an object with hidden, weight, shape and labels'));
  const options = checkRun(run, batch.bias !== undefined);
  const gradientScale = checkGradientScale(run.gradientScale);
  const checked = checkHidden(batch, run.threads, checkBackend(run.backend ?? 'auto'), run.memory);
  const { hidden, base, layer } = checked;
  const values = prepareValues(settings, base, batch, 'dense', run.metrics);
  const { data, request: gradients, discard } = prepareGradients(options, hidden, checked);
  const request = {
    ...values,
    gradientMode: 0,
    gradient: undefined,
    gradientElements: 0,
    gradientIsFresh: false,
    gradientScale,
    rowScale: undefined,
    layer,
    layerGradients: {
      hidden: gradients.gradHidden,
      weight: gradients.gradWeight,
      bias: gradients.gradBias,
    },
  };
  const { gradHidden, gradWeight, gradBias } = data;
  const result = (): HiddenLossResult<Logits> => ({
    ...valuesOf(settings, request),
    ...(gradHidden && { gradHidden }),
    ...(gradWeight && { gradWeight: gradWeight as Float32Gradient<Logits> }),
    ...(gradBias && { gradBias: gradBias as Float32Gradient<Logits> }),
    memory: layer.memoryUsed[0] as number,
  });
  return {
    request,
    memory: [hidden, batch.weight, batch.bias, gradHidden, gradWeight, gradBias],
    result,
    discard,
  };
}
