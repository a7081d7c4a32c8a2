#!/usr/bin/env node
// Starts two processes under mpirun again and again: what a library of messages does to the memory
// of a process shows rarely. UCX, under MPICH, ended 13 of 160 before mpi() set two variables.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { findLauncher } from '../dist/bench/launcher.js';

const { values } = parseArgs({
  options: {
    starts: { type: 'string', default: '100' },
    mpirun: { type: 'string', default: 'mpirun.mpich' },
  },
});
const { command, options } = findLauncher(values.mpirun);
const script = fileURLToPath(new URL('../tests/fixtures/distributed/stories.mjs', import.meta.url));
const url = new URL('../dist/index.js', import.meta.url).href;
/** A call, an access out of a WebAssembly memory, and a call; on both ranks. */
const args = [...options, '-np', '2', process.execPath, script, url, 'wasm'];
let failures = 0;
for (let i = 1; i <= Number(values.starts); i++) {
  const { status, signal, stdout, stderr } = spawnSync(command, args, {
    encoding: 'utf8',
    timeout: 60_000,
  });
  if (status === 0 && stdout.split('HELD wasm').length === 3) continue;
  failures++;
  console.log(`start ${i}: ${signal ?? status}\n${stdout}${stderr}`);
}
console.log(`${values.starts} starts by ${command}, ${failures} failures`);
process.exitCode = failures > 0 ? 1 : 0;
