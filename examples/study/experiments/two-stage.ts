/**
 * The paper's first question: is alignment better as a stage of its own, without the likelihood
 * term?
 */
import type { TopLevelSpec } from 'vega-lite';
import type { SftResult } from '../model/tasks.js';
import { interval } from '../statistics.js';
import type { Experiment, Finding, Section } from '../study.js';
import { armData, armTable, findingAbove, type Arm } from './arms.js';
import { intervalChart } from './charts.js';
import { oddsMethods, planOf, type OddsMethod, type Plan } from './plan.js';
import {
  afterSft,
  baseRuns,
  alignmentGrid,
  nameOf,
  qualities,
  runs,
  search,
  seedList,
  sftRuns,
  untemperedGrid,
  type Setting,
} from './runs.js';

interface FormedArm extends Arm {
  readonly form: 'two-stage' | 'one-stage' | 'two-stage with likelihood' | 'reference';
}

/** What alignment starts from. */
interface Starts {
  readonly base: readonly SftResult[];
  readonly sft: readonly SftResult[];
}

type Form = 'alignOnly' | 'oneStage' | 'withLikelihood';
type Arms = Readonly<Record<Form, FormedArm>>;

const id = 'two-stage';
const title = 'One stage or two, with and without the likelihood term';

export function twoStage(seeds?: number): Experiment {
  return {
    id,
    title,
    async run(study) {
      const plan = planOf(study.scale, seeds);
      const arm = async (
        label: string,
        form: FormedArm['form'],
        settings: readonly Setting[],
      ): Promise<FormedArm> => {
        const { best } = await search(study, plan, settings);
        return { label, form, setting: best, results: await runs(study, plan, best, plan.seeds) };
      };
      const armsOf = async (method: OddsMethod): Promise<Arms> => {
        const name = nameOf(method);
        const { alignOnly, oneStage, withLikelihood } = candidatesOf(plan, method);
        const [a, b, c] = await Promise.all([
          arm(`SFT, then ${name}`, 'two-stage', alignOnly),
          arm(`${name} from base`, 'one-stage', oneStage),
          arm(`SFT, then ${name} with likelihood`, 'two-stage with likelihood', withLikelihood),
        ]);
        return { alignOnly: a, oneStage: b, withLikelihood: c };
      };
      const [base, sft, orpo, asft, dpo] = await Promise.all([
        baseRuns(study, plan, plan.seeds),
        sftRuns(study, plan, afterSft.share, plan.seeds),
        armsOf('orpo'),
        armsOf('asft'),
        arm('SFT, then DPO', 'reference', alignmentGrid(plan, 'dpo')),
      ]);
      return section(plan, { base, sft }, { orpo, asft }, dpo);
    },
  };
}

/**
 * At beta 1, the untempered form; the learning rate is searched for each arm on its own, as in the
 * paper.
 */
function candidatesOf(plan: Plan, method: OddsMethod): Readonly<Record<Form, readonly Setting[]>> {
  const alignOnly = untemperedGrid(plan, method);
  return {
    alignOnly,
    oneStage: plan.baseLearningRates.map((learningRate) => ({
      init: 'base',
      method,
      beta: 1,
      learningRate,
      lambda: 1,
    })),
    withLikelihood: alignOnly.map((setting) => ({ ...setting, lambda: 1 })),
  };
}

function section(
  plan: Plan,
  starts: Starts,
  odds: Readonly<Record<OddsMethod, Arms>>,
  dpo: FormedArm,
): Section {
  const arms = [...oddsMethods.flatMap((method) => Object.values(odds[method])), dpo];
  return {
    id,
    title,
    text: [
      'ORPO and ASFT were proposed as single stages: from the base model, ' +
        'with a likelihood term beside the odds-ratio loss. ' +
        'Here each is trained in that form (beta 1, likelihood weight 1), after SFT in the same ' +
        'form, and after SFT with the odds-ratio loss alone (beta 1). ' +
        'DPO at its best setting stands beside them.',
      'The learning rate of each arm is the best of a grid by mean quality on seed ' +
        `${seedList(plan.searchSeeds)}; the figures are of seeds ${seedList(plan.seeds)}. ` +
        'A seed is a pretrained model of its own, with its own data. ' +
        'Win, tie and lose compare each summary with that of the model after SFT of the same ' +
        'seed, on the same prompt.',
    ],
    findings: oddsMethods.flatMap((method) => findings(method, odds[method])),
    tables: [
      armTable(
        [
          { label: 'base', results: starts.base },
          { label: 'SFT', results: starts.sft },
        ],
        arms,
      ),
    ],
    charts: [
      {
        caption:
          'Quality of the forms of ORPO and ASFT, of DPO, of the base model and of that after ' +
          'SFT, with 95 % intervals',
        spec: chart(starts, arms),
      },
    ],
    data: {
      seeds: plan.seeds,
      base: qualities(starts.base),
      sft: qualities(starts.sft),
      arms: armData(arms),
    },
  };
}

function findings(
  method: OddsMethod,
  { alignOnly, oneStage, withLikelihood }: Arms,
): readonly Finding[] {
  const name = nameOf(method);
  const against = (claim: string, other: Arm): Finding =>
    findingAbove(claim, alignOnly, other.results);
  return [
    against(
      `${name} after SFT without the likelihood term beats one-stage ${name} from the base model.`,
      oneStage,
    ),
    against(
      `${name} after SFT is better without the likelihood term than with it.`,
      withLikelihood,
    ),
  ];
}

function chart({ base, sft }: Starts, arms: readonly FormedArm[]): TopLevelSpec {
  const values = [
    { label: 'base', form: 'reference', found: interval(qualities(base)) },
    { label: 'SFT', form: 'reference', found: interval(qualities(sft)) },
    ...arms.map(({ label, form, results }) => ({
      label,
      form,
      found: interval(qualities(results)),
    })),
  ];
  return intervalChart(values, [
    'two-stage',
    'one-stage',
    'two-stage with likelihood',
    'reference',
  ]);
}
