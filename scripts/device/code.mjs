// Which code of a build a device runs. Times of PTX that the driver has translated say nothing of
// the kernels: they are cut for other registers, so fewer of their blocks are resident.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { root } from './machine.mjs';

const listed = (text) => text.split(',').filter((name) => name !== '');
/** 10.0 as [10, 0], 90 as [9, 0]; NaN for what is no architecture. */
const capability = (name) => {
  const [, major, minor] = /^(\d+)\.?(\d)[a-z]?$/.exec(name) ?? [];
  return [Number(major), Number(minor)];
};
const atMost = ([major, minor], [most, least]) =>
  major < most || (major === most && minor <= least);

/**
 * What a device of a compute capability, such as '9.0' or '90', runs of a build: machine code of
 * its `'own'`, of a `'compatible'` one, `'translated'` PTX, or `'none'`. `status` is that of the
 * addon.
 */
export function codeFor({ architectures, ptx }, computeCapability) {
  const wanted = capability(computeCapability);
  const machine = listed(architectures);
  // The emulation runs everything as C++.
  if (machine.includes('emulation')) return 'own';
  const built = machine.map(capability);
  if (built.some(([major, minor]) => major === wanted[0] && minor === wanted[1])) return 'own';
  if (built.some(([major, minor]) => major === wanted[0] && minor < wanted[1])) return 'compatible';
  return listed(ptx).some((name) => atMost(capability(name), wanted)) ? 'translated' : 'none';
}

const dtypes = ['float32', 'float16', 'bfloat16'];
const passes = ['log-probabilities', 'tokens', 'dense', 'factored', 'general'];

/**
 * What is built, what of it the device runs, and how many blocks of each kernel a multiprocessor
 * holds; for the results.
 */
export function describeCode({ native }, device) {
  const { cuda } = native();
  const { architectures, ptx } = cuda.status();
  const kernels = cuda.kernelResidency(device.index).map(({ logits, gradient, pass, blocks }) => ({
    ...{ logits: dtypes[logits], gradient: dtypes[gradient], pass: passes[pass], blocks },
  }));
  const clusters = cuda
    .clusterResidency(device.index)
    .map((size) => ({ ...size, logits: dtypes[size.logits] }));
  return {
    architectures,
    ptx,
    runs: codeFor({ architectures, ptx }, device.computeCapability),
    kernels,
    clusters,
  };
}

const running = {
  own: 'its own machine code',
  compatible: 'machine code of an earlier device',
  translated: 'PTX, translated by the driver',
  none: 'nothing: there is no code for it',
};

/** {@link describeCode} in a few lines. */
export function codeLines({ architectures, ptx, runs, kernels, clusters }) {
  const blocks = new Map();
  for (const { logits, gradient, pass, blocks: fit } of kernels) {
    const name = logits === gradient ? logits : `${logits} to ${gradient}`;
    blocks.set(name, [...(blocks.get(name) ?? []), `${pass} ${fit}`]);
  }
  const rows = new Map();
  for (const { logits, parts, clusters: fit } of clusters)
    if (fit > 0) rows.set(logits, [...(rows.get(logits) ?? []), `${fit} of ${parts}`]);
  return [
    `Built for ${architectures || 'no architecture'}, PTX for ${ptx || 'none'}; ` +
      `this device runs ${running[runs]}.`,
    ...[...blocks].map(([name, list]) => `Blocks a multiprocessor, ${name}: ${list.join(', ')}`),
    ...dtypes.map((name) => `Clusters at a time, ${name}: ${rows.get(name)?.join(', ') ?? 'none'}`),
  ];
}

/** Why nothing can be measured with a build on a device; undefined where it can. */
export function unfit({ runs, architectures }, { computeCapability }) {
  if (runs === 'own') return undefined;
  return (
    `this build has machine code for ${architectures || 'no architecture'} and the device is ` +
    `of compute capability ${computeCapability}: ` +
    `its times would not be those of the kernels. Build with --cuda ${computeCapability}.`
  );
}

/**
 * The status of an addon's CUDA backend, of the file and no other that this process may have
 * loaded.
 */
export function statusOf(addon) {
  const module = pathToFileURL(path.join(root, 'dist/native/interface.js')).href;
  const code =
    `import(${JSON.stringify(module)}).then(({ native }) => ` +
    'console.log(JSON.stringify(native().cuda.status())))';
  const env = { ...process.env, DIRALIGN_ADDON: addon };
  delete env.DIRALIGN_PREBUILD;
  const { status, stdout, stderr } = spawnSync(process.execPath, ['-e', code], {
    encoding: 'utf8',
    env,
  });
  if (status !== 0)
    throw new Error(`${addon} cannot be loaded: ${stderr.trim().split('\n').at(-1)}`);
  return JSON.parse(stdout);
}
