/** The values of a loss: what the objective needs of the batch, and the arrays it fills. */
import { backendOf } from '../batch/dtype-and-place.js';
import { checkFields, checkGroups, giveBackFields } from '../batch/fields.js';
import { checkLabels } from '../batch/labels.js';
import { checkLogps, checkReference } from '../batch/per-sequence.js';
import type { BatchRows } from '../batch/types.js';
import { metricNames } from '../catalogue.js';
import type { OpenWindow } from '../distributed/window.js';
import { typeError } from '../errors.js';
import { checkNumber } from '../interval.js';
import {
  type BatchRequest,
  type Differentiated,
  type LossOutputs,
  type LossRequest,
  type ParallelRequest,
} from '../native/interface.js';
import { filled, giveBack, resultOf } from '../native/filled.js';
import * as requests from '../native/requests.js';
import type { Mixture } from '../mixture.js';
import { checkSequences, unitsOf } from '../units.js';
import type { Computation } from './from-logits.js';
import { readAsked, readMetrics } from './reported-metrics.js';
import type { LossValues } from './results.js';

/** A request without its gradient. */
export type ValuesRequest = Omit<LossRequest, keyof Differentiated>;

/** Checks the objective against the batch, and makes room for the values. */
export function prepareValues(
  mixture: Mixture,
  base: BatchRequest,
  batch: BatchRows,
  gradient: 'dense' | 'factored' | 'none',
  asked: unknown,
  window?: OpenWindow,
): ValuesRequest {
  const { sequences, rows } = base;
  // Other processes may have all of the units.
  const mayBeNone = base.parallel !== undefined;
  checkSequences(mixture, sequences, mayBeNone);
  base.groups = readGroups(mixture, batch.groups, sequences, mayBeNone);
  const units = unitsOf(mixture, sequences, base.groups);
  base.fields = checkFields(
    mixture.name,
    mixture.fields,
    batch,
    {
      unit: units,
      sequence: sequences,
      row: rows,
      groups: base.groups,
    },
    base.fields,
    (ratios) => {
      // Of a batch over processes it is the mean of them all.
      if (base.parallel) base.parallel.logRatios = ratios;
    },
  );
  const metricsAsked = readAsked(mixture, asked);
  const reference = readReference(mixture, batch.reference, sequences);
  if (batch.sftLabels !== undefined) {
    if (mixture.isLikelihood)
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        `sftLabels: ${mixture.name} has one set of labels; pass them as labels`,
      );
    if (gradient === 'factored')
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        "sftLabels: not with gradient 'factored', which has one scale per row",
      );
    const sftLabels = checkLabels('sftLabels', batch.sftLabels, rows);
    if (mixture.hasSftTerm) base.sftLabels = sftLabels;
  }
  window?.enter(mixture, batch, base);
  const { methods, settings, shares } = mixture.native;
  const { losses, rewards, coefficients, metrics, values } = allocateOutputs(
    mixture,
    sequences,
    units,
  );
  // Property by property: copying objects into one costs the engine microseconds.
  return {
    batch: base,
    methods,
    settings,
    shares,
    reference,
    losses,
    rewards,
    coefficients,
    metrics,
    values,
    metricsAsked,
    logps: filled('logps', 'Float64Array', sequences),
  };
}

/** Offsets of groups, where the units are groups; nothing else has any. */
export function readGroups(
  { arity, name }: Mixture,
  given: unknown,
  sequences: number,
  mayBeNone = false,
): Int32Array | undefined {
  if (arity === 'group') {
    if (given !== undefined) return checkGroups(given, sequences, mayBeNone);
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `groups: ${name} needs the offsets of its groups over the sequences`,
    );
  }
  if (given === undefined) return undefined;
  throw typeError('ERR_DIRALIGN_OPTION', `groups: ${name} gives it no meaning`);
}

const anyNumber = {};

/** `run.gradientScale`: any finite number, 1 by default. */
export function checkGradientScale(scale: unknown): number {
  return scale === undefined ? 1 : checkNumber('gradientScale', scale, anyNumber);
}

/**
 * The reference's numbers, where the method needs them. Where it does not, they may be there, and
 * only their kind is checked.
 */
export function readReference(
  { usesReference, name }: Mixture,
  value: unknown,
  sequences: number,
): Float64Array | Float32Array | undefined {
  if (usesReference) return checkReference(value, sequences, name);
  if (value !== undefined) checkLogps('reference', value, undefined, 'ERR_DIRALIGN_REFERENCE');
  return undefined;
}

/** Arrays for the values of a loss. */
export function allocateOutputs(
  { terms: { length } }: Mixture,
  sequences: number,
  units: number,
): LossOutputs {
  return {
    losses: filled('losses', 'Float64Array', length * units),
    rewards: filled('rewards', 'Float64Array', length * sequences),
    coefficients: filled('coefficients', 'Float64Array', sequences),
    metrics: filled('metrics', 'Float64Array', length * metricNames.length),
    values: filled('values', 'Float64Array', length),
  };
}

type Outputs = Pick<ValuesRequest, 'losses' | 'rewards' | 'metrics' | 'values' | 'shares'>;

/** Loss, losses, rewards and metrics of outputs that the native side has filled. */
export function readOutputs(mixture: Mixture, outputs: Outputs, asked: number) {
  const { losses, rewards, values, shares } = outputs;
  const metrics = readMetrics(mixture, outputs.metrics, asked);
  const { terms, hasParts } = mixture;
  if (!hasParts) return { loss: values[0] as number, losses, rewards, metrics };
  const units = losses.length / terms.length;
  const sum = (of: (term: number) => number): number =>
    terms.reduce((total, _, i) => total + (shares[i] === 0 ? 0 : (shares[i] as number) * of(i)), 0);
  return {
    loss: sum((i) => values[i] as number),
    losses: Float64Array.from({ length: units }, (_, u) =>
      sum((i) => losses[i * units + u] as number),
    ),
    rewards: rewards.slice(0, rewards.length / terms.length),
    metrics,
    terms: terms.map(({ weight, settings }, i) => ({
      method: settings.info.name,
      weight,
      loss: values[i] as number,
    })),
  };
}

/**
 * What a call that has ended gives its caller. Where losses are those of ranks of a sort, they are
 * the whole batch's.
 */
export function takeOutputs(
  mixture: Mixture,
  { losses, rewards, metrics, values, shares }: Outputs,
  parallel: ParallelRequest | undefined,
  asked: number,
) {
  const own = {
    losses: parallel?.losses ?? resultOf(losses),
    rewards: resultOf(rewards),
    metrics,
    values,
    shares,
  };
  const outputs = readOutputs(mixture, own, asked);
  giveBack(metrics);
  giveBack(values);
  return outputs;
}

/** A loss, and its values once it is computed. */
export function lossOf(
  mixture: Mixture,
  values: ValuesRequest,
  window?: OpenWindow,
): Computation<LossValues> {
  return {
    reference: values.reference,
    start: ({ layer, gradients }, done) => {
      const whole = values as LossRequest;
      whole.layer = layer;
      whole.gradients = gradients;
      return requests.loss(whole, done);
    },
    values: () => {
      window?.add(values.batch, values, values.metricsAsked);
      const { batch, metricsAsked } = values;
      const outputs = takeOutputs(mixture, values, batch.parallel, metricsAsked);
      giveBackFields(batch.fields);
      const { loss, losses, rewards, metrics } = outputs;
      const logps = resultOf(values.logps);
      const counts = resultOf(batch.counts);
      const coefficients = resultOf(values.coefficients);
      const backend = backendOf(batch.target);
      const result = { loss, losses, rewards, metrics, logps, counts, coefficients, backend };
      return mixture.hasParts ? { ...result, ...outputs } : result;
    },
  };
}
