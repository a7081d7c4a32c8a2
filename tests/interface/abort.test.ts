// Asynchronous calls that are aborted: before, while they wait, while they compute, and too late.
import { getEventListeners } from 'node:events';
import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { DirAlignError, dirAlignLoss } from '../../ts/index.js';
import { copyOf, randomBatch } from '../support/batches.js';
import { at, present, sameBits } from '../support/numbers.js';
import { longLayer, occupyPool, whileOccupied } from '../support/occupied-pool.js';

const objective = dirAlignLoss('dpo', 0.1);
const small = randomBatch({ seed: 1, sequences: 2, tokens: 2, vocab: 9 });
/** Too large to be computed before the call returns. */
const larger = randomBatch({ seed: 1, sequences: 2, tokens: 2, vocab: 2049 });

const refusal = async (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => undefined,
    (error: unknown) => error,
  );
const expectAborted = (error: unknown, reason: unknown): void => {
  expect(error).toBeInstanceOf(DirAlignError);
  expect(error).toBeInstanceOf(Error);
  expect(error).toMatchObject({ name: 'AbortError', code: 'ERR_DIRALIGN_ABORTED' });
  expect((error as Error).cause).toBe(reason);
};
const listeners = (signal: AbortSignal): number => getEventListeners(signal, 'abort').length;

describe('abort', () => {
  test('before: nothing is written', async () => {
    const signal = AbortSignal.abort(new Error('changed my mind'));
    const own = copyOf(small);
    expectAborted(await refusal(objective.async(own, { signal, inPlace: true })), signal.reason);
    expect(sameBits(own.logits, small.logits)).toBe(true);
    const gradWeight = new Float32Array(4).fill(3);
    const layer = {
      hidden: new Float32Array(2),
      weight: new Float32Array(4),
      shape: [2, 1, 4] as const,
    };
    const batch = { ...layer, labels: new Int32Array(2), reference: Float64Array.of(-1, -1) };
    expectAborted(
      await refusal(objective.fromHidden.async(batch, { out: { gradWeight }, signal })),
      signal.reason,
    );
    expect([...gradWeight]).toEqual([3, 3, 3, 3]);
  });

  test('while the batch is read: nothing is written', async () => {
    const controller = new AbortController();
    const own = copyOf(small);
    const batch = {
      ...own,
      get labels() {
        controller.abort('in a getter');
        return small.labels;
      },
    };
    expectAborted(
      await refusal(objective.async(batch, { signal: controller.signal, inPlace: true })),
      'in a getter',
    );
    expect(sameBits(own.logits, small.logits)).toBe(true);
    expect(listeners(controller.signal)).toBe(0);
  });

  test('behind others: at once, whoever computes, and nothing is written', async () => {
    const didNotWait = await whileOccupied(async () => {
      const controllers = Array.from({ length: 20 }, () => new AbortController());
      const batches = controllers.map(() => copyOf(larger));
      const pending = controllers.map(({ signal }, i) =>
        objective.async(present(batches[i]), { signal, inPlace: true }),
      );
      // The last first: it is not the head of the queue that leaves.
      for (const [i, controller] of [...controllers.entries()].reverse()) {
        controller.abort(i);
        expectAborted(await refusal(present(pending[i])), i);
      }
      for (const { logits } of batches) expect(sameBits(logits, larger.logits)).toBe(true);
    });
    expect(didNotWait).toBe(true);
    expect((await objective.async(small)).loss).toBe(objective(small).loss);
  });

  test('a few logits wait for no thread', async () => {
    const didNotWait = await whileOccupied(async () => {
      expect((await objective.async(small)).loss).toBe(objective(small).loss);
    });
    expect(didNotWait).toBe(true);
  });

  test('stops those that it is for, and no others', async () => {
    const first = occupyPool();
    const second = occupyPool();
    await first.release();
    expect(second.isOccupied()).toBe(true);
    await second.release();
  });

  test('in the middle: no further row is computed, and nothing is written later', async () => {
    // 32768 rows, reduced and differentiated in groups, the gradient written to pages that are 0.
    const [rows, vocab] = [32_768, 1024];
    const batch = {
      logits: new Float32Array(rows * vocab),
      shape: [rows / 64, 64, vocab] as const,
      labels: new Int32Array(rows),
      reference: new Float64Array(rows / 64).fill(-1),
    };
    const attempt = async (): Promise<boolean> => {
      const out = new Float32Array(rows * vocab);
      const controller = new AbortController();
      const pending = refusal(objective.async(batch, { out, signal: controller.signal }));
      let over: unknown = false;
      void pending.then(() => (over = true));
      const written = (): number => {
        let count = 0;
        for (let row = 0; row < rows; row += 16) if (at(out, row * vocab) !== 0) count++;
        return count;
      };
      while (!over && written() === 0) await turn();
      controller.abort('enough');
      const error = await pending;
      if (error === undefined) return false;
      expectAborted(error, 'enough');
      const before = written();
      for (let i = 0; i < 20; i++) await turn();
      expect(written()).toBe(before);
      return before < rows / 16;
    };
    // On a busy machine it may be over before this thread has its turn; not every time.
    let stopped = false;
    for (let i = 0; i < 50 && !stopped; i++) stopped = await attempt();
    expect(stopped).toBe(true);
  });

  test('in the middle of an output layer', async () => {
    const layer = longLayer();
    layer.weight.fill(1, 0, 1024);
    const gradHidden = new Float32Array(layer.hidden.length);
    const controller = new AbortController();
    const run = {
      memory: 2 ** 24,
      out: { gradHidden, gradWeight: false },
      signal: controller.signal,
    } as const;
    const pending = refusal(dirAlignLoss('sft').fromHidden.async(layer, run));
    let over: unknown = false;
    void pending.then(() => (over = true));
    while (!over && at(gradHidden, 0) === 0) await turn();
    controller.abort('enough');
    expectAborted(await pending, 'enough');
    expect(gradHidden.subarray(-1024).every((x) => x === 0)).toBe(true);
  });

  test('after: too late to matter', async () => {
    const controller = new AbortController();
    const { loss } = await objective.async(small, { signal: controller.signal });
    controller.abort();
    expect(loss).toBe(objective(small).loss);
  });
});

describe('the signal', () => {
  test('no listener stays behind, whatever becomes of the call', async () => {
    const { signal } = new AbortController();
    await objective.async(small, { signal });
    expect(listeners(signal)).toBe(0);
    const wrong = { ...small, labels: small.labels.map(() => 9) };
    expect(await refusal(objective.async(wrong, { signal }))).toMatchObject({
      code: 'ERR_DIRALIGN_LABEL',
    });
    expect(listeners(signal)).toBe(0);
    expect(
      await refusal(objective.async({ ...small, shape: [1, 1, 1] }, { signal })),
    ).toMatchObject({
      code: 'ERR_DIRALIGN_SHAPE',
    });
    expect(listeners(signal)).toBe(0);
  });

  test('one for many calls: one listener, no warning, all of them aborted', async () => {
    const warnings: unknown[] = [];
    const warned = (warning: unknown): void => void warnings.push(warning);
    process.on('warning', warned);
    const controller = new AbortController();
    const { signal } = controller;
    const didNotWait = await whileOccupied(async () => {
      const pending = Array.from({ length: 50 }, () => refusal(objective.async(small, { signal })));
      expect(listeners(signal)).toBe(1);
      controller.abort();
      for (const error of await Promise.all(pending)) expectAborted(error, signal.reason);
    });
    expect(didNotWait).toBe(true);
    expect(listeners(signal)).toBe(0);
    expectAborted(await refusal(objective.async(small, { signal })), signal.reason);
    await turn();
    process.off('warning', warned);
    expect(warnings).toEqual([]);
  });

  test('calls that settle leave the others their listener', async () => {
    const controller = new AbortController();
    const { signal } = controller;
    const pool = occupyPool();
    const waiting = refusal(objective.async(small, { signal }));
    await refusal(objective.async({ ...small, labels: small.labels.map(() => 9) }, { signal }));
    expect(listeners(signal)).toBe(1);
    controller.abort('now');
    expectAborted(await waiting, 'now');
    expect(pool.isOccupied()).toBe(true);
    await pool.release();
  });

  test('aborted by a listener of another one', async () => {
    const [first, second] = [new AbortController(), new AbortController()];
    let late: Promise<unknown> | undefined;
    const listener = (): void => {
      second.abort('too');
      // One that begins in the middle of the abort.
      late = refusal(objective.async(small, { signal: first.signal }));
    };
    first.signal.addEventListener('abort', listener, { once: true });
    const didNotWait = await whileOccupied(async () => {
      const pending = [first, second].map(({ signal }) =>
        refusal(objective.async(small, { signal })),
      );
      first.abort('one');
      expectAborted(await pending[0], 'one');
      expectAborted(await pending[1], 'too');
      expectAborted(await late, 'one');
    });
    expect(didNotWait).toBe(true);
    expect([first, second].map(({ signal }) => listeners(signal))).toEqual([0, 0]);
  });

  test('a reason that cannot be read', async () => {
    const controller = new AbortController();
    const reason = new Error('not for you');
    Object.defineProperty(controller.signal, 'reason', {
      get: () => {
        throw reason;
      },
    });
    const didNotWait = await whileOccupied(async () => {
      const pending = refusal(objective.async(small, { signal: controller.signal }));
      controller.abort();
      expectAborted(await pending, reason);
    });
    expect(didNotWait).toBe(true);
    expectAborted(await refusal(objective.async(small, { signal: controller.signal })), reason);
  });

  /** As of a library for runtimes that have none, or of another realm. */
  class OtherSignal extends EventTarget {
    aborted = false;
    reason: unknown = undefined;
    abort(reason: unknown): void {
      this.aborted = true;
      this.reason = reason;
      this.dispatchEvent(new Event('abort'));
    }
  }

  test('of another make', async () => {
    const signal = new OtherSignal();
    const run = { signal: signal as unknown as AbortSignal };
    expect((await objective.async(small, run)).loss).toBe(objective(small).loss);
    const didNotWait = await whileOccupied(async () => {
      const pending = refusal(objective.async(small, run));
      signal.abort('other');
      expectAborted(await pending, 'other');
    });
    expect(didNotWait).toBe(true);
    expect(getEventListeners(signal, 'abort')).toHaveLength(0);
  });

  test('that is none is refused', async () => {
    const forged = Object.create(AbortSignal.prototype) as AbortSignal;
    const none = [
      null,
      true,
      'signal',
      {},
      { aborted: true },
      new EventTarget(),
      new AbortController(),
      forged,
    ];
    for (const signal of none) {
      const error = await refusal(objective.async(small, { signal: signal as AbortSignal }));
      expect(error).toBeInstanceOf(DirAlignError);
      expect(error).toMatchObject({
        code: 'ERR_DIRALIGN_OPTION',
        message: expect.stringMatching(/^signal: .*AbortSignal/) as string,
      });
    }
  });
});
