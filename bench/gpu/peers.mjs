// Implementations in PyTorch, each a process of its own that waits for its turn in the rounds.
// bench/peers/torch_gpu.py is the other end.
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { clearTimeout, setTimeout } from 'node:timers';
import { fileURLToPath } from 'node:url';
import { interleave, ratio, spread } from '../../dist/bench/rounds.js';
import { decoder } from '../../dist/verification/verification.js';
import { gradientSum } from './measure.mjs';
import { modes } from './plan.mjs';

const script = fileURLToPath(new URL('../peers/torch_gpu.py', import.meta.url));
const python = () => process.env.PYTHON ?? 'python3';
/** Milliseconds. Compiling takes a minute or two; a peer that hangs must not keep a rented card. */
const patience = 300_000;

/**
 * What is installed: `[{ name, version, layer, withoutReference }]`, `layer` for those of
 * `fromHidden`; and why not in `missing`.
 */
export function findPeers() {
  const { status, stdout, stderr, error } = spawnSync(python(), [script, '--list'], {
    encoding: 'utf8',
  });
  if (status !== 0)
    return {
      found: [],
      missing: [{ name: 'all', reason: (error?.message ?? stderr).trim().split('\n').at(-1) }],
    };
  const peers = JSON.parse(stdout);
  return {
    found: peers.filter(({ reason }) => reason === null),
    missing: peers.filter(({ reason }) => reason !== null),
  };
}

/** Starts a peer with the files in a folder, and waits until it has done the work once. */
async function start(name, files, { dtype, shape, beta, size }) {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'diralign-gpu-peer-'));
  for (const [file, values] of Object.entries(files))
    writeFileSync(path.join(folder, file), values);
  const args = [
    '--peer',
    name,
    '--directory',
    folder,
    '--dtype',
    dtype,
    '--beta',
    String(beta),
    '--shape',
    shape.join(','),
  ];
  if (size !== undefined) args.push('--hidden-size', String(size));
  const child = spawn(python(), [script, ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
  let complaints = '';
  child.stderr.on('data', (data) => (complaints = `${complaints}${data}`.slice(-4000)));
  // A child that is gone must not end this process by an unheard error of its pipe.
  child.stdin.on('error', () => undefined);
  const closed = new Promise((resolve) => child.on('close', resolve).on('error', resolve));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => {
    const timer = setTimeout(() => child.kill('SIGKILL'), patience);
    const { value, done } = await lines.next();
    clearTimeout(timer);
    if (!done) return JSON.parse(value);
    await closed;
    throw new Error(complaints.trim().split('\n').at(-1) || `${name} ended`);
  };
  const close = async () => {
    child.stdin.end();
    await closed;
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const first = await next();
    const ask = async (what) => {
      child.stdin.write(`${what}\n`);
      return (await next()).ms;
    };
    return { first, ask, close };
  } catch (error) {
    child.kill();
    await close();
    throw error;
  }
}

/**
 * `[what, theirs, ours, how far they may be apart]` of each number, as a complaint; undefined where
 * all agree.
 */
function disagreement(numbers) {
  const differs = numbers.filter(([, theirs, ours, bound]) => !(Math.abs(theirs - ours) <= bound));
  if (differs.length === 0) return undefined;
  return (
    'computes something else: ' +
    `${differs.map(([what, theirs, ours]) => `${what} ${theirs}, ours ${ours}`).join('; ')}`
  );
}

// Gradients beside the logits, in float32: some need several times our memory.
const failure = ({ message }) => ({ problem: message, exhausted: /out of memory/i.test(message) });

/**
 * One peer and our dense gradient in the same rounds. What goes wrong with a peer is its own
 * result, not the benchmark's end.
 */
export async function measurePeer(device, batch, peer, { fraction, rounds, progress }) {
  const { rows, vocab, dtype } = batch;
  const entry = { name: peer.name, version: peer.version, rows, vocab, dtype, fraction };
  let child;
  try {
    const { labels, reference, shape } = batch.given.get(fraction);
    child = await start(
      peer.name,
      { block: batch.block.logits, labels, reference },
      { dtype, shape, beta: 0.1 },
    );
    const ours = device.call(
      batch,
      modes.find(({ name }) => name === 'dense out'),
      fraction,
    );
    const { loss } = ours();
    const sum = gradientSum(device, batch, decoder(dtype));
    const { first } = child;
    // The peers round to 16 bits on the way.
    const problem = disagreement([
      ['loss', first.loss, loss, 5e-3 * Math.max(1, Math.abs(loss))],
      ['gradient', first.gradientSum, sum, 2e-2 * sum],
    ]);
    if (problem !== undefined) return { ...entry, problem };
    const cases = [
      { name: 'ours', run: () => device.deviceTime(ours) },
      { name: 'ours wall', run: () => device.wallTime(ours) },
      { name: 'peer', run: () => child.ask('device') },
      { name: 'peer wall', run: () => child.ask('wall') },
    ];
    const times = await interleave(cases, rounds, () => undefined, progress);
    return {
      ...entry,
      device: spread(times.get('peer')),
      wall: spread(times.get('peer wall')),
      ours: { device: spread(times.get('ours')), wall: spread(times.get('ours wall')) },
      ratio: ratio(times, 'peer', ['ours']),
      wallRatio: ratio(times, 'peer wall', ['ours wall']),
      extraBytes: first.extraBytes,
    };
  } catch (error) {
    return { ...entry, ...failure(error) };
  } finally {
    await child?.close();
  }
}

/** Sum of the magnitudes of a buffer, a piece at a time: the weight's gradient is gigabytes. */
function magnitude(buffer, dtype) {
  const decode = decoder(dtype);
  const Elements = dtype === 'float32' ? Float32Array : Uint16Array;
  const piece = 2 ** 24;
  let sum = 0;
  for (let offset = 0; offset < buffer.byteLength; offset += piece) {
    const bytes = Math.min(piece, buffer.byteLength - offset);
    const numbers = new Elements(bytes / Elements.BYTES_PER_ELEMENT);
    buffer.copyTo(numbers, { offset });
    for (const number of numbers) sum += Math.abs(decode(number));
  }
  return sum;
}

/**
 * One peer of the output layer and `fromHidden` with all gradients, by the clock in the same
 * rounds. Where the peer takes no reference log-probabilities, neither do we, and beta is smaller:
 * margins as far from 0 as sequences differ would leave no gradient to compare.
 */
export async function measureLayerPeer(device, layer, peer, { fraction, rounds, progress }) {
  const { rows, size, vocab, dtype, shape, numbers } = layer;
  const entry = { name: peer.name, version: peer.version, rows, size, vocab, dtype, fraction };
  let child;
  try {
    const given = layer.given(fraction);
    const beta = peer.withoutReference ? 0.01 : 0.1;
    const reference = peer.withoutReference ? new Float64Array(shape[0]) : given.reference;
    const objective = device.subject.dirAlignLoss('dpo', beta);
    const ours = () => objective.fromHidden({ ...given, reference }, { out: layer.out() });
    child = await start(
      peer.name,
      { ...numbers, labels: given.labels, reference },
      { dtype, shape, beta, size },
    );
    const { first } = child;
    const { loss, memory } = ours();
    // The peers round every logit to 16 bits, we do not: over 1024 tokens that moves a margin, and
    // the coefficient with it, by 1 %.
    const own = {
      gradHidden: magnitude(layer.gradHidden, dtype),
      gradWeight: magnitude(layer.gradWeight, 'float32'),
    };
    const problem = disagreement([
      ['loss', first.loss, loss, 2e-2 * Math.max(1, Math.abs(loss))],
      ['gradHidden', first.gradHidden, own.gradHidden, 3e-2 * own.gradHidden],
      ['gradWeight', first.gradWeight, own.gradWeight, 3e-2 * own.gradWeight],
    ]);
    if (problem !== undefined) return { ...entry, problem };
    const cases = [
      { name: 'ours', run: () => device.wallTime(ours) },
      { name: 'peer', run: () => child.ask('wall') },
    ];
    const times = await interleave(cases, rounds, () => undefined, progress);
    return {
      ...entry,
      wall: spread(times.get('peer')),
      ours: { wall: spread(times.get('ours')), memory },
      ratio: ratio(times, 'peer', ['ours']),
      extraBytes: first.extraBytes,
    };
  } catch (error) {
    return { ...entry, ...failure(error) };
  } finally {
    await child?.close();
  }
}
