// Coefficients beyond float32 in products: what the truth is, or infinity with its sign, and no
// NaN.
import { describe, expect, test } from 'vitest';
import { cuda, dirAlignLoss } from '../../ts/index.js';
import {
  referenceHiddenLoss,
  referenceLayer,
  referenceLogps,
  type ReferenceConfig,
} from '../../ts/verification/reference.js';
import { dtypes, type Dtype } from '../support/batches.js';
import { at, decodeHalf, present } from '../support/numbers.js';
import { gradients, memories, randomHidden, type HostHidden } from '../support/hidden.js';

/** Chosen sequences so many nats below their reference; rejected ones near it. */
function farBelow(nats: readonly number[], dtype: Dtype): HostHidden {
  const pairs = nats.length;
  const batch = randomHidden({
    seed: 5,
    sequences: 2 * pairs,
    tokens: 9,
    vocab: 40,
    size: 12,
    dtype,
  });
  const { logps } = referenceLogps(referenceLayer(batch).batch);
  return { ...batch, reference: logps.map((x, b) => (b < pairs ? x + at(nats, b) : x - 0.5)) };
}

const config = {
  method: 'dpo',
  beta: 0.1,
  divergence: 'forward_kl',
} as const satisfies ReferenceConfig;
const largest = 2 ** 128;

describe.each(cuda.available ? (['cpu', 'cuda'] as const) : (['cpu'] as const))('%s', (backend) => {
  test.each(dtypes)('%s: gradients of coefficients of 1e39 and 1e64', (dtype) => {
    const batch = farBelow([92, 150], dtype);
    const expected = referenceHiddenLoss(config, batch);
    const size = Math.max(...expected.coefficients.map(Math.abs));
    // From one row at a time, in products of each pair alone, to everything in one.
    for (const memory of memories(batch, config, [0, 8, 40, 400, 1000])) {
      const result = dirAlignLoss(config).fromHidden(batch, { memory, backend });
      let infinite = 0;
      for (const key of gradients) {
        const given = present(result[key]);
        const actual =
          dtype !== 'float32' && given instanceof Uint16Array ? decodeHalf(given, dtype) : given;
        expected[key].forEach((x, i) => {
          const y = at(actual, i);
          expect(y, `${key}[${i}] of ${x} with ${memory} bytes`).not.toBeNaN();
          // Errors are of the size of the sums' terms.
          if (Math.abs(x) < Math.max(2 * largest, 1e-2 * size)) return;
          infinite++;
          expect(y, `${key}[${i}] of ${x} with ${memory} bytes`).toBe(Math.sign(x) * Infinity);
        });
      }
      expect(infinite).toBeGreaterThan(100);
    }
  });

  test('what is added to stays where a word has no probability', () => {
    const batch = farBelow([92, 0], 'float32');
    const vocab = batch.shape.at(-1) ?? NaN;
    const masked = batch.labels.includes(7) ? NaN : 7;
    expect(masked).not.toBeNaN();
    const bias = present(batch.bias).slice();
    bias[masked] = -Infinity;
    const run = { backend };
    const fresh = dirAlignLoss(config).fromHidden({ ...batch, bias }, run);
    const started = {
      gradWeight: present(fresh.gradWeight).map(() => 0.5),
      gradBias: new Float32Array(vocab).fill(0.5),
    };
    const added = dirAlignLoss(config).fromHidden(
      { ...batch, bias },
      { ...run, out: started, accumulate: true },
    );
    const size = batch.weight.length / vocab;
    const ofWord = (gradient: Float32Array): number[] =>
      Array.from(gradient.subarray(masked * size, (masked + 1) * size));
    expect(ofWord(present(fresh.gradWeight)).map(Math.abs)).toEqual(
      Array.from({ length: size }, () => 0),
    );
    expect(ofWord(added.gradWeight)).toEqual(Array.from({ length: size }, () => 0.5));
    expect(added.gradBias[masked]).toBe(0.5);
    // Beside the gradients of all other words a half is nothing.
    const others = (gradient: Float32Array): number[] =>
      Array.from(gradient).filter((_, i) => Math.floor(i / size) !== masked);
    expect(others(added.gradWeight)).toEqual(others(present(fresh.gradWeight)));
    expect(others(added.gradWeight).some((x) => Math.abs(x) === Infinity)).toBe(true);
  });

  test('a coefficient below the largest float32 has its digits', () => {
    const batch = farBelow([80], 'float32');
    const expected = referenceHiddenLoss(config, batch);
    for (const memory of memories(batch, config, [0, 8, 400])) {
      const result = dirAlignLoss(config).fromHidden(batch, { memory, backend });
      for (const key of gradients) {
        const scale = Math.max(...expected[key].map(Math.abs));
        expected[key].forEach((x, i) => {
          expect(Math.abs(at(present(result[key]) as Float32Array, i) - x) / scale).toBeLessThan(
            1e-4,
          );
        });
      }
    }
  });
});
