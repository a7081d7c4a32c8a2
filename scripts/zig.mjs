// zig, as scripts/zig/package-lock.json pins it, fetched when it is first needed; CMake with it.
import { spawnSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { fetchLocked } from './fetched.mjs';
import { root } from './platforms.mjs';

const folder = path.join(root, 'build/zig');

export const zigEnvironment = {
  ...process.env,
  ZIG_GLOBAL_CACHE_DIR: path.join(folder, 'cache'),
  ZIG_LOCAL_CACHE_DIR: path.join(folder, 'cache'),
  // ccache knows a compiler by its file, and zig is one for all platforms.
  CMAKE_CXX_COMPILER_LAUNCHER: '',
};

export const zig = () =>
  fetchLocked(
    path.join(root, 'scripts/zig'),
    folder,
    `node_modules/@zigc/${process.platform}-${process.arch}/bin/zig`,
  );

/** Builds for zig's `target` into build/prebuilds/NAME, which is returned. */
export function buildByZig(name, target, settings = {}) {
  const to = path.join(root, 'build/prebuilds', name);
  const all = {
    CMAKE_BUILD_TYPE: 'Release',
    CMAKE_EXE_LINKER_FLAGS: '-static', // of tests, which run where the platform's libraries are not
    CMAKE_TOOLCHAIN_FILE: path.join(root, 'cmake/zig.cmake'),
    DIRALIGN_BUILD_TESTS: 'OFF',
    DIRALIGN_CUDA: 'OFF',
    DIRALIGN_OUTPUT_DIR: to,
    DIRALIGN_WERROR: 'ON',
    DIRALIGN_ZIG: zig(),
    DIRALIGN_ZIG_TARGET: target,
    ...settings,
  };
  const defines = Object.entries(all).map(([key, value]) => `-D${key}=${value}`);
  for (const args of [
    ['-S', root, '-B', to, ...defines],
    ['--build', to, '--parallel', String(availableParallelism())],
  ]) {
    // Shown only where it fails: zig compiles its C++ library on the way, which is not ours and has
    // warnings.
    const { status, stdout, stderr } = spawnSync('cmake', args, {
      encoding: 'utf8',
      env: zigEnvironment,
      maxBuffer: 2 ** 28,
    });
    if (status === 0) continue;
    console.error(stdout, stderr);
    throw new Error(`cmake ${args.join(' ')} failed`);
  }
  return to;
}
