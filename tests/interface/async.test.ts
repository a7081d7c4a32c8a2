// Off the event loop: what asynchronous calls give, what they leave alone meanwhile, and arrays
// that go under them.
import { execFileSync } from 'node:child_process';
import { getEventListeners } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { dirAlignLoss } from '../../ts/index.js';
import { copyOf, randomBatch } from '../support/batches.js';
import { compilePackage, type Compiled } from '../support/compiled.js';
import { generator, present, sameBits } from '../support/numbers.js';
import { longLayer, whileOccupied } from '../support/occupied-pool.js';
import { runScript } from '../support/processes.js';

const objective = dirAlignLoss('dpo', 0.1);

describe('the event loop', () => {
  test('turns, and files are read, while every thread of the pool computes', async () => {
    const didNotWait = await whileOccupied(async () => {
      for (let i = 0; i < 1000; i++) await turn();
      for (let i = 0; i < 8; i++) await fs.readFile(fileURLToPath(import.meta.url));
    });
    expect(didNotWait).toBe(true);
  });

  test.runIf(process.platform === 'linux')(
    'has its own threads: a call computes while all of libuv are stuck',
    async () => {
      const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'diralign-fifo-'));
      const fifo = path.join(folder, 'fifo');
      execFileSync('mkfifo', [fifo]);
      const batch = randomBatch({ seed: 1, sequences: 4, tokens: 16, vocab: 5000 });
      // Opening it waits for a writer.
      const stuck = Array.from({ length: Number(process.env.UV_THREADPOOL_SIZE ?? 4) }, () =>
        fs.open(fifo, 'r'),
      );
      try {
        expect((await objective.async(batch)).loss).toBe(objective(batch).loss);
      } finally {
        const writer = openSync(fifo, 'w');
        for (const file of await Promise.all(stuck)) await file.close();
        closeSync(writer);
        await fs.rm(folder, { recursive: true });
      }
    },
  );
});

describe('results', () => {
  test('many at once: each has its own, the one of a synchronous call', async () => {
    const batches = Array.from({ length: 150 }, (_, i) =>
      randomBatch({ seed: i + 1, sequences: 4, tokens: 3, vocab: 200 + i }),
    );
    const results = await Promise.all(
      batches.map((b, i) =>
        objective.async(b, { gradient: i % 2 ? 'dense' : 'factored', threads: 1 + (i % 4) }),
      ),
    );
    results.forEach((result, i) => {
      const expected = objective(present(batches[i]), { gradient: i % 2 ? 'dense' : 'factored' });
      expect(result.losses).toStrictEqual(expected.losses);
      expect(result.metrics).toStrictEqual(expected.metrics);
      expect(sameBits(present(result.gradLogits), present(expected.gradLogits))).toBe(true);
    });
  });

  test('one batch, shared by many computations', async () => {
    const shared = randomBatch({ seed: 5, sequences: 4, tokens: 16, vocab: 5000 });
    const expected = objective(shared);
    for (const result of await Promise.all(
      Array.from({ length: 20 }, () => objective.async(shared)),
    )) {
      expect(result.losses).toStrictEqual(expected.losses);
      expect(sameBits(present(result.gradLogits), present(expected.gradLogits))).toBe(true);
    }
  });

  test('a thousand at once, a third of them aborted at random moments', async () => {
    const random = generator(11);
    const batches = Array.from({ length: 20 }, (_, i) =>
      randomBatch({
        seed: i,
        sequences: 2 + 2 * (i % 3),
        tokens: 1 + (i % 7),
        vocab: [5, 100, 1000, 8192][i % 4] as number,
      }),
    );
    const losses = batches.map((batch) => objective(batch).losses);
    const controllers = Array.from({ length: 10 }, () => new AbortController());
    const calls = Array.from({ length: 1000 }, (_, i) => {
      const signal = i % 3 === 0 ? present(controllers[i % 10]).signal : undefined;
      const gradient = (['none', 'dense', 'factored'] as const)[i % 3];
      return objective.async(present(batches[i % 20]), {
        gradient,
        threads: 1 + (i % 3),
        ...(signal && { signal }),
      });
    });
    const settled = Promise.allSettled(calls);
    for (const controller of controllers) {
      for (let turns = 3 * random(); turns > 0; turns--) await turn();
      controller.abort();
    }
    let resolved = 0;
    (await settled).forEach((outcome, i) => {
      if (outcome.status === 'fulfilled') {
        resolved++;
        expect(outcome.value.losses).toStrictEqual(losses[i % 20]);
      } else {
        expect(i % 3).toBe(0);
        expect(outcome.reason).toMatchObject({ code: 'ERR_DIRALIGN_ABORTED' });
      }
    });
    expect(resolved).toBeGreaterThanOrEqual(666);
    for (const { signal } of controllers)
      expect(getEventListeners(signal, 'abort')).toHaveLength(0);
  });
});

/**
 * Detaches the array's buffer. The memory lives on in what is returned, so that no freed memory is
 * read.
 */
const detach = (
  array: Uint8Array<ArrayBuffer> | Int32Array | Float32Array | Float64Array | Uint16Array,
): ArrayBuffer =>
  structuredClone(array.buffer as ArrayBuffer, { transfer: [array.buffer as ArrayBuffer] });

describe('arrays that are detached during a call', () => {
  const batch = randomBatch({ seed: 3, sequences: 4, tokens: 8, vocab: 3000 });
  const gone = (name: string) => ({
    code: 'ERR_DIRALIGN_SHAPE',
    message: expect.stringMatching(new RegExp(`^${name}: its ArrayBuffer was detached`)) as string,
  });

  test.each(['logits', 'labels', 'reference'] as const)('%s', async (name) => {
    const own = {
      ...copyOf(batch),
      labels: batch.labels.slice(),
      reference: present(batch.reference).slice(),
    };
    const pending = objective.async(own);
    const kept = detach(own[name]);
    await expect(pending).rejects.toMatchObject(gone(name));
    expect(kept.byteLength).toBeGreaterThan(0);
  });

  test('out, and logits in place', async () => {
    const out = new Float32Array(batch.logits.length);
    const pending = objective.async(batch, { out });
    const kept = [detach(out)];
    await expect(pending).rejects.toMatchObject(gone('out'));
    const own = copyOf(batch);
    const inPlace = objective.async(own, { inPlace: true });
    kept.push(detach(own.logits));
    await expect(inPlace).rejects.toMatchObject(gone('logits'));
    // The others are as good as before.
    expect((await objective.async(batch)).loss).toBe(objective(batch).loss);
    expect(kept).toHaveLength(2);
  });

  test.each(['hidden', 'weight', 'bias', 'out.gradWeight'])(
    'of an output layer: %s',
    async (name) => {
      const fill = (length: number): Float32Array<ArrayBuffer> =>
        new Float32Array(length).map((_, i) => Math.sin(i));
      const layer = { hidden: fill(64 * 16), weight: fill(500 * 16), bias: fill(500) };
      const out = { gradWeight: new Float32Array(500 * 16) };
      const labels = new Int32Array(64).fill(7);
      const pending = objective.fromHidden.async(
        { ...layer, shape: [2, 32, 500], labels, reference: Float64Array.of(-1, -1) },
        { out },
      );
      const kept = detach(
        name === 'out.gradWeight' ? out.gradWeight : layer[name as keyof typeof layer],
      );
      await expect(pending).rejects.toMatchObject(gone(name));
      expect(kept.byteLength).toBeGreaterThan(0);
    },
  );

  test('the work stops soon, and not when it would be done', async () => {
    const layer = longLayer();
    // A gradient of the likelihood is written chunk by chunk.
    const gradHidden = new Float32Array(layer.hidden.length);
    layer.weight.fill(1, 0, 1024);
    const run = { memory: 2 ** 24, out: { gradHidden, gradWeight: false } } as const;
    const pending = dirAlignLoss('sft').fromHidden.async(layer, run);
    const kept = detach(layer.weight);
    await expect(pending).rejects.toMatchObject(gone('weight'));
    expect(kept.byteLength).toBeGreaterThan(0);
    // Of the last row.
    expect(gradHidden.subarray(-1024).every((x) => x === 0)).toBe(true);
  });

  test('an abort is an abort', async () => {
    const own = copyOf(batch);
    const controller = new AbortController();
    const didNotWait = await whileOccupied(async () => {
      const pending = objective.async(own, { signal: controller.signal });
      const kept = detach(own.logits);
      controller.abort();
      await expect(pending).rejects.toMatchObject({ code: 'ERR_DIRALIGN_ABORTED' });
      expect(kept.byteLength).toBeGreaterThan(0);
    });
    expect(didNotWait).toBe(true);
  });
});

describe.runIf(process.platform === 'linux')('threads', () => {
  let compiled: Compiled;
  beforeAll(() => {
    compiled = compilePackage();
  });
  afterAll(() => {
    compiled.remove();
  });

  test('as many as there are rows to share, however many are asked for', async () => {
    const { stdout, stderr } = await runScript(compiled, 'threads.mjs');
    expect(stderr).toBe('');
    const { again, ...started } = JSON.parse(stdout) as Record<string, number>;
    // Four rows, each enough for a thread; of a synchronous call the caller is one.
    expect(started).toEqual({ idle: 0, fewRows: 3, fewRowsAsync: 4, twoRowsAsync: 4 });
    // A call may come before the threads of the last one have come to rest.
    expect(again).toBeLessThanOrEqual(Math.max(4, os.availableParallelism()));
  });

  const hasTaskset = (): boolean => {
    try {
      execFileSync('taskset', ['-c', '0', 'true'], { stdio: 'ignore' });
      return true;
    } catch {
      return false;
    }
  };
  test.runIf(hasTaskset())('by default those that the process may run on', async () => {
    const [, first] =
      /^Cpus_allowed_list:\s*(\d+)/m.exec(await fs.readFile('/proc/self/status', 'utf8')) ?? [];
    const args = ['-c', present(first), process.execPath];
    const module = compiled.url.replace('index.js', 'native/interface.js');
    const script = `const { native } = await import(${JSON.stringify(module)});
      console.log(native().cpuInfo().threads);`;
    const output = execFileSync('taskset', [...args, '--input-type=module', '-e', script], {
      encoding: 'utf8',
    });
    expect(Number(output)).toBe(1);
  });
});
