// What must hold of `fromHidden` whatever the numbers are: the same bits, nothing written that
// should not be, gradients that add up.
import { describe, expect, test } from 'vitest';
import { dirAlignLoss, sequenceLogps, tokenLogps } from '../../ts/index.js';
import type { HiddenRunOptions } from '../../ts/index.js';
import type { ReferenceConfig } from '../../ts/verification/reference.js';
import { Tally } from '../../ts/verification/verification.js';
import { prepareHidden } from '../../ts/verification/hidden.js';
import { dtypes, objectiveOf } from '../support/batches.js';
import { Misses } from '../support/bounds.js';
import {
  checkStages,
  gradients,
  leastMemory,
  memories,
  randomHidden,
  sameGradients,
  sameValues,
  type HostHidden,
} from '../support/hidden.js';
import { at, decodeHalf, present, sameBits } from '../support/numbers.js';

const dpo = dirAlignLoss('dpo', 0.1);
const dpoConfig: ReferenceConfig = { method: 'dpo', beta: 0.1 };

/** Enough multiplications for five threads. */
const wide = (dtype: (typeof dtypes)[number] = 'float32') =>
  randomHidden({ seed: 31, sequences: 4, tokens: 12, vocab: 2049, size: 129, dtype });

describe('the same bits', () => {
  test.each(dtypes)(
    '%s: whatever the threads, the memory allowing, and off the event loop',
    async (dtype) => {
      const batch = wide(dtype);
      for (const memory of [leastMemory(batch) + 60_000, 2 ** 23, 2 ** 28]) {
        const one = dpo.fromHidden(batch, { threads: 1, memory });
        for (const threads of [2, 5]) {
          const what = `${threads} threads, memory ${memory}`;
          const more = dpo.fromHidden(batch, { threads, memory });
          sameValues(more, one, what);
          sameGradients(more, one, what);
          const later = await dpo.fromHidden.async(batch, { threads, memory });
          sameValues(later, one, `${what}, async`);
          sameGradients(later, one, `${what}, async`);
        }
      }
    },
  );

  test('many at once, off the event loop', async () => {
    const batches = Array.from({ length: 40 }, (_, i) =>
      randomHidden({ seed: i + 1, sequences: 4, tokens: 3, vocab: 100 + i, size: 8 }),
    );
    const results = await Promise.all(
      batches.map((batch, i) => dpo.fromHidden.async(batch, { threads: 1 + (i % 3) })),
    );
    results.forEach((result, i) => {
      const expected = dpo.fromHidden(present(batches[i]));
      sameValues(result, expected, String(i));
      sameGradients(result, expected, String(i));
    });
  });

  test.each(dtypes)(
    '%s: log-probabilities of sequences and of tokens, with any memory',
    (dtype) => {
      const batch = randomHidden({
        seed: 32,
        sequences: 6,
        tokens: 9,
        vocab: 129,
        size: 17,
        dtype,
      });
      const { logps, counts } = dpo.fromHidden(batch);
      const tokens = tokenLogps(batch);
      for (const memory of [...memories(batch, dpoConfig, [0, 1, 3, 8, 20]), undefined]) {
        const options = memory === undefined ? {} : { memory };
        const sequence = sequenceLogps(batch, options);
        expect(sameBits(sequence.logps, logps)).toBe(true);
        expect(sameBits(sequence.counts, counts)).toBe(true);
        const again = tokenLogps(batch, { ...options, threads: 2 });
        for (const key of ['logps', 'logsumexp', 'entropy'] as const)
          expect(sameBits(again[key], tokens[key]), key).toBe(true);
        expect(sameBits(dpo.fromHidden(batch, { ...options, gradient: 'none' }).logps, logps)).toBe(
          true,
        );
      }
      // In row order, in float64.
      logps.forEach((logp, b) => {
        expect(tokens.logps.subarray(9 * b, 9 * b + 9).reduce((x, y) => x + y, 0)).toBeCloseTo(
          logp,
          10,
        );
      });
      // A policy that is its reference.
      const { loss } = dpo.fromHidden({ ...batch, reference: sequenceLogps(batch).logps });
      expect(loss).toBe(Math.LN2);
    },
  );

  test('at any alignment, in shared memory, packed, and with other numbers in ignored rows', () => {
    const batch = randomHidden({
      seed: 33,
      sequences: 4,
      tokens: 6,
      vocab: 67,
      size: 19,
    }) as HostHidden & {
      readonly hidden: Float32Array<ArrayBuffer>;
    };
    const expected = dpo.fromHidden(batch);
    for (const by of [1, 3]) {
      const shift = (array: Float32Array | Uint16Array | undefined): Float32Array<ArrayBuffer> => {
        const copy = new Float32Array(present(array).length + by).subarray(by);
        copy.set(present(array));
        return copy;
      };
      const moved = {
        ...batch,
        hidden: shift(batch.hidden),
        weight: shift(batch.weight),
        bias: shift(batch.bias),
      };
      const out = {
        gradHidden: shift(batch.hidden),
        gradWeight: shift(batch.weight),
        gradBias: shift(batch.bias),
      };
      const result = dpo.fromHidden(moved, { out });
      sameValues(result, expected, `at element ${by}`);
      sameGradients(result, expected, `at element ${by}`);
      for (const name of gradients) expect(result[name]).toBe(out[name]);
    }

    const share = (array: ArrayLike<number>): Float32Array<SharedArrayBuffer> => {
      const shared = new Float32Array(new SharedArrayBuffer(4 * array.length));
      shared.set(array);
      return shared;
    };
    const shared = dpo.fromHidden(
      {
        ...batch,
        hidden: share(batch.hidden),
        weight: share(batch.weight),
        bias: share(present(batch.bias)),
      },
      { out: { gradWeight: share(batch.weight) } },
    );
    sameValues(shared, expected, 'shared');
    sameGradients(shared, expected, 'shared');

    for (const filler of [0, Infinity, 1e30]) {
      const hidden = batch.hidden.map((x) => (Number.isNaN(x) ? filler : x));
      const other = dpo.fromHidden({ ...batch, hidden });
      sameValues(other, expected, `ignored rows of ${filler}`);
      sameGradients(other, expected, `ignored rows of ${filler}`);
    }

    const kept = Array.from(batch.labels.keys()).filter((row) => batch.labels[row] !== -100);
    const offsets = Int32Array.from(
      { length: 5 },
      (_, b) => kept.filter((row) => row < 6 * b).length,
    );
    const packed = dpo.fromHidden({
      ...batch,
      hidden: Float32Array.from(
        kept.flatMap((row) => Array.from(batch.hidden.subarray(row * 19, row * 19 + 19))),
      ),
      labels: Int32Array.from(kept, (row) => at(batch.labels, row)),
      shape: [kept.length, 67],
      offsets,
    });
    sameValues(packed, expected, 'packed');
    const unpacked = new Float32Array(batch.hidden.length);
    kept.forEach((row, i) => {
      unpacked.set(present(packed.gradHidden).subarray(19 * i, 19 * i + 19), 19 * row);
    });
    sameGradients({ ...packed, gradHidden: unpacked }, expected, 'packed');
  });

  test('tied and frozen weights, and gradients that are left out', () => {
    const batch = wide();
    const expected = dpo.fromHidden(batch);
    expect(expected.memory).toBeLessThanOrEqual(2 ** 28);
    for (const name of gradients) {
      const result = dpo.fromHidden(batch, { out: { [name]: false } });
      sameValues(result, expected, `without ${name}`);
      expect(Object.keys(result)).not.toContain(name);
      sameGradients({ ...result, [name]: expected[name] }, expected, `without ${name}`);
    }
    const none = dpo.fromHidden(batch, { gradient: 'none' });
    sameValues(none, expected, 'none');
    for (const name of gradients) expect(Object.keys(none)).not.toContain(name);
    const unbiased = Object.fromEntries(
      Object.entries(batch).filter(([key]) => key !== 'bias'),
    ) as unknown as HostHidden;
    expect(Object.keys(dpo.fromHidden(unbiased))).not.toContain('gradBias');
    // Hidden states that are rows of the weight itself, in one buffer.
    const tied = { ...batch, hidden: batch.weight.subarray(0, batch.hidden.length) };
    const copied = { ...batch, hidden: batch.weight.slice(0, batch.hidden.length) };
    sameGradients(dpo.fromHidden(tied), dpo.fromHidden(copied), 'tied');
  });

  test('nothing is written but what was asked for, and all of that', () => {
    for (const dtype of dtypes) {
      const batch = randomHidden({ seed: 34, sequences: 4, tokens: 6, vocab: 67, size: 19, dtype });
      const before = [batch.hidden, batch.weight, present(batch.bias), batch.labels].map((array) =>
        array.slice(),
      );
      const expected = dpo.fromHidden(batch);
      for (const memory of memories(batch, dpoConfig, [0, 5, 40])) {
        const out = {
          gradHidden: (batch.hidden.slice() as Float32Array).fill(
            dtype === 'float32' ? NaN : 0x7fff,
          ) as typeof batch.hidden,
          gradWeight: new Float32Array(batch.weight.length).fill(NaN),
          gradBias: new Float32Array(67).fill(NaN),
        };
        sameGradients(
          dpo.fromHidden(batch, { out, memory }),
          dpo.fromHidden(batch, { memory }),
          `memory ${memory}`,
        );
        for (const accumulate of [false, []]) dpo.fromHidden(batch, { out, memory, accumulate });
        sameValues(dpo.fromHidden(batch, { memory }), expected, `memory ${memory}`);
      }
      [batch.hidden, batch.weight, present(batch.bias), batch.labels].forEach((array, i) => {
        expect(sameBits(array, present(before[i]))).toBe(true);
      });
    }
  });

  test('a pair has the numbers it has alone', () => {
    const batch = randomHidden({ seed: 35, sequences: 6, tokens: 5, vocab: 131, size: 23 });
    const all = dpo.fromHidden(batch);
    for (let pair = 0; pair < 3; pair++) {
      const alone = dpo.fromHidden(sequencesOf(batch, [pair, pair + 3]));
      expect(alone.loss).toBe(all.losses[pair]);
      expect(Array.from(alone.logps)).toEqual([all.logps[pair], all.logps[pair + 3]]);
    }
  });
});

/** Some sequences of a padded batch. */
function sequencesOf(batch: HostHidden, which: readonly number[]): HostHidden {
  const [, tokens = 0, vocab = 0] = batch.shape;
  const size = batch.weight.length / vocab;
  const pick = <A extends Float32Array | Uint16Array | Int32Array>(
    array: A,
    rowLength: number,
  ): A => {
    const length = tokens * rowLength;
    const result = array.slice(0, which.length * length);
    which.forEach((from, to) => {
      result.set(array.subarray(from * length, (from + 1) * length), to * length);
    });
    return result as A;
  };
  return {
    ...batch,
    hidden: pick(batch.hidden, size),
    labels: pick(batch.labels, 1),
    ...(batch.sftLabels && { sftLabels: pick(batch.sftLabels, 1) }),
    shape: [which.length, tokens, vocab],
    reference: Float64Array.from(which, (b) => at(batch.reference, b)),
  };
}

describe('accumulate', () => {
  const values = (
    array: ArrayLike<number> | undefined,
    dtype: (typeof dtypes)[number],
  ): Float64Array =>
    dtype === 'float32' ? Float64Array.from(present(array)) : decodeHalf(present(array), dtype);

  test.each(dtypes)('%s: two half batches are one batch', (dtype) => {
    const batch = randomHidden({ seed: 41, sequences: 8, tokens: 5, vocab: 67, size: 19, dtype });
    for (const config of [dpoConfig, { method: 'asft', beta: 0.5 }] as const) {
      const objective = objectiveOf(config);
      for (const memory of [2 ** 28, ...memories(batch, config, [0, 6])]) {
        const whole = objective.fromHidden(batch, { memory });
        const out = {
          gradWeight: new Float32Array(batch.weight.length),
          gradBias: new Float32Array(67),
        };
        for (const half of [
          [0, 1, 4, 5],
          [2, 3, 6, 7],
        ]) {
          const part = objective.fromHidden(sequencesOf(batch, half), {
            out,
            accumulate: true,
            memory,
          });
          expect(part.gradWeight).toBe(out.gradWeight);
        }
        // Of two pairs the mean is over two.
        for (const name of ['gradWeight', 'gradBias'] as const) {
          const expected = present(whole[name]);
          const largest = expected.reduce((x, y) => Math.max(x, Math.abs(y)), 0);
          expected.forEach((x, i) => {
            const slack = dtype === 'float32' ? 2e-6 : 2 ** -7;
            expect(Math.abs(at(out[name], i) / 2 - x)).toBeLessThanOrEqual(slack * largest);
          });
        }
      }
    }
  });

  test.each(dtypes)(
    '%s: adds to what is there, by name, and leaves ignored rows as they are',
    (dtype) => {
      const batch = randomHidden({ seed: 42, sequences: 4, tokens: 6, vocab: 67, size: 19, dtype });
      for (const memory of [2 ** 28, ...memories(batch, dpoConfig, [0, 4])]) {
        const fresh = dpo.fromHidden(batch, { memory });
        const initial = (length: number): Float32Array<ArrayBuffer> =>
          Float32Array.from({ length }, (_, i) => 0.25 + (i % 7) / 8);
        const start = {
          gradHidden:
            dtype === 'float32'
              ? initial(batch.hidden.length)
              : new Uint16Array(batch.hidden.length).fill(dtype === 'float16' ? 0x3800 : 0x3f00),
          gradWeight: initial(batch.weight.length),
          gradBias: initial(67),
        };
        for (const names of [['gradHidden'], ['gradWeight', 'gradBias'], ['gradBias']] as const) {
          const out = {
            gradHidden: start.gradHidden.slice(),
            gradWeight: start.gradWeight.slice(),
            gradBias: start.gradBias.slice(),
          } as {
            gradHidden: typeof batch.hidden;
            gradWeight: Float32Array;
            gradBias: Float32Array;
          };
          const result = dpo.fromHidden(batch, { out, accumulate: names, memory });
          for (const name of gradients) {
            const of = name === 'gradHidden' ? dtype : 'float32';
            const [got, added, had] = [result[name], fresh[name], start[name]].map((array) =>
              values(array, of),
            ) as [Float64Array, Float64Array, Float64Array];
            if (!(names as readonly string[]).includes(name)) {
              expect(
                sameBits(present(result[name]), present(fresh[name])),
                `${name} overwritten`,
              ).toBe(true);
              continue;
            }
            // Every chunk of rows is one more rounding.
            const precision = of === 'float32' ? 2 ** -20 : of === 'float16' ? 2 ** -10 : 2 ** -7;
            got.forEach((x, i) => {
              const expected = at(had, i) + at(added, i);
              expect(Math.abs(x - expected), `${name}[${i}]`).toBeLessThanOrEqual(
                precision * (Math.abs(at(had, i)) + Math.abs(at(added, i))),
              );
            });
            if (name !== 'gradHidden') continue;
            batch.labels.forEach((label, row) => {
              if (label !== -100) return;
              expect(
                sameBits(
                  out.gradHidden.slice(19 * row, 19 * row + 19),
                  start.gradHidden.slice(19 * row, 19 * row + 19),
                ),
              ).toBe(true);
            });
          }
        }
      }
    },
  );
});

describe('edges', () => {
  test.each(dtypes)('%s: sequences without a scored row, and none with one', (dtype) => {
    const batch = randomHidden({ seed: 51, sequences: 6, tokens: 4, vocab: 33, size: 9, dtype });
    const labels = batch.labels.slice();
    labels.fill(-100, 4, 8); // a chosen one
    labels.fill(-100, 8, 12); // and a pair
    labels.fill(-100, 20, 24);
    const changed = { ...batch, labels };
    for (const memory of memories(changed, dpoConfig, [0, 3, 60])) {
      const result = dpo.fromHidden(changed, { memory });
      const tally = new Tally();
      checkStages(tally, dpoConfig, prepareHidden(changed), result);
      expect(tally.misses).toEqual([]);
      expect(result.metrics.empty_sequences).toBe(2);
    }
    const ignored = { ...batch, labels: labels.fill(-100) };
    const result = dpo.fromHidden(ignored, {
      out: { gradWeight: new Float32Array(batch.weight.length).fill(NaN) },
    });
    expect(result.loss).toBe(Math.LN2);
    for (const name of gradients)
      expect(
        present(result[name]).every((x) => Object.is(x, 0)),
        name,
      ).toBe(true);
    const kept = dpo.fromHidden(ignored, {
      out: { gradWeight: new Float32Array(batch.weight.length).fill(3) },
      accumulate: true,
    });
    expect(present(kept.gradWeight).every((x) => x === 3)).toBe(true);
  });

  test('no rows at all', () => {
    const weight = Float32Array.of(1, 2, 3, 4, 5, 6);
    const batch = {
      hidden: new Float32Array(0),
      weight,
      shape: [2, 0, 3] as const,
      labels: new Int32Array(0),
      reference: Float64Array.of(-1, -2),
    };
    const result = dpo.fromHidden(batch);
    expect(result).toMatchObject({
      loss: Math.LN2,
      counts: Int32Array.of(0, 0),
      gradHidden: new Float32Array(0),
    });
    expect(result.gradWeight).toStrictEqual(new Float32Array(6));
    expect(sequenceLogps({ ...batch, shape: [0, 5, 3] })).toMatchObject({
      logps: new Float64Array(0),
    });
    expect(tokenLogps(batch).logps).toHaveLength(0);
  });

  test.each([NaN, Infinity, -Infinity])('%s in one pair stays there', (bad) => {
    const batch = randomHidden({ seed: 52, sequences: 6, tokens: 4, vocab: 33, size: 9 });
    const hidden = batch.hidden.slice() as Float32Array<ArrayBuffer>;
    // A scored row of the chosen sequence of pair 1.
    const row = batch.labels.findIndex((label, i) => i >= 4 && label !== -100);
    hidden[row * 9 + 2] = bad;
    for (const memory of memories(batch, dpoConfig, [0, 3, 60])) {
      const clean = dpo.fromHidden(batch, { memory });
      const result = dpo.fromHidden({ ...batch, hidden }, { memory });
      expect(result.metrics.nonfinite).toBe(1);
      expect(result.losses[1]).toBeNaN();
      expect(result.loss).toBeNaN();
      for (const pair of [0, 2]) {
        expect(result.losses[pair]).toBe(clean.losses[pair]);
        for (const b of [pair, pair + 3]) {
          expect(result.logps[b]).toBe(clean.logps[b]);
          const part = (gradient: typeof result.gradHidden) =>
            present(gradient).slice(b * 36, b * 36 + 36);
          expect(
            sameBits(part(result.gradHidden), part(clean.gradHidden)),
            `gradHidden of sequence ${b}`,
          ).toBe(true);
        }
      }
    }
  });

  test('a bias of -Infinity is a word that cannot be', () => {
    const batch = randomHidden({ seed: 53, sequences: 4, tokens: 4, vocab: 33, size: 9 });
    const banned = 32;
    const labels = batch.labels.map((label) => (label === banned ? 0 : label));
    const bias = present(batch.bias).map((x, v) => (v === banned ? -Infinity : x));
    for (const memory of memories(batch, dpoConfig, [0, 60])) {
      const result = dpo.fromHidden({ ...batch, labels, bias }, { memory });
      expect(result.metrics.nonfinite).toBe(0);
      expect(at(present(result.gradBias), banned)).toBe(0);
      for (let k = 0; k < 9; k++) expect(at(present(result.gradWeight), banned * 9 + k)).toBe(0);
      expect(present(result.gradHidden).every(Number.isFinite)).toBe(true);
    }
  });

  test('rows without a coefficient take no part: a pair past the hinge, with any states', () => {
    const hinge = dirAlignLoss('hinge', 1);
    const batch = randomHidden({ seed: 54, sequences: 4, tokens: 4, vocab: 33, size: 9 });
    const { logps } = sequenceLogps(batch);
    // Pair 0 is far past its margin, pair 1 is not.
    const reference = Float64Array.of(
      at(logps, 0) - 50,
      at(logps, 1),
      at(logps, 2) + 50,
      at(logps, 3),
    );
    for (const memory of memories(batch, { method: 'hinge', beta: 1 }, [0, 60])) {
      const result = hinge.fromHidden({ ...batch, reference }, { memory });
      expect(Array.from(result.coefficients, (c) => c + 0)).toEqual([0, -0.5, 0, 0.5]);
      const gradHidden = present(result.gradHidden);
      for (const b of [0, 2])
        expect(gradHidden.slice(36 * b, 36 * b + 36).every((x) => Object.is(Math.abs(x), 0))).toBe(
          true,
        );
      const alone = hinge.fromHidden(sequencesOf({ ...batch, reference }, [1, 3]), { memory });
      const misses = present(result.gradWeight).findIndex(
        (x, i) => Math.abs(2 * x - at(present(alone.gradWeight), i)) > 1e-6,
      );
      expect(misses).toBe(-1);
    }
  });

  test('rows of tokenWeights 0 take no part, whatever their hidden states and the memory', () => {
    const batch = randomHidden({ seed: 31, sequences: 4, tokens: 40, vocab: 67, size: 16 });
    const tokenWeights = Float32Array.from(batch.labels, (_, row) => Number(row % 5 !== 2));
    const hidden = (batch.hidden as Float32Array).map((x, i) =>
      at(tokenWeights, Math.floor(i / 16)) === 0 ? NaN : x,
    );
    const objective = dirAlignLoss('dpo', 0.1);
    const without = hidden.map((x) => (Number.isNaN(x) ? 0 : x));
    for (const memory of [2 ** 24, leastMemory(batch) + 30_000, leastMemory(batch)]) {
      const result = objective.fromHidden({ ...batch, hidden, tokenWeights }, { memory });
      const expected = objective.fromHidden(
        { ...batch, hidden: without, tokenWeights },
        { memory },
      );
      // Which rows a product has decides how its sums are rounded.
      const misses = new Misses();
      for (const name of gradients) {
        const values = Array.from(expected[name] as Float32Array);
        const largest = Math.max(...values.map(Math.abs));
        misses.each(name, result[name], values, () => 1e-6 * largest);
      }
      expect(misses.list).toEqual([]);
      expect(result.metrics.nonfinite).toBe(0);
      expect(Number.isFinite(result.loss)).toBe(true);
    }
  });

  test('memory is an upper bound, and what is reported', () => {
    const batch = wide();
    const least = leastMemory(batch);
    let before = 0;
    for (const memory of [least, least + 1, 2 * least, 10 * least, 2 ** 28]) {
      const { memory: used } = dpo.fromHidden(batch, { memory });
      expect(used).toBeGreaterThan(0);
      expect(used).toBeLessThanOrEqual(memory);
      expect(used).toBeGreaterThanOrEqual(Math.min(before, memory));
      before = used;
    }
    const options: HiddenRunOptions<HostHidden['hidden']> = {};
    expect(dpo.fromHidden(batch, options).memory).toBeLessThanOrEqual(2 ** 28);
  });
});
