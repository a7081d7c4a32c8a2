// What is refused, and what happens to a call whose transport fails.
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { afterAll, describe, expect, test } from 'vitest';
import { cuda, DirAlignError, dirAlignLoss, logpsBackward, sequenceLogps } from '../../ts/index.js';
import { layout, mpi, nccl, vocabShard, type Communicator } from '../../ts/distributed/index.js';
import { randomBatch } from '../support/batches.js';
import { compilePackage, script } from '../support/compiled.js';
import { randomHidden } from '../support/hidden.js';
import { within } from '../support/ranks.js';
import { expectRefusal, rejection, thrownBy, type Kind } from '../support/refusal.js';

const dpo = dirAlignLoss('dpo', 0.1);
const batch = randomBatch({ seed: 1, sequences: 2, tokens: 3, vocab: 9 });
const [alone] = within(1) as [Communicator];

const compiled = compilePackage();
afterAll(() => {
  compiled.remove();
});

function expectCode(error: unknown, code: string, words: string): void {
  expect(error).toBeInstanceOf(DirAlignError);
  expect(error).toMatchObject({ code: `ERR_DIRALIGN_${code}`, name: 'DirAlignError' });
  expect((error as Error).message).toContain(words);
}

describe('options', () => {
  const parallels: [parallel: unknown, kind: Kind, words: string][] = [
    [7, 'TypeError OPTION', 'parallel'],
    [{ vocabs: alone }, 'TypeError OPTION', "did you mean 'vocab'"],
    [{ windows: {} }, 'TypeError OPTION', "did you mean 'window'"],
    [{ vocab: {} }, 'TypeError OPTION', 'its size, undefined'],
    [{ vocab: { rank: 2, size: 2, allGather: () => 0 } }, 'TypeError OPTION', 'its rank, 2'],
    [{ vocab: { rank: 0, size: 2 } }, 'TypeError OPTION', 'has no function allGather'],
    [{ data: { ...alone, timeout: 0 } }, 'TypeError OPTION', 'parallel.data.timeout: 0'],
    [{ columnGrid: 500 }, 'TypeError OPTION', 'is not a multiple of 512'],
  ];
  test.each(parallels)('parallel %o', async (parallel, kind, words) => {
    expectRefusal(await rejection(dpo.async(batch, { parallel } as never)), kind, words);
  });
  const ofHidden: [parallel: unknown, words: string][] = [
    [{ gradHidden: 'mean' }, "parallel.gradHidden: 'mean' is not one of 'sum', 'partial'"],
    [{ vocab: alone, wire: 'bfloat16' }, "is not one of 'float32', 'native'"],
    [{ vocab: alone, wire: 'native', gradHidden: 'partial' }, 'only where ranks of vocab add'],
    [{ wire: 'native' }, 'only where ranks of vocab add'],
    [{ data: alone, wire: 'float32' }, 'only where ranks of vocab add'],
  ];
  test.each(ofHidden)('parallel %o, from hidden states', async (parallel, words) => {
    const layer = randomHidden({ seed: 1, sequences: 2, tokens: 3, vocab: 9, size: 4 });
    const run = { parallel } as never;
    expectRefusal(await rejection(dpo.fromHidden.async(layer, run)), 'TypeError OPTION', words);
    const sequences = new Float64Array(2);
    expectRefusal(
      await rejection(logpsBackward.async(layer, { sequences }, run)),
      'TypeError OPTION',
      'data' in (parallel as object) ? 'gives it no meaning' : words,
    );
  });
  test.each([{ gradHidden: 'sum' }, { vocab: alone, wire: 'native' }])(
    'parallel %o, from logits',
    async (parallel) => {
      const run = { parallel } as never;
      const sequences = new Float64Array(2);
      for (const call of [
        dpo.async(batch, run),
        // @ts-expect-error there are no hidden states
        dpo.async(batch, { parallel: { vocab: alone, wire: 'native' } }),
        logpsBackward.async(batch, { sequences }, run),
        sequenceLogps.async(batch, run),
      ])
        expectRefusal(await rejection(call), 'TypeError OPTION', 'gives it no meaning');
    },
  );
  const shards: [shard: unknown, words: string][] = [
    [3, 'shard'],
    [{ first: -1, vocab: 9 }, 'shard.first: -1'],
    [{ first: 0, vocab: 2 ** 31 }, 'shard.vocab: 2147483648'],
    [{ first: 0, vocab: 0 }, 'shard.vocab: 0'],
    [{ first: 0, vocab: 9, columns: 9 }, 'shard.columns: no such property'],
  ];
  test.each(shards)('shard %o', async (given, words) => {
    const error = await rejection(dpo.async({ ...batch, shard: given } as never));
    expect(error).toMatchObject({ code: 'ERR_DIRALIGN_SHARD' });
    expect((error as Error).message).toContain(words);
  });
  test('a shard that is not the whole vocabulary, without the others', () => {
    const error = thrownBy(() => dpo({ ...batch, shard: { first: 0, vocab: 10 } }));
    expectCode(error, 'SHARD', 'the shards have 9 columns of 10');
    expect(thrownBy(() => dpo({ ...batch, shard: { first: 1, vocab: 10 } }))).toMatchObject({
      code: 'ERR_DIRALIGN_SHARD',
    });
  });
  test('synchronous calls by a transport of JavaScript', () => {
    const error = thrownBy(() => dpo(batch, { parallel: { data: alone } }));
    expectRefusal(error, 'TypeError OPTION', 'needs communicators of mpi()');
  });
  test('of mpi, nccl, layout and vocabShard', async () => {
    expectRefusal(await rejection(mpi({ timeout: 0 })), 'TypeError OPTION', 'timeout: 0');
    expectRefusal(await rejection(mpi({ library: 3 } as never)), 'TypeError OPTION', 'library: 3');
    const missing = await rejection(mpi({ library: '/nowhere/libmpi.so' }));
    expectCode(missing, 'ENGINE', '/nowhere/libmpi.so');
    expectRefusal(await rejection(nccl({} as never)), 'TypeError OPTION', 'control: its size');
    if (!cuda.available)
      expectRefusal(await rejection(nccl(alone)), 'TypeError BACKEND', 'cuda is not available');
    const world = { ...alone, size: 6 } as never;
    expectRefusal(
      await rejection(layout(world, { data: 4 })),
      'RangeError OPTION',
      '4 places for 6',
    );
    expectRefusal(
      await rejection(layout(world, { day: 6 } as never)),
      'TypeError OPTION',
      'sizes.day',
    );
    expectRefusal(
      thrownBy(() => vocabShard(0, alone)),
      'TypeError OPTION',
      'vocab: 0',
    );
    expectRefusal(
      thrownBy(() => vocabShard(9, { rank: 3, size: 3 })),
      'RangeError OPTION',
      'rank: 3',
    );
  });
});

describe('a transport', () => {
  const of = (allGather: unknown, timeout?: number): Communicator =>
    ({ rank: 0, size: 2, allGather, ...(timeout && { timeout }) }) as never;
  const hostile = Object.defineProperty(new Error(), 'message', {
    get: () => {
      throw new Error('mine');
    },
  });
  const failures: [allGather: unknown, words: string][] = [
    [() => Promise.reject(new Error('the cable')), 'the transport failed: the cable'],
    [
      () => {
        throw new Error('at once');
      },
      'the transport failed: at once',
    ],
    // What is thrown may be anything, and nothing of it may end the process.
    [() => Promise.reject(hostile), 'the transport failed'],
    [() => new Uint8Array(3), 'gave 3 bytes, expected'],
    [() => 'bytes', 'expected a Uint8Array'],
  ];
  test.each(failures)('that fails: %s', async (allGather, words) => {
    const data = of(allGather);
    expectCode(await rejection(dpo.async(batch, { parallel: { data } })), 'ENGINE', words);
    const again = await rejection(dpo.async(batch, { parallel: { data } }));
    expectCode(again, 'ENGINE', 'the communicator is broken');
  });
  test('that never answers', async () => {
    const data = of(() => new Promise(() => undefined), 50);
    const begin = performance.now();
    const error = await rejection(dpo.async(batch, { parallel: { data } }));
    expectCode(error, 'TIMEOUT', 'did not end within 50 ms');
    expect(performance.now() - begin).toBeGreaterThanOrEqual(49);
    const again = await rejection(dpo.async(batch, { parallel: { data } }));
    expectCode(again, 'ENGINE', 'the communicator is broken');
  });
  test('that mixes ranks up', async () => {
    const data = of((bytes: Uint8Array) => Promise.resolve(new Uint8Array(2 * bytes.length)));
    const error = await rejection(dpo.async(batch, { parallel: { data } }));
    expectCode(error, 'ENGINE', "did not bring this rank's bytes back");
  });
  // Ranks of vocab sum their rows before they know.
  test.each(['data', 'vocab'] as const)(
    'nothing is written where ranks of %s disagree',
    async (axis) => {
      const [, , vocab] = batch.shape as [number, number, number];
      const outs = [0, 1].map(() => new Float32Array(batch.logits.length).fill(7));
      const inPlace = [0, 1].map(() => batch.logits.slice());
      const ranks = within(2).flatMap((communicator, rank) => {
        const shard = axis === 'vocab' && { first: vocab * rank, vocab: 2 * vocab };
        const objective = dirAlignLoss('dpo', 0.1 + rank);
        const parallel = { [axis]: communicator };
        const own = { ...batch, ...(shard && { shard }) } as never;
        const logits = inPlace[rank];
        return [
          objective.async(own, { out: outs[rank], parallel }),
          objective.async(
            { ...(own as object), logits } as never,
            { gradient: 'factored', inPlace: true, parallel } as never,
          ),
        ];
      });
      for (const error of await Promise.all(ranks.map(rejection)))
        expect(error).toMatchObject({ code: 'ERR_DIRALIGN_DISAGREE' });
      expect(outs.every((out) => out.every((x) => x === 7))).toBe(true);
      for (const logits of inPlace) expect(logits).toEqual(batch.logits);
    },
  );
  test.each(['data', 'vocab'] as const)(
    'abort while others of %s compute, at any moment: all fail, or all succeed',
    async (axis) => {
      const large = randomBatch({ seed: 2, sequences: 4, tokens: 40, vocab: 5000 });
      for (let i = 0; i < 25; i++) {
        const controller = new AbortController();
        const communicators = within(2);
        const calls = communicators.map((communicator, rank) =>
          dpo
            .async(
              {
                ...large,
                ...(axis === 'vocab' && { shard: { first: 5000 * rank, vocab: 10_000 } }),
              },
              {
                parallel: { [axis]: communicator },
                ...(rank === 1 && { signal: controller.signal }),
              },
            )
            .then(
              () => 'ok',
              (error: unknown) => (error as DirAlignError).code,
            ),
        );
        await delay(i / 4);
        controller.abort();
        const [other, own] = await Promise.all(calls);
        if (own === 'ok') expect(other).toBe('ok');
        // After the last exchange an abort is too late for the others.
        else expect(['ERR_DIRALIGN_PEER', 'ok']).toContain(other);
      }
    },
  );
  test('a worker that ends while it waits', async () => {
    const begin = performance.now();
    const worker = new Worker(script('exchanging-worker.mjs'), { workerData: compiled.url });
    await once(worker, 'message');
    await delay(50);
    await worker.terminate();
    expect(performance.now() - begin).toBeLessThan(60_000);
  });
});
