// The runtimes that the tests can be run on. Each is fetched from the npm registry, once, into
// build/runtimes: the newest of its major version.
import path from 'node:path';
import { fetchBinary } from './fetched.mjs';
import { root } from './platforms.mjs';

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
export const binary = (id) => fetchBinary(path.join(cache, id), runtimes[id]);
