/** The gradient of a loss that the caller has differentiated by log-probabilities and entropies. */
import { checkArray, checkLength, unshared } from '../batch/arrays.js';
import { backendOf } from '../batch/dtype-and-place.js';
import { checkLogps } from '../batch/per-sequence.js';
import { isHidden, readBatch, type GivenBatch } from '../batch/given-batch.js';
import type { HiddenBatch, Like, Logits, LogitsBatch, Logps } from '../batch/types.js';
import { typeError } from '../errors.js';
import { checkObject, define, readProperties } from '../given.js';
import {
  type BackwardRequest,
  type BatchRequest,
  type Differentiated,
} from '../native/interface.js';
import * as requests from '../native/requests.js';
import { checkParallel, type CheckedParallel, type Door } from '../distributed/parallel.js';
import { computeLater, computeNow, refuseSignal, type PreparedCall } from './call.js';
import { prepareHidden } from './from-hidden.js';
import { prepareLogits, readRun, type Computation } from './from-logits.js';
import type { GradientBuffers } from './gradient-buffers.js';
import { readHiddenRun } from './hidden-options.js';
import type {
  Float32Gradient,
  GradientMode,
  HiddenGradientMode,
  HiddenRunOptions,
  RunOptions,
} from './options.js';
import type { LayerGradients, LentBy, LogitsGradient, TokenLogpsValues } from './results.js';

/**
 * The derivatives of a loss, as far as the caller's own mathematics goes: by the log-probability of
 * each row (`rows`) or, in its place, of each sequence (`sequences`), and by the entropy of each
 * row's softmax. Numbers of ignored rows are not read.
 */
export interface LogpsDerivatives {
  /** One per row. */
  readonly rows?: Logps | undefined;
  /** One per sequence, of its sum over scored rows, `tokenWeights` included. */
  readonly sequences?: Logps | undefined;
  /** One per row, in loss per nat; not with `gradient: 'factored'`. */
  readonly entropy?: Logps | undefined;
  /**
   * What `tokenLogps` returned for the same batch: spares the reduction, so that each scored logit
   * is read once and written once.
   */
  readonly forward?: TokenLogpsValues | undefined;
}

type GradientOf = Exclude<GradientMode, 'none'>;
/** As in {@link RunOptions}. */
export type BackwardRunOptions<
  L extends Logits,
  Mode extends GradientOf,
  Lent extends GradientBuffers | undefined = undefined,
> = Omit<RunOptions<L, Mode, readonly [], Lent>, 'metrics'>;
/** As in {@link HiddenRunOptions}. */
export type HiddenBackwardRunOptions<
  L extends Logits,
  OfHidden extends Like<L> | boolean,
  OfWeight extends Float32Gradient<L> | boolean,
  OfBias extends Float32Gradient<L> | boolean,
  Lent extends GradientBuffers | undefined = undefined,
> = Omit<HiddenRunOptions<L, 'dense', OfHidden, OfWeight, OfBias, readonly [], Lent>, 'metrics'>;

interface ByWhom {
  /** Who computed. */
  readonly backend: 'cpu' | 'cuda';
}
interface OfLayer extends ByWhom {
  /** Bytes of workspace that were used, at most `run.memory`. */
  readonly memory: number;
}

/** What a call returns, at once or later. */
type Returned<Later extends boolean, Result> = Later extends true ? Promise<Result> : Result;

/** The calls of {@link logpsBackward}, which return at once or later. */
export interface BackwardCalls<Later extends boolean> {
  /**
   * The gradient by the logits of sum over rows of `rows` log p + sum of `entropy` H: with it any
   * loss of log-probabilities has this package's kernels.
   * @throws DirAlignError before anything is written; `code` says what is wrong
   */
  <
    L extends Logits,
    Mode extends GradientOf = 'dense',
    Lent extends GradientBuffers | undefined = undefined,
  >(
    batch: LogitsBatch<L>,
    derivatives: LogpsDerivatives,
    run?: BackwardRunOptions<L, Mode, Lent>,
  ): Returned<Later, LogitsGradient<L, Mode> & LentBy<Lent> & ByWhom>;
  /** The same by hidden states, weight and bias of an output layer. */
  <
    L extends Logits,
    Bias extends Like<L> | undefined = undefined,
    OfHidden extends Like<L> | boolean = true,
    OfWeight extends Float32Gradient<L> | boolean = true,
    OfBias extends Float32Gradient<L> | boolean = true,
    Lent extends GradientBuffers | undefined = undefined,
  >(
    batch: HiddenBatch<L, Bias>,
    derivatives: LogpsDerivatives,
    run?: HiddenBackwardRunOptions<L, OfHidden, OfWeight, OfBias, Lent>,
  ): Returned<
    Later,
    LayerGradients<L, Bias, 'dense', OfHidden, OfWeight, OfBias> & LentBy<Lent> & OfLayer
  >;
}

/** {@link logpsBackward}. */
export interface LogpsBackward extends BackwardCalls<false> {
  /**
   * The same, bit for bit, off the event loop. The arrays of the batch belong to the computation
   * until the promise settles; the derivatives are copied first. `run.signal` aborts.
   */
  readonly async: BackwardCalls<true>;
}

const derivativeKeys = ['rows', 'sequences', 'entropy', 'forward'] as const;
const runKeys = [
  'gradient',
  'inPlace',
  'out',
  'buffers',
  'gradientScale',
  'parallel',
  'backend',
  'threads',
  'signal',
] as const;

type GivenDerivatives = Record<(typeof derivativeKeys)[number], unknown>;

/** Each property read once. */
function readDerivatives(given: unknown): GivenDerivatives {
  checkObject('derivatives', given, 'ERR_DIRALIGN_OPTION', 'an object with rows or sequences');
  const derivatives = readProperties('derivatives', given, derivativeKeys);
  const { rows, sequences, entropy } = derivatives;
  if (rows !== undefined && sequences !== undefined)
    throw typeError('ERR_DIRALIGN_OPTION', 'sequences: not together with rows');
  if (rows === undefined && sequences === undefined && entropy === undefined)
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      'derivatives: has neither rows, sequences nor entropy, so there is nothing to compute',
    );
  return derivatives;
}

const floats = ['Float64Array', 'Float32Array'] as const;

function checkNumbers(name: string, value: unknown, length: number, of: string): Logps {
  const array = checkArray(name, value, floats, 'ERR_DIRALIGN_DTYPE');
  checkLength(name, array.length, length, of);
  return unshared(array);
}

/** What an earlier call of `tokenLogps` found. */
function checkForward(given: unknown, rows: number) {
  const absent = { logps: undefined, logsumexp: undefined, entropy: undefined };
  if (given === undefined) return absent;
  checkObject('forward', given, 'ERR_DIRALIGN_OPTION', 'what tokenLogps returned');
  const keys = ['logps', 'logsumexp', 'entropy'] as const;
  const found = readProperties('forward', given, [...keys, 'logCollision']);
  const [logps, logsumexp, entropy] = keys.map((key) => {
    const what = `forward.${key}`;
    const array = checkArray(what, found[key], ['Float64Array'], 'ERR_DIRALIGN_DTYPE');
    checkLength(what, array.length, rows, 'one per row');
    return unshared(array);
  });
  return { logps, logsumexp, entropy };
}

function backwardOf(
  given: GivenDerivatives,
  base: BatchRequest,
  batch: GivenBatch,
  mode: GradientMode,
): Computation<ByWhom> {
  if (mode === 'none')
    throw typeError('ERR_DIRALIGN_OPTION', "gradient: 'none' leaves nothing to compute");
  if (mode === 'factored' && given.entropy !== undefined)
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      "entropy: not with gradient 'factored', which has one scale per row",
    );
  if (batch.sftLabels !== undefined)
    throw typeError('ERR_DIRALIGN_OPTION', 'sftLabels: logpsBackward has one set of labels');
  // Not read, and none of the arrays that a gradient may not overlap unless it is one.
  if (batch.reference !== undefined)
    checkLogps('reference', batch.reference, undefined, 'ERR_DIRALIGN_REFERENCE');
  if (batch.tokenWeights !== undefined && given.sequences === undefined)
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      'tokenWeights: are those of sequences; multiply rows by them',
    );
  const of = (name: 'rows' | 'sequences' | 'entropy', length: number, each: string) =>
    given[name] === undefined
      ? undefined
      : checkNumbers(`derivatives.${name}`, given[name], length, each);
  const { logps, logsumexp, entropy } = checkForward(given.forward, base.rows);
  const own: Omit<BackwardRequest, keyof Differentiated> = {
    batch: base,
    rows: of('rows', base.rows, 'one per row'),
    sequences: of('sequences', base.sequences, 'one per sequence'),
    entropy: of('entropy', base.rows, 'one per row'),
    forwardLogps: logps,
    forwardLogsumexp: logsumexp,
    forwardEntropy: entropy,
  };
  return {
    start: ({ layer, gradients }, done) =>
      requests.logpsBackward({ ...own, layer, gradients }, done),
    values: () => ({ backend: backendOf(base.target) }),
  };
}

/** A call whose options are read. */
interface ReadCall {
  readonly signal: AbortSignal | undefined;
  readonly parallel: unknown;
  readonly door: Door;
  readonly prepare: (parallel: CheckedParallel) => PreparedCall<object>;
}

function readCall(givenBatch: unknown, givenDerivatives: unknown, run: unknown): ReadCall {
  const batch = readBatch(givenBatch);
  const derivatives = readDerivatives(givenDerivatives);
  if (isHidden(batch)) {
    const options = readHiddenRun(run);
    if (options.metrics !== undefined)
      throw typeError('ERR_DIRALIGN_OPTION', 'metrics: logpsBackward has none');
    const mode: HiddenGradientMode = options.gradient ?? 'dense';
    const prepare = (parallel: CheckedParallel) =>
      prepareHidden(batch, options, (base) => backwardOf(derivatives, base, batch, mode), parallel);
    return { signal: options.signal, parallel: options.parallel, door: hiddenDoor, prepare };
  }
  const options = readRun(run, runKeys);
  const prepare = (parallel: CheckedParallel) =>
    prepareLogits(
      batch,
      options,
      (base, _, mode) => backwardOf(derivatives, base, batch, mode),
      parallel,
    );
  return { signal: options.signal, parallel: options.parallel, door: logitsDoor, prepare };
}

const logitsDoor: Door = { name: 'logpsBackward', keys: ['vocab', 'columnGrid'] };
const hiddenDoor: Door = {
  ...logitsDoor,
  keys: [...logitsDoor.keys, 'gradHidden', 'wire'],
};

function call(batch: unknown, derivatives: unknown, run?: unknown): unknown {
  const { signal, door, prepare, parallel: given } = readCall(batch, derivatives, run);
  refuseSignal(signal, 'logpsBackward.async');
  const parallel = checkParallel(given, false, door);
  return computeNow(() => prepare(parallel), parallel);
}
async function later(batch: unknown, derivatives: unknown, run?: unknown): Promise<unknown> {
  const { signal, door, prepare, parallel: given } = readCall(batch, derivatives, run);
  const parallel = checkParallel(given, true, door);
  return computeLater(signal, () => prepare(parallel), parallel);
}
define(call, 'async', later);

/** The gradient of any loss of log-probabilities and entropies: see {@link LogpsBackward}. */
export const logpsBackward = Object.freeze(call) as unknown as LogpsBackward;
