/** Whether preferences need pairs: KTO on the completions of the pairs as single examples. */
import type { AlignResult, SftResult } from '../model/tasks.js';
import { outcomeAbove, overSeeds, plusMinus } from '../outcome.js';
import { interval, paired } from '../statistics.js';
import type { Experiment, Finding, Section, Table } from '../study.js';
import { intervalChart } from './charts.js';
import { planOf, type Plan } from './plan.js';
import {
  afterSft,
  alignmentGrid,
  qualities,
  runs,
  scientific,
  search,
  seedList,
  sftRuns,
  type Setting,
} from './runs.js';

const id = 'unpaired';
const title = 'Pairs, or single examples';

interface Arm {
  readonly label: string;
  readonly setting: Setting;
  readonly results: readonly AlignResult[];
}

export function unpaired(seeds?: number): Experiment {
  return {
    id,
    title,
    async run(study) {
      const plan = planOf(study.scale, seeds);
      const arm = async (label: string, method: 'dpo' | 'kto'): Promise<Arm> => {
        const { best } = await search(study, plan, alignmentGrid(plan, method));
        return { label, setting: best, results: await runs(study, plan, best, plan.seeds) };
      };
      const [sft, dpo, kto] = await Promise.all([
        sftRuns(study, plan, afterSft.share, plan.seeds),
        arm('DPO, pairs', 'dpo'),
        arm('KTO, single examples', 'kto'),
      ]);
      return section(plan, sft, dpo, kto);
    },
  };
}

function section(plan: Plan, sft: readonly SftResult[], dpo: Arm, kto: Arm): Section {
  const arms = [dpo, kto];
  return {
    id,
    title,
    text: [
      'KTO takes the completions of the same pairs one by one, in an order of their own: the chosen as desirable, the rejected as undesirable, both with weight 1. Which two belong together, it does not learn. Its baseline is made of each step\u2019s completions under the next example\u2019s prompt. DPO has the pairs.',
      `Learning rate and beta are the best of a grid by mean quality on seed ${seedList(plan.searchSeeds)}; the figures are of seeds ${seedList(plan.seeds)}, after SFT on all demonstrations. A step has as many completions for either.`,
    ],
    findings: [
      finding('KTO on single examples improves on the model after SFT.', kto, sft),
      finding(
        'DPO on the pairs beats KTO on their completions as single examples.',
        dpo,
        kto.results,
      ),
    ],
    tables: [table(sft, arms)],
    charts: [
      {
        caption: 'Quality of either, and of the model after SFT, with 95 % intervals',
        spec: intervalChart(
          [
            { label: 'SFT', form: 'reference', found: interval(qualities(sft)) },
            ...arms.map(({ label, results }) => ({
              label,
              form: 'aligned',
              found: interval(qualities(results)),
            })),
          ],
          ['aligned', 'reference'],
        ),
      },
    ],
    data: {
      seeds: plan.seeds,
      sft: qualities(sft),
      arms: arms.map(({ label, setting, results }) => ({
        label,
        setting: { ...setting },
        quality: qualities(results),
      })),
    },
  };
}

function finding(
  claim: string,
  { results }: Arm,
  others: readonly (AlignResult | SftResult)[],
): Finding {
  const difference = paired(qualities(results), qualities(others));
  return {
    claim,
    outcome: outcomeAbove([difference]),
    evidence: `Difference of quality ${overSeeds(difference)}.`,
  };
}

function table(sft: readonly SftResult[], arms: readonly Arm[]): Table {
  return {
    caption:
      'Quality (0 to 1), win / tie / lose against the model after SFT in per cent, KL to it in nats per summary',
    columns: ['model', 'learning rate', 'beta', 'quality', 'win', 'tie', 'lose', 'KL'],
    rows: [
      ['SFT', '', '', plusMinus(interval(qualities(sft))), '', '', '', ''],
      ...arms.map(({ label, setting, results }) => [
        label,
        scientific(setting.learningRate),
        setting.beta,
        plusMinus(interval(qualities(results))),
        ...(['win', 'tie', 'lose'] as const).map((of) =>
          plusMinus(interval(results.map((result) => 100 * result[of])), 1),
        ),
        plusMinus(interval(results.map(({ kl }) => kl)), 2),
      ]),
    ],
  };
}
