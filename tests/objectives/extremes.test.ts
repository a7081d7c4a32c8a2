// Log-probabilities from 0 to -1e6, and options from one end of float64 to the other: losses and
// gradients are the true ones, or what the true ones round to.
import fs from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { dirAlignLoss, methods } from '../../ts/index.js';
import type { LogpsBatch, LogpsResult, MethodInfo } from '../../ts/index.js';
import { referenceFromLogps, type ReferenceConfig } from '../../ts/verification/reference.js';
import { withFields } from '../../ts/verification/verification.js';
import { copyOf, dtypes, objectiveOf, randomBatch, type Dtype } from '../support/batches.js';
import { Misses } from '../support/bounds.js';
import { farFromReference, underflowingRows } from '../support/far.js';
import {
  at,
  choose,
  decodeHalf,
  encodeHalf,
  generator,
  present,
  type HalfDtype,
} from '../support/numbers.js';

interface Extremes {
  readonly config: ReferenceConfig;
  readonly logps: number[];
  readonly counts: number[];
  readonly reference: number[];
  readonly desirable?: number[];
  readonly kl?: number;
  readonly shift?: number;
  readonly groups?: number[];
  readonly ranks?: number[];
  readonly rewards?: number[];
  readonly losses: (number | string)[];
  readonly gradLogps: (number | string)[];
  /** Of the losses, then the gradient: see scripts/extremes. */
  readonly slack: number[];
}
const file = new URL('../fixtures/extremes.json.gz', import.meta.url);
const extremes = JSON.parse(gunzipSync(fs.readFileSync(file)).toString()) as Extremes[];
const byMethod = methods().map(
  ({ name }) => [name, extremes.filter(({ config }) => config.method === name)] as const,
);

type Numbers = Pick<LogpsResult, 'losses' | 'gradLogps'>;
const batchOf = ({ logps, counts, reference, ...given }: Extremes): LogpsBatch => ({
  logps: Float64Array.from(logps),
  counts: Int32Array.from(counts),
  reference: Float64Array.from(reference),
  ...(given.desirable && { desirable: Uint8Array.from(given.desirable) }),
  ...(given.kl !== undefined && { kl: given.kl }),
  ...(given.shift !== undefined && { shift: given.shift }),
  ...(given.groups && { groups: Int32Array.from(given.groups) }),
  ...(given.ranks && { ranks: Int32Array.from(given.ranks) }),
  ...(given.rewards && { rewards: Float64Array.from(given.rewards) }),
});
/** The unit that a sequence is of. */
const unitOf = ({ groups, losses }: Extremes, sequence: number): number =>
  groups ? groups.findIndex((end) => end > sequence) - 1 : sequence % losses.length;

/**
 * Eight units in the last place, times the slack; below the normal numbers units of the smallest.
 */
const bound = (expected: number, slack: number): number =>
  Math.abs(expected) * 2 ** (slack - 49) + 64 * 2 ** -1074;

function compare(
  misses: Misses,
  given: Extremes,
  { losses, gradLogps }: Numbers,
  loosened: (x: number) => number,
): void {
  const name = JSON.stringify(given.config);
  const units = given.losses.length;
  const place = (i: number): string => {
    const own = given.logps.map((_, k) => k).filter((k) => unitOf(given, k) === i);
    const of = (list: readonly number[]): string => own.map((k) => list[k]).join(' ');
    return `${name} S ${of(given.logps)}, R ${of(given.reference)}, L ${of(given.counts)}`;
  };
  given.losses.map(Number).forEach((x, i) => {
    misses.near(() => `${place(i)}: loss`, losses[i], x, bound(x, at(given.slack, i)));
  });
  given.gradLogps.map(Number).forEach((x, i) => {
    misses.near(
      () => `${place(unitOf(given, i))}: gradient of sequence ${String(i)}`,
      gradLogps[i],
      x,
      bound(x, at(given.slack, units + i)) + loosened(x),
    );
  });
}

describe('against numbers of 60 digits', () => {
  test('every method and divergence is there', () => {
    for (const [method, cases] of byMethod)
      expect([method, cases.length > 2]).toEqual([method, true]);
    const alphas = extremes
      .filter(({ config }) => config.divergence === 'alpha')
      .map(({ config }) => config.alpha);
    expect(new Set(alphas)).toEqual(new Set([-2, -1, -0.5, 0, 0.5, 1, 2]));
  });

  test.each(byMethod)('%s', (_, cases) => {
    const misses = new Misses();
    for (const given of cases) {
      const result = objectiveOf(given.config).fromLogps(batchOf(given));
      compare(misses, given, result, () => 0);
      // What is infinite is said; of the coupled methods, losses belong to ranks.
      const infinite = new Set([
        ...given.losses.flatMap((x, i) => (Number.isFinite(Number(x)) ? [] : [i])),
        ...given.gradLogps.flatMap((x, i) =>
          Number.isFinite(Number(x)) ? [] : [unitOf(given, i)],
        ),
      ]);
      const expected = infinite.size;
      misses.require(
        given.config.method.startsWith('aot') || result.metrics.nonfinite === expected,
        `${JSON.stringify(given.config)}: nonfinite ${String(result.metrics.nonfinite)}, ` +
          `expected ${String(expected)}`,
      );
    }
    expect(misses.list).toEqual([]);
  });

  test.each(byMethod)('the reference: %s', (method, cases) => {
    const misses = new Misses();
    for (const given of cases) {
      // Two slopes of the sigmoid, of up to beta / 4 each: the reference has not the digits of
      // their difference.
      const lost = method === 'apo_down' ? 2 ** -50 * (given.config.beta ?? 1) : 0;
      compare(misses, given, referenceFromLogps(given.config, batchOf(given)), () => lost);
    }
    expect(misses.list).toEqual([]);
  });
});

describe('options at the ends of float64', () => {
  const positive = [
    5e-324,
    1e-310,
    1e-300,
    1e-100,
    1e-8,
    0.1,
    1,
    50,
    1e8,
    1e100,
    1e300,
    Number.MAX_VALUE,
  ];
  const values: Readonly<Record<string, readonly (number | string)[]>> = {
    labelSmoothing: [0, 1e-300, 0.1, 0.49],
    gamma: [0, ...positive, ...positive.map((x) => -x)],
    alpha: [0, ...positive, ...positive.map((x) => -x)],
    lambda: [0, ...positive],
    calibrationWeight: [0, ...positive],
    penalty: [0, ...positive],
    tau: positive,
    divergence: ['reverse_kl', 'forward_kl', 'js', 'alpha'],
  };
  const logps = [
    0, -5e-324, -1e-300, -1e-37, -1e-12, -1e-3, -1, -50, -300, -700, -745, -1e3, -1e4, -1e6,
  ];

  function randomConfig(
    random: () => number,
    { name, options, reference }: MethodInfo,
  ): ReferenceConfig {
    const config: Record<string, unknown> = { method: name, normalize: random() < 0.5 };
    const hasSft = 'sftWeight' in options;
    if (name !== 'sft') config.beta = choose(random, positive);
    if (reference && random() < 0.3) config.referenceFree = true;
    if (hasSft && random() < 0.5) config.sftWeight = choose(random, [1e-300, 0.5, 1e100]);
    for (const option of Object.keys(options).filter((key) => key in values)) {
      if (
        random() < 0.3 ||
        (option === 'alpha' && 'divergence' in options && config.divergence !== 'alpha')
      )
        continue;
      const value = choose(random, present(values[option]));
      config[option] = name === 'exo_pair' && value === 0 ? 0.5 : value;
    }
    return config as unknown as ReferenceConfig;
  }

  test.each(methods().map((info) => [info.name, info] as const))(
    '%s: no NaN comes of numbers',
    (_, info) => {
      const random = generator(7);
      const found: string[] = [];
      for (let k = 0; k < 2000; k++) {
        const config = randomConfig(random, info);
        const of = (list: readonly number[]): Float64Array =>
          Float64Array.of(choose(random, list), choose(random, list));
        const batch = {
          logps: of(logps),
          reference: of(logps),
          counts: Int32Array.from(of([1, 3, 400, 2 ** 31 - 1])),
        };
        const given = withFields({ method: info.name }, batch, 2);
        const own = { ...given, ...(given.groups && { groups: Int32Array.of(0, 2) }) };
        const { loss, losses, gradLogps, metrics } = objectiveOf(config).fromLogps(own);
        if ([loss, ...losses, ...gradLogps, ...Object.values(metrics)].some(Number.isNaN)) {
          found.push(
            `${JSON.stringify(config)} at ` +
              [...batch.logps, ...batch.reference, ...batch.counts].join(', '),
          );
        }
      }
      expect(found.slice(0, 3)).toEqual([]);
    },
  );
});

describe('a log-probability of -inf', () => {
  const run = (config: ReferenceConfig, chosen: number, rejected: number): LogpsResult =>
    objectiveOf(config).fromLogps({
      logps: Float64Array.of(chosen, rejected),
      counts: Int32Array.of(2, 2),
      reference: Float64Array.of(-3, -4),
    });
  const none = -Infinity;
  const infinite = Infinity;
  // [config, loss, dloss/dchosen, dloss/drejected], of the chosen at -inf and of the rejected, in
  // the limit.
  type Limit = readonly [loss: number, chosen: number, rejected: number];
  const limits: readonly (readonly [ReferenceConfig, Limit, Limit])[] = [
    [{ method: 'dpo', beta: 0.5 }, [infinite, -0.5, 0.5], [0, 0, 0]],
    [
      { method: 'dpo', beta: 0.5, labelSmoothing: 0.25 },
      [infinite, -0.375, 0.375],
      [infinite, 0.125, -0.125],
    ],
    [
      { method: 'dpo', beta: 0.5, divergence: 'forward_kl' },
      [infinite, -infinite, 0.5 * Math.E ** -1],
      [0, 0, 0],
    ],
    [
      { method: 'dpo', beta: 0.5, divergence: 'alpha', alpha: 2 },
      [infinite, -infinite, 0.5 * Math.E ** -2],
      [0, 0, 0],
    ],
    [
      { method: 'ipo', beta: 0.5 },
      [infinite, -infinite, infinite],
      [infinite, infinite, -infinite],
    ],
    [{ method: 'hinge', beta: 0.5 }, [infinite, -0.5, 0.5], [0, 0, 0]],
    [{ method: 'robust', beta: 0.5, labelSmoothing: 0 }, [infinite, -0.5, 0.5], [0, 0, 0]],
    [{ method: 'exo_pair', beta: 0.5, labelSmoothing: 0.5 }, [Math.LN2, 0, 0], [Math.LN2, 0, 0]],
    [{ method: 'discopop', beta: 0.5, tau: 0.5 }, [infinite, -0.5, 0.5], [0, 0, 0]],
    [{ method: 'discopop', beta: 0.5, tau: 2 }, [infinite, -infinite, infinite], [0, 0, 0]],
    [{ method: 'dpop', beta: 0.5, penalty: 0 }, [infinite, -0.5, 0.5], [0, 0, 0]],
    [{ method: 'dpop', beta: 0.5, penalty: 3 }, [infinite, -2, 0.5], [0, 0, 0]],
    [{ method: 'cal_dpo', beta: 0.5, calibrationWeight: 0 }, [infinite, -1, 1], [0, 0, 0]],
    [{ method: 'cal_dpo', beta: 0.5 }, [infinite, -infinite, 4], [infinite, 0, -infinite]],
    [{ method: 'sft', normalize: true }, [infinite, -0.25, -0.25], [infinite, -0.25, -0.25]],
    [{ method: 'asft', beta: 0.5, lambda: 0 }, [0, 0, 0], [0, 0, 0]],
  ];
  test.each(limits.map((limit) => [JSON.stringify(limit[0]), ...limit] as const))(
    '%s',
    (_, config, chosen, rejected) => {
      // cal_dpo's rejected score is 1 + 1 / (2 beta) above its target there, and its chosen one 2 -
      // 1.
      const logps = config.method === 'cal_dpo' ? [-2, -3.5] : [-2, -3];
      for (const [result, limit] of [
        [run(config, none, at(logps, 1)), chosen],
        [run(config, at(logps, 0), none), rejected],
      ] as const) {
        const loss = config.method === 'sft' ? result.loss : at(result.losses, 0);
        const found = [loss, ...result.gradLogps];
        found.forEach((x, i) => {
          if (Number.isFinite(at(limit, i))) expect(x).toBeCloseTo(at(limit, i), 12);
          else expect(x).toBe(at(limit, i));
        });
        expect(result.metrics.nonfinite).toBe(1);
      }
    },
  );

  test('of both sides leaves a margin without a limit: NaN, and counted', () => {
    const result = run({ method: 'dpo', beta: 0.5 }, none, none);
    expect(result.loss).toBeNaN();
    expect(result.metrics.nonfinite).toBe(1);
    // Where each side has a limit of its own, it is that.
    expect(run({ method: 'bco_pair', beta: 0.5 }, none, none).loss).toBe(Infinity);
  });
});

describe('from logits', () => {
  const values = (gradient: unknown, dtype: string): ArrayLike<number> =>
    dtype === 'float32'
      ? (gradient as Float32Array)
      : decodeHalf(gradient as Uint16Array, dtype as HalfDtype);

  // A loss of 0 with a gradient of nothing but NaN: e^860 met the sigmoid of -e^860.
  test.each([
    { divergence: 'forward_kl' },
    { divergence: 'alpha', alpha: 1 },
    { divergence: 'alpha', alpha: 2 },
    { divergence: 'alpha', alpha: 0.5 },
  ] as const)(
    '%o: a rejected completion 860 nats below its reference has a gradient of 0',
    (options) => {
      for (const dtype of dtypes) {
        const batch = farFromReference({ chosen: 1, rejected: -860, dtype });
        const { loss, gradLogits, coefficients, metrics } = dirAlignLoss(
          'dpo',
          0.01,
          false,
          options,
        )(batch);
        expect([loss, ...coefficients.map(Math.abs)]).toEqual([0, 0, 0]);
        expect(Array.from(values(gradLogits, dtype)).every((g) => g === 0)).toBe(true);
        expect(metrics.nonfinite).toBe(0);
      }
    },
  );

  test('a coefficient beyond float32 leaves no NaN, whatever the probabilities', () => {
    const coefficient = 0.1 * Math.exp(100);
    for (const dtype of dtypes) {
      const batch = farFromReference({ chosen: -100, rejected: 1, dtype });
      const objective = dirAlignLoss('dpo', 0.1, false, { divergence: 'forward_kl' });
      const { loss, gradLogits, coefficients, metrics } = objective(batch);
      expect(loss / coefficient).toBeCloseTo(1, 5);
      expect(at(coefficients, 0) / -coefficient).toBeCloseTo(1, 5);
      expect(metrics.nonfinite).toBe(1);
      const row = Array.from(values(gradLogits, dtype)).slice(0, 5);
      // Logits 0 (the label), 10, -20, -70 and -inf.
      expect(row[0]).toBe(-Infinity);
      expect(row[1]).toBe(Infinity);
      expect(row[4]).toBe(0);
      if (dtype === 'float16') continue;
      const near = dtype === 'float32' ? 1e-4 : 1e-2;
      for (const [v, logit] of [
        [2, -20],
        [3, -70],
      ] as const) {
        const expected = coefficient * Math.exp(logit - 10);
        expect(Math.abs(at(row, v) / expected - 1), `logit ${String(logit)}`).toBeLessThan(near);
      }
    }
  });

  test('an infinite coefficient, too, in its own pair only, and says so', () => {
    const objective = dirAlignLoss('dpo', 0.1, false, { divergence: 'forward_kl' });
    for (const dtype of dtypes) {
      const [far, near] = [
        farFromReference({ chosen: -800, rejected: -800.5, dtype, pairs: 2 }),
        farFromReference({ chosen: 0, rejected: 0, dtype, pairs: 2 }),
      ];
      // The second pair stays near its reference.
      const reference = far.reference.map((x, b) => (b % 2 === 0 ? x : at(near.reference, b)));
      const { coefficients, gradLogits, losses, metrics } = objective({ ...far, reference });
      expect([losses[0], coefficients[0], coefficients[2]].map((x) => Math.abs(x ?? NaN))).toEqual([
        0, 0, 0,
      ]);
      const other = objective({ ...far, reference: near.reference });
      expect([losses[1], coefficients[1], coefficients[3]]).toEqual([
        other.losses[1],
        other.coefficients[1],
        other.coefficients[3],
      ]);
      expect(metrics.nonfinite).toBe(0);

      const worse = objective({
        ...far,
        reference: reference.map((x, b) => (b === 0 ? x + 10 : x)),
      });
      expect([worse.losses[0], worse.coefficients[0], worse.coefficients[2]]).toEqual([
        Infinity,
        -Infinity,
        Infinity,
      ]);
      const all = Array.from(values(worse.gradLogits, dtype));
      expect(all.slice(0, 2)).toEqual([-Infinity, Infinity]);
      expect(all.some(Number.isNaN)).toBe(false);
      expect(at(all, 4)).toBe(0);
      expect(worse.metrics.nonfinite).toBe(1);
      // Rows of the second pair have the bits that they have beside a harmless one.
      const [rows, before] = [all, Array.from(values(gradLogits, dtype))];
      const perSequence = rows.length / 4;
      for (const b of [1, 3]) {
        const range = [b * perSequence, (b + 1) * perSequence] as const;
        expect(rows.slice(...range)).toEqual(before.slice(...range));
      }
    }
  });
});

describe('metrics.underflow', () => {
  // Coefficients of about the smallest normal number: some entries are below it, others not.
  const beta: Record<Dtype, number> = {
    float32: 12 * 2 ** -126,
    float16: 12 * 2 ** -14,
    bfloat16: 12 * 2 ** -126,
  };
  const sizes = { seed: 3, sequences: 6, tokens: 8, vocab: 6, scale: 3 };

  test.each(dtypes)('%s: rows whose entry of the label is no normal number', async (dtype) => {
    const batch = randomBatch({ ...sizes, dtype });
    // Certain of its label: the entry is 0, and rightly so.
    const certain = batch.labels.findIndex((label) => label >= 0);
    const one =
      dtype === 'float32'
        ? new Float32Array(6).fill(-Infinity)
        : encodeHalf(new Float32Array(6).fill(-Infinity), dtype);
    batch.logits.set(one, certain * 6);
    batch.logits[certain * 6 + at(batch.labels, certain)] = 0;
    const objective = dirAlignLoss('dpo', beta[dtype]);
    const result = objective(copyOf(batch));
    const expected = underflowingRows(batch, result);
    const scored = batch.labels.filter((label) => label >= 0).length;
    expect(expected).toBeGreaterThan(2);
    expect(expected).toBeLessThan(scored - 2);
    expect(result.metrics.underflow).toBe(expected);
    expect(objective(copyOf(batch), { inPlace: true, threads: 1 }).metrics.underflow).toBe(
      expected,
    );
    expect((await objective.async(batch)).metrics.underflow).toBe(expected);
    // Nothing else has a dense gradient of logits.
    expect(objective(copyOf(batch), { gradient: 'factored' }).metrics.underflow).toBe(0);
    expect(objective(batch, { gradient: 'none' }).metrics.underflow).toBe(0);
    // No gradient is no underflow: a pair on the flat side of the hinge.
    const flat = dirAlignLoss(
      'hinge',
      1,
    )({ ...batch, reference: Float64Array.of(-1e3, -1e3, -1e3, 0, 0, 0) });
    expect([...flat.coefficients].every((c) => c === 0)).toBe(true);
    expect(flat.metrics.underflow).toBe(0);
  });

  test('a likelihood term with labels of its own counts each row once', () => {
    const batch = randomBatch({ ...sizes, dtype: 'float16' });
    const sftLabels = batch.labels.map((label, row) => (row % 5 === 0 ? label : row % 6));
    for (const [weight, scale] of [
      [2 ** -10, 6.5],
      [1, 6.5],
      [2 ** -10, 1e6],
    ] as const) {
      const objective = dirAlignLoss('dpo', scale * 2 ** -14, false, { sftWeight: weight });
      const result = objective({ ...batch, sftLabels });
      const expected = underflowingRows({ ...batch, sftLabels }, result, -weight / 3);
      expect(expected).toBeGreaterThan(0);
      expect(result.metrics.underflow).toBe(expected);
    }
  });
});
