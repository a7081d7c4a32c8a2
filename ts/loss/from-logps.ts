/** The loss of sequence log-probabilities. */
import { allocate } from '../batch/arrays.js';
import { checkFields, sequenceFieldNames } from '../batch/fields.js';
import { checkCounts, checkLogps } from '../batch/per-sequence.js';
import { checkObject, readProperties } from '../given.js';
import { nativeError } from '../native/call.js';
import * as listed from '../native/listed.js';
import { native } from '../native/interface.js';
import type { Mixture } from '../mixture.js';
import { checkSequences, unitsOf } from '../units.js';
import type { LogpsResult } from './results.js';
import {
  allocateOutputs,
  checkGradientScale,
  readGroups,
  readOutputs,
  readReference,
} from './values.js';

export function fromLogps(mixture: Mixture, given: unknown, run: unknown = {}): LogpsResult {
  checkObject('fromLogps', given, 'ERR_DIRALIGN_SHAPE', 'an object with logps and counts');
  const batch = readProperties(
    'batch',
    given,
    ['logps', 'counts', 'reference', 'groups', ...sequenceFieldNames],
    'ERR_DIRALIGN_SHAPE',
  );
  checkObject('run', run);
  const gradientScale = checkGradientScale(
    readProperties('run', run, ['gradientScale']).gradientScale,
  );
  const logps = checkLogps('logps', batch.logps, undefined, 'ERR_DIRALIGN_DTYPE');
  const sequences = logps.length;
  checkSequences(mixture, sequences);
  const counts = checkCounts(batch.counts, logps);
  const reference = readReference(mixture, batch.reference, sequences);
  const groups = readGroups(mixture, batch.groups, sequences);
  const units = unitsOf(mixture, sequences, groups);
  const sizes = { unit: units, sequence: sequences, row: 0, groups };
  const request = {
    ...mixture.native,
    groups,
    fields: checkFields(mixture.name, mixture.fields, batch, sizes),
    sequences,
    logps,
    counts,
    reference,
    gradLogps: allocate('gradLogps', 'Float64Array', sequences),
    gradientScale,
    ...allocateOutputs(mixture, sequences, units),
  };
  try {
    native().fromLogps(listed.fromLogps(request));
  } catch (cause) {
    throw nativeError(cause);
  }
  return { ...readOutputs(mixture, request, 0), gradLogps: request.gradLogps };
}
