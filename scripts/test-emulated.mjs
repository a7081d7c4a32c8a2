#!/usr/bin/env node
// The addon with its CUDA backend on the emulation of CUDA (tests/simt), inside Node: every call on device data, without a device.
// Arguments after the options are passed on to vitest; without any it runs the suites of the backend.
//   --sanitize  under AddressSanitizer and UndefinedBehaviorSanitizer, and the suites of the CPU backend's calls, too: what the
//               native tests cannot see, the translation of arguments and the life of asynchronous jobs
//   --orders    comma separated: the schedules to run the suites with, `forward`, `reverse` or the seed of a random one
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, renameSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const args = process.argv.slice(2);
const take = (name) => (args.includes(name) ? args.splice(args.indexOf(name), 1)[0] : undefined);
const sanitize = take('--sanitize') !== undefined;
const at = args.indexOf('--orders');
const orders = at < 0 ? (sanitize ? ['7'] : ['forward', '1']) : args.splice(at, 2)[1].split(',');

// The sanitized one is a target of the native tests' build, which has compiled all but the addon's own files already.
const directory = sanitize ? 'build/asan' : 'build/emulated';
const build = path.join(root, directory);
// cuda-absent is about the addon that is published.
const ofCuda = readdirSync(path.join(root, 'tests')).filter(
  (name) => /^cuda.*\.test\.ts$/.test(name) && name !== 'cuda-absent.test.ts',
);
const cpuSuites = [
  'errors',
  'properties',
  'edges',
  'hidden',
  'hidden-errors',
  'hidden-properties',
  'async',
  'abort',
  'lifecycle',
];
const ofCpu = cpuSuites.map((name) => `${name}.test.ts`);
const suites = [...ofCuda, 'gpu-scripts.test.ts', ...(sanitize ? ofCpu : [])].map((name) => `tests/${name}`);

function run(command, commandArgs, env = {}) {
  const { status } = spawnSync(command, commandArgs, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } });
  if (status !== 0) process.exit(status ?? 1);
}
function library(name) {
  const { stdout } = spawnSync('g++', [`-print-file-name=${name}`], { encoding: 'utf8' });
  return stdout.trim();
}

if (sanitize) {
  run('cmake', ['--preset', 'asan']);
  run('cmake', ['--build', '--preset', 'asan', '--target', 'diralign']);
} else {
  const settings = ['-D', 'DIRALIGN_CUDA=EMULATED', '-D', 'DIRALIGN_WERROR=ON'];
  run(process.execPath, ['scripts/build-native.mjs', '--build-dir', directory, ...settings]);
}
// Where node-gyp-build looks, in a folder of its own: build/Release keeps the addon that is published.
mkdirSync(path.join(build, 'load/build/Release'), { recursive: true });
// Renamed into place: whoever has the one before loaded keeps it.
const loaded = path.join(build, 'load/build/Release/diralign.node');
copyFileSync(path.join(build, 'diralign.node'), `${loaded}.new`);
renameSync(`${loaded}.new`, loaded);

const environment = {
  DIRALIGN_PREBUILD: path.join(build, 'load'),
  // The suites fail, and do not skip, where CUDA is not available.
  DIRALIGN_EXPECT_CUDA: '1',
  ...(sanitize && {
    LD_PRELOAD: `${library('libasan.so')} ${library('libubsan.so')}`,
    // V8 leaves its heap behind at exit; lifecycle.test.ts looks for leaks of ours.
    ASAN_OPTIONS: 'detect_leaks=0:halt_on_error=1',
    UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
  }),
};
for (const order of orders) {
  console.log(`\nthreads, warps and blocks in order: ${order}`);
  run('npx', ['vitest', 'run', ...(args.length > 0 ? args : suites)], { ...environment, SIMT_ORDER: order });
}
