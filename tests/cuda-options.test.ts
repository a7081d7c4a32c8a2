// Options of a run on a device: in device memory, and on host arrays that travel there.
import { describe, expect, test } from 'vitest';
import { cuda, dirAlignLoss, type LossResult, type RunOptions } from '../ts/index.js';
import { dtypes, objectiveOf, randomBatch, type HostBatch } from './support/batches.js';
import { Misses } from './support/bounds.js';
import { Copy, expectDevice, takeGradient, type Elements } from './support/device.js';
import { gradients, randomHidden } from './support/hidden.js';
import { decodeHalf, present, sameBits } from './support/numbers.js';
import { halfBound } from './support/bounds.js';

expectDevice();

type Result = LossResult<Elements>;
type Run = Pick<RunOptions, 'gradient' | 'gradientScale'>;

const ways: readonly [string, (config: object, batch: HostBatch, run: Run) => Result][] = [
  [
    'in device memory',
    (config, batch, run) => {
      using logits = new Copy(batch.logits, batch.dtype, { shift: 1 });
      const { gradLogits, ...values } = objectiveOf(config as never)({ ...batch, logits: logits.tensor }, run);
      return { ...values, ...(gradLogits && { gradLogits: takeGradient(gradLogits, batch.logits) }) };
    },
  ],
  ['on host arrays', (config, batch, run) => objectiveOf(config as never)(batch, { ...run, backend: 'cuda' })],
];
const dpoConfig = { method: 'dpo', beta: 0.1, sftWeight: 0.25 };

describe.runIf(cuda.available).each(ways)('gradientScale %s', (_, compute) => {
  test.each(dtypes)('%s: multiplies the gradient, before it is rounded, and nothing else', (dtype) => {
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
  });

  test('factored: the scales of the rows carry it', () => {
    const batch = randomBatch({ seed: 42, sequences: 4, tokens: 3, vocab: 33 });
    const plain = compute(dpoConfig, batch, { gradient: 'factored' });
    const scaled = compute(dpoConfig, batch, { gradient: 'factored', gradientScale: -2 });
    expect(sameBits(present(scaled.gradLogits), present(plain.gradLogits))).toBe(true);
    expect(scaled.rowScale?.map((x) => x + 0)).toStrictEqual(plain.rowScale?.map((x) => -2 * x + 0));
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
      const read = (array: ArrayLike<number>): Float64Array => (half ? decodeHalf(array, dtype) : Float64Array.from(array));
      expect(read(present(scaled[name]))).toStrictEqual(read(present(plain[name])).map((x) => 8 * x));
    }
    // Into what is there, which keeps its size.
    const gradWeight = new Float32Array(batch.weight.length).fill(1);
    dpo.fromHidden(batch, { backend: 'cuda', gradientScale: 0, accumulate: true, out: { gradWeight } });
    expect(gradWeight.every((x) => x === 1)).toBe(true);
  });
});
