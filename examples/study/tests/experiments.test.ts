// What the experiments ask for, choose and conclude, from stages that are formulas.
import { describe, expect, test } from 'vitest';
import { methodComparison } from '../experiments/methods.js';
import { frontDifference, pareto } from '../experiments/pareto.js';
import { planOf } from '../experiments/plan.js';
import { sftShare } from '../experiments/sft-share.js';
import { tempering } from '../experiments/tempering.js';
import { twoStage } from '../experiments/two-stage.js';
import { unpaired } from '../experiments/unpaired.js';
import { rankingOf } from '../experiments/runs.js';
import { alignmentMethods, type AlignParams } from '../model/tasks.js';
import { drawChart } from '../report/chart.js';
import type { Experiment, Outcome, Scale, Section } from '../study.js';
import { fakeStudy, noise, seedNoise, type FakeModel, type FakeStudy } from './support/fakes.js';

const all = (): readonly Experiment[] => [
  twoStage(),
  methodComparison(),
  tempering(),
  pareto(),
  sftShare(),
  unpaired(),
];

/** Every run as good as the next, but for its seed. */
const level = (quality = 0.7): FakeModel => ({
  sft: ({ seed }) => 0.6 + seedNoise(seed),
  align: ({ seed, beta }) => ({ quality: quality + seedNoise(seed), kl: 1 / beta }),
});

/** The same, with something added to the quality of some runs. */
function modelWith(bonus: (params: AlignParams) => number): FakeModel {
  const { sft, align } = level();
  return {
    sft,
    align: (params) => {
      const { quality, kl } = align(params);
      return { quality: quality + bonus(params), kl };
    },
  };
}

async function run(
  experiment: Experiment,
  model: FakeModel,
  scale: Scale = 'full',
): Promise<{ section: Section; study: FakeStudy }> {
  const study = fakeStudy(scale, model);
  return { section: await experiment.run(study), study };
}

async function outcomes(
  experiment: Experiment,
  model: FakeModel,
  scale?: Scale,
): Promise<Outcome[]> {
  const { section } = await run(experiment, model, scale);
  return section.findings.map(({ outcome }) => outcome);
}

const alignRuns = (study: FakeStudy): AlignParams[] =>
  study.tasks
    .filter(({ stage }) => stage === 'align')
    .map(({ params }) => params as unknown as AlignParams);

describe('every experiment', () => {
  test.each(['quick', 'full'] as const)(
    'at scale %s asks for tasks of that scale, each after what it starts from, and not too many',
    async (scale) => {
      const study = fakeStudy(scale, level());
      await Promise.all(all().map((experiment) => experiment.run(study)));
      expect(
        study.tasks.every(({ params }) => (params as unknown as AlignParams).scale === scale),
      ).toBe(true);
      const count = alignRuns(study).length;
      expect(count).toBeGreaterThan(scale === 'quick' ? 20 : 300);
      expect(count).toBeLessThanOrEqual(scale === 'quick' ? 64 : 540);
      // Together they share runs.
      const apart = await Promise.all(
        all().map(
          async (experiment) => alignRuns((await run(experiment, level(), scale)).study).length,
        ),
      );
      expect(apart.reduce((sum, each) => sum + each, 0)).toBeGreaterThan(count);
    },
  );

  test('takes no figure from the seeds that settings are chosen on', () => {
    for (const scale of ['quick', 'full'] as const) {
      const plan = planOf(scale);
      // The grids were laid out on seed 1.
      expect(plan.seeds.filter((seed) => seed === 1 || plan.searchSeeds.includes(seed))).toEqual(
        [],
      );
      expect(plan.searchSeeds).not.toContain(1);
      expect(plan.shareSeeds.filter((seed) => !plan.seeds.includes(seed))).toEqual([]);
    }
    expect(planOf('full', 7).seeds).toHaveLength(7);
    expect(planOf('full', 7).searchSeeds).toEqual(planOf('full').searchSeeds);
  });

  test('has beta 1 for orpo and asft, sweeps of six or more, and a last share of all', () => {
    for (const scale of ['quick', 'full'] as const) {
      const { betas, sweptBetas, shares } = planOf(scale);
      for (const method of ['orpo', 'asft'] as const) {
        expect(betas[method]).toContain(1);
        expect(sweptBetas[method]).toEqual(expect.arrayContaining([...betas[method]]));
        if (scale === 'full') expect(sweptBetas[method].length).toBeGreaterThanOrEqual(6);
      }
      expect(shares.at(-1)).toBe(100);
    }
    const { betas, shares } = planOf('full');
    expect(shares).toEqual([1, 3, 5, 10, 25, 50, 100]);
    expect(new Set(Object.values(betas).map(({ length }) => length)).size).toBe(1);
  });

  test.each(all().map((experiment) => [experiment.id, experiment] as const))(
    '%s: its section has charts that can be drawn, tables without holes, and its numbers as JSON',
    async (id, experiment) => {
      for (const scale of ['quick', 'full'] as const) {
        const { section } = await run(experiment, modelWith(noise), scale);
        expect(section.id).toBe(id);
        expect(section.findings.length).toBeGreaterThan(0);
        expect(section.charts.length).toBeGreaterThan(0);
        for (const { spec } of section.charts) expect(await drawChart(spec)).toMatch(/^<svg/);
        for (const { columns, rows } of section.tables) {
          for (const row of rows) expect(row).toHaveLength(columns.length);
          expect(JSON.stringify(rows)).not.toMatch(/NaN|Infinity|undefined/);
        }
        expect(JSON.parse(JSON.stringify(section.data))).toEqual(section.data);
      }
    },
    60_000,
  );
});

describe('one stage or two', () => {
  test('what comes out follows what is better, form by form', async () => {
    const oneStage = (params: AlignParams): boolean => params.init === 'base';
    expect(
      await outcomes(
        twoStage(),
        modelWith((p) => -0.1 * p.lambda + noise(p)),
      ),
    ).toEqual(Array(4).fill('reproduced'));
    expect(
      await outcomes(
        twoStage(),
        modelWith((p) => (oneStage(p) ? 0.1 : -0.1 * p.lambda) + noise(p)),
      ),
    ).toEqual([...['not reproduced', 'reproduced', 'not reproduced', 'reproduced']]);
    const noisy = modelWith((p) => 0.1 * Math.sin(1e4 * noise(p)));
    expect(await outcomes(twoStage(), noisy)).toContain('unclear');
  });

  test('compares at beta 1, each arm with a learning rate of its own', async () => {
    const best = {
      base: planOf('full').baseLearningRates[2],
      sft: planOf('full').learningRates[0],
    };
    const { section, study } = await run(
      twoStage(),
      modelWith((p) => (p.learningRate === (p.init === 'base' ? best.base : best.sft) ? 0.1 : 0)),
    );
    const { arms } = section.data as unknown as {
      arms: { label: string; setting: AlignParams; quality: number[] }[];
    };
    expect(arms.map(({ label }) => label)).toEqual([
      ...['SFT, then ORPO', 'ORPO from base', 'SFT, then ORPO with likelihood'],
      ...['SFT, then ASFT', 'ASFT from base', 'SFT, then ASFT with likelihood', 'SFT, then DPO'],
    ]);
    for (const { setting, label } of arms) {
      expect(setting.learningRate).toBe(setting.init === 'base' ? best.base : best.sft);
      if (setting.method !== 'dpo') expect(setting.beta).toBe(1);
      expect(setting.lambda).toBe(/base|likelihood/.test(label) ? 1 : 0);
      expect(setting.init).toEqual(label.includes('base') ? 'base' : { share: 100 });
    }
    const { seeds, searchSeeds } = planOf('full');
    expect(arms.every(({ quality }) => quality.length === seeds.length)).toBe(true);
    expect(new Set(alignRuns(study).map(({ seed }) => seed))).toEqual(
      new Set([...searchSeeds, ...seeds]),
    );
  });
});

describe('all methods', () => {
  test('the best setting of the search is what is compared', async () => {
    const { learningRates, betas, seeds, searchSeeds } = planOf('full');
    const wanted = { learningRate: learningRates.at(-1), orpo: betas.orpo[2] };
    const model = modelWith(
      (p) =>
        (p.learningRate === wanted.learningRate ? 0.05 : 0) +
        (p.method === 'orpo' && p.beta === wanted.orpo ? 0.05 : 0),
    );
    const { section, study } = await run(methodComparison(), model);
    const { best } = section.data as unknown as { best: (AlignParams & { quality: number[] })[] };
    expect(best.map(({ method }) => method)).toEqual([...alignmentMethods]);
    expect(best.every(({ learningRate }) => learningRate === wanted.learningRate)).toBe(true);
    expect(best.find(({ method }) => method === 'orpo')?.beta).toBe(wanted.orpo);
    expect(best[3]?.quality).toEqual(
      seeds.map((seed) => expect.closeTo(0.8 + seedNoise(seed), 12) as number),
    );
    const evaluated = alignRuns(study).filter(({ seed }) => !searchSeeds.includes(seed));
    expect(evaluated).toHaveLength(alignmentMethods.length * seeds.length);
  });

  test('what diverged is not chosen', async () => {
    const [first] = planOf('full').learningRates;
    const { sft, align } = level();
    const model: FakeModel = {
      sft,
      align: (p) => ({
        ...align(p),
        ...(p.learningRate === first ? { quality: 0.99, diverged: true } : {}),
      }),
    };
    const { section } = await run(methodComparison(), model);
    const { best } = section.data as unknown as { best: AlignParams[] };
    expect(best.some(({ learningRate }) => learningRate === first)).toBe(false);
  });

  test('the kind of ranking: by the paired interval, with the exact test beside it', async () => {
    const pairwise = (p: AlignParams): number => (rankingOf(p.method) === 'pairwise' ? 0.1 : 0);
    const { section } = await run(
      methodComparison(),
      modelWith((p) => pairwise(p) + noise(p)),
    );
    expect(section.findings.map(({ outcome }) => outcome)).toEqual(['reproduced', 'reproduced']);
    expect(section.findings[1]?.evidence).toContain('1 of 70 splits at least as large, p = 0.014');
    expect(
      await outcomes(
        methodComparison(),
        modelWith((p) => noise(p) - pairwise(p)),
      ),
    ).toEqual(
      ['unclear', 'not reproduced'].map((o, i) => (i === 0 ? (expect.any(String) as string) : o)),
    );
    const none = await outcomes(
      methodComparison(),
      modelWith((p) => 0.05 * Math.sin(1e4 * noise(p))),
    );
    expect(none[1]).toBe('unclear');
  });

  test('one method below the model after SFT is enough for that claim to fail', async () => {
    const below = modelWith((p) => (p.method === 'nca' ? -0.3 : 0));
    const { section } = await run(methodComparison(), below);
    expect(section.findings[0]).toMatchObject({ outcome: 'not reproduced' });
    expect(section.findings[0]?.evidence).toContain('NCA, -0.200');
  });
});

describe('tempering', () => {
  test('compares the best beta with beta 1 at the best learning rate of each', async () => {
    const { learningRates, betas, sweptBetas } = planOf('full');
    const [slow, fast] = [learningRates[0], learningRates.at(-1)];
    const best = betas.orpo.find((beta) => beta !== 1);
    const model = modelWith(
      (p) =>
        (p.beta === best && p.learningRate === fast ? 0.1 : 0) +
        (p.beta === 1 && p.learningRate === slow ? 0.05 : 0),
    );
    const { section } = await run(tempering(), model);
    const { methods } = section.data as unknown as {
      methods: {
        method: string;
        tempered: { setting: AlignParams };
        untempered: { setting: AlignParams };
        sweep: { setting: AlignParams }[];
      }[];
    };
    const [orpo] = methods;
    expect(orpo?.tempered.setting).toMatchObject({ beta: best, learningRate: fast });
    expect(orpo?.untempered.setting).toMatchObject({ beta: 1, learningRate: slow });
    expect(orpo?.sweep.map(({ setting }) => setting.beta)).toEqual([...sweptBetas.orpo]);
    expect(orpo?.sweep.every(({ setting }) => setting.learningRate === fast)).toBe(true);
    expect(section.findings[0]?.outcome).toBe('reproduced');
    expect(section.findings[0]?.evidence).toContain('+0.050');
  });

  test('if nothing is better than beta 1, nothing is gained', async () => {
    const { section } = await run(
      tempering(),
      modelWith((p) => (p.beta === 1 ? 0.1 : 0)),
    );
    const evidence = 'The search found no beta that is better than 1.';
    for (const finding of section.findings)
      expect(finding).toMatchObject({ outcome: 'not reproduced', evidence });
    expect(section.findings).toHaveLength(2);
  });
});

describe('KL against quality', () => {
  test('the difference of fronts is that of the areas below their steps', () => {
    const a = [
      { kl: 0, quality: 0.5 },
      { kl: 1, quality: 0.8 },
      { kl: 6, quality: 0.9 },
    ];
    const b = [
      { kl: 0, quality: 0.5 },
      { kl: 2, quality: 0.7 },
      { kl: 4, quality: 0.75 },
    ];
    // To KL 6: (1 x 0.5 + 5 x 0.8) / 6 minus (2 x 0.5 + 2 x 0.7 + 2 x 0.75) / 6.
    expect(frontDifference(a, b)).toBeCloseTo(4.5 / 6 - 3.9 / 6, 12);
    expect(frontDifference(b, a)).toBeCloseTo(3.9 / 6 - 4.5 / 6, 12);
    expect(frontDifference(a, a)).toBe(0);
    expect(frontDifference(a, [{ kl: 0, quality: 0.5 }])).toBeCloseTo(4.5 / 6 - 0.5, 12);
    expect(frontDifference([{ kl: 0, quality: 0.5 }], [{ kl: 0, quality: 0.5 }])).toBe(0);
  });

  test('outcomes follow the fronts, and where the methods start', async () => {
    const odds = ['orpo', 'asft'];
    const model = (sign: number, start: number): FakeModel => ({
      sft: ({ seed }) => 0.6 + seedNoise(seed),
      align: (p) => ({
        quality:
          0.7 +
          sign * (rankingOf(p.method) === 'pairwise' ? 0.1 : 0) +
          seedNoise(p.seed) +
          noise(p),
        kl: 5 / (1 + p.beta) + (odds.includes(p.method) ? start : 0) + noise(p),
      }),
    });
    expect(await outcomes(pareto(), model(1, 9))).toEqual([
      'reproduced',
      'reproduced',
      'reproduced',
    ]);
    expect(await outcomes(pareto(), model(-1, -9))).toEqual([
      'not reproduced',
      'not reproduced',
      'not reproduced',
    ]);
  });

  test('where a method starts is its KL at the largest beta', async () => {
    const { betas, sweptBetas } = planOf('full');
    const { orpo, asft } = sweptBetas;
    const swept = { ...betas, orpo, asft };
    const odds = (p: AlignParams): boolean => p.method === 'orpo' || p.method === 'asft';
    const largest = (p: AlignParams): boolean => p.beta === Math.max(...swept[p.method]);
    const model: FakeModel = {
      ...level(),
      align: (p) => ({
        quality: 0.7 + noise(p),
        kl: (odds(p) === largest(p) ? 3 : 0.1) + noise(p),
      }),
    };
    expect((await outcomes(pareto(), model)).slice(1)).toEqual(['reproduced', 'reproduced']);
  });
});

describe('the share of the demonstrations', () => {
  const saturating = (scale: number, bonus: (p: AlignParams) => number = () => 0): FakeModel => ({
    sft: ({ share }) => 0.6 * (1 - Math.exp(-share / scale)),
    align: (p) => ({
      quality:
        (p.init === 'base' ? 0 : 0.9 * (1 - Math.exp(-p.init.share / scale))) + bonus(p) + noise(p),
      kl: 1,
    }),
  });

  test('10 % are enough if quality saturates before, and not if it does not', async () => {
    expect((await outcomes(sftShare(), saturating(1)))[0]).toBe('reproduced');
    expect((await outcomes(sftShare(), saturating(20)))[0]).toBe('not reproduced');
  });

  test('with few demonstrations DPO and IPO are compared with the others', async () => {
    const few = (p: AlignParams): boolean => p.init !== 'base' && p.init.share <= 5;
    const best = (p: AlignParams): boolean => p.method === 'dpo' || p.method === 'ipo';
    expect(
      (
        await outcomes(
          sftShare(),
          saturating(1, (p) => (few(p) && best(p) ? 0.05 : 0)),
        )
      )[1],
    ).toBe('reproduced');
    expect(
      (
        await outcomes(
          sftShare(),
          saturating(1, (p) => (few(p) && best(p) ? -0.05 : 0)),
        )
      )[1],
    ).toBe('not reproduced');
    expect(
      (
        await outcomes(
          sftShare(),
          saturating(1, (p) => (!few(p) && best(p) ? 0.05 : 0)),
        )
      )[1],
    ).not.toBe('reproduced');
  });
});

describe('pairs, or single examples', () => {
  test('outcomes follow what is better, at the best setting of each', async () => {
    const of = (method: AlignParams['method'], by: number) =>
      modelWith((p) => (p.method === method ? by : 0));
    expect(await outcomes(unpaired(), of('dpo', 0.1))).toEqual(['reproduced', 'reproduced']);
    expect(await outcomes(unpaired(), of('kto', 0.1))).toEqual(['reproduced', 'not reproduced']);
    expect(await outcomes(unpaired(), of('kto', -0.3))).toEqual(['not reproduced', 'reproduced']);
  });
});
