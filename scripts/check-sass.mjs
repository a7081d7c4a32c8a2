#!/usr/bin/env node
// What the machine code of the loss kernels says about their speed: keeps docs/gpu-sass.md. Without
// CUDA in the addon, or without a disassembler, there is nothing to check, and it says so. Usage:
// check-sass.mjs [--write] [ADDON]
//   ADDON    build/Release/diralign.node unless given, or a folder with it
//   --write  writes the sections of docs/gpu-sass.md for the architectures of the addon, which are
//            otherwise compared, if they were made with this nvcc
// The disassembler is cuobjdump and nvdisasm of CUDA 12.4 or later: those beside nvcc, in the PATH,
// in CUDA_HOME, or where .ci/run puts them.
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { formatted } from './formatted.mjs';
import { readableNames } from './kernel-names.mjs';
import { functionsOf, partsOf, pipeNames } from './sass.mjs';

/**
 * Of a multiprocessor, by compute capability: the programming guide's table of technical
 * specifications.
 */
const multiprocessors = {
  75: { threads: 1024, shared: 64 },
  80: { threads: 2048, shared: 164 },
  86: { threads: 1536, shared: 100 },
  89: { threads: 1536, shared: 100 },
  90: { threads: 2048, shared: 228 },
  100: { threads: 2048, shared: 228 },
  120: { threads: 1536, shared: 100 },
};
const registersOfMultiprocessor = 65536;

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const document = path.join(root, 'docs/gpu-sass.md');
const { values: options, positionals } = parseArgs({
  options: { write: { type: 'boolean' } },
  allowPositionals: true,
});
const addon = addonIn(
  path.resolve(positionals[0] ?? path.join(root, 'build/Release/diralign.node')),
);

function fail(message) {
  console.error(`check-sass: ${message}`);
  process.exit(1);
}
function skip(why) {
  console.log(`check-sass: skipped, ${why}`);
  process.exit(0);
}

function addonIn(place) {
  if (!existsSync(place)) skip(`there is no ${place}`);
  if (!statSync(place).isDirectory()) return place;
  const file = readdirSync(place, { recursive: true }).find((name) => name.endsWith('.node'));
  if (file === undefined) skip(`there is no addon in ${place}`);
  return path.join(place, file);
}

/** A constant of the kernels' cut of rows. */
function constant(name) {
  const value = new RegExp(`constexpr uint32_t ${name} = (\\d+);`).exec(
    readFileSync(path.join(root, 'cuda/tuning.h'), 'utf8'),
  )?.[1];
  if (value === undefined) fail(`no ${name} in cuda/tuning.h`);
  return Number(value);
}
const threads = constant('threads');
const steps = constant('max_steps');

function findTools() {
  const folders = [
    path.join(root, 'build/cuda-binutils/usr/bin'),
    ...[process.env.CUDA_HOME, process.env.CUDA_PATH, '/usr/local/cuda']
      .filter(Boolean)
      .map((folder) => path.join(folder, 'bin')),
    ...(process.env.PATH ?? '').split(path.delimiter),
  ];
  const both = folders.find((folder) =>
    ['cuobjdump', 'nvdisasm'].every((tool) => existsSync(path.join(folder, tool))),
  );
  return both && { cuobjdump: path.join(both, 'cuobjdump'), nvdisasm: path.join(both, 'nvdisasm') };
}

const unreadable = new Set();
/** [{ architecture, version, functions, resources }] of the addon's machine code. */
function disassemble({ cuobjdump, nvdisasm }) {
  const folder = mkdtempSync(path.join(tmpdir(), 'diralign-sass-'));
  try {
    const { status, stdout, stderr } = spawnSync(cuobjdump, ['-xelf', 'all', addon], {
      cwd: folder,
      encoding: 'utf8',
    });
    if (status !== 0) fail(`cuobjdump cannot read ${addon}: ${stdout}${stderr}`);
    return readdirSync(folder).flatMap((file) => {
      const architecture = Number(/sm_(\d+)/.exec(file)[1]);
      const cubin = path.join(folder, file);
      const read = (tool, ...args) =>
        spawnSync(tool, [...args, cubin], { encoding: 'utf8', maxBuffer: 2 ** 29 });
      const code = read(nvdisasm, '-c');
      const resources = read(cuobjdump, '-res-usage');
      if (code.status !== 0 || resources.status !== 0) {
        unreadable.add(architecture); // newer than the disassembler
        return [];
      }
      const version = /Cuda compilation tools, release [\d.]+, V([\d.]+)/.exec(
        readFileSync(cubin, 'latin1'),
      )?.[1];
      return [
        { architecture, version, functions: functionsOf(code.stdout), resources: resources.stdout },
      ];
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Blocks that fit on a multiprocessor at the same time. */
function residentBlocks(architecture, registers, shared) {
  const limits = multiprocessors[architecture];
  if (!limits)
    fail(`what fits on a multiprocessor of sm_${architecture}? Add it to scripts/check-sass.mjs`);
  const ofWarp = Math.ceil(registers / 8) * 8 * 32; // as they are given out
  const byRegisters = Math.floor(Math.floor(registersOfMultiprocessor / ofWarp) / (threads / 32));
  const byShared = Math.floor((limits.shared * 1024) / shared);
  return Math.min(byRegisters, byShared, Math.floor(limits.threads / threads));
}

function section(architecture, cubins) {
  const kernels = cubins
    .filter((cubin) => cubin.architecture === architecture)
    .flatMap(({ functions, resources }) => functions.map((code) => ({ code, resources })))
    .filter(({ code }) => code.symbol.includes('loss_kernel'))
    .filter(({ code }) => architecture >= 90 || !code.symbol.includes('cluster_loss_kernel'));
  const names = readableNames(kernels.map(({ code }) => code.symbol));
  const rows = kernels.map(({ code, resources }, i) => {
    const usage = new RegExp(
      `Function ${code.symbol.replaceAll('$', '\\$')}:\\s+REG:(\\d+) STACK:\\d+ SHARED:(\\d+)`,
    ).exec(resources);
    if (!usage) fail(`cuobjdump does not tell the registers of ${code.symbol}`);
    const name = names[i]
      .replace(/^cluster_loss_kernel<(\w+)>/, '<$1, factored, clusters, $1>')
      .replace('loss_kernel', '');
    const bytes = name.startsWith('<float') ? 4 : 2;
    const parts = partsOf(code, {
      elements: (steps * 16) / bytes,
      keeps: name.includes('factored'),
    });
    if (!('sums' in parts || 'sums, unaligned' in parts))
      fail(
        `no sums of a whole part in ${names[i]} for sm_${architecture}: ` +
          'scripts/sass.mjs no longer understands it',
      );
    const [registers, declared] = usage.slice(1).map(Number);
    // Two copies of a part, in memory that the launch adds: cuda/copied_part.cuh.
    const shared = declared + (name.includes('clusters') ? 2 * (steps * threads + 1) * 16 : 0);
    return {
      name,
      parts,
      registers,
      shared,
      blocks: residentBlocks(architecture, registers, shared),
    };
  });
  rows.sort((a, b) => (a.name < b.name ? -1 : 1));
  const kernelLine = ({ name, registers, shared, blocks }) =>
    `| \`${name}\` | ${registers} | ${shared} | ${blocks} |`;
  const partLines = ({ name, parts, blocks }) =>
    Object.keys(parts)
      .sort((a, b) => (a < b ? 1 : -1))
      .map((part) => {
        const { loads, slots, total } = parts[part];
        const perPipe = pipeNames.map((pipe) => slots[pipe].toFixed(1)).join(' | ');
        const inFlight =
          loads === 0 ? ' | ' : `${loads} | ${(blocks * threads * loads * 16) / 1024}`;
        return `| \`${name}\` | ${part} | ${inFlight} | **${total.toFixed(1)}** | ${perPipe} |`;
      })
      .join('\n');
  const columns = (names) =>
    `| ${names.join(' | ')} |\n| ${names.map((_, i) => (i === 0 ? '---' : '--:')).join(' | ')} |`;
  return `## sm_${architecture}

${columns(['kernel', 'registers', 'shared', 'blocks'])}
${rows.map(kernelLine).join('\n')}

| kernel | part | loads | KiB | slots | ${pipeNames.join(' | ')} |
| --- | --- | --: | --: | --: | ${pipeNames.map(() => '--:').join(' | ')} |
${rows.map(partLines).join('\n')}`;
}

const introduction = (version) => `# Machine code of the kernels

Made by \`npm run check:sass -- --write\` from the addon that nvcc ${version} built. CI
compares the section of sm_90. For a whole part of a row (8 vectors of 16 bytes a thread), from its
first load to the next barrier, without the rare branches:

- **shared**: bytes, from sm_90 on with the 1 KiB that the system takes; **blocks**: of ${threads}
  threads, that fit on a multiprocessor.
- **slots**: instructions an element, each of which takes an issue slot of a warp, in all and by
  pipe: multiplications and additions (a multiprocessor has 128 lanes for them), other arithmetic on
  integers, comparisons and conversions (64), special functions (16), memory and shuffles, float64,
  and what steers.
- **loads**: loads of 16 bytes that a thread issues before it needs what the first of them brings;
  **KiB** of them in flight on a multiprocessor when all its blocks wait. An H200 needs 23 KiB at
  4.3 TB/s and 700 ns.
- **unaligned**: rows that do not start at a multiple of 16 bytes. **gradient from registers**, or
  **from a copy** in shared memory: after the row's sums are known, without reading it again.
  **copies**: into shared memory, of the next row's part, which is on its way meanwhile; its sums
  take the same way for all rows but for the shifts of unaligned ones, and the longer is told.
`;

const tools = findTools();
if (!tools) skip('no cuobjdump and nvdisasm found');
const cubins = disassemble(tools);
const architectures = [...new Set(cubins.map(({ architecture }) => architecture))].sort(
  (a, b) => a - b,
);
if (architectures.length === 0)
  skip('this addon has no machine code for a GPU that the disassembler reads');
const version = cubins[0].version;

const recorded = existsSync(document) ? readFileSync(document, 'utf8') : '';
const recordedVersion = /nvcc\s+([\d.]+)\s+built/.exec(recorded)?.[1];
const sections = new Map(
  recorded
    .split(/^(?=## sm_)/m)
    .slice(1)
    .map((text) => [Number(/^## sm_(\d+)/.exec(text)[1]), text.trim()]),
);
const made = new Map();
for (const architecture of architectures)
  made.set(architecture, (await formatted(document, section(architecture, cubins))).trim());

if (options.write) {
  const all = new Map([...(recordedVersion === version ? sections : []), ...made]);
  const ordered = [...all].sort(([a], [b]) => a - b).map(([, text]) => text);
  writeFileSync(
    document,
    await formatted(document, [introduction(version), ...ordered].join('\n\n')),
  );
} else if (recordedVersion !== version) {
  console.log(
    `check-sass: docs/gpu-sass.md is of nvcc ${recordedVersion}, this is ${version}: not compared`,
  );
} else {
  for (const [architecture, text] of made) {
    if (!sections.has(architecture) || sections.get(architecture) === text) continue;
    console.error(
      `check-sass: docs/gpu-sass.md is out of date for sm_${architecture}: ` +
        'npm run check:sass -- --write',
    );
    console.error(text);
    process.exitCode = 1;
  }
}
const compared = architectures.filter((architecture) => sections.has(architecture));
console.log(
  `check-sass: machine code for ${architectures.join(', ')} with nvcc ${version}; ` +
    `on the page: ${compared.join(', ') || 'none'}`,
);
