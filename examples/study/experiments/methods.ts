/** All methods at their best settings, and whether the kind of ranking decides. */
import type { TopLevelSpec } from 'vega-lite';
import {
  alignmentMethods,
  pairwiseMethods,
  pointwiseMethods,
  type AlignmentMethod,
  type AlignResult,
  type SftResult,
} from '../model/tasks.js';
import { outcomeAbove, plusMinus, overSeeds } from '../outcome.js';
import { permutationTest } from '../permutation/test.js';
import { interval, mean, paired } from '../statistics.js';
import type { Chart, Experiment, Finding, Section, Table } from '../study.js';
import { comparedCells } from './arms.js';
import { betaAxis, ends, qualityAxis, rankingColor } from './charts.js';
import { planOf, type Plan } from './plan.js';
import {
  afterSft,
  meanAcross,
  nameOf,
  perMethod,
  qualities,
  rankingOf,
  runs,
  scientific,
  searchAll,
  seedList,
  sftRuns,
  type PerMethod,
  type Search,
} from './runs.js';

const id = 'methods';
const title = 'All methods at their best';

export function methodComparison(seeds?: number): Experiment {
  return {
    id,
    title,
    async run(study) {
      const plan = planOf(study.scale, seeds);
      const sft = sftRuns(study, plan, afterSft.share, plan.seeds);
      const searches = await searchAll(study, plan);
      const results = await perMethod((method) =>
        runs(study, plan, searches[method].best, plan.seeds),
      );
      return section(plan, await sft, searches, results);
    },
  };
}

type Results = PerMethod<readonly AlignResult[]>;

function section(
  plan: Plan,
  sft: readonly SftResult[],
  searches: PerMethod<Search>,
  results: Results,
): Section {
  return {
    id,
    title,
    text: [
      'Each method is trained after SFT on all demonstrations, align-only, ' +
        `over a grid of learning rates and betas on seed ${seedList(plan.searchSeeds)}; ` +
        'the setting with the best mean quality is then trained on seeds ' +
        `${seedList(plan.seeds)}, of which alone the figures are. ` +
        'A seed is a pretrained model of its own, with its own data.',
      'The grids of the full study have as many settings for every method, ' +
        'and were laid out on seed 1. They are not the paper’s: ' +
        'a model this small takes larger learning rates, and its log-probabilities of short ' +
        'summaries are of another size.',
    ],
    findings: [aboveSft(sft, results), rankingFinding(results)],
    tables: [methodTable(sft, searches, results)],
    charts: [
      {
        caption: 'Summaries better than, as good as and worse than those of the model after SFT',
        spec: winChart(results),
      },
      {
        caption:
          'Quality at the best setting, with 95 % intervals; the line is the model after SFT',
        spec: qualityChart(sft, results),
      },
      ...gridCharts(searches),
    ],
    data: {
      seeds: plan.seeds,
      sft: qualities(sft),
      search: alignmentMethods.flatMap((method) =>
        searches[method].tried.map(({ setting, quality, diverged }) => ({
          ...setting,
          quality: quality ?? null,
          diverged,
        })),
      ),
      best: alignmentMethods.map((method) => ({
        ...searches[method].best,
        quality: qualities(results[method]),
        win: results[method].map(({ win }) => win),
        tie: results[method].map(({ tie }) => tie),
        lose: results[method].map(({ lose }) => lose),
        kl: results[method].map(({ kl }) => kl),
        diverged: results[method].map(({ diverged }) => diverged),
      })),
    },
  };
}

function aboveSft(sft: readonly SftResult[], results: Results): Finding {
  const differences = alignmentMethods.map((method) => ({
    method,
    gain: paired(qualities(results[method]), qualities(sft)),
  }));
  const least = differences.reduce((a, b) => (b.gain.mean < a.gain.mean ? b : a));
  return {
    claim: 'Every method, at its best setting, improves on the model after SFT.',
    outcome: outcomeAbove(differences.map(({ gain }) => gain)),
    evidence:
      `The smallest gain of quality is that of ${nameOf(least.method)}, ` +
      `${overSeeds(least.gain)}.`,
  };
}

function rankingFinding(results: Results): Finding {
  const meanOf = (methods: readonly AlignmentMethod[]): number[] =>
    meanAcross(methods.map((method) => qualities(results[method])));
  const difference = paired(meanOf(pairwiseMethods), meanOf(pointwiseMethods));
  const means = Object.fromEntries(
    alignmentMethods.map((method) => [method, mean(qualities(results[method]))]),
  );
  const { atLeast, differences, p } = permutationTest(means, pairwiseMethods);
  return {
    claim:
      'Pairwise methods (DPO, IPO, SimPO, ORPO) beat pointwise ones (APO-Zero, NCA, Cal-DPO, ' +
      'ASFT) at their best settings.',
    outcome: outcomeAbove([difference]),
    evidence:
      'Mean quality of the pairwise minus that of the pointwise methods ' +
      `${overSeeds(difference)}; ` +
      `exact permutation test over the eight means: ${atLeast} of ${differences.length} ` +
      `splits at least as large, p = ${p.toFixed(3)}.`,
  };
}

function methodTable(
  sft: readonly SftResult[],
  searches: PerMethod<Search>,
  results: Results,
): Table {
  return {
    caption:
      'Best settings: quality (0 to 1), win / tie / lose against the model after SFT in per ' +
      'cent, KL to it in nats, length in tokens, runs that diverged',
    columns: [
      'method',
      'ranking',
      'learning rate',
      'beta',
      'quality',
      'win',
      'tie',
      'lose',
      'KL',
      'length',
      'diverged',
    ],
    rows: [
      [
        ...['SFT', '', '', ''],
        plusMinus(interval(qualities(sft))),
        ...['', '', '', ''],
        lengthOf(sft),
        0,
      ],
      ...alignmentMethods.map((method) => {
        const { best } = searches[method];
        const found = results[method];
        return [
          ...[nameOf(method), rankingOf(method), scientific(best.learningRate), best.beta],
          plusMinus(interval(qualities(found))),
          ...comparedCells(found),
          lengthOf(found),
          found.filter(({ diverged }) => diverged).length,
        ];
      }),
    ],
  };
}

const lengthOf = (found: readonly (AlignResult | SftResult)[]): string =>
  mean(found.map(({ evaluation }) => evaluation.length)).toFixed(1);

function winChart(results: Results): TopLevelSpec {
  const outcomes = ['win', 'tie', 'lose'] as const;
  const values = alignmentMethods.flatMap((method) =>
    outcomes.map((outcome, order) => ({
      method: nameOf(method),
      outcome,
      order,
      share: mean(results[method].map((result) => result[outcome])),
    })),
  );
  return {
    width: 420,
    height: { step: 26 },
    data: { values },
    mark: 'bar',
    encoding: {
      y: { field: 'method', type: 'nominal', title: null, sort: null },
      x: { field: 'share', type: 'quantitative', title: 'share of prompts', axis: { format: '%' } },
      order: { field: 'order' },
      color: {
        ...{ field: 'outcome', type: 'nominal', title: null, legend: { orient: 'top' } },
        scale: { domain: [...outcomes], range: ['#0d9a6c', '#7c8796', '#d7790f'] },
      },
    },
  };
}

function qualityChart(sft: readonly SftResult[], results: Results): TopLevelSpec {
  const values = alignmentMethods.map((method) => ({
    ...{ method: nameOf(method), ranking: rankingOf(method) },
    ...ends(interval(qualities(results[method]))),
  }));
  const y = { field: 'method', type: 'nominal', title: null, sort: null } as const;
  return {
    width: 420,
    height: { step: 26 },
    data: { values },
    layer: [
      {
        data: { values: [{ quality: mean(qualities(sft)) }] },
        mark: { type: 'rule', strokeDash: [4, 4] },
        encoding: { x: { field: 'quality', type: 'quantitative' } },
      },
      {
        mark: { type: 'rule', strokeWidth: 2 },
        encoding: {
          y,
          color: rankingColor,
          x: { field: 'low', type: 'quantitative', ...qualityAxis },
          x2: { field: 'high' },
        },
      },
      {
        mark: 'point',
        encoding: { y, color: rankingColor, x: { field: 'mean', type: 'quantitative' } },
      },
    ],
  };
}

/** None if there was nothing to search. */
function gridCharts(searches: PerMethod<Search>): readonly Chart[] {
  const values = alignmentMethods.flatMap((method) =>
    searches[method].tried.flatMap(({ setting, quality }) =>
      quality === undefined
        ? []
        : [
            {
              method: nameOf(method),
              beta: setting.beta,
              rate: scientific(setting.learningRate),
              quality,
            },
          ],
    ),
  );
  if (values.length === 0) return [];
  const spec: TopLevelSpec = {
    data: { values },
    facet: { field: 'method', type: 'nominal', title: null, sort: alignmentMethods.map(nameOf) },
    columns: 2,
    spec: {
      width: 190,
      height: 120,
      mark: { type: 'line', point: true },
      encoding: {
        x: { field: 'beta', type: 'quantitative', ...betaAxis },
        y: { field: 'quality', type: 'quantitative', title: 'quality', scale: { zero: false } },
        color: {
          field: 'rate',
          type: 'nominal',
          title: 'learning rate',
          sort: null,
          legend: { orient: 'top' },
        },
      },
    },
    resolve: { scale: { x: 'independent' } },
  };
  return [
    { caption: 'The search: quality over beta for each learning rate, on the search seeds', spec },
  ];
}
