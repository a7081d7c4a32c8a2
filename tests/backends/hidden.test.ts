// The output layer fused with the loss: against the reference cases, against float64, and against
// itself in every other way it can be computed.
import { describe, expect, test } from 'vitest';
import { type ReferenceConfig } from '../../ts/verification/reference.js';
import { Tally, type Miss } from '../../ts/verification/verification.js';
import { prepareHidden } from '../../ts/verification/hidden.js';
import { everyConfig, objectiveOf, type Dtype } from '../support/batches.js';
import { Misses } from '../support/bounds.js';
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
import { present } from '../support/numbers.js';

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
