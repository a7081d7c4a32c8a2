// The output layer fused with the loss: against the reference cases, against float64, and against
// itself in every other way it can be computed.
import { describe, expect, test } from 'vitest';
import type { Method } from '../../ts/index.js';
import {
  finiteDifference,
  referenceLayer,
  referenceLoss,
  type ReferenceConfig,
} from '../../ts/verification/reference.js';
import { lossBound, Tally, type Miss } from '../../ts/verification/verification.js';
import { prepareHidden } from '../../ts/verification/hidden.js';
import { everyConfig, objectiveOf, type Dtype } from '../support/batches.js';
import { gradientBound, logpBound, Misses } from '../support/bounds.js';
import {
  checkLayerCase,
  checkStages,
  gradients,
  layerBatch,
  loadLayerCases,
  memories,
  randomHidden,
  sameValues,
} from '../support/hidden.js';
import { at, present } from '../support/numbers.js';

/** Throws what a tally found, with where. */
function within(what: string, check: (tally: Tally) => void): void {
  const tally = new Tally();
  check(tally);
  expect(tally.misses.map((miss: Miss) => ({ of: what, ...miss }))).toEqual([]);
}

const dpo: ReferenceConfig = { method: 'dpo', beta: 0.1 };

describe('the reference cases', () => {
  const cases = loadLayerCases();
  test('there are 35 of them', () => {
    expect(new Set(cases.map(({ id }) => id)).size).toBe(35);
  });

  test.each(cases.map((c) => [c.id, c] as const))('%s', (id, c) => {
    const batch = layerBatch(c);
    for (const memory of [undefined, ...memories(batch, c.call, [0, 1.5, 4, 9, 30])]) {
      const misses = new Misses();
      const what = `${id}, memory ${String(memory)}`;
      const result = objectiveOf(c.call).fromHidden(batch, memory === undefined ? {} : { memory });
      checkLayerCase(misses, what, c, result);
      expect(misses.list).toEqual([]);
    }
  });
});

describe('every method with every option', () => {
  const batch = randomHidden({ seed: 11, sequences: 6, tokens: 5, vocab: 13, size: 6 });
  const prepared = prepareHidden(batch);
  const prompted = {
    ...batch,
    sftLabels: batch.labels.map((label, row) => (row % 5 < 2 && label !== -100 ? row % 13 : label)),
  };
  const preparedPrompt = prepareHidden(prompted);
  // A pair of many rows: with room for most of them its coefficients come last, and with little its
  // logits are computed again.
  const long = randomHidden({
    seed: 13,
    sequences: 4,
    tokens: 60,
    vocab: 3,
    size: 3,
    scale: 0.5,
    ignored: 0.1,
  });
  const preparedLong = prepareHidden(long);
  test.each(everyConfig().map((config) => [JSON.stringify(config), config] as const))(
    '%s',
    (name, config) => {
      const objective = objectiveOf(config);
      // Whole pairs, and pairs that have to be computed again, or whose coefficients come last.
      const whole = objective.fromHidden(batch);
      within(name, (tally) => {
        checkStages(tally, config, prepared, whole);
      });
      for (const memory of memories(batch, config, [0, 4])) {
        const cut = objective.fromHidden(batch, { memory });
        within(`${name}, memory ${memory}`, (tally) => {
          checkStages(tally, config, prepared, cut);
        });
        sameValues(cut, whole, `${name}, memory ${memory}`);
      }
      const longWhole = objective.fromHidden(long);
      for (const memory of memories(long, config, [0, 96, 100])) {
        const cut = objective.fromHidden(long, { memory });
        within(`${name}, long, memory ${memory}`, (tally) => {
          checkStages(tally, config, preparedLong, cut);
        });
        sameValues(cut, longWhole, `${name}, long, memory ${memory}`);
      }
      if (config.method === 'sft') return;
      within(`${name}, sftLabels`, (tally) => {
        checkStages(tally, config, preparedPrompt, objective.fromHidden(prompted));
      });
    },
  );
});

describe('the logits path', () => {
  // Logits of the layer in float64, rounded to float32: what a trainer without the fusion has.
  const methods: readonly Method[] = ['sft', 'dpo', 'simpo', 'orpo', 'cal_dpo', 'aot'];
  test.each(methods)('%s: the same values, and gradients that follow from its own', (method) => {
    const config = { method, ...(method !== 'sft' && { beta: 0.4 }) };
    const batch = randomHidden({ seed: 12, sequences: 4, tokens: 9, vocab: 129, size: 24 });
    const layer = referenceLayer(batch);
    const { hiddenSize, hidden, weight } = layer;
    const objective = objectiveOf(config);
    const unfused = objective({ ...layer.batch, logits: Float32Array.from(layer.batch.logits) });
    const fused = objective.fromHidden(batch);
    const misses = new Misses();
    misses.near('loss', fused.loss, unfused.loss, 2 * lossBound(unfused.loss));
    misses.each(
      'logps',
      fused.logps,
      unfused.logps,
      (x, b) => 2 * logpBound(x, at(unfused.counts, b)),
    );
    const [value, size] = [new Float64Array(hidden.length), new Float64Array(hidden.length)];
    present(unfused.gradLogits).forEach((g, i) => {
      const [row, v] = [Math.floor(i / 129), i % 129];
      for (let k = 0; k < hiddenSize && layer.isScored(row); k++) {
        const term = g * at(weight, v * hiddenSize + k);
        value[row * hiddenSize + k] = at(value, row * hiddenSize + k) + term;
        size[row * hiddenSize + k] = at(size, row * hiddenSize + k) + Math.abs(term);
      }
    });
    misses.each(
      'gradHidden',
      present(fused.gradHidden),
      value,
      (_, i) => 2 * gradientBound(at(size, i), 0),
    );
    expect(misses.list).toEqual([]);
  });
});

describe('shapes that are no multiples of any block', () => {
  const shapes = [
    ...[1, 2, 7, 31, 33, 513].flatMap((vocab) =>
      [1, 3, 16, 17, 65].map((size) => ({ vocab, size, tokens: 7 })),
    ),
    ...[513, 1025].map((size) => ({ vocab: 33, size, tokens: 5 })),
    { vocab: 8191, size: 17, tokens: 3 },
    { vocab: 513, size: 513, tokens: 3 },
    ...[1, 2, 35, 70].map((tokens) => ({ vocab: 31, size: 17, tokens })),
    { vocab: 33, size: 3, tokens: 70 },
    { vocab: 129, size: 65, tokens: 70 },
  ];
  test.each(shapes)('vocab $vocab, size $size, tokens $tokens', ({ vocab, size, tokens }) => {
    const batch = randomHidden({
      seed: vocab + size,
      sequences: 4,
      tokens,
      vocab,
      size,
      ignored: 0.2,
      bias: size % 3 > 0,
    });
    const prepared = prepareHidden(batch);
    // Coefficients that differ in their sign alone, and in more.
    for (const config of [dpo, { method: 'asft', beta: 0.5 }] as const) {
      const objective = objectiveOf(config);
      const whole = objective.fromHidden(batch);
      within('whole', (tally) => {
        checkStages(tally, config, prepared, whole);
      });
      // One row; a few; most of a pair, where its coefficients may come last; a pair and not two.
      for (const memory of memories(batch, config, [0, 3, tokens, 1.6 * tokens, 2.5 * tokens])) {
        const cut = objective.fromHidden(batch, { memory });
        expect(cut.memory).toBeLessThanOrEqual(memory);
        within(`memory ${memory}`, (tally) => {
          checkStages(tally, config, prepared, cut);
        });
        sameValues(cut, whole, `memory ${memory}`);
      }
    }
  });
});

describe.each(['float16', 'bfloat16'] as const)('%s', (dtype: Dtype) => {
  // The bound is layerPrecision of ts/verification/hidden.ts: in bfloat16, residuals rounded once
  // on their way into the products.
  const shapes = [
    { vocab: 1, size: 1, tokens: 2 },
    { vocab: 7, size: 3, tokens: 5 },
    { vocab: 33, size: 17, tokens: 9 },
    { vocab: 513, size: 65, tokens: 6 },
    { vocab: 31, size: 1025, tokens: 4 },
    { vocab: 33, size: 3, tokens: 70 },
  ];
  test.each(shapes)('vocab $vocab, size $size, tokens $tokens', ({ vocab, size, tokens }) => {
    const batch = randomHidden({ seed: vocab + size, sequences: 4, tokens, vocab, size, dtype });
    const prepared = prepareHidden(batch);
    for (const config of [
      dpo,
      { method: 'simpo', beta: 2 },
      { method: 'asft', beta: 0.5 },
    ] as const) {
      const whole = objectiveOf(config).fromHidden(batch);
      expect(whole.gradHidden).toBeInstanceOf(Uint16Array);
      expect(whole.gradWeight).toBeInstanceOf(Float32Array);
      for (const memory of [2 ** 28, ...memories(batch, config, [0, 3, 1.6 * tokens])]) {
        const result = objectiveOf(config).fromHidden(batch, { memory });
        within(`memory ${memory}`, (tally) => {
          checkStages(tally, config, prepared, result);
        });
        sameValues(result, whole, `memory ${memory}`);
      }
    }
  });
});

describe('finite differences of the float64 loss through the layer', () => {
  test.each([
    dpo,
    { method: 'orpo', beta: 0.5, sftWeight: 0.3 },
    { method: 'ipo', beta: 0.3 },
    { method: 'sft' },
  ] as const)('$method', (config) => {
    const batch = randomHidden({ seed: 21, sequences: 4, tokens: 3, vocab: 6, size: 4 });
    const result = objectiveOf(config).fromHidden(batch);
    const { hidden, weight, bias } = batch;
    const layer = referenceLayer(batch);
    const loss = (changed: {
      hidden?: Float64Array;
      weight?: Float64Array;
      bias?: Float64Array;
    }): number => {
      const h = changed.hidden ?? Float64Array.from(hidden);
      const w = changed.weight ?? Float64Array.from(weight);
      const b = changed.bias ?? Float64Array.from(present(bias));
      const logits = layer.batch.logits.map((x, i) => {
        const [row, v] = [Math.floor(i / 6), i % 6];
        let total = at(b, v);
        for (let k = 0; k < 4; k++) total += at(h, row * 4 + k) * at(w, v * 4 + k);
        return Number.isNaN(x) ? NaN : total;
      });
      return referenceLoss(config, { ...layer.batch, logits }).loss;
    };
    const misses = new Misses();
    const options = { bound: Infinity, levels: 8 };
    const compare = (
      name: (typeof gradients)[number],
      f: (x: Float64Array) => number,
      x: ArrayLike<number>,
    ): void => {
      const { gradient, error } = finiteDifference(
        f,
        Array.from(x, (value) => (Number.isNaN(value) ? 0 : value)),
        options,
      );
      const largest = gradient.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
      expect(largest).toBeGreaterThan(0);
      misses.each(
        name,
        present(result[name]),
        gradient,
        (slope, i) =>
          1e-5 * (Math.abs(slope) + 0.1 * largest) + 8 * Math.min(at(error, i), 1e-4 * largest),
      );
    };
    compare('gradHidden', (x) => loss({ hidden: x }), hidden);
    compare('gradWeight', (x) => loss({ weight: x }), weight);
    compare('gradBias', (x) => loss({ bias: x }), present(bias));
    expect(misses.list).toEqual([]);
  });
});

test('errors that are planted are found', () => {
  const batch = randomHidden({ seed: 22, sequences: 4, tokens: 6, vocab: 17, size: 5 });
  const prepared = prepareHidden(batch);
  const honest = objectiveOf(dpo).fromHidden(batch);
  const found = (result: typeof honest): readonly string[] => {
    const tally = new Tally();
    checkStages(tally, dpo, prepared, result);
    return tally.misses.map(({ what }) => what);
  };
  expect(found(honest)).toEqual([]);
  for (const name of gradients) {
    const gradient = present(honest[name]) as Float32Array;
    const largest = gradient.reduce(
      (at, x, i) => (Math.abs(x) > Math.abs(gradient[at] ?? 0) ? i : at),
      0,
    );
    const planted = (change: (x: number) => number) => ({
      ...honest,
      [name]: gradient.map((x, i) => (i === largest ? change(x) : x)),
    });
    for (const change of [(x: number) => 1.0001 * x, () => NaN, () => 0, (x: number) => -x]) {
      expect(found(planted(change)), name).toEqual([`${name}[${largest}]`]);
    }
    expect(
      found({ ...honest, [name]: gradient.map((x) => 1.0001 * x) }).length,
      name,
    ).toBeGreaterThan(1);
  }
  const ignored = batch.labels.indexOf(-100) * 5;
  const gradHidden = (present(honest.gradHidden) as Float32Array).map((x, i) =>
    i === ignored ? -0 : x,
  );
  expect(found({ ...honest, gradHidden })).toEqual([`gradHidden[${ignored}], of an ignored row`]);
  expect(found({ ...honest, logps: honest.logps.map((x) => x * 1.00001) }).length).toBeGreaterThan(
    0,
  );
});
