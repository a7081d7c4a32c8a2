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
  referenceFromLogps,
  referenceLayer,
  referenceLogps,
  referenceTokenLogps,
} from '../../ts/verification/reference.js';
import { Tally } from '../../ts/verification/verification.js';
import { prepareHidden } from '../../ts/verification/hidden.js';
import { logpBound, Misses } from '../support/bounds.js';
import { at } from '../support/numbers.js';
import { checkStages } from '../support/hidden.js';
import { rowMetricMisses } from '../support/row-metrics.js';
import { checkLogitsStages, checkValueStages, float64Bound } from '../support/stages.js';
import type { Call, Properties } from './call.js';
import { isHidden } from './contents.js';
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
  const isOdd = Object.values(plan.config).some(
    (value) => typeof value === 'number' && value !== 0 && Math.abs(value) < 1e-300,
  );
  if (isOdd) return false;
  const scale = Math.abs(run.gradientScale ?? 1);
  if (scale !== 0 && (scale < 1e-6 || scale > 1e6)) return false;
  if (plan.door === 'logps') return true;
  const { labels, shape } = exact as LogitsBatch;
  // Products have errors of the size of their terms.
  return (
    rows.scale <= (isHidden(exact) ? 2 : 8) &&
    !rows.special &&
    labels.length * (shape.at(-1) ?? 0) <= 3000
  );
}

function compareLogps(batch: LogpsBatch, { plan }: Call, result: LogpsResult): string[] {
  const misses = new Misses();
  const expected = referenceFromLogps(plan.config, batch);
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
    const [actual, expected] = [result as TokenLogps, referenceTokenLogps(logits)];
    for (const key of ['logps', 'logsumexp', 'entropy'] as const)
      misses.each(key, actual[key], expected[key], (x) => logpBound(x, 1));
  } else {
    const [actual, expected] = [result as SequenceLogps, referenceLogps(logits)];
    misses.each('counts', actual.counts, expected.counts, () => 0);
    misses.each('logps', actual.logps, expected.logps, (x, b) =>
      logpBound(x, at(expected.counts, b)),
    );
  }
  return misses.list;
}

/** Below the normal numbers of float32 there are fewer digits than bounds take for granted. */
const least = 2 ** -126;
const largest = { float32: 2 ** 127, bfloat16: 2 ** 127, float16: 65504 } as const;
function missesOf(call: Call, result: object): string[] {
  const { plan, exact } = call;
  if (plan.door === 'logps') return compareLogps(exact as LogpsBatch, call, result as LogpsResult);
  const batch = exact as LogitsBatch | HiddenBatch;
  if (plan.door === 'tokens') return compareTokens(batch, call, result);
  const scale = plan.run.gradientScale ?? 1;
  const tally = new Tally();
  if (isHidden(batch)) {
    const found = result as HiddenLossResult;
    const prepared = prepareHidden(batch);
    const own = found.gradHidden ? { ...found, gradHidden: bits(found.gradHidden) } : found;
    // A gradient that was left out, or added to others, is no gradient of this call.
    const isWhole = own.gradHidden && own.gradWeight && !plan.run.accumulate;
    if (isWhole && (own.gradBias !== undefined) === (batch.bias !== undefined))
      checkStages(tally, plan.config, prepared, own, scale);
    else checkValueStages(tally, plan.config, prepared.prepared, own);
  } else {
    const found = result as LossResult;
    const own = found.gradLogits ? { ...found, gradLogits: bits(found.gradLogits) } : found;
    checkLogitsStages(tally, plan.config, batch as LogitsBatch, own, scale);
  }
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

function metricMisses({ plan, exact }: Call, result: Properties): string[] {
  if (plan.run.metrics === undefined || (plan.door !== 'logits' && plan.door !== 'hidden'))
    return [];
  const batch = exact as LogitsBatch | HiddenBatch;
  const chosen = (result.counts as Int32Array).length / (plan.config.method === 'sft' ? 1 : 2);
  const metrics = { ...(result.metrics as Partial<Record<RowMetric, number>>) };
  if (!isHidden(batch)) return rowMetricMisses(batch as LogitsBatch, metrics, chosen).list;
  // Which of two logits is larger may be a matter of how they were computed.
  delete metrics.mean_token_accuracy;
  return rowMetricMisses(referenceLayer(batch).batch, metrics, chosen, 1e-5).list;
}

/** Whether there was anything to compare. @throws Fault */
export function compare(call: Call, result: Properties): boolean {
  if (!call.plan.rows.special) checkNoNan(call, result);
  if (!isModerate(call)) return false;
  const [first] = [...missesOf(call, result), ...metricMisses(call, result)];
  if (first !== undefined) throw new Fault(`against float64: ${first}`);
  return true;
}
