/** The loss of a batch of logits. */
import { allocate } from '../batch/arrays.js';
import { checkBackend, rawMemory, type Backend } from '../batch/dtype-and-place.js';
import { rowInputs } from '../batch/extent.js';
import { asLogitsBatch, readBatch } from '../batch/given-batch.js';
import { checkLogitsBatch } from '../batch/logits.js';
import type { Logits } from '../batch/types.js';
import { typeError } from '../errors.js';
import { checkObject, describe, readProperties } from '../given.js';
import { Target } from '../native/interface.js';
import type { Settings } from '../settings.js';
import { computeLater, computeNow, refuseSignal, type PreparedLoss } from './call.js';
import { prepareGradient } from './gradient-output.js';
import type { GradientMode, RunOptions } from './options.js';
import type { LossResult } from './results.js';
import { checkGradientScale, prepareValues, valuesOf } from './values.js';

const gradientModes: readonly GradientMode[] = ['none', 'dense', 'factored'];

const runKeys = [
  'gradient',
  'inPlace',
  'out',
  'gradientScale',
  'metrics',
  'backend',
  'threads',
  'signal',
] as const;

/** The options of a call, each read once. */
function readRun(run: unknown): RunOptions<Logits> {
  const given = run === undefined ? {} : run;
  checkObject('run', given);
  return readProperties('run', given, runKeys) as RunOptions<Logits>;
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

/** Refuses what can be refused, except label values: only the native side looks at those. */
function prepareLoss(
  settings: Settings,
  given: unknown,
  run: RunOptions<Logits>,
): PreparedLoss<LossResult<Logits>> {
  const batch = asLogitsBatch(readBatch(given));
  const { mode, gradientScale, backend } = checkRun(run);
  const { request: base, logits } = checkLogitsBatch(batch, run.threads, backend);
  const values = prepareValues(settings, base, batch, mode, run.metrics);
  const rowScale =
    mode === 'factored' ? allocate('rowScale', 'Float32Array', base.rows) : undefined;
  // Last, so that a refusal above has no device memory to free.
  const { gradLogits, data, elements, discard } = prepareGradient(
    batch.logits,
    logits,
    base,
    mode,
    run,
    rowInputs(batch),
  );
  const request = {
    ...values,
    layer: undefined,
    layerGradients: undefined,
    gradientMode: gradientModes.indexOf(mode),
    gradient: data && rawMemory(data),
    gradientElements: elements,
    gradientScale,
    gradientIsFresh:
      base.target !== Target.device &&
      gradLogits !== undefined &&
      !run.inPlace &&
      run.out === undefined,
    rowScale,
  };
  const result = (): LossResult<Logits> => {
    const found = valuesOf(settings, request);
    if (!gradLogits) return found;
    return rowScale ? { ...found, gradLogits, rowScale } : { ...found, gradLogits };
  };
  return { request, memory: [logits, data], result, discard };
}

/** The call of an objective on logits, and the same off the event loop. */
export function fromLogits(settings: Settings) {
  const call = (batch: unknown, run: unknown): LossResult<Logits> => {
    const options = readRun(run);
    refuseSignal(options.signal, 'objective.async');
    return computeNow(prepareLoss(settings, batch, options));
  };
  const later = async (batch: unknown, run: unknown): Promise<LossResult<Logits>> => {
    const options = readRun(run);
    return computeLater(options.signal, () => prepareLoss(settings, batch, options));
  };
  return { call, later };
}
