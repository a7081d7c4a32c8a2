// Ranks in one process: a transport of the caller's, and batches that are cut into their parts.
import type {
  DeviceTensor,
  HiddenLossResult,
  HiddenRunOptions,
  LogitsBatch,
  LossResult,
  Objective,
  RunOptions,
} from '../../ts/index.js';
import type { Communicator, Parallel, Shard } from '../../ts/distributed/index.js';
import { randomBatch } from './batches.js';
import type { HostHidden } from './hidden.js';
import { Copy, takeGradient } from './device.js';
import { callLater, onDevice as inDeviceMemory, type CallOptions } from './calls.js';
import { at, sameBits } from './numbers.js';

type Elements = Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>;

/** `size` communicators, whose ranks may come to an exchange in any order. */
export function within(size: number, timeout?: number): Communicator[] {
  const rounds: { readonly given: Uint8Array[]; count: number; go: (() => void)[] }[] = [];
  const turns = new Array<number>(size).fill(0);
  return turns.map((_, rank) => ({
    rank,
    size,
    ...(timeout !== undefined && { timeout }),
    async allGather(bytes) {
      const turn = at(turns, rank);
      turns[rank] = turn + 1;
      const round = (rounds[turn] ??= { given: [], count: 0, go: [] });
      round.given[rank] = bytes.slice();
      round.count++;
      if (round.count < size) await new Promise<void>((resolve) => round.go.push(resolve));
      else for (const resolve of round.go) resolve();
      return Uint8Array.from(Buffer.concat(round.given));
    },
  }));
}

/** Columns [first, first + columns) of each row, after `padding` more that nothing may read. */
export function cutColumns<E extends Elements>(
  array: E,
  vocab: number,
  first: number,
  columns: number,
  padding = 0,
): E {
  const rows = array.length / vocab;
  const poison = array instanceof Float32Array ? NaN : 0x7fff;
  const own = new (array.constructor as new (length: number) => E)(rows * (columns + padding));
  own.fill(poison);
  for (let r = 0; r < rows; r++)
    own.set(
      array.subarray(r * vocab + first, r * vocab + first + columns),
      r * (columns + padding),
    );
  return own;
}

/** The gradients of all shards, side by side. */
export function joinColumns<E extends Elements>(
  shards: readonly { readonly gradient: E; readonly first: number; readonly columns: number }[],
  vocab: number,
  rows: number,
): E {
  const first = shards[0]?.gradient as E;
  const all = new (first.constructor as new (length: number) => E)(rows * vocab);
  for (const shard of shards) {
    const stride = shard.gradient.length / Math.max(1, rows);
    for (let r = 0; r < rows; r++)
      all.set(
        shard.gradient.subarray(r * stride, r * stride + shard.columns),
        r * vocab + shard.first,
      );
  }
  return all;
}

/** Where shards begin, and the end: about even, one of them empty where `withEmpty`. */
export function boundaries(vocab: number, size: number, withEmpty = false, unit = 1): number[] {
  const parts = withEmpty ? size - 1 : size;
  const units = Math.ceil(vocab / unit);
  const all = Array.from({ length: parts + 1 }, (_, r) =>
    Math.min(vocab, Math.floor((units * r) / parts) * unit),
  );
  if (withEmpty) all.splice(1, 0, at(all, 1));
  return all;
}

type Run = Omit<RunOptions, 'parallel' | 'out'> & Pick<Parallel, 'columnGrid'>;
type Batch = LogitsBatch<Elements>;
/** `gradLogits`: where there is one. */
type Result = Omit<LossResult<Elements>, 'gradLogits'> & {
  readonly gradLogits: Elements;
  readonly rowScale?: Float32Array;
};

/** What every rank must have the same bits of. */
const common = [
  'loss',
  'losses',
  'logps',
  'counts',
  'rewards',
  'coefficients',
  'metrics',
  'rowScale',
  'terms',
] as const;
/** Of two results, what differs. */
export function differences(a: object, b: object, names: readonly string[] = common): string[] {
  return names.filter((name) => {
    const [x, y] = [a, b].map((one) => (one as Record<string, unknown>)[name]);
    if (ArrayBuffer.isView(x) && ArrayBuffer.isView(y)) return !sameBits(x, y);
    return JSON.stringify(x) !== JSON.stringify(y);
  });
}

/** How a rank computes its part of a batch of host arrays: its gradient comes back in one. */
export type Compute = (
  objective: Objective,
  batch: Batch,
  run: object,
  rank: number,
) => Promise<Result>;
const onHost: Compute = (objective, batch, run) => objective.async(batch, run);

/** From copies in device memory. */
export const onDevice =
  (options: Pick<CallOptions, 'place' | 'shift' | 'device'> = {}): Compute =>
  async (objective, batch, run) => {
    const called = await callLater(objective, inDeviceMemory()(batch, { ...run, ...options }));
    if (called.problems.length > 0) throw new Error(called.problems.join(', '));
    return called.result as Result;
  };

/**
 * A call whose columns are cut at `cuts`, by as many ranks; its gradient is put together.
 * @param padding columns past each shard of a vocabulary's end, which nothing may read.
 */
export async function overVocab(
  objective: Objective,
  batch: Batch,
  cuts: readonly number[],
  { columnGrid, ...run }: Run = {},
  padding = 0,
  compute = onHost,
  communicators = within(cuts.length - 1),
): Promise<Result> {
  const vocab = at(batch.shape, batch.shape.length - 1);
  const rows = batch.labels.length;
  const ranks = await Promise.all(
    communicators.map(async (communicator, rank) => {
      const first = at(cuts, rank);
      const columns = at(cuts, rank + 1) - first;
      // Only the last may have padding: it is past the words.
      const extra = first + columns === vocab ? padding : 0;
      const shard: Shard = { first, vocab };
      const own = {
        ...batch,
        logits: cutColumns(batch.logits, vocab, first, columns, extra),
        shape: [...batch.shape.slice(0, -1), columns + extra] as never,
        shard,
      };
      const parallel = { vocab: communicator, columnGrid };
      const result = await compute(objective, own, { ...run, parallel }, rank);
      return { result, first, columns };
    }),
  );
  const [first] = ranks;
  for (const [rank, { result }] of ranks.entries()) {
    const wrong = differences(result, (first as { result: Result }).result);
    if (wrong.length > 0) throw new Error(`rank ${rank} has another ${wrong.join(', ')}`);
  }
  const { result } = first as { result: Result };
  if (!('gradLogits' in result)) return result;
  const shards = ranks.map((rank) => ({ ...rank, gradient: rank.result.gradLogits }));
  for (const { gradient, columns } of shards) {
    const stride = gradient.length / Math.max(1, rows);
    const past = gradient.some((x, i) => i % stride >= columns && !Object.is(x, 0));
    if (past) throw new Error('padding has a gradient');
  }
  return { ...result, gradLogits: joinColumns(shards, vocab, rows) };
}

type HiddenRun = Omit<HiddenRunOptions, 'parallel' | 'out' | 'accumulate'> & Parallel;

/** How a rank computes its part of a batch of hidden states. */
export type ComputeHidden = (
  objective: Objective,
  batch: HostHidden,
  run: object,
  rank?: number,
) => Promise<HiddenLossResult>;
const hiddenOnHost: ComputeHidden = (objective, batch, run) =>
  objective.fromHidden.async(batch, run);

/** From copies in device memory, `shift` elements behind an aligned address. */
export const hiddenOnDevice =
  (shift = 0, device = 0): ComputeHidden =>
  async (objective, batch, run) => {
    const { hidden, weight, bias, dtype } = batch;
    const arrays = { hidden, weight, ...(bias && { bias }) };
    const copies = Object.entries(arrays).map(
      ([name, array]) => [name, new Copy(array, dtype, { shift, device })] as const,
    );
    try {
      const tensors = Object.fromEntries(copies.map(([name, copy]) => [name, copy.tensor]));
      const given = { ...batch, ...tensors } as never;
      const result = (await objective.fromHidden.async(given, run)) as object;
      const likes = {
        gradHidden: hidden,
        gradWeight: new Float32Array(weight.length),
        gradBias: new Float32Array(bias?.length ?? 0),
      };
      const gradients = Object.entries(likes)
        .filter(([name]) => name in result)
        .map(([name, like]) => {
          const gradient = (result as Record<string, DeviceTensor>)[name];
          return [name, takeGradient(gradient, like)];
        });
      return { ...result, ...Object.fromEntries(gradients) } as HiddenLossResult;
    } finally {
      for (const [, copy] of copies) copy.dispose();
    }
  };

/** The same from hidden states, of which every rank has all, and its words of the layer. */
export async function hiddenOverVocab(
  objective: Objective,
  batch: HostHidden,
  cuts: readonly number[],
  { columnGrid, gradHidden, wire, ...run }: HiddenRun = {},
  padding = 0,
  compute = hiddenOnHost,
  communicators = within(cuts.length - 1),
): Promise<HiddenLossResult> {
  const vocab = at(batch.shape, batch.shape.length - 1);
  const size = batch.weight.length / vocab;
  const poison = batch.weight instanceof Float32Array ? NaN : 0x7fff;
  /** Words of an array with so many numbers for each, and then some that nothing may read. */
  const words = <E extends Elements>(array: E, each: number, from: number, to: number): E => {
    const extra = to === vocab ? padding : 0;
    const own = new (array.constructor as new (length: number) => E)((to - from + extra) * each);
    own.fill(poison);
    own.set(array.subarray(from * each, to * each));
    return own;
  };
  const ranks = await Promise.all(
    communicators.map((communicator, rank) => {
      const [first, end] = [at(cuts, rank), at(cuts, rank + 1)];
      const extra = end === vocab ? padding : 0;
      const own = {
        ...batch,
        weight: words(batch.weight, size, first, end),
        ...(batch.bias && { bias: words(batch.bias, 1, first, end) }),
        hiddenSize: size,
        shape: [...batch.shape.slice(0, -1), end - first + extra] as never,
        shard: { first, vocab },
      };
      const parallel = { vocab: communicator, columnGrid, gradHidden, wire };
      return compute(objective, own, { ...run, parallel }, rank);
    }),
  );
  const [first] = ranks as [HiddenLossResult];
  const same = gradHidden === 'partial' ? common : [...common, 'gradHidden'];
  for (const [rank, result] of ranks.entries()) {
    const wrong = differences(result, first, same);
    if (wrong.length > 0) throw new Error(`rank ${rank} has another ${wrong.join(', ')}`);
  }
  const join = (name: 'gradWeight' | 'gradBias', each: number) => {
    const all = ranks.flatMap((result, rank) => {
      const own = [...(result[name] as Float32Array)];
      const count = (at(cuts, rank + 1) - at(cuts, rank)) * each;
      if (own.slice(count).some((x) => !Object.is(x, 0))) throw new Error('padding has a gradient');
      return own.slice(0, count);
    });
    return Float32Array.from(all);
  };
  return {
    ...first,
    ...(first.gradWeight && { gradWeight: join('gradWeight', size) }),
    ...(first.gradBias && { gradBias: join('gradBias', 1) }),
    memory: Math.max(...ranks.map(({ memory }) => memory)),
  };
}

/** Rows at the edges of what a shard of 16 columns may hold: -inf alone, and a label of p = 1. */
export function edgesOfShards() {
  const vocab = 64;
  const batch = randomBatch({ seed: 6, sequences: 4, tokens: 1, vocab, ignored: 0 });
  const logits = batch.logits as Float32Array<ArrayBuffer>;
  logits.fill(-Infinity, 0, 32); // the shard of the first row, but for its label's
  logits[at(batch.labels, 0)] = 1;
  logits.fill(-80, vocab, 2 * vocab); // 1 - p = 63 e^-80
  logits[vocab + at(batch.labels, 1)] = 0;
  return { batch, logits, vocab };
}

/** The words of a rank, of a batch of hidden states. */
export function wordsOf(batch: HostHidden, first: number, end: number): HostHidden {
  const { weight, bias, hiddenSize, shape } = batch as never as Record<
    'weight' | 'bias',
    Float32Array
  > & { readonly hiddenSize?: number; readonly shape: readonly number[] };
  const vocab = bias.length;
  const size = hiddenSize ?? weight.length / vocab;
  return {
    ...(batch as object),
    weight: weight.slice(first * size, end * size),
    bias: bias.slice(first, end),
    shape: [...shape.slice(0, -1), end - first],
    shard: { first, vocab },
  } as never;
}
