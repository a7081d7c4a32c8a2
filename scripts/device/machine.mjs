// What `gpu:check` and `gpu:bench` share: the card, the options, and where results go. Nothing but
// Node and the built package.
import { execFileSync } from 'node:child_process';
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../..', import.meta.url));

/** The built package, as the sections and the benchmark take it; a test passes another. */
export async function loadSubject() {
  const { cuda, dirAlignLoss, logpsBackward, sequenceLogps, tokenLogps } =
    await import('../../dist/index.js');
  const { native } = await import('../../dist/native/interface.js');
  return { cuda, dirAlignLoss, logpsBackward, sequenceLogps, tokenLogps, native };
}

/**
 * Figures of the emulation are those of a CPU that pretends: they must never stand among results.
 */
export const isEmulated = (device) => /emulat/i.test(device.name);

/**
 * Makes the addon's functions take their own time, which is the device's and the copies'. What else
 * passes is JavaScript.
 * @returns seconds in them so far
 */
export function timeNative(addon) {
  let [seconds, depth] = [0, 0];
  const timed =
    (call) =>
    (...args) => {
      const start = performance.now();
      depth++;
      try {
        return call(...args);
      } finally {
        // A callback of one may call another.
        if (--depth === 0) seconds += (performance.now() - start) / 1000;
      }
    };
  for (const functions of [addon, addon.cuda])
    for (const [name, call] of Object.entries(functions))
      if (typeof call === 'function') functions[name] = timed(call);
  return () => seconds;
}

/**
 * `--minutes M` as the moment of `performance.now()` from which nothing new is started; without it
 * never.
 */
export function parseMinutes(text) {
  if (text === undefined) return Infinity;
  const minutes = Number(text);
  if (text.trim() === '' || !(minutes >= 0))
    throw new Error(`--minutes ${text}: expected a number of minutes`);
  return performance.now() + 60_000 * minutes;
}

/** `--only A,B` as a set; without it all. */
export function parseOnly(text, names) {
  if (text === undefined) return new Set(names);
  const wanted = text.split(',');
  const unknown = wanted.find((name) => !names.includes(name));
  if (unknown !== undefined) throw new Error(`--only ${unknown}: there are ${names.join(', ')}`);
  return new Set(wanted);
}

/**
 * The first device; CUDA_VISIBLE_DEVICES says which that is. Ends the process where there is none.
 */
export function requireDevice(cuda) {
  if (!cuda.available) {
    console.error(`CUDA is not available: ${cuda.reason}`);
    process.exit(2);
  }
  return cuda.devices()[0];
}

/**
 * Driver, clocks and power limit as the driver's own tool tells them; undefined where it is not
 * installed.
 */
function driverReport(uuid) {
  const fields = [
    'driver_version',
    'clocks.max.sm',
    'clocks.max.memory',
    'power.limit',
    'ecc.mode.current',
  ];
  try {
    const line = execFileSync(
      'nvidia-smi',
      [`--query-gpu=${fields.join(',')}`, '--format=csv,noheader', `--id=${uuid}`],
      {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
      },
    );
    return Object.fromEntries(line.split(',').map((value, i) => [fields[i], value.trim()]));
  } catch {
    return undefined;
  }
}

/** What a figure has to be read with. */
export function describeMachine(device, version) {
  const { name, computeCapability, multiprocessors, memory, l2Cache } = device;
  return {
    gpu: { name, computeCapability, multiprocessors, memory, l2Cache },
    driver: driverReport(device.uuid),
    cpu: os.cpus()[0]?.model.trim() ?? process.arch,
    cores: os.availableParallelism(),
    system: `${os.type()} ${os.release()}`,
    node: process.versions.node,
    diralign: version,
    date: new Date().toISOString(),
  };
}

/** bench/results/DATE-GPU.json, with `-check` before the dot for the results of `gpu:check`. */
function resultsFile(machine, suffix = '') {
  const gpu = machine.gpu.name
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');
  return path.join(root, 'bench/results', `${machine.date.slice(0, 10)}-${gpu}${suffix}.json`);
}

/** Writes what was found so far, so that a run which is cut off leaves it. */
export function writeSoFar(file, result) {
  if (file === undefined) return;
  mkdirSync(path.dirname(path.resolve(file)), { recursive: true });
  writeFileSync(`${file}.new`, `${JSON.stringify(result, null, 2)}\n`);
  renameSync(`${file}.new`, file);
}

/**
 * Writes what was found where it is to be, and says where. What the emulation says goes only where
 * it was asked for.
 */
export function writeResults({ result, machine, device, wanted, suffix = '', keep = true }) {
  const kept = keep && !isEmulated(device);
  for (const file of [
    ...(wanted ? [path.resolve(wanted)] : []),
    ...(kept ? [resultsFile(machine, suffix)] : []),
  ]) {
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, `${JSON.stringify(result, null, 2)}\n`);
    console.log(`Written: ${path.relative(process.cwd(), file)}`);
  }
  if (!kept)
    console.log(
      'Nothing is written to bench/results: ' +
        `${keep ? 'this is the emulation of CUDA, not a device' : '--no-results'}.`,
    );
}

/** Parses options; a mistake ends the process with the usage. */
export function parseOrExit(parse, usage) {
  try {
    return parse();
  } catch (error) {
    console.error(`${error.message}\n\n${usage}`);
    process.exit(2);
  }
}
