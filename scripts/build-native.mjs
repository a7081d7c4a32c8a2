#!/usr/bin/env node
// Builds the addon from CMakeLists.txt: for the npm scripts, binding.gyp, prebuildify and `npx diralign build`.
// Ships in the package, so it needs nothing but Node, CMake and a compiler; cmake-js is used where it is installed.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { openBuildDirectory } from './build-directory.mjs';

const usage = `Usage: build-native.mjs [options]

  --config NAME      Release (default) or Debug
  --build-dir DIR    build there, and leave diralign.node there (default: build/cmake, and build/NAME/diralign.node, in the package);
                     a new or empty directory, or one that a build has made
  --clean            start from nothing: remove what builds have left in the directory
  --log FILE         write there what CMake and the compilers say
  -D NAME=VALUE      CMake option, for instance -D DIRALIGN_SANITIZE=address,undefined
  -h, --help`;

/** Where the loader looks, below build/. */
const configs = ['Release', 'Debug'];
const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

function options() {
  try {
    const { values } = parseArgs({
      options: {
        config: { type: 'string', default: 'Release' },
        'build-dir': { type: 'string' },
        log: { type: 'string' },
        clean: { type: 'boolean', default: false },
        define: { type: 'string', short: 'D', multiple: true, default: [] },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
    if (!configs.includes(values.config)) throw new Error(`--config: '${values.config}' is not one of ${configs.join(', ')}`);
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
  return commands.find((command) => spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0);
}

function requireTools() {
  const missing = [
    found('cmake') ? undefined : 'CMake 3.18 or newer',
    found(...(process.env.CXX ? [process.env.CXX] : ['c++', 'g++', 'clang++'])) ? undefined : 'a C++20 compiler',
  ].filter(Boolean);
  if (missing.length === 0 || process.platform === 'win32') return; // on Windows CMake finds a compiler that is not on the PATH
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

/** Silent unless something went wrong or the compiler had something to say. */
function run(command, args) {
  // In a log, one file's messages come after another's. Ninja does so by itself; the make of macOS knows no such option.
  const env = log && process.platform === 'linux' ? { ...process.env, MAKEFLAGS: '--output-sync=target' } : process.env;
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd: root, encoding: 'utf8', maxBuffer: 2 ** 28, env });
  const output = `${stdout ?? ''}${stderr ?? ''}`;
  if (log) writeFileSync(log, output, { flag: 'a' });
  if (status !== 0) {
    process.stderr.write(output);
    fail(error ? `${command}: ${error.message}` : 'the native build failed; its output is above');
  }
  if (/\bwarning:/i.test(output)) process.stderr.write(output);
}

const { config, clean, define, help, log, 'build-dir': buildDir } = options();
if (help) {
  console.log(usage);
  process.exit(0);
}
requireTools();

const start = performance.now();
let build;
try {
  build = openBuildDirectory(buildDir, root, { clean });
  if (log) {
    mkdirSync(path.dirname(log), { recursive: true });
    writeFileSync(log, ''); // not removed first: it may be a device
  }
} catch (error) {
  const isForbidden = buildDir === undefined && ['EACCES', 'EPERM', 'EROFS'].includes(error.code);
  fail(
    error.message +
      (isForbidden ? '; build in a directory of yours: --build-dir DIR, and set DIRALIGN_ADDON=DIR/diralign.node' : ''),
  );
}
const addon = path.join(buildDir ? build : path.join(root, 'build', config), 'diralign.node');

const defines = [`DIRALIGN_OUTPUT_DIR=${path.dirname(addon)}`, ...define];
const jobs = String(availableParallelism());
const js = cmakeJs();
if (js) {
  const passed = defines.map((d) => `--CD${d}`);
  // By itself, `build` passes options on to a new build directory only.
  for (const step of ['configure', 'build'])
    run(process.execPath, [js, step, '--config', config, '--out', build, '--parallel', jobs, ...passed]);
} else {
  const cached = existsSync(path.join(build, 'CMakeCache.txt')); // a generator cannot be changed afterwards
  const generator = !cached && found('ninja') ? ['-G', 'Ninja'] : [];
  const passed = defines.map((d) => `-D${d}`);
  run('cmake', ['-S', root, '-B', build, ...generator, `-DCMAKE_BUILD_TYPE=${config}`, ...passed]);
  run('cmake', ['--build', build, '--config', config, '--parallel', jobs]);
}
if (!existsSync(addon)) fail(`the build ended without ${addon}`);
// Whether CUDA is inside, and if not why, in the words of cmake/Cuda.cmake.
const cache = readFileSync(path.join(build, 'CMakeCache.txt'), 'utf8');
const backend = /^DIRALIGN_BACKEND:INTERNAL=(.*)$/m.exec(cache)?.[1] ?? '';
const seconds = ((performance.now() - start) / 1000).toFixed(1);
console.log(`diralign: built ${path.relative(process.cwd(), addon)} ${backend} in ${seconds} s`);
