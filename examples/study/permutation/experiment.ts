import type { TopLevelSpec } from 'vega-lite';
import { pairwiseMethods } from '../model/tasks.js';
import type { Experiment, Finding, Section } from '../study.js';
import { benchmarks, models, source, type Benchmark } from './tables.js';
import { permutationTest, type PermutationTest } from './test.js';

type Tested = Benchmark & PermutationTest;

/** Nothing is trained here: the figures are the paper's, and the test is exact. */
export const permutation: Experiment = {
  id: 'permutation',
  title: "Permutation tests of the paper's tables",
  run: () =>
    Promise.resolve(
      section(benchmarks.map((b) => ({ ...b, ...permutationTest(b.values, pairwiseMethods) }))),
    ),
};

function section(tests: readonly Tested[]): Section {
  return {
    id: permutation.id,
    title: permutation.title,
    text: [
      `The figures are printed in ${source}: four pairwise methods (DPO, IPO, SimPO, ` +
        'ORPO) and four pointwise ones (APO-Zero, NCA, Cal-DPO, ASFT), each at its best setting ' +
        'after SFT. If the kind of ranking did not matter, each of the 70 ways to split eight ' +
        'methods into four and four would be as likely as this one. ' +
        'The statistic is the mean of the pairwise methods minus the mean of the pointwise ' +
        'ones, and p is the share of splits where it is at least as large as observed: ' +
        'one-sided, and never below 1/70 = .014.',
      'On these six benchmarks the sum of ranks gives the same p, so that they cannot tell ' +
        'which of the two statistics the paper used. ' +
        'The p-values are not corrected for the number of benchmarks, and the methods, ' +
        'not prompts or training runs, are what is permuted: ' +
        'the test says nothing about the noise of a single figure.',
      'The GPT-4 win rates on TL;DR are an addition: the paper does not test them. ' +
        'Its MT-Bench, Mistral and Qwen2.5 figures are not in this repository and are left out.',
    ],
    findings: findings(tests),
    tables: [
      {
        caption:
          'Exact permutation tests, pairwise against pointwise; ' +
          'means and differences in percentage points',
        columns: [
          'model and data',
          'benchmark',
          'pairwise mean',
          'pointwise mean',
          'difference',
          'splits at least as large',
          'p',
          'in the paper',
        ],
        rows: tests.map((t) => {
          const { pairwise, pointwise } = groupMeans(t);
          const numbers = [pairwise, pointwise, t.difference].map((v) => v.toFixed(2));
          return [models[t.model], t.name, ...numbers, splits(t), p(t), t.tested ? 'yes' : 'no'];
        }),
      },
    ],
    charts: [
      {
        caption:
          'Mean difference, pairwise minus pointwise, of each of the 70 splits (lines) and of ' +
          'the split by kind of ranking (points)',
        spec: chart(tests),
      },
    ],
    data: tests.map(({ model, name, values, tested, difference, differences, atLeast, p }) => ({
      model,
      name,
      values,
      tested,
      difference,
      differences,
      atLeast,
      p,
    })),
  };
}

function findings(tests: readonly Tested[]): readonly Finding[] {
  const evidence = (found: readonly Tested[]): string =>
    found.map((t) => `${t.name} ${splits(t)} (p = ${p(t)})`).join(', ');
  const of = (model: Benchmark['model']): readonly Tested[] =>
    tests.filter((t) => t.model === model);
  const large = of('chat8B');
  const small = of('chat3B');
  const summary = of('summaries3B');
  return [
    {
      claim: 'At 8B the pairwise methods beat the pointwise ones on every benchmark (p = .014).',
      outcome: large.every((t) => t.atLeast === 1) ? 'reproduced' : 'not reproduced',
      evidence: evidence(large),
    },
    {
      claim:
        'At 3B they do so by win rate and on ArenaHard (p = .014), ' +
        'and less clearly by length-controlled win rate (p = .057).',
      outcome: small.every((t) => t.atLeast === (t.name.endsWith('LC') ? 4 : 1))
        ? 'reproduced'
        : 'not reproduced',
      evidence: evidence(small),
    },
    {
      claim: 'On TL;DR the kind of ranking makes no clear difference.',
      outcome: summary.every((t) => t.p > 0.05) ? 'reproduced' : 'not reproduced',
      evidence: `${evidence(summary)}; not tested in the paper`,
    },
  ];
}

function groupMeans({ values, difference }: Tested): {
  readonly pairwise: number;
  readonly pointwise: number;
} {
  const pairwise =
    pairwiseMethods.reduce((sum, method) => sum + values[method], 0) / pairwiseMethods.length;
  return { pairwise, pointwise: pairwise - difference };
}

const splits = (t: PermutationTest): string => `${t.atLeast}/${t.differences.length}`;
const p = (t: PermutationTest): string => t.p.toFixed(3).replace(/^0/, '');

function chart(tests: readonly Tested[]): TopLevelSpec {
  const sizes = { chat3B: '3B', chat8B: '8B', summaries3B: '3B TL;DR' } as const;
  const label = (t: Tested): string => `${sizes[t.model]} ${t.name}`;
  const y = { field: 'benchmark', type: 'nominal', title: null, sort: null } as const;
  const x = {
    field: 'difference',
    type: 'quantitative',
    title: 'difference of means, percentage points',
  } as const;
  return {
    width: 420,
    height: { step: 28 },
    layer: [
      {
        data: {
          values: tests.flatMap((t) =>
            t.differences.map((difference) => ({ benchmark: label(t), difference })),
          ),
        },
        mark: { type: 'tick', opacity: 0.5 },
        encoding: { x, y, color: { datum: 'each of the 70 splits' } },
      },
      {
        data: { values: tests.map((t) => ({ benchmark: label(t), difference: t.difference })) },
        mark: { type: 'point', filled: true, size: 90 },
        encoding: {
          x,
          y,
          color: { datum: 'pairwise minus pointwise', legend: { orient: 'top', title: null } },
        },
      },
    ],
  };
}
