import { describe, expect, it } from 'vitest';
import { drawChart } from '../report/chart.js';
import { alignmentMethods, pairwiseMethods } from '../model/tasks.js';
import { permutation } from '../permutation/experiment.js';
import { benchmarks } from '../permutation/tables.js';
import { permutationTest } from '../permutation/test.js';

describe('the exact permutation test', () => {
  it('counts every split once, the observed one included', () => {
    // Differences of {a, b} - {c, d} over the six splits of 1, 2, 4, 8: the sums of the first group
    // are 3, 5, 9, 6, 10, 12.
    const { difference, differences, atLeast, p } = permutationTest({ a: 8, b: 1, c: 4, d: 2 }, [
      'a',
      'b',
    ]);
    expect(difference).toBe(9 / 2 - 6 / 2);
    expect([...differences].sort((x, y) => x - y)).toEqual([-4.5, -2.5, -1.5, 1.5, 2.5, 4.5]);
    expect(atLeast).toBe(3);
    expect(p).toBe(0.5);
  });

  it('takes equal sums as equal, whatever the order of summation makes of them', () => {
    // .1 + .2 + .3 and .3 + .2 + .1 differ in float64; every split of equal figures is as large as
    // any other.
    const same = Object.fromEntries(alignmentMethods.map((method) => [method, 0.1]));
    expect(permutationTest(same, pairwiseMethods).atLeast).toBe(70);
    expect(
      permutationTest({ a: 0.1, b: 0.2, c: 0.3, d: 0.3, e: 0.2, f: 0.1 }, ['a', 'b', 'c']).p,
    ).toBe(14 / 20);
  });

  it('takes groups of different sizes', () => {
    const { difference, differences, p } = permutationTest({ a: 3, b: 1, c: 2 }, ['a']);
    expect(difference).toBe(1.5);
    expect(differences).toHaveLength(3);
    expect(p).toBe(1 / 3);
  });

  it.each([
    [{ a: 1, b: NaN }, ['a'], 'b, NaN, is not finite'],
    [{ a: 1, b: 2 }, ['c'], 'c is named as pairwise but has no figure'],
    [{ a: 1, b: 2 }, [], 'at least one method in each group'],
    [{ a: 1, b: 2 }, ['a', 'b'], 'at least one method in each group'],
    [{ a: 1, b: 2, c: 3 }, ['a', 'a'], 'named twice'],
  ])('refuses %j with %j', (values, pairwise, message) => {
    expect(() => permutationTest(values, pairwise)).toThrow(message);
  });
});

describe("the paper's tables", () => {
  // The p-values that the paper prints for these benchmarks, times 70.
  const printed = {
    '3B AlpacaEval 2 LC': 4,
    '3B AlpacaEval 2 WR': 1,
    '3B ArenaHard': 1,
    '8B AlpacaEval 2 LC': 1,
    '8B AlpacaEval 2 WR': 1,
    '8B ArenaHard': 1,
  };

  it('have the p-values that the paper prints', () => {
    const found = benchmarks.flatMap(({ model, name, values, tested }) =>
      tested
        ? [
            [
              `${model.slice(-2)} ${name}`,
              permutationTest(values, pairwiseMethods).atLeast,
            ] as const,
          ]
        : [],
    );
    expect(Object.fromEntries(found)).toEqual(printed);
  });

  it('are the same by the sum of ranks on these, as the section says', () => {
    for (const { values, tested } of benchmarks) {
      if (!tested) continue;
      const figures = Object.values(values);
      const rank = (v: number): number =>
        figures.filter((f) => f < v).length + (figures.filter((f) => f === v).length + 1) / 2;
      const ranks = Object.fromEntries(
        Object.entries(values).map(([method, v]) => [method, rank(v)]),
      );
      expect(permutationTest(ranks, pairwiseMethods).atLeast).toBe(
        permutationTest(values, pairwiseMethods).atLeast,
      );
    }
  });

  it('make a section: a row and a finding for each claim, and a chart that draws', async () => {
    const section = await permutation.run({
      scale: 'quick',
      run: () => Promise.reject(new Error('nothing to compute')),
    });
    expect(section.findings.map(({ outcome }) => outcome)).toEqual([
      'reproduced',
      'reproduced',
      'reproduced',
    ]);
    const [table] = section.tables;
    expect(table?.rows).toHaveLength(benchmarks.length);
    for (const row of table?.rows ?? []) expect(row).toHaveLength(table?.columns.length ?? 0);
    expect(table?.rows[0]).toEqual([
      'Llama 3.2 3B, UltraFeedback',
      'AlpacaEval 2 LC',
      '10.98',
      '10.48',
      '0.49',
      '4/70',
      '.057',
      'yes',
    ]);
    for (const { spec } of section.charts) expect(await drawChart(spec)).toContain('<svg');
    expect(JSON.parse(JSON.stringify(section.data))).toEqual(section.data);
  });
});
