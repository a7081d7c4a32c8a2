/**
 * npm run bench:metrics [-- --rounds N] [--vocab V]: what the metrics of `run.metrics` cost on the
 * CPU, as ratios to the same call without any, measured as `diralign bench` measures.
 */
import { parseArgs } from 'node:util';
import { dirAlignLoss } from '../dist/index.js';
import { Buffers } from '../dist/bench/buffers.js';
import { makeBatch } from '../dist/bench/data.js';
import { machineLine, ratioText } from '../dist/bench/report.js';
import { interleave, ratio, timeOf } from '../dist/bench/rounds.js';
import { thisMachine } from '../dist/bench/machine.js';
import { native } from '../dist/native/interface.js';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '15' },
    vocab: { type: 'string', default: '32000' },
  },
});
const threads = native().cpuInfo().threads;
const buffers = new Buffers(makeBatch(2, 128, Number(values.vocab)), threads);
const { batch, work, out } = buffers;
const dpo = dirAlignLoss('dpo', 0.1);

const asked = [
  [],
  ['mean_token_accuracy'],
  ['entropy'],
  ['logits/chosen', 'logits/rejected'],
  ['entropy', 'mean_token_accuracy', 'logits/chosen', 'logits/rejected'],
];
const runs = {
  none: { gradient: 'none' },
  dense: { out },
  factored: { gradient: 'factored', out },
  'dense, in place': { inPlace: true },
  'factored, in place': { gradient: 'factored', inPlace: true },
};
const nameOf = (run, metrics) => `${run}: ${metrics.join(', ') || 'nothing asked for'}`;

const cases = Object.entries(runs).flatMap(([run, options]) =>
  asked.map((metrics) => ({
    name: nameOf(run, metrics),
    run() {
      if (options.inPlace) buffers.overwritten();
      return timeOf(() => dpo({ ...batch, logits: work }, { ...options, metrics, threads }));
    },
  })),
);
const times = await interleave(cases, Number(values.rounds), () => buffers.makeCold());
console.log(`${machineLine(thisMachine())}, ${threads} threads`);
for (const run of Object.keys(runs)) {
  for (const metrics of asked.slice(1)) {
    const found = ratio(times, nameOf(run, metrics), [nameOf(run, asked[0])]);
    console.log(`${ratioText(found, (x) => x.toFixed(3)).padEnd(24)} ${nameOf(run, metrics)}`);
  }
}
