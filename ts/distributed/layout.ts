/** Which rank has what: groups of ranks, and columns of the vocabulary. */
import os from 'node:os';
import { rangeError, typeError } from '../errors.js';
import { checkObject, describe, quoted, readProperties } from '../given.js';
import type { NativeCommunicator } from './communicator.js';

/** A name of {@link layout}. */
export type Axis = 'data' | 'sequence' | 'vocab';

const axes: readonly Axis[] = ['data', 'sequence', 'vocab'];

/**
 * Splits the ranks of `world` into a grid: a communicator for each name, whose other ranks differ
 * in that place alone. The name that is given last varies fastest, so that its ranks are
 * neighbours, which a launcher puts on one node: that is the place of `vocab`, whose groups
 * exchange most. Where a group of `vocab` has ranks on several nodes, rank 0 warns, with the code
 * DIRALIGN_LAYOUT. Collective.
 *
 * @param sizes ranks of each group; their product is `world.size`.
 * @throws DirAlignError with code ERR_DIRALIGN_OPTION
 *
 * @example
 * // 32 ranks: eight batches, and the vocabulary of each over four neighbours.
 * const { data, vocab } = await layout(world, { data: 8, vocab: 4 });
 */
export async function layout<Names extends Axis>(
  world: NativeCommunicator,
  sizes: Readonly<Record<Names, number>>,
): Promise<Readonly<Record<Names, NativeCommunicator>>> {
  checkObject('sizes', sizes);
  const names = Object.keys(sizes) as Names[];
  const read = readProperties('sizes', sizes, axes) as Record<Axis, number>;
  let ranks = 1;
  for (const name of names) {
    const size: unknown = read[name];
    if (!Number.isInteger(size) || (size as number) < 1)
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        `sizes.${name}: ${describe(size)} is not a whole number of at least 1`,
      );
    ranks *= size as number;
  }
  if (ranks !== world.size)
    throw rangeError(
      'ERR_DIRALIGN_OPTION',
      `sizes: ${quoted(names)} have ${ranks} places for ${world.size} ranks`,
    );
  const groups = {} as Record<Names, NativeCommunicator>;
  let stride = 1;
  for (const name of names.toReversed()) {
    const place = Math.floor(world.rank / stride) % read[name];
    groups[name] = await world.split(world.rank - place * stride, place);
    if (name === 'vocab' && read[name] > 1) await warnOfNodes(world, read[name], stride);
    stride *= read[name];
  }
  return groups;
}

/** Bytes of a host's name: POSIX has no longer ones. */
const nameBytes = 64;

/**
 * Warns on rank 0 where a group of `vocab`, of `size` ranks that are `stride` apart, is on several
 * nodes: its calls wait for the network for longer than they compute.
 */
async function warnOfNodes(world: NativeCommunicator, size: number, stride: number): Promise<void> {
  const own = new Uint8Array(nameBytes);
  new TextEncoder().encodeInto(os.hostname(), own);
  const all = await world.allGather(own);
  if (world.rank > 0) return;
  const names = Array.from({ length: world.size }, (_, rank) =>
    new TextDecoder().decode(all.subarray(rank * nameBytes, (rank + 1) * nameBytes)),
  ).map((name) => name.replaceAll('\0', ''));
  const firsts = names.flatMap((_, rank) => (Math.floor(rank / stride) % size === 0 ? [rank] : []));
  const nodes = firsts.map(
    (first) => new Set(Array.from({ length: size }, (_, i) => names[first + i * stride] as string)),
  );
  const apart = nodes.filter((some) => some.size > 1);
  if (apart[0] === undefined) return;
  process.emitWarning(
    `${apart.length} of ${nodes.length} vocab groups have ranks on several nodes, ` +
      `the first on ${quoted([...apart[0]])}. ` +
      'Between nodes a call waits for longer than it computes: name vocab last, ' +
      'with no more ranks than a node has.',
    { type: 'DirAlignWarning', code: 'DIRALIGN_LAYOUT' },
  );
}

/** The columns that a rank has of a vocabulary, where all have about as many. */
export interface VocabShard {
  /** The first. */
  readonly first: number;
  /** Words of the whole vocabulary. */
  readonly vocab: number;
  /** How many columns: the last entry of the batch's `shape`. */
  readonly columns: number;
}

/**
 * An even cut of a vocabulary over the ranks of a communicator: each has a multiple of `unit`
 * columns, and the last that has any what is left.
 *
 * @param vocab words of the whole vocabulary, at least 1.
 * @param place a rank among ranks: a communicator will do.
 * @param unit columns; of a `columnGrid`, the same number or a multiple.
 * @throws DirAlignError with code ERR_DIRALIGN_OPTION
 *
 * @example
 * const { columns, ...shard } = vocabShard(128_256, vocab);
 * dpo({ logits, shape: [4, 512, columns], labels, reference, shard }, { parallel: { vocab } });
 */
export function vocabShard(
  vocab: number,
  place: { readonly rank: number; readonly size: number },
  unit = 1,
): VocabShard {
  checkObject('place', place);
  const { rank, size } = place;
  for (const [name, value] of Object.entries({ vocab, size, unit })) {
    if (!Number.isInteger(value) || value < 1 || value >= 2 ** 31)
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        `${name}: ${describe(value)} is not a whole number from 1 to ${2 ** 31 - 1}`,
      );
  }
  if (!Number.isInteger(rank) || rank < 0 || rank >= size)
    throw rangeError(
      'ERR_DIRALIGN_OPTION',
      `rank: ${describe(rank)} is not a whole number from 0 to size - 1, ${size - 1}`,
    );
  const units = Math.ceil(vocab / unit);
  const at = (r: number): number => Math.min(vocab, Math.floor((units * r) / size) * unit);
  const first = at(rank);
  return { first, vocab, columns: at(rank + 1) - first };
}
