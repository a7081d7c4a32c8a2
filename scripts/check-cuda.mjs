#!/usr/bin/env node
// The headers of the pair mathematics must compile for host and device. Without nvcc there is nothing to check.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const candidates = [
  process.env.CUDACXX,
  process.env.CUDA_HOME && path.join(process.env.CUDA_HOME, 'bin/nvcc'),
  'nvcc',
  '/usr/local/cuda/bin/nvcc',
];
const nvcc = candidates.find((c) => c && (path.isAbsolute(c) ? existsSync(c) : spawnSync(c, ['--version']).status === 0));
if (!nvcc) {
  console.log('check-cuda: skipped, no nvcc');
  process.exit(0);
}
const scratch = mkdtempSync(path.join(os.tmpdir(), 'diralign-cuda-'));
const args = [
  '-std=c++20',
  '-arch=sm_80',
  '-Werror',
  'all-warnings',
  '-Isrc',
  '-c',
  'cuda/pair_stage.cu',
  '-o',
  path.join(scratch, 'pair_stage.o'),
];
const { status, stdout, stderr } = spawnSync(nvcc, args, { cwd: root, encoding: 'utf8' });
rmSync(scratch, { recursive: true });
if (status !== 0) {
  console.error(stdout + stderr);
  process.exit(1);
}
console.log('check-cuda: the pair stage compiles for the device');
