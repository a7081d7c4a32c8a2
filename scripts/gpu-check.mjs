#!/usr/bin/env node
// npm run gpu:check: whether the CUDA backend computes what it promises, on the card of this machine. Needs Node, the built package and a
// driver; see docs/gpu-performance.md for what to carry to such a machine.
import { createRequire } from 'node:module';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import {
  describeMachine,
  isEmulated,
  loadSubject,
  parseOrExit,
  requireDevice,
  root,
  writeResults,
} from '../bench/gpu/machine.mjs';
import { failed, runSection, sections } from './gpu-check/run.mjs';
import { scales } from './gpu-check/scales.mjs';
import { loadSupport, prepareSupport } from './gpu-check/support.mjs';

const names = sections.map(({ name }) => name);
const usage = `Usage: npm run gpu:check -- [options]

Checks the CUDA backend on the card of this machine: ${names.join(', ')}.
Ends with a table, and with exit code 1 where something was missed, 2 where there is no device.

  --quick            a fifth of the cases and fewer sizes, for a few minutes
  --scale NAME       ${Object.keys(scales).join(', ')} (default: full; --quick is --scale quick)
  --only A,B         these sections only
  --json FILE        write the results there, too
  --no-results       write nothing to bench/results
  --prepare          compile tests/support for a machine without development tools, and end
  --pack FILE.tgz    put everything that this command and gpu:bench need into an archive, and end
  -h, --help

CUDA_VISIBLE_DEVICES chooses among several cards. Results go to bench/results/DATE-GPU-check.json, but never those of the emulation.`;

const { values } = parseOrExit(
  () =>
    parseArgs({
      options: {
        quick: { type: 'boolean', default: false },
        scale: { type: 'string' },
        only: { type: 'string' },
        json: { type: 'string' },
        'no-results': { type: 'boolean', default: false },
        prepare: { type: 'boolean', default: false },
        pack: { type: 'string' },
        help: { type: 'boolean', short: 'h', default: false },
      },
    }),
  usage,
);
if (values.help) {
  console.log(usage);
  process.exit(0);
}
function refuse(message) {
  console.error(`${message}\n\n${usage}`);
  process.exit(2);
}

/** What the two commands need on a machine with nothing but Node and a driver. */
const luggage = [
  'package.json',
  'dist',
  'build/Release/diralign.node',
  'build/gpu-check',
  'node_modules/node-gyp-build',
  'scripts/gpu-check.mjs',
  'scripts/gpu-check',
  'bench/gpu.mjs',
  'bench/gpu',
  'bench/peers/torch_gpu.py',
  'tests/fixtures/vectors',
];
if (values.prepare || values.pack !== undefined) {
  if (!prepareSupport()) refuse('--prepare needs the development tools: run npm ci');
  if (values.pack !== undefined) {
    const missing = luggage.filter((file) => !existsSync(path.join(root, file)));
    if (missing.length > 0) refuse(`missing: ${missing.join(', ')}; run npm run build`);
    const { status } = spawnSync('tar', ['-czf', path.resolve(values.pack), '-C', root, ...luggage], { stdio: 'inherit' });
    if (status !== 0) process.exit(1);
    console.log(`Written: ${values.pack}`);
  }
  process.exit(0);
}

const scaleName = values.scale ?? (values.quick ? 'quick' : 'full');
if (!(scaleName in scales)) refuse(`--scale ${scaleName}: there are ${Object.keys(scales).join(', ')}`);
const wanted = values.only?.split(',') ?? names;
const unknown = wanted.find((name) => !names.includes(name));
if (unknown !== undefined) refuse(`--only ${unknown}: there are ${names.join(', ')}`);

const subject = await loadSubject();
const device = requireDevice(subject.cuda);
const support = await loadSupport();
const { version } = createRequire(import.meta.url)('../package.json');
const machine = describeMachine(device, version);
console.log(`${device.name}, compute capability ${device.computeCapability}, diralign ${version}, scale ${scaleName}`);
if (isEmulated(device)) console.log('This is the emulation of CUDA: what holds here is no statement about a device.');

/** One line that moves on a terminal, nothing in a log. */
let lastShown = 0;
const showProgress = (name) => async (share) => {
  if (process.stderr.isTTY && performance.now() - lastShown > 200) {
    lastShown = performance.now();
    process.stderr.write(`\r${name}: ${Math.floor(100 * share)} % `);
  }
  // Lets warnings and finalizers of what went before have their turn.
  await new Promise((resolve) => setTimeout(resolve, 0));
};

const results = [];
for (const section of sections.filter(({ name }) => wanted.includes(name))) {
  const context = { ...support, subject, scale: scales[scaleName], device };
  const result = await runSection(section, context, showProgress(section.name));
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  results.push(result);
  console.log(
    `${section.name}: ${result.status}, ${result.checked.toLocaleString('en')} checks in ${result.seconds.toFixed(1)} s`,
  );
  for (const miss of result.misses) console.log(`  MISS ${miss}`);
}

const widths = [14, 8, 14, 8, 9];
const line = (cells) =>
  cells
    .map((cell, i) => (i === 0 || i === 1 || i >= widths.length ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i])))
    .join('  ')
    .trimEnd();
console.log(`\n${line(['section', 'status', 'checks', 'worst', 'seconds', 'notes'])}`);
for (const { section, status, checked, worst, seconds, notes } of results) {
  console.log(line([section, status, checked.toLocaleString('en'), worst.toFixed(3), seconds.toFixed(1), notes.join('; ')]));
}
console.log('\nworst: the largest error as a share of its bound.');

const failure = failed(results);
const result = { command: 'gpu:check', scale: scaleName, machine, ok: !failure, sections: results };
writeResults({ result, machine, device, wanted: values.json, suffix: '-check', keep: !values['no-results'] });
console.log(failure ? '\nMISSED' : `\nNothing was missed on ${device.name}.`);
process.exit(failure ? 1 : 0);
