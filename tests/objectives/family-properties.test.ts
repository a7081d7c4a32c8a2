// What must hold of the wider family whatever the numbers are.
import { describe, expect, test } from 'vitest';
import {
  dirAlignLoss,
  logpsBackward,
  mixLosses,
  sequenceLogps,
  tokenLogps,
  type ObjectiveCalls,
} from '../../ts/index.js';
import { objectiveOf } from '../../ts/verification/objectives.js';
import { finiteDifference, type ReferenceConfig } from '../../ts/verification/reference.js';
import { lengthsOf } from '../../ts/verification/verification.js';
import { coupled } from '../support/batches.js';
import { largestOf } from '../support/bounds.js';
import {
  allFields,
  configOf,
  familyHidden,
  familyLogits,
  familyLogps,
  familyMethods,
  methodFields,
  partsOfTen,
  pick,
  unitsBetween,
} from '../support/family-batches.js';
import { expectNear } from '../support/near.js';
import { at, generator, normal, present, sameBits } from '../support/numbers.js';

type Method = (typeof familyMethods)[number];
type Results = Readonly<Record<string, unknown>>;

/** Numbers of the reference's batches in the dtype of a call. */
function inFloat32(batch: object): never {
  const data = ['logits', 'hidden', 'weight', 'bias'];
  const entries = Object.entries(batch).map(([name, value]) => [
    name,
    data.includes(name) ? Float32Array.from(value as Float64Array) : (value as unknown),
  ]);
  return Object.fromEntries(entries) as never;
}

/** Every door of a loss, and its batches. */
const doors: Readonly<
  Record<
    string,
    {
      readonly batch: (seed: number, method: Method, units: number) => Results;
      readonly call: (objective: ObjectiveCalls, batch: Results, run?: object) => Results;
      readonly gradients: readonly string[];
    }
  >
> = {
  logits: {
    batch: (...all) => inFloat32(familyLogits(...all)),
    call: (objective, batch, run) => objective(batch as never, run as never) as never,
    gradients: ['gradLogits'],
  },
  hidden: {
    batch: (...all) => inFloat32(familyHidden(...all)),
    call: (objective, batch, run) => objective.fromHidden(batch as never, run) as never,
    gradients: ['gradHidden', 'gradWeight', 'gradBias'],
  },
  logps: {
    batch: (...all) => familyLogps(...all),
    call: (objective, batch) => objective.fromLogps(batch as never) as never,
    gradients: ['gradLogps'],
  },
};
const everyDoor = Object.entries(doors);

function expectSame(what: string, actual: Results, expected: Results): void {
  expect(Object.keys(actual), what).toEqual(Object.keys(expected));
  for (const [name, value] of Object.entries(expected)) {
    const own = actual[name];
    if (ArrayBuffer.isView(value))
      expect(sameBits(own as Float64Array, value), `${what}: ${name}`).toBe(true);
    else expect(own, `${what}: ${name}`).toEqual(value);
  }
}

/** Of pairs: chosen and rejected of each become a group of two. */
function asGroups(array: Float64Array): Float64Array {
  const half = array.length / 2;
  return array.map((_, i) => at(array, i % 2 === 0 ? i / 2 : half + (i - 1) / 2));
}

describe('plackett_luce with groups of two is dpo', () => {
  test.each([0.01, 0.1, 1, 7])('beta %s: the loss of each unit, bit for bit', (beta) => {
    const random = generator(3);
    const units = 400;
    const size = (i: number): number => [1, 1, 30, 1e3, 1e6][i % 5] ?? 1;
    const numbers = Float64Array.from({ length: 2 * units }, (_, i) => -size(i) * random());
    const reference = numbers.map((x) => x * (0.5 + random()));
    const counts = new Int32Array(2 * units).fill(3);
    const pairs = dirAlignLoss('dpo', beta).fromLogps({ logps: numbers, counts, reference });
    const groups = Int32Array.from({ length: units + 1 }, (_, g) => 2 * g);
    const ranks = Int32Array.from({ length: 2 * units }, (_, i) => i % 2);
    const batch = { logps: asGroups(numbers), counts, reference: asGroups(reference) };
    const own = dirAlignLoss('plackett_luce', beta).fromLogps({ ...batch, groups, ranks });
    expect(sameBits(own.losses, pairs.losses)).toBe(true);
    expectNear('gradLogps', own.gradLogps, asGroups(pairs.gradLogps), 1e-14);
  });
});

describe('what says nothing changes no bit', () => {
  /** Each field with the value that is meant where it is absent. */
  function neutral(method: Method, door: string, batch: Results, config: ReferenceConfig) {
    const { arity, takes = [] } = methodFields[method];
    const { length } = (batch.reference ?? []) as Float64Array;
    const units = arity === 'group' ? (batch.groups as Int32Array).length - 1 : length;
    const n = arity === 'pair' ? length / 2 : units;
    const fill = (x: number): Float64Array => new Float64Array(n).fill(x);
    const { labels } = batch as { readonly labels?: Int32Array };
    return {
      denominator: n,
      ...(takes.includes('weights') && { weights: fill(1) }),
      ...(takes.includes('margins') && { margins: fill(0) }),
      ...(takes.includes('preferences') && { preferences: fill(1 - (config.labelSmoothing ?? 0)) }),
      ...(takes.includes('targets') && { targets: fill(1 / (2 * (config.beta ?? 1))) }),
      ...(takes.includes('shift') && { shift: 0 }),
      ...(door !== 'logps' &&
        labels && {
          tokenWeights: new Float32Array(labels.length).fill(1),
          logitScale: 1,
          temperature: 1,
        }),
      ...(door === 'logps' && { counts: Float64Array.from(batch.counts as Int32Array) }),
    };
  }

  test.each(everyDoor)('%s', (door, { batch: make, call }) => {
    for (const method of familyMethods) {
      const { needs = [], takes = [] } = methodFields[method];
      // Smoothing that is given: some methods' own is not 0.
      const smoothing = takes.includes('preferences') ? { labelSmoothing: 0.25 } : {};
      const config = { ...configOf(method), ...smoothing };
      const all = make(5, method, 4);
      const rows = ['logits', 'hidden', 'weight', 'bias', 'shape', 'labels', 'logps', 'counts'];
      const kept = [...rows, 'reference', ...needs];
      const batch = Object.fromEntries(Object.entries(all).filter(([name]) => kept.includes(name)));
      const given = { ...batch, ...neutral(method, door, batch, config) };
      const objective = objectiveOf(config);
      expectSame(`${door}: ${method}`, call(objective, given), call(objective, batch));
    }
  });

  test('the tokens of a likelihood, and a baseline by its completions', () => {
    const batch = { ...doors.logits?.batch(6, 'dpo', 3) } as Record<string, unknown>;
    const lengths = lengthsOf(batch as never);
    const sftDenominator = lengths.subarray(0, 3).reduce((sum, n) => sum + n, 0);
    const dpo = dirAlignLoss('dpo', 0.5, false, { sftWeight: 0.5, sftReduction: 'token' });
    const call = doors.logits?.call as (objective: ObjectiveCalls, batch: Results) => Results;
    expectSame('sft', call(dpo, { ...batch, sftDenominator }), call(dpo, batch));

    const unpaired = { ...doors.logits?.batch(6, 'kto', 5) };
    const kl = { logps: Float32Array.of(-1, -2.5, -3), reference: [-2, -3, -3] };
    const kto = dirAlignLoss('kto', 0.5);
    expectSame('kl', call(kto, { ...unpaired, kl }), call(kto, { ...unpaired, kl: 0.5 }));
    const below = { logps: [-3, -4], reference: [-2, -4] };
    expectSame('kl', call(kto, { ...unpaired, kl: below }), call(kto, { ...unpaired, kl: 0 }));
    expect((call(kto, { ...unpaired, kl }) as { metrics: object }).metrics).toMatchObject({
      kl: 0.5,
    });
  });
});

describe('the sum of the parts is the whole', () => {
  const separable = familyMethods.filter((method) => !coupled.includes(method));
  /** Sequences of a batch. */
  const sequencesOf = (batch: Results): number =>
    (batch.shape as number[] | undefined)?.[0] ?? (batch.logps as Float64Array).length;

  test.each(everyDoor)(
    'ten units and 4 + 4 + 2 of them: %s',
    (door, { batch: make, call, gradients }) => {
      for (const method of separable) {
        const averages =
          method === 'sft' || ['pair', 'single'].includes(methodFields[method].arity);
        const hasTerm = averages && method !== 'simper';
        const config: ReferenceConfig = {
          ...configOf(method),
          ...(method !== 'sft' && hasTerm && { sftWeight: 0.3 }),
          ...(hasTerm && { sftReduction: 'token' }),
        };
        const batch = { ...make(7, method, 10), ...(hasTerm && { sftDenominator: 40 }) };
        const objective = objectiveOf(config);
        const whole = call(objective, batch);
        const sums = gradients.map((name) => new Float64Array((whole[name] as []).length));
        const out = Object.fromEntries(
          gradients.map((name) => [name, new Float32Array((whole[name] as []).length)]),
        );
        let loss = 0;
        for (const range of partsOfTen) {
          const { part, indices } = unitsBetween(batch as never, method, sequencesOf(batch), range);
          const own = { gradWeight: out.gradWeight, gradBias: out.gradBias };
          const run = door === 'hidden' ? { out: own, accumulate: true } : {};
          const result = call(objective, part, run);
          loss += result.loss as number;
          gradients.forEach((name, i) => {
            const g = result[name] as Float32Array;
            const to = sums[i] as Float64Array;
            if (name in own) to.set(g);
            else
              indices.forEach((s, j) => {
                const block = g.length / indices.length;
                to.set(pick(Float64Array.from(g), block, [j]), s * block);
              });
          });
        }
        expectNear(`${method}: loss`, [loss], [whole.loss as number], 1e-6);
        gradients.forEach((name, i) => {
          expectNear(`${method}: ${name}`, sums[i] as Float64Array, whole[name] as [], 1e-6);
        });
      }
    },
  );
});

describe('mixtures', () => {
  const mixed: readonly (readonly Method[])[] = [
    ['dpo', 'bco_pair', 'simpo'],
    ['aot', 'ipo'],
    ['aot_unpaired', 'sft'],
    ['kto', 'bco', 'sft'],
    ['plackett_luce', 'info_nca'],
  ];
  const weights = [0.8, 0.25, 1.5];
  /** A batch with what all of them need, and nothing else. */
  const batchFor = (door: string, methods: readonly Method[]): Record<string, unknown> => {
    const make = doors[door]?.batch as (seed: number, method: Method, units: number) => Results;
    const needs = methods.flatMap((method) => methodFields[method].needs ?? []);
    const all = methods.filter((m) => m !== 'sft').flatMap((m) => Object.entries(make(8, m, 4)));
    const others = ['weights', 'margins', 'preferences', 'targets', 'shift', 'ranks', 'rewards'];
    return Object.fromEntries(
      all.filter(([name]) => !others.includes(name) || (needs as readonly string[]).includes(name)),
    );
  };

  test.each(everyDoor)(
    'the gradient is the sum of the gradients: %s',
    (door, { call, gradients }) => {
      for (const methods of mixed) {
        const batch = batchFor(door, methods);
        const terms = methods.map((method, i) => ({
          weight: at(weights, i),
          objective: objectiveOf(configOf(method)),
        }));
        const mix = mixLosses(terms);
        const whole = call(mix, batch);
        // The likelihood beside others is that of the chosen, which no loss alone is.
        const alone = mix.terms.filter(({ method }) => method !== 'sft');
        if (alone.length < terms.length) {
          const likelihood = mixLosses(
            terms.map((t, i) => ({ ...t, weight: i < alone.length ? 0 : t.weight })),
          );
          const rest = mixLosses(
            terms.map((t, i) => ({ ...t, weight: i < alone.length ? t.weight : 0 })),
          );
          const [a, b] = [call(likelihood, batch), call(rest, batch)];
          expectNear('loss', [whole.loss as number], [(a.loss as number) + (b.loss as number)]);
          for (const name of gradients) {
            const sum = Float64Array.from(a[name] as number[], (g, i) => g + at(b[name] as [], i));
            expectNear(`${methods.join()}: ${name}`, whole[name] as [], sum, 1e-5);
          }
          continue;
        }
        const results = terms.map(({ objective }, i) => {
          const { needs = [] } = methodFields[methods[i] as Method];
          const own = Object.entries(batch).filter(([name]) => {
            const ofMethods = ['ranks', 'rewards', 'kl', 'desirable', 'shift'];
            return !ofMethods.includes(name) || (needs as readonly string[]).includes(name);
          });
          return call(objective, Object.fromEntries(own));
        });
        const sum = (of: (result: Results) => number): number =>
          results.reduce((total, result, i) => total + at(weights, i) * of(result), 0);
        expectNear('loss', [whole.loss as number], [sum(({ loss }) => loss as number)]);
        expect((whole.terms as { loss: number }[]).map(({ loss }) => loss)).toEqual(
          results.map(({ loss }) => loss),
        );
        for (const name of gradients) {
          const total = Float64Array.from(whole[name] as [], (_, i) =>
            sum((result) => at(result[name] as [], i)),
          );
          expectNear(`${methods.join()}: ${name}`, whole[name] as [], total, 1e-5);
        }
      }
    },
  );

  test.each(everyDoor)('of one loss: that loss, bit for bit: %s', (door, { call }) => {
    for (const method of familyMethods) {
      const batch = (doors[door] as (typeof doors)[string]).batch(9, method, 4);
      const objective = objectiveOf(configOf(method));
      const mix = mixLosses([{ weight: 1, objective }]);
      const { terms, ...values } = call(mix, batch);
      const alone = call(objective, batch);
      expectSame(method, values, alone);
      expect(terms).toEqual([{ method, weight: 1, loss: alone.loss }]);
      expectSame(method, call(mixLosses([{ weight: 1, objective: mix }]), batch), call(mix, batch));
    }
  });

  test('one loss with a weight: the weight is in all of it', () => {
    const batch = batchFor('logits', ['dpo']);
    const objective = dirAlignLoss('dpo', 0.5) as ObjectiveCalls;
    const alone = objective(batch as never);
    const twice = mixLosses([{ weight: 2, objective }])(batch as never);
    expect(twice.loss).toBe(2 * alone.loss);
    expect([...twice.losses]).toEqual([...alone.losses].map((x) => 2 * x));
    expect([...twice.coefficients]).toEqual([...alone.coefficients].map((x) => 2 * x));
    expect(twice.terms).toEqual([{ method: 'dpo', weight: 2, loss: alone.loss }]);
  });

  test('a term of weight 0 is reported, and takes no part', () => {
    const batch = batchFor('logits', ['dpo', 'ipo']);
    const [dpo, ipo] = [dirAlignLoss('dpo', 0.5), dirAlignLoss('ipo', 0.5)];
    const mix = mixLosses([
      { weight: 1, objective: dpo },
      { weight: 0, objective: ipo },
    ])(batch as never);
    const alone = dpo(batch as never);
    expect(mix.loss).toBe(alone.loss);
    expect(sameBits(mix.gradLogits as Float32Array, alone.gradLogits as Float32Array)).toBe(true);
    expect(mix.terms?.[1]?.loss).toBe(ipo(batch as never).loss);
  });
});

describe('derivatives by differences', () => {
  test('by log-probabilities, with every field of the method', () => {
    for (const method of familyMethods) {
      const batch = familyLogps(12, method, 5, allFields(method));
      const objective = objectiveOf(configOf(method));
      const { gradLogps } = objective.fromLogps(batch as never);
      const f = (logps: Float64Array): number =>
        objective.fromLogps({ ...batch, logps } as never).loss;
      const { gradient } = finiteDifference(f, batch.logps);
      expectNear(method, gradLogps, gradient, 1e-6);
    }
  });

  test.each(['tokenWeights', 'logitScale', 'logitSoftcap', 'temperature', 'all'])(
    'by logits, with %s',
    (name) => {
      const rows = ['tokenWeights', 'logitScale', 'logitSoftcap', 'temperature'];
      const all = doors.logits?.batch(13, 'dpo', 2) as Results;
      const batch = Object.fromEntries(
        Object.entries(all).filter(
          ([key]) => !rows.includes(key) || key === name || name === 'all',
        ),
      ) as { readonly logits: Float32Array };
      const dpo = dirAlignLoss('dpo', 0.5, true, { sftWeight: 0.5 }) as ObjectiveCalls;
      const { gradLogits } = dpo(batch as never);
      // Steps that float32 logits have exactly, and a loss of their digits.
      const h = 2 ** -6;
      const slopes = batch.logits.map((_, i) => {
        const at = (step: number): number => {
          const logits = batch.logits.slice();
          logits[i] = (logits[i] ?? NaN) + step;
          return dpo({ ...batch, logits } as never, { gradient: 'none' }).loss;
        };
        return (at(h) - at(-h)) / (2 * h);
      });
      expectNear(name, gradLogits as Float32Array, slopes, 2e-4);
    },
  );
});

test('a weight of 0 leaves out a unit, whatever its logits are', () => {
  for (const method of familyMethods.filter((one) => !coupled.includes(one))) {
    const batch = doors.logits?.batch(14, method, 3) as { logits: Float32Array; shape: number[] };
    const sequences = at(batch.shape, 0);
    const { indices } = unitsBetween(batch as never, method, sequences, [1, 2]);
    const others = { ...(batch as object), weights: Float64Array.of(1.5, 0, 0.5) };
    const logits = batch.logits.slice();
    const block = logits.length / sequences;
    for (const s of indices) logits.fill(NaN, s * block, (s + 1) * block);
    const objective = objectiveOf(configOf(method));
    const clean = objective(others as never);
    const { loss, gradLogits } = objective({ ...others, logits } as never);
    expect(loss, method).toBe(clean.loss);
    const gradient = gradLogits as Float32Array;
    expect(indices.length, method).toBeGreaterThan(0);
    expect(largestOf(gradient), method).toBeGreaterThan(1e-3);
    for (const s of indices)
      expect(
        gradient.subarray(s * block, (s + 1) * block).every((g) => g === 0),
        method,
      ).toBe(true);
    expect(sameBits(gradient, clean.gradLogits as Float32Array), method).toBe(true);
  }
});

describe('losses of the caller, by logpsBackward', () => {
  const { logits, shape, labels } = present(doors.logits).batch(15, 'dpo', 2) as unknown as {
    readonly logits: Float32Array;
    readonly shape: readonly [number, number, number];
    readonly labels: Int32Array;
  };
  const batch = { logits, shape, labels };
  const [sequences, tokens, vocab] = batch.shape;
  const random = generator(16);
  const isScored = (row: number): boolean => labels[row] !== -100;

  test('dpo has the bits of dpo', () => {
    const reference = Float64Array.from({ length: sequences }, () => -4 - random());
    const { logps } = sequenceLogps(batch);
    const beta = 0.3;
    const half = sequences / 2;
    const h = Array.from({ length: half }, (_, i) => {
      const ratio = (s: number): number => at(logps, s) - at(reference, s);
      return beta * (ratio(i) - ratio(i + half));
    });
    const slope = (z: number): number => beta / (1 + Math.exp(z)) / half;
    const own = Float64Array.of(...h.map((z) => -slope(z)), ...h.map(slope));
    for (const forward of [undefined, tokenLogps(batch)]) {
      const { gradLogits } = logpsBackward(batch, { sequences: own, forward });
      const dpo = dirAlignLoss('dpo', beta)({ ...batch, reference });
      expectNear('gradLogits', gradLogits, dpo.gradLogits, 2 ** -22);
      if (!forward) expect(sameBits(gradLogits, dpo.gradLogits)).toBe(true);
    }
  });

  // GRPO as TRL writes it: -min(r A, clip(r, 1 - e, 1 + e) A) + b (exp(d) - d - 1) of a token, then
  // a mean over sequences of means over tokens ('grpo'), or over all tokens ('bnpo').
  const advantages = Float64Array.from({ length: sequences }, () => 2 * normal(random));
  const { logps: now } = tokenLogps(batch);
  const sampled = now.map((x) => x + 0.2 * normal(random));
  const referenceRows = now.map((x) => x + normal(random));
  const [epsilon, penalty] = [0.2, 0.04];
  const perToken = (logp: number, row: number): number => {
    const advantage = at(advantages, Math.floor(row / tokens));
    const ratio = Math.exp(logp - at(sampled, row));
    const clipped = Math.min(Math.max(ratio, 1 - epsilon), 1 + epsilon);
    const d = at(referenceRows, row) - logp;
    return -Math.min(ratio * advantage, clipped * advantage) + penalty * (Math.exp(d) - d - 1);
  };
  const scoredIn = (s: number): number =>
    labels.subarray(s * tokens, (s + 1) * tokens).filter((label) => label !== -100).length;
  const scored = labels.filter((label) => label !== -100).length;
  const denominators = {
    'of sequences': (row: number) => sequences * scoredIn(Math.floor(row / tokens)),
    'of tokens': () => scored,
  };

  /** The softmax in float64, by definition. */
  function logpOf(logits: Float64Array, row: number): number {
    const z = logits.subarray(row * vocab, (row + 1) * vocab);
    return at(z, at(labels, row)) - Math.log(z.reduce((sum, x) => sum + Math.exp(x), 0));
  }

  test.each(Object.entries(denominators))('grpo, a mean %s', (_, divisor) => {
    const rows = now.map((logp, row) => {
      if (!isScored(row)) return NaN;
      const advantage = at(advantages, Math.floor(row / tokens));
      const ratio = Math.exp(logp - at(sampled, row));
      const clipped = Math.min(Math.max(ratio, 1 - epsilon), 1 + epsilon);
      const surrogate = ratio * advantage <= clipped * advantage ? -ratio * advantage : 0;
      const slope = surrogate + penalty * (1 - Math.exp(at(referenceRows, row) - logp));
      return slope / divisor(row);
    });
    // Some tokens are clipped, and some are not.
    const ratios = now
      .map((logp, row) => Math.exp(logp - at(sampled, row)))
      .filter((__, row) => isScored(row));
    expect(ratios.some((r) => Math.abs(r - 1) > epsilon)).toBe(true);
    expect(ratios.some((r) => Math.abs(r - 1) < epsilon)).toBe(true);
    const forward = tokenLogps(batch);
    const { gradLogits } = logpsBackward(batch, { rows, forward });
    const loss = (logits: Float64Array): number =>
      labels.reduce(
        (sum, label, row) =>
          label === -100 ? sum : sum + perToken(logpOf(logits, row), row) / divisor(row),
        0,
      );
    const { gradient } = finiteDifference(loss, Float64Array.from(batch.logits));
    expect(largestOf(gradient)).toBeGreaterThan(0.01);
    expectNear('gradLogits', gradLogits, gradient, 1e-5);
  });
});

test('a field of a mixture is that of the losses which take it, and of no other', () => {
  const batch = {
    logps: Float64Array.of(-10, -12, -11, -9),
    counts: Int32Array.of(4, 5, 6, 3),
    reference: Float64Array.of(-11, -11, -12, -10),
  };
  const fields = { margins: [0.7, -0.4], preferences: [0.6, 0.9] };
  const dpo = dirAlignLoss('dpo', 0.5);
  // The one has no margin of its own, the other no labels that could be flipped.
  for (const other of [dirAlignLoss('apo_down', 0.5), dirAlignLoss('ipo', 0.5)]) {
    const mixture = mixLosses([
      { weight: 1, objective: dpo },
      { weight: 1, objective: other },
    ]);
    const [, term] = mixture.fromLogps({ ...batch, ...fields }).terms ?? [];
    expect(term?.loss).toBe(other.fromLogps(batch).loss);
  }
  const orpo = mixLosses([
    { weight: 1, objective: dpo },
    { weight: 1, objective: dirAlignLoss('orpo', 0.5) },
  ]);
  const { preferences } = fields;
  const [, term] = orpo.fromLogps({ ...batch, preferences }).terms ?? [];
  expect(term?.loss).toBe(dirAlignLoss('orpo', 0.5).fromLogps(batch).loss);
});
