// Log-probabilities among ranks, the loss of them, and its gradient: for batches that no call has.
import { describe, expect, test } from 'vitest';
import {
  dirAlignLoss,
  logpsBackward,
  sequenceLogps,
  tokenLogps,
  type Objective,
  type SequenceLogps,
} from '../../ts/index.js';
import { randomBatch } from '../support/batches.js';
import { Misses } from '../support/bounds.js';
import {
  configOf,
  familyLogps,
  familyMethods,
  allFields,
  unitsBetween,
} from '../support/family-batches.js';
import { randomHidden } from '../support/hidden.js';
import { at, sameBits } from '../support/numbers.js';
import { boundaries, cutColumns, differences, joinColumns, within } from '../support/ranks.js';
import { rowsOf } from '../support/data-ranks.js';
import { expectRefusal, rejection, thrownBy } from '../support/refusal.js';

const vocab = 1700;
const [sequences, tokens] = [4, 5];
const rows = sequences * tokens;
const batch = randomBatch({ seed: 3, sequences, tokens, vocab, peaked: true });
const given = {
  ...batch,
  tokenWeights: Float64Array.from({ length: rows }, (_, r) => 0.5 + r / 9),
};
const columnGrid = 512;

/** What each rank of vocab has of logits. */
function logitsOf(cuts: readonly number[], rank: number, from = given) {
  const [first, end] = [at(cuts, rank), at(cuts, rank + 1)];
  const logits = cutColumns(from.logits as Float32Array<ArrayBuffer>, vocab, first, end - first);
  const [s, t] = from.shape;
  return { ...from, logits, shape: [s, t, end - first] as never, shard: { first, vocab } };
}
type Parallels = readonly { readonly vocab: never; readonly columnGrid: number | undefined }[];
/** A call on every rank of vocab, whose arrays of rows or sequences must be the same. */
async function overRanks<Result extends object>(
  size: number,
  grid: number | undefined,
  call: (own: ReturnType<typeof logitsOf>, parallel: Parallels[number]) => Promise<Result>,
  from?: object,
): Promise<Result[]> {
  const cuts = boundaries(vocab, size, size > 2, grid ?? 1);
  return Promise.all(
    within(size).map((communicator, rank) =>
      call(logitsOf(cuts, rank, from as typeof given), {
        vocab: communicator as never,
        columnGrid: grid,
      }),
    ),
  );
}
function expectNear(actual: ArrayLike<number>, expected: ArrayLike<number>, by: number): void {
  const misses = new Misses();
  const largest = Math.max(...Array.from(expected, Math.abs));
  misses.each('numbers', actual, expected, () => by * largest);
  expect(misses.list).toEqual([]);
}

describe('over columns', () => {
  const names = ['logps', 'logsumexp', 'entropy', 'counts', 'logCollision'];
  const collision = true;
  test('tokenLogps and sequenceLogps', async () => {
    const ofTokens = { ...given, tokenWeights: undefined };
    const gridded = [
      tokenLogps(ofTokens, { collision, parallel: { columnGrid } }),
      sequenceLogps(given, { parallel: { columnGrid } }),
    ] as const;
    const plain = tokenLogps(ofTokens, { collision });
    expectNear(gridded[0].entropy, plain.entropy, 1e-6);
    expectNear(gridded[0].logCollision, plain.logCollision, 1e-6);
    expectNear(gridded[1].logps, sequenceLogps(given).logps, 1e-6);
    for (const size of [1, 2, 4])
      for (const grid of [undefined, columnGrid]) {
        const all = [
          await overRanks(size, grid, (own, parallel) =>
            tokenLogps.async({ ...own, tokenWeights: undefined }, { collision, parallel }),
          ),
          await overRanks(size, grid, (own, parallel) => sequenceLogps.async(own, { parallel })),
        ];
        all.forEach((ranks, i) => {
          for (const one of ranks) expect(differences(one, ranks[0] as object, names)).toEqual([]);
          if (grid !== undefined)
            expect(differences(ranks[0] as object, gridded[i] as object, names)).toEqual([]);
          else
            expectNear(ranks[0]?.logps ?? [], (gridded[i] as { logps: Float64Array }).logps, 1e-6);
        });
      }
  });

  // Squares relative to a shard's anchor that are not moved to the row's; a label that no rank, or
  // every rank, adds; -inf alone in a shard.
  test.each([{}, { logitSoftcap: 3, temperature: 0.7 }])('the collision, %o', async (transform) => {
    const logits = Float32Array.from(batch.logits as Float32Array, (x, i) => {
      const [row, word] = [Math.floor(i / vocab), i % vocab];
      return row === 1 && word < vocab / 2
        ? -Infinity
        : row === 2
          ? 40 * x
          : x + (word > 900 ? 9 : 0);
    });
    const ofTokens = { ...given, ...transform, logits, tokenWeights: undefined };
    const expected = Array.from({ length: rows }, (_, row) => {
      if (batch.labels[row] === -100) return 0;
      const values = [...logits.subarray(row * vocab, (row + 1) * vocab)].map((x) =>
        'logitSoftcap' in transform && x > -Infinity ? (3 * Math.tanh(x / 3)) / 0.7 : x,
      );
      const top = Math.max(...values);
      const sum = (k: number) => values.reduce((s, x) => s + Math.exp(k * (x - top)), 0);
      return Math.log(sum(2)) - 2 * Math.log(sum(1));
    });
    for (const grid of [undefined, columnGrid])
      for (const size of [1, 2, 4]) {
        const ranks = await overRanks(
          size,
          grid,
          (own, parallel) => tokenLogps.async(own, { collision, parallel }),
          ofTokens,
        );
        for (const { logCollision } of ranks) expectNear(logCollision, expected, 1e-6);
      }
  });

  test.each(['sequences', 'rows', 'entropy', 'forward'] as const)(
    'logpsBackward of %s',
    async (what) => {
      const wave = (length: number) => Float64Array.from({ length }, (_, i) => Math.sin(1 + i));
      const whole = what === 'sequences' ? given : { ...given, tokenWeights: undefined };
      const derivatives =
        what === 'sequences'
          ? { sequences: wave(sequences) }
          : what === 'entropy'
            ? { rows: wave(rows), entropy: wave(rows).map((x) => -x) }
            : { rows: wave(rows) };
      const one = logpsBackward(whole, derivatives, { parallel: { columnGrid } });
      for (const size of [2, 4]) {
        const cuts = boundaries(vocab, size, size > 2, columnGrid);
        const ranks = await overRanks(size, columnGrid, async (own, parallel) => {
          const mine = { ...own, tokenWeights: whole.tokenWeights };
          const forward =
            what === 'forward' ? await tokenLogps.async(mine, { parallel }) : undefined;
          return logpsBackward.async(mine, { ...derivatives, forward }, { parallel });
        });
        const shards = ranks.map(({ gradLogits }, r) => ({
          gradient: gradLogits,
          first: at(cuts, r),
          columns: at(cuts, r + 1) - at(cuts, r),
        }));
        const joined = joinColumns(shards, vocab, rows);
        // What is known of a row has been rounded once more.
        if (what === 'forward') expectNear(joined, one.gradLogits, 1e-6);
        else expect(sameBits(joined, one.gradLogits as Float32Array)).toBe(true);
      }
    },
  );

  test('logpsBackward of an output layer, with and without what is known', async () => {
    const size = 8;
    const layer = randomHidden({ seed: 2, sequences, tokens, vocab, size, bias: false });
    const { hidden, weight, labels } = layer as never as Record<string, Float32Array>;
    const whole = { hidden, weight, labels, shape: [sequences, tokens, vocab] } as never;
    const derivatives = { sequences: Float64Array.of(1, -2, 0, 0.5) };
    const one = logpsBackward(whole, derivatives) as never as Record<string, Float32Array>;
    for (const known of [false, true])
      for (const gradHidden of ['sum', 'partial'] as const) {
        const cuts = boundaries(vocab, 3);
        const ranks = await Promise.all(
          within(3).map(async (communicator, r) => {
            const [first, end] = [at(cuts, r), at(cuts, r + 1)];
            const own = {
              ...(whole as object),
              weight: weight?.slice(first * size, end * size),
              shape: [sequences, tokens, end - first],
              shard: { first, vocab },
            } as never;
            const parallel = { vocab: communicator };
            const forward = known ? await tokenLogps.async(own, { parallel }) : undefined;
            const run = { parallel: { ...parallel, gradHidden } };
            return (await logpsBackward.async(own, { ...derivatives, forward }, run)) as never;
          }),
        );
        const grads = ranks as Record<string, Float32Array>[];
        const joined = grads.flatMap(({ gradWeight = [] }) => [...gradWeight]);
        expectNear(joined, one.gradWeight ?? [], 1e-6);
        const [first] = grads as [Record<string, Float32Array>];
        const sum = first.gradHidden?.map((x, i) =>
          gradHidden === 'sum' ? x : grads.reduce((s, g) => s + at(g.gradHidden ?? [], i), 0),
        );
        expectNear(sum ?? [], one.gradHidden ?? [], 1e-6);
      }
  });
});

test('sequenceLogps over tokens: of whole sequences', async () => {
  const own = [
    [0, 3],
    [1, 2, 4],
  ];
  const whole = sequenceLogps(given);
  const ranks = await Promise.all(
    within(2).map((sequence, q) => {
      const ofRank = (own[q] ?? []).length;
      const mine = Array.from({ length: sequences }, (_, s) => s).flatMap((s) =>
        (own[q] ?? []).map((t) => s * tokens + t),
      );
      return sequenceLogps.async(
        {
          shape: [sequences, ofRank, vocab],
          labels: Int32Array.from(mine, (r) => at(given.labels, r)),
          tokenWeights: Float64Array.from(mine, (r) => at(given.tokenWeights, r)),
          logits: rowsOf(given.logits as Float32Array, vocab, mine),
        },
        { parallel: { sequence } },
      );
    }),
  );
  expect(differences(ranks[0] as object, ranks[1] as object, ['logps', 'counts'])).toEqual([]);
  expect([...(ranks[0]?.counts ?? [])]).toEqual([...whole.counts]);
  expectNear(ranks[0]?.logps ?? [], whole.logps, 10 * 2 ** -53);
});

// Local means, sorts of a part, and a rank without units.
describe.each(familyMethods)('%s: fromLogps over data has the bits of one process', (method) => {
  test.each([
    [0, 1, 4, 4, 8],
    [0, 0, 8],
  ])('cut at %i, %i, %i', async (...cuts) => {
    const objective = dirAlignLoss(configOf(method) as never) as Objective;
    const names = allFields(method).filter((name) => name !== 'denominator');
    const whole = familyLogps(1, method, 8, names);
    const one = objective.fromLogps(whole as never, { gradientScale: 3 });
    const ranks = await Promise.all(
      within(cuts.length - 1).map(async (data, r) => {
        const between = [at(cuts, r), at(cuts, r + 1)] as const;
        const { part, indices } = unitsBetween(whole, method, whole.logps.length, between);
        const run = { gradientScale: 3, parallel: { data } };
        return { result: await objective.fromLogps.async(part as never, run), indices, between };
      }),
    );
    const isCoupled = method === 'aot' || method === 'aot_unpaired';
    for (const { result, indices, between } of ranks) {
      expect(differences(result, one, ['loss', 'metrics'])).toEqual([]);
      for (const name of ['gradLogps', 'rewards'] as const)
        expect([...result[name]]).toEqual(indices.map((s) => at(one[name], s)));
      const losses = isCoupled ? one.losses : one.losses.subarray(...between);
      expect([...result.losses]).toEqual([...losses]);
    }
  });
});

test('fromLogps of kto: the baseline is that of all ranks', async () => {
  const kto = dirAlignLoss('kto', 0.1);
  const own = (r: number) => ({
    logps: Float64Array.of(-3 - r, -4),
    counts: Int32Array.of(3, 4),
    reference: Float64Array.of(-3.5, -4 - r),
    desirable: [true, false],
    kl: { logps: Float64Array.of(-1 + r), reference: Float64Array.of(-2) },
  });
  const ranks = await Promise.all(
    within(2).map((data, r) => kto.fromLogps.async(own(r), { parallel: { data } })),
  );
  for (const { metrics } of ranks) expect(metrics.kl).toBe(1.5);
});

// What a sort of the whole batch needs, where no call has the whole batch.
test.each(['aot', 'aot_unpaired', 'dpo'] as const)(
  '%s: two passes over micro-batches have the bits of one call',
  async (method) => {
    const objective = dirAlignLoss(method, 0.3, true) as Objective;
    const pairs = 6;
    const whole = randomBatch({ seed: 8, sequences: 2 * pairs, tokens, vocab, peaked: true });
    const block = tokens * vocab;
    const cuts = boundaries(vocab, 2, false, columnGrid);
    /** The pairs of a rank of data, as two micro-batches or as one. */
    const ofPairs = (own: readonly number[]) => {
      const all = [...own, ...own.map((p) => p + pairs)];
      return {
        logits: rowsOf(whole.logits as Float32Array, block, all),
        labels: Int32Array.from(
          all.flatMap((s) => [...whole.labels.subarray(s * tokens, (s + 1) * tokens)]),
        ),
        reference: Float64Array.from(all, (s) => at(whole.reference, s)),
        shape: [all.length, tokens, vocab] as const,
      };
    };
    const groups = [0, 1].map(() => ({ vocab: within(2), data: within(2) }));
    await Promise.all(
      [0, 1, 2, 3].map(async (rank) => {
        const [d, v] = [Math.floor(rank / 2), rank % 2];
        const columns = { vocab: groups[d]?.vocab[v], columnGrid };
        const data = groups[v]?.data[d];
        const micro = (d === 0 ? [[0], [1, 2, 3]] : [[4, 5], []]).map((own) => ({
          pairs: own,
          batch: logitsOf(cuts, v, ofPairs(own) as never),
        }));
        const passes: SequenceLogps[] = [];
        for (const one of micro)
          passes.push(await sequenceLogps.async(one.batch, { parallel: columns }));
        // The chosen of all micro-batches, then the rejected.
        const half = (array: Float64Array | Int32Array, h: number): number[] => [
          ...array.subarray((h * array.length) / 2, ((h + 1) * array.length) / 2),
        ];
        const joined = (of: (i: number) => Float64Array | Int32Array): number[] =>
          [0, 1].flatMap((h) => micro.flatMap((_, i) => half(of(i), h)));
        const { loss, gradLogps } = await objective.fromLogps.async(
          {
            logps: Float64Array.from(joined((i) => passes[i]?.logps as Float64Array)),
            counts: Int32Array.from(joined((i) => passes[i]?.counts as Int32Array)),
            reference: Float64Array.from(joined((i) => micro[i]?.batch.reference as Float64Array)),
          },
          { parallel: { data } },
        );
        const all = logitsOf(cuts, v, ofPairs(micro.flatMap((one) => one.pairs)) as never);
        const one = await objective.async(all, { parallel: { ...columns, data } });
        expect(loss).toBe(one.loss);
        let from = 0;
        const count = gradLogps.length / 2;
        const expected = one.gradLogits as Float32Array;
        for (const { pairs: own, batch: part } of micro) {
          const places = [...own.keys()].map((i) => from + i);
          const indices = [...places, ...places.map((i) => i + count)];
          from += own.length;
          const { gradLogits } = await logpsBackward.async(
            part,
            { sequences: Float64Array.from(indices, (i) => at(gradLogps, i)) },
            { parallel: columns },
          );
          const width = expected.length / all.labels.length;
          const mine = rowsOf(expected, tokens * width, indices);
          expect(sameBits(gradLogits as Float32Array, mine)).toBe(true);
        }
      }),
    );
  },
);

describe('refusals', () => {
  const [alone] = within(1);
  const sums = { logps: Float64Array.of(-1, -2), counts: Int32Array.of(1, 1) };
  const simpo = dirAlignLoss('simpo', 2);
  test('what means nothing to a call', () => {
    for (const [call, words] of [
      [() => sequenceLogps(batch, { parallel: { data: alone } } as never), 'data: sequenceLogps'],
      [() => tokenLogps(batch, { parallel: { sequence: alone } } as never), 'sequence: tokenLogps'],
      [
        () => logpsBackward(batch, { rows: new Float64Array(rows) }, { parallel: { data: alone } }),
        'data: logpsBackward',
      ],
      [() => simpo.fromLogps(sums, { parallel: { vocab: alone } } as never), 'vocab: fromLogps'],
      [() => simpo.fromLogps(sums, { parallel: { window: {} } } as never), 'window: fromLogps'],
    ] as const)
      expectRefusal(thrownBy(call), 'TypeError OPTION', `parallel.${words} gives it no meaning`);
    expectRefusal(
      thrownBy(() => sequenceLogps(batch, { signal: AbortSignal.abort() })),
      'TypeError OPTION',
      'use sequenceLogps.async',
    );
  });
  test('synchronous calls by a transport of JavaScript', () => {
    for (const call of [
      () => sequenceLogps(batch, { parallel: { vocab: alone } }),
      () => simpo.fromLogps(sums, { parallel: { data: alone } }),
    ])
      expectRefusal(thrownBy(call), 'TypeError OPTION', 'needs communicators of mpi()');
  });
  test('shards that are not the whole vocabulary', () => {
    const shard = { first: 0, vocab: vocab + 1 };
    for (const call of [
      () => sequenceLogps({ ...batch, shard }),
      () => tokenLogps({ ...batch, shard }),
      () => logpsBackward({ ...batch, shard }, { sequences: new Float64Array(sequences) }),
    ])
      expect(thrownBy(call)).toMatchObject({ code: 'ERR_DIRALIGN_SHARD' });
  });
  test('derivatives, settings and calls that differ', async () => {
    const differing = [
      overRanks(
        2,
        undefined,
        (own, parallel) =>
          rejection(
            tokenLogps.async(
              { ...own, tokenWeights: undefined },
              { collision: own.shard.first > 0, parallel },
            ),
          ) as Promise<Error>,
      ),
      overRanks(
        2,
        undefined,
        (own, parallel) =>
          rejection(
            logpsBackward.async(
              own,
              { sequences: new Float64Array(sequences).fill(own.shard.first) },
              { parallel },
            ),
          ) as Promise<Error>,
      ),
      overRanks(
        2,
        undefined,
        (own, parallel) =>
          rejection(
            own.shard.first > 0
              ? sequenceLogps.async(own, { parallel })
              : tokenLogps.async({ ...own, tokenWeights: undefined }, { parallel }),
          ) as Promise<Error>,
      ),
      Promise.all(
        within(2).map((data, r) =>
          rejection(dirAlignLoss('simpo', 1 + r).fromLogps.async(sums, { parallel: { data } })),
        ),
      ),
    ];
    for (const errors of await Promise.all(differing))
      for (const error of errors) expect(error).toMatchObject({ code: 'ERR_DIRALIGN_DISAGREE' });
  });
  test('a rank that refuses', async () => {
    const errors = await Promise.all(
      within(2).map((data, r) =>
        rejection(
          simpo.fromLogps.async(
            { ...sums, counts: Int32Array.of(1, r || -1) },
            { parallel: { data } },
          ),
        ),
      ),
    );
    expect(errors).toMatchObject([
      { code: 'ERR_DIRALIGN_SHAPE' },
      { code: 'ERR_DIRALIGN_PEER', message: expect.stringContaining('counts: -1') as string },
    ]);
  });
});

test('off the event loop, without ranks: the same bits, and an abort', async () => {
  const names = ['logps', 'counts'];
  expect(differences(await sequenceLogps.async(given), sequenceLogps(given), names)).toEqual([]);
  const ofTokens = { ...given, tokenWeights: undefined };
  const later = await tokenLogps.async(ofTokens, { collision: true });
  const tokenNames = ['logps', 'logsumexp', 'entropy', 'logCollision'];
  expect(differences(later, tokenLogps(ofTokens, { collision: true }), tokenNames)).toEqual([]);
  const error = await rejection(sequenceLogps.async(given, { signal: AbortSignal.abort() }));
  expect(error).toMatchObject({ code: 'ERR_DIRALIGN_ABORTED' });
});
