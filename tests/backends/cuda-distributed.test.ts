// Calls among processes from device memory: ranks of one process, each with a part of the batch on
// the device.
import { afterAll, describe, expect, test } from 'vitest';
import { cuda, dirAlignLoss, tokenLogps, type Objective } from '../../ts/index.js';
import type { Communicator } from '../../ts/distributed/index.js';
import { dtypes, randomBatch } from '../support/batches.js';
import { Misses } from '../support/bounds.js';
import { places } from '../support/calls.js';
import { build, checkGradient, checkNumbers, makeBatch, packed } from '../support/cases.js';
import { inputs, Coverage } from '../support/every-case.js';
import { compilePackage } from '../support/compiled.js';
import { Copy } from '../support/device.js';
import { expectDevice } from '../support/expect-device.js';
import { configOf } from '../support/family-batches.js';
import { launch, launchers } from '../support/launchers.js';
import { at, sameBits } from '../support/numbers.js';
import { expectOwnRows, partsOf, rowsOf } from '../support/data-ranks.js';
import {
  boundaries,
  cutColumns,
  differences,
  onDevice,
  edgesOfShards,
  overVocab,
  within,
  type Compute,
} from '../support/ranks.js';
import { rejection } from '../support/refusal.js';

expectDevice();
const dpo = dirAlignLoss('dpo', 0.1);
const device = onDevice();
const isEmulated = cuda.available && (cuda.devices()[0]?.name.includes('mulat') ?? false);

describe.runIf(cuda.available)('columns of the vocabulary', () => {
  const ran = new Coverage();
  test.each(inputs)('%s over 2 and 3 shards', async (_, input) => {
    const misses = new Misses();
    for (const [i, c] of ran.cases(input, 'vocab').entries()) {
      if (i % 11 > 0) continue;
      const size = i % 2 === 0 ? 2 : 3;
      const place = places[i % 3] ?? 'fresh';
      const cuts = boundaries(input.V, size, size > 2);
      const compute = onDevice({ place, shift: i % 5 });
      const result = await overVocab(build(c), makeBatch(c), cuts, {}, i % 4, compute);
      checkNumbers(misses, c, result, 'cuda');
      checkGradient(misses, c, result.gradLogits);
    }
    expect(misses.list).toEqual([]);
  });

  // A merge that depends on how many ranks there are, a part across a line of the grid, or an entry
  // of a label that two shards write.
  test.each(dtypes)('%s: a grid gives the same bits for any number of ranks', async (dtype) => {
    const vocab = 9000;
    const batch = randomBatch({ seed: 1, sequences: 4, tokens: 2, vocab, dtype, peaked: true });
    const metrics = ['entropy', 'mean_token_accuracy', 'logits/chosen'] as const;
    for (const columnGrid of dtype === 'float32' ? [1024, 3072] : [2048, 6144]) {
      const run = { metrics, columnGrid };
      const one = await overVocab(dpo, batch, [0, vocab], run, 0, device);
      for (const size of [2, 4]) {
        const cuts = boundaries(vocab, size, size === 4, columnGrid);
        const many = await overVocab(dpo, batch, cuts, run, 0, device);
        expect(differences(many, one)).toEqual([]);
        expect(sameBits(many.gradLogits, one.gradLogits)).toBe(true);
      }
    }
  });

  // Squares of a device's parts that are not moved to the row's largest logit.
  test.each([{}, { logitSoftcap: 3, temperature: 0.7 }])(
    'tokenLogps with the collision, %o',
    async (transform) => {
      const vocab = 9000;
      const random = randomBatch({ seed: 5, sequences: 2, tokens: 3, vocab, peaked: true });
      const batch = { ...random, ...transform };
      const names = ['logps', 'logsumexp', 'entropy', 'logCollision'] as const;
      const host = tokenLogps(batch, { collision: true });
      for (const columnGrid of [undefined, 1024])
        for (const size of [1, 2, 3]) {
          const cuts = boundaries(vocab, size, size > 2, columnGrid);
          const ranks = await Promise.all(
            within(size).map(async (communicator, rank) => {
              const [first, end] = [at(cuts, rank), at(cuts, rank + 1)];
              const own = batch.logits as Float32Array<ArrayBuffer>;
              using logits = new Copy(cutColumns(own, vocab, first, end - first));
              const shape = [2, 3, end - first] as const;
              const given = { ...batch, logits: logits.tensor, shape, shard: { first, vocab } };
              const parallel = { vocab: communicator, columnGrid };
              return await tokenLogps.async(given, { collision: true, parallel });
            }),
          );
          for (const one of ranks) {
            expect(differences(one, ranks[0] as object, names)).toEqual([]);
            const misses = new Misses();
            for (const name of names)
              misses.each(name, one[name], host[name], (x) => 1e-5 * Math.max(1, Math.abs(x)));
            expect(misses.list).toEqual([]);
          }
        }
    },
  );

  // A rank's columns are several parts, with a grid and without.
  test('long rows', async () => {
    const vocab = 33_000;
    const batch = randomBatch({ seed: 8, sequences: 2, tokens: 1, vocab, peaked: true });
    const columnGrid = 11 * 1024;
    const one = await overVocab(dpo, batch, [0, vocab], { columnGrid }, 0, device);
    const cuts = [0, columnGrid, vocab];
    const many = await overVocab(dpo, batch, cuts, { columnGrid }, 0, device);
    expect(differences(many, one)).toEqual([]);
    expect(sameBits(many.gradLogits, one.gradLogits)).toBe(true);
    const plain = dpo(batch);
    for (const given of [one, await overVocab(dpo, batch, [0, 10_000, vocab], {}, 0, device)])
      expect(Math.abs(given.loss - plain.loss)).toBeLessThan(1e-6 * plain.loss);
  });

  test('the numbers are those of the CPU, and ranks of both go together', async () => {
    const vocab = 2500;
    const batch = randomBatch({ seed: 2, sequences: 4, tokens: 3, vocab, peaked: true });
    const cuts = boundaries(vocab, 3, true);
    const metrics = ['entropy', 'mean_token_accuracy', 'logits/chosen'] as const;
    const host: Compute = (objective, own, run) => objective.async(own, run);
    const mixed: Compute = (objective, own, run, rank) =>
      (rank === 0 ? host : device)(objective, own, run, rank);
    const run = { metrics };
    const one = dpo(batch, run);
    for (const compute of [device, mixed]) {
      const many = await overVocab(dpo, batch, cuts, run, 0, compute);
      const misses = new Misses();
      misses.each('loss', [many.loss], [one.loss], (x) => 1e-7 * Math.abs(x));
      for (const name of metrics)
        misses.near(
          name,
          many.metrics[name],
          one.metrics[name],
          1e-6 * Math.abs(one.metrics[name]),
        );
      misses.each('gradient', many.gradLogits, one.gradLogits, (x) =>
        Math.max(1e-5 * Math.abs(x), 1e-10),
      );
      expect(misses.list).toEqual([]);
    }
  });

  test('gradients factored and none, packed rows, padding', async () => {
    const vocab = 1300;
    const batch = randomBatch({ seed: 3, sequences: 4, tokens: 5, vocab, peaked: true });
    const cuts = boundaries(vocab, 3, true);
    const dense = await overVocab(dpo, batch, cuts, {}, 0, device);
    const values = ['loss', 'losses', 'logps', 'coefficients'];
    for (const gradient of ['factored', 'none'] as const) {
      const other = await overVocab(dpo, batch, cuts, { gradient }, 0, device);
      expect(differences(other, dense, values)).toEqual([]);
      if (gradient === 'none') continue;
      const { rowScale = [] } = other;
      other.gradLogits.forEach((g, i) => {
        const x = at(dense.gradLogits, i);
        expect(Math.abs(g * at(rowScale, Math.floor(i / vocab)) - x)).toBeLessThanOrEqual(
          2 ** -21 * Math.abs(x),
        );
      });
    }
    const padded = await overVocab(dpo, batch, cuts, {}, 7, device);
    expect(differences(padded, dense)).toEqual([]);
    expect(sameBits(padded.gradLogits, dense.gradLogits)).toBe(true);
    const inRows = packed(batch);
    const rows = await overVocab(dpo, inRows.batch, cuts, {}, 3, device);
    expect(differences(rows, dense, values)).toEqual([]);
    for (const [i, row] of inRows.rows.entries())
      expect(
        sameBits(
          rows.gradLogits.subarray(i * vocab, (i + 1) * vocab),
          dense.gradLogits.subarray(row * vocab, (row + 1) * vocab),
        ),
      ).toBe(true);
  });

  test('labels of a likelihood term in other shards; transformed logits', async () => {
    const vocab = 40;
    const batch = randomBatch({ seed: 4, sequences: 4, tokens: 6, vocab });
    const sftLabels = batch.labels.map((label, r) => (r % 3 ? (label + 117) % vocab : -100));
    const simpo = dirAlignLoss('simpo', 2, true, { sftWeight: 0.5 });
    const transformed = { ...batch, logitScale: 0.7, logitSoftcap: 5, temperature: 1.3 };
    for (const given of [{ ...batch, sftLabels }, transformed, { ...transformed, sftLabels }])
      for (const gradient of ['sftLabels' in given ? 'dense' : 'factored', 'dense'] as const) {
        const run = { gradient, metrics: ['entropy'] } as const;
        const one = await overVocab(simpo, given, [0, vocab], run);
        const many = await overVocab(simpo, given, boundaries(vocab, 4), run, 0, device);
        const misses = new Misses();
        misses.each('loss', [many.loss], [one.loss], (x) => 1e-6 * Math.abs(x));
        const largest = Math.max(...one.gradLogits.map(Math.abs));
        misses.each('gradient', many.gradLogits, one.gradLogits, (x) =>
          Math.max(1e-5 * Math.abs(x), 1e-6 * largest),
        );
        expect(misses.list).toEqual([]);
      }
  });

  test('what a shard holds reaches every rank, and only its pair', async () => {
    const { batch, logits, vocab } = edgesOfShards();
    const cuts = boundaries(vocab, 4);
    const many = await overVocab(dpo, batch, cuts, {}, 0, device);
    expect(Math.abs(at(many.logps, 1) / (-63 * Math.exp(-80)) - 1)).toBeLessThan(1e-6);
    logits[vocab + 60] = NaN; // of the second pair, in the last shard
    const nan = await overVocab(dpo, batch, cuts, {}, 0, device);
    expect([...nan.losses].map(Number.isNaN)).toEqual([false, true]);
    expect(nan.metrics.nonfinite).toBe(1);
  });
});

// Local means of ranks with different numbers of units, sorts of a part, another order of sums.
describe
  .runIf(cuda.available)
  .each(['dpo', 'simpo', 'kto', 'bco', 'aot', 'aot_unpaired', 'plackett_luce', 'sft'] as const)(
  'units: %s has the bits of one process',
  (method) => {
    const objective = dirAlignLoss(configOf(method) as never) as Objective;
    const isCoupled = method === 'aot' || method === 'aot_unpaired';
    const ends = [0, 1, 4, 4, 8];

    test.each(['dense', 'factored', 'none'] as const)('gradient %s', async (gradient) => {
      const { batch, parts } = partsOf(method, ends);
      const whole = await device(objective, batch as never, { gradient }, 0);
      const one = whole as never as Record<string, Float64Array>;
      const communicators = within(parts.length);
      const ranks = await Promise.all(
        parts.map(({ part }, r) =>
          device(objective, part, { gradient, parallel: { data: communicators[r] } }, r),
        ),
      );
      const block = at(batch.shape, 1) * at(batch.shape, 2);
      for (const [r, given] of ranks.entries()) {
        const own = given as never as Record<string, Float64Array>;
        const { indices } = parts[r] as (typeof parts)[number];
        expect(differences(own, one, ['loss', 'metrics'])).toEqual([]);
        for (const name of ['logps', 'rewards', 'coefficients'])
          expect([...(own[name] ?? [])]).toEqual(indices.map((s) => at(one[name] ?? [], s)));
        const losses = isCoupled ? one.losses : one.losses?.subarray(at(ends, r), at(ends, r + 1));
        expect(sameBits(own.losses as never, losses as never), 'losses').toBe(true);
        if (gradient === 'none') continue;
        const whole = rowsOf(one.gradLogits as never, block, indices);
        expect(sameBits(own.gradLogits as never, whole), 'gradient').toBe(true);
      }
    });
  },
);

// The kernels of plain logits; sequences of more rows than a warp has lanes.
test.runIf(cuda.available)('units of logits that are not transformed', async () => {
  const [vocab, tokens] = [50, 40];
  const batch = randomBatch({ seed: 11, sequences: 8, tokens, vocab });
  const parts = [
    [0, 4], // pair 0
    [1, 2, 3, 5, 6, 7],
  ];
  for (const objective of [
    dpo,
    dirAlignLoss('aot', 0.1),
    dirAlignLoss('simpo', 2, true, { sftWeight: 0.3, sftReduction: 'token' }),
  ] as unknown as Objective[]) {
    const run = { gradientScale: 3 };
    const one = await device(objective, batch, run, 0);
    const communicators = within(2);
    const ranks = await Promise.all(
      parts.map((sequences, r) => {
        const rows = sequences.flatMap((s) =>
          Array.from({ length: tokens }, (_, t) => s * tokens + t),
        );
        const own = {
          logits: rowsOf(batch.logits as Float32Array, tokens * vocab, sequences),
          shape: [sequences.length, tokens, vocab] as const,
          labels: Int32Array.from(rows, (row) => at(batch.labels, row)),
          reference: Float64Array.from(sequences, (s) => at(batch.reference, s)),
        };
        return device(objective, own, { ...run, parallel: { data: communicators[r] } }, r);
      }),
    );
    for (const [r, result] of ranks.entries()) {
      expect(differences(result, one, ['loss', 'metrics'])).toEqual([]);
      const expected = rowsOf(one.gradLogits as Float32Array, tokens * vocab, parts[r] ?? []);
      expect(sameBits(result.gradLogits, expected)).toBe(true);
    }
  }
});

describe.runIf(cuda.available)('tokens of sequences', () => {
  const vocab = 33;
  const tokens = 7;
  const batch = randomBatch({ seed: 9, sequences: 4, tokens, vocab });
  const rowsOfRank = [
    [0, 3, 6],
    [1, 2, 4, 5],
  ];
  const cut = (rank: number, first = 0, columns = vocab, sequences = [0, 1, 2, 3]) => {
    const own = rowsOfRank[rank] ?? [];
    const rows = sequences.flatMap((s) => own.map((t) => s * tokens + t));
    return {
      ...batch,
      shape: [sequences.length, own.length, columns] as const,
      labels: Int32Array.from(rows, (r) => at(batch.labels, r)),
      reference: Float64Array.from(sequences, (s) => at(batch.reference, s)),
      logits: cutColumns(rowsOf(batch.logits as Float32Array, vocab, rows), vocab, first, columns),
      shard: { first, vocab },
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
      [0, 1].map((r) => device(objective, cut(r), { parallel: { sequence: communicators[r] } }, r)),
    );
    for (const [rank, result] of ranks.entries()) {
      expect(Math.abs(result.loss - one.loss)).toBeLessThan(1e-6 * Math.abs(one.loss));
      expect([...result.counts]).toEqual([...one.counts]);
      expectOwnRows(
        result.gradLogits,
        one.gradLogits,
        rowsOfRank[rank] ?? [],
        { tokens, vocab },
        1e-5,
      );
    }
    expect(differences(ranks[0] as object, ranks[1] as object)).toEqual([]);
  });

  test('with shards of the vocabulary and other units beside: eight ranks', async () => {
    const one = dpo(batch);
    const groups = [0, 1, 2, 3].map(() => ({
      vocab: within(2),
      sequence: within(2),
      data: within(2),
    }));
    const places = [0, 1].flatMap((d) => [0, 1].flatMap((q) => [0, 1].map((v) => [d, q, v])));
    const ranks = await Promise.all(
      (places as [number, number, number][]).map(([d, q, v], rank) => {
        const columns = v === 0 ? 20 : vocab - 20;
        const parallel = {
          vocab: groups[2 * d + q]?.vocab[v],
          sequence: groups[2 * d + v]?.sequence[q],
          data: groups[2 * q + v]?.data[d],
        };
        return device(dpo, cut(q, 20 * v, columns, [d, d + 2]), { parallel }, rank);
      }),
    );
    for (const result of ranks) {
      expect(Math.abs(result.loss - one.loss)).toBeLessThan(1e-6);
      expect(differences(result, ranks[0] as object, ['loss', 'metrics'])).toEqual([]);
    }
  });
});

describe.runIf(cuda.available)('real processes', () => {
  const compiled = compilePackage();
  afterAll(() => {
    compiled.remove();
  });
  test.runIf(launchers.length > 0)('have the bits of any library and any number', async () => {
    const prints = new Set<string>();
    for (const launcher of launchers)
      for (const ranks of [1, 2]) {
        const args = [compiled.url, 'device'];
        const { code, text } = await launch(launcher, ranks, 'stories.mjs', args);
        expect(code, text).toBe(0);
        const found = [...text.matchAll(/FINGERPRINT (\w+)/g)].map(([, print]) => print ?? '');
        expect(found, text).toHaveLength(ranks);
        for (const print of found) prints.add(print);
      }
    expect(prints.size).toBe(1);
  });
});

describe.runIf(cuda.available)('what is refused, and by whom', () => {
  const batch = randomBatch({ seed: 5, sequences: 2, tokens: 2, vocab: 9 });
  const codeOf = async (call: Promise<unknown>) =>
    ((await rejection(call)) as { code: string }).code;

  const outcome = (promise: Promise<unknown>) =>
    promise.then(
      () => 'ok',
      (error: unknown) => (error as { code: string }).code,
    );

  test('host arrays that would travel to the device', async () => {
    const run = { backend: 'cuda', parallel: { data: within(1)[0] } } as const;
    expect(await codeOf(dpo.async(batch, run))).toBe('ERR_DIRALIGN_BACKEND');
  });
  test('a grid that the blocks of a device do not fit', async () => {
    const error = await rejection(overVocab(dpo, batch, [0, 9], { columnGrid: 512 }, 0, device));
    expect(error).toMatchObject({ code: 'ERR_DIRALIGN_OPTION' });
    expect((error as Error).message).toContain(
      'parallel.columnGrid: 512 is not a multiple of 1024',
    );
  });
  // A rank that leaves without a word would have the other wait for its deadline.
  test.runIf(isEmulated)(
    'a device that fails between any steps: the other hears of it',
    async () => {
      const communicators = within(2);
      const call = (vocab: Communicator, rank: number) => {
        const logits = (batch.logits as Float32Array<ArrayBuffer>).slice(0, 4 * 4);
        const shard = { first: 4 * rank, vocab: 8 };
        const own = { ...batch, logits, shape: [2, 2, 4] as const, shard };
        const labels = batch.labels.map((label) => Math.min(label, 7));
        return outcome(device(dpo, { ...own, labels }, { parallel: { vocab } }, rank));
      };
      for (let after = 0; after < 6; after++) {
        const calls = communicators.map(call); // nothing is computed before the ranks have agreed
        process.env.SIMT_FAIL = `cudaMemcpyAsync:719:${after}`;
        const codes = await Promise.all(calls);
        delete process.env.SIMT_FAIL;
        expect(codes.sort()).toEqual(['ERR_DIRALIGN_DEVICE', 'ERR_DIRALIGN_PEER']);
      }
      expect(await Promise.all(communicators.map(call))).toEqual(['ok', 'ok']);
    },
  );
  test('a rank is refused, or aborts: the others hear of it, and the group goes on', async () => {
    const communicators = within(2);
    const call = (rank: number, changed: object, run: object = {}) =>
      device(
        dpo,
        { ...batch, ...changed },
        { ...run, parallel: { data: communicators[rank] } },
        rank,
      );
    const bad = { labels: Int32Array.of(0, 1, 2, 9) };
    const controller = new AbortController();
    const codes = [];
    for (const [changed, run] of [
      [bad, {}],
      [{}, { signal: AbortSignal.abort() }],
      [{}, { signal: controller.signal }],
    ]) {
      const calls = [call(0, {}), call(1, changed as object, run)];
      controller.abort();
      codes.push(await Promise.all(calls.map(outcome)));
    }
    codes.push(await Promise.all([call(0, {}), call(1, {})].map(outcome)));
    expect(codes).toEqual([
      ['ERR_DIRALIGN_PEER', 'ERR_DIRALIGN_LABEL'],
      ['ERR_DIRALIGN_PEER', 'ERR_DIRALIGN_ABORTED'],
      ['ERR_DIRALIGN_PEER', 'ERR_DIRALIGN_ABORTED'],
      ['ok', 'ok'],
    ]);
  });
});
