// Transformed logits and losses of the caller's own on a device, in every shape, against float64.
// Few and small: the emulation is slow.
import { describe, expect, test } from 'vitest';
import { cuda, tokenLogps, type LogitsBatch } from '../../ts/index.js';
import {
  referenceLogpsBackward,
  referenceLoss,
  referenceTokenLogps,
  type ReferenceConfig,
} from '../../ts/verification/reference.js';
import { dtypes } from '../support/batches.js';
import { gradientBound, largestOf, logpBound, lossBound, Misses } from '../support/bounds.js';
import { expectDevice } from '../support/expect-device.js';
import { at, choose, generator, normal } from '../support/numbers.js';
import {
  backwardCall,
  exact,
  nearGradient,
  objectiveCall,
  randomRows,
  tokensCall,
  transforms,
  ways,
  type Numbers,
} from '../support/on-device.js';

expectDevice();

/** Odd ones and several parts: a part of float32 is 8192 words, one of 16 bits 16384. */
const shapes = [
  { vocab: 1, padding: 0 },
  { vocab: 5, padding: 0 },
  { vocab: 257, padding: 6 },
  { vocab: 8195, padding: 1 },
  { vocab: 16651, padding: 0 },
] as const;

describe.runIf(cuda.available).each(ways)('shapes, $name', ({ compute }) => {
  const cases = dtypes.flatMap((dtype, d) =>
    shapes.map((shape, s) => ({
      dtype,
      ...shape,
      transform: choose(generator(d * 9 + s), transforms),
    })),
  );

  test.each(cases)('$dtype, vocab $vocab: $transform', ({ transform, ...spec }) => {
    const rows = randomRows(7, spec);
    const batch = { ...rows, ...transform };
    const config: ReferenceConfig = { method: 'dpo', beta: 0.4, sftWeight: 0.5 };
    const expected = referenceLoss(config, exact(batch));
    const largest = largestOf(expected.gradLogits);
    const misses = new Misses();
    const inPlace = { inPlace: true } as const;
    for (const [shift, run] of [
      [0, {}],
      [1, inPlace],
      [3, {}],
    ] as const) {
      const result = compute(batch, objectiveCall(config), run, shift);
      misses.near('loss', result.loss as number, expected.loss, lossBound(expected.loss) * 4);
      nearGradient(misses, rows, result.gradLogits, expected.gradLogits, (x) =>
        gradientBound(Math.abs(x), largest),
      );
    }
    const factored = compute(batch, objectiveCall(config), { gradient: 'factored', ...inPlace });
    const scales = factored.rowScale as Float32Array;
    const { labels } = batch;
    const ones = Float64Array.from(labels, (label) => (label === -100 ? 0 : 1));
    const residuals = referenceLogpsBackward(
      { ...exact(batch), tokenWeights: undefined } as never,
      { rows: ones },
    ).gradLogits;
    nearGradient(misses, rows, factored.gradLogits, residuals, (x) =>
      gradientBound(Math.abs(x), 1),
    );
    const { vocab } = spec;
    labels.forEach((_, row) => {
      const [first, of] = [row * vocab, (i: number) => Math.abs(at(residuals, i))];
      let v = first;
      for (let i = first; i < first + vocab; i++) if (of(i) > of(v)) v = i;
      misses.near(
        () => `rowScale[${row}]`,
        at(scales, row) * at(residuals, v),
        at(expected.gradLogits, v),
        gradientBound(Math.abs(at(expected.gradLogits, v)), 0),
      );
    });
    expect(misses.list).toEqual([]);
  });

  test.each(cases)('of one’s own, $dtype, vocab $vocab: $transform', ({ transform, ...spec }) => {
    const random = generator(31);
    const batch = { ...randomRows(8, spec), ...transform, tokenWeights: undefined };
    const rows = Float64Array.from(batch.labels, (_, i) => (i === 1 ? 0 : normal(random)));
    const entropy = rows.map(() => normal(random));
    const reference = referenceTokenLogps(exact(batch as never) as never);
    const misses = new Misses();
    const forward = compute(batch, tokensCall) as unknown as ReturnType<typeof tokenLogps<true>>;
    for (const name of ['logps', 'logsumexp', 'entropy', 'logCollision'] as const)
      misses.each(name, forward[name], reference[name], (x) => logpBound(x, 4));
    for (const derivatives of [{ rows }, { rows, entropy }, { entropy }]) {
      const { gradLogits } = referenceLogpsBackward(exact(batch as never) as never, derivatives);
      const vocab = spec.vocab;
      const largest = Array.from(rows, (_, row) =>
        largestOf(gradLogits.subarray(row * vocab, (row + 1) * vocab)),
      );
      for (const known of [{}, { forward }])
        for (const run of [{}, { inPlace: true }] as const) {
          const call = backwardCall({ ...derivatives, ...known });
          const result = compute(batch, call, run, 3);
          nearGradient(misses, batch as never, result.gradLogits, gradLogits, (x, row) =>
            'entropy' in derivatives
              ? gradientBound(at(largest, row), 0)
              : gradientBound(Math.abs(x), at(largest, row)),
          );
        }
    }
    const { gradLogits } = referenceLogpsBackward(exact(batch as never) as never, {
      rows: Float64Array.from(batch.labels, () => 1),
    });
    for (const known of [{}, { forward }]) {
      const run = { gradient: 'factored' } as const;
      const result = compute(batch, backwardCall({ rows, ...known }), run);
      nearGradient(misses, batch as never, result.gradLogits, gradLogits, (x) =>
        gradientBound(Math.abs(x), 1),
      );
      const scored = rows.map((x, row) => (batch.labels[row] === -100 ? 0 : x));
      expect(result.rowScale).toEqual(Float32Array.from(scored));
    }
    expect(misses.list).toEqual([]);
  });

  test('no transform, whatever else: the plain kernels’ bits', () => {
    const batch = randomRows(9, { vocab: 300 });
    const plain = compute(batch, objectiveCall({ method: 'dpo', beta: 0.4 }));
    const same = { ...batch, logitScale: 2, temperature: 2 };
    const result = compute(same, objectiveCall({ method: 'dpo', beta: 0.4 }));
    expect(result.gradLogits).toEqual(plain.gradLogits);
    expect(result.loss).toBe(plain.loss);
    const tokens = (collision: boolean) =>
      compute(batch, (b: LogitsBatch, run: object) => tokenLogps(b, { ...run, collision }));
    for (const name of ['logps', 'logsumexp', 'entropy'])
      expect(tokens(true)[name]).toEqual(tokens(false)[name]);
  });

  test.each([{ logitSoftcap: 3 }, { logitScale: 4 }, { logitScale: 1e30 }])(
    'infinities and NaN: %o',
    (transform) => {
      const rows = randomRows(10, { sequences: 2, tokens: 3, vocab: 40 });
      const logits = rows.logits as Float32Array<ArrayBuffer>;
      const labels = Int32Array.from({ length: 6 }, () => 5);
      logits.fill(-Infinity, 20, 40); // masked words
      logits[40 + 7] = Infinity;
      logits[2 * 40 + 7] = NaN;
      logits.fill(-Infinity, 3 * 40, 4 * 40);
      logits[4 * 40 + 5] = -Infinity;
      const batch = { ...rows, labels, ...transform, tokenWeights: undefined };
      const { logps } = compute(batch, tokensCall) as unknown as { logps: Float64Array };
      const expected = referenceTokenLogps(exact(batch as never) as never).logps;
      // Logits are float32 before their difference is taken.
      const { logitScale = 1 } = transform as { readonly logitScale?: number };
      const rounding = logitScale * largestOf(logits.subarray(0, 20)) * 2 ** -23;
      const misses = new Misses();
      misses.near('logps[0]', logps[0], at(expected, 0), logpBound(at(expected, 0), 1) + rounding);
      expect(misses.list).toEqual([]);
      expect([logps[1], logps[2], logps[3]]).toEqual([NaN, NaN, NaN]);
      expect(logps[4]).toBe(-Infinity);
      expect(Number.isFinite(expected[0])).toBe(true);
      const { gradLogits } = compute(batch, backwardCall({ rows: new Float64Array(6).fill(1) }));
      expect(Array.from(gradLogits.subarray(20, 40), Math.abs)).toEqual(Array<number>(20).fill(0));
      expect(gradLogits.subarray(0, 20).every(Number.isFinite)).toBe(true);
      expect(gradLogits.subarray(40, 80).some(Number.isNaN)).toBe(true);
    },
  );

  test('a large scale: what remains is the largest', () => {
    const batch = { ...randomRows(11, { vocab: 70, deviation: 100 }), logitScale: 50 };
    const expected = referenceTokenLogps(exact(batch));
    const { logps } = compute(batch, tokensCall);
    // A float32 of this size, before the difference.
    const misses = new Misses();
    misses.each(
      'logps',
      logps as Numbers,
      expected.logps,
      (x) => logpBound(x, 1) + 50 * 500 * 2 ** -23,
    );
    expect(misses.list).toEqual([]);
  });
});
