/** The values of a loss: what the objective needs of the batch, and the arrays it fills. */
import { allocate } from '../batch/arrays.js';
import { checkLabels } from '../batch/labels.js';
import { checkLogps, checkReference, checkSequences } from '../batch/per-sequence.js';
import type { BatchRows } from '../batch/types.js';
import { metricNames } from '../catalogue.js';
import { rangeError, typeError } from '../errors.js';
import { describe } from '../given.js';
import { Target, type BatchRequest, type LossRequest } from '../native/interface.js';
import type { Settings } from '../settings.js';
import { readAsked, readMetrics } from './reported-metrics.js';
import type { LossValues } from './results.js';

/** A request without its gradient. */
export type ValuesRequest = Pick<
  LossRequest,
  | 'batch'
  | 'method'
  | 'settings'
  | 'reference'
  | 'losses'
  | 'rewards'
  | 'coefficients'
  | 'metrics'
  | 'metricsAsked'
  | 'logps'
>;

/** Checks the objective against the batch, and makes room for the values. */
export function prepareValues(
  settings: Settings,
  base: BatchRequest,
  batch: BatchRows,
  gradient: 'dense' | 'factored' | 'none',
  metrics: unknown,
): ValuesRequest {
  const paired = settings.info.name !== 'sft';
  checkSequences(base.sequences, paired);
  const metricsAsked = readAsked(settings, metrics);
  const reference = readReference(settings, batch.reference, base.sequences);
  if (batch.sftLabels !== undefined) {
    if (!paired)
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        "sftLabels: 'sft' has one set of labels; pass them as labels",
      );
    if (gradient === 'factored')
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        "sftLabels: not with gradient 'factored', which has one scale per row",
      );
    const sftLabels = checkLabels('sftLabels', batch.sftLabels, base.rows);
    if (settings.hasSftTerm) base.sftLabels = sftLabels;
  }
  return {
    batch: base,
    method: settings.method,
    settings: settings.native,
    reference,
    metricsAsked,
    logps: allocate('logps', 'Float64Array', base.sequences),
    ...allocateOutputs(settings, base.sequences),
  };
}

/** `run.gradientScale`: any finite number, 1 by default. */
export function checkGradientScale(scale: unknown = 1): number {
  if (Number.isFinite(scale)) return scale as number;
  const message = `gradientScale: ${describe(scale)} is not a finite number`;
  throw typeof scale === 'number'
    ? rangeError('ERR_DIRALIGN_OPTION', message)
    : typeError('ERR_DIRALIGN_OPTION', message);
}

/**
 * The reference's numbers, where the method needs them. Where it does not, they may be there, and
 * only their kind is checked.
 */
export function readReference(
  settings: Settings,
  value: unknown,
  sequences: number,
): Float64Array | Float32Array | undefined {
  if (settings.usesReference) return checkReference(value, sequences, settings.info.name);
  if (value !== undefined) checkLogps('reference', value, undefined, 'ERR_DIRALIGN_REFERENCE');
  return undefined;
}

/** Arrays for the values of a loss. */
export function allocateOutputs(settings: Settings, sequences: number) {
  const paired = settings.info.name !== 'sft';
  return {
    losses: allocate('losses', 'Float64Array', paired ? sequences / 2 : sequences),
    rewards: allocate('rewards', 'Float64Array', sequences),
    coefficients: allocate('coefficients', 'Float64Array', sequences),
    metrics: allocate('metrics', 'Float64Array', metricNames.length + 1),
  };
}

/** The values of a request that the native side has filled. */
export function valuesOf(settings: Settings, request: ValuesRequest): LossValues {
  return {
    loss: request.metrics[metricNames.length] as number,
    losses: request.losses,
    logps: request.logps,
    counts: request.batch.counts,
    rewards: request.rewards,
    coefficients: request.coefficients,
    metrics: readMetrics(settings, request.metrics, request.metricsAsked),
    backend: request.batch.target === Target.cpu ? 'cpu' : 'cuda',
  };
}
