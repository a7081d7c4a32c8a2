/** Whether preferences need pairs: KTO on the completions of the pairs as single examples. */
import type { SftResult } from '../model/tasks.js';
import { interval } from '../statistics.js';
import type { Experiment, Section } from '../study.js';
import { armData, armTable, findingAbove, type Arm } from './arms.js';
import { intervalChart } from './charts.js';
import { planOf, type Plan } from './plan.js';
import { afterSft, alignmentGrid, qualities, runs, search, seedList, sftRuns } from './runs.js';

const id = 'unpaired';
const title = 'Pairs, or single examples';

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
      'KTO takes the completions of the same pairs one by one, in an order of their own: ' +
        'the chosen as desirable, the rejected as undesirable, both with weight 1. ' +
        'Which two belong together, it does not learn. ' +
        'Its baseline is made of each step\u2019s completions under the next example\u2019s ' +
        'prompt. DPO has the pairs.',
      'Learning rate and beta are the best of a grid by mean quality on seed ' +
        `${seedList(plan.searchSeeds)}; the figures are of seeds ${seedList(plan.seeds)}, ` +
        'after SFT on all demonstrations. A step has as many completions for either.',
    ],
    findings: [
      findingAbove('KTO on single examples improves on the model after SFT.', kto, sft),
      findingAbove(
        'DPO on the pairs beats KTO on their completions as single examples.',
        dpo,
        kto.results,
      ),
    ],
    tables: [armTable([{ label: 'SFT', results: sft }], arms)],
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
      arms: armData(arms),
    },
  };
}
