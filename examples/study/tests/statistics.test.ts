// Means, intervals, fronts, and the rule that turns intervals into outcomes.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { outcomeAbove, overSeeds, plusMinus, signed } from '../outcome.js';
import { interval, mean, paired, paretoFront, studentQuantile } from '../statistics.js';

describe('intervals', () => {
  // Printed tables of Student's t, two-sided 95 %.
  test.each([
    [1, 12.706],
    [2, 4.303],
    [3, 3.182],
    [4, 2.776],
    [7, 2.365],
    [10, 2.228],
    [29, 2.045],
    [120, 1.98],
    [100_000, 1.96],
  ])('t of %i degrees of freedom is %d', (degrees, t) => {
    expect(studentQuantile(degrees)).toBeCloseTo(t, 2);
  });

  test('half a degree of freedom, or none, is refused', () => {
    expect(() => studentQuantile(0)).toThrow(RangeError);
    expect(() => studentQuantile(1.5)).toThrow(RangeError);
  });

  test('of 1, 2, 3, 4: mean 2.5, standard error sqrt(5/3)/2, t 3.182', () => {
    const found = interval([1, 2, 3, 4]);
    expect(found).toMatchObject({ mean: 2.5, count: 4 });
    expect(found.halfWidth).toBeCloseTo((3.18245 * Math.sqrt(5 / 3)) / 2, 4);
  });

  test('one value has no interval, and no values no mean', () => {
    expect(interval([3])).toEqual({ mean: 3, halfWidth: Infinity, count: 1 });
    expect(() => mean([])).toThrow(RangeError);
    expect(() => paired([1, 2], [1])).toThrow(/2 values cannot be paired with 1/);
  });

  test('pairs do not have what both owe to the seed', () => {
    const seeds = [-5, 0, 1, 8];
    const found = paired(
      seeds.map((seed, i) => seed + 1 + 0.01 * i),
      seeds,
    );
    expect(found.mean).toBeCloseTo(1.015, 12);
    expect(found.halfWidth).toBeLessThan(0.03);
  });

  test('95 of 100 intervals hold the mean', () => {
    // Sums of twelve uniform numbers, by a generator of Park and Miller.
    let state = 1;
    const uniform = (): number => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647;
    const normal = (): number =>
      Array.from({ length: 12 }, uniform).reduce((sum, u) => sum + u, -6);
    const trials = 4000;
    let held = 0;
    for (let i = 0; i < trials; i++) {
      const found = interval([normal(), normal(), normal(), normal(), normal()]);
      if (Math.abs(found.mean) <= found.halfWidth) held++;
    }
    expect(held / trials).toBeGreaterThan(0.94);
    expect(held / trials).toBeLessThan(0.96);
  });
});

describe('the Pareto front', () => {
  const point = fc.record({
    cost: fc.integer({ min: 0, max: 9 }),
    gain: fc.integer({ min: 0, max: 9 }),
  });

  test('has every point that no other beats, in order, and no others', () => {
    fc.assert(
      fc.property(fc.array(point, { minLength: 1, maxLength: 12 }), (points) => {
        const front = paretoFront(
          points,
          ({ cost }) => cost,
          ({ gain }) => gain,
        );
        const beats = (a: (typeof points)[number], b: (typeof points)[number]): boolean =>
          a.cost <= b.cost && a.gain >= b.gain && (a.cost < b.cost || a.gain > b.gain);
        const unbeaten = points.filter((p) => !points.some((other) => beats(other, p)));
        const distinct = new Set(unbeaten.map(({ cost, gain }) => `${cost}/${gain}`));
        expect(new Set(front.map(({ cost, gain }) => `${cost}/${gain}`))).toEqual(distinct);
        expect(front).toHaveLength(distinct.size);
        expect(front).toEqual([...front].sort((a, b) => a.cost - b.cost));
      }),
    );
  });
});

describe('outcomes', () => {
  const found = (mean: number, halfWidth: number) => ({ mean, halfWidth, count: 5 });

  test.each([
    [[found(1, 0.9)], 'reproduced'],
    [[found(1, 1)], 'unclear'],
    [[found(-1, 1.1)], 'unclear'],
    [[found(-1, 1)], 'not reproduced'],
    [[found(-2, 1)], 'not reproduced'],
    [[found(0, 0)], 'not reproduced'],
    [[found(5, Infinity)], 'unclear'],
    [[found(1, 0.5), found(2, 0.5)], 'reproduced'],
    [[found(1, 0.5), found(2, 3)], 'unclear'],
    [[found(1, 0.5), found(-2, 0.5), found(0, 3)], 'not reproduced'],
  ] as const)('%j: %s', (intervals, outcome) => {
    expect(outcomeAbove(intervals)).toBe(outcome);
    const shifted = intervals.map((each) => ({ ...each, mean: each.mean + 10 }));
    expect(outcomeAbove(shifted, 10)).toBe(outcome);
  });

  test('are written with their sign and interval', () => {
    expect(plusMinus(found(0.1234, 0.0056))).toBe('0.123 ± 0.006');
    expect(signed(found(0.1234, 0.0056), 2)).toBe('+0.12 ± 0.01');
    expect(signed(found(-0.1234, 0.0056), 2)).toBe('-0.12 ± 0.01');
    expect(overSeeds(found(0.1234, 0.0056))).toBe('+0.123 ± 0.006 over 5 seeds');
    expect(plusMinus({ mean: 0.5, halfWidth: Infinity, count: 1 })).toBe('0.500 (one seed)');
    expect(overSeeds({ mean: 0.5, halfWidth: Infinity, count: 1 })).toBe('+0.500 (one seed)');
  });
});
