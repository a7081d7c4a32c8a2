// Implementations in PyTorch, each a process of its own that waits for its turn in the rounds. bench/peers/torch_gpu.py is the other end.
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { clearTimeout, setTimeout } from 'node:timers';
import { fileURLToPath } from 'node:url';
import { interleave, ratio, spread } from '../../dist/bench/rounds.js';
import { decoder } from '../../dist/verification.js';
import { gradientSum } from './measure.mjs';
import { modes } from './plan.mjs';

const script = fileURLToPath(new URL('../peers/torch_gpu.py', import.meta.url));
const python = process.env.PYTHON ?? 'python3';
/** Milliseconds. Compiling takes a minute or two; a peer that hangs must not keep a rented card. */
const patience = 300_000;

/** What is installed: `[{ name, version }]`, and why not in `missing`. */
export function findPeers() {
  const { status, stdout, stderr, error } = spawnSync(python, [script, '--list'], { encoding: 'utf8' });
  if (status !== 0)
    return { found: [], missing: [{ name: 'all', reason: (error?.message ?? stderr).trim().split('\n').at(-1) }] };
  const peers = JSON.parse(stdout);
  return { found: peers.filter(({ reason }) => reason === null), missing: peers.filter(({ reason }) => reason !== null) };
}

async function start(name, batch, fraction) {
  const { labels, reference, shape } = batch.given.get(fraction);
  const folder = mkdtempSync(path.join(os.tmpdir(), 'diralign-gpu-peer-'));
  const files = { block: batch.block.logits, labels, reference };
  for (const [file, values] of Object.entries(files)) writeFileSync(path.join(folder, file), values);
  const args = ['--peer', name, '--directory', folder, '--dtype', batch.dtype, '--beta', '0.1', '--shape', shape.join(',')];
  const child = spawn(python, [script, ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
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

/** One peer and our dense gradient in the same rounds. What goes wrong with a peer is its own result, not the benchmark's end. */
export async function measurePeer(device, batch, peer, { fraction, rounds, progress }) {
  const { rows, vocab, dtype } = batch;
  const entry = { name: peer.name, version: peer.version, rows, vocab, dtype, fraction };
  let child;
  try {
    child = await start(peer.name, batch, fraction);
    const ours = device.call(
      batch,
      modes.find(({ name }) => name === 'dense out'),
      fraction,
    );
    const { loss } = ours();
    const sum = gradientSum(device, batch, decoder(dtype));
    const { first } = child;
    // The peers round to 16 bits on the way.
    const differs = [
      ['loss', first.loss, loss, 5e-3 * Math.max(1, Math.abs(loss))],
      ['gradient', first.gradientSum, sum, 2e-2 * sum],
    ].filter(([, theirs, own, bound]) => !(Math.abs(theirs - own) <= bound));
    if (differs.length > 0) {
      const what = differs.map(([name, theirs, own]) => `${name} ${theirs}, ours ${own}`).join('; ');
      return { ...entry, problem: `computes something else: ${what}` };
    }
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
    // Gradients beside the logits, in float32: some need several times our memory.
    return { ...entry, problem: error.message, exhausted: /out of memory/i.test(error.message) };
  } finally {
    await child?.close();
  }
}
