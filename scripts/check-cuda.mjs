#!/usr/bin/env node
// What ptxas says about the kernels: fails when one spills registers or has a stack frame that is
// not accounted for below, and keeps docs/gpu-registers.md. The oldest and the newest architecture
// are compiled too where the build left them out, as far as PTX. Without nvcc there is nothing to
// check, and it says so. Usage: check-cuda.mjs [--write] [LOG]
//   LOG      of a complete build with warnings as errors, such as build/prebuild.log;
//            without it, the CUDA backend is built in build/check-cuda
//   --write  writes docs/gpu-registers.md, which is otherwise compared, for the architectures of
//            the build, if it was made with this nvcc
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { toolPath } from './device/tools.mjs';
import { formatted } from './formatted.mjs';
import { readableNames } from './kernel-names.mjs';

/** Kernels that may have a stack frame or spill, up to so many bytes, and why. */
const accepted = [
  // The calls of the unit stage save registers; a thread runs it once a unit, and no loop over
  // logits has them.
  {
    kernel: /^loss_kernel/,
    frame: 128,
    spills: 160,
    reason: 'calls of the unit stage',
  },
  {
    kernel:
      /^(evaluate_group|\w*_scaled|softplus|log_sigmoid|sigmoid\w*|logistic|log1mexp|box_cox_exp)$/,
    frame: 96,
    spills: 512,
    reason: 'calls of the unit stage',
  },
  // One register, of metrics that are asked for under transformed logits.
  { kernel: /^measure<\w+, true>/, frame: 8, spills: 16, reason: 'metrics of transformed logits' },
];

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const document = path.join(root, 'docs/gpu-registers.md');
const { values: options, positionals } = parseArgs({
  options: { write: { type: 'boolean' } },
  allowPositionals: true,
});

function fail(message) {
  console.error(`check-cuda: ${message}`);
  process.exit(1);
}

/** The output of a build of nothing but the backend. */
function build() {
  const directory = path.join(root, 'build/check-cuda');
  // One file's messages after another, which ninja does by itself.
  const env = { ...process.env, MAKEFLAGS: '--output-sync=target' };
  const cmake = (...args) => {
    const { status, stdout, stderr } = spawnSync('cmake', args, {
      cwd: root,
      env,
      encoding: 'utf8',
      maxBuffer: 2 ** 28,
    });
    if (status !== 0) fail(`the build failed:\n${stdout}${stderr}`);
    return `${stdout}${stderr}`;
  };
  const settings = [
    '-DDIRALIGN_WERROR=ON',
    '-DDIRALIGN_BUILD_ADDON=OFF',
    '-DCMAKE_BUILD_TYPE=Release',
  ];
  const configured = cmake('-S', root, '-B', directory, ...settings);
  if (!configured.includes('diralign: with CUDA')) return configured;
  const jobs = String(availableParallelism());
  return (
    configured +
    cmake('--build', directory, '--target', 'diralign_cuda', '--clean-first', '--parallel', jobs)
  );
}

/**
 * What nvcc has against a kernel on an architecture. Between them the oldest and the newest take
 * every branch of `__CUDA_ARCH__` that sm_90 does not; unoptimised PTX takes a second a file.
 */
function refusals(architecture) {
  return readdirSync(path.join(root, 'cuda'))
    .filter((name) => name.endsWith('.cu'))
    .flatMap((name) => {
      const { status, stdout, stderr } = spawnSync(
        toolPath('nvcc'),
        ['-G', '-ptx', `-arch=compute_${architecture}`, '-std=c++20', '-Werror=all-warnings']
          .concat(['-I', 'src', '-o', '/dev/null'])
          .concat(path.join('cuda', name)),
        { cwd: root, encoding: 'utf8' },
      );
      return status === 0 ? [] : [`${name} for compute_${architecture}:\n${stdout}${stderr}`];
    });
}

/**
 * [{ symbol, architecture, registers, shared, frame, spills }]; a function that is called and not
 * inlined has no registers of its own.
 */
function kernels(log) {
  const found = [];
  let kernel; // whose messages these are
  let current; // whose memory is told next
  const end = () => {
    if (kernel && (kernel.registers === undefined || kernel.frame === undefined))
      fail(
        `ptxas says nothing about ${kernel.symbol} for sm_${kernel.architecture}, ` +
          'or messages are mixed up',
      );
  };
  for (const line of log.split('\n')) {
    const entry = /Compiling entry function '(\S+)' for 'sm_(\w+)'/.exec(line);
    if (entry) {
      end();
      kernel = { symbol: entry[1], architecture: entry[2] };
      found.push(kernel);
    }
    const properties = /Function properties for (\S+)/.exec(line);
    if (properties) {
      current =
        properties[1] === kernel?.symbol
          ? kernel
          : { symbol: properties[1], architecture: '', called: true };
      if (current.called) found.push(current);
    }
    const memory =
      /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads/.exec(line);
    if (memory && current) {
      current.frame = Number(memory[1]);
      current.spills = Number(memory[2]) + Number(memory[3]);
    }
    const used = /Used (\d+) registers/.exec(line);
    if (used && kernel) {
      if (kernel.registers !== undefined)
        fail(`two answers about ${kernel.symbol}: messages are mixed up`);
      kernel.registers = Number(used[1]);
      kernel.shared = Number(/(\d+) bytes smem/.exec(line)?.[1] ?? 0);
    }
  }
  end();
  return found;
}

const log = positionals.length > 0 ? readFileSync(positionals[0], 'utf8') : build();
const backend = /diralign: (with(?:out)? CUDA.*)/.exec(log)?.[1];
if (backend === undefined) fail('the log is not that of a build');
if (!backend.startsWith('with CUDA')) {
  console.log(`check-cuda: skipped, this build is ${backend}`);
  process.exit(0);
}
const version = /diralign: nvcc ([\d.]+)/.exec(log)?.[1];
const told = kernels(log);
const names = readableNames(told.map(({ symbol }) => symbol));
told.forEach((entry, i) => (entry.name = names[i]));
const found = told.filter(({ called }) => !called);
if (version === undefined || found.length === 0)
  fail('no kernel in the log: it is not that of a complete build with DIRALIGN_WERROR=ON');

const architectures = [...new Set(found.map(({ architecture }) => architecture))].sort(
  (a, b) => a - b,
);
const wanted = /for ([\d,]+)/.exec(backend)[1].split(',');
const byName = new Map();
for (const kernel of found) byName.set(kernel.name, [...(byName.get(kernel.name) ?? []), kernel]);

const problems = [];
for (const [name, variants] of byName) {
  const has = variants.map(({ architecture }) => architecture).sort((a, b) => a - b);
  if (has.join() !== wanted.join())
    problems.push(`${name} is compiled for ${has.join()}, not for ${wanted.join()}`);
}
for (const architecture of ['75', '120'])
  if (!wanted.includes(architecture)) problems.push(...refusals(architecture));
const inMemory = told.filter(({ frame, spills }) => frame > 0 || spills > 0);
for (const { name, architecture, frame, spills } of inMemory) {
  const limit = accepted.find(({ kernel }) => kernel.test(name));
  if (!limit || frame > limit.frame || spills > limit.spills)
    problems.push(
      `${name}${architecture && ` for sm_${architecture}`}: stack frame of ${frame} bytes, ` +
        `${spills} bytes spilled`,
    );
}

const cell = (variants, key) =>
  architectures.map((a) => variants.find(({ architecture }) => architecture === a)?.[key] ?? '');
const rows = [...byName]
  .sort(([a], [b]) => (a < b ? -1 : 1))
  .map(([name, variants]) => {
    const shared = Math.max(...cell(variants, 'shared'));
    return `| \`${name}\` | ${shared} | ${cell(variants, 'registers').join(' | ')} |`;
  });
const text = await formatted(
  document,
  `# Registers of the kernels

Made by \`npm run check:cuda -- --write\` from what ptxas of nvcc ${version} says. A
release fails on a spilled register and on a stack frame without a reason, and so does CI for sm_90;
it compiles the oldest and the newest as far as PTX. Static shared memory in bytes; registers a
thread for each compute capability.

| kernel | shared | ${architectures.join(' | ')} |
| --- | ---: | ${architectures.map(() => '---:').join(' | ')} |
${rows.join('\n')}

${
  inMemory.length === 0
    ? 'No kernel spills a register or has a stack frame.'
    : `Stack frames, and bytes of spilled registers:

| kernel | compute capability | frame | spilled | reason |
| --- | --- | ---: | ---: | --- |
${inMemory
  .map(({ name, architecture, frame, spills }) => {
    const reason = accepted.find(({ kernel }) => kernel.test(name))?.reason ?? '';
    return `| \`${name}\` | ${architecture} | ${frame} | ${spills} | ${reason} |`;
  })
  .join('\n')}`
}
`,
);

/** Rows of a page's table of kernels, with the columns of the architectures that were built. */
function tableOf(markdown) {
  const table = markdown.split('\n\n').find((block) => block.startsWith('| kernel')) ?? '';
  const [header = [], , ...kernels] = table
    .split('\n')
    .map((line) => line.split('|').map((part) => part.trim()));
  const columns = ['kernel', 'shared', ...architectures].map((name) => header.indexOf(name));
  return kernels.map((cells) => columns.map((column) => cells[column]).join(' | ')).join('\n');
}

if (options.write) {
  writeFileSync(document, text);
} else {
  const recorded = existsSync(document) ? readFileSync(document, 'utf8') : '';
  const recordedVersion = /nvcc\s+([\d.]+)\s+says/.exec(recorded)?.[1];
  if (recordedVersion !== undefined && recordedVersion !== version)
    console.log(
      `check-cuda: docs/gpu-registers.md is of nvcc ${recordedVersion}, ` +
        `this is ${version}: not compared`,
    );
  else if (tableOf(recorded) !== tableOf(text))
    problems.push('docs/gpu-registers.md is out of date: npm run check:cuda -- --write');
}
const most = Math.max(...found.map(({ registers }) => registers));
console.log(
  `check-cuda: ${byName.size} kernels for ${wanted.join(', ')} with nvcc ${version}; ` +
    `at most ${most} registers, ` +
    `${inMemory.length} with a stack frame or spills`,
);
for (const problem of problems) console.error(`check-cuda: ${problem}`);
if (problems.length > 0) process.exitCode = 1;
