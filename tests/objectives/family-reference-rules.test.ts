// What the wider family's fields mean, by other ways to say the same, and what is refused.
import { describe, expect, test } from 'vitest';
import {
  referenceFromLogps,
  referenceHiddenLoss,
  referenceLoss,
  referenceMix,
  type FamilyFields,
  type ReferenceConfig,
  type ReferenceMethod,
} from '../../ts/verification/reference.js';
import {
  configOf,
  familyHidden,
  familyLogits,
  familyLogps,
  fieldsFor,
  methodsTaking,
  type Field,
} from '../support/family-batches.js';
import { expectNear as near } from '../support/near.js';
import { at } from '../support/numbers.js';

const chosenFirst = { groups: Int32Array.of(0, 2), ranks: Int32Array.of(0, 1) };

describe('methods', () => {
  test('plackett_luce of two candidates is dpo, to the bit of its losses', () => {
    for (let seed = 1; seed <= 50; seed++) {
      for (const referenceFree of [false, true]) {
        for (const normalize of [false, true]) {
          const own = { beta: 0.3, normalize, referenceFree };
          const pair = familyLogps(seed, 'dpo', 1, []);
          const dpo = referenceFromLogps({ method: 'dpo', ...own }, pair);
          const ranked = referenceFromLogps(
            { method: 'plackett_luce', ...own },
            { ...pair, ...chosenFirst },
          );
          expect(ranked.losses).toEqual(dpo.losses);
          near('gradLogps', ranked.gradLogps, dpo.gradLogps);
        }
      }
    }
  });

  test.each(['plackett_luce', 'info_nca', 'nca_listwise'] as const)(
    '%s: the order of the candidates is no matter, and a group of one teaches nothing',
    (method) => {
      const config = configOf(method);
      const fields = { ranks: Int32Array.of(2, 0, 5, 1), rewards: Float64Array.of(1, -1, 0.5, 2) };
      const own =
        method === 'plackett_luce' ? { ranks: fields.ranks } : { rewards: fields.rewards };
      const { logps, counts, reference } = familyLogps(31, 'sft', 4, []);
      const whole = { logps, counts, reference, ...own, groups: Int32Array.of(0, 4) };
      const order = [2, 0, 3, 1];
      const turn = (values: ArrayLike<number> | undefined) =>
        values && Float64Array.from(order, (i) => at(values, i));
      const turned = {
        ...whole,
        logps: turn(logps) as Float64Array,
        counts: turn(counts) as Float64Array,
        reference: turn(reference),
        ...(own.ranks ? { ranks: turn(own.ranks) } : { rewards: turn(own.rewards) }),
      };
      const [a, b] = [referenceFromLogps(config, whole), referenceFromLogps(config, turned)];
      near('loss', [b.loss], [a.loss]);
      near('gradLogps', b.gradLogps, turn(a.gradLogps) ?? []);

      const alone = { ...whole, groups: Int32Array.of(0, 3, 4) };
      const { losses, gradLogps } = referenceFromLogps(config, alone);
      if (method === 'nca_listwise') {
        const u = 0.5 * (at(logps, 3) - at(reference ?? [], 3));
        near('loss', [at(losses, 1)], [Math.log1p(Math.exp(-u)) + Math.log1p(Math.exp(u))]);
      } else {
        expect([losses[1], gradLogps[3]]).toEqual([0, 0]);
      }
    },
  );

  test('simper needs no beta, which means nothing to it', () => {
    const batch = familyLogps(32, 'simper', 3, []);
    const plain = referenceFromLogps({ method: 'simper' }, batch);
    const other = referenceFromLogps({ method: 'simper', beta: 2 }, batch);
    expect(other).toEqual(plain);
    const [w, l] = [0, 3].map((b) => Math.exp(at(batch.logps, b) / at(batch.counts, b)));
    near('loss', [at(plain.losses, 0)], [(l ?? NaN) - (w ?? NaN)]);
  });

  test('the baseline of kto is no less than 0, and nothing moves through it', () => {
    const batch = familyLogps(33, 'kto', 4, ['desirable']);
    const logps = Float64Array.of(-3, -5);
    const kto = (kl: NonNullable<FamilyFields['kl']>) =>
      referenceFromLogps(configOf('kto'), { ...batch, kl });
    expect(kto({ logps, reference: Float64Array.of(-4, -4.5) })).toEqual(kto(0.25));
    expect(kto({ logps, reference: Float64Array.of(-2, -4.5) })).toEqual(kto(0));
    expect(kto(0.25).loss).not.toBe(kto(0).loss);
  });

  test('the shift of bco is 0 where there is none', () => {
    const batch = familyLogps(34, 'bco', 4, ['desirable']);
    const bco = (shift?: number) => referenceFromLogps(configOf('bco'), { ...batch, shift });
    expect(bco()).toEqual(bco(0));
    expect(bco(1).loss).not.toBe(bco(0).loss);
  });
});

describe('fields of pairs', () => {
  test.each(methodsTaking('preferences'))(
    '%s: a preference p is a smoothing of 1 - p',
    (method) => {
      const batch = familyLogps(41, method, 3, []);
      const preferences = new Float64Array(3).fill(0.75);
      const given = referenceFromLogps(configOf(method), { ...batch, preferences });
      expect(given).toEqual(
        referenceFromLogps({ ...configOf(method), labelSmoothing: 0.25 }, batch),
      );
    },
  );

  test.each(['simpo', 'alphapo'] as const)('%s: gamma is a margin of all pairs', (method) => {
    const batch = familyLogps(42, method, 3, []);
    const margins = new Float64Array(3).fill(1.25);
    const own = referenceFromLogps({ ...configOf(method), gamma: 0 }, { ...batch, margins });
    expect(own).toEqual(referenceFromLogps({ ...configOf(method), gamma: 1.25 }, batch));
  });

  // Those whose losses are functions of one difference of the scores, in which they are linear.
  const linear = methodsTaking('margins').filter(
    (method) => !['orpo', 'alphapo', 'dpop'].includes(method),
  );
  test.each(linear)('%s: a margin is as good as a chosen that is less likely', (method) => {
    const config: ReferenceConfig = { ...configOf(method), normalize: false };
    const batch = familyLogps(43, method, 3, []);
    const margins = Float64Array.of(0.5, -1, 2);
    const moved = Float64Array.from(batch.logps, (s, b) => (b < 3 ? s - at(margins, b) / 0.5 : s));
    near(
      'losses',
      referenceFromLogps(config, { ...batch, margins }).losses,
      referenceFromLogps(config, { ...batch, logps: moved }).losses,
    );
  });

  test.each(['orpo', 'dpop'] as const)('%s: a margin is subtracted after beta', (method) => {
    const batch = familyLogps(43, method, 3, []);
    const margins = Float64Array.of(0.5, -1, 2);
    const plain = referenceFromLogps(configOf(method), batch).losses;
    // loss = log(1 + e^-z)
    const expected = plain.map((loss, i) =>
      Math.log1p(Math.exp(at(margins, i) + Math.log(Math.expm1(loss)))),
    );
    near('losses', referenceFromLogps(configOf(method), { ...batch, margins }).losses, expected);
  });

  test('a target of ipo stands for 1 / (2 beta)', () => {
    const batch = familyLogps(44, 'ipo', 3, []);
    const targets = new Float64Array(3).fill(1 / (2 * 0.2));
    const own = referenceFromLogps({ method: 'ipo', beta: 0.5 }, { ...batch, targets });
    const other = referenceFromLogps({ method: 'ipo', beta: 0.2 }, batch);
    expect(own.losses).toEqual(other.losses);
    expect(own.gradLogps).toEqual(other.gradLogps);
  });
});

describe('the likelihood term', () => {
  const reductions = ['sequence', 'mean', 'token'] as const;
  test.each(
    (['dpo', 'kto'] as const).flatMap((method) => reductions.map((by) => [method, by] as const)),
  )('%s by %s: of the chosen of pairs, of the desirable of single sequences', (method, by) => {
    const batch = familyLogps(46, method, 4);
    const isScored = (b: number): boolean => (batch.desirable ? batch.desirable[b] === 1 : b < 4);
    const tokens = Array.from(batch.counts).reduce((n, c, b) => n + (isScored(b) ? c : 0), 0);
    const config = configOf(method);
    const [plain, whole] = [0, 0.5].map((sftWeight) =>
      referenceFromLogps({ ...config, sftWeight, sftReduction: by }, batch),
    );
    const slopes = Float64Array.from(batch.logps, (_, b) => {
      const divisor = { sequence: 1, mean: at(batch.counts, b), token: 1 }[by];
      const denominator = by === 'token' ? tokens : (batch.denominator ?? NaN);
      return isScored(b) ? (-0.5 * at(batch.weights ?? [], b % 4)) / (divisor * denominator) : 0;
    });
    const loss = Array.from(batch.logps).reduce((sum, s, b) => sum + s * at(slopes, b), 0);
    near('loss', [(plain?.loss ?? NaN) + loss], [whole?.loss ?? NaN]);
    const gradient = plain?.gradLogps.map((g, b) => g + at(slopes, b)) ?? [];
    near('gradLogps', gradient, whole?.gradLogps ?? []);
  });
});

describe('mixtures', () => {
  const mpo = [
    { weight: 0.8, config: { method: 'dpo', beta: 0.1 } },
    { weight: 0.2, config: { method: 'bco_pair', beta: 0.1 } },
    { weight: 1, config: { method: 'sft', sftReduction: 'mean' } },
  ] as const;

  test('the gradient of a mixture is the sum, on every door', () => {
    const names: Field[] = ['weights', 'denominator'];
    const parts = [
      [0.8, { method: 'dpo', beta: 0.1, sftWeight: 1.25, sftReduction: 'mean' }],
      [0.2, { method: 'bco_pair', beta: 0.1 }],
    ] as const;
    const sum = <R>(results: readonly R[], of: (result: R) => ArrayLike<number>): number[] =>
      Array.from(of(results[0] as R), (_, i) =>
        results.reduce((all, result, k) => all + (parts[k]?.[0] ?? NaN) * at(of(result), i), 0),
      );
    const doubles = familyLogps(51, 'dpo', 4, names);
    for (const logps of [doubles, { ...doubles, logps: Float32Array.from(doubles.logps) }]) {
      const results = parts.map(([, config]) => referenceFromLogps(config, logps));
      const mixed = referenceMix(mpo, logps);
      near(
        'loss',
        [mixed.loss],
        sum(results, ({ loss }) => [loss]),
      );
      near(
        'losses',
        mixed.losses,
        sum(results, ({ losses }) => losses),
      );
      near(
        'gradLogps',
        mixed.gradLogps,
        sum(results, ({ gradLogps }) => gradLogps),
      );
    }

    const logits = familyLogits(52, 'dpo', 4, names);
    const sftLabels = Int32Array.from(logits.labels, (label) => (label + 101) % 5);
    for (const batch of [logits, { ...logits, sftLabels }]) {
      const results = parts.map(([, config]) => referenceLoss(config, batch));
      const { loss, gradLogits } = referenceMix(mpo, batch);
      near(
        'loss',
        [loss],
        sum(results, (result) => [result.loss]),
      );
      near(
        'gradLogits',
        gradLogits,
        sum(results, (result) => result.gradLogits),
      );
    }

    const hidden = familyHidden(53, 'dpo', 4, names);
    const results = parts.map(([, config]) => referenceHiddenLoss(config, hidden));
    const ofHidden = referenceMix(mpo, hidden);
    for (const name of ['gradHidden', 'gradWeight', 'gradBias'] as const)
      near(
        name,
        ofHidden[name],
        sum(results, (result) => result[name]),
      );
  });

  test('terms have their own losses', () => {
    const batch = familyLogps(54, 'dpo', 4, ['weights']);
    const { terms } = referenceMix(mpo, batch);
    const own = mpo.slice(0, 2).map(({ config }) => referenceFromLogps(config, batch).loss);
    expect(terms.slice(0, 2)).toEqual(own);
  });

  test.each(['sequence', 'mean', 'token'] as const)(
    'sft by %s beside pairs is of the chosen, beside single sequences of the desirable',
    (sftReduction) => {
      for (const method of ['simpo', 'kto'] as const) {
        const config = { ...configOf(method), normalize: true };
        const batch = familyLogps(55, method, 4, fieldsFor({ ...config, sftReduction }));
        const sft = { method: 'sft', sftReduction } as const;
        const mixed = referenceMix(
          [
            { weight: 1, config },
            { weight: 0.3, config: sft },
          ],
          batch,
        );
        const own = referenceFromLogps({ ...config, sftWeight: 0.3, sftReduction }, batch);
        near('loss', [mixed.loss], [own.loss]);
        near('losses', mixed.losses, own.losses);
        near('gradLogps', mixed.gradLogps, own.gradLogps);
      }
    },
  );

  test('a field is for the terms that it means something to', () => {
    const batch = familyLogps(56, 'dpo', 4, ['margins']);
    const { terms } = referenceMix(mpo, batch);
    expect(terms[0]).toBe(referenceFromLogps(mpo[0].config, batch).loss);
    const plain = { ...batch, margins: undefined };
    expect(terms[1]).toBe(referenceFromLogps(mpo[1].config, plain).loss);
  });

  test.each<[what: string, methods: readonly ReferenceMethod[], message: string]>([
    ['two arities', ['dpo', 'kto'], 'one arity'],
    ['groups and sft', ['info_nca', 'sft'], 'no candidate'],
    ['nothing', [], 'one arity'],
  ])('%s are refused', (_, methods, message) => {
    const terms = methods.map((method) => ({ weight: 1, config: configOf(method) }));
    expect(() => referenceMix(terms, familyLogps(57, 'dpo', 2, []))).toThrow(message);
  });
});
