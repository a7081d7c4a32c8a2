// The package held to the cases of the wider family, on the CPU: each case by its door, in every
// way that the door has.
import { describe, expect, test } from 'vitest';
import {
  logpsBackward,
  tokenLogps,
  type HiddenLossResult,
  type LogitsArray,
  type LogitsBatch,
} from '../../ts/index.js';
import {
  backwardLibrary,
  checkBackward,
  checkHiddenBackward,
  prepareBackward,
  prepareHiddenBackward,
} from '../../ts/verification/backward.js';
import { converted, convertedHidden } from '../../ts/verification/cases.js';
import { prepareHidden } from '../../ts/verification/hidden.js';
import { lossOfLogps, objectiveOf, type LossConfig } from '../../ts/verification/objectives.js';
import type { ReferenceConfig } from '../../ts/verification/reference.js';
import {
  checkGradient,
  checkValues,
  expectation,
  lengthsOf,
  prepare,
  sequenceBatch,
  Tally,
} from '../../ts/verification/verification.js';
import { gradientBound, largestOf, logpBound, lossBound, Misses } from '../support/bounds.js';
import { checkEachWay, type LogitsDoor } from '../support/family-ways.js';
import {
  byId,
  familyCases,
  type CaseLogitsBatch,
  type LayerGradients,
  type LossCase,
} from '../support/family.js';
import { checkStages, leastMemory, sameGradients, type HostHidden } from '../support/hidden.js';
import { at, present, sameBits } from '../support/numbers.js';

const halves = ['float16', 'bfloat16'] as const;

/** With preferences a coefficient may be a difference of which little is left. */
function near(misses: Misses, what: string, actual: Float32Array, expected: Float64Array): void {
  const largest = largestOf(expected);
  misses.each(what, actual, expected, (x) => gradientBound(Math.abs(x), 10 * largest));
}
const none = (tally: Tally, what: string): void => {
  expect(tally.misses, what).toEqual([]);
};

/** A loss of logits in every way; returns what the case's numbers are held to. */
async function checkLoss(misses: Misses, config: LossConfig, batch: CaseLogitsBatch) {
  const objective = objectiveOf(config);
  const door = {
    call: (given: unknown, run: unknown) => objective(given as never, run as never),
    later: (given: unknown, run: unknown) => objective.async(given as never, run as never),
    factors: true,
  } as unknown as LogitsDoor;
  await checkEachWay(misses, 'loss', batch, door);
  for (const dtype of halves) {
    const half = converted(batch, dtype);
    const prepared = prepare(half);
    const expected = expectation(config, prepared);
    const tally = new Tally();
    const dense = objective(half as never);
    checkValues(tally, prepared, config, expected, dense);
    checkGradient(tally, prepared, expected, present(dense.gradLogits) as LogitsArray);
    const factored = objective(half as never, { gradient: 'factored' });
    const { gradLogits, rowScale } = factored;
    checkGradient(tally, prepared, expected, gradLogits as LogitsArray, rowScale);
    none(tally, dtype);
  }
  return objective(batch as never, { gradient: 'dense' });
}

/** From the log-probabilities of a run: its loss, and the derivative that float64 has. */
function checkFromLogps(misses: Misses, config: LossConfig, batch: CaseLogitsBatch): void {
  const objective = objectiveOf(config);
  const { loss, losses, rewards, logps, counts } = objective(batch as never, { gradient: 'none' });
  const given = sequenceBatch(batch, { logps, lengths: lengthsOf(batch) });
  const own = { ...given, counts: batch.tokenWeights ? given.counts : counts };
  const actual = objective.fromLogps(own);
  const expected = lossOfLogps(config, given);
  misses.require(Object.is(actual.loss, loss), `fromLogps: loss ${actual.loss}, ${loss}`);
  misses.require(sameBits(actual.losses, losses), 'fromLogps: losses');
  misses.require(sameBits(actual.rewards, rewards), 'fromLogps: rewards');
  // An element that is a difference has the error of what it is a difference of.
  const least = 1e-3 * largestOf(expected.gradLogps);
  misses.each(
    'gradLogps',
    actual.gradLogps,
    expected.gradLogps,
    (x) => 1e-11 * Math.max(least, Math.abs(x)),
  );
}

/** The objective without its likelihood term, whose losses the cases have. */
function aloneOf({ call, batch }: LossCase): readonly [ReferenceConfig, CaseLogitsBatch] {
  if (call.sftWeight === undefined) return [call, batch];
  const [config, rest] = [{ ...call }, { ...batch }];
  delete config.sftWeight;
  delete config.sftReduction;
  delete rest.sftDenominator;
  return [config, rest];
}

describe('losses of logits', () => {
  test.each(byId(familyCases('loss')))('%s', async (_, c) => {
    const misses = new Misses();
    const { loss, gradLogits } = await checkLoss(misses, c.call, c.batch);
    misses.near('loss', loss, c.expected.loss, lossBound(c.expected.loss));
    near(misses, 'gradLogits', gradLogits as Float32Array, c.expected.gradLogits);
    const [alone, batch] = aloneOf(c);
    const { losses } = objectiveOf(alone)(batch as never, { gradient: 'none' });
    misses.each('losses', losses, c.expected.losses, lossBound);
    checkFromLogps(misses, c.call, c.batch);
    expect(misses.list).toEqual([]);
  });
});

describe('mixtures', () => {
  test.each(byId(familyCases('mix')))('%s', async (_, { call, batch, expected }) => {
    const misses = new Misses();
    const config = call.map(({ weight, objective }) => ({ weight, config: objective }));
    const { loss, terms = [], gradLogits } = await checkLoss(misses, config, batch);
    misses.near('loss', loss, expected.loss, lossBound(expected.loss));
    const parts = terms.map((term) => term.loss);
    misses.each('terms', parts, expected.terms, lossBound);
    near(misses, 'gradLogits', gradLogits as Float32Array, expected.gradLogits);
    checkFromLogps(misses, config, batch);
    expect(misses.list).toEqual([]);
  });
});

describe('logpsBackward', () => {
  test.each(byId(familyCases('logpsBackward')))('%s', async (_, { call, batch, expected }) => {
    const misses = new Misses();
    const given = batch as unknown as LogitsBatch<Float32Array<ArrayBuffer>>;
    const derivatives = call as Parameters<typeof logpsBackward>[1];
    const pick = (rows?: readonly number[]) =>
      rows === undefined
        ? derivatives
        : Object.fromEntries(
            Object.entries(call as Record<string, Float64Array>).map(([name, values]) => [
              name,
              name === 'sequences' ? values : Float64Array.from(rows, (row) => at(values, row)),
            ]),
          );
    const door = {
      call: (own, run, rows) => logpsBackward(own, pick(rows), run as never),
      later: (own, run) => logpsBackward.async(own, derivatives, run),
      factors: call.entropy === undefined,
    } as LogitsDoor;
    const { gradLogits } = await checkEachWay(misses, 'backward', given, door);
    near(misses, 'gradLogits', gradLogits, expected.gradLogits);
    const forward = tokenLogps(given);
    misses.each('logps', forward.logps, expected.logps, (x) => logpBound(x, 1));
    misses.each('entropy', forward.entropy, expected.entropy, (x) => logpBound(x, 1));
    const after = logpsBackward(given, { ...derivatives, forward });
    near(misses, 'with forward', after.gradLogits, expected.gradLogits);
    expect(misses.list).toEqual([]);
    for (const dtype of halves) {
      const prepared = prepareBackward(converted(given, dtype));
      none(
        checkBackward(backwardLibrary, { label: dtype, derivatives: call as never }, prepared),
        dtype,
      );
    }
  });
});

/** Everything at once, rows kept for the gradient, and rows that are computed twice. */
const memoriesOf = (least: number): readonly (number | undefined)[] => [
  undefined,
  least,
  least + 200,
  least + 600,
];
const names = ['gradHidden', 'gradWeight', 'gradBias'] as const;

function nearLayer(misses: Misses, what: string, actual: object, expected: LayerGradients): void {
  for (const name of names) {
    const own = (actual as Partial<Record<string, Float32Array>>)[name];
    misses.require((own === undefined) === (expected[name] === undefined), `${what}: ${name}`);
    if (!own || !expected[name]) continue;
    // Products add terms of both signs.
    const bound = 1e-5 * largestOf(expected[name]);
    misses.each(`${what}: ${name}`, own, expected[name], () => bound);
  }
}

/** With the gradient of the weight left out, and added to what is in buffers. */
function checkOuts(
  misses: Misses,
  call: (run: object) => object,
  batch: { readonly hidden: Float32Array; readonly weight: Float32Array },
  expected: LayerGradients,
): void {
  const { gradHidden, gradBias } = expected;
  const without = call({ out: { gradWeight: false } });
  const rest = { gradHidden, ...(gradBias && { gradBias }) };
  nearLayer(misses, 'without gradWeight', without, rest as LayerGradients);
  const out = {
    gradHidden: batch.hidden.map((_, i) => Math.sin(i)),
    gradWeight: batch.weight.map((_, i) => Math.cos(i)),
    ...(gradBias && { gradBias: new Float32Array(gradBias.length).fill(2) }),
  };
  const before = Object.values(out).map((array) => Float64Array.from(array));
  call({ out, accumulate: true });
  Object.entries(out).forEach(([name, array], n) => {
    const sums = expected[name as 'gradHidden'].map((g, i) => g + at(before[n] ?? [], i));
    const bound = 1e-5 * largestOf(sums);
    misses.each(`accumulated ${name}`, array, sums, () => bound);
  });
}

describe('through an output layer', () => {
  test.each(byId(familyCases('fromHidden')))('%s', async (_, { call, batch, expected }) => {
    const misses = new Misses();
    const objective = objectiveOf(call);
    const given = batch as unknown as HostHidden;
    const least = leastMemory(given, call);
    for (const memory of memoriesOf(least)) {
      const what = `memory ${memory}`;
      const run = { ...(memory !== undefined && { memory }) };
      const fresh = objective.fromHidden(given as never, run);
      misses.near(`${what}: loss`, fresh.loss, expected.loss, lossBound(expected.loss));
      misses.each(`${what}: losses`, fresh.losses, expected.losses, lossBound);
      nearLayer(misses, what, fresh, expected);
      const later = await objective.fromHidden.async(given as never, { ...run, threads: 3 });
      sameGradients(later as HiddenLossResult, fresh as HiddenLossResult, `${what}, later`);
      const again = (own: object) => objective.fromHidden(given as never, { ...run, ...own });
      checkOuts(misses, again, batch, expected);
    }
    for (const dtype of halves) {
      const half = convertedHidden(given, dtype);
      const tally = new Tally();
      const prepared = prepareHidden(half);
      checkStages(tally, call, prepared, objective.fromHidden(half));
      none(tally, dtype);
    }
    expect(misses.list).toEqual([]);
  });

  test.each(byId(familyCases('hiddenLogpsBackward')))('%s', async (_, c) => {
    const { call, batch, expected } = c;
    const misses = new Misses();
    const given = batch as unknown as HostHidden;
    const derivatives = call as Parameters<typeof logpsBackward>[1];
    const forward = tokenLogps(given);
    misses.each('logps', forward.logps, expected.logps, (x) => logpBound(x, 1));
    misses.each('entropy', forward.entropy, expected.entropy, (x) => logpBound(x, 1));
    const least = leastMemory({ ...given, reference: new Float64Array(given.shape[0]) });
    for (const memory of memoriesOf(least)) {
      const run = { ...(memory !== undefined && { memory }) };
      const work = (own: object) => logpsBackward(given, derivatives, { ...run, ...own } as never);
      nearLayer(misses, `memory ${memory}`, work({}), expected);
      const after = logpsBackward(given, { ...derivatives, forward }, run);
      nearLayer(misses, `memory ${memory}, forward`, after, expected);
      nearLayer(misses, 'later', await logpsBackward.async(given, derivatives, run), expected);
      checkOuts(misses, work, batch, expected);
    }
    for (const dtype of halves) {
      const prepared = prepareHiddenBackward(convertedHidden(given, dtype));
      const own = { label: dtype, derivatives: call as never };
      none(checkHiddenBackward(backwardLibrary, own, prepared), dtype);
    }
    expect(misses.list).toEqual([]);
  });
});
