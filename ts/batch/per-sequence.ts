/** Arrays with a number for each sequence: log-probabilities, the reference's, and counts. */
import { rangeError, typeError } from '../errors.js';
import { checkArray, checkLength, unshared } from './arrays.js';

/** Log-probabilities per sequence, of the policy or the reference. */
export function checkLogps(
  name: string,
  value: unknown,
  sequences: number | undefined,
  code: 'ERR_DIRALIGN_REFERENCE' | 'ERR_DIRALIGN_DTYPE',
): Float64Array | Float32Array {
  const logps = unshared(checkArray(name, value, ['Float64Array', 'Float32Array'], code));
  if (sequences !== undefined && logps.length !== sequences) {
    throw rangeError(
      code === 'ERR_DIRALIGN_DTYPE' ? 'ERR_DIRALIGN_SHAPE' : code,
      `${name}: length ${String(logps.length)}; expected ${String(sequences)}, one per sequence`,
    );
  }
  return logps;
}

/**
 * The reference's numbers are made by the caller: a NaN or an infinity there is a mistake, not a
 * numerical event.
 */
export function checkReference(
  value: unknown,
  sequences: number,
  who: string,
): Float64Array | Float32Array {
  if (value === undefined) {
    throw typeError(
      'ERR_DIRALIGN_REFERENCE',
      `reference: ${who} needs the reference's log-probability of each sequence (or ` +
        'referenceFree: true)',
    );
  }
  const reference = checkLogps('reference', value, sequences, 'ERR_DIRALIGN_REFERENCE');
  // Not findIndex, which calls back for every sequence.
  for (let s = 0; s < reference.length; s++) {
    if (Number.isFinite(reference[s])) continue;
    throw rangeError(
      'ERR_DIRALIGN_REFERENCE',
      `reference: ${String(reference[s])} at index ${String(s)} is not finite`,
    );
  }
  return reference;
}

/**
 * Scored tokens per sequence, or the sums of their weights. A sequence without one has
 * log-probability 0; any other value shows that its count is wrong.
 */
export function checkCounts(value: unknown, logps: Float64Array | Float32Array): Float64Array {
  // Not from, which asks the array for its iterator.
  const counts = new Float64Array(
    checkArray('counts', value, ['Int32Array', 'Float64Array'], 'ERR_DIRALIGN_SHAPE'),
  );
  checkLength('counts', counts.length, logps.length, 'one per sequence');
  for (let s = 0; s < counts.length; s++) {
    const count = counts[s] as number;
    if ((count > 0 && count < Infinity) || (count === 0 && logps[s] === 0)) continue;
    const why =
      count !== 0
        ? count < 0
          ? 'is negative'
          : 'is not a finite number'
        : `says that no token is scored, but logps[${s}] is ${String(logps[s])}; ` +
          'expected its tokens';
    throw rangeError('ERR_DIRALIGN_SHAPE', `counts: ${count} at index ${s} ${why}`);
  }
  return counts;
}
