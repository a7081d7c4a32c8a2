#!/usr/bin/env node
// Two builds of the package against each other: node bench/compare.mjs OLD NEW [--rounds 15]
//   OLD, NEW        folders with dist/ and build/Release/diralign.node
//   --only PATTERN  of the calls, those whose names match
// Every round runs both, each in a process of its own, in turns; the medians of the rounds are
// compared, by their ratio. Caches are cold where a batch is larger than they are, and no batch is
// of zeros.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

const script = fileURLToPath(import.meta.url);

/** Prints nanoseconds of each kind of call: the least of a few. */
async function measure(folder, only) {
  const entry = pathToFileURL(path.join(folder, 'dist/index.js')).href;
  const { dirAlignLoss, sequenceLogps, tokenLogps } = await import(entry);
  const random = (count, scale) =>
    Float32Array.from({ length: count }, (_, i) => scale * Math.sin(12.9898 * (i % 65537) + 1));
  const dpo = dirAlignLoss('dpo', 0.1);
  const orpo = dirAlignLoss({ method: 'orpo', beta: 0.5, sftWeight: 1 });
  const batchOf = (pairs, tokens, vocab) => {
    const rows = 2 * pairs * tokens;
    return {
      labels: Int32Array.from({ length: rows }, (_, i) => (i * 7919) % vocab),
      shape: [2 * pairs, tokens, vocab],
      reference: Float64Array.from({ length: 2 * pairs }, (_, i) => -tokens * (7 + (i % 3))),
    };
  };
  const tiny = { ...batchOf(1, 1, 100), logits: random(200, 2) };
  const kto = dirAlignLoss('kto', 0.1);
  const unpaired = { ...tiny, desirable: Uint8Array.of(1, 0), kl: 0.1 };
  const tinyOut = new Float32Array(tiny.logits.length);
  const small = { ...batchOf(4, 16, 1000), logits: random(128_000, 2) };
  // Made for the first call that takes them.
  const once = (make) => {
    let made;
    return () => (made ??= make());
  };
  const large = once(() => ({ ...batchOf(4, 128, 32000), logits: random(32_768_000, 2) }));
  const out = once(() => new Float32Array(large().logits.length));
  const layer = once(() => ({
    ...batchOf(2, 64, 32000),
    hidden: random(256 * 512, 1),
    weight: random(32000 * 512, 0.05),
  }));
  const logps = {
    logps: random(2000, 9).map((x) => -20 - x),
    counts: new Int32Array(2000).fill(9),
    reference: random(2000, 8).map((x) => -20 - x),
  };
  const outs = once(() => ({
    gradHidden: new Float32Array(layer().hidden.length),
    gradWeight: new Float32Array(layer().weight.length),
  }));
  const unreferenced = { labels: small.labels, shape: small.shape, logits: small.logits };
  const calls = {
    'one pair of one token': [10_000, () => dpo(tiny)],
    'one pair of one token, out': [10_000, () => dpo(tiny, { out: tinyOut, threads: 1 })],
    'two sequences of one token, with fields': [
      10_000,
      () => kto(unpaired, { out: tinyOut, threads: 1 }),
    ],
    'one pair of one token, async': [10_000, () => dpo.async(tiny, { out: tinyOut, threads: 1 })],
    'one pair of one token, sequences': [10_000, () => sequenceLogps(tiny)],
    'dense, 128 rows x 1000': [200, () => dpo(small)],
    'orpo, 128 rows x 1000': [200, () => orpo(unreferenced)],
    'forward, 1024 rows x 32000': [3, () => dpo(large(), { gradient: 'none' })],
    'dense into an array, 1024 x 32000': [3, () => dpo(large(), { out: out() })],
    'factored into an array, 1024 x 32000': [
      3,
      () => dpo(large(), { gradient: 'factored', out: out() }),
    ],
    'sequences, 1024 x 32000': [3, () => sequenceLogps(large())],
    'tokens, 1024 x 32000': [3, () => tokenLogps(large())],
    'hidden, 256 x 512 x 32000': [3, () => dpo.fromHidden(layer(), { out: outs() })],
    'hidden in 8 MiB': [2, () => dpo.fromHidden(layer(), { out: outs(), memory: 2 ** 23 })],
    'log-probabilities, 1000 pairs': [4000, () => dpo.fromLogps(logps)],
  };
  for (const [name, [count, call]] of Object.entries(calls)) {
    if (!name.match(only)) continue;
    const times = [];
    for (let i = 0; i < Math.max(3, count); i++) {
      const begun = process.hrtime.bigint();
      const result = call();
      if (result instanceof Promise) await result;
      times.push(Number(process.hrtime.bigint() - begun));
    }
    times.sort((a, b) => a - b);
    console.log(`${name}\t${count > 10 ? times[times.length >> 1] : times[0]}`);
  }
}

const quantile = (values, q) => values.sort((a, b) => a - b)[Math.floor(q * (values.length - 1))];

function compare(folders, rounds, only) {
  const found = new Map();
  for (let round = 0; round < rounds; round++) {
    for (const which of round % 2 ? [1, 0] : [0, 1]) {
      const { status, stdout } = spawnSync(
        process.execPath,
        [script, '--measure', '--only', only, folders[which]],
        { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] },
      );
      if (status !== 0) throw new Error(`${folders[which]} could not be measured`);
      for (const line of stdout.trim().split('\n')) {
        const [name, time] = line.split('\t');
        if (!found.has(name)) found.set(name, [[], []]);
        found.get(name)[which].push(Number(time));
      }
    }
  }
  console.log('| call | old, us | new, us | new / old | quartiles |\n|---|---|---|---|---|');
  for (const [name, [before, after]] of found) {
    const ratios = after.map((time, i) => time / before[i]);
    const [a, b] = [before, after].map((times) => quantile([...times], 0.5));
    const [low, high] = [0.25, 0.75].map((q) => quantile([...ratios], q).toFixed(3));
    const us = (time) => (time / 1000).toPrecision(4);
    console.log(`| ${name} | ${us(a)} | ${us(b)} | ${(b / a).toFixed(3)} | ${low} - ${high} |`);
  }
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '15' },
    only: { type: 'string', default: '' },
    measure: { type: 'boolean' },
  },
});
if (values.measure) await measure(positionals[0], values.only);
else compare(positionals, Number(values.rounds), values.only);
