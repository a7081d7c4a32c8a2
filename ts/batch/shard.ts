/** The columns that a batch has of a vocabulary, where other processes have the others. */
import { elementBytes, type Dtype } from '../dtype.js';
import { rangeError, typeError } from '../errors.js';
import { checkObject, describe, readProperties } from '../given.js';
import { Target, type BatchRequest } from '../native/interface.js';
import { axes, type CheckedParallel } from '../distributed/parallel.js';

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
 * @param computed the dtype of the logits that rows are summed of.
 */
export function placeShard(
  base: BatchRequest,
  given: unknown,
  parallel: CheckedParallel | undefined,
  computed: Dtype,
): void {
  if (given !== undefined && !parallel)
    throw typeError('ERR_DIRALIGN_OPTION', 'shard: this call takes a whole vocabulary only');
  if (!parallel || (given === undefined && !parallel.isAsked)) return;
  if (base.target === Target.staged)
    throw typeError(
      'ERR_DIRALIGN_BACKEND',
      "parallel: backend 'cuda' computes a batch that is spread over processes from tensors in " +
        'device memory only',
    );
  const { request } = parallel;
  if (base.target === Target.device) {
    checkDevices(base, parallel);
    checkDeviceGrid(request.columnGrid, computed);
  }
  const shard = given === undefined ? { first: 0, vocab: base.vocab } : checkShard(given);
  request.first = shard.first;
  request.words = shard.vocab;
  base.vocab = Math.max(0, Math.min(base.vocab, shard.vocab - shard.first));
  base.parallel = request;
}

function checkDevices(base: BatchRequest, { groups }: CheckedParallel): void {
  for (const [i, group] of groups.entries()) {
    const device = group?.deviceIndex;
    if (device !== undefined && base.device !== device)
      throw rangeError(
        'ERR_DIRALIGN_DEVICE',
        `parallel.${axes[i]}: its ranks exchange by device ${device}, ` +
          `and the batch is on device ${base.device}`,
      );
  }
}

/** The blocks of a device sum vectors of 16 bytes, 256 at a time. */
function checkDeviceGrid(grid: number, dtype: Dtype): void {
  const step = (256 * 16) / elementBytes[dtype];
  if (grid % step === 0) return;
  throw rangeError(
    'ERR_DIRALIGN_OPTION',
    `parallel.columnGrid: ${grid} is not a multiple of ${step}, ` +
      `as a device needs it for logits of ${dtype}`,
  );
}

function checkShard(given: unknown): Shard {
  checkObject('shard', given, 'ERR_DIRALIGN_SHARD', 'an object with first and vocab');
  const { first, vocab } = readProperties('shard', given, ['first', 'vocab'], 'ERR_DIRALIGN_SHARD');
  const shard = { first: checkColumn('first', first), vocab: checkColumn('vocab', vocab) };
  if (vocab === 0) throw rangeError('ERR_DIRALIGN_SHARD', 'shard.vocab: 0; expected at least 1');
  return shard;
}

function checkColumn(name: keyof Shard, value: unknown): number {
  if (Number.isInteger(value) && (value as number) >= 0 && (value as number) <= 0x7fffffff)
    return value as number;
  throw rangeError(
    'ERR_DIRALIGN_SHARD',
    `shard.${name}: ${describe(value)} is not a whole number from 0 to 2147483647`,
  );
}
