/**
 * npm run bench:calls: what a call of every method costs on one pair of one token, where the kernel
 * has next to nothing to do.
 */
import Benchmark from 'benchmark';
import { dirAlignLoss, methods } from '../dist/index.js';

const vocab = 16;
const batch = {
  logits: Float32Array.from({ length: 2 * vocab }, (_, i) => Math.sin(3 * i)),
  shape: [2, 1, vocab],
  labels: Int32Array.of(3, 7),
  reference: Float64Array.of(-3, -2.5),
};
const out = new Float32Array(batch.logits.length);
const run = { out, threads: 1 };

const suite = new Benchmark.Suite();
for (const { name } of methods()) {
  const objective = dirAlignLoss(name, 0.1);
  suite.add(name, () => objective(batch, run), { maxTime: 0.5 });
}
const dpo = dirAlignLoss('dpo', 0.1);
suite.add('dpo, async', {
  defer: true,
  maxTime: 0.5,
  fn: (deferred) => dpo.async(batch, run).then(() => deferred.resolve()),
});
suite.on('cycle', ({ target }) => {
  const { mean, rme } = target.stats;
  console.log(
    `${target.name.padEnd(14)} ${(mean * 1e6).toFixed(2).padStart(7)} us  +-${rme.toFixed(1)} %`,
  );
});
suite.run();
