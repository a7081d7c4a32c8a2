#!/usr/bin/env node
// Fails when the core library does not compile for arm64 without warnings. It needs Debian's
// g++-aarch64-linux-gnu, and runs nothing: there is no arm64 machine to run it on. Usage:
// check-arm64.mjs
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const compiler = 'aarch64-linux-gnu-g++';
const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
// What CMakeLists.txt gives the core on arm64: all but the addon, and no kernels for x86-64 levels.
const sources = readdirSync(path.join(root, 'src'), { recursive: true })
  .filter((file) => file.endsWith('.cc') && !/^(addon|environment)\.cc$|kernels_avx/.test(file))
  .sort();
const flags = [
  '-std=c++20',
  '-O2',
  '-ffp-contract=fast',
  '-fno-math-errno',
  '-Wall',
  '-Wextra',
  '-Werror',
  '-Isrc',
];

if (spawnSync(compiler, ['--version']).status !== 0) {
  console.log('skipped: no cross compiler');
} else {
  for (const source of sources) {
    const { status, stderr } = spawnSync(
      compiler,
      [...flags, '-c', path.join('src', source), '-o', '/dev/null'],
      {
        cwd: root,
        encoding: 'utf8',
      },
    );
    console.log(`${source}: ${status === 0 ? 'compiles for arm64' : 'does not compile for arm64'}`);
    if (status === 0) continue;
    console.error(stderr);
    process.exitCode = 1;
  }
}
