// Results of fine calls held to the float64 reference, by the bounds of `diralign verify`.
import type {
  HiddenBatch,
  HiddenLossResult,
  LogitsArray,
  LogitsBatch,
  LogpsBatch,
  LogpsResult,
  LossResult,
  RowMetric,
  SequenceLogps,
  TokenLogps,
} from '../../ts/index.js';
import {
  expectedBackward,
  prepareBackward,
  prepareHiddenBackward,
} from '../../ts/verification/backward.js';
import { configsOf, lossOfLogps } from '../../ts/verification/objectives.js';
import {
  referenceLayer,
  referenceLogps,
  referenceTokenLogps,
} from '../../ts/verification/reference.js';
import { checkGradient, scaled, Tally } from '../../ts/verification/verification.js';
import {
  checkLayerGradients,
  layerGradients,
  prepareHidden,
} from '../../ts/verification/hidden.js';
import { logpBound, Misses } from '../support/bounds.js';
import { at } from '../support/numbers.js';
import { checkStages } from '../support/hidden.js';
import { rowMetricMisses } from '../support/row-metrics.js';
import { checkLogitsStages, checkValueStages, float64Bound } from '../support/stages.js';
import type { Call, Properties } from './call.js';
import { derivativesOf, isHidden, type ExactBatch } from './contents.js';
import { arityOf, lossOf } from './plan.js';
import { Fault } from './fault.js';

/** 16-bit floats by their bits. */
function bits(array: LogitsArray): LogitsArray {
  if (array instanceof Float32Array) return array;
  return new Uint16Array(array.buffer, array.byteOffset, array.byteLength / 2);
}

/**
 * Numbers of a result that may be infinite, where the truth overflows, but no NaN where no input is
 * one.
 */
function checkNoNan({ plan }: Call, result: Properties): void {
  for (const [key, value] of Object.entries({ ...result, ...(result.metrics as object) })) {
    if (value instanceof Uint16Array) continue;
    const isGradient = key.startsWith('grad') && plan.door !== 'logps';
    // Products of infinities have no sign; what lies between the rows of logits is nobody's.
    if (isGradient && (plan.run.padding > 0 || plan.run.accumulate)) continue;
    const numbers = ArrayBuffer.isView(value) ? (value as Float64Array) : [value];
    const i = numbers.findIndex(Number.isNaN);
    if (i >= 0) throw new Fault(`${key} has a NaN at ${i}`);
  }
}

/** Whether the numbers are of a size that bounds are for: exact edges are other tests' matter. */
function isModerate({ plan, exact }: Call): boolean {
  const { rows, run } = plan;
  // An option of 5e-324 leaves the reference without digits.
  const isOdd = configsOf(lossOf(plan))
    .flatMap((config) => Object.values(config) as unknown[])
    .some((value) => typeof value === 'number' && value !== 0 && Math.abs(value) < 1e-300);
  if (isOdd) return false;
  const scale = Math.abs(run.gradientScale ?? 1);
  if (scale !== 0 && (scale < 1e-6 || scale > 1e6)) return false;
  if (plan.door === 'logps') return true;
  const { labels, shape } = exact as LogitsBatch;
  const { logitScale = 1, logitSoftcap = 0, temperature = 1 } = plan.fields;
  // A capped logit has an error of the size of the cap.
  if (logitSoftcap / temperature > 12) return false;
  // Products have errors of the size of their terms.
  return (
    rows.scale * Math.max(1, logitScale / temperature) <= (isHidden(exact) ? 2 : 8) &&
    !rows.special &&
    labels.length * (shape.at(-1) ?? 0) <= 3000
  );
}

function compareLogps(batch: LogpsBatch, { plan }: Call, result: LogpsResult): string[] {
  const misses = new Misses();
  const expected = lossOfLogps(lossOf(plan), batch);
  misses.near('loss', result.loss, expected.loss, float64Bound(expected.loss));
  misses.each('losses', result.losses, expected.losses, float64Bound);
  misses.each('rewards', result.rewards, expected.rewards, float64Bound);
  const scale = plan.run.gradientScale ?? 1;
  misses.each(
    'gradLogps',
    result.gradLogps,
    expected.gradLogps.map((g) => (scale === 0 ? 0 : scale * g)),
    (_, s) => Math.abs(scale) * float64Bound(at(expected.gradLogps, s)),
  );
  return misses.list;
}

function compareTokens(batch: LogitsBatch | HiddenBatch, { plan }: Call, result: object): string[] {
  const misses = new Misses();
  const logits = isHidden(batch) ? referenceLayer(batch).batch : (batch as LogitsBatch);
  if (plan.perToken) {
    const [actual, expected] = [result as TokenLogps<true>, referenceTokenLogps(logits)];
    const keys = ['logps', 'logsumexp', 'entropy', 'logCollision'] as const;
    for (const key of keys.slice(0, plan.collision ? 4 : 3))
      misses.each(key, actual[key], expected[key], (x) => logpBound(x, 1));
  } else {
    const [actual, expected] = [result as SequenceLogps, referenceLogps(logits)];
    misses.each('counts', actual.counts, expected.counts, () => 0);
    misses.each('logps', actual.logps, expected.logps, (x, b) =>
      // Weights are at most 2.
      logpBound(x, 2 * at(expected.counts, b)),
    );
  }
  return misses.list;
}

/** Below the normal numbers of float32 there are fewer digits than bounds take for granted. */
const least = 2 ** -126;
const largest = { float32: 2 ** 127, bfloat16: 2 ** 127, float16: 65504 } as const;
function said({ plan }: Call, tally: Tally): string[] {
  return (
    tally.misses
      .filter(({ actual, expected }) => !(Math.abs(actual) < least && Math.abs(expected) < least))
      // What is beyond the dtype has only its sign there.
      .filter(
        ({ actual, expected }) =>
          !(
            Math.abs(expected) > largest[plan.rows.dtype] &&
            actual === Math.sign(expected) * Infinity
          ),
      )
      .map(
        ({ what, actual, expected, bound }) =>
          `${what} is ${actual}, expected ${expected} within ${bound}`,
      )
  );
}

/** Whether every gradient of a layer is that of the call, and of nothing else. */
function isWhole({ plan, exact }: Call, found: HiddenLossResult): boolean {
  const { bias } = exact as HiddenBatch;
  if (!found.gradHidden || !found.gradWeight || plan.run.accumulate) return false;
  return (found.gradBias !== undefined) === (bias !== undefined);
}

function backwardTally(call: Call, result: object): Tally {
  const { plan } = call;
  const tally = new Tally();
  const batch = call.exact as ExactBatch;
  const derivatives = derivativesOf(plan, batch) as never;
  const scale = plan.run.gradientScale ?? 1;
  if (isHidden(batch)) {
    const found = result as HiddenLossResult;
    if (!isWhole(call, found)) return tally;
    const { hidden, prepared } = prepareHiddenBackward(batch);
    const { terms } = scaled(expectedBackward(prepared, derivatives), scale);
    const own = { ...found, gradHidden: bits(found.gradHidden as LogitsArray) };
    checkLayerGradients(tally, hidden, layerGradients(hidden, terms), own);
    return tally;
  }
  const { gradLogits, rowScale } = result as LossResult;
  const prepared = prepareBackward(batch as LogitsBatch);
  const expected = scaled(expectedBackward(prepared, derivatives), scale);
  checkGradient(tally, prepared, expected, bits(gradLogits as LogitsArray), rowScale);
  return tally;
}

function missesOf(call: Call, result: object): string[] {
  const { plan, exact } = call;
  if (plan.door === 'logps') return compareLogps(exact as LogpsBatch, call, result as LogpsResult);
  const batch = exact as LogitsBatch | HiddenBatch;
  if (plan.door === 'tokens') return compareTokens(batch, call, result);
  if (plan.door === 'backward') return said(call, backwardTally(call, result));
  const scale = plan.run.gradientScale ?? 1;
  const tally = new Tally();
  if (isHidden(batch)) {
    const found = result as HiddenLossResult;
    const prepared = prepareHidden(batch);
    const own = found.gradHidden ? { ...found, gradHidden: bits(found.gradHidden) } : found;
    if (isWhole(call, own)) checkStages(tally, lossOf(plan), prepared, own, scale);
    else checkValueStages(tally, lossOf(plan), prepared.prepared, own);
  } else {
    const found = result as LossResult;
    const own = found.gradLogits ? { ...found, gradLogits: bits(found.gradLogits) } : found;
    checkLogitsStages(tally, lossOf(plan), batch as LogitsBatch, own, scale);
  }
  return said(call, tally);
}

function metricMisses({ plan, exact }: Call, result: Properties): string[] {
  if (plan.run.metrics === undefined || (plan.door !== 'logits' && plan.door !== 'hidden'))
    return [];
  const batch = exact as LogitsBatch | HiddenBatch;
  const { tokenWeights, logitScale, logitSoftcap, temperature } = plan.fields;
  const isPlain = [logitScale, logitSoftcap, temperature].every((x) => x === undefined);
  if (tokenWeights || !isPlain) return [];
  const arity = arityOf(plan);
  const metrics = { ...(result.metrics as Partial<Record<RowMetric, number>>) };
  if (!isHidden(batch)) return rowMetricMisses(batch as LogitsBatch, metrics, arity).list;
  // Which of two logits is larger may be a matter of how they were computed.
  delete metrics.mean_token_accuracy;
  return rowMetricMisses(referenceLayer(batch).batch, metrics, arity, 1e-5).list;
}

/** Whether there was anything to compare. @throws Fault */
export function compare(call: Call, result: Properties): boolean {
  if (!call.plan.rows.special) checkNoNan(call, result);
  if (!isModerate(call)) return false;
  const [first] = [...missesOf(call, result), ...metricMisses(call, result)];
  if (first !== undefined) throw new Fault(`against float64: ${first}`);
  return true;
}
