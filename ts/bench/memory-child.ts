/** Started by memory.ts: one call in a fresh process, and how far the resident memory rose. */
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { dirAlignLoss } from '../objective.js';
import type { RunOptions } from '../loss/options.js';
import { makeBatch } from './data.js';
import { beta } from './modes.js';
import type { ExtraMemory } from './memory.js';

const { mode, shape, threads } = JSON.parse(process.argv[2] ?? '') as {
  mode: string;
  shape: [number, number, number];
  threads: number;
};
const runs: Readonly<Record<string, RunOptions<Float32Array>>> = {
  forward: { gradient: 'none', threads },
  'in-place': { inPlace: true, threads },
  factored: { gradient: 'factored', inPlace: true, threads },
  fresh: { threads },
};
const run = runs[mode];
if (!run) throw new Error(`${mode}: no such mode`);

const dpo = dirAlignLoss('dpo', beta);
const small = makeBatch(1, 2, 100);
// Loads the addon, starts its threads, compiles the calls.
for (let i = 0; i < 200; i++) dpo(small, run);
const batch = makeBatch(...shape);
// What is collected is given back by other threads, a little later; memory freed during the call
// would hide what it takes.
for (let i = 0; i < 2; i++) {
  (globalThis as unknown as { gc: () => void }).gc();
  await setTimeout(50);
}
const before = megabytes('VmRSS');
// Forgets the highest point so far.
writeFileSync('/proc/self/clear_refs', '5');
const { loss } = dpo(batch, run);
const extraMiB = Math.max(0, megabytes('VmHWM') - before);
if (!Number.isFinite(loss)) throw new Error(`loss: ${loss}`);
const answer: ExtraMemory = {
  mode,
  rows: batch.labels.length,
  extraMiB,
  logitsMiB: batch.logits.byteLength / 2 ** 20,
};
console.log(JSON.stringify(answer));

function megabytes(field: string): number {
  const found = new RegExp(`^${field}:\\s*(\\d+) kB`, 'm').exec(
    readFileSync('/proc/self/status', 'utf8'),
  );
  if (!found) throw new Error(`/proc/self/status has no ${field}`);
  return Number(found[1]) / 1024;
}
