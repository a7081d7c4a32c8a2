#!/usr/bin/env node
// npm run test:ptx: the loss kernels as nvcc compiles them for sm_90. Their PTX becomes C++ that
// runs on the emulation of CUDA in place of the sources, and gpu:check looks at what it computes.
// Then faults are planted in the PTX, and gpu:check must miss something because of each.
// Without nvcc there is nothing to run, and it says so.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { buildEmulated, root, run } from './emulated.mjs';
import { faults } from './ptx/faults.mjs';
import { translate } from './ptx/translate.mjs';

const folder = path.join(root, 'build/ptx');
const code = path.join(folder, 'code');
/** What runs loss kernels and is quick on the emulation, `gpu:check`'s own words. */
const check = [
  'tests/device/check.mjs',
  '--scale',
  'tiny',
  '--no-results',
  '--jobs',
  '2',
  '--only',
];
const sections = ['vectors', 'reference', 'determinism', 'independence', 'hidden'];
/** Each order finds what another one hides. */
const orders = ['forward', '1'];

function fail(message) {
  console.error(`test-ptx: ${message}`);
  process.exit(1);
}

/** The PTX of each translation unit, by the flags of the build; undefined where nvcc is missing. */
function compile() {
  const build = path.join(folder, 'nvcc');
  const settings = [
    '-DCMAKE_BUILD_TYPE=Release',
    '-DDIRALIGN_BUILD_ADDON=OFF',
    '-DDIRALIGN_CUDA_ARCHITECTURES=90-virtual',
  ];
  const configured = spawnSync('cmake', ['-S', root, '-B', build, ...settings], {
    encoding: 'utf8',
  });
  if (configured.status !== 0)
    fail(`the build was not configured:\n${configured.stdout}${configured.stderr}`);
  const backend = /diralign: (with(?:out)? CUDA.*)/.exec(configured.stdout)?.[1] ?? '';
  if (!backend.startsWith('with CUDA')) {
    console.log(`test-ptx: skipped, this build is ${backend}`);
    return undefined;
  }
  run('cmake', ['--build', build, '--target', 'diralign_loss_ptx', '--parallel', '2']);
  const made = path.join(build, 'CMakeFiles/diralign_loss_ptx.dir/cuda');
  const files = readdirSync(made).filter((name) => name.endsWith('.ptx'));
  return new Map(files.map((name) => [name, readFileSync(path.join(made, name), 'utf8')]));
}

/** Writes what has changed, so that only that is compiled; returns the kernels' symbols. */
function write(modules) {
  const planted = faults(modules);
  const sources = new Map();
  for (const [file, text] of modules) {
    for (const [kernel, cpp] of translate(text, file, planted.get(file)))
      sources.set(`${kernel}.cc`, cpp);
  }
  mkdirSync(code, { recursive: true });
  for (const name of readdirSync(code)) if (!sources.has(name)) rmSync(path.join(code, name));
  for (const [name, cpp] of sources) {
    const file = path.join(code, name);
    if (!existsSync(file) || readFileSync(file, 'utf8') !== cpp) writeFileSync(file, cpp);
  }
  return {
    kernels: [...sources.keys()].map((name) => name.replace(/\.cc$/, '')),
    mutants: [...planted.values()]
      .flatMap((kernels) => Object.values(kernels))
      .flatMap((each) => Object.keys(each)),
  };
}

const modules = compile();
if (!modules) process.exit(0);
const { kernels, mutants } = write(modules);
if (kernels.length === 0) fail('nvcc made no kernel');
run('npm', ['run', '--silent', 'build:ts']);
const environment = buildEmulated({ ptx: code });

const ran = path.join(folder, 'ran.txt');
rmSync(ran, { force: true });
for (const order of orders) {
  console.log(`\nthreads, warps and blocks in order: ${order}`);
  run(process.execPath, [...check, sections.join()], {
    ...environment,
    SIMT_ORDER: order,
    DIRALIGN_PTX_RAN: ran,
  });
}
const entered = existsSync(ran) ? readFileSync(ran, 'utf8').split('\n') : [];
const idle = kernels.filter((kernel) => !entered.includes(kernel));
if (idle.length > 0) fail(`the PTX of these kernels did not run:\n${idle.join('\n')}`);

for (const mutant of mutants) {
  const env = { ...process.env, ...environment, DIRALIGN_PTX_MUTANT: mutant };
  const { status, stdout } = spawnSync(process.execPath, [...check, 'reference'], {
    cwd: root,
    env,
    encoding: 'utf8',
  });
  if (status !== 1 || !stdout.includes('MISS'))
    fail(`not found: ${mutant} (exit code ${status})\n${stdout}`);
  console.log(`\nfound: ${mutant}\n${/^ {2}MISS.*/m.exec(stdout)?.[0].slice(0, 160)}`);
}
const counts = `${kernels.length} kernels for sm_90 ran as PTX, ${mutants.length} planted faults`;
console.log(`\ntest-ptx: ${counts} were found`);
