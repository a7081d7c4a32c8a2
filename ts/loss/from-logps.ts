/** The loss of sequence log-probabilities. */
import { allocate } from '../batch/arrays.js';
import { checkCounts, checkLogps, checkSequences } from '../batch/per-sequence.js';
import { metricNames } from '../catalogue.js';
import { checkObject, readProperties } from '../given.js';
import { nativeError } from '../native/call.js';
import { native } from '../native/interface.js';
import type { Settings } from '../settings.js';
import { readMetrics } from './reported-metrics.js';
import type { LogpsResult } from './results.js';
import { allocateOutputs, checkGradientScale, readReference } from './values.js';

export function fromLogps(settings: Settings, given: unknown, run: unknown = {}): LogpsResult {
  checkObject('fromLogps', given, 'ERR_DIRALIGN_SHAPE', 'an object with logps and counts');
  const batch = readProperties(
    'batch',
    given,
    ['logps', 'counts', 'reference'],
    'ERR_DIRALIGN_SHAPE',
  );
  checkObject('run', run);
  const gradientScale = checkGradientScale(
    readProperties('run', run, ['gradientScale']).gradientScale,
  );
  const logps = checkLogps('logps', batch.logps, undefined, 'ERR_DIRALIGN_DTYPE');
  const sequences = logps.length;
  checkSequences(sequences, settings.info.name !== 'sft');
  const counts = checkCounts(batch.counts, logps);
  const reference = readReference(settings, batch.reference, sequences);
  const request = {
    method: settings.method,
    settings: settings.native,
    sequences,
    logps,
    counts,
    reference,
    gradLogps: allocate('gradLogps', 'Float64Array', sequences),
    gradientScale,
    ...allocateOutputs(settings, sequences),
  };
  try {
    native().fromLogps(request);
  } catch (cause) {
    throw nativeError(cause);
  }
  return {
    loss: request.metrics[metricNames.length] as number,
    losses: request.losses,
    rewards: request.rewards,
    metrics: readMetrics(settings, request.metrics, 0),
    gradLogps: request.gradLogps,
  };
}
