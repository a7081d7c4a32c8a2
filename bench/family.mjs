/**
 * npm run bench:family [-- --rounds N] [--vocab V]: what transformed logits, mixtures and losses of
 * one's own cost on the CPU, as ratios within one run, measured as `diralign bench` measures.
 */
import { parseArgs } from 'node:util';
import { dirAlignLoss, logpsBackward, mixLosses, tokenLogps } from '../dist/index.js';
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
const given = { ...batch, logits: work };
const dpo = dirAlignLoss('dpo', 0.1);
const mixture = mixLosses([
  { weight: 0.8, objective: dpo },
  { weight: 0.2, objective: dirAlignLoss('bco_pair', 0.1) },
  { weight: 1, objective: dirAlignLoss('sft', 1, true, { sftReduction: 'mean' }) },
]);

const runs = {
  none: { gradient: 'none' },
  dense: { out },
  'factored, in place': { gradient: 'factored', inPlace: true },
  'dense, in place': { inPlace: true },
};
const transforms = {
  plain: {},
  scaled: { temperature: 0.7 },
  capped: { logitSoftcap: 30 },
};
const cases = [];
const ratios = [];
const add = (name, run, inPlace = false) => {
  cases.push({
    name,
    run() {
      if (inPlace) buffers.overwritten();
      return timeOf(run);
    },
  });
  return name;
};
for (const [run, options] of Object.entries(runs)) {
  for (const [form, transform] of Object.entries(transforms)) {
    const name = add(
      `${run}: ${form}`,
      () => dpo({ ...given, ...transform }, { ...options, threads }),
      options.inPlace,
    );
    if (form !== 'plain') ratios.push([name, [`${run}: plain`]]);
  }
}
ratios.push([
  add('dense: a mixture of three', () => mixture(given, { out, threads })),
  ['dense: plain'],
]);
const forward = tokenLogps(batch, { threads });
const rows = Float64Array.from(forward.logps, (logp) => -Math.exp(logp) / 256);
const scaling = add('scaling in place', () => native().memoryLoop(1, work, work, threads), true);
const backward = (name, derivatives, options, inPlace) =>
  add(
    `logpsBackward: ${name}`,
    () => logpsBackward(given, derivatives, { ...options, threads }),
    inPlace,
  );
ratios.push([backward('in place, forward', { rows, forward }, { inPlace: true }, true), [scaling]]);
ratios.push([
  backward('in place, forward, entropy', { rows, entropy: rows, forward }, { inPlace: true }, true),
  [scaling],
]);
ratios.push([backward('into out, without forward', { rows }, { out }), ['dense: plain']]);

const times = await interleave(cases, Number(values.rounds), () => buffers.makeCold());
console.log(`${machineLine(thisMachine())}, ${threads} threads`);
for (const [name, others] of ratios) {
  const found = ratio(times, name, others);
  console.log(
    `${ratioText(found, (x) => x.toFixed(3)).padEnd(24)} ${name}, over ${others.join(' + ')}`,
  );
}
