import { describe, expect, it } from 'vitest';
import { adam } from '../ranking-bias/adam.js';
import { makeData, type Pairs } from '../ranking-bias/data.js';
import { bestRate, outcomeVanishes, rankingBias } from '../ranking-bias/experiment.js';
import {
  pairwiseRanked,
  pointwiseRanked,
  rankedMethods,
  rankingLoss,
  type RankedMethod,
} from '../ranking-bias/losses.js';
import { accuracy, icc1 } from '../ranking-bias/metrics.js';
import {
  backward,
  backwardInactive,
  initialise,
  parameterCount,
  score,
} from '../ranking-bias/mlp.js';
import { uniformNumbers } from '../random.js';
import {
  rankingBiasStage,
  type RankingBiasParams,
  type RankingBiasResult,
} from '../ranking-bias/stage.js';
import { drawChart } from '../report/chart.js';
import { mean } from '../statistics.js';
import type { Json, Scale, Study } from '../study.js';

const at = (values: ArrayLike<number>, i: number): number => values[i] as number;

describe('random numbers', () => {
  it('are uniform in [0, 1), and others for every seed and stream', () => {
    const draws = 20_000;
    const streams = [
      uniformNumbers(0, 1),
      uniformNumbers(1, 1),
      uniformNumbers(0, 2),
      uniformNumbers(1, 0),
    ];
    const numbers = streams.map((next) => Float64Array.from({ length: draws }, next));
    const standardError = Math.sqrt(1 / 12 / draws);
    for (const [i, own] of numbers.entries()) {
      expect(own.every((u) => u >= 0 && u < 1)).toBe(true);
      expect(Math.abs(mean([...own]) - 1 / 2)).toBeLessThan(4 * standardError);
      for (const other of numbers.slice(i + 1)) {
        const covariance = mean([...own].map((u, k) => (u - 0.5) * (at(other, k) - 0.5)));
        expect(Math.abs(covariance)).toBeLessThan(4 / 12 / Math.sqrt(draws));
      }
    }
  });
});

describe('the data', () => {
  const each = (
    { x, chosen, rejected }: Pairs,
    check: (x: number, chosen: number, rejected: number) => void,
  ): void => {
    x.forEach((value, i) => {
      check(value, at(chosen, i), at(rejected, i));
    });
  };

  it.each([0, 0.9])(
    'have responses that differ about the bias of their prompt, the better chosen (strength %d)',
    (strength) => {
      const { train, test } = makeData(3, strength);
      expect([train.x.length, test.x.length]).toEqual([1600, 400]);
      for (const pairs of [train, test]) {
        each(pairs, (x, chosen, rejected) => {
          expect((chosen + rejected) / 2).toBeCloseTo(x < 0.5 ? strength : 0, 12);
          // A draw at temperature 1e-6 may prefer the smaller of two this close.
          expect(chosen - rejected).toBeGreaterThan(-1e-4);
          expect(chosen - rejected).toBeLessThan(1);
        });
      }
    },
  );

  it('have prompts and differences of the distribution that is asked for', () => {
    const { train } = makeData(5, 0.9);
    const differences: number[] = [];
    each(train, (_, chosen, rejected) => differences.push(chosen - rejected));
    // |s1 - s2| of two uniform numbers: mean 1/3, variance 1/18.
    expect(Math.abs(mean(differences) - 1 / 3)).toBeLessThan(4 * Math.sqrt(1 / 18 / 1600));
    expect(Math.abs(mean([...train.x]) - 1 / 2)).toBeLessThan(4 * Math.sqrt(1 / 12 / 1600));
  });

  it('are the same for a seed, with the bias or without, and others for another seed', () => {
    const { train } = makeData(7, 0.9);
    expect(makeData(7, 0.9)).toEqual(makeData(7, 0.9));
    expect(makeData(7, 0).train.x).toEqual(train.x);
    expect(makeData(8, 0.9).train.x).not.toEqual(train.x);
    const unbiased = makeData(7, 0).train;
    each(train, (x, chosen, rejected) => {
      if (x >= 0.5) return;
      expect(chosen - rejected).toBeGreaterThan(0);
    });
    train.x.forEach((x, i) => {
      expect(at(train.chosen, i) - (x < 0.5 ? 0.9 : 0)).toBeCloseTo(at(unbiased.chosen, i), 12);
    });
  });
});

describe('the losses', () => {
  const sg = (x: number): number =>
    x > 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x));
  const sp = (x: number): number => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
  const slope = (x: number): number => sg(x) * sg(-x);

  /** Loss and derivatives by the two scores, as arXiv 2502.01237 has them with beta = 1. */
  const formulas: Readonly<
    Record<
      RankedMethod,
      (w: number, l: number) => readonly [loss: number, byW: number, byL: number]
    >
  > = {
    dpo: (w, l) => [sp(l - w), -sg(l - w), sg(l - w)],
    ipo: (w, l) => [(w - l - 0.5) ** 2, 2 * (w - l - 0.5), -2 * (w - l - 0.5)],
    apo_zero: (w, l) => [-sg(w) + sg(l), -slope(w), slope(l)],
    nca: (w, l) => [sp(-w) + 0.5 * sp(w) + 0.5 * sp(l), 0.5 * sg(w) - sg(-w), 0.5 * sg(l)],
    cal_dpo: (w, l) => [
      sp(l - w) + (w - 0.5) ** 2 + (l + 0.5) ** 2,
      2 * (w - 0.5) - sg(l - w),
      2 * (l + 0.5) + sg(l - w),
    ],
    asft: (w, l) => [sp(-w) + sp(l), -sg(-w), sg(l)],
  };
  /** The package writes 1 - sg(w) + sg(l), TRL's form: the same gradient. */
  const constants: Partial<Record<RankedMethod, number>> = { apo_zero: 1 };

  const uniform = uniformNumbers(11, 0);
  const within = (reach: number): Float64Array =>
    Float64Array.from({ length: 400 }, () => (2 * uniform() - 1) * reach);
  const corners = Float64Array.from([30, -30, 30, -30, 0, 30, 30, -30, -30, 0]);

  it.each(rankedMethods)(
    'of %s are those of the formula, value and gradient, for scores up to 30',
    (method) => {
      for (const scores of [within(3), within(30), corners]) {
        const pairs = scores.length / 2;
        const { loss, losses, gradient } = rankingLoss(method, pairs)(scores);
        let total = 0;
        for (let i = 0; i < pairs; i++) {
          const [expected, byW, byL] = formulas[method](at(scores, i), at(scores, pairs + i));
          const value = expected + (constants[method] ?? 0);
          total += value / pairs;
          expect(Math.abs(at(losses, i) - value)).toBeLessThanOrEqual(
            1e-13 * Math.max(Math.abs(value), constants[method] ?? 0),
          );
          expect(Math.abs(at(gradient, i) * pairs - byW)).toBeLessThanOrEqual(
            1e-13 * Math.abs(byW),
          );
          expect(Math.abs(at(gradient, pairs + i) * pairs - byL)).toBeLessThanOrEqual(
            1e-13 * Math.abs(byL),
          );
        }
        expect(Math.abs(loss - total)).toBeLessThanOrEqual(1e-12 * Math.abs(total));
      }
    },
  );

  it('are pairwise where a shift of both scores changes nothing, and pointwise elsewhere', () => {
    const scores = within(2);
    for (const method of rankedMethods) {
      const { gradient } = rankingLoss(method, scores.length / 2)(scores);
      const sum = gradient.reduce((total, g) => total + g, 0);
      const size = gradient.reduce((total, g) => total + Math.abs(g), 0);
      expect(Math.abs(sum) < 1e-12 * size, method).toBe(pairwiseRanked.includes(method));
    }
    expect([...pairwiseRanked, ...pointwiseRanked]).toEqual([...rankedMethods]);
  });
});

describe('the scorer', () => {
  const { train } = makeData(1, 0.9);
  const pairs = train.x.length;

  it('is one hidden layer of ReLU units over x and y', () => {
    const parameters = Float64Array.from([0.5, -1, 0.25, 2, -1, 3, -0.5, -4, 0.125]);
    const scores = new Float64Array(2 * pairs);
    score(parameters, train, scores);
    const r = (x: number, y: number): number =>
      2 * Math.max(0, 0.5 * x - y + 0.25) - 4 * Math.max(0, -x + 3 * y - 0.5) + 0.125;
    train.x.forEach((x, i) => {
      expect(at(scores, i)).toBeCloseTo(r(x, at(train.chosen, i)), 12);
      expect(at(scores, pairs + i)).toBeCloseTo(r(x, at(train.rejected, i)), 12);
    });
  });

  it.each(rankedMethods)('has the gradient of finite differences of its loss, for %s', (method) => {
    const loss = rankingLoss(method, pairs);
    const parameters = initialise(4, 3);
    const scores = new Float64Array(2 * pairs);
    const lossAt = (values: Float64Array): number => {
      score(values, train, scores);
      return loss(scores).loss;
    };
    const gradient = new Float64Array(parameters.length);
    score(parameters, train, scores);
    backward(parameters, train, loss(scores).gradient, gradient);
    const largest = Math.max(...gradient.map(Math.abs));
    expect(largest).toBeGreaterThan(0.01);
    const step = 1e-6;
    parameters.forEach((value, k) => {
      const difference =
        lossAt(parameters.with(k, value + step)) - lossAt(parameters.with(k, value - step));
      expect(Math.abs(difference / (2 * step) - at(gradient, k)), `parameter ${k}`).toBeLessThan(
        1e-6 * largest,
      );
    });
  });

  it.each(rankedMethods)(
    'has the gradient of any one pair where no unit is active, for %s',
    (method) => {
      const parameters = Float64Array.from([0.5, -1, -3, 2, 0.7, 0.25, -2, -4, 0.125]);
      const scores = new Float64Array(2 * pairs);
      expect(score(parameters, train, scores)).toBe(false);
      expect(new Set(scores)).toEqual(new Set([0.125]));
      const [ofAll, ofOne] = [
        new Float64Array(parameters.length),
        new Float64Array(parameters.length).fill(NaN),
      ];
      const ofScores = rankingLoss(method, pairs)(scores).gradient;
      backward(parameters, train, ofScores, ofAll);
      backwardInactive(rankingLoss(method, 1)(scores.slice(0, 2)).gradient, ofOne);
      expect(ofOne.subarray(0, -1).every((g) => g === 0)).toBe(true);
      expect(ofAll.subarray(0, -1).every((g) => g === 0)).toBe(true);
      const terms = ofScores.reduce((sum, g) => sum + Math.abs(g), 0);
      expect(Math.abs(at(ofOne, 8) - at(ofAll, 8))).toBeLessThan(1e-12 * terms);
      // At equal scores the two slopes of APO-Zero are opposite, too.
      expect(at(ofOne, 8) === 0).toBe([...pairwiseRanked, 'apo_zero'].includes(method));
      expect(score(parameters.with(2, 0.5), train, scores)).toBe(true);
    },
  );

  it('starts as a linear layer of PyTorch: uniform within 1 / sqrt(inputs), biases too', () => {
    const hidden = 4000;
    const parameters = initialise(2, hidden);
    expect(parameters).toHaveLength(parameterCount(hidden));
    const limits = [1 / Math.SQRT2, 1 / Math.SQRT2, 1 / Math.SQRT2, 1 / Math.sqrt(hidden)];
    limits.forEach((limit, k) => {
      const column = Array.from({ length: hidden }, (_, j) => at(parameters, 4 * j + k) / limit);
      expect(Math.max(...column.map(Math.abs))).toBeLessThanOrEqual(1);
      expect(Math.abs(mean(column))).toBeLessThan(4 * Math.sqrt(1 / 3 / hidden));
      expect(Math.abs(mean(column.map((v) => v * v)) - 1 / 3)).toBeLessThan(
        4 * Math.sqrt(4 / 45 / hidden),
      );
    });
    expect(Math.abs(at(parameters, 4 * hidden))).toBeLessThanOrEqual(1 / Math.sqrt(hidden));
  });
});

describe('adam', () => {
  it('steps as the formula does', () => {
    const parameters = Float64Array.from([1, 1]);
    const step = adam(parameters, 0.1);
    // The first step is the learning rate, whatever the size of the gradient.
    step(Float64Array.from([1e-3, -50]));
    expect(at(parameters, 0)).toBeCloseTo(0.9, 5);
    expect(at(parameters, 1)).toBeCloseTo(1.1, 9);
    // Means .9 (.1 (-50)) + .1 (10) = -3.5 and .999 (.001 (2500)) + .001 (100) = 2.5975, over 1 -
    // .9^2 and 1 - .999^2.
    step(Float64Array.from([0, 10]));
    expect(at(parameters, 1)).toBeCloseTo(
      1.1 + (0.1 * (3.5 / 0.19)) / Math.sqrt(2.5975 / 0.001999),
      9,
    );
  });
});

describe('the metrics', () => {
  it('count a tie as wrong', () => {
    expect(accuracy(Float64Array.from([2, 1, 0, 5, 1, 1, 1, 4]))).toBe(2 / 4);
    expect(accuracy(new Float64Array(8))).toBe(0);
  });

  it('have ICC1 from -1, no variance between prompts, to 1, all of it', () => {
    expect(icc1(Float64Array.from([1, 1, 1, -1, -1, -1]))).toBeCloseTo(-1, 12);
    expect(icc1(Float64Array.from([3, 1, -1, 3, 1, -1]))).toBeCloseTo(1, 12);
    expect(icc1(new Float64Array(6).fill(0.1))).toBeUndefined();
  });

  it('have the ICC1 of an analysis of variance', () => {
    const uniform = uniformNumbers(13, 0);
    const n = 100;
    const scores = Float64Array.from(
      { length: 2 * n },
      (_, i) => uniform() + 0.5 * Math.cos(i % n),
    );
    const all = mean([...scores]);
    let between = 0;
    let inside = 0;
    for (let i = 0; i < n; i++) {
      const [w, l] = [at(scores, i), at(scores, n + i)];
      const prompt = (w + l) / 2;
      between += (2 * (prompt - all) ** 2) / n;
      inside += ((w - prompt) ** 2 + (l - prompt) ** 2) / n;
    }
    expect(icc1(scores)).toBeCloseTo((between - inside) / (between + inside), 12);
  });
});

const context = { directory: '', directoryOf: () => '', progress: () => undefined };
const compute = async (params: RankingBiasParams): Promise<RankingBiasResult> =>
  JSON.parse(JSON.stringify(await rankingBiasStage({ ...params }, context))) as RankingBiasResult;

describe('the stage', () => {
  const params = {
    method: 'asft',
    hidden: 3,
    strength: 0.9,
    learningRates: [0.1, 0.03],
    firstSeed: 5,
    seeds: 3,
  } as const;

  it('makes the same of a seed every time, whatever is computed beside it', async () => {
    const all = await compute(params);
    expect(await compute(params)).toEqual(all);
    const [last] = await compute({ ...params, learningRates: [0.03], firstSeed: 7, seeds: 1 });
    expect(last).toEqual({ accuracy: all[1]?.accuracy.slice(2), icc1: all[1]?.icc1.slice(2) });
    expect(all[0]).not.toEqual(all[1]);
  });

  it('finds what the paper does: pairwise methods rank better and follow prompts', async () => {
    const runs = new Map<RankedMethod, RankingBiasResult[number]>();
    for (const method of rankedMethods) {
      const [result] = await compute({
        method,
        hidden: 3,
        strength: 0.9,
        learningRates: [0.05],
        firstSeed: 0,
        seeds: 20,
      });
      if (result) runs.set(method, result);
    }
    const accuracyOf = (method: RankedMethod): number => mean(runs.get(method)?.accuracy ?? []);
    const iccOf = (method: RankedMethod): number =>
      mean((runs.get(method)?.icc1 ?? []).filter((icc) => icc !== null));
    // The sign of so few seeds; the study's full form has an interval.
    expect(
      mean(pairwiseRanked.map(accuracyOf)) - mean(pointwiseRanked.map(accuracyOf)),
    ).toBeGreaterThan(0);
    expect(Math.min(...rankedMethods.map(accuracyOf))).toBeGreaterThan(0.85);
    expect(Math.min(...pairwiseRanked.map(iccOf))).toBeGreaterThan(
      Math.max(...pointwiseRanked.map(iccOf)) + 0.2,
    );
  });
});

describe('the experiment', () => {
  it('takes the rate with the best mean; of equal ones the middle, or the smaller of two', () => {
    const runs = (...accuracies: number[]): RankingBiasResult[number] => ({
      accuracy: accuracies,
      icc1: [],
    });
    expect(bestRate([0.3, 0.1, 0.03], [runs(0.5, 0.5), runs(0.6, 0.9), runs(0.7, 0.7)])).toBe(0.1);
    expect(bestRate([0.3, 0.1], [runs(1, 0), runs(0.9, 0.2)])).toBe(0.1);
    expect(bestRate([0.3, 0.1, 0.03, 0.01], [runs(1), runs(1), runs(1), runs(0.5)])).toBe(0.1);
    expect(bestRate([0.3, 0.1, 0.03, 0.01], [runs(0.5), runs(1), runs(1), runs(0.5)])).toBe(0.03);
  });

  it('says that an effect is gone only where its interval has 0 in it and not the effect', () => {
    const of = (centre: number, halfWidth: number) =>
      outcomeVanishes({ mean: centre, halfWidth, count: 9 }, 0.05);
    expect(of(0.01, 0.02)).toBe('reproduced');
    expect(of(0.01, 0.06)).toBe('unclear');
    expect(of(0.03, 0.02)).toBe('not reproduced');
    expect(of(-0.03, 0.02)).toBe('not reproduced');
  });

  /**
   * Answers at once with figures that depend on the kind of ranking by `effect`, on the seed, and
   * peak at a rate of .1.
   */
  function pretend(
    scale: Scale,
    effect: number,
  ): { readonly study: Study; readonly asked: RankingBiasParams[] } {
    const asked: RankingBiasParams[] = [];
    const run = (params: RankingBiasParams): RankingBiasResult => {
      asked.push(params);
      const shift = pairwiseRanked.includes(params.method) && params.strength > 0 ? effect : 0;
      const noise = (seed: number): number => 0.01 * Math.sin(7 * seed + params.hidden);
      const seeds = Array.from({ length: params.seeds }, (_, i) => params.firstSeed + i);
      return params.learningRates.map((rate) => ({
        accuracy: seeds.map((seed) => 0.9 + shift + noise(seed) - Math.abs(Math.log10(rate / 0.1))),
        icc1: seeds.map((seed) =>
          seed % 5 === 0 ? null : 0.3 - 0.1 * params.hidden + 2 * shift + noise(seed + 1),
        ),
      }));
    };
    return {
      asked,
      study: {
        scale,
        run: <R>(task: { params: Json }) => Promise.resolve(run(task.params as never) as R),
      },
    };
  }

  it.each([
    ['quick', 0.05, ['reproduced', 'reproduced', 'reproduced']],
    [
      'full',
      0.05,
      [
        'reproduced',
        'reproduced',
        'reproduced',
        'reproduced',
        'reproduced',
        'not reproduced',
        'reproduced',
      ],
    ],
    [
      'full',
      -0.05,
      [
        'not reproduced',
        'reproduced',
        'not reproduced',
        'reproduced',
        'not reproduced',
        'not reproduced',
        'reproduced',
      ],
    ],
  ] as const)(
    'of scale %s reports what it is given (effect %d)',
    async (scale, effect, outcomes) => {
      const { study } = pretend(scale, effect);
      const section = await rankingBias.run(study);
      expect(section.findings.map(({ outcome }) => outcome)).toEqual(outcomes);
      for (const { columns, rows } of section.tables)
        for (const row of rows) expect(row).toHaveLength(columns.length);
      const [methods] = section.tables;
      expect(new Set(methods?.rows.map((row) => row[4]))).toEqual(new Set([0.1]));
      for (const { spec } of section.charts) expect(await drawChart(spec)).toContain('<svg');
      expect(JSON.parse(JSON.stringify(section.data))).toEqual(section.data);
    },
  );

  it('searches rates and takes figures on different seeds, every seed once', async () => {
    const { study, asked } = pretend('full', 0.05);
    await rankingBias.run(study);
    const seedsOf = ({ firstSeed, seeds }: RankingBiasParams): number[] =>
      Array.from({ length: seeds }, (_, i) => firstSeed + i);
    const searched = new Set(asked.filter((p) => p.learningRates.length > 1).flatMap(seedsOf));
    const evaluated = asked.filter((p) => p.learningRates.length === 1);
    expect(evaluated.flatMap(seedsOf).filter((seed) => searched.has(seed))).toEqual([]);
    const atOne = asked.filter((p) => p.method === 'dpo' && p.hidden === 1 && p.strength > 0);
    const finals = atOne.filter((p) => p.learningRates.length === 3);
    expect(new Set(finals.flatMap((p) => p.learningRates))).toEqual(new Set([0.3, 0.1, 0.05]));
    expect(new Set(finals.flatMap(seedsOf)).size).toBe(120);
    expect(atOne.filter((p) => p.learningRates.length === 7).flatMap(seedsOf)).toHaveLength(40);
    expect(searched.size).toBe(160);
    const dpo = evaluated
      .filter((p) => p.method === 'dpo' && p.hidden === 3 && p.strength > 0)
      .flatMap(seedsOf);
    expect(dpo).toEqual(Array.from({ length: 400 }, (_, seed) => seed));
  });
});
