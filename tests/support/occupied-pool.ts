// A pool whose threads are all at work, for tests of what must not wait for them. The tests judge
// by what is over first: they need no clock.
import os from 'node:os';
import { dirAlignLoss, type HiddenBatch } from '../../ts/index.js';

const objective = dirAlignLoss('sft');

/**
 * 10^12 multiplications, ten seconds or more of any processor, in little memory: pages of zeros
 * that nobody writes to are one page.
 */
export function longLayer(): HiddenBatch<Float32Array<ArrayBuffer>> {
  const [sequences, tokens, vocab, size] = [64, 512, 32_768, 1024];
  return {
    hidden: new Float32Array(sequences * tokens * size),
    weight: new Float32Array(vocab * size),
    shape: [sequences, tokens, vocab],
    labels: new Int32Array(sequences * tokens),
  };
}

export interface OccupiedPool {
  /** False once half of its calls are over, a minute or more from now, unless they are released. */
  readonly isOccupied: () => boolean;
  readonly release: () => Promise<void>;
}

export function occupyPool(): OccupiedPool {
  const controller = new AbortController();
  const layer = longLayer();
  let settled = 0;
  const calls = Array.from({ length: 8 * os.availableParallelism() }, () =>
    objective.fromHidden
      .async(layer, { gradient: 'none', memory: 2 ** 24, threads: 1, signal: controller.signal })
      .finally(() => settled++),
  );
  const all = Promise.allSettled(calls);
  return {
    isOccupied: () => settled < calls.length / 2,
    release: async () => {
      controller.abort();
      await all;
    },
  };
}

/** Runs `action` while all threads of the pool compute. False: it waited for some of them. */
export async function whileOccupied(action: () => Promise<void>): Promise<boolean> {
  const pool = occupyPool();
  try {
    await action();
    return pool.isOccupied();
  } finally {
    await pool.release();
  }
}
