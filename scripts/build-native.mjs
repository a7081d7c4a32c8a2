#!/usr/bin/env node
// Builds the addon from CMakeLists.txt: for the npm scripts, binding.gyp, prebuildify and `npx
// diralign build`. Ships in the package, so it needs nothing but Node, CMake and a compiler;
// cmake-js is used where it is installed.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { cudaSettings } from './build-cuda.mjs';
import { openBuildDirectory } from './build-directory.mjs';
import { Progress, run, withoutSteps } from './build-progress.mjs';

const usage = `Usage: build-native.mjs [options]

  --cuda LIST        auto (default): for the GPUs that are visible, without one no CUDA; none; all
                     architectures; or compute capabilities with commas, such as 80,90. Needs nvcc
                     12.8 or later
  --config NAME      Release (default) or Debug
  --build-dir DIR    build there, and leave diralign.node there (default: build/cmake, and
                     build/NAME/diralign.node, in the package); a new or empty directory, or one
                     that a build has made
  --clean            start from nothing: remove what builds have left in the directory
  --log FILE         write there what CMake and the compilers say
  -D NAME=VALUE      CMake option, for instance -D DIRALIGN_SANITIZE=address,undefined
  -h, --help`;

/** Where the loader looks, below build/. */
const configs = ['Release', 'Debug'];
const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

function options() {
  try {
    const { values, tokens } = parseArgs({
      tokens: true,
      options: {
        cuda: { type: 'string' },
        config: { type: 'string', default: 'Release' },
        'build-dir': { type: 'string' },
        log: { type: 'string' },
        clean: { type: 'boolean', default: false },
        define: { type: 'string', short: 'D', multiple: true, default: [] },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
    const given = tokens
      .filter(({ kind, name }) => kind === 'option' && name !== 'define')
      .map(({ name }) => name);
    const twice = given.find((name, i) => given.indexOf(name) < i);
    if (twice !== undefined) throw new Error(`option '--${twice}' is given twice`);
    if (!configs.includes(values.config))
      throw new Error(`--config: '${values.config}' is not one of ${configs.join(', ')}`);
    return values;
  } catch (error) {
    fail(`${error.message.replace(/\.$/, '')}; see --help`);
  }
}

function fail(message) {
  console.error(`diralign: ${message}`);
  process.exit(1);
}

function found(...commands) {
  return commands.find(
    (command) => spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0,
  );
}

function requireTools() {
  const missing = [
    found('cmake') ? undefined : 'CMake 3.18 or newer',
    found(...(process.env.CXX ? [process.env.CXX] : ['c++', 'g++', 'clang++']))
      ? undefined
      : 'a C++20 compiler',
  ].filter(Boolean);
  // On Windows CMake finds a compiler that is not on the PATH.
  if (missing.length === 0 || process.platform === 'win32') return;
  fail(`to build from source, install ${missing.join(' and ')}:
  Debian, Ubuntu:  sudo apt-get install -y cmake g++ make
  Fedora, RHEL:    sudo dnf install -y cmake gcc-c++ make
  macOS:           xcode-select --install && brew install cmake`);
}

function cmakeJs() {
  try {
    return createRequire(import.meta.url).resolve('cmake-js/bin/cmake-js');
  } catch {
    return undefined;
  }
}

/**
 * Shows its progress, and says more only where something went wrong or the compiler had something
 * to say.
 */
async function mustRun(command, args) {
  // In a log, one file's messages come after another's. Ninja does so by itself; the make of macOS
  // knows no such option.
  const env =
    log && process.platform === 'linux'
      ? { ...process.env, MAKEFLAGS: '--output-sync=target' }
      : process.env;
  const progress = new Progress(process.stderr);
  const onOutput = (text) => {
    if (log) writeFileSync(log, text, { flag: 'a' });
  };
  const { status, output, error } = await run(command, args, {
    cwd: root,
    env,
    progress,
    onOutput,
  });
  progress.end();
  if (status !== 0) {
    process.stderr.write(withoutSteps(output));
    fail(error ? `${command}: ${error.message}` : 'the native build failed; its output is above');
  }
  if (/\bwarning:/i.test(output)) process.stderr.write(withoutSteps(output));
}

const { config, clean, cuda, define, help, log, 'build-dir': buildDir } = options();
if (help) {
  console.log(usage);
  process.exit(0);
}
/** With which it can be done again in another way. */
const command = ['build', 'build:native'].includes(process.env.npm_lifecycle_event)
  ? `npm run ${process.env.npm_lifecycle_event} --`
  : 'npx diralign build';
requireTools();

const start = performance.now();
let build;
let forCuda;
try {
  forCuda = cudaSettings(cuda, define, command);
  build = openBuildDirectory(buildDir, root, { clean });
  if (log) {
    mkdirSync(path.dirname(log), { recursive: true });
    writeFileSync(log, ''); // not removed first: it may be a device
  }
} catch (error) {
  const isForbidden = buildDir === undefined && ['EACCES', 'EPERM', 'EROFS'].includes(error.code);
  fail(
    error.message +
      (isForbidden
        ? '; build in a directory of yours: --build-dir DIR, ' +
          'and set DIRALIGN_ADDON=DIR/diralign.node'
        : ''),
  );
}
const addonOf = (name) => path.join(root, 'build', name, 'diralign.node');
const addon = buildDir ? path.join(build, 'diralign.node') : addonOf(config);
if (forCuda.line) console.log(`diralign: ${forCuda.line}`);

const defines = [`DIRALIGN_OUTPUT_DIR=${path.dirname(addon)}`, ...forCuda.defines, ...define];
const jobs = String(availableParallelism());
const js = cmakeJs();
if (js) {
  const passed = defines.map((d) => `--CD${d}`);
  // By itself, `build` passes options on to a new build directory only.
  for (const step of ['configure', 'build'])
    await mustRun(process.execPath, [
      js,
      step,
      '--config',
      config,
      '--out',
      build,
      '--parallel',
      jobs,
      ...passed,
    ]);
} else {
  // A generator cannot be changed afterwards.
  const cached = existsSync(path.join(build, 'CMakeCache.txt'));
  const generator = !cached && found('ninja') ? ['-G', 'Ninja'] : [];
  const passed = defines.map((d) => `-D${d}`);
  await mustRun('cmake', [
    '-S',
    root,
    '-B',
    build,
    ...generator,
    `-DCMAKE_BUILD_TYPE=${config}`,
    ...passed,
  ]);
  await mustRun('cmake', ['--build', build, '--config', config, '--parallel', jobs]);
}
if (!existsSync(addon)) fail(`the build ended without ${addon}`);
// Whether CUDA is inside, and if not why, in the words of cmake/Cuda.cmake.
const cache = readFileSync(path.join(build, 'CMakeCache.txt'), 'utf8');
const backend = /^DIRALIGN_BACKEND:INTERNAL=(.*)$/m.exec(cache)?.[1] ?? '';
if (buildDir === undefined) {
  // The loader takes the first that it finds, so there must be no other.
  for (const name of configs) if (name !== config) rmSync(addonOf(name), { force: true });
  // An installed package is not built again from what has changed.
  if (root.split(path.sep).includes('node_modules'))
    rmSync(build, { recursive: true, force: true });
}
const seconds = ((performance.now() - start) / 1000).toFixed(1);
console.log(`diralign: built ${path.relative(process.cwd(), addon)} ${backend} in ${seconds} s`);
if (buildDir !== undefined)
  console.log(`diralign: it is loaded where DIRALIGN_ADDON=${addon} is set`);
