// What must hold of any batch. Arbitrary cases are fast-check's, from fixed seeds.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { dirAlignLoss, sequenceLogps, tokenLogps } from '../../ts/index.js';
import type { LogitsArray, LossResult, Method, RunOptions } from '../../ts/index.js';
import {
  finiteDifference,
  referenceFromLogps,
  referenceLogps,
  referenceLoss,
  referenceTokenLogps,
  type ReferenceConfig,
} from '../../ts/verification/reference.js';
import {
  copyOf,
  coupled,
  dtypes,
  everyConfig,
  everyMethod,
  log1mexp,
  meanLogp,
  objectiveOf,
  permuteRows,
  randomBatch,
  randomLogps,
  softplus,
  type Dtype,
  type HostBatch,
} from '../support/batches.js';
import { gradientBound, logpBound, lossBound, Misses } from '../support/bounds.js';
import { at, choose, generator, present, sameBits, type Random } from '../support/numbers.js';

import { checkWithin } from '../support/stages.js';

const seed = fc.integer({ min: 1, max: 0x7fffffff });
const dtype = fc.constantFrom(...dtypes);
/** Lengths around the kernel's lanes, blocks and vectors, and arbitrary ones. */
const vocabulary = fc.oneof(
  fc.integer({ min: 1, max: 80 }),
  fc.constantFrom(511, 512, 513, 1023, 1025, 1537),
);
const shapes = {
  seed,
  pairs: fc.integer({ min: 1, max: 4 }),
  tokens: fc.integer({ min: 1, max: 6 }),
  vocab: vocabulary,
  dtype,
};

/** Runs of a property; the seed makes a failure repeatable. */
function check<T>(arbitrary: fc.Arbitrary<T>, property: (value: T) => void, numRuns = 100): void {
  fc.assert(fc.property(arbitrary, property), { seed: 20250203, numRuns });
}

interface Shape {
  readonly seed: number;
  readonly pairs: number;
  readonly tokens: number;
  readonly vocab: number;
  readonly dtype: Dtype;
}
const batchOf = ({ pairs, ...spec }: Shape): HostBatch =>
  randomBatch({ ...spec, sequences: 2 * pairs });

const arrays = ['losses', 'logps', 'counts', 'rewards', 'coefficients'] as const;
function expectSame(actual: LossResult, expected: LossResult, what = ''): void {
  for (const key of arrays)
    expect(sameBits(actual[key], expected[key]), `${what} ${key}`).toBe(true);
  expect(actual.loss).toBe(expected.loss);
  expect(actual.metrics).toStrictEqual(expected.metrics);
  expectSameArray(actual.gradLogits, expected.gradLogits, `${what} gradLogits`);
  expectSameArray(actual.rowScale, expected.rowScale, `${what} rowScale`);
}
function expectSameArray(
  actual: LogitsArray | undefined,
  expected: LogitsArray | undefined,
  what: string,
): void {
  expect(actual === undefined, what).toBe(expected === undefined);
  if (actual && expected) expect(sameBits(actual, expected), what).toBe(true);
}

/** This runtime has no Float16Array of its own. */
function host(array: LogitsArray | undefined): Float32Array | Uint16Array {
  return present(array) as Float32Array | Uint16Array;
}

const destinations: [string, RunOptions][] = [
  ['dense', {}],
  ['dense in place', { inPlace: true }],
  ['factored', { gradient: 'factored' }],
  ['factored in place', { gradient: 'factored', inPlace: true }],
  ['none', { gradient: 'none' }],
];

// ----------------------------------------------------------------------------------------------

describe('policy == reference', () => {
  test.each(destinations)('%s: a margin of exactly 0, and ln 2 to the last bit', (_, options) => {
    check(
      fc.record({ ...shapes, scale: fc.constantFrom(0.1, 2, 30, 1000), normalize: fc.boolean() }),
      ({ scale, normalize, pairs, ...spec }) => {
        const batch = randomBatch({ ...spec, scale, sequences: 2 * pairs });
        const { logps } = sequenceLogps(batch);
        const result = dirAlignLoss('dpo', 0.1, normalize)({ ...batch, reference: logps }, options);
        expect(sameBits(result.logps, logps)).toBe(true);
        expect(result.loss).toBe(0.6931471805599453);
        for (const loss of result.losses) expect(loss).toBe(0.6931471805599453);
        for (const reward of result.rewards) expect(reward).toBe(0);
        expect(result.metrics).toMatchObject({
          'rewards/margins': 0,
          'rewards/accuracies': 0,
          'rewards/chosen': 0,
        });
      },
      60,
    );
  });

  test('long rows, whose maximum rises block after block', () => {
    const batch = randomBatch({ seed: 1, sequences: 4, tokens: 3, vocab: 20_000 });
    const logits = batch.logits.map((x, i) => x + (i % 20_000) / 200);
    const rising = { ...batch, logits } as HostBatch;
    const { logps } = sequenceLogps(rising);
    for (const [what, options] of destinations) {
      const result = dirAlignLoss('dpo', 0.1)({ ...copyOf(rising), reference: logps }, options);
      expect([what, result.loss, result.metrics['rewards/margins']]).toEqual([
        what,
        0.6931471805599453,
        0,
      ]);
    }
  });

  test('the known constant of every method with a reference', () => {
    const [beta, e, ln2] = [0.4, 0.2, 0.6931471805599453];
    const square = (1 / (2 * beta)) ** 2;
    const smooth = 0.5 * (Math.log(0.5) - Math.log(1 - e)) + 0.5 * (Math.log(0.5) - Math.log(e));
    const constants: [ReferenceConfig, number][] = [
      [{ method: 'dpo', beta, labelSmoothing: e }, ln2],
      [{ method: 'dpo', beta, divergence: 'forward_kl' }, ln2],
      [{ method: 'dpo', beta, divergence: 'js' }, ln2],
      [{ method: 'dpo', beta, divergence: 'alpha', alpha: 0.3 }, ln2],
      [{ method: 'ipo', beta }, square],
      [{ method: 'apo_zero', beta }, 1],
      [{ method: 'nca', beta }, 2 * ln2],
      [{ method: 'cal_dpo', beta }, ln2 + 2 * square],
      [{ method: 'hinge', beta }, 1],
      [{ method: 'robust', beta, labelSmoothing: e }, ln2],
      [{ method: 'exo_pair', beta, labelSmoothing: e }, smooth],
      [{ method: 'bco_pair', beta }, 2 * ln2],
      [{ method: 'sppo_hard', beta }, 2 * square],
      [{ method: 'aot', beta }, ln2],
      [{ method: 'aot_unpaired', beta }, ln2],
      [{ method: 'discopop', beta }, 0.5 * ln2 + 0.5],
      [{ method: 'apo_down', beta }, 1],
      [{ method: 'dpop', beta, penalty: 50 }, ln2],
    ];
    const batch = randomBatch({ seed: 5, sequences: 6, tokens: 5, vocab: 40 });
    const { logps, counts } = sequenceLogps(batch);
    for (const [config, constant] of constants) {
      const { loss } = objectiveOf(config)({ ...batch, reference: logps });
      expect(Math.abs(loss - constant), JSON.stringify(config)).toBeLessThanOrEqual(
        4e-16 * constant,
      );
    }
    // The margin of r_dpo is alpha times the difference of the lengths.
    const { losses } = dirAlignLoss('r_dpo', beta, false, { alpha: 0.3 })({
      ...batch,
      reference: logps,
    });
    losses.forEach((loss, i) => {
      expect(loss).toBeCloseTo(softplus(-0.3 * (at(counts, i) - at(counts, i + 3))), 14);
    });
  });
});

describe('symmetries', () => {
  const swap = (batch: HostBatch): HostBatch => {
    const [sequences, tokens = 0, vocab = 0] = batch.shape;
    const half = sequences / 2;
    const order = Array.from({ length: sequences }, (_, b) => (b + half) % sequences);
    return permuteSequences(batch, order, tokens, vocab);
  };
  const permuteSequences = (
    batch: HostBatch,
    order: readonly number[],
    tokens: number,
    vocab: number,
  ): HostBatch => ({
    ...batch,
    logits: permuteRows(batch.logits, order, tokens * vocab),
    labels: permuteRows(batch.labels, order, tokens),
    reference: permuteRows(present(batch.reference), order, 1),
  });

  test('chosen and rejected swapped: a smoothing of e is one of 1 - e', () => {
    const methods: [Method, object][] = [
      ['dpo', {}],
      ['dpo', { divergence: 'js' }],
      ['simpo', { gamma: 0 }],
      ['cpo', {}],
      ['alphapo', { gamma: 0 }],
      ['aot_unpaired', {}],
    ];
    check(
      fc.record({ ...shapes, e: fc.double({ min: 0.01, max: 0.99, noNaN: true }) }),
      ({ e, ...shape }) => {
        const batch = batchOf(shape);
        for (const [method, options] of methods) {
          const build = (labelSmoothing: number) =>
            objectiveOf({ method, beta: 0.7, ...options, labelSmoothing });
          const one = build(e)(batch);
          const other = build(1 - e)(swap(batch));
          const order = Array.from(one.logps, (_, b) => (b + shape.pairs) % (2 * shape.pairs));
          expect(sameBits(other.logps, permuteRows(one.logps, order, 1))).toBe(true);
          expect(sameBits(other.rewards, permuteRows(one.rewards, order, 1))).toBe(true);
          expect(other.metrics['rewards/margins']).toBeCloseTo(
            -at([one.metrics['rewards/margins'] ?? NaN], 0),
            12,
          );
          if (method === 'aot_unpaired') expect(other.loss).toBeCloseTo(one.loss, 12);
          else {
            const misses = new Misses();
            misses.each(method, other.losses, one.losses, (x) => 1e-13 * Math.max(1, Math.abs(x)));
            const size = one.coefficients.reduce((x, y) => Math.max(x, Math.abs(y)), 0);
            misses.each(
              method,
              other.coefficients,
              permuteRows(one.coefficients, order, 1),
              () => 1e-13 * size,
            );
            expect(misses.list).toEqual([]);
          }
        }
      },
    );
  });

  test('dpo swapped: sp(u) - sp(-u) = u', () => {
    check(fc.record(shapes), (shape) => {
      const batch = batchOf(shape);
      const [one, other] = [dirAlignLoss('dpo', 0.3)(batch), dirAlignLoss('dpo', 0.3)(swap(batch))];
      one.losses.forEach((loss, i) => {
        const u = at(one.rewards, i) - at(one.rewards, i + shape.pairs);
        expect(Math.abs(at(other.losses, i) - loss - u)).toBeLessThanOrEqual(
          1e-14 * (1 + Math.abs(u)),
        );
      });
    });
  });

  test('permuted pairs: permuted results, bit for bit', () => {
    const configs: ReferenceConfig[] = everyMethod
      .filter((method) => method !== 'sft')
      .map((method) => ({ method, beta: 0.5, sftWeight: 0.5 }));
    check(
      fc.record({
        ...shapes,
        pairs: fc.integer({ min: 2, max: 5 }),
        tokens: fc.integer({ min: 1, max: 4 }),
      }),
      (shape) => {
        const { pairs, tokens, vocab } = shape;
        const random = generator(shape.seed);
        const order = Array.from({ length: pairs }, (_, i) => ({ i, key: random() }))
          .sort((a, b) => a.key - b.key)
          .map(({ i }) => i);
        const both = [...order, ...order.map((i) => i + pairs)];
        const batch = batchOf(shape);
        const permuted = permuteSequences(batch, both, tokens, vocab);
        for (const config of configs) {
          // One token leaves all policies the same, and equal scores keep the order of their pairs:
          // a test of its own, below.
          if (vocab === 1 && coupled.includes(config.method)) continue;
          const objective = objectiveOf(config);
          const [one, other] = [objective(batch), objective(permuted)];
          const what = `${config.method} ${JSON.stringify(order)}`;
          for (const key of ['logps', 'counts', 'rewards', 'coefficients'] as const) {
            expect(sameBits(other[key], permuteRows(one[key], both, 1)), `${what} ${key}`).toBe(
              true,
            );
          }
          const gradient = permuteRows(present(one.gradLogits), both, tokens * vocab);
          expect(sameBits(present(other.gradLogits), gradient), `${what} gradient`).toBe(true);
          if (!coupled.includes(config.method)) {
            expect(
              sameBits(other.losses, permuteRows(one.losses, order, 1)),
              `${what} losses`,
            ).toBe(true);
          }
          expect(Math.abs(other.loss - one.loss), what).toBeLessThanOrEqual(
            1e-14 * Math.abs(one.loss),
          );
        }
      },
      20,
    );
  });

  test('losses of the coupled methods go by rank: a permutation does not move them', () => {
    for (const method of coupled) {
      const random = generator(3);
      const batch = randomLogps(random, 6);
      const order = [3, 0, 5, 1, 4, 2];
      const both = [...order, ...order.map((i) => i + 6)];
      const objective = objectiveOf({ method, beta: 0.5 });
      const one = objective.fromLogps(batch);
      const other = objective.fromLogps({
        logps: permuteRows(batch.logps, both, 1),
        counts: permuteRows(batch.counts, both, 1),
        reference: permuteRows(batch.reference, both, 1),
      });
      expect(sameBits(other.losses, one.losses)).toBe(true);
      expect(other.loss).toBe(one.loss);
      expect(sameBits(other.gradLogps, permuteRows(one.gradLogps, both, 1))).toBe(true);
    }
  });

  test('coupled methods: equal scores keep the order of their pairs', () => {
    // Three pairs with the same policy margins, references that differ: the i-th smallest margin is
    // that of pair i.
    const batch = {
      logps: Float64Array.of(-1, -2, -3, -2, -3, -4),
      counts: Int32Array.of(1, 1, 1, 1, 1, 1),
      reference: Float64Array.of(-1, -1, -1, -4, -2, -3),
    };
    const { losses, gradLogps } = dirAlignLoss('aot', 1).fromLogps(batch);
    // Sorted reference margins are 1, 2, 3; every policy margin is 1.
    const u = [0, -1, -2];
    losses.forEach((loss, i) => {
      expect(loss).toBeCloseTo(softplus(-at(u, i)), 14);
    });
    u.forEach((x, i) => {
      expect(gradLogps[i]).toBeCloseTo(-1 / (1 + Math.exp(x)) / 3, 14);
      expect(gradLogps[i + 3]).toBeCloseTo(1 / (1 + Math.exp(x)) / 3, 14);
    });
  });

  test("a constant added to a row's logits changes nothing", () => {
    check(
      fc.record({ ...shapes, shift: fc.integer({ min: -5000, max: 5000 }) }),
      ({ shift, ...shape }) => {
        const batch = batchOf({ ...shape, dtype: 'float32' });
        const random = generator(shape.seed);
        // Multiples of 1/256 below 16: whole numbers can be added exactly.
        const logits = Float32Array.from(
          batch.logits,
          (x) => Math.round(Math.max(-15, Math.min(15, x)) * 256) / 256,
        );
        const shifts = Float32Array.from(batch.labels, () => Math.round(shift * random()));
        const moved = logits.map((x, i) => x + at(shifts, Math.floor(i / shape.vocab)));
        const objective = dirAlignLoss('orpo', 0.5, true, { sftWeight: 1 });
        const [one, other] = [
          objective({ ...batch, logits }),
          objective({ ...batch, logits: moved }),
        ];
        const misses = new Misses();
        misses.each('logps', other.logps, one.logps, () => 1e-15 * 6 * (20 + Math.abs(shift)));
        misses.near('loss', other.loss, one.loss, 1e-12 * (1 + Math.abs(shift)));
        const largest = present(one.gradLogits).reduce((x, y) => Math.max(x, Math.abs(y)), 0);
        misses.each(
          'gradient',
          present(other.gradLogits),
          present(one.gradLogits),
          (x) => 1e-6 * Math.abs(x) + 1e-12 * largest,
        );
        expect(misses.list).toEqual([]);
      },
    );
  });
});

describe('what is ignored is not read', () => {
  const junk = {
    float32: [0x7f800001, 0xffffffff, 0x7fc00000, 0xff800000, 0x7f800000, 0x7f7fffff],
    float16: [0x7c01, 0xffff, 0x7e00, 0xfc00, 0x7c00, 0x7bff],
    bfloat16: [0x7f81, 0xffff, 0x7fc0, 0xff80, 0x7f80, 0x7f7f],
  };
  test('NaN, infinities and huge numbers in ignored rows and between rows change no bit', () => {
    check(
      fc.record({
        ...shapes,
        extra: fc.integer({ min: 0, max: 40 }),
        method: fc.constantFrom(...everyMethod),
      }),
      (given) => {
        const { extra, method, ...shape } = given;
        const batch = batchOf(shape);
        const objective = objectiveOf({ method, ...(method === 'sft' ? {} : { beta: 0.3 }) });
        const rowStride = shape.vocab + extra;
        const values = batch.logits;
        const wide =
          values instanceof Float32Array
            ? new Float32Array(batch.labels.length * rowStride)
            : new Uint16Array(batch.labels.length * rowStride);
        const bits = wide instanceof Float32Array ? new Uint32Array(wide.buffer) : wide;
        const random = generator(shape.seed + 1);
        for (let i = 0; i < bits.length; i++) bits[i] = choose(random, junk[shape.dtype]);
        batch.labels.forEach((label, row) => {
          if (label !== -100)
            wide.set(values.subarray(row * shape.vocab, (row + 1) * shape.vocab), row * rowStride);
        });
        for (const [what, options] of destinations) {
          const clean = objective(copyOf(batch), options);
          const dirty = objective({ ...batch, logits: wide.slice(), rowStride }, options);
          expectSame({ ...dirty, gradLogits: clean.gradLogits }, clean, what);
          if (!dirty.gradLogits) continue;
          batch.labels.forEach((label, row) => {
            const found = host(dirty.gradLogits).slice(row * rowStride, (row + 1) * rowStride);
            const scored = host(clean.gradLogits).slice(row * shape.vocab, (row + 1) * shape.vocab);
            expect(
              sameBits(
                found.slice(0, shape.vocab),
                label === -100 ? new Uint8Array(scored.byteLength) : scored,
              ),
            ).toBe(true);
            expect(found.slice(shape.vocab).every((x) => Object.is(x, 0))).toBe(true);
          });
        }
      },
    );
  });

  test('rows ignored by the likelihood term alone, or by the alignment term alone', () => {
    check(fc.record({ ...shapes, dtype: fc.constant('float32' as const) }), (shape) => {
      const batch = batchOf(shape);
      const random = generator(shape.seed + 2);
      const sftLabels = batch.labels.map((label) =>
        random() < 0.5 ? label : random() < 0.5 ? -100 : Math.floor(random() * shape.vocab),
      );
      const both = { ...batch, sftLabels };
      const config: ReferenceConfig = { method: 'dpo', beta: 0.3, sftWeight: 0.8 };
      const result = objectiveOf(config)(both);
      const expected = referenceLoss(config, both);
      const alignment = referenceLoss({ ...config, sftWeight: 0 }, batch);
      const misses = new Misses();
      misses.near('loss', result.loss, expected.loss, lossBound(expected.loss));
      misses.each('losses', result.losses, expected.losses, lossBound);
      const largest = expected.gradLogits.reduce((x, y) => Math.max(x, Math.abs(y)), 0);
      misses.each('gradient', present(result.gradLogits), expected.gradLogits, (x, i) => {
        const part = at(alignment.gradLogits, i);
        return gradientBound(Math.abs(part) + Math.abs(x - part), largest);
      });
      // Without a weight the other labels mean nothing.
      const plain = dirAlignLoss('dpo', 0.3);
      expectSame(plain(both), plain(batch));
      expect(misses.list).toEqual([]);
    });
  });
});

describe('shift of the scores', () => {
  // The sum of the derivatives by the two scores of a pair. A score's own derivative kappa
  // (objectives that do not score S itself) is divided out.
  const sums = (
    config: ReferenceConfig,
    kappa: (a: number, r: number, n: number) => number,
  ): number[] => {
    const random = generator(11);
    const batch = randomLogps(random, 50);
    const { gradLogps } = objectiveOf(config).fromLogps(batch);
    const slope = (b: number): number => {
      const n = at(batch.counts, b);
      return (
        at(gradLogps, b) / kappa(meanLogp(batch, b), at(batch.logps, b) - at(batch.reference, b), n)
      );
    };
    return Array.from(
      { length: 50 },
      (_, i) =>
        Math.abs(slope(i) + slope(i + 50)) / Math.max(Math.abs(slope(i)), Math.abs(slope(i + 50))),
    );
  };
  const plain = (): number => 1;
  const perToken = (_a: number, _r: number, n: number): number => 1 / n;
  const odds = (a: number, _r: number, n: number): number => -1 / (n * Math.expm1(a));
  const beta = 0.4;
  const pairwise: [string, ReferenceConfig, (a: number, r: number, n: number) => number][] = [
    ['dpo', { method: 'dpo', beta }, plain],
    ['dpo, smoothed', { method: 'dpo', beta, labelSmoothing: 0.2 }, plain],
    ['dpo, normalised', { method: 'dpo', beta, normalize: true }, perToken],
    ['dpo, forward KL', { method: 'dpo', beta, divergence: 'forward_kl' }, (_, r) => Math.exp(-r)],
    [
      'dpo, Jensen-Shannon',
      { method: 'dpo', beta, divergence: 'js' },
      (_, r) => 1 / (1 + Math.exp(r)),
    ],
    [
      'dpo, alpha',
      { method: 'dpo', beta, divergence: 'alpha', alpha: 0.3 },
      (_, r) => Math.exp(-0.3 * r),
    ],
    ['ipo', { method: 'ipo', beta }, plain],
    ['simpo', { method: 'simpo', beta }, perToken],
    ['orpo', { method: 'orpo', beta }, odds],
    ['hinge', { method: 'hinge', beta: 0.01 }, plain],
    ['robust', { method: 'robust', beta }, plain],
    ['exo_pair', { method: 'exo_pair', beta }, plain],
    ['discopop', { method: 'discopop', beta }, plain],
    ['cpo', { method: 'cpo', beta }, plain],
    ['alphapo', { method: 'alphapo', beta, alpha: 0.25 }, (a, _, n) => Math.exp(-0.25 * a) / n],
    ['r_dpo', { method: 'r_dpo', beta }, plain],
    ['aot', { method: 'aot', beta }, plain],
  ];
  test.each(pairwise)('%s is pairwise: the two derivatives cancel', (_, config, kappa) => {
    for (const sum of sums(config, kappa)) expect(sum).toBeLessThan(1e-13);
  });

  const pointwise: [string, ReferenceConfig, (a: number, r: number, n: number) => number][] = [
    ['asft', { method: 'asft', beta }, odds],
    ['apo_zero', { method: 'apo_zero', beta }, plain],
    ['nca', { method: 'nca', beta }, plain],
    ['cal_dpo', { method: 'cal_dpo', beta }, plain],
    ['bco_pair', { method: 'bco_pair', beta }, plain],
    ['sppo_hard', { method: 'sppo_hard', beta }, plain],
    ['apo_down', { method: 'apo_down', beta }, plain],
  ];
  test.each(pointwise)('%s is pointwise: they do not', (_, config, kappa) => {
    const found = sums(config, kappa);
    expect(found.filter((sum) => sum > 1e-3).length).toBeGreaterThan(45);
  });

  test('aot_unpaired cancels over the batch', () => {
    const { gradLogps } = dirAlignLoss('aot_unpaired', beta).fromLogps(
      randomLogps(generator(12), 20),
    );
    const size = gradLogps.reduce((x, y) => x + Math.abs(y), 0);
    expect(Math.abs(gradLogps.reduce((x, y) => x + y, 0))).toBeLessThan(1e-14 * size);
  });
});

describe('identities', () => {
  const batch = randomLogps(generator(21), 400);
  const pairs = 400;
  const losses = (config: ReferenceConfig): Float64Array =>
    objectiveOf(config).fromLogps(batch).losses;
  const gradient = (config: ReferenceConfig): Float64Array =>
    objectiveOf(config).fromLogps(batch).gradLogps;
  const aw = (i: number): number => meanLogp(batch, i);
  const al = (i: number): number => meanLogp(batch, i + pairs);
  const each = (actual: Float64Array, expected: (i: number) => number, relative = 1e-13): void => {
    const misses = new Misses();
    misses.each(
      'pair',
      actual,
      Array.from(actual, (_, i) => expected(i)),
      (x) => relative * Math.max(1, Math.abs(x)),
    );
    expect(misses.list).toEqual([]);
  };

  test('align-only ASFT at beta = 1 is two cross-entropies', () => {
    each(losses({ method: 'asft', beta: 1 }), (i) => -aw(i) - log1mexp(al(i)));
    const g = gradient({ method: 'asft', beta: 1 });
    each(g, (b) => {
      const n = at(batch.counts, b) * pairs;
      return b < pairs ? -1 / n : 1 / (n * Math.expm1(-meanLogp(batch, b)));
    });
  });

  test.each([0.1, 0.5, 1])('one-stage ASFT, lambda %d', (lambda) => {
    const config: ReferenceConfig = { method: 'asft', beta: 1, lambda, sftWeight: 1 };
    each(losses(config), (i) => -(1 + lambda) * aw(i) - lambda * log1mexp(al(i)));
    const g = gradient(config);
    for (let i = 0; i < pairs; i++)
      expect(at(g, i)).toBeCloseTo(-(1 + lambda) / at(batch.counts, i) / pairs, 14);
  });

  test.each([0.1, 0.5, 1])(
    'one-stage ORPO is one-stage ASFT and a term of both, lambda %d',
    (lambda) => {
      const asft = losses({ method: 'asft', beta: 1, lambda, sftWeight: 1 });
      each(losses({ method: 'orpo', beta: 1, lambda, sftWeight: 1 }), (i) => {
        const [pw, pl] = [Math.exp(aw(i)), Math.exp(al(i))];
        return at(asft, i) + lambda * Math.log(pw * -Math.expm1(al(i)) + pl * -Math.expm1(aw(i)));
      });
    },
  );

  test.each([0.05, 0.2, 1, 2])('ORPO is below ASFT, beta %d', (beta) => {
    const [orpo, asft] = [losses({ method: 'orpo', beta }), losses({ method: 'asft', beta })];
    orpo.forEach((loss, i) => {
      expect(loss).toBeLessThan(at(asft, i));
    });
  });

  test.each([0.003, 0.1, 1])('Cal-DPO is DPO at beta = 1 and SPPO at its own, beta %d', (beta) => {
    const [dpo, sppo] = [losses({ method: 'dpo', beta: 1 }), losses({ method: 'sppo_hard', beta })];
    each(losses({ method: 'cal_dpo', beta }), (i) => at(dpo, i) + at(sppo, i));
    const [gd, gs] = [
      gradient({ method: 'dpo', beta: 1 }),
      gradient({ method: 'sppo_hard', beta }),
    ];
    each(gradient({ method: 'cal_dpo', beta }), (b) => at(gd, b) + at(gs, b));
    each(
      losses({ method: 'cal_dpo', beta, calibrationWeight: 0.5 }),
      (i) => at(dpo, i) + 0.5 * at(sppo, i),
    );
  });

  test('NCA is least where sg(beta r_w) = 2/3', () => {
    const nca = dirAlignLoss('nca', 0.01);
    const slope = (r: number): number =>
      at(
        nca.fromLogps({
          logps: Float64Array.of(-500 + r, -7),
          counts: Int32Array.of(9, 9),
          reference: Float64Array.of(-500, -7),
        }).gradLogps,
        0,
      );
    const best = Math.LN2 / 0.01;
    expect(Math.abs(slope(best))).toBeLessThan(1e-16);
    expect(slope(best - 0.1)).toBeLessThan(-1e-6);
    expect(slope(best + 0.1)).toBeGreaterThan(1e-6);
  });

  test('ORPO tends to SimPO without a margin as probabilities vanish', () => {
    const far = (shift: number) => ({
      ...batch,
      logps: batch.logps.map((x, b) => x - shift * at(batch.counts, b)),
    });
    const distance = (shift: number): number => {
      const [orpo, simpo] = [
        dirAlignLoss('orpo', 0.7).fromLogps(far(shift)),
        dirAlignLoss('simpo', 0.7, true, { gamma: 0 }).fromLogps(far(shift)),
      ];
      return Math.max(
        ...orpo.losses.map((x, i) => Math.abs(x - at(simpo.losses, i))),
        ...orpo.gradLogps.map((x, i) => Math.abs(x / at(simpo.gradLogps, i) - 1)),
      );
    };
    expect(distance(5)).toBeGreaterThan(1e-4);
    expect(distance(5)).toBeLessThan(2e-2);
    expect(distance(15)).toBeLessThan(1e-6);
    expect(distance(40)).toBeLessThan(1e-12);
  });

  test('cpo is dpo without a reference, and its sums', () => {
    const [cpo, free] = [
      dirAlignLoss('cpo', 0.3),
      dirAlignLoss('dpo', 0.3, false, { referenceFree: true }),
    ];
    expect(cpo.fromLogps(batch)).toStrictEqual(free.fromLogps(batch));
    each(cpo.fromLogps(batch).losses, (i) =>
      softplus(-0.3 * (at(batch.logps, i) - at(batch.logps, i + pairs))),
    );
  });

  test('alpha tends to its limit', () => {
    const near = losses({ method: 'alphapo', beta: 0.5, alpha: 1e-9, gamma: 0.2 });
    each(near, (i) => at(losses({ method: 'simpo', beta: 0.5, gamma: 0.2 }), i), 1e-8);
    const dpo = losses({ method: 'dpo', beta: 0.5 });
    each(
      losses({ method: 'dpo', beta: 0.5, divergence: 'alpha', alpha: 1e-9 }),
      (i) => at(dpo, i),
      1e-7,
    );
    each(
      losses({ method: 'dpo', beta: 0.5, divergence: 'alpha', alpha: 0 }),
      (i) => at(dpo, i),
      1e-15,
    );
  });
});

describe('batch composition', () => {
  test("a pair's numbers do not depend on the others, bit for bit", () => {
    check(
      fc.record({
        ...shapes,
        pairs: fc.integer({ min: 2, max: 4 }),
        method: fc.constantFrom(...everyMethod.filter((m) => !coupled.includes(m) && m !== 'sft')),
      }),
      ({ method, ...shape }) => {
        const { pairs, tokens, vocab } = shape;
        const batch = batchOf(shape);
        const others = batchOf({ ...shape, seed: shape.seed + 1 });
        const objective = objectiveOf({ method, beta: 0.3, sftWeight: 0.5 });
        const whole = objective(batch);
        const size = tokens * vocab;
        for (let i = 0; i < pairs; i++) {
          const pick = <T extends Float32Array | Uint16Array | Int32Array | Float64Array>(
            array: T,
            n: number,
          ): T => {
            const result = array.slice(0, 2 * n);
            result.set(array.subarray(i * n, (i + 1) * n), 0);
            result.set(array.subarray((i + pairs) * n, (i + pairs + 1) * n), n);
            return result as T;
          };
          const alone = objective({
            ...batch,
            logits: pick(batch.logits, size),
            labels: pick(batch.labels, tokens),
            reference: pick(present(batch.reference) as Float64Array, 1),
            shape: [2, tokens, vocab],
          });
          expect(alone.losses[0]).toBe(whole.losses[i]);
          expect([...alone.logps]).toEqual([whole.logps[i], whole.logps[i + pairs]]);
          expect([...alone.rewards]).toEqual([whole.rewards[i], whole.rewards[i + pairs]]);
        }
        // All the others changed: the first pair's coefficients and gradient, too, keep their bits.
        const mixed: HostBatch = {
          ...others,
          logits: others.logits.slice(),
          labels: others.labels.slice(),
          reference: present(others.reference).slice(),
        };
        for (const b of [0, pairs]) {
          mixed.logits.set(batch.logits.subarray(b * size, (b + 1) * size), b * size);
          mixed.labels.set(batch.labels.subarray(b * tokens, (b + 1) * tokens), b * tokens);
          (mixed.reference as Float64Array)[b] = at(present(batch.reference), b);
        }
        const changed = objective(mixed);
        for (const b of [0, pairs]) {
          expect(changed.coefficients[b]).toBe(whole.coefficients[b]);
          const rows = (result: LossResult): LogitsArray =>
            (present(result.gradLogits) as Float32Array).slice(b * size, (b + 1) * size);
          expect(sameBits(rows(changed), rows(whole))).toBe(true);
        }
      },
      40,
    );
  });
});

describe('the same bits', () => {
  // Enough elements for eight threads, and a pair count that they do not divide.
  const large = (kind: Dtype): HostBatch =>
    randomBatch({ seed: 77, sequences: 6, tokens: 24, vocab: 5003, dtype: kind, ignored: 0.2 });
  const methods = ['orpo', 'aot', 'dpo'] as const;

  test.each(dtypes)('%s: any number of threads, and off the event loop', async (kind) => {
    const batch = large(kind);
    for (const method of methods) {
      const objective = objectiveOf({ method, beta: 0.3, sftWeight: 0.5 });
      for (const [what, options] of destinations) {
        const one = objective(copyOf(batch), { ...options, threads: 1 });
        for (const threads of [2, 3, 8]) {
          expectSame(
            objective(copyOf(batch), { ...options, threads }),
            one,
            `${method} ${what} ${String(threads)}`,
          );
        }
        expectSame(await objective.async(copyOf(batch), options), one, `${method} ${what} async`);
        expectSame(
          await objective.async(copyOf(batch), { ...options, threads: 3 }),
          one,
          `${method} ${what} async, 3 threads`,
        );
      }
    }
    const logps = sequenceLogps(batch, { threads: 1 });
    const tokens = tokenLogps(batch, { threads: 1 });
    for (const threads of [2, 3, 8]) {
      expect(sequenceLogps(batch, { threads })).toStrictEqual(logps);
      expect(tokenLogps(batch, { threads })).toStrictEqual(tokens);
    }
  });

  test.each(dtypes)('%s: twice, and into a buffer that was used before', (kind) => {
    const batch = large(kind);
    const objective = dirAlignLoss('dpo', 0.1);
    const first = objective(batch);
    expectSame(objective(batch), first);
    const out = present(first.gradLogits).slice();
    out.fill(0x7fff);
    expectSame(objective(batch, { out: out as never }), first);
  });

  test.each(dtypes)('%s: a view at any element of its buffer', (kind) => {
    check(
      fc.record({
        seed,
        pairs: fc.constant(1),
        tokens: fc.integer({ min: 1, max: 3 }),
        vocab: vocabulary,
        dtype: fc.constant(kind),
      }),
      (shape) => {
        const batch = batchOf(shape);
        const shift = <T extends Float32Array | Uint16Array | Int32Array | Float64Array>(
          array: T,
          by: number,
        ): T => {
          const view = new (array.constructor as new (n: number) => T)(array.length + by).subarray(
            by,
          ) as T;
          view.set(array);
          return view;
        };
        const objective = dirAlignLoss('dpo', 0.1);
        for (const [what, options] of destinations) {
          const expected = objective(copyOf(batch), options);
          for (const by of [1, 3, 5, 7, 15]) {
            const moved: HostBatch = {
              ...batch,
              logits: shift(batch.logits, by),
              labels: shift(batch.labels, by),
              reference: shift(present(batch.reference) as Float64Array, by),
            };
            expectSame(objective(moved, options), expected, `${what} at ${String(by)}`);
            if (options.gradient === 'none' || options.inPlace) continue;
            const out = shift(batch.logits.slice().fill(1), by + 2);
            expectSame(
              objective(batch, { ...options, out: out as never }),
              expected,
              `${what} out at ${String(by)}`,
            );
          }
        }
      },
      25,
    );
  });

  test.each(dtypes)(
    '%s: shared memory, in and out, at once and off the event loop',
    async (kind) => {
      const batch = large(kind);
      const share = <T extends Float32Array | Uint16Array | Int32Array | Float64Array>(
        array: T,
      ): T => {
        const buffer = new SharedArrayBuffer(array.byteLength);
        const view = new (array.constructor as new (memory: SharedArrayBuffer) => T)(buffer);
        view.set(array);
        return view;
      };
      const shared = (): HostBatch => ({
        ...batch,
        logits: share(batch.logits),
        labels: share(batch.labels),
        reference: share(present(batch.reference) as Float64Array),
      });
      const objective = dirAlignLoss('dpo', 0.1);
      for (const [what, options] of destinations) {
        const expected = objective(copyOf(batch), options);
        expectSame(objective(shared(), options), expected, what);
        expectSame(await objective.async(shared(), options), expected, `${what} async`);
      }
      const out = share(batch.logits);
      expectSame(objective(shared(), { out: out as never }), objective(batch), 'out');
    },
  );

  test('a gradient beyond the caches, which is streamed', () => {
    // More than 16 MiB of scored rows that are not written in place.
    const batch = randomBatch({ seed: 5, sequences: 4, tokens: 70, vocab: 16_411, ignored: 0 });
    const objective = dirAlignLoss('simpo', 2);
    for (const gradient of ['dense', 'factored'] as const) {
      const streamed = objective(batch, { gradient });
      if (gradient === 'dense') {
        const inPlace = objective(copyOf(batch), { gradient, inPlace: true });
        expect(sameBits(present(inPlace.gradLogits), present(streamed.gradLogits))).toBe(true);
      }
      // Odd addresses of rows and of the buffer.
      const out = new Float32Array(batch.logits.length + 1).subarray(1);
      expectSame(objective(batch, { gradient, out: out as never }), streamed);
      // The same rows in a batch that is small enough not to be.
      const part = {
        ...batch,
        logits: batch.logits.subarray(0, 2 * 70 * 16_411),
        labels: batch.labels.subarray(0, 140),
        shape: [2, 70, 16_411] as const,
      };
      const small = objective(part as HostBatch, { gradient: 'factored' });
      if (gradient === 'factored') {
        const rows = (streamed.gradLogits as Float32Array).subarray(0, part.logits.length);
        expect(sameBits(present(small.gradLogits), rows)).toBe(true);
      }
    }
  });
});

// ----------------------------------------------------------------------------------------------
// Against the reference

describe('against the float64 reference', () => {
  const configs = everyConfig();
  /** Bound of what follows the rows: float64 throughout. */
  const exact = (x: number, size: number): number =>
    1e-11 * Math.max(Math.abs(x), 1e-3 * size) + 1e-300;

  test('fromLogps: every method and option', () => {
    const misses = new Misses();
    const random = generator(31);
    for (const config of configs) {
      const batch = randomLogps(random, 7);
      const [result, expected] = [
        objectiveOf(config).fromLogps(batch),
        referenceFromLogps(config, batch),
      ];
      const what = JSON.stringify(config);
      const size = expected.gradLogps.reduce((x, y) => Math.max(x, Math.abs(y)), 0);
      misses.near(`${what} loss`, result.loss, expected.loss, exact(expected.loss, 1));
      misses.each(`${what} losses`, result.losses, expected.losses, (x) => exact(x, 1));
      misses.each(`${what} rewards`, result.rewards, expected.rewards, (x) => exact(x, 1));
      misses.each(`${what} gradLogps`, result.gradLogps, expected.gradLogps, (x) => exact(x, size));
    }
    expect(misses.list).toEqual([]);
  });

  test('fromLogps: every method and option against differences of its own loss', () => {
    const misses = new Misses();
    const random = generator(32);
    for (const config of configs) {
      const batch = randomLogps(random, 3);
      const objective = objectiveOf(config);
      const { gradLogps } = objective.fromLogps(batch);
      const { gradient, error } = finiteDifference(
        (logps) => objective.fromLogps({ ...batch, logps }).loss,
        batch.logps,
      );
      const what = JSON.stringify(config);
      const size = gradient.reduce((x, y) => Math.max(x, Math.abs(y)), 0);
      misses.require(size > 0 || config.lambda === 0, `${what}: no gradient`);
      misses.each(what, gradLogps, gradient, (_, b) => 4 * at(error, b) + 1e-10 * size);
      // The differences themselves must be good, or the test could not fail.
      misses.require(
        error.every((x) => x <= 1e-7 * size),
        `${what}: the differences are off by ${String(Math.max(...error))}`,
      );
    }
    expect(misses.list).toEqual([]);
  });

  const within = (config: ReferenceConfig, batch: HostBatch, misses: Misses): void => {
    const what = JSON.stringify(config);
    const result = objectiveOf(config)(batch);
    checkWithin(misses, what, config, batch, result);
    const expected = referenceLoss(config, batch);
    const size = expected.coefficients.reduce((x, y) => Math.max(x, Math.abs(y)), 0);
    misses.each(
      `${what} coefficients`,
      result.coefficients,
      expected.coefficients,
      (x) => 1e-5 * Math.max(Math.abs(x), 0.1 * size),
    );
  };

  test.each(dtypes)('%s: random shapes and objectives', (kind) => {
    const misses = new Misses();
    check(
      fc.record({
        ...shapes,
        vocab: fc.integer({ min: 1, max: 90 }),
        config: fc.constantFrom(...configs),
        scale: fc.constantFrom(0.5, 2, 8),
      }),
      ({ config, scale, pairs, ...spec }) => {
        const batch = randomBatch({ ...spec, scale, dtype: kind, sequences: 2 * pairs });
        within(config, batch, misses);
        expect(misses.list).toEqual([]);
      },
      300,
    );
  });

  test.each(dtypes)('%s: every method on rows of several blocks', (kind) => {
    const misses = new Misses();
    for (const method of everyMethod) {
      const batch = randomBatch({ seed: 41, sequences: 4, tokens: 3, vocab: 1300, dtype: kind });
      within({ method, ...(method === 'sft' ? {} : { beta: 0.1 }) }, batch, misses);
    }
    expect(misses.list).toEqual([]);
  });

  test.each(dtypes)('%s: log-probabilities, logsumexp and entropy of every row', (kind) => {
    check(
      fc.record({ ...shapes, scale: fc.constantFrom(0.01, 1, 10, 100) }),
      ({ scale, pairs, ...spec }) => {
        const batch = randomBatch({ ...spec, scale, dtype: kind, sequences: 2 * pairs });
        const misses = new Misses();
        const [tokens, expected] = [tokenLogps(batch), referenceTokenLogps(batch)];
        misses.each('logps', tokens.logps, expected.logps, (x) => logpBound(x, 1));
        misses.each('logsumexp', tokens.logsumexp, expected.logsumexp, (x) => logpBound(x, 1));
        misses.each('entropy', tokens.entropy, expected.entropy, (x) => logpBound(x, 1));
        const [sums, wanted] = [sequenceLogps(batch), referenceLogps(batch)];
        misses.each('sums', sums.logps, wanted.logps, (x, b) => logpBound(x, at(wanted.counts, b)));
        for (const x of tokens.logps) misses.require(x <= 0, `a log-probability of ${String(x)}`);
        for (const x of tokens.entropy) misses.require(x >= -1e-7, `an entropy of ${String(x)}`);
        expect(misses.list).toEqual([]);
      },
    );
  });
});

test('an error of 1e-4 in any value, and one in the gradient, would be found', () => {
  const config: ReferenceConfig = { method: 'dpo', beta: 0.3 };
  const batch = randomBatch({ seed: 61, sequences: 4, tokens: 4, vocab: 600 });
  const found = (plant: (result: LossResult) => void): boolean => {
    const result = objectiveOf(config)(batch);
    plant(result);
    const misses = new Misses();
    checkWithin(misses, '', config, batch, result);
    return misses.list.length > 0;
  };
  expect(found(() => undefined)).toBe(false);
  for (const key of ['losses', 'logps', 'rewards'] as const)
    expect(found((result) => (result[key][1] = at(result[key], 1) * 1.0001))).toBe(true);
  expect(found(({ counts }) => counts.fill(1))).toBe(true);
  // Of least magnitude: what a bare absolute tolerance would overlook.
  const plant = ({ gradLogits }: LossResult): void => {
    const values = gradLogits as Float32Array;
    const sizes = values.map((x) => (x === 0 ? Infinity : Math.abs(x)));
    const i = sizes.indexOf(Math.min(...sizes));
    values[i] = at(values, i) * 1.01;
  };
  expect(found(plant)).toBe(true);
});

describe('metrics', () => {
  const mean = (values: readonly number[]): number =>
    values.reduce((x, y) => x + y, 0) / values.length;
  test.each(everyMethod)('%s', (method) => {
    const random: Random = generator(51);
    const batch = randomLogps(random, 9);
    const config: ReferenceConfig = {
      method,
      ...(method === 'sft' ? {} : { beta: 0.3, sftWeight: 0.5 }),
      normalize: true,
    };
    const result = objectiveOf(config).fromLogps(batch);
    const half = (values: ArrayLike<number>, rejected = false): number[] =>
      Array.from(values).slice(rejected ? 9 : 0, rejected ? 18 : 9);
    const [chosen, rejected] = [half(result.rewards), half(result.rewards, true)];
    const nll = half(batch.logps).map((x, i) => -x / at(batch.counts, i));
    const sft: Record<string, number> = {
      'rewards/chosen': mean(Array.from(result.rewards)),
      'logps/chosen': mean(Array.from(batch.logps)),
      nll_loss: result.loss,
      nonfinite: 0,
      empty_sequences: 0,
      underflow: 0,
      num_tokens: batch.counts.reduce((x, y) => x + y, 0),
    };
    const paired: Record<string, number> = {
      'rewards/chosen': mean(chosen),
      'rewards/rejected': mean(rejected),
      'rewards/accuracies': mean(chosen.map((x, i) => Number(x > at(rejected, i)))),
      'rewards/margins': mean(chosen.map((x, i) => x - at(rejected, i))),
      'logps/chosen': mean(half(batch.logps)),
      'logps/rejected': mean(half(batch.logps, true)),
      nll_loss: mean(nll),
      nonfinite: 0,
      empty_sequences: 0,
      underflow: 0,
      num_tokens: batch.counts.reduce((x, y) => x + y, 0),
      ranking_accuracy: mean(half(batch.logps).map((x, i) => Number(x > at(batch.logps, i + 9)))),
    };
    if (method === 'orpo' || method === 'asft') {
      const odds = (b: number): number => meanLogp(batch, b) - log1mexp(meanLogp(batch, b));
      const differences = chosen.map((_, i) => odds(i) - odds(i + 9));
      paired.log_odds_chosen = mean(differences);
      paired.log_odds_ratio = mean(differences.map((x) => -softplus(-x)));
    }
    const expected = method === 'sft' ? sft : paired;
    expect(Object.keys(result.metrics).sort()).toEqual(Object.keys(expected).sort());
    const misses = new Misses();
    const metrics = result.metrics as unknown as Readonly<Record<string, number>>;
    for (const [key, value] of Object.entries(expected))
      misses.near(key, metrics[key], value, 1e-13 * Math.max(1, Math.abs(value)));
    expect(misses.list).toEqual([]);
  });

  test("nll_loss is the likelihood term's, or left out", () => {
    const batch = randomLogps(generator(52), 4);
    expect(dirAlignLoss('dpo', 0.1).fromLogps(batch).metrics).not.toHaveProperty('nll_loss');
    const token = dirAlignLoss('dpo', 0.1, false, {
      sftWeight: 2,
      sftReduction: 'token',
    }).fromLogps(batch);
    const [sum, tokens] = [0, 1, 2, 3].reduce<[number, number]>(
      ([s, n], i) => [s - at(batch.logps, i), n + at(batch.counts, i)],
      [0, 0],
    );
    expect(token.metrics.nll_loss).toBeCloseTo(sum / tokens, 13);
    const alone = dirAlignLoss('dpo', 0.1).fromLogps(batch);
    expect(token.loss).toBeCloseTo(alone.loss + (2 * sum) / tokens, 12);
  });
});
