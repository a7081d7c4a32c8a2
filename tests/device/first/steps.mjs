// The steps of `gpu:first`, the most valuable answers first.
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { root } from '../../../scripts/device/machine.mjs';
import { toolPath } from '../../../scripts/device/tools.mjs';
import { ncuLines, parseNcu } from './ncu.mjs';
import { runCommand } from './run.mjs';

const node = process.execPath;
const script = (name) => path.join(root, name);
/** What a child may still take to report when its own time is over, in seconds. */
const margin = 4;
const minutes = (seconds) => ['--minutes', String(Math.max(0, seconds - margin) / 60)];

function readJson(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    return undefined;
  }
}

const scaleOf = (results, scale) => ['--scale', results.machine?.emulated ? 'tiny' : scale];

/**
 * A step that is one of our commands: its JSON is read even where it was cut off, and `tell` says
 * the most of it in a few lines.
 */
function command(name, title, seconds, { file, scale, only, jobs = [], tell }) {
  const run = async ({ seconds: left, log, results, folder }) => {
    const json = path.join(folder, `${name}.json`);
    const args = [
      ...scaleOf(results, scale),
      '--only',
      only.join(','),
      ...jobs,
      '--no-results',
      '--json',
      json,
      ...minutes(left),
    ];
    const { status, output } = await runCommand([node, script(file), ...args], {
      seconds: left,
      log,
    });
    const result = readJson(json);
    const said = result && tell(result);
    const isIdle =
      status === 'ok' && result?.sections?.every((section) => section.status === 'not run');
    return {
      status: isIdle ? 'not available' : status,
      result,
      says: said ?? output.trim().split('\n').slice(-3),
    };
  };
  return { name, title, seconds, run };
}

const checks = [
  'vectors',
  'reference',
  'determinism',
  'independence',
  'hidden',
  'huge',
  'mistakes',
  'failure',
];

function tellCheck({ sections }) {
  const checked = sections.reduce((sum, section) => sum + section.checked, 0);
  const misses = sections.flatMap((section) =>
    section.misses.map((miss) => `MISS ${section.section}: ${miss.split('\n')[0]}`),
  );
  const cut = sections.filter(({ status }) => status === 'cut off').map(({ section }) => section);
  const notRun = sections.flatMap(({ status, notes }) => (status === 'not run' ? notes : []));
  return [
    ...notRun,
    `${checked.toLocaleString('en')} checks in ` +
      `${sections.map(({ section }) => section).join(', ')}`,
    ...(cut.length > 0 ? [`cut off: ${cut.join(', ')}`] : []),
    ...misses.slice(0, 10),
  ];
}

function tellBench({
  groups = [],
  layers = [],
  peers = [],
  layerPeers = [],
  skipped = [],
  emulated,
}) {
  if (emulated) return ['the emulation: no times'];
  const share = ({ floorBytes, device }, copyBandwidth) =>
    `${((1e5 * floorBytes) / device.median / copyBandwidth).toFixed(0)} %`;
  const whole = ({ fraction }) => fraction === 1;
  return [
    ...groups.map(({ dtype, rows, vocab, copyBandwidth, entries }) => {
      const modes = entries
        .filter(whole)
        .map(
          (entry) =>
            `${entry.mode} ${entry.device.median.toFixed(3)} ms ${share(entry, copyBandwidth)}`,
        );
      return (
        `${dtype} ${rows} x ${vocab}, copy ${(copyBandwidth / 1e9).toFixed(0)} ` +
        `GB/s: ${modes.join(', ')}`
      );
    }),
    ...layers
      .filter(whole)
      .map(
        ({ rows, size, vocab, mode, wall }) =>
          `layer ${rows} x ${size} x ${vocab}, ${mode}: ${wall.median.toFixed(2)} ms`,
      ),
    ...[...peers, ...layerPeers]
      .filter(whole)
      .map(
        ({ name, rows, vocab, problem, ratio }) =>
          `${name} ${rows} x ${vocab}: ${problem ?? `${ratio.value.toFixed(2)} x ours`}`,
      ),
    ...skipped.map(
      ({ dtype, rows, vocab, peer, reason }) =>
        `${dtype} ${rows} x ${vocab}${peer ? ` ${peer}` : ''} ${reason}`,
    ),
  ];
}

const machine = {
  name: 'machine',
  title: 'the card, the code that runs on it, and the tools',
  seconds: 40,
  async run({ seconds, log, folder }) {
    const json = path.join(folder, 'machine.json');
    const { status, output } = await runCommand(
      [node, script('tests/device/first/machine.mjs'), json],
      { seconds, log },
    );
    const result = readJson(json);
    // Without a device there is nothing to come.
    if (!result) return { status, says: output.trim().split('\n').slice(-1), stops: true };
    const { machine: found, code, tools, hiddenReason } = result;
    const unusable = (result.algorithms ?? [])
      .filter(({ usable }) => usable === 0)
      .map(({ what }) => what);
    return {
      ...{ status, result },
      says: [
        `${found.gpu.name}, ${found.gpu.computeCapability}, runs its code: ${code.runs}; ` +
          `built for ${code.architectures || 'none'}`,
        `cuBLASLt: ${hiddenReason ?? 'found'}` +
          (unusable.length > 0 ? `, NO ALGORITHM for ${unusable.join(', ')}` : ''),
        ...Object.entries(tools).map(([name, file]) => `${name}: ${file ?? 'not found'}`),
      ],
    };
  },
};

const kernels = {
  name: 'ncu',
  title: 'key figures of each kernel',
  seconds: 110,
  async run({ seconds, log, results, output: folder }) {
    const ncu = toolPath('ncu');
    if (ncu === undefined) return { status: 'not available', says: ['ncu was not found'] };
    const report = path.join(folder, 'kernels.ncu-rep');
    const small = results.machine?.emulated ? ['--small'] : [];
    const start = performance.now();
    const options = [
      '--set',
      'full',
      '--clock-control',
      'none',
      '--kernel-name',
      'regex:loss_kernel',
      '--force-overwrite',
    ];
    const program = [node, script('tests/device/first/kernels.mjs'), ...small];
    const taken = await runCommand([ncu, ...options, '--export', report, ...program], {
      seconds: seconds - margin,
      log,
    });
    const labels = taken.output
      .split('\n')
      .flatMap((line) => (line.startsWith('{') ? [JSON.parse(line)] : []));
    if (!existsSync(report))
      return {
        status: taken.status === 'ok' ? 'failed' : taken.status,
        says: taken.output.trim().split('\n').slice(-3),
      };
    const left = seconds - (performance.now() - start) / 1000;
    // Not in the log: hundreds of columns.
    const read = await runCommand(
      [ncu, '--import', report, '--csv', '--page', 'raw', '--print-units', 'base'],
      {
        seconds: left,
        log: () => undefined,
      },
    );
    const launches = parseNcu(read.output);
    const status =
      launches.length === 0 ? 'failed' : taken.status === 'ok' ? read.status : taken.status;
    const says =
      launches.length > 0 ? ncuLines(launches, labels) : read.output.trim().split('\n').slice(-3);
    return {
      status,
      says,
      result: { launches: launches.map((figures, i) => ({ ...labels[i], ...figures })) },
    };
  },
};

const check = { file: 'tests/device/check.mjs', tell: tellCheck };
const bench = { file: 'bench/gpu.mjs', scale: 'first', tell: tellBench };
const sideBySide = ['--jobs', '8'];

export const steps = [
  machine,
  command('tiny', 'small cases of every check: is it right at all', 60, {
    ...check,
    scale: 'tiny',
    only: checks,
    jobs: sideBySide,
  }),
  command('bench', 'times of the shapes that say most', 100, {
    ...bench,
    only: ['logits', 'layer'],
  }),
  kernels,
  command('check', 'larger cases of every check', 120, {
    ...check,
    scale: 'quick',
    only: checks,
    jobs: sideBySide,
  }),
  command('sanitizer', 'compute-sanitizer: memcheck and racecheck', 110, {
    ...check,
    scale: 'quick',
    only: ['sanitizer'],
  }),
  command('peers', 'PyTorch on one shape of logits and on the layer', 120, {
    ...bench,
    only: ['peers'],
  }),
];
