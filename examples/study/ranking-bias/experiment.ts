import type { TopLevelSpec } from 'vega-lite';
import { outcomeAbove, plusMinus, signed } from '../outcome.js';
import { interval, mean, paired, type Interval } from '../statistics.js';
import type { Experiment, Finding, Json, Outcome, Scale, Section, Study, Table } from '../study.js';
import { pairwiseRanked, pointwiseRanked, rankedMethods, type RankedMethod } from './losses.js';
import {
  rankingBiasTask,
  type RankingBiasParams,
  type RankingBiasResult,
  type Runs,
} from './stage.js';

type Regime = 'biased' | 'unbiased';

const strengths: Readonly<Record<Regime, number>> = { biased: 0.9, unbiased: 0 };

/**
 * A capacity and a regime. Learning rates are searched on `searchSeeds` seeds, and figures are of
 * `seeds` others.
 */
interface Setting {
  readonly hidden: number;
  readonly regime: Regime;
  readonly searchSeeds: number;
  /** Where accuracy is noisy: so many more for the three rates that do best on those. */
  readonly finalSeeds?: number;
  readonly seeds: number;
}

interface Plan {
  readonly learningRates: readonly number[];
  readonly settings: readonly Setting[];
}

/** A scorer with capacity takes longest, and its accuracy varies least: it has fewer seeds. */
const plans: Readonly<Record<Scale, Plan>> = {
  quick: {
    learningRates: [0.3, 0.1, 0.03, 0.01],
    settings: [
      { hidden: 1, regime: 'biased', searchSeeds: 6, seeds: 20 },
      { hidden: 3, regime: 'biased', searchSeeds: 6, seeds: 20 },
    ],
  },
  full: {
    learningRates: [0.3, 0.1, 0.05, 0.03, 0.01, 0.005, 0.003],
    settings: [
      { hidden: 1, regime: 'biased', searchSeeds: 40, finalSeeds: 120, seeds: 400 },
      { hidden: 3, regime: 'biased', searchSeeds: 40, seeds: 400 },
      { hidden: 4, regime: 'biased', searchSeeds: 10, seeds: 400 },
      { hidden: 8, regime: 'biased', searchSeeds: 4, seeds: 100 },
      { hidden: 1, regime: 'unbiased', searchSeeds: 10, seeds: 400 },
      { hidden: 3, regime: 'unbiased', searchSeeds: 4, seeds: 400 },
      { hidden: 4, regime: 'unbiased', searchSeeds: 4, seeds: 400 },
      { hidden: 8, regime: 'unbiased', searchSeeds: 4, seeds: 100 },
    ],
  },
};

const firstSearchSeed = 1_000_000;
const finalists = 3;
/** Means of the same counts, added in another order, differ by less than a count does. */
const tie = 1e-9;
/** A few seconds of work. */
const seedsPerTask = { search: 20, evaluation: 50 } as const;

interface Measured {
  readonly setting: Setting;
  readonly method: RankedMethod;
  readonly learningRate: number;
  readonly runs: Runs;
}

export const rankingBias: Experiment = {
  id: 'ranking-bias',
  title: 'Ranking bias: pairwise and pointwise losses under a prompt bias',
  run: async (study) => {
    const { learningRates, settings } = plans[study.scale];
    const cells = settings.flatMap((setting) =>
      rankedMethods.map((method) => ({ setting, method })),
    );
    const measured = await Promise.all(
      cells.map(({ setting, method }) => measure(study, setting, method, learningRates)),
    );
    return section(measured, plans[study.scale]);
  },
};

async function measure(
  study: Study,
  setting: Setting,
  method: RankedMethod,
  rates: readonly number[],
): Promise<Measured> {
  const common = { method, hidden: setting.hidden, strength: strengths[setting.regime] };
  const run = async (
    learningRates: readonly number[],
    seeds: readonly SeedRange[],
  ): Promise<RankingBiasResult> =>
    joined(
      await Promise.all(
        seeds.map((range) =>
          study.run<RankingBiasResult>(rankingBiasTask({ ...common, learningRates, ...range })),
        ),
      ),
    );
  const searched = await run(
    rates,
    parts(firstSearchSeed, setting.searchSeeds, seedsPerTask.search),
  );
  const learningRate = setting.finalSeeds
    ? await bestFinalist(setting.finalSeeds)
    : bestRate(rates, searched);
  const [runs] = await run([learningRate], parts(0, setting.seeds, seedsPerTask.evaluation));
  return { setting, method, learningRate, runs: runs as Runs };

  async function bestFinalist(seeds: number): Promise<number> {
    const accuracies = searched.map(({ accuracy }) => mean(accuracy));
    const third = [...accuracies].sort((a, b) => b - a)[finalists - 1] as number;
    const best = rates.map((_, i) => i).filter((i) => (accuracies[i] as number) > third - tie);
    const kept = best.map((i) => rates[i] as number);
    const more = await run(
      kept,
      parts(firstSearchSeed + setting.searchSeeds, seeds, seedsPerTask.search),
    );
    const all = best.map((i, k) => joinedRuns([searched[i] as Runs, more[k] as Runs]));
    return bestRate(kept, all);
  }
}

type SeedRange = Pick<RankingBiasParams, 'firstSeed' | 'seeds'>;

function parts(first: number, seeds: number, most: number): readonly SeedRange[] {
  return Array.from({ length: Math.ceil(seeds / most) }, (_, i) => ({
    firstSeed: first + i * most,
    seeds: Math.min(most, seeds - i * most),
  }));
}

/** Seeds one after the other, learning rate by learning rate. */
function joined(results: readonly RankingBiasResult[]): RankingBiasResult {
  const [first = []] = results;
  return first.map((_, rate) => joinedRuns(results.map((result) => result[rate] as Runs)));
}

function joinedRuns(runs: readonly Runs[]): Runs {
  return { accuracy: runs.flatMap((r) => r.accuracy), icc1: runs.flatMap((r) => r.icc1) };
}

/**
 * By mean accuracy on the test pairs; of equals the middle one, the farthest from rates that do
 * worse, or the smaller of two middles.
 */
export function bestRate(rates: readonly number[], searched: RankingBiasResult): number {
  const accuracies = searched.map((runs) => mean(runs.accuracy));
  const best = Math.max(...accuracies);
  const equals = rates
    .filter((_, i) => (accuracies[i] as number) > best - tie)
    .sort((a, b) => b - a);
  return equals[Math.floor(equals.length / 2)] as number;
}

/** Accuracy of the mean pairwise method minus that of the mean pointwise one, seed by seed. */
function gap(runs: Readonly<Record<RankedMethod, Runs>>): Interval {
  const meanOf = (methods: readonly RankedMethod[]): readonly number[] =>
    runs.dpo.accuracy.map((_, seed) =>
      mean(methods.map((method) => runs[method].accuracy[seed] as number)),
    );
  return paired(meanOf(pairwiseRanked), meanOf(pointwiseRanked));
}

/** Of the seeds where neither scorer is constant. */
function iccDifference(a: Runs, b: Runs): Interval | undefined {
  const both = a.icc1.flatMap((value, seed) => {
    const other = b.icc1[seed];
    return value === null || other === null || other === undefined ? [] : [value - other];
  });
  return both.length < 2 ? undefined : interval(both);
}

function iccInterval({ icc1 }: Runs): Interval | undefined {
  const finite = icc1.filter((value) => value !== null);
  return finite.length < 2 ? undefined : interval(finite);
}

interface Group {
  readonly setting: Setting;
  readonly runs: Readonly<Record<RankedMethod, Runs>>;
  readonly gap: Interval;
}

function groupsOf(measured: readonly Measured[]): readonly Group[] {
  const settings = [...new Set(measured.map((m) => m.setting))];
  return settings.map((setting) => {
    const own = measured
      .filter((m) => m.setting === setting)
      .map(({ method, runs }) => [method, runs] as const);
    const runs = Object.fromEntries(own) as Record<RankedMethod, Runs>;
    return { setting, runs, gap: gap(runs) };
  });
}

function section(measured: readonly Measured[], { learningRates, settings }: Plan): Section {
  const groups = groupsOf(measured);
  const final = settings
    .map(({ hidden, regime, finalSeeds }) =>
      finalSeeds ? `, and ${finalSeeds} more at h = ${hidden} ${regime} for the best three` : '',
    )
    .join('');
  // A choice that was made after a result is part of the result.
  const history = final
    ? ' The additional ones came after a first run, whose 40 seeds took .3 for DPO at h = 1 ' +
      'and left the difference of accuracy there unclear, +.015 ± .030.'
    : '';
  const searchSeeds = [...new Set(settings.map((setting) => setting.searchSeeds))];
  return {
    id: rankingBias.id,
    title: rankingBias.title,
    text: [
      'A scorer r(x, y) learns which of two responses y to a prompt x is better. ' +
        'Half of the prompts, those with x < 0.5, add the same bias to both of their responses, ' +
        '.9 where the regime is called biased and 0 where it is not. ' +
        'The bias says nothing about which response is better, and a loss of the difference of ' +
        'two scores does not see it where the scorer adds it to both. ' +
        'A pointwise loss has to explain it. The data, 1600 training and 400 test pairs per ' +
        'seed, and the losses with beta = 1 are those of arXiv 2502.01237, appendices F and K; ' +
        'DPO stands for SimPO and ORPO too, which are the same loss here.',
      'The scorer is a network of one hidden layer of h ReLU units in float64. ' +
        'What the paper does not state is chosen here: full-batch Adam (.9, .999), ' +
        'PyTorch’s default initialisation, biases in both layers, figures after the last of 100 ' +
        'epochs. Losses and their gradients are those of the package: ' +
        'scores go in as log-probabilities with a reference of 0, ASFT’s into bco_pair, ' +
        'which puts log-ratios through the loss that ASFT puts log-odds through; ' +
        'that of APO-Zero is 1 more than the paper writes it.',
      `Learning rates, from {${learningRates.join(', ')}}, are searched for each method, ` +
        'h and regime by accuracy on the test pairs, as in the paper, but on seeds of their ' +
        `own, ${searchSeeds.join(', ')} of them${final}. ` +
        `Of equal ones the middle one is taken.${history} Figures are of other seeds, ` +
        'as many as the tables say. A seed has the same data and the same initial weights for ' +
        'every method, so that differences between methods are paired over seeds. ' +
        'Intervals are 95 %, mean ± t SE, without a correction for their number.',
      'Accuracy is the share of test pairs whose chosen response scores strictly higher, ' +
        'so that a scorer that has died, and is constant, counts as wrong. ' +
        'ICC1 is the share of the variance of scores that is between prompts, ' +
        'from −1 (none) to 1 (all). It is undefined for a constant scorer, ' +
        'and averaged over the seeds where it is defined.',
    ],
    findings: findings(groups),
    tables: [methodTable(measured), differenceTable(groups)],
    charts: charts(measured),
    data: {
      settings: settings.map((s) => ({ ...s })),
      runs: measured.map(({ setting, method, learningRate, runs }) => ({
        method,
        hidden: setting.hidden,
        regime: setting.regime,
        learningRate,
        accuracy: runs.accuracy,
        icc1: runs.icc1,
      })),
      gaps: groups.map(({ setting, gap }) => ({
        hidden: setting.hidden,
        regime: setting.regime,
        ...gap,
      })),
    } satisfies Json,
  };
}

// --- findings

/**
 * Of a claim that nothing is left of an effect: 0 is in the interval and the whole effect is not.
 */
export function outcomeVanishes(found: Interval, effect: number): Outcome {
  const { mean, halfWidth } = found;
  if (Math.abs(mean) > halfWidth) return 'not reproduced';
  return Math.abs(mean - effect) > halfWidth ? 'reproduced' : 'unclear';
}

const lowEnd = ({ mean, halfWidth }: Interval): number => mean - halfWidth;

function findings(groups: readonly Group[]): readonly Finding[] {
  const at = (hidden: number, regime: Regime): Group | undefined =>
    groups.find(({ setting }) => setting.hidden === hidden && setting.regime === regime);
  const found: (Finding | undefined)[] = [1, 3].flatMap((hidden) => {
    const biased = at(hidden, 'biased');
    const unbiased = at(hidden, 'unbiased');
    return [biased && gapFinding(biased), biased && unbiased && vanishingFinding(biased, unbiased)];
  });
  const ordering = at(3, 'biased');
  const capacious = at(8, 'biased');
  const [small, large] = [at(1, 'unbiased'), at(8, 'unbiased')];
  found.push(
    ordering && orderingFinding(ordering),
    capacious && capacityFinding(capacious),
    small && large && fallFinding(small, large),
  );
  return found.filter((finding) => finding !== undefined);
}

function gapFinding({ setting, gap }: Group): Finding {
  const { hidden } = setting;
  return {
    claim:
      hidden === 1
        ? 'Under a prompt bias and with h = 1, where intervals overlap, pairwise methods tend ' +
          'to rank better than pointwise ones.'
        : `Under a prompt bias and with h = ${hidden}, pairwise methods rank better ` +
          'than pointwise ones.',
    outcome: outcomeAbove([gap], 0),
    evidence:
      `Mean pairwise minus mean pointwise accuracy ${signed(gap)}, ` +
      `paired over ${gap.count} seeds.`,
  };
}

function vanishingFinding(biased: Group, unbiased: Group): Finding {
  return {
    claim: `Without the bias, all methods with h = ${unbiased.setting.hidden} rank equally well.`,
    outcome: outcomeVanishes(unbiased.gap, biased.gap.mean),
    evidence:
      `Mean pairwise minus mean pointwise accuracy ${signed(unbiased.gap)} over ` +
      `${unbiased.gap.count} seeds, against ${signed(biased.gap)} with it.`,
  };
}

function orderingFinding({ setting, runs }: Group): Finding {
  const differences = pairwiseRanked.flatMap((a) =>
    pointwiseRanked.flatMap((b) => {
      const difference = iccDifference(runs[a], runs[b]);
      return difference ? [{ a, b, difference }] : [];
    }),
  );
  const closest = differences.reduce((low, d) =>
    lowEnd(d.difference) < lowEnd(low.difference) ? d : low,
  );
  return {
    claim:
      `Under a prompt bias and with h = ${setting.hidden}, pairwise methods spend more of ` +
      "their scores' variance on prompts: the ICC1 of every pairwise method is above that of " +
      'every pointwise one.',
    outcome: outcomeAbove(
      differences.map((d) => d.difference),
      0,
    ),
    evidence:
      `Of ${differences.length} paired differences the least certain is ${names[closest.a]} ` +
      `minus ${names[closest.b]}, ${signed(closest.difference)} over ` +
      `${closest.difference.count} seeds.`,
  };
}

function capacityFinding({ setting, runs }: Group): Finding {
  const accuracies = rankedMethods.map((method) => ({
    method,
    found: interval(runs[method].accuracy),
  }));
  const lowest = accuracies.reduce((low, a) => (lowEnd(a.found) < lowEnd(low.found) ? a : low));
  return {
    claim:
      `With capacity the bias costs nothing: at h = ${setting.hidden} every method ranks ` +
      'nearly all pairs right (here: more than .99).',
    outcome: outcomeAbove(
      accuracies.map((a) => a.found),
      0.99,
    ),
    evidence:
      `Least certain: ${names[lowest.method]}, ${plusMinus(lowest.found)} over ` +
      `${lowest.found.count} seeds.`,
  };
}

function fallFinding(small: Group, large: Group): Finding {
  const found = rankedMethods.flatMap((method) => {
    const fall = iccDifference(small.runs[method], large.runs[method]);
    const reached = iccInterval(large.runs[method]);
    return fall && reached ? [{ method, fall, reached }] : [];
  });
  const highest = found.reduce((high, f) => (f.reached.mean > high.reached.mean ? f : high));
  const least = found.reduce((low, f) => (lowEnd(f.fall) < lowEnd(low.fall) ? f : low));
  const falls = found.map((f) => f.fall);
  return {
    claim:
      'Without the bias ICC1 falls towards −1 as capacity grows (here: ' +
      `from h = ${small.setting.hidden} to h = ${large.setting.hidden}, for every method).`,
    outcome: outcomeAbove(falls, 0),
    evidence:
      `The least certain fall is that of ${names[least.method]}, ${plusMinus(least.fall)} ` +
      `over ${least.fall.count} seeds; the highest ICC1 at h = ${large.setting.hidden} that ` +
      `of ${names[highest.method]}, ${plusMinus(highest.reached)}.`,
  };
}

// --- tables and charts

const names: Readonly<Record<RankedMethod, string>> = {
  dpo: 'DPO',
  ipo: 'IPO',
  apo_zero: 'APO-Zero',
  nca: 'NCA',
  cal_dpo: 'Cal-DPO',
  asft: 'ASFT',
};

const kind = (method: RankedMethod): string =>
  pairwiseRanked.includes(method) ? 'pairwise' : 'pointwise';

function methodTable(measured: readonly Measured[]): Table {
  return {
    caption: 'Accuracy and ICC1 on the test pairs, with the learning rate that the search chose',
    columns: [
      'regime',
      'h',
      'method',
      'ranking',
      'learning rate',
      'accuracy',
      'ICC1',
      'constant scorers',
      'seeds',
    ],
    rows: measured.map(({ setting, method, learningRate, runs }) => {
      const icc = iccInterval(runs);
      const constant = runs.icc1.filter((value) => value === null).length;
      return [
        setting.regime,
        setting.hidden,
        names[method],
        kind(method),
        learningRate,
        plusMinus(interval(runs.accuracy)),
        icc ? plusMinus(icc) : 'undefined',
        constant,
        runs.accuracy.length,
      ];
    }),
  };
}

function differenceTable(groups: readonly Group[]): Table {
  const others = rankedMethods.filter((method) => method !== 'dpo');
  return {
    caption:
      'Accuracy, paired over seeds: mean pairwise minus mean pointwise, ' +
      'and DPO minus each other method',
    columns: [
      'regime',
      'h',
      'pairwise − pointwise',
      ...others.map((method) => `DPO − ${names[method]}`),
      'seeds',
    ],
    rows: groups.map(({ setting, runs, gap }) => [
      setting.regime,
      setting.hidden,
      signed(gap),
      ...others.map((method) => signed(paired(runs.dpo.accuracy, runs[method].accuracy))),
      gap.count,
    ]),
  };
}

function charts(measured: readonly Measured[]): Section['charts'] {
  const points = (of: (runs: Runs) => Interval | undefined): Point[] =>
    measured.flatMap(({ setting, method, runs }) => {
      const found = of(runs);
      if (!found) return [];
      const { mean, halfWidth } = found;
      return [
        {
          regime: setting.regime,
          h: setting.hidden,
          method: names[method],
          ranking: kind(method),
          mean,
          low: mean - halfWidth,
          high: mean + halfWidth,
        },
      ];
    });
  return [
    {
      caption: 'Accuracy by hidden units, with 95 % intervals',
      spec: chart(
        points((runs) => interval(runs.accuracy)),
        'accuracy',
      ),
    },
    {
      caption: 'ICC1 by hidden units, with 95 % intervals',
      spec: chart(points(iccInterval), 'ICC1'),
    },
  ];
}

interface Point {
  readonly regime: Regime;
  readonly h: number;
  readonly method: string;
  readonly ranking: string;
  readonly mean: number;
  readonly low: number;
  readonly high: number;
}

function chart(values: readonly Point[], title: string): TopLevelSpec {
  const order = rankedMethods.map((method) => names[method]);
  const x = {
    field: 'h',
    type: 'ordinal',
    title: 'hidden units',
    axis: { labelAngle: 0 },
  } as const;
  const xOffset = { field: 'method', sort: order } as const;
  const color = {
    field: 'ranking',
    type: 'nominal',
    title: 'ranking',
    scale: { domain: ['pairwise', 'pointwise'] },
  } as const;
  return {
    data: { values: [...values] },
    facet: { row: { field: 'regime', type: 'nominal', title: null, sort: ['biased', 'unbiased'] } },
    spec: {
      width: { step: 14 },
      height: 200,
      layer: [
        {
          mark: { type: 'rule' },
          encoding: {
            x,
            xOffset,
            color,
            y: { field: 'low', type: 'quantitative', title, scale: { zero: false } },
            y2: { field: 'high' },
          },
        },
        {
          mark: { type: 'point', filled: true, size: 50 },
          encoding: {
            x,
            xOffset,
            color,
            y: { field: 'mean', type: 'quantitative', title },
            shape: {
              field: 'method',
              type: 'nominal',
              sort: order,
              legend: { symbolFillColor: 'currentColor' },
            },
          },
        },
      ],
    },
  };
}
