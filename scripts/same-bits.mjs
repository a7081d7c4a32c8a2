#!/usr/bin/env node
// Whether two builds of the package compute the same bits: node scripts/same-bits.mjs OLD NEW
//   OLD, NEW   folders of packages that are built: dist/, and build/Release/diralign.node
//   --cuda     on the CUDA backend of build/emulated/diralign.node, or of a device
// Every reference case of tests/fixtures through logits (three dtypes, every way to have the
// gradient, every metric), hidden states, log-probabilities, sequences and tokens; on the CPU with
// every instruction set. Ends with 1 where an array differs.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { tsImport } from 'tsx/esm/api';

const script = fileURLToPath(import.meta.url);
const args = process.argv.slice(2);

/** Prints a line for each result: its name, and a hash of its bits. */
async function compute(folder, backend) {
  const entry = pathToFileURL(path.join(folder, 'dist/index.js')).href;
  const { dirAlignLoss, sequenceLogps, tokenLogps } = await import(entry);
  const { loadVectors } = await tsImport('../tests/support/vectors.ts', import.meta.url);
  const { encode } = await tsImport('../ts/verification/verification.ts', import.meta.url);
  const hash = (result) => {
    const sum = createHash('sha1');
    for (const [key, value] of Object.entries(result).sort())
      sum
        .update(key)
        .update(
          ArrayBuffer.isView(value)
            ? new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
            : JSON.stringify(value, (_, x) =>
                typeof x === 'number' && !Number.isFinite(x) ? String(x) : x,
              ),
        );
    return sum.digest('hex');
  };
  const print = (name, call) => {
    let found;
    try {
      found = hash(call());
    } catch (error) {
      found = error.code ?? String(error);
    }
    console.log(`${name} ${found}`);
  };
  const least = (fromHidden) => {
    try {
      fromHidden({ memory: 1 });
    } catch (error) {
      return Number(/at least (\d+)/.exec(error.message)[1]);
    }
    throw new Error('a workspace of one byte is enough');
  };
  const random = (count, seed) =>
    Float32Array.from({ length: count }, (_, i) => Math.sin(seed + 12.9898 * i) % 1);
  for (const [input, cases] of loadVectors()) {
    const rows = input.logits.length / input.V;
    const { labels, V: vocab } = input;
    const shape = [2 * input.B, input.T, vocab];
    const layer = { hidden: random(rows * 6, 1), weight: random(vocab * 6, 2) };
    const by = { backend };
    print(`${input.name} tokens`, () => tokenLogps({ logits: input.logits, labels, shape }, by));
    print(`${input.name} sequences`, () =>
      sequenceLogps({ logits: input.logits, labels, shape }, by),
    );
    for (const { id, call } of cases) {
      const loss = dirAlignLoss(call);
      const sftLabels = input.nllLabels && { sftLabels: input.nllLabels };
      const { reference } = input;
      const usesReference = 'referenceFree' in loss && !loss.referenceFree;
      const batch = { labels, shape, ...sftLabels, ...(usesReference && { reference }) };
      const metrics = ['entropy', 'mean_token_accuracy', 'logits/chosen'];
      const ways = {
        dense: { metrics },
        none: { gradient: 'none' },
        'in place': { inPlace: true, gradientScale: 3 },
        ...(!sftLabels && {
          factored: { gradient: 'factored' },
          'factored in place': { gradient: 'factored', inPlace: true, metrics },
        }),
      };
      for (const [way, run] of Object.entries(ways))
        print(`${id} ${way}`, () =>
          loss({ ...batch, logits: input.logits.slice() }, { ...run, backend }),
        );
      for (const dtype of ['float16', 'bfloat16'])
        print(`${id} ${dtype}`, () =>
          loss({ ...batch, logits: encode(dtype, input.logits), dtype }, by),
        );
      const fromHidden = (memory) =>
        loss.fromHidden({ ...batch, ...layer }, { ...by, ...memory, metrics });
      print(`${id} hidden`, () => fromHidden({}));
      // In the smallest workspace, where nothing is kept.
      print(`${id} hidden in pieces`, () => fromHidden({ memory: least(fromHidden) }));
      if (backend === 'cpu')
        print(`${id} logps`, () =>
          loss.fromLogps({
            logps: input.logps,
            counts: input.counts,
            ...(usesReference && { reference }),
          }),
        );
    }
  }
}

function results(folder, backend, isa) {
  const env = { ...process.env };
  if (isa) env.DIRALIGN_ISA = isa;
  if (backend === 'cuda')
    env.DIRALIGN_ADDON ??= path.resolve(folder, 'build/emulated/diralign.node');
  const child = spawnSync(process.execPath, [script, '--compute', folder, backend], {
    env,
    encoding: 'utf8',
    maxBuffer: 2 ** 30,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (child.status !== 0) throw new Error(`${folder} could not compute`);
  return child.stdout.trim().split('\n');
}

if (args[0] === '--compute') {
  await compute(args[1], args[2]);
} else {
  const cuda = args.includes('--cuda');
  const [old, now] = args.filter((arg) => arg !== '--cuda');
  let differ = 0;
  for (const isa of cuda ? [undefined] : ['baseline', 'avx2', 'avx512', 'avx512_bf16']) {
    const backend = cuda ? 'cuda' : 'cpu';
    const [before, after] = [old, now].map((folder) => results(folder, backend, isa));
    const changed = after.filter((line, i) => line !== before[i]);
    if (before.length !== after.length) changed.push(`${before.length} and ${after.length} lines`);
    differ += changed.length;
    console.log(`${isa ?? backend}: ${after.length} results, ${changed.length} differ`);
    for (const line of changed.slice(0, 10)) console.log(`  ${line}`);
  }
  process.exitCode = differ > 0 ? 1 : 0;
}
