// The reference cases on the CUDA backend, on data on the device: the bounds are those of the CPU.
// Host arrays have a suite of their own.
import { afterAll, describe, expect, test } from 'vitest';
import { cuda } from '../../ts/index.js';
import { gradientBound, Misses } from '../support/bounds.js';
import {
  build,
  checkGradient,
  checkNumbers,
  elements,
  expectedScales,
  makeBatch,
  oneSetOfLabels,
  pack,
  restride,
  sameResult,
  unfactored,
} from '../support/cases.js';
import { Copy, expectDevice } from '../support/device.js';
import { compute, unpacked, type Computed, type HostBatch } from '../support/device-cases.js';
import { Coverage, inputs, inputsWith, isRobustnessOnly, total } from '../support/every-case.js';
import { present, sameBits } from '../support/numbers.js';

const ran = new Coverage();

expectDevice();

describe.runIf(cuda.available)('on the device', () => {
  // Wherever the data are, whatever the layout, and whether waited for or not: the numbers, and the
  // bits of the gradient, are the same. One of these ways for each case, in turn.
  const ways = [
    'in place',
    'out',
    'none',
    'odd address',
    'strided',
    'packed',
    'asynchronous',
  ] as const;
  let turn = 0;

  test.each(inputs)('%s: dense, and the same in another way', async (_, input) => {
    const misses = new Misses();
    const { V } = input;
    for (const c of ran.cases(input, 'dense')) {
      const batch = makeBatch(c) as HostBatch;
      const dense = compute(c, batch, 'fresh');
      checkNumbers(misses, c, dense.result, 'cuda');
      checkGradient(misses, c, dense.gradient);
      const round = Math.floor(turn / ways.length);
      const way = ways[turn % ways.length] as (typeof ways)[number];
      const where = (['fresh', 'in place', 'out'] as const)[round % 3] ?? 'fresh';
      turn++;
      const expectSame = ({ result, gradient }: Computed): void => {
        sameResult(misses, `${c.id} ${way}, ${where}`, result, dense.result);
        misses.require(sameBits(gradient, dense.gradient), `${c.id} ${way}, ${where}: gradient`);
      };
      if (way === 'in place' || way === 'out') {
        expectSame(compute(c, batch, way));
      } else if (way === 'none') {
        using copy = new Copy(batch.logits);
        const none = build(c)({ ...batch, logits: copy.tensor }, { gradient: 'none' });
        sameResult(misses, `${c.id} none`, none, dense.result);
        misses.require(
          !('gradLogits' in none) && !('rowScale' in none),
          `${c.id} none: has a gradient`,
        );
        misses.require(
          sameBits(copy.read(), batch.logits),
          `${c.id} none: the logits were written`,
        );
      } else if (way === 'odd address') {
        expectSame(compute(c, batch, where, 'dense', 1 + (Math.floor(round / 3) % 3)));
      } else if (way === 'strided') {
        const rowStride = V + (round % 2 === 0 ? 1 : 32);
        const wide = restride(batch.logits as Float32Array, V, V, rowStride, NaN);
        // With the padding of the last row, or without.
        const logits = round % 4 < 2 ? wide : wide.slice(0, wide.length - (rowStride - V));
        const { result, gradient } = compute(c, { ...batch, logits, rowStride }, where);
        expectSame({ result, gradient: restride(gradient as Float32Array, V, rowStride, V, 0) });
        const padded = restride(dense.gradient as Float32Array, V, V, rowStride, 0).slice(
          0,
          logits.length,
        );
        misses.require(sameBits(gradient, padded), `${c.id} strided, ${where}: padding`);
      } else if (way === 'packed') {
        const { batch: packed, rows } = pack(c);
        const { result, gradient } = compute(c, packed as HostBatch, where);
        expectSame({ result, gradient: unpacked(gradient, rows, elements(c), V) });
      } else {
        using copy = new Copy(batch.logits);
        const result = await build(c).async({ ...batch, logits: copy.tensor }, { inPlace: true });
        expectSame({ result, gradient: copy.read() });
      }
    }
    expect(misses.list).toEqual([]);
  });

  test.each(inputs)('%s: factored', (_, input) => {
    const misses = new Misses();
    const largest = input.residual.reduce((x, y) => Math.max(x, Math.abs(y)), 0);
    for (const [i, c] of ran.cases(input, 'factored').entries()) {
      const batch = makeBatch(c) as HostBatch;
      if (!oneSetOfLabels(c)) {
        expect(() => compute(c, batch, 'fresh', 'factored')).toThrow('sftLabels');
        continue;
      }
      const where = (['in place', 'fresh', 'out'] as const)[i % 3] ?? 'fresh';
      const { result, gradient } = compute(c, batch, where, 'factored');
      checkNumbers(misses, c, result, 'cuda');
      misses.each(`${c.id} rowScale`, present(result.rowScale), expectedScales(c), (x) =>
        gradientBound(Math.abs(x), 0),
      );
      misses.each(`${c.id} gradLogits`, gradient, input.residual.subarray(0, elements(c)), (x) =>
        gradientBound(Math.abs(x), largest),
      );
      checkGradient(misses, c, unfactored(result, gradient, input.V));
    }
    expect(misses.list).toEqual([]);
  });
});

describe.runIf(cuda.available)(
  'robustness_only: certainty (p = 1) and sequences without a token',
  () => {
    test.each(inputsWith(isRobustnessOnly))('%s: finite loss and gradient', (_, input) => {
      for (const c of ran.cases(input, 'robust', isRobustnessOnly)) {
        for (const mode of ['dense', 'factored'] as const) {
          for (const where of ['fresh', 'in place'] as const) {
            const { result, gradient } = compute(c, makeBatch(c) as HostBatch, where, mode);
            expect(result.loss, c.id).toSatisfy(Number.isFinite);
            expect(Array.from(result.losses).every(Number.isFinite), `${c.id} losses`).toBe(true);
            expect(
              Array.from(result.coefficients).every(Number.isFinite),
              `${c.id} coefficients`,
            ).toBe(true);
            expect(Array.from(gradient).every(Number.isFinite), `${c.id} gradient`).toBe(true);
            const empty = input.counts.filter((n) => n === 0).length;
            expect(result.metrics).toMatchObject({ nonfinite: 0, empty_sequences: empty });
          }
        }
      }
    });
  },
);

afterAll(() => {
  ran.log();
});

test.runIf(cuda.available)(`all ${total} cases were run`, () => {
  for (const way of ['dense', 'factored'])
    expect([way, ran.size(way) + ran.size('robust')]).toEqual([way, total]);
});
