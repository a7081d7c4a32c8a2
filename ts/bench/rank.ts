/**
 * One rank of `diralign bench --ranks`, started by mpirun: calls whose words are spread over the
 * ranks, and the same without an exchange, on the whole vocabulary and on next to none of it. Rank
 * 0 prints the result as one line of JSON.
 */
import { dirAlignLoss } from '../index.js';
import { mpi, vocabShard } from '../distributed/index.js';
import { randomNumbers } from './data.js';
import type { RankPlan, RankTimes } from './ranks.js';

const plan = JSON.parse(process.argv[2] ?? '{}') as RankPlan;
const world = await mpi({ timeout: 60_000 });
const { rank, size } = world;
const dpo = dirAlignLoss('dpo', 0.1);
/** The kernels sum blocks of so many columns. */
const block = 512;

/** Milliseconds on the clock of the machine, which its processes share. */
const now = (): number => Number(process.hrtime.bigint()) / 1e6;

/** Of every round, what is last of all ranks. */
async function last(own: readonly number[]): Promise<number[]> {
  const all = await world.allGather(new Uint8Array(Float64Array.from(own).buffer));
  const times = new Float64Array(all.buffer, all.byteOffset, all.byteLength / 8);
  return own.map((_, i) =>
    Math.max(...Array.from({ length: size }, (__, r) => times[r * own.length + i] as number)),
  );
}

/** Calls of so many words, which are spread over the ranks, or as if the own ones were all. */
function callsOf([sequences, tokens]: readonly [number, number], vocab: number) {
  const { threads } = plan;
  const { columns, ...shard } = vocabShard(vocab, world);
  const rows = sequences * tokens;
  const random = randomNumbers(7 + rank);
  const logits = Float32Array.from({ length: rows * columns }, () => 8 * random() - 4);
  const out = new Float32Array(logits.length);
  const reference = new Float64Array(sequences).fill(-10 * tokens);
  const labels = Int32Array.from({ length: rows }, (_, row) => (row * 7919) % vocab);
  const shape = [sequences, tokens, columns] as const;
  const spread = { logits, shape, labels, reference, shard };
  const alone = { logits, shape, labels: labels.map((label) => label % columns), reference };
  const columnGrid = Math.ceil(columns / block) * block;
  return {
    spread: () => dpo(spread, { out, threads, parallel: { vocab: world } }),
    // The same work, and nobody to exchange it with.
    alone: () => dpo(alone, { out, threads, parallel: { columnGrid } }),
    plain: () => dpo(alone, { out, threads }),
  };
}

async function measure(shape: readonly [number, number]): Promise<RankTimes> {
  const whole = callsOf(shape, plan.vocab);
  // What is left of a call when there is nearly nothing to compute: as many rows are exchanged.
  const small = callsOf(shape, 8 * size);
  const calls = { ...whole, smallSpread: small.spread, smallPlain: small.plain };
  const begun: Record<keyof typeof calls, number[]> = {
    spread: [],
    alone: [],
    plain: [],
    smallSpread: [],
    smallPlain: [],
  };
  const ended = structuredClone(begun);
  const names = Object.keys(begun) as (keyof typeof calls)[];
  for (let round = -1; round < plan.rounds; round++)
    for (const name of names) {
      small.plain(); // or the first small call after a large one would pay for its caches
      await world.allGather(new Uint8Array(1)); // all begin together, within some 40 us
      const start = now();
      calls[name]();
      const end = now();
      if (round < 0) continue;
      begun[name].push(start);
      ended[name].push(end);
    }
  const times = structuredClone(begun);
  for (const name of names) {
    // From when all have begun: how far apart they do is no part of a call.
    const from = await last(begun[name]);
    times[name] = (await last(ended[name])).map((end, i) => end - (from[i] as number));
  }
  return { rows: shape[0] * shape[1], ...times };
}

const results: RankTimes[] = [];
for (const shape of plan.shapes) results.push(await measure(shape));
if (rank === 0) {
  const { version } = world.engine;
  console.log(`DIRALIGN ${JSON.stringify({ ranks: size, engine: version, results })}`);
}
