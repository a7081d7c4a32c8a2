#!/usr/bin/env node
// The addon with its CUDA backend on the emulation of CUDA (tests/simt), inside Node: every call on
// device data, without a device. Arguments after the options are passed on to vitest; without any
// it runs the suites of the backend.
//   --sanitize  under AddressSanitizer and UndefinedBehaviorSanitizer, and suites of the CPU
//               backend's calls, too: those of what the native tests cannot see, the translation of
//               arguments and the life of asynchronous jobs. The kernels' own are not among them
//   --orders    comma separated: the schedules to run the suites with, `forward`, `reverse` or the
//               seed of a random one
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { buildEmulated, root, run } from './emulated.mjs';

const args = process.argv.slice(2);
const take = (name) => (args.includes(name) ? args.splice(args.indexOf(name), 1)[0] : undefined);
const sanitize = take('--sanitize') !== undefined;
const at = args.indexOf('--orders');
const orders = at < 0 ? (sanitize ? ['7'] : ['forward', '1']) : args.splice(at, 2)[1].split(',');

// cuda-absent is about the addon that is published.
const ofCuda = readdirSync(path.join(root, 'tests', 'backends'))
  .filter((name) => /^cuda.*\.test\.ts$/.test(name) && name !== 'cuda-absent.test.ts')
  .map((name) => `backends/${name.replace('.test.ts', '')}`);
const ofCpu = [
  'interface/errors',
  'objectives/edges',
  'backends/hidden-errors',
  'backends/hidden-properties',
  'interface/async',
  'interface/abort',
  'interface/lifecycle',
];
const suites = [
  ...ofCuda,
  'device/gpu-scripts',
  'backends/extremes-hidden',
  ...(sanitize ? ofCpu : []),
].map((name) => `tests/${name}.test.ts`);

const environment = buildEmulated({ sanitize });
for (const order of orders) {
  console.log(`\nthreads, warps and blocks in order: ${order}`);
  run('npx', ['vitest', 'run', ...(args.length > 0 ? args : suites)], {
    ...environment,
    SIMT_ORDER: order,
  });
}
