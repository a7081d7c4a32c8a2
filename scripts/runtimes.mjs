// The runtimes that the tests can be run on. Each is fetched from the npm registry, once, into
// build/runtimes: the newest of its major version.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
export const cache = path.join(root, 'build/runtimes');
const platform = `${process.platform === 'win32' ? 'win' : process.platform}-${process.arch}`;
const executable = process.platform === 'win32' ? '.exe' : '';

/**
 * The packages that hold a runtime's binary: those that have none of their own choose one by an
 * install script.
 */
const nodes = Object.fromEntries(
  ['20', '22', '24', '26'].map((major) => [
    `node${major}`,
    { name: `node-${platform}`, version: major, file: `bin/node${executable}`, command: [] },
  ]),
);
const deno =
  process.platform === 'linux' ? `${platform}-glibc` : `${process.platform}-${process.arch}`;
export const runtimes = {
  ...nodes,
  bun: {
    name: `@oven/bun-${process.platform}-${process.arch}`,
    version: '1',
    file: `bin/bun${executable}`,
    command: [],
  },
  // The addon is foreign code; the files, the environment and the system are what Node gives
  // unasked.
  deno: {
    name: `@deno/${deno}`,
    version: '2',
    file: `deno${executable}`,
    command: ['run', '--allow-all'],
  },
};

/** The binary of a runtime, fetched where it is not there. */
export function binary(id) {
  const { name, version, file } = runtimes[id];
  const folder = path.join(cache, id);
  const found = path.join(folder, 'node_modules', name, file);
  if (fs.existsSync(found)) return found;
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(folder, 'package.json'), '{ "private": true }\n');
  const install = [
    'install',
    '--no-save',
    '--no-fund',
    '--no-audit',
    '--ignore-scripts',
    '--loglevel=error',
    `${name}@${version}`,
  ];
  const { status } = spawnSync('npm', install, {
    cwd: folder,
    stdio: 'inherit',
    shell: process.platform === 'win32',
  });
  if (status !== 0) throw new Error(`${name}@${version} could not be fetched`);
  fs.chmodSync(found, 0o755);
  return found;
}
