/** The loss of sequence log-probabilities. */
import { checkFields, giveBackFields, sequenceFieldNames } from '../batch/fields.js';
import { checkCounts, checkLogps } from '../batch/per-sequence.js';
import type { LogpsBatch, Needed } from '../batch/types.js';
import type { Method, ReferenceNeed } from '../catalogue.js';
import {
  checkParallel,
  tellLater,
  tellNow,
  type CheckedParallel,
  type Door,
} from '../distributed/parallel.js';
import { checkObject, define, readProperties } from '../given.js';
import { answered, nativeError } from '../native/call.js';
import { filled, giveBack, resultOf } from '../native/filled.js';
import * as requests from '../native/requests.js';
import type { FromLogpsRequest } from '../native/interface.js';
import type { Mixture } from '../mixture.js';
import { checkSequences, unitsOf } from '../units.js';
import type { LogpsRunOptions } from './options.js';
import type { LogpsResult } from './results.js';
import {
  allocateOutputs,
  checkGradientScale,
  readGroups,
  readReference,
  takeOutputs,
} from './values.js';

/** `objective.fromLogps`. */
export interface FromLogps<
  M extends Method = Method,
  Need extends ReferenceNeed = ReferenceNeed,
> extends LogpsCall<M, Need> {
  /** The same, bit for bit: what other ranks have is waited for off the event loop. */
  async(batch: LogpsBatch & Needed<Need, M>, run?: LogpsRunOptions): Promise<LogpsResult<M>>;
}

// A method, for the same reason as the call of an objective.
type LogpsCall<M extends Method, Need extends ReferenceNeed> = {
  /** Loss, metrics and dLoss/dlogps from sequence log-probabilities that a trainer already has. */
  call(batch: LogpsBatch & Needed<Need, M>, run?: LogpsRunOptions): LogpsResult<M>;
}['call'];

const door: Door = { name: 'fromLogps', keys: ['data'] };

export function fromLogps(mixture: Mixture): FromLogps {
  const call = (given: unknown, run: unknown): LogpsResult => {
    const { gradientScale, parallel } = readRun(run, false);
    try {
      const request = prepare(mixture, given, gradientScale, parallel);
      requests.fromLogps(request);
      return logpsResult(mixture, request);
    } catch (cause) {
      const error = nativeError(cause);
      tellNow(parallel.request, error);
      throw error;
    }
  };
  const later = async (given: unknown, run: unknown): Promise<LogpsResult> => {
    const { gradientScale, parallel } = readRun(run, true);
    try {
      const request = prepare(mixture, given, gradientScale, parallel);
      await answered<boolean>((done) => {
        requests.fromLogps(request, done);
      });
      return logpsResult(mixture, request);
    } catch (cause) {
      const error = nativeError(cause);
      await tellLater(parallel.request, error);
      throw error;
    }
  };
  define(call, 'async', later);
  return Object.freeze(call) as unknown as FromLogps;
}

function readRun(
  run: unknown = {},
  isLater: boolean,
): { readonly gradientScale: unknown; readonly parallel: CheckedParallel } {
  checkObject('run', run);
  const { gradientScale, parallel } = readProperties('run', run, ['gradientScale', 'parallel']);
  return { gradientScale, parallel: checkParallel(parallel, isLater, door) };
}

function prepare(
  mixture: Mixture,
  given: unknown,
  gradientScale: unknown,
  { request: parallel, isAsked }: CheckedParallel,
): FromLogpsRequest {
  checkObject('fromLogps', given, 'ERR_DIRALIGN_SHAPE', 'an object with logps and counts');
  const batch = readProperties(
    'batch',
    given,
    ['logps', 'counts', 'reference', 'groups', ...sequenceFieldNames],
    'ERR_DIRALIGN_SHAPE',
  );
  const scale = checkGradientScale(gradientScale);
  const logps = checkLogps('logps', batch.logps, undefined, 'ERR_DIRALIGN_DTYPE');
  const sequences = logps.length;
  checkSequences(mixture, sequences, isAsked);
  const counts = checkCounts(batch.counts, logps);
  const reference = readReference(mixture, batch.reference, sequences);
  const groups = readGroups(mixture, batch.groups, sequences, isAsked);
  const units = unitsOf(mixture, sequences, groups);
  const sizes = { unit: units, sequence: sequences, row: 0, groups };
  const fields = checkFields(mixture.name, mixture.fields, batch, sizes, undefined, (ratios) => {
    if (isAsked) parallel.logRatios = ratios;
  });
  const { methods, settings, shares } = mixture.native;
  const outputs = allocateOutputs(mixture, sequences, units);
  const { losses, rewards, coefficients, metrics, values } = outputs;
  return {
    methods,
    settings,
    shares,
    losses,
    rewards,
    coefficients,
    metrics,
    values,
    groups,
    fields,
    sequences,
    logps,
    counts,
    reference,
    gradLogps: filled('gradLogps', 'Float64Array', sequences),
    gradientScale: scale,
    parallel: isAsked ? parallel : undefined,
  };
}

function logpsResult(mixture: Mixture, request: FromLogpsRequest): LogpsResult {
  const { gradLogps, coefficients, fields, parallel } = request;
  giveBack(coefficients);
  giveBackFields(fields);
  return {
    ...takeOutputs(mixture, request, parallel, 0),
    gradLogps: resultOf(gradLogps),
  };
}
