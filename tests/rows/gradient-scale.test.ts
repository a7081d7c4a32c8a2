// `run.gradientScale` at every door: it multiplies gradients, and nothing else.
import { describe, expect, test } from 'vitest';
import { dirAlignLoss, logpsBackward, type LogitsBatch, type RunOptions } from '../../ts/index.js';
import {
  dtypes,
  randomBatch,
  copyOf,
  everyMethod,
  objectiveOf,
  type HostBatch,
} from '../support/batches.js';
import { halfBound, Misses } from '../support/bounds.js';
import {
  gradients,
  leastMemory,
  randomHidden,
  sameValues,
  type HostHidden,
} from '../support/hidden.js';
import { at, decodeHalf, present, sameBits } from '../support/numbers.js';
import { expectRefusal, thrownBy } from '../support/refusal.js';
import { prepare } from '../../ts/verification/verification.js';

const dpo = dirAlignLoss('dpo', 0.1);
const small = (seed = 1): HostBatch => randomBatch({ seed, sequences: 6, tokens: 5, vocab: 37 });
/** What `logpsBackward` takes of it. */
const withoutReference = ({ logits, labels, shape }: HostBatch): LogitsBatch => ({
  logits: logits,
  labels,
  shape,
});
const times = (array: Float32Array, factor: number): Float32Array => array.map((x) => factor * x);

/** Two roundings of float32 at most lie between the two. */
function expectTimes(actual: ArrayLike<number>, array: ArrayLike<number>, factor: number): void {
  const misses = new Misses();
  const expected = Array.from(array, (x) => factor * x);
  misses.each('gradient', actual, expected, (x) => 2 ** -21 * Math.abs(x));
  expect(misses.list).toEqual([]);
}

describe('from logits', () => {
  test.each(everyMethod)(
    '%s: powers of two change exponents alone, other numbers multiply',
    (method) => {
      const objective = objectiveOf({
        method,
        beta: 0.4,
        ...(method !== 'sft' && { sftWeight: 0.3 }),
      });
      const batch = small();
      const plain = objective(batch);
      expect(sameBits(objective(batch, { gradientScale: 1 }).gradLogits, plain.gradLogits)).toBe(
        true,
      );
      for (const gradientScale of [2 ** 10, 2 ** -7, -1]) {
        const result = objective(batch, { gradientScale });
        sameValues(result, plain, 'plain');
        const expected = times(plain.gradLogits as Float32Array, gradientScale).map((x) =>
          x === 0 ? 0 : x,
        );
        expect(result.gradLogits.map((x) => (x === 0 ? 0 : x))).toStrictEqual(expected);
      }
      const result = objective(batch, { gradientScale: 0.3 });
      sameValues(result, plain, 'plain');
      expectTimes(result.gradLogits, plain.gradLogits, 0.3);
    },
  );

  test('where it is written: in place, into out, off the event loop', async () => {
    const batch = small(2);
    const gradientScale = 3;
    const { gradLogits } = dpo(batch, { gradientScale });
    const overwritten = copyOf(batch);
    dpo(overwritten, { gradientScale, inPlace: true });
    expect(sameBits(overwritten.logits, gradLogits)).toBe(true);
    const out = batch.logits.slice();
    dpo(batch, { gradientScale, out });
    expect(sameBits(out, gradLogits)).toBe(true);
    expect(sameBits((await dpo.async(batch, { gradientScale })).gradLogits, gradLogits)).toBe(true);
  });

  test('factored: the scales of the rows carry it', () => {
    const batch = small(3);
    const plain = dpo(batch, { gradient: 'factored' });
    for (const inPlace of [false, true]) {
      const result = dpo(copyOf(batch), { gradient: 'factored', gradientScale: 2 ** 12, inPlace });
      sameValues(result, plain, 'plain');
      expect(result.rowScale).toStrictEqual(times(plain.rowScale, 2 ** 12));
      if (!inPlace) expect(sameBits(result.gradLogits, plain.gradLogits)).toBe(true);
    }
  });

  test('float16: a gradient that underflows at 1 is there at 1024, rounded once', () => {
    // Coefficients of about 2^-14, probabilities of about 2^-12: what is below 2^-25 rounds to 0.
    const batch = randomBatch({
      seed: 4,
      sequences: 8,
      tokens: 3,
      vocab: 4096,
      dtype: 'float16',
      scale: 0.5,
      ignored: 0,
    });
    const objective = dirAlignLoss('dpo', 0.0004);
    const { residual } = prepare(batch).alignment;
    const gradientAt = (gradientScale: number) => {
      const { gradLogits, coefficients } = objective(batch, { gradientScale });
      const expected = residual.map(
        (x, i) => gradientScale * at(coefficients, Math.floor(i / (3 * 4096))) * x,
      );
      return { found: decodeHalf(gradLogits, 'float16'), expected };
    };
    const share = (values: Float64Array): number =>
      values.filter((x) => x !== 0).length / values.length;
    expect(share(gradientAt(1).found)).toBeLessThan(0.1);
    const { found, expected } = gradientAt(1024);
    expect(share(found)).toBeGreaterThan(0.95);
    const misses = new Misses();
    misses.each('gradient', found, expected, (x) => halfBound(x, 'float16'));
    expect(misses.list).toEqual([]);
  });

  test('0 leaves zeros, and no other bits, over whatever was there', () => {
    const batch = small(5);
    const out = (batch.logits as Float32Array).slice().fill(NaN);
    const result = dpo(batch, { gradientScale: 0, out });
    sameValues(result, dpo(batch), 'plain');
    expect(sameBits(out, new Float32Array(out.length))).toBe(true);
  });

  test('0 leaves zeros where coefficients are infinite, or NaN', () => {
    const batch = small(9);
    const { logits } = batch;
    if (!(logits instanceof Float32Array)) throw new Error('not in float32');
    logits[batch.labels.findIndex((label) => label !== -100) * 37] = NaN;
    const infinite = dirAlignLoss('ipo', 1e-310);
    for (const objective of [dpo, infinite]) {
      expect(objective(batch).metrics.nonfinite).toBeGreaterThan(0);
      const zeros = new Float32Array(batch.logits.length);
      expect(sameBits(objective(batch, { gradientScale: 0 }).gradLogits, zeros)).toBe(true);
      const { rowScale } = objective(batch, { gradientScale: 0, gradient: 'factored' });
      expect(sameBits(rowScale, new Float32Array(rowScale.length))).toBe(true);
    }
  });

  test('nonfinite: pairs whose scaled coefficients float32 has no numbers for', () => {
    const batch = small(10);
    const plain = dpo(batch);
    const largest = plain.coefficients.reduce((x, y) => Math.max(x, Math.abs(y)), 0);
    const counted = (gradientScale: number, gradient: 'dense' | 'none' = 'dense'): number =>
      dpo(batch, { gradientScale, gradient }).metrics.nonfinite;
    const limit = 2 ** 128;
    expect(counted((0.99 * limit) / largest)).toBe(0);
    expect(counted((-1.01 * limit) / largest)).toBe(1);
    expect(counted(1e308)).toBe(3);
    expect(counted(1e308, 'none')).toBe(0);
    // And the other way round: a large coefficient that the scale brings back.
    const steep = dirAlignLoss('ipo', 1e-41);
    expect(steep(batch).metrics.nonfinite).toBe(3);
    expect(steep(batch, { gradientScale: 2 ** -60 }).metrics.nonfinite).toBe(0);
  });

  test.each(dtypes)('underflow: %s rows of the scaled gradient', (dtype) => {
    const batch = randomBatch({ seed: 16, sequences: 4, tokens: 3, vocab: 33, dtype, ignored: 0 });
    const least = dtype === 'float16' ? 2 ** -14 : 2 ** -126;
    const { residual } = prepare(batch).alignment;
    const objective = dirAlignLoss('dpo', 0.1);
    const { coefficients } = objective(batch);
    const sizes = Array.from(batch.labels, (label, row) =>
      Math.abs(at(coefficients, Math.floor(row / 3)) * at(residual, row * 33 + label)),
    );
    // Between the sizes of two rows that are apart: those up to n are below the least normal
    // number.
    const sorted = [
      0.25 * Math.min(...sizes),
      ...sizes.sort((x, y) => x - y),
      4 * Math.max(...sizes),
    ];
    const apart = sizes.flatMap((_, n) => (at(sorted, n + 1) > 1.05 * at(sorted, n) ? [n] : []));
    expect(apart.length).toBeGreaterThan(2);
    for (const n of apart) {
      const gradientScale = least / Math.sqrt(at(sorted, n) * at(sorted, n + 1));
      expect(objective(batch, { gradientScale }).metrics.underflow, `${n} rows`).toBe(n);
    }
  });

  test('a capped row: no NaN where a logit is past the cap, however large the scale', () => {
    const logits = Float32Array.of(3e4, 1, -2, 0, -3e4, 2, 1, -Infinity);
    const labels = Int32Array.of(0, 2);
    const reference = Float64Array.of(-1, -1);
    const batch = { logits, labels, reference, shape: [2, 1, 4], logitSoftcap: 30 } as const;
    const plain = dpo(batch).gradLogits;
    for (const gradientScale of [1e37, 1e44, 1e300, -Number.MAX_VALUE]) {
      const found = dpo(batch, { gradientScale }).gradLogits;
      // A product that float32 cannot hold is infinite, or its largest number.
      const expected = plain.map((x) => Math.max(-3e38, Math.min(3e38, gradientScale * x)));
      expect(found.map((x) => Math.max(-3e38, Math.min(3e38, x)))).toSatisfy((x: Float32Array) =>
        x.every((value, i) => Math.abs(value - at(expected, i)) <= 1e-5 * Math.abs(value)),
      );
      expect([found[0], found[4], found[7]].map((x) => Math.abs(x ?? NaN))).toEqual([0, 0, 0]);
    }
  });

  test.each([1e37, 1e39, 1e44, -1e60, Number.MAX_VALUE])(
    'logpsBackward by entropies: %s times as much, and no NaN',
    (gradientScale) => {
      const batch = withoutReference(small(11));
      const entropy = Float64Array.from(batch.labels, (_, row) => 1 - row / 15);
      const rows = entropy.map((x) => 2 * x * x - 1);
      for (const derivatives of [{ entropy }, { entropy, rows }]) {
        const backward = (gradientScale: number): Float64Array => {
          const { gradLogits } = logpsBackward(batch, derivatives, { gradientScale });
          return Float64Array.from(gradLogits as Float32Array);
        };
        const plain = backward(1);
        const found = backward(gradientScale);
        expect(found.some(Number.isNaN)).toBe(false);
        const limited = (x: number): number => Math.max(-3e38, Math.min(3e38, x));
        const misses = new Misses();
        misses.each(
          'gradient',
          found.map(limited),
          plain.map((x) => limited(gradientScale * x)),
          // Where two terms of an entry cancel, not even its sign is certain.
          (_, i) =>
            Math.abs(at(plain, i)) < 1e-3
              ? Infinity
              : 1e-2 * Math.abs(limited(gradientScale * at(plain, i))),
        );
        expect(misses.list).toEqual([]);
      }
    },
  );

  test('without a gradient there is nothing to multiply', () => {
    const batch = small(6);
    const options: RunOptions = { gradient: 'none', gradientScale: 5 };
    sameValues(dpo(batch, options), dpo(batch), 'plain');
  });

  test('micro-batches with a scale of 1 / n add up to the batch', () => {
    const batch = randomBatch({ seed: 7, sequences: 8, tokens: 4, vocab: 19 });
    const whole = dpo(batch);
    const row = 4 * 19;
    const sequence = (s: number) => ({
      logits: batch.logits.subarray(s * row, (s + 1) * row) as Float32Array,
      labels: batch.labels.subarray(4 * s, 4 * s + 4),
      reference: Float64Array.of(at(batch.reference, s)),
    });
    for (let pair = 0; pair < 4; pair++) {
      const [w, l] = [sequence(pair), sequence(pair + 4)];
      const logits = Float32Array.from([...w.logits, ...l.logits]);
      const labels = Int32Array.from([...w.labels, ...l.labels]);
      const reference = Float64Array.from([...w.reference, ...l.reference]);
      const { gradLogits } = dpo(
        { logits, labels, reference, shape: [2, 4, 19] },
        { gradientScale: 1 / 4 },
      );
      expectTimes(
        gradLogits.subarray(0, row),
        whole.gradLogits.subarray(pair * row, (pair + 1) * row),
        1,
      );
      expectTimes(
        gradLogits.subarray(row),
        whole.gradLogits.subarray((pair + 4) * row, (pair + 5) * row),
        1,
      );
    }
  });
});

describe('from hidden states', () => {
  const host = (seed: number, dtype: (typeof dtypes)[number] = 'float32'): HostHidden =>
    randomHidden({ seed, sequences: 4, tokens: 40, vocab: 67, size: 16, dtype, ignored: 0.1 });
  /** The whole pair, one that is deferred, one whose logits are computed again. */
  const memoriesOf = (batch: HostHidden): number[] => [
    2 ** 24,
    leastMemory(batch) + 30_000,
    leastMemory(batch),
  ];

  test.each(dtypes)('%s: powers of two change exponents alone, whatever the memory', (dtype) => {
    for (const method of ['dpo', 'nca', 'sft'] as const) {
      const batch = host(11, dtype);
      const objective = objectiveOf({
        method,
        beta: 0.1,
        ...(method === 'dpo' && { sftWeight: 0.2 }),
      });
      const value = (array: ArrayLike<number>): Float64Array =>
        dtype === 'float32' ? Float64Array.from(array) : decodeHalf(array, dtype);
      for (const memory of memoriesOf(batch)) {
        const plain = objective.fromHidden(batch, { memory });
        const result = objective.fromHidden(batch, { memory, gradientScale: 64 });
        sameValues(result, plain, method);
        expect(result.gradWeight).toStrictEqual(times(plain.gradWeight, 64));
        expect(result.gradBias).toStrictEqual(times(present(plain.gradBias), 64));
        if (dtype !== 'float16') {
          expect(value(result.gradHidden)).toStrictEqual(
            value(plain.gradHidden).map((x) => 64 * x),
          );
          continue;
        }
        // A number of float16 that was subnormal has digits now that rounding had cost it.
        const misses = new Misses();
        const expected = value(plain.gradHidden);
        misses.each(
          'gradHidden',
          value(result.gradHidden),
          expected.map((x) => 64 * x),
          (x) => 64 * halfBound(x / 64, dtype),
        );
        expect(misses.list).toEqual([]);
      }
    }
  });

  test('float16: hidden gradients that underflow at 1 are there at 4096', () => {
    const [tokens, size] = [3, 32];
    const batch = randomHidden({
      seed: 12,
      sequences: 4,
      tokens,
      vocab: 64,
      size,
      dtype: 'float16',
      scale: 0.02,
      ignored: 0,
    });
    const objective = dirAlignLoss('dpo', 0.00005);
    const at1 = objective.fromHidden(batch).gradHidden;
    const at4096 = objective.fromHidden(batch, { gradientScale: 4096 }).gradHidden;
    expect(at1.filter((x) => (x & 0x7fff) !== 0).length).toBeLessThan(at1.length / 2);
    expect(at4096.filter((x) => (x & 0x7fff) !== 0).length).toBeGreaterThan(0.9 * at1.length);
  });

  test('what is accumulated to is not scaled', async () => {
    const batch = host(13);
    const gradientScale = 0.25;
    const fresh = dpo.fromHidden(batch, { gradientScale });
    for (const memory of memoriesOf(batch)) {
      const out = {
        gradHidden: new Float32Array(batch.hidden.length).fill(1),
        gradWeight: new Float32Array(batch.weight.length).fill(-2),
        gradBias: new Float32Array(present(batch.bias).length).fill(3),
      };
      const before = { gradHidden: 1, gradWeight: -2, gradBias: 3 };
      await dpo.fromHidden.async(batch, { out, accumulate: true, gradientScale, memory });
      const misses = new Misses();
      for (const name of gradients) {
        const expected = Array.from(present(fresh[name]), (x) => before[name] + x);
        // Every row may round the sum once more.
        misses.each(
          name,
          out[name],
          expected,
          () => 161 * 2 ** -24 * (Math.abs(before[name]) + 0.1),
        );
      }
      expect(misses.list).toEqual([]);
    }
  });

  test('0 writes zeros, or adds none', () => {
    const batch = host(14);
    for (const memory of memoriesOf(batch)) {
      const zeroed = new Float32Array(batch.weight.length).fill(NaN);
      const kept = new Float32Array(batch.weight.length).fill(7);
      const result = dpo.fromHidden(batch, {
        gradientScale: 0,
        memory,
        out: { gradWeight: zeroed },
      });
      expect(zeroed.every((x) => x === 0)).toBe(true);
      expect((result.gradHidden as Float32Array).every((x) => x === 0)).toBe(true);
      dpo.fromHidden(batch, {
        gradientScale: 0,
        memory,
        accumulate: true,
        out: { gradWeight: kept },
      });
      expect(kept.every((x) => x === 7)).toBe(true);
    }
  });
});

test('fromLogps', () => {
  const batch = {
    logps: Float64Array.of(-2, -3, -4, -5),
    counts: Int32Array.of(2, 3, 4, 0),
    reference: Float64Array.of(-3, -4, -5, 0),
  };
  batch.logps[3] = 0;
  const objective = dirAlignLoss('dpo', 0.3, true, { sftWeight: 0.5 });
  const { gradLogps, ...plain } = objective.fromLogps(batch);
  const { gradLogps: scaled, ...values } = objective.fromLogps(batch, { gradientScale: -0.5 });
  expect(values).toStrictEqual(plain);
  expect(scaled.map((x) => x + 0)).toStrictEqual(gradLogps.map((x) => -0.5 * x + 0));
  expect(sameBits(objective.fromLogps(batch, {}).gradLogps, gradLogps)).toBe(true);
});

test('what is no finite number is refused, at every door', async () => {
  const batch = small(8);
  const hidden = randomHidden({ seed: 15, sequences: 2, tokens: 2, vocab: 5, size: 3 });
  const logps = {
    logps: Float64Array.of(-1, -2),
    counts: Int32Array.of(1, 1),
    reference: Float64Array.of(-1, -1),
  };
  for (const gradientScale of [NaN, Infinity, -Infinity, '2', null, 2n, [1], true]) {
    const kind = typeof gradientScale === 'number' ? 'RangeError OPTION' : 'TypeError OPTION';
    const run = { gradientScale } as never;
    const refused = (action: () => unknown): void => {
      expectRefusal(action, kind, [/^gradientScale: .*not a finite number/]);
    };
    refused(() => dpo(batch, run));
    refused(() => dpo.fromHidden(hidden, run));
    refused(() => dpo.fromLogps(logps, run));
    await expect(dpo.async(batch, run)).rejects.toMatchObject({ code: 'ERR_DIRALIGN_OPTION' });
    await expect(dpo.fromHidden.async(hidden, run)).rejects.toMatchObject({
      code: 'ERR_DIRALIGN_OPTION',
    });
  }
  const misspelt = thrownBy(() => dpo.fromLogps(logps, { gradientscale: 2 } as never));
  expectRefusal(misspelt, 'TypeError OPTION', "did you mean 'gradientScale'");
  expectRefusal(() => dpo.fromLogps(logps, null as never), 'TypeError OPTION', 'run');
});
