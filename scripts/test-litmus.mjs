#!/usr/bin/env node
// npm run test:litmus: the order of memory between blocks, by herd7, under the axioms of PTX and
// under C11's as repaired (RC11). The tests in tests/litmus say which functions they model. What
// they forbid must never happen; weakened, each must let it happen, or it would test nothing.
// Without herd7 there is nothing to run, and it says so. HERD7 names another command.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(new URL('../tests/litmus', import.meta.url));
const models = [path.join(folder, 'ptx.cat'), 'rc11.cat'];

/**
 * The orders of the instructions in cuda/platform.cuh, those of a barrier of the block, and what a
 * message releases as it completes.
 */
const platform = readFileSync(path.join(folder, '../../cuda/platform.cuh'), 'utf8');
const [, ARRIVE] = /"atom\.add\.(\w+)\.gpu\.global\.u32 /.exec(platform) ?? [];
const [, AWAIT] = /"ld\.(\w+)\.gpu\.global\.u32 /.exec(platform) ?? [];
const [, RECEIVE] = /"mbarrier\.try_wait\.parity\.(\w+)\.cluster\./.exec(platform) ?? [];
if (!ARRIVE || !AWAIT || !RECEIVE)
  throw new Error('cuda/platform.cuh: no instruction in arrive, arrivals or receive');
const given = { ARRIVE, AWAIT, SEND: 'release', RECEIVE };
Object.assign(given, { BARRIER_IN: 'release', BARRIER_OUT: 'acquire' });
const noRelease = { ARRIVE: 'acquire' };
const noAcquire = { ARRIVE: 'release' };
const relaxed = { AWAIT: 'relaxed' };
const noBarrier = { BARRIER_IN: 'relaxed', BARRIER_OUT: 'relaxed' };
const mutants = {
  tile: { noRelease, noAcquire, noBarrier },
  chain: { noRelease, noAcquire, relaxed, noBarrier },
  // Whoever awaits needs nothing from its own arrival.
  residual: { noRelease, relaxed, noBarrier },
  message: { noCompletion: { SEND: 'relaxed' }, relaxed: { RECEIVE: 'relaxed' }, noBarrier },
};

const herd = process.env.HERD7 ?? 'herd7';
const found = spawnSync(herd, ['-version'], { encoding: 'utf8' });
if (found.status !== 0) {
  console.log(`test-litmus: skipped, ${herd} is not installed`);
  process.exit(0);
}
console.log(`herd7 ${found.stdout.trim()}`);

const scratch = mkdtempSync(path.join(os.tmpdir(), 'diralign-litmus-'));
process.on('exit', () => rmSync(scratch, { recursive: true }));

/** `Never`, `Sometimes` or `Always`: whether the outcome that the test asks about is allowed. */
function observe(test, orders, model) {
  const source = readFileSync(path.join(folder, `${test}.litmus`), 'utf8');
  const text = source.replace(/\b(ARRIVE|AWAIT|SEND|RECEIVE|BARRIER_(?:IN|OUT))(?=\))/g, (name) => {
    return `memory_order_${orders[name]}`;
  });
  const file = path.join(scratch, `${test}.litmus`);
  writeFileSync(file, text);
  const { stdout, stderr } = spawnSync(herd, ['-model', model, file], { encoding: 'utf8' });
  const observed = /^Observation \S+ (\w+)/m.exec(stdout)?.[1];
  if (observed !== undefined) return observed;
  console.error(`test-litmus: herd7 says nothing about ${test}:\n${stdout}${stderr}`);
  process.exit(1);
}

/** RC11 lets no read see what follows from it, barrier or not. */
const ruledOut = ['message, rc11, noBarrier'];

let failed = false;
for (const [test, weakened] of Object.entries(mutants)) {
  for (const model of models) {
    const name = `${test}, ${path.basename(model, '.cat')}`;
    const check = (variant, orders, expected) => {
      const wanted = ruledOut.includes(`${name}, ${variant}`) ? 'Never' : expected;
      const observed = observe(test, { ...given, ...orders }, model);
      const ok = observed === wanted;
      if (!ok) failed = true;
      console.log(`${ok ? 'ok  ' : 'FAIL'} ${name}, ${variant}: ${observed}`);
    };
    check('as it is', {}, 'Never');
    for (const [mutant, orders] of Object.entries(weakened)) check(mutant, orders, 'Sometimes');
  }
}
if (failed) process.exitCode = 1;
