/**
 * npm run bench:instructions: how many instructions of arm64 a logit takes in the kernels, counted
 * under qemu, one at a time: of N logits and of 2 N, whose difference has no beginning and no end.
 * It needs Debian's cross compiler and qemu-user, as `npm run test:arm64` does. How long they take,
 * no emulator says.
 */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const build = 'build/arm64-release';
const program = `${build}/diralign_kernel_run`;
const log = path.join(os.tmpdir(), `diralign-instructions-${process.pid}`);
const quiet = { stdio: ['ignore', 'ignore', 'inherit'] };
execFileSync('cmake', ['--preset', 'arm64', '-B', build, '-DCMAKE_BUILD_TYPE=Release'], quiet);
execFileSync('cmake', ['--build', build, '--target', 'diralign_kernel_run'], quiet);

function instructions(kernel, dtype, n) {
  const counting = ['-singlestep', '-d', 'exec,nochain', '-D', log];
  const given = [kernel, String(dtype), String(n)];
  execFileSync('qemu-aarch64', [...counting, '-L', '/usr/aarch64-linux-gnu', program, ...given]);
  return fs.readFileSync(log, 'latin1').split('\nTrace').length;
}

const all = [0, 1, 2];
const cases = [
  ['sums', all, 8192, 1],
  ['sums and moment', all, 8192, 1],
  ['gradient', all, 8192, 1],
  ['sums and gradient', [0], 8192, 1],
  ['product', all, 32, 64 * 64],
];
console.log('| instructions | float32 | float16 | bfloat16 |\n| --- | --- | --- | --- |');
for (const [kernel, dtypes, n, each] of cases) {
  const counts = all.map((dtype) => {
    if (!dtypes.includes(dtype)) return '-';
    const more = instructions(kernel, dtype, 2 * n) - instructions(kernel, dtype, n);
    return (more / (n * each)).toFixed(2);
  });
  console.log(`| ${[kernel, ...counts].join(' | ')} |`);
}
fs.rmSync(log);
