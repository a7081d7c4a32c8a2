// The reference cases: values of published implementations and of arithmetic with 120 digits,
// through every public way in.
import { describe, expect, test } from 'vitest';
import type { LogpsBatch, LogpsResult } from '../../ts/index.js';
import { referenceFromLogps } from '../../ts/verification/reference.js';
import { lossBound, Misses } from '../support/bounds.js';
import { onHost } from '../support/calls.js';
import { build, isSft, oneSetOfLabels, sequences } from '../support/cases.js';
import { Coverage, inputs, inputsWith, isRobustnessOnly, total } from '../support/every-case.js';
import { everyCase } from '../support/vector-suite.js';
import { checkLogps, ways } from '../support/vector-ways.js';
import type { VectorCase } from '../support/vectors.js';

everyCase({ name: 'cpu', prepare: onHost('cpu') }, () => ways);

// Two truths of the mathematics: the reference is held to these cases as the library is, and the
// library to the reference where there are none.
type FromLogps = (c: VectorCase, batch: LogpsBatch) => Omit<LogpsResult, 'metrics'>;
const doors: [string, FromLogps][] = [
  ['the library', (c, batch) => build(c).fromLogps(batch)],
  ['the reference', (c, batch) => referenceFromLogps(c.call as never, batch)],
];
describe.each(doors)('from log-probabilities: %s', (_name, fromLogps) => {
  const ran = new Coverage();
  test.each(inputs)('%s', (_, input) => {
    const misses = new Misses();
    for (const c of ran.cases(input, 'fromLogps')) {
      // A likelihood term with labels of its own has log-probabilities of its own, which this call
      // does not take.
      if (!oneSetOfLabels(c)) continue;
      const n = sequences(c);
      const { loss, losses, rewards, gradLogps } = fromLogps(c, {
        logps: input.logps.slice(0, n),
        counts: input.counts.slice(0, n),
        reference: input.reference.slice(0, n),
      });
      // Nothing but float64 here. What is left is how much a sum of logits-to-losses magnifies the
      // last bit of a log-probability.
      const bound = (x: number): number => 1e-11 * Math.max(1, Math.abs(x));
      misses.near(`${c.id} loss`, loss, c.loss, bound(c.loss));
      if (c.losses) misses.each(`${c.id} losses`, losses, c.losses, bound);
      if (c.rewards && !isSft(c)) misses.each(`${c.id} rewards`, rewards, c.rewards, bound);
      const gradient = Array.from(
        { length: n },
        (_, b) => (c.dseq?.[b] ?? 0) + (b < input.B ? c.dnll : 0),
      );
      // A derivative below 1e-100 underflowed to 0 in some of the sources.
      if (c.dseq)
        misses.each(`${c.id} gradLogps`, gradLogps, gradient, (x) => 1e-9 * Math.abs(x) + 1e-100);
    }
    expect(misses.list).toEqual([]);
  });

  test.each(inputsWith(isRobustnessOnly))(
    '%s: finite, and an empty sequence scores 0',
    (_, input) => {
      const misses = new Misses();
      const { logps, counts, reference } = input;
      for (const c of ran.cases(input, 'robust', isRobustnessOnly)) {
        if (isSft(c)) continue;
        const { loss, gradLogps } = fromLogps(c, { logps, counts, reference });
        misses.require([loss, ...gradLogps].every(Number.isFinite), `${c.id}: not finite`);
        if (counts.includes(0)) misses.near(`${c.id} loss`, loss, c.loss, lossBound(c.loss));
      }
      expect(misses.list).toEqual([]);
    },
  );

  test(`all ${String(total)} cases were run`, () => {
    expect(ran.size('fromLogps') + ran.size('robust')).toBe(total);
  });
});

test.each(inputs)('log-probabilities of %s', (_, input) => {
  const misses = new Misses();
  checkLogps(misses, input, 'cpu');
  expect(misses.list).toEqual([]);
});
