/** The loss of a batch of logits. */
import { checkBackend, rawMemory, type Backend } from '../batch/dtype-and-place.js';
import { rowInputs } from '../batch/extent.js';
import { asLogitsBatch, readBatch, type GivenBatch } from '../batch/given-batch.js';
import { checkLogitsBatch } from '../batch/logits.js';
import type { Logits, LogitsBatch } from '../batch/types.js';
import { contract } from '../contract.generated.js';
import { typeError } from '../errors.js';
import { checkParallel, logitsDoor, type CheckedParallel } from '../distributed/parallel.js';
import { checkObject, describe, readProperties } from '../given.js';
import {
  type BadLabel,
  type BatchRequest,
  type Cancel,
  type Differentiated,
  type Done,
  type GradientRequest,
} from '../native/interface.js';
import { filled, resultOf } from '../native/filled.js';
import type { Mixture } from '../mixture.js';
import { computeLater, computeNow, refuseSignal, type PreparedCall } from './call.js';
import { makeLent } from './gradient-buffers.js';
import { prepareGradient } from './gradient-output.js';
import type { GradientMode, RunOptions } from './options.js';
import type { LogitsGradient, LossResult } from './results.js';
import { checkGradientScale, lossOf, prepareValues } from './values.js';

/** In the order of the native side's numbers. */
const gradientModes: readonly GradientMode[] = contract.gradientModes;

const runKeys = [
  'gradient',
  'inPlace',
  'out',
  'buffers',
  'gradientScale',
  'parallel',
  'metrics',
  'backend',
  'threads',
  'signal',
] as const;

/** The options of a call, each read once. */
export function readRun(
  run: unknown,
  keys: readonly (typeof runKeys)[number][] = runKeys,
): RunOptions<Logits> {
  const given = run === undefined ? {} : run;
  checkObject('run', given);
  return readProperties('run', given, keys) as RunOptions<Logits>;
}

interface CheckedRun {
  readonly mode: GradientMode;
  readonly gradientScale: number;
  readonly backend: Backend;
}

function checkRun(run: RunOptions<Logits>): CheckedRun {
  const { gradient = 'dense', inPlace = false, out, backend = 'auto' } = run;
  if (!gradientModes.includes(gradient)) {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `gradient: ${describe(gradient)} is not one of 'dense', 'factored', 'none'`,
    );
  }
  if (typeof inPlace !== 'boolean')
    throw typeError('ERR_DIRALIGN_OPTION', `inPlace: ${describe(inPlace)} is not a boolean`);
  if (inPlace && out !== undefined)
    throw typeError('ERR_DIRALIGN_OPTION', 'out: not together with inPlace');
  if (run.buffers !== undefined && (inPlace || out !== undefined))
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `buffers: not together with ${inPlace ? 'inPlace' : 'out'}`,
    );
  if (gradient === 'none' && (inPlace || out !== undefined)) {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `${inPlace ? 'inPlace' : 'out'}: gradient is 'none', so there is nothing to write`,
    );
  }
  return {
    mode: gradient,
    gradientScale: checkGradientScale(run.gradientScale),
    backend: checkBackend(backend),
  };
}

type Written<T> = { -readonly [Key in keyof T]: T[Key] };

/** What a call computes of a batch, but for the gradient that goes with it. */
export interface Computation<Values> {
  /** Calls the native side. */
  readonly start: (wanted: Differentiated, done?: Done) => BadLabel | Cancel | undefined;
  readonly reference?: unknown;
  /** The values, once it has run. */
  readonly values: () => Values;
}

/**
 * Refuses what can be refused, except label values: only the native side looks at those.
 * @param computation of the checked batch and what it is checked from.
 * @param parallel of a call that takes a part of a batch.
 */
export function prepareLogits<Values extends object>(
  given: GivenBatch,
  run: RunOptions<Logits>,
  computation: (
    base: BatchRequest,
    batch: LogitsBatch<Logits>,
    mode: GradientMode,
  ) => Computation<Values>,
  parallel?: CheckedParallel,
): PreparedCall<Values & LogitsGradient<Logits, GradientMode>> {
  const batch = asLogitsBatch(given);
  const { mode, gradientScale, backend } = checkRun(run);
  const { request: base, logits } = checkLogitsBatch(batch, run.threads, backend, parallel);
  const { start, values, reference } = computation(base, batch, mode);
  const rowScale = mode === 'factored' ? filled('rowScale', 'Float32Array', base.rows) : undefined;
  // Last, so that a refusal above has no device memory to free.
  const { gradLogits, data, elements, isFresh, loans, discard } = prepareGradient(
    batch.logits,
    logits,
    base,
    mode,
    run,
    rowInputs(batch),
  );
  const gradients: GradientRequest = {
    layerGradients: undefined,
    gradientMode: gradientModes.indexOf(mode),
    gradient: data && rawMemory(data),
    gradientElements: elements,
    gradientScale,
    gradientIsFresh: isFresh,
    rowScale,
  };
  return {
    request: { batch: base, reference, layer: undefined, gradients },
    start: (done?: Done) => start({ layer: undefined, gradients }, done) as never,
    memory: [logits, data],
    result: () => {
      const result = values() as Values & Written<LogitsGradient<Logits, GradientMode>>;
      if (gradLogits) result.gradLogits = gradLogits;
      if (gradLogits && rowScale) result.rowScale = resultOf(rowScale) as Float32Array<ArrayBuffer>;
      if (run.buffers) makeLent(result, loans);
      return result;
    },
    discard,
  };
}

/** The call of an objective on logits, and the same off the event loop. */
export function fromLogits(mixture: Mixture) {
  const prepare = (
    given: unknown,
    run: RunOptions<Logits>,
    parallel: CheckedParallel,
  ): PreparedCall<LossResult<Logits>> =>
    prepareLogits(
      readBatch(given),
      run,
      (base, batch, mode) => {
        const { window } = parallel;
        const values = prepareValues(mixture, base, batch, mode, run.metrics, window);
        return lossOf(mixture, values, window);
      },
      parallel,
    );
  const call = (batch: unknown, run: unknown): LossResult<Logits> => {
    const options = readRun(run);
    refuseSignal(options.signal, 'objective.async');
    const parallel = checkParallel(options.parallel, false, logitsDoor);
    return computeNow(() => prepare(batch, options, parallel), parallel);
  };
  const later = async (batch: unknown, run: unknown): Promise<LossResult<Logits>> => {
    const options = readRun(run);
    const parallel = checkParallel(options.parallel, true, logitsDoor);
    return computeLater(options.signal, () => prepare(batch, options, parallel), parallel);
  };
  return { call, later };
}
