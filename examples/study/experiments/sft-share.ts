/** How much of the demonstrations alignment needs. */
import type { TopLevelSpec } from 'vega-lite';
import {
  alignmentMethods,
  type AlignmentMethod,
  type AlignResult,
  type SftResult,
} from '../model/tasks.js';
import { outcomeAbove, plusMinus, overSeeds } from '../outcome.js';
import { interval, mean, paired } from '../statistics.js';
import type { Experiment, Finding, Section, Table } from '../study.js';
import { planOf, type Plan } from './plan.js';
import {
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

/** One share: what SFT alone reaches, and what each method reaches after it. */
interface Level {
  readonly share: number;
  readonly sft: readonly SftResult[];
  readonly methods: PerMethod<readonly AlignResult[]>;
}

/** Of the quality after SFT on all demonstrations. */
const enough = 0.95;
/** The paper's 5 to 10 per cent. */
const claimedShare = 10;
const smallShares = [1, 3, 5];
const fewBest: readonly AlignmentMethod[] = ['dpo', 'ipo'];

const id = 'sft-share';
const title = 'The share of the demonstrations that alignment needs';

export function sftShare(seeds?: number): Experiment {
  return {
    id,
    title,
    async run(study) {
      const plan = planOf(study.scale, seeds);
      const searches = await searchAll(study, plan);
      const levels = await Promise.all(
        plan.shares.map(async (share): Promise<Level> => {
          const [sft, methods] = await Promise.all([
            sftRuns(study, plan, share, plan.shareSeeds),
            perMethod((method) =>
              runs(study, plan, { ...searches[method].best, init: { share } }, plan.shareSeeds),
            ),
          ]);
          return { share, sft, methods };
        }),
      );
      return section(plan, searches, levels);
    },
  };
}

function section(plan: Plan, searches: PerMethod<Search>, levels: readonly Level[]): Section {
  return {
    id,
    title,
    text: [
      'SFT sees a share of the demonstrations, and every method is trained after it at the ' +
        `best setting it has after SFT on all of them, on seeds ${seedList(plan.shareSeeds)}. ` +
        'A model after SFT on a share has taken fewer steps, as in the paper, ' +
        'not the same number over fewer demonstrations.',
      `Enough is ${100 * enough} % of the quality that the same method reaches after SFT ` +
        'on all demonstrations.',
    ],
    findings: findings(levels),
    tables: [qualityTable(levels), settingsTable(searches)],
    charts: [
      {
        caption:
          'Quality over the share of the demonstrations, mean over the seeds; grey is SFT alone',
        spec: chart(levels),
      },
    ],
    data: {
      seeds: plan.shareSeeds,
      levels: levels.map(({ share, sft, methods }) => ({
        share,
        sft: qualities(sft),
        methods: Object.fromEntries(
          alignmentMethods.map((method) => [method, qualities(methods[method])]),
        ),
      })),
    },
  };
}

const meanOf = ({ methods }: Level, which: readonly AlignmentMethod[]): number[] =>
  meanAcross(which.map((method) => qualities(methods[method])));

function findings(levels: readonly Level[]): readonly Finding[] {
  const full = levels.at(-1);
  const claimed = levels.find(({ share }) => share === claimedShare) ?? levels[0];
  if (!full || !claimed) throw new RangeError('a plan needs shares of the demonstrations');
  return [
    sufficiency(claimed, full),
    ...few(levels.filter(({ share }) => smallShares.includes(share))),
  ];
}

function sufficiency(level: Level, full: Level): Finding {
  const surplus = paired(
    meanOf(level, alignmentMethods),
    meanOf(full, alignmentMethods).map((quality) => enough * quality),
  );
  const ratios = alignmentMethods.map(
    (method) => mean(qualities(level.methods[method])) / mean(qualities(full.methods[method])),
  );
  const least = Math.min(...ratios);
  const percent = (ratio: number): string => `${(100 * ratio).toFixed(1)} %`;
  return {
    claim:
      `After SFT on ${level.share} % of the demonstrations the methods reach ${100 * enough} ` +
      '% of their full quality or more, in the mean.',
    outcome: outcomeAbove([surplus]),
    evidence:
      `Mean quality minus ${enough} of the full one: ${overSeeds(surplus)}. ` +
      `The methods reach ${percent(mean(ratios))} in the mean, ` +
      `and ${nameOf(alignmentMethods[ratios.indexOf(least)] as AlignmentMethod)} the ` +
      `least, ${percent(least)}; ` +
      `SFT alone reaches ${percent(mean(qualities(level.sft)) / mean(qualities(full.sft)))} ` +
      'of its own.',
  };
}

/** None if the scale has no small shares. */
function few(levels: readonly Level[]): readonly Finding[] {
  if (levels.length === 0) return [];
  const others = alignmentMethods.filter((method) => !fewBest.includes(method));
  const over = (which: readonly AlignmentMethod[]): number[] =>
    meanAcross(levels.map((level) => meanOf(level, which)));
  const difference = paired(over(fewBest), over(others));
  return [
    {
      claim:
        `With few demonstrations (${levels.map(({ share }) => `${share} %`).join(', ')}) DPO ` +
        'and IPO do better than the other methods.',
      outcome: outcomeAbove([difference]),
      evidence: `Mean quality of DPO and IPO minus that of the others ${overSeeds(difference)}.`,
    },
  ];
}

function qualityTable(levels: readonly Level[]): Table {
  const row = (
    name: string,
    of: (level: Level) => readonly (AlignResult | SftResult)[],
  ): string[] => [name, ...levels.map((level) => plusMinus(interval(qualities(of(level)))))];
  return {
    caption: 'Quality (0 to 1) by share of the demonstrations',
    columns: ['method', ...levels.map(({ share }) => `${share} %`)],
    rows: [
      row('SFT alone', ({ sft }) => sft),
      ...alignmentMethods.map((method) => row(nameOf(method), ({ methods }) => methods[method])),
    ],
  };
}

function settingsTable(searches: PerMethod<Search>): Table {
  return {
    caption: 'Settings, the same for every share',
    columns: ['method', 'learning rate', 'beta'],
    rows: alignmentMethods.map((method) => {
      const { learningRate, beta } = searches[method].best;
      return [nameOf(method), scientific(learningRate), beta];
    }),
  };
}

function chart(levels: readonly Level[]): TopLevelSpec {
  const values = levels.flatMap(({ share, methods }) =>
    alignmentMethods.map((method) => ({
      share,
      method: nameOf(method),
      ranking: rankingOf(method),
      quality: mean(qualities(methods[method])),
    })),
  );
  const alone = (['pairwise', 'pointwise'] as const).flatMap((ranking) =>
    levels.map(({ share, sft }) => ({ share, ranking, quality: mean(qualities(sft)) })),
  );
  const axis = { values: levels.map(({ share }) => share) };
  const scale = { type: 'log' } as const;
  const x = {
    field: 'share',
    type: 'quantitative',
    title: 'share of the demonstrations, per cent',
    scale,
    axis,
  } as const;
  const y = {
    field: 'quality',
    type: 'quantitative',
    title: 'quality',
    scale: { zero: false },
  } as const;
  return {
    data: { values: [...values, ...alone] },
    facet: { row: { field: 'ranking', type: 'nominal', title: null } },
    spec: {
      width: 400,
      height: 200,
      layer: [
        {
          transform: [{ filter: '!datum.method' }],
          mark: { type: 'line', color: '#7c8796', strokeDash: [5, 4] },
          encoding: { x, y },
        },
        {
          transform: [{ filter: 'datum.method' }],
          mark: { type: 'line', point: true },
          encoding: {
            x,
            y,
            color: {
              field: 'method',
              type: 'nominal',
              title: null,
              sort: alignmentMethods.map(nameOf),
              legend: { orient: 'right' },
            },
          },
        },
      ],
    },
  };
}
