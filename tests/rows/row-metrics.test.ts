// `run.metrics`, and the metrics that are always there: against means that this file makes itself
// of the rows.
import { describe, expect, test } from 'vitest';
import {
  dirAlignLoss,
  tokenLogps,
  type LogitsBatch,
  type LossResult,
  type RowMetric,
} from '../../ts/index.js';
import { referenceLayer } from '../../ts/verification/reference.js';
import { copyOf, dtypes, objectiveOf, randomBatch } from '../support/batches.js';
import {
  allFields,
  configOf,
  familyMethods,
  methodFields,
  randomFields,
} from '../support/family-batches.js';
import {
  leastMemory,
  randomHidden,
  sameGradients,
  sameValues,
  type HostHidden,
} from '../support/hidden.js';
import { at, present, sameBits } from '../support/numbers.js';
import { expectRefusal, thrownBy } from '../support/refusal.js';
import { checkRowMetrics, rowMetricNames } from '../support/row-metrics.js';

const dpo = dirAlignLoss('dpo', 0.1);
const all = rowMetricNames;

/** Everything that is not asked for, bit for bit. */
function sameOtherwise(actual: LossResult, expected: LossResult): void {
  sameValues({ ...actual, metrics: expected.metrics }, expected, 'as without');
  expect(actual.metrics).toMatchObject(expected.metrics);
  for (const key of ['gradLogits', 'rowScale'] as const) {
    expect(actual[key] === undefined).toBe(expected[key] === undefined);
    if (expected[key]) expect(sameBits(present(actual[key]), expected[key]), key).toBe(true);
  }
}

describe('from logits', () => {
  const shapes = [
    { sequences: 4, tokens: 6, vocab: 1 },
    { sequences: 4, tokens: 6, vocab: 2 },
    { sequences: 6, tokens: 5, vocab: 31 },
    { sequences: 4, tokens: 3, vocab: 512 },
    { sequences: 2, tokens: 4, vocab: 5003 },
  ];
  test.each(dtypes.flatMap((dtype) => shapes.map((shape) => ({ dtype, ...shape }))))(
    '$dtype, vocab $vocab: means over the scored rows, and every other bit as without',
    async (spec) => {
      const batch = randomBatch({ seed: 50 + spec.vocab, ...spec });
      for (const gradient of ['dense', 'factored', 'none'] as const) {
        for (const inPlace of gradient === 'none' ? [false] : [false, true]) {
          const run = { gradient, inPlace };
          const plain = dpo(copyOf(batch), run);
          const result = dpo(copyOf(batch), { ...run, metrics: all });
          checkRowMetrics(batch, result.metrics);
          sameOtherwise(result, plain);
          const later = await dpo.async(copyOf(batch), { ...run, metrics: all, threads: 3 });
          expect(later.metrics).toStrictEqual(result.metrics);
        }
      }
    },
  );

  test('each name by itself gives that metric, with the same bits', () => {
    const batch = randomBatch({ seed: 3, sequences: 4, tokens: 5, vocab: 67 });
    const { metrics } = dpo(batch, { metrics: all });
    for (const name of all) {
      for (const gradient of ['dense', 'factored'] as const) {
        const one = dpo(copyOf(batch), { metrics: [name], gradient, inPlace: true }).metrics;
        expect(one[name]).toBe(metrics[name]);
        expect(all.filter((other) => other in one)).toEqual([name]);
      }
    }
    expect(all.filter((name) => name in dpo(batch).metrics)).toEqual([]);
    expect(all.filter((name) => name in dpo(batch, { metrics: [] }).metrics)).toEqual([]);
  });

  test('rows are weighed alike, however they are spread over sequences', () => {
    // One sequence of many rows, one of a single row, one without any.
    const batch = randomBatch({ seed: 4, sequences: 6, tokens: 12, vocab: 17, ignored: 0 });
    const labels = batch.labels.slice();
    labels.fill(-100, 12, 23);
    labels.fill(-100, 24, 36);
    labels.fill(-100, 40, 48);
    const result = dpo({ ...batch, labels }, { metrics: all });
    checkRowMetrics({ ...batch, labels }, result.metrics);
    expect(result.metrics.num_tokens).toBe(72 - 11 - 12 - 8);
    expect(result.metrics.empty_sequences).toBe(1);
  });

  test.each(dtypes)('packed, of any length, one of 0: %s', (dtype) => {
    const { labels, logits } = randomBatch({ seed: 10, sequences: 4, tokens: 6, vocab: 45, dtype });
    const offsets = Int32Array.of(0, 9, 10, 10, 24);
    const reference = Float64Array.of(-30, -4, 0, -50);
    const batch = { logits, dtype, labels, offsets, reference, shape: [24, 45] };
    for (const gradient of ['dense', 'factored', 'none'] as const)
      checkRowMetrics(batch, dpo(batch, { metrics: all, gradient }).metrics);
  });

  test('without a scored row they are 0', () => {
    const batch = randomBatch({ seed: 5, sequences: 4, tokens: 2, vocab: 5 });
    const { metrics } = dpo(
      { ...batch, labels: batch.labels.slice().fill(-100) },
      { metrics: all },
    );
    for (const name of [...all, 'num_tokens', 'ranking_accuracy'] as const)
      expect(metrics[name], name).toBe(0);
  });

  test('rows that the likelihood term alone scores do not count', () => {
    const batch = randomBatch({ seed: 6, sequences: 4, tokens: 5, vocab: 13 });
    const sftLabels = batch.labels.map((label, row) => (label === -100 ? row % 13 : label));
    const objective = dirAlignLoss('dpo', 0.1, false, { sftWeight: 1 });
    const { metrics } = objective({ ...batch, sftLabels }, { metrics: all });
    checkRowMetrics(batch, metrics);
  });

  test('sft: every sequence is a chosen one', () => {
    const batch = randomBatch({ seed: 7, sequences: 3, tokens: 4, vocab: 11 });
    const names = ['entropy', 'mean_token_accuracy', 'logits/chosen'] as const;
    const { metrics } = dirAlignLoss('sft')(batch, { metrics: names });
    checkRowMetrics(batch, metrics, 'single');
    expect('ranking_accuracy' in metrics).toBe(false);
    expect(metrics.num_tokens).toBe(batch.labels.filter((label) => label !== -100).length);
    // @ts-expect-error nor do the types have it
    const error = thrownBy(() => dirAlignLoss('sft')(batch, { metrics: all }));
    expectRefusal(error, 'TypeError OPTION', "'logits/rejected' is not for 'sft'");
  });

  test.each(familyMethods.filter((method) => methodFields[method].arity !== 'pair'))(
    '%s: the desirable, or the best of each group, are the chosen',
    (method) => {
      const { arity } = methodFields[method];
      const { sequences, ...fields } = randomFields(31, methodFields[method], 5, allFields(method));
      const rows = randomBatch({ seed: 32, sequences, tokens: 4, vocab: 19, ignored: 0.2 });
      const names = arity === 'group' || method === 'sft' ? all.slice(0, 3) : all;
      const batch = { ...rows, ...fields };
      const { metrics } = objectiveOf(configOf(method))(batch as LogitsBatch, { metrics: names });
      checkRowMetrics(batch, metrics, arity);
      const everyone = dirAlignLoss('sft')(rows, { metrics: ['mean_token_accuracy'] }).metrics;
      if (method !== 'sft')
        expect(metrics.mean_token_accuracy).not.toBe(everyone.mean_token_accuracy);
    },
  );

  test('a tie is no prediction; logits of -inf are no probability, and make the mean -inf', () => {
    const logits = Float32Array.of(1, 1, 1, -Infinity, 2, 1, 0, 3, 0, -5, -5, -4);
    const batch = {
      logits,
      shape: [2, 2, 3],
      labels: Int32Array.of(0, 1, 1, 2),
      reference: Float64Array.of(-1, -1),
    };
    const { metrics } = dpo(batch, { metrics: all });
    // Of the chosen's rows: a tie of three; 1 of (-inf, 2, 1).
    expect(metrics.mean_token_accuracy).toBe(0.5);
    expect(metrics['logits/chosen']).toBe(-Infinity);
    expect(metrics['logits/rejected']).toBeCloseTo((1 - 14 / 3) / 2, 12);
    expect(metrics.entropy).toBeGreaterThan(0);
    // The lowest logit there is, above those of words that are masked.
    const lowest = Float32Array.of(...Array<number>(2).fill(-Infinity), -3.4028234663852886e38);
    const masked = Float32Array.from({ length: 12 }, (_, i) => at(lowest, i % 3));
    const only = dpo(
      { ...batch, logits: masked, labels: Int32Array.of(2, 2, 0, 2) },
      { metrics: all },
    ).metrics;
    expect(only.mean_token_accuracy).toBe(1);
    const [one, other] = [-3.4028234663852886e38, 1];
    const wide = Float32Array.from({ length: 4 * 700 }, (_, i) => (i % 700 < 600 ? one : other));
    const means = dpo(
      { ...batch, logits: wide, shape: [2, 2, 700] },
      { metrics: ['logits/chosen'] },
    ).metrics;
    expect(means['logits/chosen'] / one).toBeCloseTo(6 / 7, 6);
    const uniform = dpo({ ...batch, logits: new Float32Array(12) }, { metrics: all }).metrics;
    expect(uniform.entropy).toBeCloseTo(Math.log(3), 6);
    expect(uniform.mean_token_accuracy).toBe(0);
  });

  test('what ignored rows and padded columns hold is never seen', () => {
    const batch = randomBatch({ seed: 8, sequences: 4, tokens: 4, vocab: 9 });
    const { metrics } = dpo(batch, { metrics: all });
    const logits = new Float32Array(16 * 12).fill(NaN);
    batch.labels.forEach((label, row) => {
      if (label !== -100)
        logits.set((batch.logits as Float32Array).subarray(row * 9, row * 9 + 9), row * 12);
    });
    expect(dpo({ ...batch, logits, rowStride: 12 }, { metrics: all }).metrics).toStrictEqual(
      metrics,
    );
  });
});

test('the order of the log-probabilities: strictly above, sums and not means', () => {
  const objective = dirAlignLoss('dpo', 0.1, true);
  const logps = Float64Array.of(-3, -8, -5, -4, -9, -5);
  const batch = {
    logps,
    counts: Int32Array.of(1, 8, 5, 4, 1, 5),
    reference: Float64Array.of(-1, -9, -5, -4, -1, -1),
  };
  const { metrics } = objective.fromLogps(batch);
  expect(metrics.ranking_accuracy).toBe(2 / 3);
  expect(metrics.num_tokens).toBe(24);
});

describe('from hidden states', () => {
  test.each(dtypes)(
    '%s: those of the logits, whatever the memory, and every other bit as without',
    async (dtype) => {
      const batch = randomHidden({
        seed: 60,
        sequences: 4,
        tokens: 30,
        vocab: 67,
        size: 16,
        dtype,
        ignored: 0.2,
      });
      const { batch: logits } = referenceLayer(batch);
      for (const method of ['dpo', 'sft'] as const) {
        const objective = objectiveOf({ method, beta: 0.1 });
        const names: readonly RowMetric[] = method === 'sft' ? all.slice(0, 3) : all;
        for (const memory of [2 ** 24, leastMemory(batch) + 30_000, leastMemory(batch)]) {
          const plain = objective.fromHidden(batch, { memory });
          const result = objective.fromHidden(batch, { memory, metrics: names });
          checkRowMetrics(logits, result.metrics, method === 'sft' ? 'single' : 'pair');
          sameGradients(result, plain, method);
          expect(result.metrics).toMatchObject(plain.metrics);
          const none = await objective.fromHidden.async(batch, {
            memory,
            metrics: names,
            gradient: 'none',
            threads: 2,
          });
          sameValues(none, result, `${method}, without gradients`);
        }
      }
    },
  );

  test('the entropy is the mean of what tokenLogps has', () => {
    const batch: HostHidden = randomHidden({
      seed: 61,
      sequences: 2,
      tokens: 7,
      vocab: 29,
      size: 8,
    });
    const { entropy } = tokenLogps(batch);
    const rows = entropy.filter((_, row) => at(batch.labels, row) !== -100);
    const mean = rows.reduce((sum, x) => sum + x, 0) / rows.length;
    expect(dpo.fromHidden(batch, { metrics: ['entropy'] }).metrics.entropy).toBeCloseTo(mean, 12);
  });
});

test('what is no list of names is refused, at every door', () => {
  const batch = randomBatch({ seed: 9, sequences: 2, tokens: 2, vocab: 5 });
  const hidden = randomHidden({ seed: 62, sequences: 2, tokens: 2, vocab: 5, size: 3 });
  for (const [metrics, words] of [
    ['entropy', 'expected an array of names'],
    [null, 'expected an array of names'],
    [{ entropy: true }, 'expected an array of names'],
    [['entropie'], "metrics[0]: 'entropie' is not one of 'entropy'"],
    [['entropy', 'logps/chosen'], "metrics[1]: 'logps/chosen' is not one of"],
    [['entropy', 'entropy'], 'there already'],
    [['toString'], 'is not one of'],
    [[undefined], 'is not one of'],
    [new Array(2 ** 31), 'is not one of'],
  ] as const) {
    const run = { metrics } as never;
    expectRefusal(() => dpo(batch, run), 'TypeError OPTION', words);
    expectRefusal(() => dpo.fromHidden(hidden, run), 'TypeError OPTION', words);
  }
  // What is there already has no rows to ask.
  const logps = {
    logps: Float64Array.of(-1, -2),
    counts: Int32Array.of(1, 1),
    reference: Float64Array.of(-1, -1),
  };
  const error = thrownBy(() => dpo.fromLogps(logps, { metrics: ['entropy'] } as never));
  expectRefusal(error, 'TypeError OPTION', 'run.metrics: no such option');
});
