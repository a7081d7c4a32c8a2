// The addon with its CUDA backend on the emulation of CUDA (tests/simt): built, and what a process
// needs to load it.
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, renameSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

/** Runs a command in the repository; ends this process where it fails. */
export function run(command, args, env = {}) {
  const { status } = spawnSync(command, args, {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...env },
  });
  if (status !== 0) process.exit(status ?? 1);
}

function library(name) {
  const { stdout } = spawnSync('g++', [`-print-file-name=${name}`], { encoding: 'utf8' });
  return stdout.trim();
}

/**
 * Builds it, and returns the environment of processes that load it in place of the published one.
 *
 * @param {object} options
 * @param {boolean} [options.sanitize] under the sanitizers
 * @param {string} [options.ptx] a folder with the loss kernels' PTX as C++, to be run in their
 *   place
 */
export function buildEmulated({ sanitize = false, ptx }) {
  // The sanitized one is a target of the native tests' build, which has compiled all but the
  // addon's own files already.
  const directory = sanitize ? 'build/asan' : ptx ? 'build/ptx/addon' : 'build/emulated';
  if (sanitize) {
    run('cmake', ['--preset', 'asan']);
    run('cmake', ['--build', '--preset', 'asan', '--target', 'diralign']);
  } else {
    const settings = ['-D', 'DIRALIGN_CUDA=EMULATED', '-D', 'DIRALIGN_WERROR=ON'];
    if (ptx) settings.push('-D', `DIRALIGN_PTX=${ptx}`);
    run(process.execPath, ['scripts/build-native.mjs', '--build-dir', directory, ...settings]);
  }
  // Where the loader looks, in a folder of its own: build/Release keeps the addon that is
  // published.
  const build = path.join(root, directory);
  mkdirSync(path.join(build, 'load/build/Release'), { recursive: true });
  // Renamed into place: whoever has the one before loaded keeps it.
  const loaded = path.join(build, 'load/build/Release/diralign.node');
  const copy = `${loaded}.${process.pid}`;
  copyFileSync(path.join(build, 'diralign.node'), copy);
  renameSync(copy, loaded);
  return {
    DIRALIGN_PREBUILD: path.join(build, 'load'),
    // The suites fail, and do not skip, where CUDA is not available.
    DIRALIGN_EXPECT_CUDA: '1',
    ...(sanitize && {
      LD_PRELOAD: `${library('libasan.so')} ${library('libubsan.so')}`,
      // V8 leaves its heap behind at exit; lifecycle.test.ts looks for leaks of ours.
      ASAN_OPTIONS: 'detect_leaks=0:halt_on_error=1',
      UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
    }),
  };
}
