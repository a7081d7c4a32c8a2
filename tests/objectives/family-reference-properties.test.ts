// What must hold of the reference for any batch of the wider family.
import { describe, expect, test } from 'vitest';
import {
  finiteDifference,
  referenceFromLogps,
  referenceHiddenLoss,
  referenceLogps,
  referenceLogpsBackward,
  referenceLoss,
  referenceTokenLogps,
  type ReferenceCoefficients,
  type ReferenceConfig,
} from '../../ts/verification/reference.js';
import { differenceBound } from '../../ts/verification/verification.js';
import {
  allFields,
  configOf,
  familyHidden,
  familyLogits,
  familyLogps,
  familyMethods,
  fieldsFor,
  methodFields,
  partsOfTen,
  unitsBetween,
  type Field,
} from '../support/family-batches.js';
import { largestOf, Misses } from '../support/bounds.js';
import { expectNear as near } from '../support/near.js';
import { at, generator, normal } from '../support/numbers.js';

const uncoupled = familyMethods.filter((method) => !method.startsWith('aot'));
const withLikelihood = uncoupled.filter(
  (method) => methodFields[method].arity !== 'group' && method !== 'sft',
);
const reductions = ['sequence', 'token', 'mean'] as const;

/** Sum of products; nothing where there are no coefficients. */
function dot(coefficients: ArrayLike<number> | undefined, values: ArrayLike<number>): number {
  return Array.from(coefficients ?? []).reduce((sum, c, i) => sum + c * at(values, i), 0);
}

/** A gradient against differences of its function. */
function matchesDifferences(
  f: (x: Float64Array) => number,
  x: Float64Array,
  gradient: ArrayLike<number>,
  bound = Infinity,
): void {
  const difference = finiteDifference(f, x, { bound });
  const misses = new Misses();
  const largest = largestOf(gradient);
  misses.each('gradient', gradient, difference.gradient, (slope, i) =>
    differenceBound(slope, largest, at(difference.error, i)),
  );
  expect(misses.list).toEqual([]);
  expect(largest).toBeGreaterThan(0);
}

describe('derivatives agree with differences', () => {
  const single = familyMethods.flatMap((method) => {
    const { needs = [] } = methodFields[method];
    const others = allFields(method).filter((name) => !needs.includes(name));
    return [...others.map((name): Field[] => [...needs, name]), allFields(method)].map(
      (names) => [method, names] as const,
    );
  });

  test.each(single)('%s with %j', (method, names) => {
    const config = configOf(method);
    const batch = familyLogps(11, method, 5, names);
    const f = (logps: Float64Array): number => referenceFromLogps(config, { ...batch, logps }).loss;
    const logps = Float64Array.from(batch.logps);
    matchesDifferences(f, logps, referenceFromLogps(config, batch).gradLogps, 0);
  });

  test.each(
    ['sft' as const, ...withLikelihood].flatMap((method) =>
      reductions.map((sftReduction) => [method, sftReduction] as const),
    ),
  )('%s with a likelihood term by %s', (method, sftReduction) => {
    const own = method === 'sft' ? {} : { sftWeight: 0.7 };
    for (const normalize of [true, false]) {
      const config = { ...configOf(method), ...own, sftReduction, normalize };
      const batch = familyLogps(12, method, 4, fieldsFor(config));
      const f = (logps: Float64Array): number =>
        referenceFromLogps(config, { ...batch, logps }).loss;
      const logps = Float64Array.from(batch.logps);
      matchesDifferences(f, logps, referenceFromLogps(config, batch).gradLogps, 0);
    }
  });

  const ofRows = ['tokenWeights', 'logitScale', 'logitSoftcap', 'temperature'] as const;
  test.each([...ofRows.map((name) => [name]), [], [...ofRows]])('logits with %j', (...names) => {
    for (const method of ['dpo', 'orpo', 'kto', 'plackett_luce', 'sft'] as const) {
      const full = familyLogits(13, method, 2);
      const dropped = ofRows.filter((name) => !names.includes(name));
      const batch = { ...full, ...Object.fromEntries(dropped.map((name) => [name, undefined])) };
      const config = configOf(method);
      const f = (logits: Float64Array): number => referenceLoss(config, { ...batch, logits }).loss;
      matchesDifferences(f, full.logits, referenceLoss(config, batch).gradLogits);
    }
  });

  test.each(['hidden', 'weight', 'bias'] as const)('of an output layer: %s', (name) => {
    const config = { ...configOf('dpo'), sftWeight: 0.5, sftReduction: 'mean' } as const;
    const batch = familyHidden(14, 'dpo', 2);
    const result = referenceHiddenLoss(config, batch);
    const gradient = {
      hidden: result.gradHidden,
      weight: result.gradWeight,
      bias: result.gradBias,
    }[name];
    const f = (x: Float64Array): number =>
      referenceHiddenLoss(config, { ...batch, [name]: x }).loss;
    matchesDifferences(f, batch[name], gradient);
  });

  const rows = familyLogits(15, 'sft', 3, []);
  const random = generator(16);
  const perRow = (): Float64Array => Float64Array.from(rows.labels, () => normal(random));
  test.each<[name: string, given: ReferenceCoefficients]>([
    ['rows', { rows: perRow() }],
    ['sequences', { sequences: Float64Array.of(1.5, -0.5, 0.25) }],
    ['entropy', { entropy: perRow() }],
    ['rows and entropy', { rows: perRow(), entropy: perRow() }],
    ['sequences and entropy', { sequences: Float64Array.of(1, 2, 3), entropy: perRow() }],
  ])('logpsBackward: %s', (_, given) => {
    const { sequences, entropy } = given;
    const f = (logits: Float64Array): number => {
      const tokens = referenceTokenLogps({ ...rows, logits });
      const { logps } = referenceLogps({ ...rows, logits });
      return dot(given.rows, tokens.logps) + dot(sequences, logps) + dot(entropy, tokens.entropy);
    };
    const { gradLogits } = referenceLogpsBackward(rows, given);
    matchesDifferences(f, rows.logits, gradLogits);
  });
});

describe('weights and denominators', () => {
  test.each(familyMethods)(
    '%s: weights of 1 and the default denominator change no bit',
    (method) => {
      const { needs = [] } = methodFields[method];
      const plain = familyLogits(21, method, 4, needs);
      const sequences = plain.shape[0];
      const count = methodFields[method].arity === 'pair' ? sequences / 2 : sequences;
      const units = plain.groups ? plain.groups.length - 1 : count;
      const isCoupled = !uncoupled.includes(method);
      const batch = {
        ...plain,
        ...(!isCoupled && { weights: new Float64Array(units).fill(1) }),
        denominator: units,
      };
      expect(referenceLoss(configOf(method), batch)).toEqual(
        referenceLoss(configOf(method), plain),
      );
      const unweighted = { ...plain, tokenWeights: undefined };
      const tokenWeights = new Float64Array(plain.labels.length).fill(1);
      expect(referenceLoss(configOf(method), { ...plain, tokenWeights })).toEqual(
        referenceLoss(configOf(method), unweighted),
      );
    },
  );

  const likely = withLikelihood.map((method): ReferenceConfig => ({
    ...configOf(method),
    sftWeight: 0.3,
    sftReduction: 'token',
  }));
  const configs = [
    ...uncoupled.map(configOf),
    ...likely,
    { method: 'sft', sftReduction: 'token' } as const,
  ];
  test.each(configs)('$method $sftReduction: ten units are 4 + 4 + 2', (config) => {
    const { method } = config;
    const names = fieldsFor(config);
    const logps = familyLogps(22, method, 10, names);
    const logits = familyLogits(23, method, 10, names);
    const hidden = familyHidden(24, method, 10, names);

    const gradLogps = new Float64Array(logps.logps.length);
    const gradHidden = new Float64Array(hidden.hidden.length);
    const gradWeight = new Float64Array(hidden.weight.length);
    const gradBias = new Float64Array(hidden.bias.length);
    const gradLogits = new Float64Array(logits.logits.length);
    const losses = [0, 0, 0];
    const addTo = (whole: Float64Array, part: Float64Array, indices?: readonly number[]): void => {
      const block = indices ? part.length / indices.length : part.length;
      part.forEach((x, i) => {
        const to = indices ? at(indices, Math.floor(i / block)) * block + (i % block) : i;
        whole[to] = at(whole, to) + x;
      });
    };
    for (const range of partsOfTen) {
      const a = unitsBetween(logps, method, logps.logps.length, range);
      const own = referenceFromLogps(config, a.part);
      addTo(gradLogps, own.gradLogps, a.indices);
      const b = unitsBetween(logits, method, logits.shape[0], range);
      const ofLogits = referenceLoss(config, b.part);
      addTo(gradLogits, ofLogits.gradLogits, b.indices);
      const c = unitsBetween(hidden, method, hidden.shape[0], range);
      const ofHidden = referenceHiddenLoss(config, c.part);
      addTo(gradHidden, ofHidden.gradHidden, c.indices);
      addTo(gradWeight, ofHidden.gradWeight);
      addTo(gradBias, ofHidden.gradBias);
      [own.loss, ofLogits.loss, ofHidden.loss].forEach((x, i) => (losses[i] = at(losses, i) + x));
    }
    const [whole, ofLogits, ofHidden] = [
      referenceFromLogps(config, logps),
      referenceLoss(config, logits),
      referenceHiddenLoss(config, hidden),
    ];
    for (const [i, { loss }] of [whole, ofLogits, ofHidden].entries())
      near('loss', [at(losses, i)], [loss]);
    near('gradLogps', gradLogps, whole.gradLogps);
    near('gradLogits', gradLogits, ofLogits.gradLogits);
    near('gradHidden', gradHidden, ofHidden.gradHidden);
    near('gradWeight', gradWeight, ofHidden.gradWeight);
    near('gradBias', gradBias, ofHidden.gradBias);
  });

  test.each(configs)('$method $sftReduction: the loss is the weighted sum of losses', (config) => {
    const batch = familyLogps(25, config.method, 6);
    const { loss, losses } = referenceFromLogps(config, batch);
    near('loss', [dot(batch.weights, losses) / (batch.denominator ?? NaN)], [loss]);
  });

  test.each(configs)('$method $sftReduction: a weight of 0 leaves a unit out', (config) => {
    const { method } = config;
    const names = fieldsFor(config);
    const batch = familyLogits(26, method, 3, names);
    const sequences = batch.shape[0];
    const own = unitsBetween(batch, method, sequences, [1, 2]).indices;
    const weights = Float64Array.from(batch.weights ?? [], (w, u) => (u === 1 ? 0 : w));
    const logits = batch.logits.slice();
    const block = logits.length / sequences;
    for (const b of own) logits.fill(NaN, b * block, (b + 1) * block);
    const { loss, losses, gradLogits } = referenceLoss(config, { ...batch, weights, logits });
    const expected = referenceLoss(config, { ...batch, weights });
    expect([loss, losses[0], losses[2]]).toEqual([
      expected.loss,
      expected.losses[0],
      expected.losses[2],
    ]);
    expect(losses[1]).toBeNaN();
    expect(gradLogits).toEqual(expected.gradLogits);
    for (const b of own) expect(largestOf(gradLogits.subarray(b * block, (b + 1) * block))).toBe(0);
  });

  test('weights of 0 all over make a loss of 0', () => {
    for (const config of configs) {
      const batch = familyLogps(27, config.method, 3);
      const { loss, gradLogps } = referenceFromLogps(config, {
        ...batch,
        weights: new Float64Array(3),
      });
      expect([loss, largestOf(gradLogps)]).toEqual([0, 0]);
    }
  });
});
