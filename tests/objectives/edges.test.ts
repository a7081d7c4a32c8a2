// Sizes, values and batches at the edges.
import os from 'node:os';
import { describe, expect, test } from 'vitest';
import { dirAlignLoss, sequenceLogps, tokenLogps } from '../../ts/index.js';
import type { LossResult, RunOptions } from '../../ts/index.js';
import { referenceLoss, type ReferenceConfig } from '../../ts/verification/reference.js';
import {
  copyOf,
  coupled,
  dtypes,
  everyMethod,
  inDtype,
  objectiveOf,
  randomBatch,
  softplus,
  type Dtype,
  type HostBatch,
} from '../support/batches.js';
import { lossBound, Misses } from '../support/bounds.js';
import { at, generator, normal, present, sameBits } from '../support/numbers.js';
import { prepare } from '../../ts/verification/verification.js';
import { checkWithin } from '../support/stages.js';

const modes: [string, RunOptions][] = [
  ['dense', {}],
  ['dense in place', { inPlace: true }],
  ['factored', { gradient: 'factored' }],
  ['factored in place', { gradient: 'factored', inPlace: true }],
  ['none', { gradient: 'none' }],
];
const dpo: ReferenceConfig = { method: 'dpo', beta: 0.1 };

/** Every mode of a batch whose rows all are scored, against float64. */
function checkModes(
  misses: Misses,
  what: string,
  batch: HostBatch,
  config: ReferenceConfig = dpo,
): void {
  const rows = prepare(batch);
  for (const [mode, options] of modes) {
    checkWithin(
      misses,
      `${what} ${mode}`,
      config,
      batch,
      objectiveOf(config)(copyOf(batch), options),
      rows,
    );
  }
}

/** One row per sequence: its logits and its label. */
function rowsOf(
  rows: readonly Float32Array[],
  labels: readonly number[],
  dtype: Dtype = 'float32',
): HostBatch {
  return {
    logits: inDtype(Float32Array.from(rows.flatMap((row) => Array.from(row))), dtype),
    ...(dtype === 'float32' ? {} : { dtype }),
    shape: [rows.length, 1, rows[0]?.length ?? 0],
    labels: Int32Array.from(labels),
    reference: new Float64Array(rows.length).fill(-2),
  };
}

describe('vocabularies', () => {
  test.each([1, 2, 7, 31, 32, 33, 511, 512, 513, 8191, 8192, 8193, 32_001, 50_257, 128_256])(
    'V = %d',
    (vocab) => {
      const misses = new Misses();
      for (const dtype of dtypes) {
        const batch = randomBatch({
          seed: vocab,
          sequences: 2,
          tokens: vocab > 10_000 ? 1 : 2,
          vocab,
          dtype,
          ignored: 0.2,
          scale: 3,
        });
        checkModes(misses, dtype, batch);
        // The label in the first and the last place, alone in its block and beside it.
        const labels =
          vocab > 10_000
            ? [vocab - 1]
            : [0, vocab - 1, Math.min(512, vocab - 1), Math.min(511, vocab - 1)];
        for (const label of new Set(labels)) {
          const relabelled = batch.labels.map((old) => (old === -100 ? old : label));
          checkModes(misses, `${dtype}, label ${String(label)}`, { ...batch, labels: relabelled });
        }
      }
      expect(misses.list).toEqual([]);
    },
  );

  test('V = 1: certainty, and a gradient of 0', () => {
    for (const method of everyMethod) {
      const config: ReferenceConfig = { method, ...(method === 'sft' ? {} : { beta: 0.5 }) };
      const batch = randomBatch({ seed: 1, sequences: 2, tokens: 3, vocab: 1 });
      for (const [mode, options] of modes) {
        const result = objectiveOf(config)(copyOf(batch), options);
        expect(result.loss, `${method} ${mode}`).toSatisfy(Number.isFinite);
        expect([...result.logps]).toEqual([0, 0]);
        expect(
          Array.from((result.gradLogits as Float32Array | undefined) ?? []).every((x) => x === 0),
        ).toBe(true);
        expect(result.metrics.nonfinite).toBe(0);
      }
    }
  });
});

test('tokenLogps: logits whose double float32 cannot hold', () => {
  const logits = Float32Array.of(2e38, 1e38, -1e38, 3e38, 3e38, 3e38, -3e38, -Infinity);
  const batch = { logits, labels: Int32Array.of(3, 1), shape: [2, 1, 4] } as const;
  const { logps, entropy, logCollision } = tokenLogps(batch, { collision: true });
  for (const x of [logps[0], entropy[0], logCollision[0]]) expect(Math.abs(present(x))).toBe(0);
  for (const x of [logps[1], -at(entropy, 1), logCollision[1]]) expect(x).toBeCloseTo(-Math.LN2, 6);
});

describe('batches', () => {
  test('no rows: no tokens, and sequences of a log-probability of 0', () => {
    const none = { shape: [2, 0, 9], labels: new Int32Array(0) };
    const logits = { ...none, logits: new Float32Array(0) };
    const hidden = { ...none, hidden: new Float32Array(0), weight: new Float32Array(9) };
    for (const batch of [logits, hidden]) {
      expect(tokenLogps(batch)).toEqual({
        logps: new Float64Array(0),
        logsumexp: new Float64Array(0),
        entropy: new Float64Array(0),
      });
      expect([...sequenceLogps(batch).logps]).toEqual([0, 0]);
    }
  });

  test.each(everyMethod)('%s: no rows at all, or none that counts', (method) => {
    const config: ReferenceConfig = {
      method,
      ...(method === 'sft' ? {} : { beta: 0.5, sftWeight: 1 }),
    };
    const reference = Float64Array.of(-1, -2, -3, -4);
    const none: HostBatch = {
      logits: new Float32Array(0),
      shape: [4, 0, 9],
      labels: new Int32Array(0),
      reference,
    };
    const ignored: HostBatch = {
      logits: new Float32Array(4 * 3 * 9).fill(NaN),
      shape: [4, 3, 9],
      labels: new Int32Array(12).fill(-100),
      reference,
    };
    for (const batch of [none, ignored]) {
      const expected = referenceLoss(config, batch);
      const pairs = method === 'sft' ? 4 : 2;
      for (const [mode, options] of modes) {
        const result = objectiveOf(config)(copyOf(batch), options);
        const what = `${method} ${mode}`;
        expect(Math.abs(result.loss - expected.loss), what).toBeLessThanOrEqual(
          1e-14 * Math.max(1, Math.abs(expected.loss)),
        );
        expect([...result.logps], what).toEqual([0, 0, 0, 0]);
        expect([...result.counts], what).toEqual([0, 0, 0, 0]);
        expect(
          [...result.rewards].every((x) => x === 0),
          what,
        ).toBe(true);
        expect(
          [...result.coefficients].every((x) => x === 0),
          what,
        ).toBe(true);
        expect(result.metrics, what).toMatchObject({ empty_sequences: pairs, nonfinite: 0 });
        if (mode === 'none') continue;
        const gradient = present(result.gradLogits);
        expect(sameBits(gradient, new Float32Array(batch.logits.length)), what).toBe(true);
        if (result.rowScale) expect([...result.rowScale].every((x) => x === 0)).toBe(true);
      }
    }
    // The score of nothing is 0, whatever the reference says.
    if (method === 'dpo') expect(objectiveOf(config)(none).loss).toBe(0.6931471805599453);
  });

  test('one scored token', () => {
    const misses = new Misses();
    for (const dtype of dtypes) {
      const batch = randomBatch({ seed: 3, sequences: 2, tokens: 6, vocab: 50, dtype, ignored: 1 });
      expect([...sequenceLogps(batch).counts]).toEqual([1, 1]);
      checkModes(misses, dtype, batch);
    }
    expect(misses.list).toEqual([]);
  });

  test.each(everyMethod)('%s: an empty sequence beside others', (method) => {
    const config: ReferenceConfig = {
      method,
      ...(method === 'sft' ? {} : { beta: 0.5, sftWeight: 0.3 }),
    };
    const batch = randomBatch({ seed: 8, sequences: 8, tokens: 4, vocab: 20 });
    // The chosen of pair 0, the rejected of pair 1, both of pair 2.
    const labels = batch.labels.map((label, row) =>
      [0, 2, 5, 6].includes(Math.floor(row / 4)) ? -100 : label,
    );
    const misses = new Misses();
    for (const [mode, options] of modes) {
      const result = objectiveOf(config)({ ...copyOf(batch), labels }, options);
      checkWithin(misses, mode, config, { ...batch, labels }, result);
      expect(result.metrics.empty_sequences).toBe(method === 'sft' ? 4 : 3);
      for (const b of [0, 2, 5, 6])
        expect([result.logps[b], result.counts[b], result.coefficients[b]].map(Number)).toEqual([
          0, 0, 0,
        ]);
    }
    expect(misses.list).toEqual([]);
    if (method !== 'dpo') return;
    // By hand: the score of the empty one is 0.
    const { losses, rewards } = objectiveOf({ method: 'dpo', beta: 0.5 })({ ...batch, labels });
    expect(losses[0]).toBeCloseTo(softplus(at(rewards, 4)), 14);
    expect(losses[1]).toBeCloseTo(softplus(-at(rewards, 1)), 14);
    expect(losses[2]).toBe(0.6931471805599453);
  });

  test.each([1, 3000])('%d pairs', (pairs) => {
    for (const method of ['dpo', 'orpo', 'aot_unpaired'] as const) {
      const config: ReferenceConfig = { method, beta: 0.5 };
      const batch = randomBatch({ seed: pairs, sequences: 2 * pairs, tokens: 2, vocab: 5 });
      const misses = new Misses();
      for (const [mode, options] of modes)
        checkWithin(misses, mode, config, batch, objectiveOf(config)(copyOf(batch), options));
      expect(misses.list).toEqual([]);
    }
  });

  test('other ignored indices, one inside the vocabulary among them', () => {
    const batch = randomBatch({ seed: 6, sequences: 4, tokens: 5, vocab: 12 });
    const expected = dirAlignLoss('dpo', 0.1)(batch);
    const relabel = (from: number, to: number): Int32Array =>
      batch.labels.map((label) => (label === from ? to : label));
    for (const ignoreIndex of [-1, 12, 2 ** 31 - 1, -(2 ** 31)]) {
      const result = dirAlignLoss(
        'dpo',
        0.1,
      )({ ...batch, labels: relabel(-100, ignoreIndex), ignoreIndex });
      expect(result.losses).toStrictEqual(expected.losses);
      expect(sameBits(present(result.gradLogits), present(expected.gradLogits))).toBe(true);
    }
    const shifted = batch.labels.map((label) => (label === -100 ? 0 : Math.max(1, label)));
    const inside = sequenceLogps({ ...batch, labels: shifted, ignoreIndex: 0 });
    const outside = sequenceLogps({
      ...batch,
      labels: shifted.map((label) => (label === 0 ? -100 : label)),
    });
    expect(inside).toStrictEqual(outside);
  });

  test('sequences of every length in a packed batch', () => {
    const batch = randomBatch({ seed: 10, sequences: 2, tokens: 12, vocab: 30, ignored: 0 });
    const offsets = Int32Array.of(0, 0, 1, 5, 5, 24, 24);
    const result = dirAlignLoss(
      'simpo',
      2,
    )({ ...batch, shape: [24, 30], offsets, reference: new Float64Array(6) });
    expect([...result.counts]).toEqual([0, 1, 4, 0, 19, 0]);
    const tokens = tokenLogps(batch).logps;
    const sums = [0, 1, 2, 3, 4, 5].map((b) =>
      tokens.subarray(offsets[b], offsets[b + 1]).reduce((x, y) => x + y, 0),
    );
    expect([...result.logps]).toEqual(sums);
    // Of the pairs (0, 3), (1, 4) and (2, 5), two have one.
    expect(result.metrics.empty_sequences).toBe(2);
  });

  const elements = 2 ** 31 + 40 * 65_536;
  // Two arrays of 4.3 GB, of whose pages hardly any is touched; room for all of one and some, to be
  // safe.
  test.skipIf(os.freemem() < 8 * 2 ** 30)('an array past 2^31 elements', () => {
    const vocab = 65_536;
    const rows = elements / vocab;
    const places = [0, 5, 2 ** 31 / vocab - 1, 2 ** 31 / vocab, rows - 1];
    const small = randomBatch({ seed: 13, sequences: 5, tokens: 1, vocab, dtype: 'bfloat16' });
    const logits = new Uint16Array(elements);
    const labels = new Int32Array(rows).fill(-100);
    places.forEach((row, i) => {
      logits.set(small.logits.subarray(i * vocab, (i + 1) * vocab), row * vocab);
      labels[row] = at(small.labels, i);
    });
    // Packed as two sequences: the first has the first two rows, the second the rest.
    const batch = {
      logits,
      dtype: 'bfloat16',
      shape: [rows, vocab],
      offsets: Int32Array.of(0, 6, rows),
      labels,
    } as const;
    const compact = { ...small, shape: [5, vocab], offsets: Int32Array.of(0, 2, 5) } as const;
    expect(sequenceLogps(batch)).toStrictEqual(sequenceLogps(compact as never));
    const objective = dirAlignLoss('simpo', 2);
    const [large, expected] = [objective(batch), objective(compact as never)];
    expect(large.losses).toStrictEqual(expected.losses);
    expect(large.coefficients).toStrictEqual(expected.coefficients);
    const gradient = large.gradLogits as Uint16Array;
    const smallGradient = expected.gradLogits as unknown as Uint16Array;
    places.forEach((row, i) => {
      const found = gradient.subarray(row * vocab, (row + 1) * vocab);
      expect(
        sameBits(found, smallGradient.subarray(i * vocab, (i + 1) * vocab)),
        `row ${String(row)}`,
      ).toBe(true);
    });
    expect(gradient[(rows - 2) * vocab]).toBe(0);
  });
});

describe('values', () => {
  const random = generator(99);
  const noise = (length: number, scale = 1): Float32Array =>
    Float32Array.from({ length }, () => scale * normal(random));

  test.each([1e4, 65_504, 1e12, 3e38])('logits of +-%d', (size) => {
    const misses = new Misses();
    for (const dtype of dtypes) {
      if (dtype === 'float16' && size > 65_504) continue;
      const logits = noise(1100).map((x, v) => (v % 7 === 3 ? size : v % 7 === 4 ? -size : x));
      for (const label of [3, 4, 5, 1099]) {
        // dpo's loss of a log-probability of -1e38 is that large, too; finite differences of it are
        // not asked for.
        checkModes(
          misses,
          `${dtype} label ${String(label)}`,
          rowsOf([logits, noise(1100)], [label, 2], dtype),
        );
      }
    }
    expect(misses.list).toEqual([]);
  });

  // As an attention or vocabulary mask leaves them.
  test.each([-3.4028234663852886e38, -1e30, -Infinity])(
    'columns masked with %d have probability 0',
    (mask) => {
      const misses = new Misses();
      const values = noise(1200);
      for (const dtype of ['float32', 'bfloat16'] as const) {
        const masked = values.map((x, v) => (v % 3 === 0 || v > 1000 ? mask : x));
        const batch = rowsOf([masked, masked], [1, 998], dtype);
        checkModes(misses, dtype, batch);
        const gradient = dirAlignLoss('dpo', 0.1)(batch).gradLogits as Float32Array;
        for (let v = 0; v < 1200; v += 3) expect(Math.abs(at(gradient, v))).toBe(0);
      }
      expect(misses.list).toEqual([]);
    },
  );

  // The reference point of the sums starts with the first block, and must move.
  const starts: [string, (v: number) => number][] = [
    ['-inf', () => -Infinity],
    ['the smallest float', () => -3.4028234663852886e38],
    ['-1e30', () => -1e30],
    ['-1000', () => -1000],
    ['-90', () => -90],
    ['-inf but for one', (v) => (v === 77 ? -3 : -Infinity)],
  ];
  test.each(starts)('a first block of %s, the maximum later', (_, first) => {
    const misses = new Misses();
    for (const dtype of ['float32', 'bfloat16'] as const) {
      for (const blocks of [1, 2, 5]) {
        const logits = noise(3700).map((x, v) =>
          v < 512 * blocks ? first(v) : v === 3333 ? 9 : x,
        );
        for (const label of [77, 512 * blocks, 3333, 3699]) {
          if (first(label) < -100 && label < 512 * blocks) continue;
          checkModes(
            misses,
            `${dtype} ${String(blocks)} blocks, label ${String(label)}`,
            rowsOf([logits, logits], [label, 3698], dtype),
          );
        }
      }
    }
    expect(misses.list).toEqual([]);
  });

  test.each([3.9, 4.1, 5, 20, 90, 1e4])(
    'maxima that rise by %d from block to block, and fall',
    (step) => {
      const misses = new Misses();
      for (const [what, level] of [
        ['rising', (block: number) => step * block],
        ['falling', (block: number) => -step * block],
        ['up and down', (block: number) => step * (block % 2 === 0 ? block : -block)],
      ] as const) {
        const logits = noise(5000).map((x, v) => x + level(Math.floor(v / 512)));
        for (const label of [0, 2600, 4999])
          checkModes(
            misses,
            `${what}, label ${String(label)}`,
            rowsOf([logits, logits], [label, 600]),
          );
        const tokens = tokenLogps(rowsOf([logits, logits], [0, 0]));
        misses.require(
          at(tokens.entropy, 0) >= -1e-7,
          `${what}: an entropy of ${String(tokens.entropy[0])}`,
        );
      }
      expect(misses.list).toEqual([]);
    },
  );

  test('denormal logits are 0 to a softmax', () => {
    const misses = new Misses();
    for (const dtype of dtypes) {
      const tiny = dtype === 'float16' ? 6e-8 : 1e-40;
      const logits = Float32Array.from({ length: 600 }, (_, v) => (v % 2 ? tiny : -tiny));
      checkModes(misses, dtype, rowsOf([logits, logits], [5, 6], dtype));
    }
    expect(misses.list).toEqual([]);
  });

  test('certainty: log p is 0 or below, and odds stay finite', () => {
    const sure = Float32Array.from({ length: 700 }, (_, v) => (v === 600 ? 1000 : 0));
    const nearly = (gap: number): Float32Array =>
      Float32Array.from({ length: 700 }, (_, v) => (v === 600 ? gap : -gap));
    for (const method of everyMethod) {
      for (const beta of [0.001, 0.5, 1, 2]) {
        const config: ReferenceConfig = { method, ...(method === 'sft' ? {} : { beta }) };
        const batch = rowsOf([sure, nearly(15), nearly(40), sure], [600, 600, 600, 600]);
        for (const [mode, options] of modes) {
          const what = `${method} ${String(beta)} ${mode}`;
          const result = objectiveOf(config)(copyOf(batch), options);
          expect(result.losses.every(Number.isFinite), what).toBe(true);
          expect(result.coefficients.every(Number.isFinite), what).toBe(true);
          expect(
            result.logps.every((x) => x <= 0),
            what,
          ).toBe(true);
          expect(result.logps[0], what).toBe(0);
          if (result.gradLogits)
            expect((result.gradLogits as Float32Array).every(Number.isFinite), what).toBe(true);
          expect(result.metrics.nonfinite, what).toBe(0);
        }
      }
    }
    // Digits near certainty: 1 - p = 699 e^-30.
    const rest = 699 * Math.exp(-30);
    const { logps } = tokenLogps(rowsOf([nearly(15), sure], [600, 600]));
    expect(Math.abs(at(logps, 0) / -rest - 1)).toBeLessThan(1e-6);
  });

  test('temperatures of 1e-8 and 1e8', () => {
    const misses = new Misses();
    const batch = randomBatch({ seed: 4, sequences: 6, tokens: 3, vocab: 20 });
    for (const method of everyMethod.filter((m) => m !== 'sft')) {
      for (const beta of [1e-8, 1e8]) {
        const config: ReferenceConfig = { method, beta };
        const result = objectiveOf(config)(batch);
        if (result.losses.every(Number.isFinite))
          checkWithin(misses, `${method} ${String(beta)}`, config, batch, result);
        else
          expect([
            method,
            beta,
            referenceLoss(config, batch).losses.every(Number.isFinite),
          ]).toEqual([method, beta, false]);
      }
    }
    expect(misses.list).toEqual([]);
  });
});

describe('not a number', () => {
  const [pairs, tokens, vocab] = [3, 4, 700];
  const sizes = { sequences: 2 * pairs, tokens, vocab, ignored: 0.3 };
  const bitsOf: Record<Dtype, Record<string, number>> = {
    float32: {
      NaN: 0x7fc00000,
      'a NaN of payload 1': 0x7f800001,
      'a negative NaN': 0xffffffff,
      'a signalling NaN': 0xffa00000,
      '+inf': 0x7f800000,
    },
    float16: {
      NaN: 0x7e00,
      'a NaN of payload 1': 0x7c01,
      'a negative NaN': 0xffff,
      '+inf': 0x7c00,
    },
    bfloat16: {
      NaN: 0x7fc0,
      'a NaN of payload 1': 0x7f81,
      'a negative NaN': 0xffff,
      '+inf': 0x7f80,
    },
  };
  const rawBits = (batch: HostBatch): Uint32Array | Uint16Array =>
    batch.logits instanceof Float32Array ? new Uint32Array(batch.logits.buffer) : batch.logits;
  const kinds = dtypes.flatMap((dtype) =>
    Object.keys(bitsOf[dtype]).map((name) => [dtype, name] as const),
  );

  /** Places in a scored row of sequence b. */
  const poison = (
    batch: HostBatch,
    b: number,
    column: (label: number) => number,
    bits: number,
  ): HostBatch => {
    const copy = copyOf(batch);
    const row = b * tokens + batch.labels.subarray(b * tokens).findIndex((label) => label !== -100);
    rawBits(copy)[row * vocab + column(at(batch.labels, row))] = bits;
    return copy;
  };

  /** Pair 1 has no number; of the others every bit is what it was. */
  const expectContained = (
    what: string,
    result: LossResult,
    clean: LossResult,
    lossOfPair: (x: number) => boolean,
  ): void => {
    expect(result.losses[1], what).toSatisfy(lossOfPair);
    expect(result.metrics.nonfinite, what).toBe(1);
    for (const pair of [0, 2]) {
      expect(result.losses[pair], what).toBe(clean.losses[pair]);
      for (const b of [pair, pair + pairs]) {
        expect([result.logps[b], result.rewards[b], result.coefficients[b]], what).toEqual([
          clean.logps[b],
          clean.rewards[b],
          clean.coefficients[b],
        ]);
        if (!result.gradLogits) continue;
        const part = (r: LossResult): Float32Array =>
          (r.gradLogits as Float32Array).slice(b * tokens * vocab, (b + 1) * tokens * vocab);
        expect(
          sameBits(part(result), part(clean)),
          `${what}: gradient of sequence ${String(b)}`,
        ).toBe(true);
      }
    }
    // Ignored rows of the pair itself stay 0.
    if (!result.gradLogits) return;
    const gradient = present(result.gradLogits) as Float32Array;
    clean.counts.forEach((_, b) => {
      for (let t = 0; t < tokens; t++) {
        const row = b * tokens + t;
        if (at(ignoredRows, row) === -100)
          expect(
            gradient.subarray(row * vocab, (row + 1) * vocab).every((x) => Object.is(x, 0)),
            what,
          ).toBe(true);
      }
    });
  };
  let ignoredRows = new Int32Array();

  test.each(kinds)('%s: %s in a scored row makes its pair NaN, and no other', (dtype, name) => {
    const batch = randomBatch({ seed: 17, ...sizes, dtype });
    ignoredRows = batch.labels as Int32Array<ArrayBuffer>;
    const columns: [string, (label: number) => number][] = [
      ['the label', (label) => label],
      ['the first', (label) => (label === 0 ? 1 : 0)],
      ['the last', (label) => (label === vocab - 1 ? vocab - 2 : vocab - 1)],
    ];
    for (const method of everyMethod.filter((m) => m !== 'sft' && !coupled.includes(m))) {
      const objective = objectiveOf({ method, beta: 0.3, sftWeight: method === 'dpo' ? 1 : 0 });
      for (const [mode, options] of modes) {
        const clean = objective(copyOf(batch), options);
        expect(clean.metrics.nonfinite).toBe(0);
        for (const [where, column] of columns) {
          for (const b of [1, 1 + pairs]) {
            const bad = poison(
              batch,
              b,
              column,
              at(Object.values(bitsOf[dtype]), Object.keys(bitsOf[dtype]).indexOf(name)),
            );
            const what = `${method} ${mode}, ${name} at ${where} of sequence ${String(b)}`;
            const result = objective(bad, options);
            expectContained(what, result, clean, Number.isNaN);
            expect(result.loss, what).toBeNaN();
          }
        }
      }
    }
  });

  test.each(kinds)('%s: %s in an ignored row is nothing', (dtype, name) => {
    const batch = randomBatch({ seed: 18, ...sizes, dtype });
    const bits = at(Object.values(bitsOf[dtype]), Object.keys(bitsOf[dtype]).indexOf(name));
    const bad = copyOf(batch);
    batch.labels.forEach((label, row) => {
      if (label === -100) rawBits(bad).fill(bits, row * vocab, (row + 1) * vocab);
    });
    for (const method of everyMethod.filter((m) => m !== 'sft')) {
      for (const [mode, options] of modes) {
        const objective = objectiveOf({ method, beta: 0.3 });
        const [result, clean] = [
          objective(copyOf(bad), options),
          objective(copyOf(batch), options),
        ];
        expect(result.losses, `${method} ${mode}`).toStrictEqual(clean.losses);
        expect(result.metrics).toStrictEqual(clean.metrics);
        if (clean.gradLogits)
          expect(sameBits(present(result.gradLogits), clean.gradLogits), `${method} ${mode}`).toBe(
            true,
          );
      }
    }
  });

  test('a row of nothing but -inf has no softmax: NaN', () => {
    const batch = randomBatch({ seed: 19, ...sizes });
    ignoredRows = batch.labels as Int32Array<ArrayBuffer>;
    for (const b of [1, 1 + pairs]) {
      const row =
        b * tokens + batch.labels.subarray(b * tokens).findIndex((label) => label !== -100);
      for (const [mode, options] of modes) {
        const clean = dirAlignLoss('dpo', 0.3)(copyOf(batch), options);
        const bad = copyOf(batch);
        bad.logits.fill(-Infinity, row * vocab, (row + 1) * vocab);
        const result = dirAlignLoss('dpo', 0.3)(bad, options);
        expectContained(mode, result, clean, Number.isNaN);
        const found = (result.gradLogits as Float32Array | undefined)?.subarray(
          row * vocab,
          (row + 1) * vocab,
        );
        expect(found?.every(Number.isNaN) ?? true, mode).toBe(true);
      }
    }
  });

  test('a label of -inf has probability 0: log p is -inf, and so says the pair', () => {
    const batch = randomBatch({ seed: 20, ...sizes });
    ignoredRows = batch.labels as Int32Array<ArrayBuffer>;
    for (const [b, loss] of [
      [1, Infinity],
      [1 + pairs, 0],
    ] as const) {
      const bad = poison(batch, b, (label) => label, 0xff800000);
      for (const [mode, options] of modes) {
        const clean = dirAlignLoss('dpo', 0.3)(copyOf(batch), options);
        const result = dirAlignLoss('dpo', 0.3)(copyOf(bad), options);
        expect(result.logps[b]).toBe(-Infinity);
        expectContained(mode, result, clean, (x) => x === loss);
        // Its gradient is that of any other label: the coefficient times onehot - softmax.
        if (mode === 'none') continue;
        expect((result.gradLogits as Float32Array).every(Number.isFinite), mode).toBe(true);
        const slope = b === 1 ? -0.3 / pairs : 0;
        expect(result.coefficients[b]).toBeCloseTo(slope, 15);
        const row =
          b * tokens + batch.labels.subarray(b * tokens).findIndex((label) => label !== -100);
        const place = row * vocab + at(batch.labels, row);
        const value =
          at(result.gradLogits as Float32Array, place) *
          (result.rowScale ? at(result.rowScale, row) : 1);
        expect(Math.abs(value - slope), mode).toBeLessThanOrEqual(1e-7 * Math.abs(slope));
      }
    }
  });

  test('sft and the coupled methods say so, too', () => {
    const batch = poison(randomBatch({ seed: 21, ...sizes }), 1, () => 3, 0x7fc00000);
    for (const method of ['sft', ...coupled] as const) {
      const result = objectiveOf({ method, ...(method === 'sft' ? {} : { beta: 0.3 }) })(batch);
      expect(result.loss, method).toBeNaN();
      expect(result.metrics.nonfinite, method).toBeGreaterThanOrEqual(1);
      expect(result.logps.filter(Number.isNaN), method).toHaveLength(1);
    }
  });

  test('tokenLogps: NaN in its row, and no other', () => {
    const batch = randomBatch({ seed: 22, ...sizes });
    const [clean, found] = [tokenLogps(batch), tokenLogps(poison(batch, 1, () => 3, 0x7f800001))];
    for (const key of ['logps', 'logsumexp', 'entropy'] as const) {
      const changed = Array.from(found[key], (x, row) =>
        Object.is(x, clean[key][row]) ? -1 : row,
      ).filter((row) => row >= 0);
      expect(changed, key).toHaveLength(1);
      expect(found[key][at(changed, 0)]).toBeNaN();
    }
  });

  test('fromLogps: NaN and -inf stay in their pair', () => {
    const counts = Int32Array.of(2, 2, 2, 2);
    const reference = Float64Array.of(-3, -3, -3, -3);
    for (const method of everyMethod.filter((m) => m !== 'sft' && !coupled.includes(m))) {
      const objective = objectiveOf({ method, beta: 0.3 });
      const clean = objective.fromLogps({
        logps: Float64Array.of(-1, -2, -3, -4),
        counts,
        reference,
      });
      const bad = objective.fromLogps({
        logps: Float64Array.of(-1, NaN, -3, -4),
        counts,
        reference,
      });
      expect(bad.losses[0], method).toBe(clean.losses[0]);
      expect([bad.gradLogps[0], bad.gradLogps[2]], method).toEqual([
        clean.gradLogps[0],
        clean.gradLogps[2],
      ]);
      expect(bad.losses[1], method).toBeNaN();
      expect(bad.metrics.nonfinite, method).toBe(1);
    }
  });

  test('the loss of a finite batch is finite', () => {
    const result = dirAlignLoss('dpo', 0.1)(randomBatch({ seed: 23, ...sizes }));
    expect(Math.abs(result.loss - Math.LN2)).toBeLessThan(lossBound(1) * 1e6);
    expect(result.metrics.nonfinite).toBe(0);
  });
});

describe('sequences without a scored token, from log-probabilities', () => {
  test('have log-probability 0; another contradicts the count and is refused', () => {
    const zero = {
      logps: Float64Array.of(0, -2),
      counts: Int32Array.of(0, 2),
      reference: Float64Array.of(-1, -2),
    };
    for (const options of [{ sftWeight: 1 }, { sftWeight: 1, sftReduction: 'token' as const }]) {
      const objective = dirAlignLoss('dpo', 0.1, false, options);
      expect(objective.fromLogps(zero).metrics.nll_loss).toBe(0);
      for (const logp of [-3, NaN, -Infinity, Number.MIN_VALUE]) {
        const refuse = (): unknown =>
          objective.fromLogps({ ...zero, logps: Float64Array.of(logp, -2) });
        expect(refuse).toThrow(expect.objectContaining({ code: 'ERR_DIRALIGN_SHAPE' }));
        expect(refuse).toThrow(/counts: 0 at index 0 .*logps\[0\]/);
      }
    }
  });
});

describe('batch-coupled objectives with a NaN', () => {
  test.each(['aot', 'aot_unpaired'] as const)('%s counts the pair, not the ranks', (method) => {
    const logps = Float64Array.of(NaN, -2, -3, -4);
    const batch = {
      logps,
      counts: Int32Array.of(1, 1, 1, 1),
      reference: Float64Array.of(-1, -1, -1, -1),
    };
    expect(dirAlignLoss(method, 0.1).fromLogps(batch).metrics.nonfinite).toBe(1);
  });
});
