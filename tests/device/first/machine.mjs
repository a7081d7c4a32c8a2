#!/usr/bin/env node
// The first step of `gpu:first`: what card this is, what of the build runs on it, and what tools
// there are. Writes JSON to its argument.
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { codeLines, describeCode, unfit } from '../../../scripts/device/code.mjs';
import {
  describeMachine,
  isEmulated,
  loadSubject,
  requireDevice,
  writeSoFar,
} from '../../../scripts/device/machine.mjs';
import { algorithmLayers, algorithmsOf } from '../check/hidden.mjs';
import { toolPath } from '../../../scripts/device/tools.mjs';

const say = (command, ...args) => {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    encoding: 'utf8',
    timeout: 10_000,
  });
  console.log(status === 0 ? stdout.trim() : `${command}: ${error?.message ?? stderr.trim()}`);
};

const [file] = process.argv.slice(2);
say('nvidia-smi');
say('nvidia-smi', '-q', '-d', 'CLOCK,POWER,PERFORMANCE,ECC');
const subject = await loadSubject();
const device = requireDevice(subject.cuda);
const { version } = createRequire(import.meta.url)('../../../package.json');
const code = describeCode(subject, device);
const tools = Object.fromEntries(
  ['ncu', 'compute-sanitizer'].map((name) => [name, toolPath(name) ?? null]),
);
const { hiddenReason } = subject.cuda;
const machine = describeMachine(device, version);
const result = {
  emulated: isEmulated(device),
  machine,
  code,
  tools,
  hiddenReason: hiddenReason ?? null,
};
writeSoFar(file, result);
console.log(JSON.stringify(machine, null, 2));
for (const line of codeLines(code)) console.log(line);
const problem = unfit(code, device);
if (problem !== undefined) console.log(`NOT FIT: ${problem}`);
for (const [name, found] of Object.entries(tools)) console.log(`${name}: ${found ?? 'not found'}`);
console.log(`cuBLASLt: ${hiddenReason ?? 'found'}`);
if (hiddenReason === undefined) {
  result.algorithms = algorithmsOf(subject.native, algorithmLayers, device);
  for (const { what, usable, offered } of result.algorithms)
    console.log(`  ${what}: ${usable} of ${offered} algorithms for any rows`);
  writeSoFar(file, result);
}
process.exit(problem === undefined ? 0 : 1);
