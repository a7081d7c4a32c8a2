/** Quality against the distance from the model after SFT. */
import type { TopLevelSpec } from 'vega-lite';
import {
  alignmentMethods,
  type AlignmentMethod,
  type AlignResult,
  type SftResult,
} from '../model/tasks.js';
import { outcomeAbove, plusMinus, overSeeds } from '../outcome.js';
import { interval, mean, paired, paretoFront } from '../statistics.js';
import type { Experiment, Finding, Section } from '../study.js';
import { qualityAxis, rankingColor } from './charts.js';
import { oddsMethods, planOf, type Plan } from './plan.js';
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
  sweepOf,
  type Ranking,
  type Setting,
} from './runs.js';

interface Run {
  readonly setting: Setting;
  readonly results: readonly AlignResult[];
}

/** A model: how far it is from that after SFT, and how good. */
export interface Point {
  readonly kl: number;
  readonly quality: number;
}

const withReference: readonly AlignmentMethod[] = ['dpo', 'ipo', 'apo_zero', 'nca', 'cal_dpo'];

const id = 'pareto';
const title = 'KL against quality';

export function pareto(seeds?: number): Experiment {
  return {
    id,
    title,
    async run(study) {
      const plan = planOf(study.scale, seeds);
      const sft = sftRuns(study, plan, afterSft.share, plan.seeds);
      const searches = await searchAll(study, plan);
      const sweeps = await perMethod((method) => {
        const settings = sweepOf(plan, searches[method].best);
        return Promise.all(
          settings.map(async (setting): Promise<Run> => ({
            setting,
            results: await runs(study, plan, setting, plan.seeds),
          })),
        );
      });
      return section(
        plan,
        await sft,
        alignmentMethods.flatMap((method) => sweeps[method]),
      );
    },
  };
}

function section(plan: Plan, sft: readonly SftResult[], all: readonly Run[]): Section {
  return {
    id,
    title,
    text: [
      'Every beta of every method at its best learning rate, ' +
        `on seeds ${seedList(plan.seeds)}. KL is that of the policy to the model after SFT, ` +
        'in nats per summary, estimated on summaries sampled from the policy.',
      'A front is the best quality within a KL. It begins at the model after SFT itself, ' +
        'which costs nothing. The fronts of pairwise and of pointwise methods are compared on ' +
        'each seed, by their mean difference from KL 0 to where the longer of the ' +
        'two reaches its best.',
    ],
    findings: [frontFinding(sft, all), ...(plan.scale === 'full' ? startFindings(all) : [])],
    tables: [
      {
        caption:
          'Every run: quality (0 to 1) and KL to the model after SFT in nats per ' +
          'summary, mean over the seeds',
        columns: ['method', 'ranking', 'learning rate', 'beta', 'quality', 'KL'],
        rows: all.map(({ setting, results }) => [
          ...[
            nameOf(setting.method),
            rankingOf(setting.method),
            scientific(setting.learningRate),
            setting.beta,
          ],
          plusMinus(interval(qualities(results))),
          plusMinus(interval(klsOf(results)), 2),
        ]),
      },
    ],
    charts: [
      {
        caption:
          'Quality over KL, one point per method and beta, mean over the seeds; ' +
          'lines are the fronts',
        spec: chart(sft, all),
      },
    ],
    data: {
      seeds: plan.seeds,
      sft: qualities(sft),
      runs: all.map(({ setting, results }) => ({
        ...setting,
        quality: qualities(results),
        kl: klsOf(results),
      })),
    },
  };
}

const klsOf = (results: readonly AlignResult[]): number[] => results.map(({ kl }) => kl);
const ofRanking = (all: readonly Run[], ranking: Ranking): readonly Run[] =>
  all.filter(({ setting }) => rankingOf(setting.method) === ranking);

function frontOf(start: number, points: readonly Point[]): readonly Point[] {
  return paretoFront(
    [{ kl: 0, quality: start }, ...points],
    ({ kl }) => kl,
    ({ quality }) => quality,
  );
}

/**
 * Mean of front a minus front b over KL, from 0 to the end of the one that ends last. Fronts are
 * steps, from KL 0 on.
 */
export function frontDifference(a: readonly Point[], b: readonly Point[]): number {
  const end = Math.max((a.at(-1) as Point).kl, (b.at(-1) as Point).kl);
  return meanHeight(a, end) - meanHeight(b, end);
}

function meanHeight(front: readonly Point[], end: number): number {
  if (end === 0) return (front[0] as Point).quality;
  const areas = front.map(({ kl, quality }, i) => quality * ((front[i + 1]?.kl ?? end) - kl));
  return areas.reduce((sum, area) => sum + area, 0) / end;
}

function frontFinding(sft: readonly SftResult[], all: readonly Run[]): Finding {
  const differences = sft.map(({ evaluation }, seed) => {
    const [pairwise, pointwise] = (['pairwise', 'pointwise'] as const).map((ranking) =>
      frontOf(
        evaluation.quality,
        ofRanking(all, ranking).map(({ results }) => pointOf(results[seed] as AlignResult)),
      ),
    ) as [readonly Point[], readonly Point[]];
    return frontDifference(pairwise, pointwise);
  });
  const found = interval(differences);
  return {
    claim: 'Pairwise methods reach higher quality than pointwise ones at the same KL.',
    outcome: outcomeAbove([found]),
    evidence: `Mean difference of the fronts ${overSeeds(found)}.`,
  };
}

/** An estimate of KL from samples can fall below 0 where it is small; no model is nearer than 0. */
const pointOf = ({ kl, evaluation }: AlignResult): Point => ({
  kl: Math.max(kl, 0),
  quality: evaluation.quality,
});

/** In the quick form most methods have one beta, and nothing starts anywhere. */
function startFindings(all: readonly Run[]): readonly Finding[] {
  const atLargestBeta = (method: AlignmentMethod): number[] => {
    const own = all.filter(({ setting }) => setting.method === method);
    return klsOf(own.reduce((a, b) => (b.setting.beta > a.setting.beta ? b : a)).results);
  };
  const reference = meanAcross(withReference.map(atLargestBeta));
  return oddsMethods.map((method) => {
    const own = atLargestBeta(method);
    const difference = paired(own, reference);
    return {
      claim:
        `${nameOf(method)}, which has no reference, stays away from KL 0 at its largest beta, ` +
        'where methods with a reference come near it.',
      outcome: outcomeAbove([difference]),
      evidence:
        `KL at the largest beta: ${plusMinus(interval(own), 2)} nats, ` +
        `and ${plusMinus(interval(reference), 2)} in the mean of ` +
        `${withReference.map(nameOf).join(', ')}; difference ${overSeeds(difference, 2)}.`,
    };
  });
}

function chart(sft: readonly SftResult[], all: readonly Run[]): TopLevelSpec {
  const meanPoint = (results: readonly AlignResult[]): Point => ({
    kl: Math.max(mean(klsOf(results)), 0),
    quality: mean(qualities(results)),
  });
  const start = mean(qualities(sft));
  const fronts = (['pairwise', 'pointwise'] as const).flatMap((ranking) =>
    frontOf(
      start,
      ofRanking(all, ranking).map(({ results }) => meanPoint(results)),
    ).map((point) => ({ ranking, ...point })),
  );
  const x = {
    field: 'kl',
    type: 'quantitative',
    title: 'KL to the model after SFT, nats per summary',
  } as const;
  const y = { field: 'quality', type: 'quantitative', ...qualityAxis } as const;
  const domain = alignmentMethods.map(nameOf);
  return {
    width: 460,
    height: 320,
    layer: [
      {
        data: { values: fronts },
        mark: { type: 'line', interpolate: 'step-after', opacity: 0.6 },
        encoding: { x, y, color: rankingColor },
      },
      {
        data: {
          values: all.map(({ setting, results }) => ({
            method: nameOf(setting.method),
            ranking: rankingOf(setting.method),
            ...meanPoint(results),
          })),
        },
        mark: { type: 'point', filled: false, strokeWidth: 2, size: 70 },
        encoding: {
          ...{ x, y, color: rankingColor },
          shape: {
            ...{
              field: 'method',
              type: 'nominal',
              title: null,
              legend: { orient: 'top', columns: 4 },
            },
            scale: {
              domain,
              range: [
                'circle',
                'square',
                'triangle-up',
                'diamond',
                'cross',
                'triangle-down',
                'triangle-left',
                'triangle-right',
              ],
            },
          },
        },
      },
    ],
  };
}
