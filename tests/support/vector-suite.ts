// Every reference case on one backend, as a suite.
import { describe, expect, test } from 'vitest';
import { Misses } from './bounds.js';
import { makeBatch } from './cases.js';
import { Coverage, inputs, inputsWith, isRobustnessOnly, total } from './every-case.js';
import { checkCase, checkFinite, inHalf, type Backend, type Way } from './vector-ways.js';

const halves = inputs.filter(([, input]) => input.dtypeExact !== 'f32');

/**
 * @param asked the ways in which a case is taken, by its turn
 * @param step of every so many cases one
 */
export function everyCase(
  backend: Backend,
  asked: (turn: number) => readonly Way[],
  step = 1,
): void {
  const ran = new Coverage();
  let turn = 0;

  test.each(inputs)('%s', async (_, input) => {
    const misses = new Misses();
    for (const [i, c] of ran.cases(input, 'float32').entries()) {
      if (i % step > 0) continue;
      await checkCase(misses, c, makeBatch(c), backend, { asked: asked(turn), turn });
      turn++;
    }
    expect(misses.list).toEqual([]);
  });

  test.each(halves)('%s in 16 bits', async (_, input) => {
    const misses = new Misses();
    for (const [i, c] of ran.cases(input, 'half').entries()) {
      if (i % step > 0) continue;
      const batch = inHalf(c) as NonNullable<ReturnType<typeof inHalf>>;
      await checkCase(misses, c, batch, backend, { asked: asked(turn), turn });
      turn++;
    }
    expect(misses.list).toEqual([]);
  });

  describe('robustness_only: certainty (p = 1) and sequences without a token', () => {
    test.each(inputsWith(isRobustnessOnly))('%s: finite loss and gradient', (_, input) => {
      const misses = new Misses();
      for (const c of ran.cases(input, 'robust', isRobustnessOnly)) checkFinite(misses, c, backend);
      expect(misses.list).toEqual([]);
    });
  });

  test(`${step === 1 ? 'all' : `one of every ${step} of`} ${String(total)} cases were run`, () => {
    expect(ran.size('float32') + ran.size('robust')).toBe(total);
    expect(turn).toBeGreaterThanOrEqual((ran.size('float32') + ran.size('half')) / step);
    expect([halves.length, ran.size('robust')]).toEqual([2, 75]);
    expect(ran.size('half')).toBeGreaterThan(100);
  });
}
