/** The columns that a batch has of a vocabulary, where other processes have the others. */
import { rangeError, typeError } from '../errors.js';
import { checkObject, describe, readProperties } from '../given.js';
import { Target, type BatchRequest } from '../native/interface.js';
import type { CheckedParallel } from '../distributed/parallel.js';

/** Which columns of a vocabulary a batch has. */
export interface Shard {
  /** The first; the last entry of the batch's `shape` says how many follow. */
  readonly first: number;
  /**
   * Words of the whole vocabulary, which labels are of. Columns past it are padding: never read,
   * and their gradient is 0.
   */
  readonly vocab: number;
}

/**
 * Puts the place among processes into a batch's request, whose columns were all those of its shape
 * so far.
 * @param parallel of the call; undefined where it takes none.
 */
export function placeShard(
  base: BatchRequest,
  given: unknown,
  parallel: CheckedParallel | undefined,
): void {
  if (given !== undefined && !parallel)
    throw typeError('ERR_DIRALIGN_OPTION', 'shard: this call takes a whole vocabulary only');
  if (!parallel || (given === undefined && !parallel.isAsked)) return;
  if (base.target !== Target.cpu)
    throw typeError(
      'ERR_DIRALIGN_BACKEND',
      'parallel: a batch that is spread over processes is computed on the CPU only, from host arrays',
    );
  const { request } = parallel;
  const shard = given === undefined ? { first: 0, vocab: base.vocab } : checkShard(given);
  request.first = shard.first;
  request.words = shard.vocab;
  base.vocab = Math.max(0, Math.min(base.vocab, shard.vocab - shard.first));
  base.parallel = request;
}

function checkShard(given: unknown): Shard {
  checkObject('shard', given, 'ERR_DIRALIGN_SHARD', 'an object with first and vocab');
  const { first, vocab } = readProperties('shard', given, ['first', 'vocab'], 'ERR_DIRALIGN_SHARD');
  for (const [name, value] of Object.entries({ first, vocab })) {
    if (!Number.isInteger(value) || (value as number) < 0 || (value as number) > 0x7fffffff)
      throw rangeError(
        'ERR_DIRALIGN_SHARD',
        `shard.${name}: ${describe(value)} is not a whole number from 0 to 2147483647`,
      );
  }
  if (vocab === 0) throw rangeError('ERR_DIRALIGN_SHARD', 'shard.vocab: 0; expected at least 1');
  return { first: first as number, vocab: vocab as number };
}
