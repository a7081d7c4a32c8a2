/**
 * npm run bench:hidden: the output layer fused with the loss, against PyTorch's matrix product,
 * loss and backward. Options: --shape sequences,tokens,vocab,hidden, --threads, --rounds,
 * --no-peers, --only PATTERN (of kinds and peers). Writes bench/results/DATE-CPU-hidden.json and
 * .md. Needs `npm run build` first, and python3-torch with OpenBLAS for the peers; nothing else
 * should run meanwhile.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { dirAlignLoss, sequenceLogps } from '../dist/index.js';
import { randomNumbers } from '../dist/bench/data.js';
import { thisMachine } from '../dist/bench/machine.js';
import { heapReuse, python } from './peers/index.mjs';
import { startProcess } from './peers/process-peer.mjs';
import { quartiles, ratioText } from '../dist/bench/report.js';
import { interleave, ratio, spread, timeOf } from '../dist/bench/rounds.js';

const here = path.dirname(fileURLToPath(import.meta.url));
const { values } = parseArgs({
  options: {
    shape: { type: 'string', default: '4,256,32000,1024' },
    threads: { type: 'string', default: String(os.availableParallelism()) },
    rounds: { type: 'string', default: '9' },
    'no-peers': { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
    memory: { type: 'string' }, // of this process: the temporaries of one call of that kind
  },
});
const shape = values.shape.split(',').map(Number);
const [sequences, tokens, vocab, size] = shape;
const rows = sequences * tokens;
const threads = Number(values.threads);
const beta = 0.1;
const wanted = ([name]) => new RegExp(values.only).test(name);

/**
 * Hidden states of size 1 and a weight that gives logits with a standard deviation of about 2.5.
 */
function makeBatch([sequences, tokens, vocab, size]) {
  const rows = sequences * tokens;
  const random = randomNumbers(1);
  // Sums of uniform numbers: 33 million numbers of a better normal distribution take seconds, and
  // change nothing.
  const normal = () => (random() + random() + random() + random() - 2) * 1.7320508;
  const filled = (length, deviation) => {
    // Float32Array.from goes through an array of numbers, which ends at a few hundred million.
    const numbers = new Float32Array(length);
    for (let i = 0; i < length; i++) numbers[i] = deviation * normal();
    return numbers;
  };
  const hidden = filled(rows * size, 1);
  const weight = filled(vocab * size, 2.5 / Math.sqrt(size));
  const labels = Int32Array.from({ length: rows }, () => Math.floor(random() * vocab));
  return { hidden, weight, labels, shape: [sequences, tokens, vocab] };
}

function bfloat16(numbers) {
  const bits = new Uint32Array(numbers.buffer, numbers.byteOffset, numbers.length);
  const halves = new Uint16Array(bits.length);
  for (let i = 0; i < bits.length; i++)
    halves[i] = (bits[i] + 0x7fff + ((bits[i] >>> 16) & 1)) >>> 16;
  return halves;
}

const withReference = (batch) => ({
  ...batch,
  reference: sequenceLogps(batch).logps.map((logp, s) => logp + 3 * Math.sin(s)),
});
const lazily = (make) => {
  let made;
  return () => (made ??= make());
};
const float32 = lazily(() => withReference(makeBatch(shape)));
const halves = lazily(() => {
  const full = float32();
  return {
    ...full,
    hidden: bfloat16(full.hidden),
    weight: bfloat16(full.weight),
    dtype: 'bfloat16',
  };
});
/** One pair of twice as many rows, with the same weight. */
const longPair = lazily(() => {
  const long = {
    ...makeBatch([2, rows, 1, size]),
    weight: float32().weight,
    shape: [2, rows, vocab],
  };
  return withReference({ ...long, labels: long.labels.map((_, row) => (7919 * row) % vocab) });
});
/** The first half of each sequence is a prompt. */
const prompted = (full) => ({
  ...full,
  labels: full.labels.map((label, row) => (row % tokens < tokens / 2 ? -100 : label)),
});
const objective = dirAlignLoss('dpo', beta);
const gradWeight = new Float32Array(vocab * size);
const intoBuffers = (full, options = {}) => {
  const gradHidden = new full.hidden.constructor(full.hidden.length);
  return () => objective.fromHidden(full, { threads, ...options, out: { gradHidden, gradWeight } });
};
const mebibyte = 2 ** 20;
/** What is measured: each prepares its arrays once and returns the call. */
const kinds = {
  fused: () => intoBuffers(float32()),
  'fused, half scored': () => intoBuffers(prompted(float32())),
  'fused, fresh gradients': () => () => objective.fromHidden(float32(), { threads }),
  'fused, frozen weight': () => () =>
    objective.fromHidden(float32(), { threads, out: { gradWeight: false } }),
  'fused bfloat16': () => intoBuffers(halves()),
  'fused bfloat16, half scored': () => intoBuffers(prompted(halves())),
  'log-probabilities only': () => () => sequenceLogps(float32(), { threads }),
  'long pair, kept in 512 MiB': () => intoBuffers(longPair(), { memory: 512 * mebibyte }),
  'long pair, deferred in 256 MiB': () => intoBuffers(longPair()),
  'long pair, recomputed in 128 MiB': () => intoBuffers(longPair(), { memory: 128 * mebibyte }),
};

/** Resident memory, in MiB. */
function resident(field) {
  return (
    Number(
      new RegExp(`^${field}:\\s*(\\d+) kB`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))[1],
    ) / 1024
  );
}
if (values.memory) {
  const call = kinds[values.memory]();
  // The calls are compiled, and the threads there.
  const full = float32();
  const first = {
    ...full,
    hidden: full.hidden.slice(0, 2 * size),
    labels: full.labels.slice(0, 2),
    shape: [2, 1, vocab],
    reference: full.reference.slice(0, 2),
  };
  dirAlignLoss('dpo', beta).fromHidden(first, { threads, out: { gradWeight } });
  globalThis.gc();
  const before = resident('VmRSS');
  writeFileSync('/proc/self/clear_refs', '5');
  const { memory, gradHidden, gradWeight: weightGradient } = call();
  // Fresh gradients are results.
  const fresh = (/fresh|frozen/.test(values.memory) ? [gradHidden, weightGradient] : []).reduce(
    (sum, g) => sum + (g?.byteLength ?? 0),
    0,
  );
  const temporariesMiB = resident('VmHWM') - before - fresh / mebibyte;
  console.log(
    JSON.stringify({
      temporariesMiB,
      reportedMiB: memory === undefined ? undefined : memory / mebibyte,
    }),
  );
  process.exit(0);
}

const peers = {
  PyTorch: { dtype: 'float32', env: {} },
  'PyTorch, heap reuse': { dtype: 'float32', env: heapReuse },
  'PyTorch bfloat16, heap reuse': { dtype: 'bfloat16', env: heapReuse },
  'PyTorch, intermediates released, heap reuse': {
    dtype: 'float32',
    env: heapReuse,
    intermediates: 'released',
  },
};

/** The script's arguments after the folder with the arrays. */
const peerArguments = ({ dtype, intermediates = 'held' }) => [
  ...shape.map(String),
  String(threads),
  String(beta),
  dtype,
  intermediates,
];

/** Loss and gradient agree, or the comparison is of different work. */
function compare(name, { loss, gradientSum }, expected, tolerance) {
  const off = (x, y) => Math.abs(x - y) / Math.abs(y);
  if (off(loss, expected.loss) > tolerance || off(gradientSum, expected.gradientSum) > tolerance)
    throw new Error(
      `${name} computed loss ${loss} and gradient ${gradientSum}; ` +
        `expected ${expected.loss} and ${expected.gradientSum}`,
    );
}
const sizeOf = (numbers) => numbers.reduce((sum, x) => sum + Math.abs(x), 0);

const measured = Object.entries(kinds).filter(wanted);
const cases = measured.map(([name, prepare]) => {
  const call = prepare();
  return { name, run: () => timeOf(call) };
});
const memory = {};
const running = [];
const directory = mkdtempSync(path.join(os.tmpdir(), 'diralign-bench-'));
const versions = [];
try {
  const { loss } = kinds.fused()();
  const expected = { loss, gradientSum: sizeOf(gradWeight) };
  const installed =
    !values['no-peers'] &&
    spawnSync(python, ['-c', 'import torch'], { stdio: 'ignore' }).status === 0;
  if (!installed)
    console.error('without PyTorch: apt-get install python3-torch libopenblas0-pthread');
  if (installed) {
    for (const name of ['hidden', 'weight', 'labels', 'reference'])
      writeFileSync(path.join(directory, name), float32()[name]);
    for (const [name, peer] of Object.entries(peers).filter(wanted)) {
      const args = [path.join(here, 'peers/torch_hidden.py'), directory, ...peerArguments(peer)];
      const started = await startProcess(name, { command: python, args, env: peer.env }, threads);
      compare(name, started, expected, peer.dtype === 'float32' ? 1e-4 : 0.05);
      memory[name] = { temporariesMiB: started.temporariesMiB };
      versions.push(started.version);
      running.push(started);
      cases.push({ name, run: started.run });
    }
  }
  for (const [name] of measured) {
    const { stdout, status } = spawnSync(
      process.execPath,
      [
        '--expose-gc',
        fileURLToPath(import.meta.url),
        '--shape',
        values.shape,
        '--threads',
        String(threads),
        '--memory',
        name,
      ],
      {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    if (status !== 0) throw new Error(`${name}: its memory could not be measured`);
    memory[name] = JSON.parse(stdout);
  }
  const times = await interleave(
    cases,
    Number(values.rounds),
    () => undefined,
    (done) => process.stderr.write(`\r${Math.floor(100 * done)} %`),
  );
  process.stderr.write('\n');

  const comparisons = [
    ['fused', 'PyTorch, heap reuse', '<= 1.0'],
    ['fused, fresh gradients', 'PyTorch', '<= 0.85'],
    ['fused', 'PyTorch', ''],
    ['fused', 'PyTorch, intermediates released, heap reuse', ''],
    ['fused bfloat16', 'fused', '<= 0.65'],
    ['fused bfloat16', 'PyTorch bfloat16, heap reuse', ''],
    ['fused, half scored', 'fused', '<= 0.55'],
    ['fused bfloat16, half scored', 'fused bfloat16', '<= 0.55'],
    ['long pair, kept in 512 MiB', 'fused', '2'],
    ['long pair, deferred in 256 MiB', 'long pair, kept in 512 MiB', ''],
    ['long pair, recomputed in 128 MiB', 'long pair, kept in 512 MiB', ''],
  ].filter(([a, b]) => times.has(a) && times.has(b));
  const floatingPoint = 6 * rows * vocab * size;
  const machine = thisMachine();
  const result = {
    machine,
    shape,
    threads,
    rounds: Number(values.rounds),
    peers: versions[0],
    memory,
    times: Object.fromEntries([...times].map(([name, all]) => [name, spread(all)])),
    ratios: comparisons.map(([a, b, target]) => ({
      name: `${a} / ${b}`,
      target,
      ...ratio(times, a, [b]),
    })),
  };
  const whole = (x) => x.toFixed(0);
  const only = values.only && ` --only '${values.only}'`;
  const lines = [
    `# The output layer fused with the loss`,
    '',
    `\`node bench/hidden.mjs --shape ${values.shape} --threads ${threads} --rounds ` +
      `${values.rounds}${only}\`, ${machine.cpu}, ${machine.cores} cores (${machine.isa}), ` +
      `${machine.system}, Node ${machine.node}, diralign ${machine.diralign}, ` +
      `${machine.date.slice(0, 10)}${versions[0] ? `; ${versions[0]}` : ''}.`,
    `DPO, ${sequences} sequences of ${tokens} tokens, vocabulary ${vocab}, ` +
      `hidden size ${size}; ${threads} threads, ${values.rounds} interleaved rounds.`,
    '',
    '| what | ms, median (quartiles) | least | GFLOP/s of three products | temporaries, MiB |',
    '| --- | --- | --- | --- | --- |',
    ...[...times].map(([name, all]) => {
      const s = spread(all);
      const products =
        name === 'log-probabilities only' ? 1 / 3 : name.includes('frozen') ? 2 / 3 : 1;
      const scored = name.includes('half') ? 0.5 : name.includes('long') ? 2 : 1;
      return (
        `| ${name} | ${whole(s.median)} (${quartiles(s, whole)}) | ${whole(s.min)} | ` +
        `${((floatingPoint * products * scored) / s.median / 1e6).toFixed(0)} | ` +
        `${memory[name]?.temporariesMiB.toFixed(0) ?? ''} |`
      );
    }),
    '',
    '| ratio of medians (quartiles over rounds) | target | measured |',
    '| --- | --- | --- |',
    ...result.ratios.map((r) => `| ${r.name} | ${r.target} | ${ratioText(r)} |`),
    '',
  ];
  const folder = path.join(here, 'results');
  mkdirSync(folder, { recursive: true });
  const file = path.join(
    folder,
    `${machine.date.slice(0, 10)}-${machine.cpu.toLowerCase().replace(/[^a-z0-9]+/g, '-')}-hidden`,
  );
  writeFileSync(`${file}.json`, `${JSON.stringify(result, null, 2)}\n`);
  writeFileSync(`${file}.md`, lines.join('\n'));
  console.log(lines.join('\n'));
  console.log(`Written: ${path.relative(process.cwd(), file)}.json and .md`);
} finally {
  for (const peer of running) peer.close();
  rmSync(directory, { recursive: true });
}
