// Every reference case on one backend, as a suite.
import { describe, expect, test } from 'vitest';
import { Misses } from './bounds.js';
import { makeBatch } from './cases.js';
import { Coverage, inputs, inputsWith, isRobustnessOnly, total } from './every-case.js';
import { checkCase, checkFinite, inHalf, type Backend, type Way } from './vector-ways.js';

const halves = inputs.filter(([, input]) => input.dtypeExact !== 'f32');

/** @param asked the ways in which a case is taken, by its turn */
export function everyCase(backend: Backend, asked: (turn: number) => readonly Way[]): void {
  const ran = new Coverage();
  let turn = 0;

  test.each(inputs)('%s', async (_, input) => {
    const misses = new Misses();
    for (const c of ran.cases(input, 'float32')) {
      await checkCase(misses, c, makeBatch(c), backend, { asked: asked(turn), turn });
      turn++;
    }
    expect(misses.list).toEqual([]);
  });

  test.each(halves)('%s in 16 bits', async (_, input) => {
    const misses = new Misses();
    for (const c of ran.cases(input, 'half')) {
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

  test(`all ${String(total)} cases were run`, () => {
    expect(ran.size('float32') + ran.size('robust')).toBe(total);
    expect([halves.length, ran.size('robust')]).toEqual([2, 75]);
    expect(ran.size('half')).toBeGreaterThan(100);
  });
}
