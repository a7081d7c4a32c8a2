import { describe, expect, test } from 'vitest';
import {
  decodeBfloat16,
  decodeFloat16,
  Dual,
  exp,
  expm1,
  finiteDifference,
  log1mexp,
  logOdds,
  logSigmoid,
  type ReferenceConfig,
  referenceFromLogps,
  referenceHiddenLoss,
  referenceLogps,
  referenceLoss,
  referenceTokenLogps,
  relu,
  sigmoid,
  softplus,
} from '../../ts/verification/reference.js';
import type { LogitsBatch, LogpsBatch } from '../../ts/batch/types.js';
import { layerBatch, loadLayerCases } from '../support/hidden.js';
import { generator } from '../support/numbers.js';

function relativeError(actual: number, expected: number): number {
  return actual === expected ? 0 : Math.abs(actual - expected) / Math.abs(expected);
}

function largestError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  const scale = Math.max(...Array.from(expected, Math.abs));
  return Math.max(
    ...Array.from(expected, (x, i) =>
      actual[i] === x ? 0 : Math.abs((actual[i] ?? NaN) - x) / scale,
    ),
  );
}

function softplusOf(x: number): number {
  return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
}

function randomLogps(seed: number, pairs: number): LogpsBatch {
  const random = generator(seed);
  const counts = Int32Array.from({ length: 2 * pairs }, () => 1 + Math.floor(20 * random()));
  const logps = Float64Array.from(counts, (n) => -n * (0.05 + 2 * random()));
  const reference = Float64Array.from(logps, (s) => s * (0.7 + 0.6 * random()));
  return { logps, counts, reference };
}

function randomBatch(
  seed: number,
  [sequences, tokens, vocab]: [number, number, number],
): LogitsBatch {
  const random = generator(seed);
  const rows = sequences * tokens;
  return {
    logits: Float32Array.from({ length: rows * vocab }, () => 6 * random() - 3),
    shape: [sequences, tokens, vocab],
    labels: Int32Array.from({ length: rows }, () =>
      random() < 0.3 ? -100 : Math.floor(vocab * random()),
    ),
    reference: Float64Array.from({ length: sequences }, () => -tokens * 2 * random()),
  };
}

describe('decoders', () => {
  // Through the bits of a float32: a way that shares no arithmetic with the definition.
  const float32 = new Float32Array(1);
  const bits32 = new Uint32Array(float32.buffer);
  const fromBits = (bits: number): number => {
    bits32[0] = bits;
    return float32[0] ?? NaN;
  };

  test('bfloat16: all 65536 values are the upper halves of float32s', () => {
    for (let bits = 0; bits < 0x10000; bits++)
      expect(Object.is(decodeBfloat16(bits), fromBits(bits * 0x10000))).toBe(true);
  });

  test('float16: all 65536 values are float32s with a rebased exponent', () => {
    for (let bits = 0; bits < 0x10000; bits++) {
      const sign = bits & 0x8000 ? -1 : 1;
      const magnitude = bits & 0x7fff;
      // Shifted into a float32 the exponent is 112 too small, which one exact product mends,
      // subnormals included.
      const finite = fromBits(magnitude << 13) * 2 ** 112;
      const special = magnitude === 0x7c00 ? Infinity : NaN;
      expect(Object.is(decodeFloat16(bits), sign * (magnitude < 0x7c00 ? finite : special))).toBe(
        true,
      );
    }
  });
});

describe('dual numbers', () => {
  const functions: [name: string, f: (x: Dual) => Dual, points: number[]][] = [
    ['exp', exp, [-3, 0, 2]],
    ['expm1', expm1, [-3, 1e-3, 2]],
    ['sigmoid', sigmoid, [-20, -1, 0, 1, 5]],
    ['softplus', softplus, [-20, -1, 0, 1, 20]],
    ['logSigmoid', logSigmoid, [-20, -1, 0, 1, 20]],
    ['log1mexp', log1mexp, [-10, -1, -Math.LN2, -0.1, -1e-6, -1e-14]],
    ['logOdds', logOdds, [-30, -1, -0.1, -1e-6, -1e-14]],
    ['relu', relu, [-1, 1]],
    ['squared', (x) => x.squared(), [-2, 3]],
    ['product', (x) => exp(x).times(sigmoid(x)), [-2, 1]],
    ['difference', (x) => exp(x).minus(x.times(3)).plus(1), [-2, 1]],
  ];

  test.each(functions)('%s: derivative agrees with differences', (_, f, points) => {
    for (const x of points) {
      const { dChosen, dRejected } = f(new Dual(x, 1, -2));
      const bound = x < 0 ? 0 : Infinity;
      const { gradient } = finiteDifference(([y = NaN]) => f(new Dual(y)).value, [x], { bound });
      expect(relativeError(dChosen, gradient[0] ?? NaN)).toBeLessThan(1e-9);
      expect(dRejected).toBeCloseTo(-2 * dChosen, 12);
    }
  });

  test('near certainty the odds and their derivative keep all digits', () => {
    // 1 - e^a = x (1 - x/2 + ...) for a = -x, so that o = -log x - x/2 + ... and o' = 1/x + 1/2 +
    // ...
    for (const x of [1e-8, 1e-14, 1e-30]) {
      const o = logOdds(new Dual(-x, 1));
      expect(relativeError(o.value, -Math.log(x) - x / 2)).toBeLessThan(1e-15);
      expect(relativeError(o.dChosen, 1 / x + 0.5)).toBeLessThan(1e-15);
    }
  });

  test('certainty is clamped to 1e-37, for the value and the derivative', () => {
    for (const a of [0, -0, -1e-40, -1e-37]) {
      const o = logOdds(new Dual(a, 1));
      expect(relativeError(o.value, 37 * Math.LN10)).toBeLessThan(1e-15);
      expect(relativeError(o.dChosen, 1e37)).toBeLessThan(1e-15);
    }
  });

  test('the kink of max(0, x) has derivative 0, and NaN stays NaN', () => {
    expect(relu(new Dual(0, 1)).dChosen).toBe(0);
    expect(relu(new Dual(NaN, 1))).toEqual(new Dual(NaN, NaN, 0));
  });

  test('a derivative of 0 outweighs an infinite slope', () => {
    const infinite = exp(new Dual(Infinity, 0, 1));
    expect([infinite.value, infinite.dChosen, infinite.dRejected]).toEqual([Infinity, 0, Infinity]);
  });

  test('a product of numbers that are beyond float64 has the value it has', () => {
    for (const x of [700, 750, 1e4, 1e6]) {
      const product = exp(new Dual(x, 1)).times(exp(new Dual(-x, 1)));
      const slope = softplus(new Dual(-x, 1)).times(exp(new Dual(x)));
      for (const value of [product.value, product.dChosen / 2, slope.dChosen])
        expect(Math.abs(value - 1)).toBeLessThan(1e-15);
    }
    expect(exp(new Dual(-1e4)).value).toBe(0);
    expect(exp(new Dual(1e4)).minus(exp(new Dual(1e4 + 1e-3))).value).toBe(-Infinity);
    // Subnormal: rounded once.
    expect(exp(new Dual(-744.4400719213812)).value).toBe(5e-324);
  });
});

describe('finite differences', () => {
  test('see slopes at both scales near 0', () => {
    // log-odds move over 1e-12, log-ratios over 1.
    const batch: LogpsBatch = {
      logps: Float64Array.of(-1e-12, -2),
      counts: Int32Array.of(1, 1),
      reference: Float64Array.of(-1, -1),
    };
    for (const method of ['asft', 'dpo'] as const) {
      const f = (logps: Float64Array): number =>
        referenceFromLogps({ method, beta: 0.5 }, { ...batch, logps }).loss;
      const { gradLogps } = referenceFromLogps({ method, beta: 0.5 }, batch);
      expect(largestError(finiteDifference(f, batch.logps).gradient, gradLogps)).toBeLessThan(1e-8);
    }
  });
});

describe('conventions', () => {
  const dpo = { method: 'dpo', beta: 0.1 } as const;

  test('a sequence without scored rows has score 0 that depends on nothing', () => {
    const batch: LogpsBatch = {
      logps: Float64Array.of(-3, 0),
      counts: Int32Array.of(2, 0),
      reference: Float64Array.of(-4, -123),
    };
    const ratio = referenceFromLogps(dpo, batch);
    expect(ratio.loss).toBeCloseTo(softplusOf(-0.1), 15);
    expect(ratio.gradLogps[1]).toBe(0);
    expect(ratio.rewards[1]).toBe(0);
    const odds = referenceFromLogps({ method: 'asft', beta: 0.5 }, batch);
    const o = -1.5 - Math.log(-Math.expm1(-1.5));
    expect(odds.loss).toBeCloseTo(softplusOf(-0.5 * o) + Math.LN2, 14);
    expect(odds.gradLogps[1]).toBe(0);
  });

  test('aot: ties are ordered by pair, losses by rank', () => {
    const logps = Float64Array.of(-1, -1, -3, -2, -2, -2);
    const reference = Float64Array.of(-1, -1, -1, -1, -1, -1);
    const { losses, gradLogps } = referenceFromLogps(
      { method: 'aot_unpaired', beta: 1 },
      { logps, counts: new Int32Array(6).fill(1), reference },
    );
    // Ascending r_w: pairs 2, 0, 1; r_l: pairs 0, 1, 2.
    expect(Array.from(losses)).toEqual([softplusOf(1), softplusOf(-1), softplusOf(-1)]);
    expect(gradLogps[2]).toBe(-(gradLogps[3] ?? NaN));
    expect(gradLogps[0]).toBe(-(gradLogps[4] ?? NaN));
  });

  test('sft: losses of the token reduction are shares whose mean is the loss', () => {
    const batch: LogpsBatch = {
      logps: Float64Array.of(-3, -8, -1),
      counts: Int32Array.of(2, 4, 1),
    };
    const { loss, losses } = referenceFromLogps({ method: 'sft', sftReduction: 'token' }, batch);
    expect(loss).toBeCloseTo(12 / 7, 15);
    expect(losses[0]).toBeCloseTo((3 * 3) / 7, 15);
    expect(referenceFromLogps({ method: 'sft' }, batch).loss).toBeCloseTo((1.5 + 2 + 1) / 3, 15);
    expect(referenceFromLogps({ method: 'sft', normalize: false }, batch).loss).toBeCloseTo(4, 15);
  });

  test('coefficients leave the likelihood term out, gradLogits and gradLogps do not', () => {
    const batch = randomBatch(7, [4, 5, 6]);
    const config = { method: 'dpo', beta: 0.1, sftWeight: 0.5, normalize: true } as const;
    const full = referenceLoss(config, batch);
    expect(full.coefficients).toEqual(
      referenceLoss({ ...config, sftWeight: 0 }, batch).coefficients,
    );
    const { logps, counts } = referenceLogps(batch);
    const { gradLogps } = referenceFromLogps(config, {
      logps,
      counts,
      ...(batch.reference && { reference: batch.reference }),
    });
    gradLogps.forEach((g, b) => {
      const likelihood = b < 2 ? -0.5 / 2 / (counts[b] ?? NaN) : 0;
      expect(g).toBeCloseTo((full.coefficients[b] ?? NaN) + likelihood, 14);
    });
  });

  test('separate likelihood labels score their own rows of the chosen half', () => {
    const batch = randomBatch(8, [2, 4, 5]);
    const labels = Int32Array.of(-100, -100, 1, 2, -100, 0, 3, 4);
    const sftLabels = Int32Array.of(4, 3, 1, 2, -100, -100, -100, -100);
    const config = { method: 'orpo', beta: 1, sftWeight: 1, sftReduction: 'token' } as const;
    const { loss, gradLogits } = referenceLoss(config, { ...batch, labels, sftLabels });
    const nll = -(referenceLogps({ ...batch, labels: sftLabels }).logps[0] ?? NaN) / 4;
    expect(loss).toBeCloseTo(
      referenceLoss({ method: 'orpo', beta: 1 }, { ...batch, labels }).loss + nll,
      14,
    );
    expect(gradLogits[4]).toBeLessThan(0);
  });

  test('packed, strided and padded batches of the same rows agree', () => {
    const padded = randomBatch(9, [4, 3, 5]);
    const { logits, labels, reference } = padded as {
      logits: Float32Array;
      labels: Int32Array;
      reference: Float64Array;
    };
    const strided = new Float32Array(12 * 8).fill(NaN);
    for (let row = 0; row < 12; row++) strided.set(logits.subarray(row * 5, row * 5 + 5), row * 8);
    const expected = referenceLoss(dpo, padded);
    expect(referenceLoss(dpo, { ...padded, logits: strided, rowStride: 8 })).toEqual(expected);
    const offsets = Int32Array.of(0, 3, 6, 9, 12);
    expect(referenceLoss(dpo, { logits, shape: [12, 5], offsets, labels, reference })).toEqual(
      expected,
    );
  });

  test('the 16 bits of a logit mean what dtype says', () => {
    const batch = { shape: [1, 1, 2], labels: Int32Array.of(0) } as const;
    const logps = (logits: Uint16Array, dtype: 'float16' | 'bfloat16'): number | undefined =>
      referenceLogps({ ...batch, logits, dtype }).logps[0];
    expect(logps(Uint16Array.of(0x3c00, 0x4000), 'float16')).toBeCloseTo(-softplusOf(1), 15);
    expect(logps(Uint16Array.of(0x3f80, 0x4000), 'bfloat16')).toBeCloseTo(-softplusOf(1), 15);
  });

  test('token log-probabilities, logsumexp and entropy', () => {
    const logits = Float32Array.of(
      1,
      1,
      1,
      1,
      0,
      -Infinity,
      0,
      -Infinity,
      40,
      0,
      0,
      0,
      NaN,
      NaN,
      NaN,
      NaN,
    );
    const { logps, logsumexp, entropy } = referenceTokenLogps({
      logits,
      shape: [1, 4, 4],
      labels: Int32Array.of(2, 0, 0, -100),
    });
    const rest = 3 * Math.exp(-40);
    expect(largestError(logps, [-Math.log(4), -Math.LN2, -rest, 0])).toBeLessThan(1e-15);
    expect(relativeError(logps[2] ?? NaN, -rest)).toBeLessThan(1e-15);
    expect(largestError(logsumexp, [1 + Math.log(4), Math.LN2, 40, 0])).toBeLessThan(1e-15);
    expect(relativeError(entropy[2] ?? NaN, rest + 40 * rest)).toBeLessThan(1e-14);
    expect(entropy[0]).toBeCloseTo(Math.log(4), 15);
  });

  test('one class, a certain label, an impossible label', () => {
    const row = (...logits: number[]): number | undefined =>
      referenceLogps({
        logits: Float32Array.from(logits),
        shape: [1, 1, logits.length],
        labels: Int32Array.of(0),
      }).logps[0];
    expect(row(5)).toBe(0);
    expect(row(1e4, -1e4)).toBe(0);
    expect(row(-Infinity, 0)).toBe(-Infinity);
    for (const bad of [
      row(NaN, 0),
      row(0, NaN),
      row(Infinity, 0),
      row(0, Infinity),
      row(-Infinity, -Infinity),
    ])
      expect(bad).toBeNaN();
  });

  test('NaN stays in its pair, and ignored rows are never read', () => {
    const batch = randomBatch(10, [6, 2, 4]);
    const labels = Int32Array.from({ length: 12 }, (_, row) => (row % 2 === 0 ? -100 : 1));
    const logits = Float32Array.from(batch.logits as Float32Array, (z, i) =>
      Math.floor(i / 4) % 2 === 0 ? NaN : z,
    );
    const expected = referenceLoss(dpo, { ...batch, labels });
    expect(referenceLoss(dpo, { ...batch, labels, logits })).toEqual(expected);
    logits[4 * 3] = NaN;
    const poisoned = referenceLoss(dpo, { ...batch, labels, logits });
    expect(poisoned.loss).toBeNaN();
    expect(poisoned.losses[1]).toBeNaN();
    for (const pair of [0, 2]) expect(poisoned.losses[pair]).toBe(expected.losses[pair]);
    for (const row of [1, 5, 7, 11]) {
      const [from, to] = [4 * row, 4 * row + 4];
      expect(poisoned.gradLogits.slice(from, to)).toEqual(expected.gradLogits.slice(from, to));
    }
  });

  test.each([
    [{ method: 'dpo' }, 'ERR_DIRALIGN_OPTION'],
    [{ method: 'dpo', beta: 0 }, 'ERR_DIRALIGN_OPTION'],
    [{ method: 'dpo', beta: 1, gamma: 1 }, 'ERR_DIRALIGN_OPTION'],
    [{ method: 'nothing' as 'dpo', beta: 1 }, 'ERR_DIRALIGN_OPTION'],
  ] satisfies [ReferenceConfig, string][])('%j is refused', (config, code) => {
    expect(() => referenceFromLogps(config, randomLogps(11, 2))).toThrow(
      expect.objectContaining({ code }) as Error,
    );
  });
});

describe('output layers', () => {
  // Of published implementations, and in 120 digits; the gradients are stored in float32.
  test.each(loadLayerCases().map((c) => [c.id, c] as const))('%s', (_, c) => {
    const { loss, logps, gradHidden, gradWeight, gradBias } = referenceHiddenLoss(
      c.call,
      layerBatch(c),
    );
    expect(Math.abs(loss - c.loss)).toBeLessThan(1e-12 * Math.max(1, Math.abs(c.loss)));
    logps.forEach((logp, b) => {
      expect(Math.abs(logp - (c.input.logps[b] ?? NaN))).toBeLessThan(1e-12 * Math.abs(logp));
    });
    const pairs = [
      [gradHidden, c.gradients.hidden],
      [gradWeight, c.gradients.weight],
      [gradBias, c.gradients.bias],
    ] as const;
    for (const [own, expected] of pairs) {
      if (!expected) continue;
      const largest = expected.reduce((x, y) => Math.max(x, Math.abs(y)), 0);
      const wrong = own.findIndex(
        (x, i) => !(Math.abs(x - (expected[i] ?? NaN)) <= 2 ** -24 * Math.abs(x) + 1e-13 * largest),
      );
      expect(wrong).toBe(-1);
    }
  });

  test('a batch of another size, and of another type, is refused', () => {
    const batch = {
      hidden: new Float32Array(6),
      weight: new Float32Array(6),
      shape: [2, 1, 2] as const,
      labels: Int32Array.of(0, 1),
    };
    const call = { method: 'cpo', beta: 1 } as const;
    expect(referenceHiddenLoss(call, batch).gradBias).toHaveLength(2);
    expect(() => referenceHiddenLoss(call, { ...batch, hidden: new Float32Array(5) })).toThrow(
      'hidden: 5',
    );
    expect(() => referenceHiddenLoss(call, { ...batch, hiddenSize: 2 })).toThrow('hidden: 6');
    expect(() => referenceHiddenLoss(call, { ...batch, bias: new Float32Array(3) })).toThrow(
      'bias: 3',
    );
    expect(() => referenceHiddenLoss(call, { ...batch, weight: new Uint16Array(6) })).toThrow(
      'weight: a Uint16Array',
    );
  });
});
