// Options of a run on a device: in device memory, and on host arrays that travel there.
import { describe, expect, test } from 'vitest';
import {
  cuda,
  dirAlignLoss,
  type LossResult,
  type RowMetrics,
  type RunOptions,
} from '../../ts/index.js';
import { copyOf, dtypes, objectiveOf, randomBatch, type HostBatch } from '../support/batches.js';
import { halfBound, Misses } from '../support/bounds.js';
import { Copy, takeGradient, type Elements } from '../support/device.js';
import { expectDevice } from '../support/expect-device.js';
import { gradients, randomHidden } from '../support/hidden.js';
import { at, decodeHalf, present, sameBits } from '../support/numbers.js';
import { checkRowMetrics, rowMetricNames } from '../support/row-metrics.js';

expectDevice();

type Result = LossResult<Elements>;
type Run = Pick<RunOptions, 'gradient' | 'gradientScale' | 'metrics' | 'inPlace'>;

const ways: readonly [string, (config: object, batch: HostBatch, run: Run) => Result][] = [
  [
    'in device memory',
    (config, batch, run) => {
      using logits = new Copy(batch.logits, batch.dtype, { shift: 1 });
      const { gradLogits, ...values } = objectiveOf(config as never)(
        { ...batch, logits: logits.tensor },
        run,
      );
      return {
        ...values,
        ...(gradLogits && {
          gradLogits: run.inPlace ? logits.read() : takeGradient(gradLogits, batch.logits),
        }),
      };
    },
  ],
  [
    'on host arrays',
    (config, batch, run) =>
      objectiveOf(config as never)(copyOf(batch), { ...run, backend: 'cuda' }),
  ],
];
const dpoConfig = { method: 'dpo', beta: 0.1, sftWeight: 0.25 };

describe.runIf(cuda.available).each(ways)('gradientScale %s', (_, compute) => {
  test.each(dtypes)(
    '%s: multiplies the gradient, before it is rounded, and nothing else',
    (dtype) => {
      const batch = randomBatch({ seed: 41, sequences: 6, tokens: 4, vocab: 65, dtype });
      const { gradLogits: plain, ...values } = compute(dpoConfig, batch, {});
      const { gradLogits, ...scaled } = compute(dpoConfig, batch, { gradientScale: 2 ** 9 });
      expect(scaled).toStrictEqual(values);
      const read = (array: Elements | undefined): Float64Array =>
        dtype === 'float32' ? Float64Array.from(present(array)) : decodeHalf(present(array), dtype);
      const misses = new Misses();
      // Exact, but where the numbers of float16 were subnormal.
      const bound = (x: number): number =>
        dtype === 'float16' && Math.abs(x) < 2 ** -5 ? 2 ** 9 * halfBound(x / 2 ** 9, dtype) : 0;
      misses.each(
        'gradient',
        read(gradLogits),
        read(plain).map((x) => 2 ** 9 * x),
        bound,
      );
      expect(misses.list).toEqual([]);
    },
  );

  test('0 leaves zeros for infinite coefficients; nonfinite and underflow as on the CPU', () => {
    const batch = randomBatch({ seed: 47, sequences: 4, tokens: 3, vocab: 33 });
    const infinite = { method: 'ipo', beta: 1e-310 };
    const { gradLogits, metrics } = compute(infinite, batch, { gradientScale: 0 });
    expect(sameBits(present(gradLogits), new Float32Array(batch.logits.length))).toBe(true);
    expect(metrics.nonfinite).toBe(2);
    for (const gradientScale of [1e-36, 1e-38, -1e30, 1e308]) {
      const { nonfinite, underflow } = objectiveOf(dpoConfig as never)(batch, {
        gradientScale,
      }).metrics;
      expect(compute(dpoConfig, batch, { gradientScale }).metrics).toMatchObject({
        nonfinite,
        underflow,
      });
    }
  });

  test('factored: the scales of the rows carry it', () => {
    const batch = randomBatch({ seed: 42, sequences: 4, tokens: 3, vocab: 33 });
    const plain = compute(dpoConfig, batch, { gradient: 'factored' });
    const scaled = compute(dpoConfig, batch, { gradient: 'factored', gradientScale: -2 });
    expect(sameBits(present(scaled.gradLogits), present(plain.gradLogits))).toBe(true);
    expect(scaled.rowScale?.map((x) => x + 0)).toStrictEqual(
      plain.rowScale?.map((x) => -2 * x + 0),
    );
  });
});

describe.runIf(cuda.available)('gradientScale of an output layer', () => {
  test.each(dtypes)('%s', (dtype) => {
    const batch = randomHidden({ seed: 43, sequences: 4, tokens: 3, vocab: 40, size: 8, dtype });
    const dpo = dirAlignLoss('dpo', 0.1);
    const plain = dpo.fromHidden(batch, { backend: 'cuda' });
    const scaled = dpo.fromHidden(batch, { backend: 'cuda', gradientScale: 8 });
    expect(scaled.coefficients).toStrictEqual(plain.coefficients);
    for (const name of gradients) {
      if (name === 'gradHidden' && dtype === 'float16') continue; // subnormal numbers gain digits
      const half = name === 'gradHidden' && dtype !== 'float32';
      const read = (array: ArrayLike<number>): Float64Array =>
        half ? decodeHalf(array, dtype) : Float64Array.from(array);
      expect(read(present(scaled[name]))).toStrictEqual(
        read(present(plain[name])).map((x) => 8 * x),
      );
    }
    // Into what is there, which keeps its size.
    const gradWeight = new Float32Array(batch.weight.length).fill(1);
    dpo.fromHidden(batch, {
      backend: 'cuda',
      gradientScale: 0,
      accumulate: true,
      out: { gradWeight },
    });
    expect(gradWeight.every((x) => x === 1)).toBe(true);
  });
});

describe.runIf(cuda.available)('metrics of rows', () => {
  describe.each(ways)('%s', (_, compute) => {
    test.each(dtypes.flatMap((dtype) => [1, 33, 2500].map((vocab) => [dtype, vocab] as const)))(
      '%s, vocab %i: as the rows have them, and every other bit as without',
      (dtype, vocab) => {
        const batch = randomBatch({ seed: 44, sequences: 4, tokens: 3, vocab, dtype });
        for (const gradient of ['dense', 'factored', 'none'] as const) {
          const { metrics, ...plain } = compute({ method: 'dpo', beta: 0.1 }, batch, { gradient });
          const measured = compute({ method: 'dpo', beta: 0.1 }, batch, {
            gradient,
            metrics: rowMetricNames,
          });
          checkRowMetrics(batch, measured.metrics);
          expect(measured).toMatchObject(plain);
          expect(measured.metrics).toMatchObject(metrics);
        }
      },
    );

    test.each(dtypes)(
      '%s: means of the lowest logits, which masked words have, are finite',
      (dtype) => {
        const batch = randomBatch({ seed: 48, sequences: 2, tokens: 2, vocab: 700, dtype });
        const lowest = { float32: -(2 ** 128 - 2 ** 104), float16: 0xfbff, bfloat16: 0xff7f }[
          dtype
        ];
        const { metrics } = compute(
          dpoConfig,
          { ...batch, logits: batch.logits.map(() => lowest) },
          { metrics: ['logits/chosen'] },
        );
        const value =
          dtype === 'float32' ? lowest : at(decodeHalf(Uint16Array.of(lowest), dtype), 0);
        expect((metrics as RowMetrics)['logits/chosen'] / value).toBeCloseTo(1, 6);
      },
    );

    test('over the logits that the gradient replaces, with prompts and empty sequences', () => {
      const batch = randomBatch({ seed: 45, sequences: 6, tokens: 5, vocab: 70, ignored: 0.5 });
      const labels = batch.labels.slice().fill(-100, 5, 10);
      const result = compute(
        dpoConfig,
        { ...batch, labels },
        { metrics: rowMetricNames, inPlace: true },
      );
      checkRowMetrics({ ...batch, labels }, result.metrics);
      expect(result.metrics.empty_sequences).toBe(1);
      const none = compute(
        dpoConfig,
        { ...batch, labels: labels.fill(-100) },
        { metrics: rowMetricNames },
      );
      for (const name of rowMetricNames) expect((none.metrics as RowMetrics)[name]).toBe(0);
    });
  });

  test('of an output layer, in chunks: those of the CPU', () => {
    const batch = randomHidden({ seed: 46, sequences: 4, tokens: 6, vocab: 70, size: 8 });
    const dpo = dirAlignLoss('dpo', 0.1);
    const { metrics: expected } = dpo.fromHidden(batch, { metrics: rowMetricNames });
    for (const memory of [10_000, 2 ** 24]) {
      for (const gradient of ['dense', 'none'] as const) {
        const { metrics } = dpo.fromHidden(batch, {
          backend: 'cuda',
          gradient,
          memory,
          metrics: rowMetricNames,
        });
        const misses = new Misses();
        for (const name of rowMetricNames) misses.near(name, metrics[name], expected[name], 1e-5);
        expect(misses.list).toEqual([]);
      }
    }
  });
});
