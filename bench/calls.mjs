/**
 * npm run bench:calls: what a call of every method costs on one pair of one token, where the kernel
 * has next to nothing to do. With `-- --sizes`: nanoseconds a logit of a loss and its gradient,
 * from 2 rows to 1024, with one thread and with all. With `-- --kernels`: nanoseconds a logit of
 * each kind of kernel, of logits that are in the cache; DIRALIGN_ISA says with which instruction
 * set.
 */
import { parseArgs } from 'node:util';
import Benchmark from 'benchmark';
import { dirAlignLoss, methods, sequenceLogps, tokenLogps } from '../dist/index.js';
import { toBfloat16, toFloat16 } from '../dist/bench/data.js';
import { native } from '../dist/native/interface.js';

const { values: options } = parseArgs({
  options: { sizes: { type: 'boolean' }, kernels: { type: 'boolean' } },
});
if (options.sizes || options.kernels) {
  if (options.sizes) sizes();
  if (options.kernels) kernels();
  process.exit();
}

function kernels() {
  const dpo = dirAlignLoss('dpo', 0.1);
  const count = 128_000;
  const float32 = Float32Array.from({ length: count }, (_, i) => 2 * Math.sin(12.9898 * i));
  const batchOf = (logits, vocab, more) => {
    const rows = count / vocab;
    const labels = Int32Array.from({ length: rows }, (_, i) => (i * 7919) % vocab);
    const reference = Float64Array.of(-3, -2.5);
    return { logits, shape: [2, rows / 2, vocab], labels, reference, ...more };
  };
  const whole = batchOf(float32, 32000);
  const halves = (dtype) =>
    batchOf((dtype === 'float16' ? toFloat16 : toBfloat16)(float32), 32000, { dtype });
  const [bfloat16, float16] = [halves('bfloat16'), halves('float16')];
  const out = float32.slice();
  const narrow = new Uint16Array(count);
  const threads = 1;
  const forward = (batch) => () => sequenceLogps(batch, { threads });
  const dense = (batch, to) => () => dpo(batch, { out: to, threads });
  const cases = Object.entries({
    'log-probabilities, float32': forward(whole),
    'log-probabilities, bfloat16': forward(bfloat16),
    'log-probabilities, float16': forward(float16),
    'log-probabilities, capped': forward({ ...whole, logitSoftcap: 30 }),
    'log-probabilities, rows of 1000': forward(batchOf(float32, 1000)),
    'log-probabilities and entropies': () => tokenLogps(whole, { threads }),
    'loss and gradient, float32': dense(whole, out),
    'loss and gradient, bfloat16': dense(bfloat16, narrow),
    'loss and gradient, float16': dense(float16, narrow),
    'loss and factored gradient in place, float32': () =>
      dpo({ ...whole, logits: out }, { gradient: 'factored', inPlace: true, threads }),
  }).map(([name, call]) => ({ name, call, least: Infinity }));
  for (let round = 0; round < 400; round++)
    for (const each of cases) {
      each.call();
      const begun = process.hrtime.bigint();
      each.call();
      each.least = Math.min(each.least, Number(process.hrtime.bigint() - begun));
    }
  console.log(`| ns a logit, least of 400, ${native().cpuInfo().isa} | |\n| --- | --- |`);
  for (const { name, least } of cases)
    console.log(`| ${name} | ${(least / count).toPrecision(3)} |`);
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

/** What methods need beside logits and labels. */
const fields = {
  desirable: Uint8Array.of(1, 0),
  kl: 0.1,
  shift: 0.1,
  ranks: Int32Array.of(0, 1),
  rewards: Float64Array.of(1, 0),
};

const suite = new Benchmark.Suite();
for (const { name, arity, fields: known } of methods()) {
  const objective = dirAlignLoss(name, 0.1);
  const needed = Object.entries(fields).filter(([field]) => known[field]?.needed);
  const groups = arity === 'group' && { groups: Int32Array.of(0, 2) };
  const own = { ...batch, ...groups, ...Object.fromEntries(needed) };
  suite.add(name, () => objective(own, run), { maxTime: 0.5 });
}
const dpo = dirAlignLoss('dpo', 0.1);
suite.add('dpo, async', {
  defer: true,
  maxTime: 0.5,
  fn: (deferred) => dpo.async(batch, run).then(() => deferred.resolve()),
});
suite.on('error', ({ target }) => {
  throw target.error;
});
suite.on('cycle', ({ target }) => {
  const { mean, rme } = target.stats;
  console.log(
    `${target.name.padEnd(18)} ${(mean * 1e6).toFixed(2).padStart(7)} us  +-${rme.toFixed(1)} %`,
  );
});
suite.run();
