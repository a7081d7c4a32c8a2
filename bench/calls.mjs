/**
 * npm run bench:calls: what a call of every method costs on one pair of one token, where the kernel
 * has next to nothing to do. With `-- --sizes`: nanoseconds a logit of a loss and its gradient,
 * from 2 rows to 1024, with one thread and with all.
 */
import { parseArgs } from 'node:util';
import Benchmark from 'benchmark';
import { dirAlignLoss, methods } from '../dist/index.js';

const { values: options } = parseArgs({ options: { sizes: { type: 'boolean' } } });
if (options.sizes) {
  sizes();
  process.exit();
}

function sizes() {
  const dpo = dirAlignLoss('dpo', 0.1);
  const cases = [];
  for (const vocab of [100, 1000, 32000])
    for (let rows = 2; rows <= 1024; rows *= rows < 128 ? 4 : 8) {
      const count = rows * vocab;
      const logits = Float32Array.from(
        { length: count },
        (_, i) => 2 * Math.sin(12.9898 * (i % 65537)),
      );
      const labels = Int32Array.from({ length: rows }, (_, i) => (i * 7919) % vocab);
      const reference = Float64Array.of(-3, -2.5);
      const batch = { logits, shape: [2, rows / 2, vocab], labels, reference };
      const out = new Float32Array(count);
      const calls = Math.ceil(2e6 / (count + 50_000));
      for (const threads of [1, undefined])
        cases.push({
          rows,
          vocab,
          threads,
          calls,
          times: [],
          call: () => dpo(batch, { out, threads }),
        });
    }
  for (let round = 0; round < 31; round++)
    for (const { call, calls, times } of cases) {
      call();
      const begun = process.hrtime.bigint();
      for (let i = 0; i < calls; i++) call();
      times.push(Number(process.hrtime.bigint() - begun) / calls);
    }
  console.log('| vocabulary | rows | one thread | all threads |\n| --- | --- | --- | --- |');
  for (let i = 0; i < cases.length; i += 2) {
    const { rows, vocab } = cases[i];
    const [one, all] = [cases[i], cases[i + 1]].map(({ times }) =>
      (times.sort((a, b) => a - b)[times.length >> 1] / (rows * vocab)).toPrecision(3),
    );
    console.log(`| ${vocab} | ${rows} | ${one} | ${all} |`);
  }
}

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
