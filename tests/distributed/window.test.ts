// Micro-batches of any size, on ranks with any number of them, against one call on all of them.
import { describe, expect, test } from 'vitest';
import { dirAlignLoss, mixLosses, type LossResult, type Objective } from '../../ts/index.js';
import { countBatch, type Communicator, type Window } from '../../ts/distributed/index.js';
import { randomBatch } from '../support/batches.js';
import { Misses } from '../support/bounds.js';
import { configOf, familyMethods } from '../support/family-batches.js';
import { randomHidden } from '../support/hidden.js';
import { at, present, sameBits } from '../support/numbers.js';
import { partsOf, rowsOf } from '../support/data-ranks.js';
import { within } from '../support/ranks.js';
import { expectRefusal, rejection, thrownBy } from '../support/refusal.js';

const dpo = dirAlignLoss('dpo', 0.1);
const coupled: readonly string[] = ['aot', 'aot_unpaired'];
/** The micro-batches of three ranks, the last of which has none. */
const ofRank = [[0, 1], [2], []];
const ends = [0, 2, 3, 7];

type Metrics = Readonly<Record<string, number>>;

/** Sums in another order: sums of 20 terms, in 2^-53 of their largest. */
function expectNear(actual: LossResult['metrics'] | Metrics, expected: object): void {
  const misses = new Misses();
  expect(Object.keys(actual)).toEqual(Object.keys(expected));
  const largest = Math.max(...Object.values(expected).map((x) => Math.abs(x as number)));
  for (const [name, x] of Object.entries(expected))
    misses.near(name, (actual as Metrics)[name], x as number, 20 * 2 ** -53 * largest);
  expect(misses.list).toEqual([]);
}

interface OfRank {
  readonly results: readonly LossResult<Float32Array<ArrayBuffer>>[];
  readonly finished: Awaited<ReturnType<Window['finish']>>;
}

/** What each rank gets of its parts, and at the end. */
async function inWindow(
  objective: Objective,
  parts: readonly unknown[],
  run: object = {},
): Promise<readonly OfRank[]> {
  return Promise.all(
    within(ofRank.length).map(async (data, r) => {
      const own = (ofRank[r] ?? []).map((i) => parts[i]) as never[];
      const window = await objective.window(countBatch(...own), { data });
      const results: OfRank['results'][number][] = [];
      for (const part of own)
        results.push((await objective.async(part, { ...run, parallel: { window } })) as never);
      return { results, finished: await window.finish() };
    }),
  );
}

function expectShares(ranks: readonly OfRank[], one: Pick<LossResult, 'loss' | 'metrics'>): void {
  const misses = new Misses();
  const shares = ranks.flatMap(({ results }) => results.map(({ loss }) => loss));
  const bound = 20 * 2 ** -53 * shares.reduce((sum, x) => sum + Math.abs(x), 0);
  const sum = shares.reduce((a, b) => a + b, 0);
  misses.near('shares', sum, one.loss, bound);
  for (const { finished } of ranks) misses.near('loss', finished.loss, one.loss, bound);
  expect(misses.list).toEqual([]);
  for (const { finished } of ranks) {
    expect(finished).toEqual(ranks[0]?.finished);
    expectNear(finished.metrics, one.metrics);
  }
}

// Means of micro-batches' means, and divisors of a rank's own.
describe.each(familyMethods.filter((method) => !coupled.includes(method)))('%s', (method) => {
  test('shares of the loss, the gradient and metrics of one call', async () => {
    const objective = dirAlignLoss(configOf(method) as never) as Objective;
    const { batch, parts } = partsOf(method, ends);
    const one = objective(batch as never);
    const ranks = await inWindow(
      objective,
      parts.map(({ part }) => part),
    );
    expectShares(ranks, one);
    const block = at(batch.shape, 1) * at(batch.shape, 2);
    const results = ranks.flatMap((rank) => rank.results);
    results.forEach(({ gradLogits, coefficients, losses }, i) => {
      const { indices } = parts[i] as (typeof parts)[number];
      const expected = rowsOf(one.gradLogits as Float32Array, block, indices);
      expect(sameBits(gradLogits as Float32Array, expected), 'gradient').toBe(true);
      expect([...coefficients]).toEqual(indices.map((s) => at(one.coefficients, s)));
      expect([...losses]).toEqual([...one.losses.subarray(at(ends, i), at(ends, i + 1))]);
    });
  });
});

describe('likelihood terms', () => {
  test.each(['sequence', 'token', 'mean'] as const)('sftReduction %s', async (sftReduction) => {
    const sft = dirAlignLoss('dpo', 0.1, false, { sftWeight: 0.3, sftReduction });
    const mix = mixLosses([
      { weight: 0.6, objective: sft },
      { weight: 0.4, objective: dirAlignLoss('simpo', 2) },
      { weight: 0.2, objective: dirAlignLoss('sft', undefined, false, { sftReduction }) },
    ]) as unknown as Objective;
    const { batch, parts } = partsOf('simpo', ends, 3, ['weights']);
    const given = parts.map(({ part, indices }) => {
      const { labels } = part as { readonly labels: Int32Array };
      // Labels of their own, that score other rows.
      const sftLabels = labels.map((label, i) => (i % 2 ? -100 : Math.abs(label) % 5));
      return { part: { ...(part as object), sftLabels }, indices };
    });
    const tokens = at(batch.shape, 1);
    const whole = new Int32Array(batch.labels.length);
    for (const { part, indices } of given)
      indices.forEach((s, i) => {
        whole.set(part.sftLabels.subarray(i * tokens, (i + 1) * tokens), s * tokens);
      });
    const one = mix({ ...batch, sftLabels: whole } as never);
    const ranks = await inWindow(
      mix,
      given.map(({ part }) => part),
    );
    expectShares(ranks, one);
    const { terms } = present(ranks[0]).finished as { terms: readonly { loss: number }[] };
    terms.forEach(({ loss }, i) => {
      expect(loss).toBeCloseTo(one.terms?.[i]?.loss ?? NaN, 13);
    });
  });
  test('of desirable sequences, beside kto', async () => {
    const { batch, parts } = partsOf('kto', ends, 4);
    const mix = mixLosses([
      { weight: 1, objective: dirAlignLoss('kto', 0.3) },
      { weight: 0.5, objective: dirAlignLoss({ method: 'sft', sftReduction: 'token' }) },
    ]) as unknown as Objective;
    const ranks = await inWindow(
      mix,
      parts.map(({ part }) => part),
    );
    expectShares(ranks, mix(batch as never));
  });
});

test.each(['dpo', 'kto', 'info_nca'] as const)('%s: metrics of rows', async (method) => {
  const objective = dirAlignLoss(configOf(method) as never) as Objective;
  const { batch, parts } = partsOf(method, ends);
  const metrics = ['entropy', 'mean_token_accuracy', 'logits/chosen'] as const;
  const run = { metrics: method === 'dpo' ? [...metrics, 'logits/rejected'] : metrics };
  const ranks = await inWindow(
    objective,
    parts.map(({ part }) => part),
    run,
  );
  expectShares(ranks, objective(batch as never, run as never));
});

test('nothing is exchanged over data between the opening and the end', async () => {
  let exchanges = 0;
  const counting = (communicator: Communicator): Communicator => ({
    ...communicator,
    allGather: (bytes) => {
      exchanges++;
      return communicator.allGather(bytes);
    },
  });
  const { parts } = partsOf('dpo', ends, 1, []);
  const before: number[] = [];
  await Promise.all(
    within(2).map(async (communicator, r) => {
      const own = parts.slice(r, 2).map(({ part }): never => part);
      const window = await dpo.window(countBatch(...own), { data: counting(communicator) });
      before.push(exchanges);
      for (const part of own) await dpo.async(part, { parallel: { window } });
      before.push(exchanges);
      await window.finish();
    }),
  );
  expect(new Set(before).size).toBe(1);
  expect(exchanges).toBeGreaterThan(at(before, 0));
});

test('an output layer over shards, its gradient accumulated', async () => {
  const [vocab, size, tokens] = [900, 8, 4];
  const batch = randomHidden({ seed: 4, sequences: 6, tokens, vocab, size });
  const one = dpo.fromHidden(batch) as never as Record<'gradWeight', Float32Array> & LossResult;
  const { hidden, labels, reference } = batch as never as Record<string, Float32Array>;
  /** Pairs of a micro-batch, of which three make the batch: the first has two. */
  const micro = [[0, 1], [2]].map((pairs) => {
    const sequences = [...pairs, ...pairs.map((p) => p + 3)];
    const cut = (array: Float32Array, block: number): Float32Array =>
      (array.constructor as Float32ArrayConstructor).from(
        sequences.flatMap((s) => [...array.subarray(s * block, (s + 1) * block)]),
      );
    return {
      hidden: cut(hidden as Float32Array, tokens * size),
      labels: cut(labels as Float32Array, tokens),
      reference: cut(reference as Float32Array, 1),
      sequences: sequences.length,
    };
  });
  const [columns, data] = [[0, 500, vocab], within(1)];
  const grads = await Promise.all(
    within(2).map(async (communicator, r) => {
      const [first, end] = [at(columns, r), at(columns, r + 1)];
      const { weight, bias } = batch as never as Record<string, Float32Array>;
      const own = micro.map(({ sequences, ...rest }) => ({
        ...rest,
        shape: [sequences, tokens, end - first],
        weight: weight?.slice(first * size, end * size),
        bias: bias?.slice(first, end),
        shard: { first, vocab },
      })) as never[];
      const window = await dpo.window(countBatch(...own), { data: data[0] });
      const gradWeight = new Float32Array((end - first) * size);
      for (const part of own)
        await dpo.fromHidden.async(part, {
          parallel: { vocab: communicator, window },
          out: { gradWeight },
          accumulate: true,
        } as never);
      const { loss } = await window.finish();
      expect(Math.abs(loss - one.loss)).toBeLessThan(1e-6 * one.loss);
      return gradWeight;
    }),
  );
  const misses = new Misses();
  const largest = Math.max(...one.gradWeight.map(Math.abs));
  const all = grads.flatMap((gradWeight) => [...gradWeight]);
  misses.each('gradWeight', all, one.gradWeight, () => 1e-6 * largest);
  expect(misses.list).toEqual([]);
});

test('tokens of sequences over ranks: the window brings its group', async () => {
  const [tokens, vocab] = [6, 21];
  const batch = randomBatch({ seed: 5, sequences: 4, tokens, vocab });
  const objective = dirAlignLoss('simpo', 2, true, { sftWeight: 0.4, sftReduction: 'token' });
  const one = objective(batch as never);
  const cut = (pair: number, q: number) => {
    const rows = [pair, pair + 2].flatMap((s) => [0, 1, 2].map((t) => s * tokens + 2 * t + q));
    return {
      shape: [2, 3, vocab] as const,
      labels: Int32Array.from(rows, (r) => at(batch.labels, r)),
      logits: rowsOf(batch.logits as Float32Array, vocab, rows),
    };
  };
  const finished = await Promise.all(
    within(2).map(async (sequence, q) => {
      const own = [cut(0, q), cut(1, q)];
      const window = await objective.window(countBatch(...own), { sequence });
      for (const part of own) await objective.async(part, { parallel: { window } });
      return window.finish();
    }),
  );
  expect(finished[0]).toEqual(finished[1]);
  expect(finished[0]?.loss).toBeCloseTo(one.loss, 12);
  expectNear(finished[0]?.metrics as never, one.metrics);
});

test('synchronous calls, without any ranks', async () => {
  const { batch, parts } = partsOf('dpo', ends, 1, []);
  const own = parts.map(({ part }): never => part);
  const window = await dpo.window(countBatch(...own));
  expect(window.units).toBe(7);
  const shares = own.map((part) => dpo(part, { parallel: { window } }).loss);
  const { loss } = await window.finish();
  expect(shares.reduce((a, b) => a + b)).toBe(loss);
  expect(loss).toBeCloseTo(dpo(batch as never).loss, 14);
});

describe('refusals', () => {
  const batch = randomBatch({ seed: 1, sequences: 4, tokens: 3, vocab: 9 });
  const counts = countBatch(batch);
  const refused = async (
    objective: { async(b: never, run: never): Promise<unknown> },
    given: object,
    parallel: object,
  ): Promise<unknown> =>
    rejection(objective.async({ ...batch, ...given } as never, { parallel } as never));

  test('calls that have not seen what was announced: on every rank', async () => {
    const errors = await Promise.all(
      within(2).map(async (data, r) => {
        const window = await dpo.window(countBatch(batch, batch), { data });
        for (let i = 0; i < 2 - r; i++) await dpo.async(batch, { parallel: { window } });
        return rejection(window.finish());
      }),
    );
    const { tokens } = counts;
    for (const error of errors) {
      expect(error).toMatchObject({ code: 'ERR_DIRALIGN_WINDOW', name: 'DirAlignError' });
      expect((error as Error).message).toBe(
        'window: its calls that have ended have seen 2 of 4 pairs on rank 1 of data, ' +
          `rank 0 of sequence; ${tokens} of ${2 * tokens} tokens on rank 1 of ` +
          'data, rank 0 of sequence',
      );
    }
  });
  test('a call that fails has seen nothing, and may be made again', async () => {
    const window = await dpo.window(counts);
    const labels = batch.labels.map(() => 9);
    expect(await refused(dpo, { labels }, { window })).toMatchObject({
      code: 'ERR_DIRALIGN_LABEL',
    });
    const { loss } = await dpo.async(batch, { parallel: { window } });
    expect((await window.finish()).loss).toBe(loss);
  });
  test('after its end', async () => {
    const window = await dpo.window({ ...counts, sequences: 0, tokens: 0 });
    expect((await window.finish()).loss).toBe(0);
    for (const error of [await refused(dpo, {}, { window }), await rejection(window.finish())])
      expect(error).toMatchObject({ code: 'ERR_DIRALIGN_WINDOW' });
  });
  test('methods that sort the batch, alone or in a mixture', async () => {
    for (const name of coupled) {
      const aot = dirAlignLoss(name as 'aot', 0.1);
      const mix = mixLosses([
        { weight: 1, objective: dpo },
        { weight: 1, objective: aot },
      ]);
      for (const objective of [aot, mix])
        expectRefusal(
          await rejection(objective.window(counts)),
          'TypeError OPTION',
          `window: '${name}' sorts the whole batch | use sequenceLogps, fromLogps`,
        );
    }
  });
  test('counts', async () => {
    for (const [given, kind, words] of [
      [undefined, 'TypeError OPTION', 'counts: expected what countBatch returned'],
      [{ ...counts, tokens: NaN }, 'RangeError OPTION', 'counts.tokens: NaN'],
      [{ ...counts, pairs: 2 }, 'TypeError OPTION', 'counts.pairs: no such option'],
      [{ ...counts, sequences: 3 }, 'RangeError SHAPE', '3 sequences'],
    ] as const)
      expectRefusal(await rejection(dpo.window(given as never)), kind, words);
    const [own, other] = await Promise.all(
      within(2).map((data, r) =>
        rejection(dpo.window({ ...counts, tokens: r ? -1 : 1 }, { data })),
      ),
    );
    expect(own).toMatchObject({ code: 'ERR_DIRALIGN_PEER' });
    expect((own as Error).message).toContain('counts.tokens: -1');
    expect(other).toMatchObject({ code: 'ERR_DIRALIGN_OPTION' });
  });
  test('ranks whose objectives or units differ', async () => {
    const settings = await Promise.all(
      within(2).map((data, r) => rejection(dirAlignLoss('dpo', 0.1 + r).window(counts, { data }))),
    );
    const units = await Promise.all(
      within(2).map((sequence, r) =>
        rejection(dpo.window({ ...counts, sequences: 4 + 2 * r }, { sequence })),
      ),
    );
    for (const error of [...settings, ...units])
      expect(error).toMatchObject({ code: 'ERR_DIRALIGN_DISAGREE' });
  });
  test('what does not go together', async () => {
    const window = await dpo.window(counts);
    const [data] = within(1);
    const [sequence] = within(1);
    for (const [given, parallel, words] of [
      [{}, { window: {} }, 'parallel.window: expected what objective.window resolved to'],
      [{}, { window, data }, 'parallel.data: not together with window'],
      [{}, { window, sequence }, 'parallel.sequence: the window was opened with another'],
      [{ denominator: 3 }, { window }, 'denominator: not in a window'],
    ] as const)
      expectRefusal(await refused(dpo, given, parallel), 'TypeError OPTION', words);
    expectRefusal(
      await refused(dirAlignLoss('ipo', 0.1), {}, { window }),
      'TypeError OPTION',
      "parallel.window: is one of 'dpo'",
    );
    expectRefusal(
      await rejection(dpo.window(counts, { vocab: data } as never)),
      'TypeError OPTION',
      'groups.vocab: no such option',
    );
    expectRefusal(
      thrownBy(() => dpo(batch, { parallel: { window: 3 } } as never)),
      'TypeError OPTION',
      'parallel.window',
    );
  });
  test('kto: a baseline is a number, and the same for all', async () => {
    const kto = dirAlignLoss('kto', 0.1);
    const given = { ...batch, desirable: [true, false, true, false] };
    const logps = Float64Array.of(-1, -2);
    const window = await kto.window(countBatch(given, given));
    const error = await refused(kto, { ...given, kl: { logps, reference: logps } }, { window });
    expectRefusal(error, 'TypeError OPTION', 'kl: in a window give a number');
    await kto.async({ ...given, kl: 0.25 }, { parallel: { window } });
    const other = await refused(kto, { ...given, kl: 0.5 }, { window });
    expectRefusal(other, 'TypeError OPTION', 'kl: 0.5 | had 0.25');
    await kto.async({ ...given, kl: 0.25 }, { parallel: { window } });
    expect((await window.finish()).metrics.kl).toBe(0.25);
    const ranks = await Promise.all(
      within(2).map(async (data, r) => {
        const own = await kto.window(countBatch(given), { data });
        await kto.async({ ...given, kl: r }, { parallel: { window: own } });
        return rejection(own.finish());
      }),
    );
    for (const each of ranks)
      expect(each).toMatchObject({
        code: 'ERR_DIRALIGN_DISAGREE',
        message: 'kl: 1 on rank 1 of data, 0 on others',
      });
  });
});

test('countBatch: of labels alone', () => {
  const batch = randomBatch({ seed: 1, sequences: 4, tokens: 6, vocab: 8 });
  const scored = (labels: Int32Array): number => labels.filter((label) => label !== -100).length;
  const { shape, labels } = batch;
  const tokens = scored(labels);
  const chosenTokens = scored(labels.subarray(0, 12));
  const own = { sequences: 4, groups: 0, tokens, chosenTokens, desirableTokens: tokens };
  expect(countBatch(batch)).toEqual(own);
  expect(countBatch({ shape, labels }, batch)).toEqual(
    Object.fromEntries(Object.entries(own).map(([name, n]) => [name, 2 * n])),
  );
  // Packed, with everything that counts otherwise.
  const counts = countBatch({
    shape: [5, 9],
    offsets: Int32Array.of(0, 2, 2, 5),
    labels: Int32Array.of(1, 7, 7, 1, 1),
    sftLabels: Int32Array.of(7, 1, 1, 1, 7),
    ignoreIndex: 7,
    tokenWeights: Float64Array.of(1, 2, 4, 8, 16),
    groups: Int32Array.of(0, 1, 3),
    desirable: [true, true, false],
  });
  expect(counts).toEqual({
    sequences: 3,
    groups: 2,
    tokens: 3,
    chosenTokens: 2,
    desirableTokens: 2,
  });
});
