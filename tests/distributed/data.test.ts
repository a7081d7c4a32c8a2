// Units of a batch, and tokens of its sequences, over ranks.
import { describe, expect, test } from 'vitest';
import { dirAlignLoss, mixLosses, type Objective } from '../../ts/index.js';
import { randomBatch } from '../support/batches.js';
import { configOf, familyMethods } from '../support/family-batches.js';
import { at, sameBits } from '../support/numbers.js';
import { expectOwnRows, partsOf, rowsOf } from '../support/data-ranks.js';
import { differences, within } from '../support/ranks.js';

const metrics = ['entropy', 'logits/chosen'] as const;

// Local means of ranks with different numbers of units, sorts of a part, coefficients from place 0.
describe.each(familyMethods)('%s: the bits of one process', (method) => {
  const objective = dirAlignLoss(configOf(method) as never) as Objective;
  const isCoupled = method === 'aot' || method === 'aot_unpaired';
  const ends = [0, 1, 4, 4, 8];

  test.each(['dense', 'factored'] as const)('gradient %s', async (gradient) => {
    const { batch, parts } = partsOf(method, ends);
    const one = objective(batch as never, { gradient }) as never as Record<string, Float64Array>;
    const communicators = within(parts.length);
    const ranks = await Promise.all(
      parts.map(({ part }, r) =>
        objective.async(part, { gradient, parallel: { data: communicators[r] } }),
      ),
    );
    const block = at(batch.shape, 1) * at(batch.shape, 2);
    for (const [r, result] of ranks.entries()) {
      const own = result as never as Record<string, Float64Array>;
      const { indices } = parts[r] as (typeof parts)[number];
      expect(differences(own, one, ['loss', 'metrics'])).toEqual([]);
      for (const name of ['logps', 'rewards', 'coefficients'])
        expect([...(own[name] ?? [])]).toEqual(indices.map((s) => at(one[name] ?? [], s)));
      const losses = isCoupled ? one.losses : one.losses?.subarray(at(ends, r), at(ends, r + 1));
      expect(sameBits(own.losses as never, losses as never), 'losses').toBe(true);
      const mine = own.gradLogits as never as Float32Array;
      expect(sameBits(mine, rowsOf(one.gradLogits as never, block, indices)), 'gradient').toBe(
        true,
      );
    }
  });
});

test('likelihood terms: a mean over tokens is of all ranks', async () => {
  for (const sftReduction of ['token', 'sequence', 'mean'] as const) {
    const dpo = dirAlignLoss('dpo', 0.1, false, { sftWeight: 0.3, sftReduction });
    const simpo = dirAlignLoss('simpo', 2);
    const mix = mixLosses([
      { weight: 0.6, objective: dpo },
      { weight: 0.4, objective: simpo },
    ]);
    const { batch, parts } = partsOf('simpo', [0, 2, 5], 1, ['weights']);
    const one = mix(batch as never);
    const communicators = within(2);
    const ranks = await Promise.all(
      parts.map(({ part }, r) => mix.async(part, { parallel: { data: communicators[r] } })),
    );
    for (const result of ranks) expect(differences(result, one, ['loss', 'metrics'])).toEqual([]);
  }
});

test('kto: the baseline of mismatched completions is of all ranks', async () => {
  const { batch, parts } = partsOf('kto', [0, 3, 4, 7]);
  const kto = dirAlignLoss(configOf('kto') as never) as Objective;
  const logps = [-1, -2.5, -3, -1.25, -7, -2];
  const reference = [-1.5, -3, -3.5, -1.5, -8, -1];
  const mismatched = [
    [0, 2],
    [2, 3],
    [3, 6],
  ].map(([from, to]) => ({ logps: logps.slice(from, to), reference: reference.slice(from, to) }));
  const one = kto({ ...batch, kl: { logps, reference } } as never);
  expect(one.metrics).toHaveProperty('kl');
  const communicators = within(3);
  const ranks = await Promise.all(
    parts.map(({ part }, r) =>
      kto.async({ ...(part as object), kl: mismatched[r] } as never, {
        parallel: { data: communicators[r] },
      }),
    ),
  );
  for (const result of ranks) expect(differences(result, one, ['loss', 'metrics'])).toEqual([]);
});

test('metrics of rows are of all ranks, within rounding', async () => {
  const { batch, parts } = partsOf('dpo', [0, 1, 4]);
  const dpo = dirAlignLoss(configOf('dpo') as never) as Objective;
  const one = dpo(batch as never, { metrics: metrics as never });
  const communicators = within(2);
  const ranks = await Promise.all(
    parts.map(({ part }, r) =>
      dpo.async(part, {
        metrics: metrics as never,
        parallel: { data: communicators[r] },
      }),
    ),
  );
  for (const name of metrics) {
    const expected = (one.metrics as never as Record<string, number>)[name] ?? NaN;
    for (const result of ranks)
      expect((result.metrics as never as Record<string, number>)[name]).toBeCloseTo(expected, 12);
  }
});

describe('tokens of sequences over ranks', () => {
  const vocab = 33;
  const tokens = 7;
  const batch = randomBatch({ seed: 9, sequences: 4, tokens, vocab });
  /** Zigzag: the rows of a sequence may be dealt out in any way. */
  const rowsOfRank = [
    [0, 3, 6],
    [1, 2, 4, 5],
  ];
  const cut = (rank: number) => {
    const own = rowsOfRank[rank] ?? [];
    const rows = [0, 1, 2, 3].flatMap((s) => own.map((t) => s * tokens + t));
    return {
      ...batch,
      shape: [4, own.length, vocab] as const,
      labels: Int32Array.from(rows, (r) => at(batch.labels, r)),
      logits: rowsOf(batch.logits as Float32Array, vocab, rows),
    };
  };

  test.each([
    dirAlignLoss('dpo', 0.1),
    dirAlignLoss('simpo', 2, true, { sftWeight: 0.4, sftReduction: 'token' }),
    dirAlignLoss('sft'),
    dirAlignLoss('aot', 0.1),
  ] as unknown as Objective[])('$method', async (objective) => {
    const one = objective(batch);
    const communicators = within(2);
    const ranks = await Promise.all(
      [0, 1].map((r) => objective.async(cut(r), { parallel: { sequence: communicators[r] } })),
    );
    for (const [rank, result] of ranks.entries()) {
      expect(Math.abs(result.loss - one.loss)).toBeLessThan(1e-14 * Math.abs(one.loss));
      expect([...result.counts]).toEqual([...one.counts]);
      result.logps.forEach((x, s) => {
        expect(Math.abs(x - at(one.logps, s))).toBeLessThan(14 * 2 ** -53 * Math.abs(x));
      });
      expectOwnRows(
        result.gradLogits,
        one.gradLogits,
        rowsOfRank[rank] ?? [],
        { tokens, vocab },
        1e-6,
      );
    }
    expect(differences(ranks[0] as object, ranks[1] as object)).toEqual([]);
  });

  test('with shards of the vocabulary and other units beside: eight ranks', async () => {
    const dpo = dirAlignLoss('dpo', 0.1);
    const one = dpo(batch);
    const groups = [0, 1, 2, 3].map(() => ({
      vocab: within(2),
      sequence: within(2),
      data: within(2),
    }));
    const calls = [];
    for (const [d, q, v] of [0, 1].flatMap((a) =>
      [0, 1].flatMap((b) => [0, 1].map((c) => [a, b, c] as const)),
    )) {
      const own = rowsOfRank[q] ?? [];
      const sequences = [d, d + 2]; // pair d
      const rows = sequences.flatMap((s) => own.map((t) => s * tokens + t));
      const first = v === 0 ? 0 : 20;
      const columns = v === 0 ? 20 : vocab - 20;
      const logits = rowsOf(batch.logits as Float32Array, vocab, rows);
      calls.push(
        dpo.async(
          {
            shape: [2, own.length, columns],
            labels: Int32Array.from(rows, (r) => at(batch.labels, r)),
            reference: Float64Array.from(sequences, (s) => at(batch.reference, s)),
            logits: Float32Array.from({ length: rows.length * columns }, (_, i) =>
              at(logits, Math.floor(i / columns) * vocab + first + (i % columns)),
            ),
            shard: { first, vocab },
          },
          {
            parallel: {
              vocab: groups[2 * d + q]?.vocab[v],
              sequence: groups[2 * d + v]?.sequence[q],
              data: groups[2 * q + v]?.data[d],
            },
          },
        ),
      );
    }
    const ranks = await Promise.all(calls);
    for (const result of ranks) {
      expect(result.loss).toBe(ranks[0]?.loss);
      expect(Math.abs(result.loss - one.loss)).toBeLessThan(1e-7);
      expect(differences(result, ranks[0] as object, ['metrics'])).toEqual([]);
    }
  });
});
