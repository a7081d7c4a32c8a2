#!/usr/bin/env node
// npm run gpu:bench: the CUDA backend's times on the card of this machine, against a copy kernel
// and installed peers of the same run. Needs Node, the built package and a driver; see
// docs/gpu-performance.md.
import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';
import { codeLines, describeCode, unfit } from '../scripts/device/code.mjs';
import {
  describeMachine,
  isEmulated,
  loadSubject,
  parseMinutes,
  parseOnly,
  parseOrExit,
  requireDevice,
  writeResults,
  writeSoFar,
} from '../scripts/device/machine.mjs';
import { makeLayer, measureLayer, neededByLayer } from './gpu/layer.mjs';
import { Device, measureBatch, needed } from './gpu/measure.mjs';
import { findPeers, measureLayerPeer, measurePeer } from './gpu/peers.mjs';
import { batchesOf, parseShapes, partNames, scales } from './gpu/plan.mjs';
import { judge, report } from './gpu/report.mjs';

const usage = `Usage: npm run gpu:bench -- [options]

Measures the CUDA backend on the card of this machine: loss only, factored and dense gradients, with
all and with half of the rows scored, as a share of what a copy kernel reaches in the same rounds;
fromHidden by the clock; and PyTorch, torch.compile, Liger-Kernel and quack where a python3 (or
PYTHON) has them, the first three also from hidden states. Ends with tables, and with exit code 1
where a target was missed, 2 where there is no device.

  --quick            fewer shapes, for about ten minutes
  --scale NAME       ${Object.keys(scales).join(', ')} (default: full; --quick is --scale quick)
  --shapes NxV,...   these rows and vocabularies only, in bfloat16: such as 8192x32000,256x50257
  --rounds N         interleaved rounds, at least 15 (default 15)
  --no-peers         without them
  --only A,B         these parts only: ${partNames.join(', ')}
  --minutes M        start nothing new after M minutes; what was measured until then is reported
  --json FILE        write the results there, too, as they come
  --no-results       write nothing to bench/results
  -h, --help

CUDA_VISIBLE_DEVICES chooses among several cards. Results go to bench/results/DATE-GPU.json.
Times of the emulation are of no use to anybody: they are neither shown nor written.`;

const { values, scale, shapes, rounds, only, end } = parseOrExit(() => {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      scale: { type: 'string' },
      shapes: { type: 'string' },
      rounds: { type: 'string' },
      'no-peers': { type: 'boolean', default: false },
      only: { type: 'string' },
      minutes: { type: 'string' },
      json: { type: 'string' },
      'no-results': { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  const name = values.scale ?? (values.quick ? 'quick' : 'full');
  if (!Object.hasOwn(scales, name))
    throw new Error(`--scale ${name}: there are ${Object.keys(scales).join(', ')}`);
  const scale = { name, ...scales[name] };
  const rounds = values.rounds === undefined ? scale.rounds : Number(values.rounds);
  if (!Number.isInteger(rounds) || rounds < scale.rounds) {
    throw new Error(
      `--rounds ${values.rounds}: expected a whole number of at least ${scale.rounds}`,
    );
  }
  const only = parseOnly(values.only, partNames);
  if (values['no-peers']) only.delete('peers');
  return {
    values,
    scale,
    shapes: values.shapes && parseShapes(values.shapes),
    rounds,
    only,
    end: parseMinutes(values.minutes),
  };
}, usage);
if (values.help) {
  console.log(usage);
  process.exit(0);
}

const subject = await loadSubject();
const info = requireDevice(subject.cuda);
const emulated = isEmulated(info);
if (emulated && scale.name !== 'tiny') {
  console.error(
    `${info.name} is the emulation of CUDA; only --scale tiny can be run on it, ` +
      'and no times are taken.',
  );
  process.exit(2);
}
const { version } = createRequire(import.meta.url)('../package.json');
const code = describeCode(subject, info);
const machine = { ...describeMachine(info, version), code };
console.log(
  `${info.name}, compute capability ${info.computeCapability}, ${info.multiprocessors} ` +
    `multiprocessors, diralign ${version}`,
);
for (const line of codeLines(code)) console.log(line);
const problem = unfit(code, info);
if (problem !== undefined) {
  console.error(`Nothing is measured: ${problem}`);
  process.exit(2);
}

const say = (text) => process.stderr.isTTY && process.stderr.write(`\r\x1b[K${text}`);
const progress = (text) => (share) => say(`${text}: ${Math.floor(100 * share)} %`);
const start = performance.now();
const seconds = () => (performance.now() - start) / 1000;
const device = new Device(subject, info, scale);
const installed = !only.has('peers') || emulated ? { found: [], missing: [] } : findPeers();
for (const { name, reason } of installed.missing)
  console.log(`peer ${name} not available: ${reason}`);
const noLayers = subject.cuda.hiddenReason;
const result = {
  ...{ command: 'gpu:bench', scale: scale.name, rounds, seconds: 0, machine },
  ...{ groups: [], layers: [], skipped: [], peers: [], layerPeers: [] },
  ...(noLayers !== undefined && { noLayers }),
  missingPeers: installed.missing,
};

/** Does a piece of work, unless the time is over, and keeps what is known so far. */
async function step(title, wanted, work) {
  if (performance.now() >= end) {
    result.skipped.push({
      ...wanted,
      reason: `was not started: ${values.minutes} minutes were over`,
      isCut: true,
    });
    return;
  }
  await work();
  result.seconds = seconds();
  say('');
  if (!emulated) {
    console.log(`${title} done at ${seconds().toFixed(0)} s`);
    writeSoFar(values.json, result);
  }
}

/** Makes what is measured, if it fits the device, and gives it back. */
async function withRoom(bytes, wanted, make, use) {
  const free = device.free();
  if (!emulated && bytes > free) {
    const reason = `needs ${(bytes / 1e9).toFixed(1)} GB, ${(free / 1e9).toFixed(1)} GB are free`;
    result.skipped.push({ ...wanted, reason });
    return;
  }
  const made = make();
  await use(made);
  made.dispose();
}

async function againstPeers(title, made, peers, measure, list) {
  for (const peer of peers)
    for (const fraction of scale.peerFractions ?? [1, 0.5]) {
      const name = `${title}, ${peer.name}, ${100 * fraction} % of the rows`;
      await step(name, { ...describeShape(made), peer: peer.name }, async () => {
        list.push(
          await measure(device, made, peer, { fraction, rounds, progress: progress(name) }),
        );
      });
    }
}
const describeShape = ({ dtype, rows, vocab }) => ({ dtype, rows, vocab });

for (const { hasPeers, ...wanted } of batchesOf(scale, shapes)) {
  const title = `${wanted.dtype} ${wanted.rows} x ${wanted.vocab}`;
  const peers = hasPeers ? installed.found.filter(({ layer }) => !layer) : [];
  if (!only.has('logits') && peers.length === 0) continue;
  await step(title, wanted, () =>
    withRoom(
      needed(wanted),
      wanted,
      () => device.batch(wanted),
      async (batch) => {
        if (only.has('logits')) {
          const measured = await measureBatch(device, batch, {
            rounds,
            fractions: [1, 0.5],
            progress: progress(title),
          });
          result.groups.push({ ...wanted, ...measured });
        }
        await againstPeers(title, batch, peers, measurePeer, result.peers);
      },
    ),
  );
}
const layerPeers = installed.found.filter(({ layer }) => layer);
for (const wanted of noLayers === undefined && !shapes ? scale.layers : []) {
  const title = `fromHidden ${wanted.rows} x ${wanted.size} x ${wanted.vocab}`;
  if (!only.has('layer') && layerPeers.length === 0) continue;
  await step(title, { dtype: 'fromHidden', ...wanted }, () =>
    withRoom(
      neededByLayer(wanted),
      { dtype: 'fromHidden', ...wanted },
      () => makeLayer(device, wanted),
      async (layer) => {
        if (only.has('layer'))
          result.layers.push(
            ...(await measureLayer(device, layer, {
              rounds,
              fractions: [1, 0.5],
              progress: progress(title),
            })),
          );
        await againstPeers(title, layer, layerPeers, measureLayerPeer, result.layerPeers);
      },
    ),
  );
}
say('');
const { groups, layers } = result;
const verdict = judge(result);
result.targets = verdict;
if (emulated) {
  const cases = groups.reduce((sum, { entries }) => sum + entries.length, 0);
  console.log(
    `${cases} cases of ${groups.length} batches ran on the emulation. No times were kept.`,
  );
  writeResults({
    result: {
      command: 'gpu:bench',
      emulated: true,
      cases,
      layers: layers.length,
      batches: groups.map(({ dtype, rows, vocab }) => ({ dtype, rows, vocab })),
    },
    machine,
    device: info,
    wanted: values.json,
  });
  process.exit(0);
}
console.log(report(result));
writeResults({ result, machine, device: info, wanted: values.json, keep: !values['no-results'] });
const isCut = result.skipped.some((each) => each.isCut);
process.exit(!isCut && verdict.every(({ reached }) => reached) ? 0 : 1);
