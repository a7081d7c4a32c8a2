// Every door once, on whatever runtime runs this: Node, Bun, Deno. Prints what it tried and ends
// with 1 where a number is wrong.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import zlib from 'node:zlib';
import {
  cuda,
  DirAlignError,
  dirAlignLoss,
  methods,
  sequenceLogps,
  tokenLogps,
} from '../../dist/index.js';
import {
  cachedReference,
  collatePairs,
  fingerprint,
  readPreferences,
} from '../../dist/data/index.js';
import {
  referenceHiddenLoss,
  referenceLayer,
  referenceLoss,
  referenceTokenLogps,
} from '../../dist/verification/reference.js';
import { readBatch, writeSafetensors } from '../../dist/safetensors.js';
import { scoreSequences } from '../../dist/trainers/transformers/index.js';

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-smoke-'));
const [sequences, tokens, vocab, size] = [4, 3, 33, 5];
const rows = sequences * tokens;
const wave = (length, step) =>
  Float32Array.from({ length }, (_, i) => 2 * Math.sin(step * (i + 1)));
const batch = {
  logits: wave(rows * vocab, 0.7),
  shape: [sequences, tokens, vocab],
  labels: Int32Array.from({ length: rows }, (_, i) => (i % 4 === 3 ? -100 : (7 * i) % vocab)),
  reference: Float64Array.of(-9, -8, -10, -9.5),
};
/** What some methods need of it besides. */
const needs = {
  desirable: [true, false, false, true],
  groups: Int32Array.of(0, 2, 4),
  kl: 0.3,
  ranks: Int32Array.of(0, 1, 1, 0),
  rewards: Float64Array.of(1, 0.2, 0.4, 0.7),
};
const { logits, ...scored } = batch;
const layer = {
  ...scored,
  hidden: wave(rows * size, 0.3),
  weight: wave(vocab * size, 0.11),
  bias: wave(vocab, 0.9),
};

/** Within a millionth of the largest. */
function near(actual, expected, what) {
  assert.equal(actual.length, expected.length, what);
  const bound = 1e-6 * Math.max(1, ...Array.from(expected, Math.abs));
  for (let i = 0; i < expected.length; i++) {
    assert.ok(
      Math.abs(actual[i] - expected[i]) <= bound,
      `${what}[${i}]: ${actual[i]}, expected ${expected[i]}`,
    );
  }
}
const sameBytes = (a, b, what) =>
  assert.deepEqual(
    new Uint8Array(a.buffer, a.byteOffset, a.byteLength),
    new Uint8Array(b.buffer, b.byteOffset, b.byteLength),
    what,
  );

const dpo = dirAlignLoss('dpo', 0.1);
const config = { method: 'dpo', beta: 0.1 };
const checks = {
  'every method, from logits': () => {
    for (const { name, arity, fields } of methods()) {
      const settings = { method: name, ...(name !== 'sft' && { beta: 0.2 }) };
      const needed = Object.keys(fields).filter((field) => fields[field].needed);
      if (arity === 'group') needed.push('groups');
      const given = { ...batch, ...Object.fromEntries(needed.map((f) => [f, needs[f]])) };
      const [actual, expected] = [dirAlignLoss(settings)(given), referenceLoss(settings, given)];
      near([actual.loss], [expected.loss], `${name} loss`);
      near(actual.gradLogits, expected.gradLogits, `${name} gradLogits`);
    }
  },
  'in place, into a buffer, factored': () => {
    const { gradLogits } = dpo(batch);
    const [own, out] = [logits.slice(), new Float32Array(logits.length)];
    dpo({ ...batch, logits: own }, { inPlace: true });
    sameBytes(own, gradLogits, 'in place');
    assert.equal(dpo(batch, { out }).gradLogits, out);
    sameBytes(out, gradLogits, 'out');
    const factored = dpo(batch, { gradient: 'factored' });
    near(
      factored.gradLogits.map((x, i) => x * factored.rowScale[Math.floor(i / vocab)]),
      gradLogits,
      'factored',
    );
  },
  '16-bit logits': () => {
    // The upper half of a float32 is a bfloat16.
    const words = new Uint16Array(logits.buffer).filter((_, i) => i % 2 === 1);
    const half = { ...batch, logits: words, dtype: 'bfloat16' };
    near([dpo(half).loss], [referenceLoss(config, half).loss], 'bfloat16 loss');
    if (typeof Float16Array !== 'function') return;
    const floats = Float16Array.from(logits);
    const { loss, gradLogits } = dpo({ ...batch, logits: floats });
    near(
      [loss],
      [referenceLoss(config, { ...batch, logits: Float32Array.from(floats) }).loss],
      'float16 loss',
    );
    assert.ok(gradLogits instanceof Float16Array);
  },
  'off the event loop, and aborted': async () => {
    const [now, later] = [dpo(batch), await dpo.async(batch)];
    assert.equal(later.loss, now.loss);
    sameBytes(later.gradLogits, now.gradLogits, 'gradLogits');
    const many = await Promise.all(
      Array.from({ length: 50 }, () => dpo.async(batch, { gradient: 'none' })),
    );
    for (const { loss } of many) assert.equal(loss, now.loss);
    await assert.rejects(dpo.async(batch, { signal: AbortSignal.abort() }), {
      code: 'ERR_DIRALIGN_ABORTED',
    });
  },
  'from hidden states': async () => {
    const expected = referenceHiddenLoss(config, layer);
    for (const actual of [dpo.fromHidden(layer), await dpo.fromHidden.async(layer)]) {
      near([actual.loss], [expected.loss], 'loss');
      for (const key of ['gradHidden', 'gradWeight', 'gradBias'])
        near(actual[key], expected[key], key);
    }
  },
  'log-probabilities': () => {
    const expected = referenceTokenLogps(batch);
    const actual = tokenLogps(batch);
    for (const key of ['logps', 'logsumexp', 'entropy']) near(actual[key], expected[key], key);
    near(
      tokenLogps(layer).logps,
      referenceTokenLogps(referenceLayer(layer).batch).logps,
      'of hidden states',
    );
    const { logps, counts } = sequenceLogps(batch);
    // A policy that is its reference.
    assert.equal(dpo.fromLogps({ logps, counts, reference: logps }).loss, Math.LN2);
  },
  'what is refused': () => {
    const refused = (code) => (error) =>
      error instanceof DirAlignError && error.code === `ERR_DIRALIGN_${code}`;
    assert.throws(() => dpo({ ...batch, labels: batch.labels.map(() => vocab) }), refused('LABEL'));
    assert.throws(() => dirAlignLoss('dop', 1), refused('OPTION'));
    assert.throws(() => dpo({ ...batch, logits: [1, 2] }), refused('DTYPE'));
    assert.equal(typeof cuda.available, 'boolean');
  },
  'preferences, their batches, cached references': async () => {
    const file = path.join(folder, 'pairs.jsonl');
    fs.writeFileSync(file, '{"prompt":"p","chosen":"c","rejected":"r"}\n');
    const records = [];
    for await (const record of readPreferences(file)) records.push(record);
    assert.equal(records.length, 1);
    const zipped = zlib.gzipSync(fs.readFileSync(file));
    const sources = [
      zipped,
      new globalThis.Blob([zipped]),
      new globalThis.Response(zipped).body,
      { text: `[${fs.readFileSync(file, 'utf8')}]` },
      records.map(({ prompt, chosen, rejected }) => ({ prompt, chosen, rejected })),
    ];
    for (const source of sources) {
      const again = [];
      for await (const record of readPreferences(source)) again.push(record);
      assert.deepEqual(again, records);
    }
    const { labels } = collatePairs([{ prompt: [1, 2], chosen: [3], rejected: [4, 5] }], {
      pad: 0,
    });
    assert.ok(labels.includes(5));
    const kept = { logps: Float64Array.of(-1), counts: Int32Array.of(2) };
    const options = { fingerprint: await fingerprint('data', { file }) };
    const cache = path.join(folder, 'reference');
    await cachedReference(cache, options, () => kept);
    const { logps } = await cachedReference(cache, options, () => assert.fail('computed twice'));
    assert.equal(logps[0], -1);
  },
  'sequences by a model that only infers': async () => {
    const pairs = collatePairs([{ prompt: [1, 2], chosen: [3], rejected: [4, 5] }], { pad: 0 });
    const dims = [pairs.sequences, pairs.tokens, vocab];
    const data = wave(pairs.sequences * pairs.tokens * vocab, 0.3);
    const model = () => Promise.resolve({ logits: { type: 'float32', dims, data } });
    class Tensor {}
    const scored = await scoreSequences(model, pairs, { Tensor });
    assert.deepEqual(scored, sequenceLogps({ ...pairs, logits: data, shape: dims }));
  },
  'files of tensors': () => {
    const file = path.join(folder, 'batch.safetensors');
    writeSafetensors(file, {
      logits: { dtype: 'F32', shape: batch.shape, data: logits },
      labels: { dtype: 'I32', shape: [sequences, tokens], data: batch.labels },
      reference: { dtype: 'F64', shape: [sequences], data: batch.reference },
    });
    assert.equal(dpo(readBatch(file)).loss, dpo(batch).loss);
  },
};

try {
  for (const [name, check] of Object.entries(checks)) {
    await check();
    console.log(`ok ${name}`);
  }
} finally {
  fs.rmSync(folder, { recursive: true, force: true });
}
