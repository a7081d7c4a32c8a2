// What the commands for a GPU need on a machine with nothing but Node and a driver, as one archive.
import { spawnSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import path from 'node:path';
import { codeFor, statusOf } from '../../scripts/device/code.mjs';
import { root } from '../../scripts/device/machine.mjs';
// Makes build/device, which is carried.
import './check/support.mjs';

const addon = 'build/Release/diralign.node';
const luggage = [
  'package.json',
  'dist',
  addon,
  'build/device',
  'scripts/device',
  'tests/device/check.mjs',
  'tests/device/check',
  'tests/device/first.mjs',
  'tests/device/first',
  'tests/device/luggage.mjs',
  'bench/gpu.mjs',
  'bench/gpu',
  'bench/peers/torch_gpu.py',
  'tests/fixtures/vectors',
];

/** The device that `--pack` is for unless `--for` says otherwise: an H100 or H200. */
export const defaultTarget = '90';

/**
 * What keeps an addon from being packed for a device; undefined where nothing does. `any` is no
 * device, and takes every addon.
 */
export function notFor(status, target) {
  if (target === 'any') return undefined;
  if (!/^\d+\.?\d$/.test(target))
    return `--for ${target}: expected a compute capability, such as 9.0 or 90, or 'any'`;
  if (!status.compiled)
    return `${addon} has no CUDA backend; run npm run build:native -- --cuda ${target}`;
  if (status.architectures === 'emulation')
    return `${addon} is the emulation of CUDA; run npm run build:native -- --cuda ${target}`;
  const code = codeFor(status, target);
  if (code === 'own') return undefined;
  const built = `${addon} has machine code for ${status.architectures || 'no architecture'}`;
  return (
    `${built}, not for ${target} (PTX for ${status.ptx || 'none'}); ` +
    `run npm run build:native -- --cuda ${target}`
  );
}

/** Writes the archive; throws what keeps it from being written. */
export function pack(file, target = defaultTarget) {
  const missing = luggage.filter((name) => !existsSync(path.join(root, name)));
  if (missing.length > 0) throw new Error(`missing: ${missing.join(', ')}; run npm run build`);
  const status = statusOf(path.join(root, addon));
  const problem = notFor(status, target);
  if (problem !== undefined) throw new Error(problem);
  const { status: code } = spawnSync('tar', ['-czf', path.resolve(file), '-C', root, ...luggage], {
    stdio: 'inherit',
  });
  if (code !== 0) throw new Error(`tar ended with ${code}`);
  const built = status.compiled
    ? `machine code for ${status.architectures}, PTX for ${status.ptx || 'none'}`
    : 'no CUDA';
  console.log(`Written: ${file}, ${(statSync(file).size / 2 ** 20).toFixed(1)} MiB, ${built}`);
}
