#!/usr/bin/env node
// npm run gpu:bench: the CUDA backend's times on the card of this machine, against a copy kernel and installed peers of the same run. Needs
// Node, the built package and a driver; see docs/gpu-performance.md.
import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';
import { describeMachine, isEmulated, loadSubject, parseOrExit, requireDevice, writeResults } from './gpu/machine.mjs';
import { makeLayer, measureLayer, neededByLayer } from './gpu/layer.mjs';
import { Device, measureBatch, needed } from './gpu/measure.mjs';
import { findPeers, measureLayerPeer, measurePeer } from './gpu/peers.mjs';
import { batchesOf, parseShapes, scales } from './gpu/plan.mjs';
import { judge, report } from './gpu/report.mjs';

const usage = `Usage: npm run gpu:bench -- [options]

Measures the CUDA backend on the card of this machine: loss only, factored and dense gradients, with all and with half of the rows
scored, as a share of what a copy kernel reaches in the same rounds; fromHidden by the clock; and PyTorch, torch.compile, Liger-Kernel and quack where a
python3 (or PYTHON) has them, the first three also from hidden states. Ends with tables, and with exit code 1 where a target was missed, 2 where there is no device.

  --quick            fewer shapes, for about ten minutes
  --scale NAME       ${Object.keys(scales).join(', ')} (default: full; --quick is --scale quick)
  --shapes NxV,...   these rows and vocabularies only, in bfloat16: for instance 8192x32000,256x50257
  --rounds N         interleaved rounds, at least 15 (default 15)
  --no-peers         without them
  --json FILE        write the results there, too
  --no-results       write nothing to bench/results
  -h, --help

CUDA_VISIBLE_DEVICES chooses among several cards. Results go to bench/results/DATE-GPU.json. Times of the emulation are of no use to
anybody: they are neither shown nor written.`;

const { values, scale, shapes, rounds } = parseOrExit(() => {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      scale: { type: 'string' },
      shapes: { type: 'string' },
      rounds: { type: 'string' },
      'no-peers': { type: 'boolean', default: false },
      json: { type: 'string' },
      'no-results': { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  const name = values.scale ?? (values.quick ? 'quick' : 'full');
  if (!Object.hasOwn(scales, name)) throw new Error(`--scale ${name}: there are ${Object.keys(scales).join(', ')}`);
  const scale = { name, ...scales[name] };
  const rounds = values.rounds === undefined ? scale.rounds : Number(values.rounds);
  if (!Number.isInteger(rounds) || rounds < scale.rounds) {
    throw new Error(`--rounds ${values.rounds}: expected a whole number of at least ${scale.rounds}`);
  }
  return { values, scale, shapes: values.shapes && parseShapes(values.shapes), rounds };
}, usage);
if (values.help) {
  console.log(usage);
  process.exit(0);
}

const subject = await loadSubject();
const info = requireDevice(subject.cuda);
const emulated = isEmulated(info);
if (emulated && scale.name !== 'tiny') {
  console.error(`${info.name} is the emulation of CUDA; only --scale tiny can be run on it, and no times are taken.`);
  process.exit(2);
}
const { version } = createRequire(import.meta.url)('../package.json');
const machine = describeMachine(info, version);
console.log(
  `${info.name}, compute capability ${info.computeCapability}, ${info.multiprocessors} multiprocessors, diralign ${version}`,
);

const say = (text) => process.stderr.isTTY && process.stderr.write(`\r\x1b[K${text}`);
const progress = (text) => (share) => say(`${text}: ${Math.floor(100 * share)} %`);
const device = new Device(subject, info, scale);
const installed = values['no-peers'] || emulated ? { found: [], missing: [] } : findPeers();
for (const { name, reason } of installed.missing) console.log(`peer ${name} not available: ${reason}`);
const start = performance.now();
const groups = [];
const skipped = [];
const peers = [];
for (const wanted of batchesOf(scale, shapes)) {
  const title = `${wanted.dtype} ${wanted.rows} x ${wanted.vocab}`;
  const [bytes, free] = [needed(wanted), device.free()];
  if (bytes > free) {
    skipped.push({ ...wanted, reason: `needs ${(bytes / 1e9).toFixed(1)} GB, ${(free / 1e9).toFixed(1)} GB are free` });
    continue;
  }
  const batch = device.batch(wanted);
  const measured = await measureBatch(device, batch, { rounds, fractions: [1, 0.5], progress: progress(title) });
  groups.push({ ...wanted, ...measured });
  if (wanted.dtype === 'bfloat16' && (shapes || scale.peerRows.includes(wanted.rows))) {
    for (const peer of installed.found.filter(({ layer }) => !layer)) {
      for (const fraction of [1, 0.5]) {
        const doing = progress(`${title}, ${peer.name}, ${100 * fraction} % of the rows`);
        peers.push(await measurePeer(device, batch, peer, { fraction, rounds, progress: doing }));
      }
    }
  }
  batch.dispose();
}
const layers = [];
const layerPeers = [];
const noLayers = subject.cuda.hiddenReason;
for (const wanted of noLayers === undefined && !shapes ? scale.layers : []) {
  const [bytes, free] = [neededByLayer(wanted), device.free()];
  const title = `fromHidden ${wanted.rows} x ${wanted.size} x ${wanted.vocab}`;
  if (!emulated && bytes > free) {
    skipped.push({
      dtype: 'fromHidden',
      ...wanted,
      reason: `needs ${(bytes / 1e9).toFixed(1)} GB, ${(free / 1e9).toFixed(1)} GB are free`,
    });
    continue;
  }
  const layer = makeLayer(device, wanted);
  layers.push(...(await measureLayer(device, layer, { rounds, fractions: [1, 0.5], progress: progress(title) })));
  for (const peer of installed.found.filter(({ layer }) => layer)) {
    for (const fraction of [1, 0.5]) {
      const doing = progress(`${title}, ${peer.name}, ${100 * fraction} % of the rows`);
      layerPeers.push(await measureLayerPeer(device, layer, peer, { fraction, rounds, progress: doing }));
    }
  }
  layer.dispose();
}
say('');

const result = {
  command: 'gpu:bench',
  scale: scale.name,
  rounds,
  seconds: (performance.now() - start) / 1000,
  machine,
  groups,
  layers,
  ...(noLayers !== undefined && { noLayers }),
  skipped,
  peers,
  layerPeers,
  missingPeers: installed.missing,
};
const verdict = judge(result);
result.targets = verdict;
if (emulated) {
  const cases = groups.reduce((sum, { entries }) => sum + entries.length, 0);
  console.log(`${cases} cases of ${groups.length} batches ran on the emulation. No times were kept.`);
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
process.exit(verdict.every(({ reached }) => reached) ? 0 : 1);
