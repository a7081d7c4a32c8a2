#!/usr/bin/env node
// The prebuilt addons, in prebuilds/: npm run build:prebuilds -- [--all | --only ID,...]
//   (nothing)  of this system, with CUDA where nvcc is found
//   --all      of every platform (scripts/platforms.mjs), from Linux x64; the others without CUDA
//   --only     of these
// Other platforms' are compiled by zig: one compiler that brings the headers and C libraries of all
// of them. It takes 396 MB, so it is nobody's dependency but fetched into build/zig when it is
// first needed.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { here, platforms, platformsOf, root } from './platforms.mjs';
import { buildByZig } from './zig.mjs';

const { values } = parseArgs({
  options: { all: { type: 'boolean', default: false }, only: { type: 'string' } },
});
if (here === undefined)
  throw new Error(`no prebuilt addon is made for ${process.platform}-${process.arch}`);
const chosen =
  values.only === undefined ? (values.all ? platforms : [here]) : platformsOf(values.only);

function mustRun(...args) {
  const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' });
  if (status !== 0) throw new Error(`node ${args.join(' ')} failed`);
}

function build(one) {
  if (one === here) {
    const prebuildify = createRequire(import.meta.url).resolve('prebuildify/bin.js');
    const args = ['--napi', '--strip', '--node-gyp', 'scripts/node-gyp-shim.mjs'];
    return mustRun(prebuildify, ...args, ...(one.libc ? [`--tag-libc=${one.libc}`] : []));
  }
  console.log(`diralign: ${one.file}`);
  const folder = buildByZig(one.id, one.zig);
  const file = path.join(root, one.file);
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.copyFileSync(path.join(folder, 'diralign.node'), file);
}

chosen.forEach(build);
mustRun('scripts/check-prebuilds.mjs', ...chosen.map(({ file }) => file));
