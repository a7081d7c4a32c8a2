/** What beta does for ORPO and ASFT. */
import type { TopLevelSpec } from 'vega-lite';
import type { AlignResult } from '../model/tasks.js';
import { outcomeAbove, plusMinus, overSeeds } from '../outcome.js';
import { interval, paired } from '../statistics.js';
import type { Experiment, Finding, Section } from '../study.js';
import { betaAxis, ends, qualityAxis } from './charts.js';
import { oddsMethods, planOf, type OddsMethod, type Plan } from './plan.js';
import {
  alignmentGrid,
  nameOf,
  qualities,
  runs,
  scientific,
  search,
  seedList,
  sweepOf,
  untemperedGrid,
  type Setting,
} from './runs.js';

interface Run {
  readonly setting: Setting;
  readonly results: readonly AlignResult[];
}

interface Tempering {
  readonly method: OddsMethod;
  /** At the best (learning rate, beta). */
  readonly tempered: Run;
  /** At beta 1, with the best learning rate there. */
  readonly untempered: Run;
  /** Every beta at the learning rate of `tempered`. */
  readonly sweep: readonly Run[];
}

const id = 'tempering';
const title = 'Tempering ORPO and ASFT';

export function tempering(seeds?: number): Experiment {
  return {
    id,
    title,
    async run(study) {
      const plan = planOf(study.scale, seeds);
      const run = async (setting: Setting): Promise<Run> => ({
        setting,
        results: await runs(study, plan, setting, plan.seeds),
      });
      const temperingOf = async (method: OddsMethod): Promise<Tempering> => {
        const [{ best }, { best: plain }] = await Promise.all([
          search(study, plan, alignmentGrid(plan, method)),
          search(study, plan, untemperedGrid(plan, method)),
        ]);
        const [tempered, untempered, sweep] = await Promise.all([
          run(best),
          run(plain),
          Promise.all(sweepOf(plan, best).map(run)),
        ]);
        return { method, tempered, untempered, sweep };
      };
      return section(plan, await Promise.all(oddsMethods.map(temperingOf)));
    },
  };
}

function section(plan: Plan, found: readonly Tempering[]): Section {
  return {
    id,
    title,
    text: [
      'As published, ORPO and ASFT have no beta; the paper scales their log-odds by one. ' +
        'Both are trained after SFT, align-only. Compared are the best (learning rate, ' +
        'beta) of the search and beta 1 with the best learning rate it has, both chosen on seed ' +
        `${seedList(plan.searchSeeds)} and trained anew on seeds ${seedList(plan.seeds)}. ` +
        'The sweep keeps the learning rate of the first.',
    ],
    findings: found.map(gain),
    tables: [
      {
        caption:
          'Every beta at the learning rate of the best setting: quality (0 to 1), ' +
          'KL to the model after SFT in nats per summary',
        columns: ['method', 'learning rate', 'beta', 'quality', 'KL', 'chosen'],
        rows: found.flatMap(({ method, sweep, tempered }) =>
          sweep.map(({ setting, results }) => [
            ...[nameOf(method), scientific(setting.learningRate), setting.beta],
            plusMinus(interval(qualities(results))),
            plusMinus(interval(results.map(({ kl }) => kl)), 2),
            setting.beta === tempered.setting.beta ? 'yes' : 'no',
          ]),
        ),
      },
    ],
    charts: [{ caption: 'Quality over beta, with 95 % intervals', spec: chart(found) }],
    data: {
      seeds: plan.seeds,
      methods: found.map(({ method, tempered, untempered, sweep }) => ({
        method,
        tempered: dataOf(tempered),
        untempered: dataOf(untempered),
        sweep: sweep.map(dataOf),
      })),
    },
  };
}

const dataOf = ({ setting, results }: Run) => ({
  setting: { ...setting },
  quality: qualities(results),
  kl: results.map(({ kl }) => kl),
});

function gain({ method, tempered, untempered }: Tempering): Finding {
  const name = nameOf(method);
  const claim = `A tuned beta makes ${name} better than beta 1.`;
  if (tempered.setting.beta === 1) {
    return {
      claim,
      outcome: 'not reproduced',
      evidence: 'The search found no beta that is better than 1.',
    };
  }
  const difference = paired(qualities(tempered.results), qualities(untempered.results));
  return {
    claim,
    outcome: outcomeAbove([difference]),
    evidence: `Beta ${tempered.setting.beta} minus beta 1: ${overSeeds(difference)}.`,
  };
}

function chart(found: readonly Tempering[]): TopLevelSpec {
  const values = found.flatMap(({ method, sweep }) =>
    sweep.map(({ setting, results }) => ({
      method: nameOf(method),
      beta: setting.beta,
      ...ends(interval(qualities(results))),
    })),
  );
  const x = { field: 'beta', type: 'quantitative', ...betaAxis } as const;
  const color = {
    field: 'method',
    type: 'nominal',
    title: null,
    sort: null,
    legend: { orient: 'top' },
  } as const;
  return {
    width: 420,
    height: 240,
    data: { values },
    layer: [
      {
        mark: { type: 'line', point: true },
        encoding: { x, color, y: { field: 'mean', type: 'quantitative', ...qualityAxis } },
      },
      {
        mark: 'rule',
        encoding: { x, color, y: { field: 'low', type: 'quantitative' }, y2: { field: 'high' } },
      },
    ],
  };
}
