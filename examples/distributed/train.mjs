// An output layer whose words are spread over processes, trained on preferences. Each rank has some
// rows of the weight and never sees another's; the losses and the weights of all ranks together
// have the same bits, however many there are. Run it:
//   npm run distributed -- --ranks 4
import { createHash } from 'node:crypto';
import { dirAlignLoss } from 'diralign';
import { mpi, vocabShard } from 'diralign/distributed';

const world = await mpi();
const [pairs, tokens, hiddenSize, vocab, steps] = [4, 6, 24, 4096, 8];
/** Columns that are summed as a unit: shards begin at multiples of it. */
const columnGrid = 512;
const { columns, ...shard } = vocabShard(vocab, world, columnGrid);

// What every rank has: hidden states of a frozen model, labels, the reference.
const sequences = 2 * pairs;
const rows = sequences * tokens;
const wave = (i) => Math.sin(12.9898 * i) * 0.5;
const hidden = Float32Array.from({ length: rows * hiddenSize }, (_, i) => wave(i));
const labels = Int32Array.from({ length: rows }, (_, row) =>
  row % tokens === 0 ? -100 : (row * 733) % vocab,
);
const reference = new Float64Array(sequences).fill(-Math.log(vocab) * (tokens - 1));

// What this rank has: its words' rows of the weight.
const weight = Float32Array.from(
  { length: columns * hiddenSize },
  (_, i) => 0.1 * wave(7 + i + shard.first * hiddenSize),
);
const gradWeight = new Float32Array(weight.length);

const dpo = dirAlignLoss('dpo', 0.1);
const batch = {
  hidden,
  weight,
  hiddenSize,
  shape: [sequences, tokens, columns],
  labels,
  reference,
  shard,
};
const run = {
  parallel: { vocab: world, columnGrid },
  out: { gradHidden: false, gradWeight },
};
for (let step = 0; step < steps; step++) {
  const { loss, metrics } = await dpo.fromHidden.async(batch, run);
  gradWeight.forEach((g, i) => (weight[i] -= 20 * g));
  const accuracy = metrics['rewards/accuracies'];
  if (world.rank === 0)
    console.log(`step ${step}  loss ${loss.toFixed(6)}  accuracy ${accuracy.toFixed(2)}`);
}

// The whole weight, on every rank: shards of even size fill it in order.
const most = Math.ceil(vocab / columnGrid / world.size) * columnGrid * hiddenSize;
const padded = new Float32Array(most + 1);
padded.set(weight);
padded[most] = columns;
const all = new Float32Array((await world.allGather(new Uint8Array(padded.buffer))).buffer);
const hash = createHash('sha256');
for (let rank = 0; rank < world.size; rank++) {
  const from = rank * (most + 1);
  hash.update(all.subarray(from, from + all[from + most] * hiddenSize));
}
if (world.rank === 0)
  console.log(`${world.size} ranks over ${world.engine.version}: weights ${hash.digest('hex')}`);
