#!/usr/bin/env node
// The addon inside Node under AddressSanitizer and UndefinedBehaviorSanitizer: what the native tests cannot see, the translation of
// arguments and the life of asynchronous jobs. Arguments are passed on to vitest.
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const build = path.join(root, 'build/asan-addon');
const suites = ['errors', 'properties', 'edges'].map((name) => `tests/${name}.test.ts`);

function run(command, args, env = {}) {
  const { status } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } });
  if (status !== 0) process.exit(status ?? 1);
}
function library(name) {
  const { stdout } = spawnSync('g++', [`-print-file-name=${name}`], { encoding: 'utf8' });
  return stdout.trim();
}

run(process.execPath, [
  'scripts/build-native.mjs',
  '--build-dir',
  'build/asan-addon',
  '-D',
  'DIRALIGN_SANITIZE=address,undefined',
]);
// Where node-gyp-build looks, in a folder of its own: build/Release keeps the addon that is published.
mkdirSync(path.join(build, 'load/build/Release'), { recursive: true });
copyFileSync(path.join(build, 'diralign.node'), path.join(build, 'load/build/Release/diralign.node'));
run('npx', ['vitest', 'run', ...(process.argv.length > 2 ? process.argv.slice(2) : suites)], {
  DIRALIGN_PREBUILD: path.join(build, 'load'),
  LD_PRELOAD: `${library('libasan.so')} ${library('libubsan.so')}`,
  // V8 leaves its heap behind at exit; lifecycle.test.ts looks for leaks of ours.
  ASAN_OPTIONS: 'detect_leaks=0:halt_on_error=1',
  UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
});
