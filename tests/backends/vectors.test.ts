// The reference cases: values of published implementations and of arithmetic with 120 digits,
// through every public way in.
import { afterAll, describe, expect, test } from 'vitest';
import { sequenceLogps, tokenLogps } from '../../ts/index.js';
import type { LogitsArray, LogitsBatch, LossResult, RunOptions } from '../../ts/index.js';
import { gradientBound, halfBound, logpBound, lossBound, Misses } from '../support/bounds.js';
import {
  build,
  checkGradient,
  checkNumbers,
  elements,
  expectedScales,
  isSft,
  makeBatch,
  oneSetOfLabels,
  pack,
  restride,
  sameResult,
  sequences,
  shifted,
  unfactored,
} from '../support/cases.js';
import { Coverage, inputs, inputsWith, isRobustnessOnly, total } from '../support/every-case.js';
import { at, decodeHalf, encodeHalf, present, sameBits } from '../support/numbers.js';

const ran = new Coverage();

describe('dense gradient', () => {
  test.each(inputs)('%s', (_, input) => {
    const misses = new Misses();
    for (const c of ran.cases(input, 'dense')) {
      const batch = makeBatch(c);
      const before = batch.logits.slice();
      const result = build(c)(batch);
      misses.require(sameBits(batch.logits, before), `${c.id}: logits were written`);
      checkNumbers(misses, c, result);
      checkGradient(misses, c, result.gradLogits);
    }
    expect(misses.list).toEqual([]);
  });
});

describe('factored gradient', () => {
  test.each(inputs)('%s', (_, input) => {
    const misses = new Misses();
    for (const c of ran.cases(input, 'factored')) {
      if (!oneSetOfLabels(c)) {
        expect(() => build(c)(makeBatch(c), { gradient: 'factored' })).toThrow('sftLabels');
        continue;
      }
      const result = build(c)(makeBatch(c), { gradient: 'factored' });
      checkNumbers(misses, c, result);
      const { gradLogits, rowScale } = result;
      const largest = input.residual.reduce((x, y) => Math.max(x, Math.abs(y)), 0);
      misses.each(`${c.id} rowScale`, rowScale, expectedScales(c), (x) =>
        gradientBound(Math.abs(x), 0),
      );
      // Its largest element is at most 1: what is below 1e-9 of that may be 0.
      misses.each(`${c.id} gradLogits`, gradLogits, input.residual.subarray(0, elements(c)), (x) =>
        gradientBound(Math.abs(x), largest),
      );
      checkGradient(misses, c, unfactored(result, gradLogits, input.V));

      const batch = makeBatch(c);
      const inPlace = build(c)(batch, { gradient: 'factored', inPlace: true });
      misses.require(inPlace.gradLogits === batch.logits, `${c.id}: not in place`);
      checkNumbers(misses, c, inPlace);
      checkGradient(misses, c, unfactored(inPlace, batch.logits, input.V));
    }
    expect(misses.list).toEqual([]);
  });
});

describe('the same bits', () => {
  // Whatever the layout and the destination, and whether at once or off the event loop.
  test.each(inputs)('%s', async (_, input) => {
    const misses = new Misses();
    const { V } = input;
    for (const c of ran.cases(input, 'same bits')) {
      const objective = build(c);
      const dense = objective(makeBatch(c));
      const gradient = present(dense.gradLogits);
      const expectSame = (
        what: string,
        result: LossResult,
        actual: LogitsArray | undefined,
      ): void => {
        sameResult(misses, `${c.id} ${what}`, result, dense);
        misses.require(
          actual !== undefined && sameBits(actual, gradient),
          `${c.id} ${what}: gradient`,
        );
      };
      const run = (what: string, batch: LogitsBatch, options: RunOptions): void => {
        const result = objective(batch, options);
        expectSame(what, result, result.gradLogits);
      };

      const inPlace = makeBatch(c);
      run('in place', inPlace, { inPlace: true });
      misses.require(sameBits(inPlace.logits, gradient), `${c.id}: not in place`);

      const out = new Float32Array(elements(c)).fill(NaN);
      const into = objective(makeBatch(c), { out });
      misses.require(into.gradLogits === out, `${c.id}: not into out`);
      expectSame('out', into, out);

      const none = objective(makeBatch(c), { gradient: 'none' });
      sameResult(misses, `${c.id} none`, none, dense);
      misses.require(
        !('gradLogits' in none) && !('rowScale' in none),
        `${c.id} none: has a gradient`,
      );

      const batch = makeBatch(c);
      for (const by of [1, 3])
        run(
          `at element ${String(by)}`,
          { ...batch, logits: shifted(batch.logits, by) },
          { out: shifted(out, by) },
        );

      for (const rowStride of [V + 1, V + 32]) {
        const what = `rowStride ${String(rowStride)}`;
        const wide = { ...batch, logits: restride(batch.logits, V, V, rowStride, NaN), rowStride };
        for (const options of [{}, { inPlace: true }, { out: wide.logits.slice() }]) {
          const result = objective({ ...wide, logits: wide.logits.slice() }, options);
          const padded = present(result.gradLogits);
          expectSame(what, result, restride(padded, V, rowStride, V, 0));
          misses.require(
            sameBits(padded, restride(gradient, V, V, rowStride, 0)),
            `${c.id} ${what}: padding`,
          );
        }
      }

      const { batch: packed, rows } = pack(c);
      const result = objective(packed);
      const unpacked = new Float32Array(elements(c));
      rows.forEach((row, i) => {
        unpacked.set(present(result.gradLogits).subarray(i * V, (i + 1) * V), row * V);
      });
      expectSame('packed', result, unpacked);

      const later = await objective.async(makeBatch(c));
      expectSame('async', later, later.gradLogits);
    }
    expect(misses.list).toEqual([]);
  });
});

describe('float16 and bfloat16', () => {
  const halves = inputs.filter(([, input]) => input.dtypeExact !== 'f32');
  test.each(halves)('%s', (_, input) => {
    const dtype = input.dtypeExact === 'f16' ? 'float16' : 'bfloat16';
    const misses = new Misses();
    for (const c of ran.cases(input, 'half')) {
      const batch = {
        ...makeBatch(c),
        logits: encodeHalf(makeBatch(c).logits, dtype),
        dtype,
      } as const;
      const result = build(c)({ ...batch, logits: batch.logits.slice() });
      checkNumbers(misses, c, result);
      const bits = result.gradLogits as Uint16Array;
      checkGradient(misses, c, decodeHalf(bits, dtype), dtype);

      const copy = { ...batch, logits: batch.logits.slice() };
      const inPlace = build(c)(copy, { inPlace: true });
      sameResult(misses, `${c.id} in place`, inPlace, result);
      misses.require(
        inPlace.gradLogits === copy.logits && sameBits(copy.logits, bits),
        `${c.id} in place: gradient`,
      );

      for (const options of [{}, { inPlace: true }]) {
        const own = { ...batch, logits: batch.logits.slice() };
        const factored = build(c)(own, { ...options, gradient: 'factored' });
        const residual = decodeHalf(factored.gradLogits, dtype);
        misses.each(`${c.id} factored`, residual, input.residual.subarray(0, elements(c)), (x) =>
          halfBound(x, dtype),
        );
        sameResult(misses, `${c.id} factored`, factored, result);
      }
    }
    expect(misses.list).toEqual([]);
  });

  test('there are two such inputs', () => {
    expect(halves.map(([name]) => name)).toEqual(['tiny_bf16', 'tiny_f16']);
  });
});

describe('from log-probabilities', () => {
  test.each(inputs)('%s', (_, input) => {
    const misses = new Misses();
    for (const c of ran.cases(input, 'fromLogps')) {
      // A likelihood term with labels of its own has log-probabilities of its own, which this call
      // does not take.
      if (!oneSetOfLabels(c)) continue;
      const n = sequences(c);
      const { loss, losses, rewards, gradLogps } = build(c).fromLogps({
        logps: input.logps.slice(0, n),
        counts: input.counts.slice(0, n),
        reference: input.reference.slice(0, n),
      });
      // Nothing but float64 here. What is left is how much a sum of logits-to-losses magnifies the
      // last bit of a log-probability.
      const bound = (x: number): number => 1e-11 * Math.max(1, Math.abs(x));
      misses.near(`${c.id} loss`, loss, c.loss, bound(c.loss));
      if (c.losses) misses.each(`${c.id} losses`, losses, c.losses, bound);
      if (c.rewards && !isSft(c)) misses.each(`${c.id} rewards`, rewards, c.rewards, bound);
      const gradient = Array.from(
        { length: n },
        (_, b) => (c.dseq?.[b] ?? 0) + (b < input.B ? c.dnll : 0),
      );
      // A derivative below 1e-100 underflowed to 0 in some of the sources.
      if (c.dseq)
        misses.each(`${c.id} gradLogps`, gradLogps, gradient, (x) => 1e-9 * Math.abs(x) + 1e-100);
    }
    expect(misses.list).toEqual([]);
  });
});

describe('log-probabilities', () => {
  test.each(inputs)('%s', (_, input) => {
    const batch: LogitsBatch = {
      logits: input.logits,
      shape: [2 * input.B, input.T, input.V],
      labels: input.labels,
    };
    const misses = new Misses();
    const { logps, counts } = sequenceLogps(batch);
    misses.each('logps', logps, input.logps, (x, b) => logpBound(x, at(input.counts, b)));
    expect(counts).toEqual(input.counts);
    const tokens = tokenLogps(batch).logps;
    const sums = Array.from(logps, (_, b) =>
      tokens.subarray(b * input.T, (b + 1) * input.T).reduce((x, y) => x + y, 0),
    );
    misses.each('sums of tokenLogps', sums, logps, (x) => 1e-14 * Math.abs(x));
    expect(misses.list).toEqual([]);
  });
});

describe('robustness_only: certainty (p = 1) and sequences without a token', () => {
  const robust = inputsWith(isRobustnessOnly);
  test.each(robust)('%s: finite loss and gradient', (_, input) => {
    const empty = input.counts.filter((n) => n === 0).length;
    for (const c of ran.cases(input, 'robust', isRobustnessOnly)) {
      for (const gradient of ['dense', 'factored'] as const) {
        const result = build(c)(makeBatch(c), { gradient });
        expect(result.loss, c.id).toSatisfy(Number.isFinite);
        expect(Array.from(result.losses).every(Number.isFinite), `${c.id} losses`).toBe(true);
        expect(Array.from(result.coefficients).every(Number.isFinite), `${c.id} coefficients`).toBe(
          true,
        );
        expect(present(result.gradLogits).every(Number.isFinite), `${c.id} gradient`).toBe(true);
        expect(result.metrics).toMatchObject({ nonfinite: 0, empty_sequences: empty });
        // What the reference cases say of an empty sequence, score 0, is what is documented.
        if (empty > 0)
          expect(Math.abs(result.loss - c.loss), c.id).toBeLessThanOrEqual(lossBound(c.loss));
      }
      const batch = { logps: input.logps, counts: input.counts, reference: input.reference };
      if (isSft(c)) continue;
      const { loss, gradLogps } = build(c).fromLogps(batch);
      expect(loss, c.id).toSatisfy(Number.isFinite);
      expect(Array.from(gradLogps).every(Number.isFinite), `${c.id} gradLogps`).toBe(true);
    }
  });

  test('75 cases', () => {
    expect(ran.size('robust')).toBe(75);
  });
});

afterAll(() => {
  ran.log();
});

test(`all ${String(total)} cases were run`, () => {
  for (const way of ['dense', 'factored', 'same bits', 'fromLogps'])
    expect([way, ran.size(way) + ran.size('robust')]).toEqual([way, total]);
});
