// Off the event loop, aborted, terminated, collected.
import { getEventListeners, setMaxListeners } from 'node:events';
import fs from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { DirAlignError, dirAlignLoss, type HiddenBatch, type LogitsBatch, type WithReference } from '../ts/index.js';
import { compilePackage, type Compiled } from './support/compiled.js';
import { randomBatch } from './support/batches.js';
import { present, sameBits } from './support/numbers.js';
import { runScript } from './support/processes.js';

const objective = dirAlignLoss('dpo', 0.1);

/** 64 MiB of logits, all rows scored. */
function largeBatch(): LogitsBatch<Float32Array<ArrayBuffer>> & WithReference {
  const [rows, vocab] = [512, 32_768];
  return {
    logits: new Float32Array(rows * vocab).map((_, i) => (i % 977) / 100),
    shape: [2, rows / 2, vocab],
    labels: new Int32Array(rows).fill(7),
    reference: Float64Array.of(-1, -1),
  };
}

/** As many computations, started at once, as take about that long together. */
async function startJobs(
  batch: LogitsBatch & WithReference,
  milliseconds: number,
): Promise<{ readonly jobs: Promise<unknown>; readonly started: number }> {
  await objective.async(batch, { gradient: 'none' });
  const before = performance.now();
  await objective.async(batch, { gradient: 'none' });
  const count = Math.ceil(milliseconds / (performance.now() - before));
  const started = performance.now();
  return { jobs: Promise.all(Array.from({ length: count }, () => objective.async(batch, { gradient: 'none' }))), started };
}

describe('off the event loop', () => {
  const batch = largeBatch();

  test('timers keep their time while computations of 300 ms run', async () => {
    const { jobs, started } = await startJobs(batch, 300);
    let [gap, last, running] = [0, performance.now(), true];
    const finished = jobs.then(() => (running = false));
    while (running) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      gap = Math.max(gap, performance.now() - last);
      last = performance.now();
    }
    await finished;
    // It was long enough for a blocked loop to show.
    expect(performance.now() - started).toBeGreaterThan(100);
    expect(gap).toBeLessThan(50);
  });

  test('files are read meanwhile: the threads of libuv are not the ones that compute', async () => {
    const { jobs, started } = await startJobs(batch, 400);
    const delays: number[] = [];
    const file = fileURLToPath(import.meta.url);
    for (let i = 0; i < 8; i++) {
      const before = performance.now();
      await fs.readFile(file);
      delays.push(performance.now() - before);
    }
    const read = performance.now() - started;
    await jobs;
    const all = performance.now() - started;
    expect(all).toBeGreaterThan(100);
    expect(read).toBeLessThan(all);
    expect(Math.max(...delays)).toBeLessThan(100);
  });

  test('many at once: each has its own result, the one of a synchronous call', async () => {
    const batches = Array.from({ length: 150 }, (_, i) => randomBatch({ seed: i + 1, sequences: 4, tokens: 3, vocab: 200 + i }));
    const results = await Promise.all(
      batches.map((b, i) => objective.async(b, { gradient: i % 2 ? 'dense' : 'factored', threads: 1 + (i % 4) })),
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
    for (const result of await Promise.all(Array.from({ length: 20 }, () => objective.async(shared)))) {
      expect(result.losses).toStrictEqual(expected.losses);
      expect(sameBits(present(result.gradLogits), present(expected.gradLogits))).toBe(true);
    }
  });
});

/** A hundred milliseconds or so of products. */
function largeLayer(): HiddenBatch<Float32Array<ArrayBuffer>> & WithReference {
  const [rows, vocab, size] = [512, 8192, 64];
  return {
    hidden: new Float32Array(rows * size).map((_, i) => Math.sin(i % 997)),
    weight: new Float32Array(vocab * size).map((_, i) => Math.sin(i % 991) / 4),
    shape: [2, rows / 2, vocab],
    labels: new Int32Array(rows).fill(7),
    reference: Float64Array.of(-1, -1),
  };
}

describe('abort', () => {
  const batch = largeBatch();
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

  test('before: nothing is written', async () => {
    const signal = AbortSignal.abort(new Error('changed my mind'));
    const small = randomBatch({ seed: 1, sequences: 2, tokens: 2, vocab: 9 });
    const before = small.logits.slice();
    expectAborted(await refusal(objective.async(small, { signal, inPlace: true })), signal.reason);
    expect(sameBits(small.logits, before)).toBe(true);
  });

  test('at once, behind others, and in the middle', async () => {
    const { jobs } = await startJobs(batch, 1000);
    const controllers = [0, 1, 2].map(() => new AbortController());
    const pending = controllers.map(({ signal }) => refusal(objective.async(batch, { signal, gradient: 'none' })));
    controllers[0]?.abort();
    setTimeout(() => controllers[1]?.abort('too slow'), 20);
    setTimeout(() => controllers[2]?.abort(new TypeError('enough')), 40);
    const errors = await Promise.all(pending);
    errors.forEach((error, i) => {
      expectAborted(error, controllers[i]?.signal.reason);
    });
    expect((errors[0] as Error).cause).toMatchObject({ name: 'AbortError' });
    expect((errors[1] as Error).cause).toBe('too slow');
    await jobs;
    // The others and what comes later are none the worse.
    expect((await objective.async(batch, { gradient: 'none' })).loss).toBe(objective(batch, { gradient: 'none' }).loss);
  });

  test('a running computation stops', async () => {
    // Into fresh memory, whose page faults take the most part of it.
    const rows = 16_384;
    const wide = {
      ...batch,
      shape: [2, rows / 2, 1024] as const,
      labels: new Int32Array(rows).fill(3),
    };
    const controller = new AbortController();
    const all = performance.now();
    await objective.async(wide, { gradient: 'dense' });
    const full = performance.now() - all;
    const before = performance.now();
    const pending = refusal(objective.async(wide, { gradient: 'dense', signal: controller.signal }));
    setTimeout(() => {
      controller.abort();
    }, 1);
    expectAborted(await pending, controller.signal.reason);
    expect(performance.now() - before).toBeLessThan(full);
  });

  test('fromHidden: before, at once, and in the middle', async () => {
    const layer = largeLayer();
    const expected = objective.fromHidden(layer);
    const out = { gradWeight: new Float32Array(layer.weight.length).fill(3) };
    const before = AbortSignal.abort(new Error('changed my mind'));
    expectAborted(await refusal(objective.fromHidden.async(layer, { out, signal: before })), before.reason);
    expect(out.gradWeight.every((x) => x === 3)).toBe(true);
    const start = performance.now();
    await objective.fromHidden.async(layer);
    const full = performance.now() - start;
    // Many of them, one behind the other, so that some have not begun and one is computing.
    for (const delay of [0, full / 3, full]) {
      const controller = new AbortController();
      const pending = Array.from({ length: 8 }, () => refusal(objective.fromHidden.async(layer, { signal: controller.signal })));
      if (delay === 0) controller.abort('now');
      else
        setTimeout(() => {
          controller.abort('now');
        }, delay);
      const errors = (await Promise.all(pending)).filter((error) => error !== undefined);
      expect(errors.length).toBeGreaterThan(0);
      for (const error of errors) expectAborted(error, 'now');
      expect(getEventListeners(controller.signal, 'abort')).toHaveLength(0);
    }
    const again = await objective.fromHidden.async(layer);
    expect(again.loss).toBe(expected.loss);
    expect(sameBits(present(again.gradWeight), present(expected.gradWeight))).toBe(true);
  });

  test('after: too late to matter, and no listener stays behind', async () => {
    const controller = new AbortController();
    const small = randomBatch({ seed: 2, sequences: 2, tokens: 2, vocab: 9 });
    const { loss } = await objective.async(small, { signal: controller.signal });
    expect(getEventListeners(controller.signal, 'abort')).toHaveLength(0);
    controller.abort();
    expect(loss).toBe(objective(small).loss);
    const refused = refusal(
      objective.async({ ...small, labels: small.labels.map(() => 9) }, { signal: new AbortController().signal }),
    );
    expect(await refused).toMatchObject({ code: 'ERR_DIRALIGN_LABEL' });
  });

  test('one signal for many computations', async () => {
    const controller = new AbortController();
    setMaxListeners(0, controller.signal);
    const pending = Array.from({ length: 30 }, () =>
      refusal(objective.async(batch, { signal: controller.signal, gradient: 'none' })),
    );
    setTimeout(() => {
      controller.abort();
    }, 5);
    for (const error of await Promise.all(pending)) if (error !== undefined) expectAborted(error, controller.signal.reason);
    expect(await refusal(objective.async(batch, { signal: controller.signal }))).toMatchObject({ code: 'ERR_DIRALIGN_ABORTED' });
    expect(getEventListeners(controller.signal, 'abort')).toHaveLength(0);
  });
});

describe('processes and workers', () => {
  let compiled: Compiled;
  beforeAll(() => {
    compiled = compilePackage();
  });
  afterAll(() => {
    compiled.remove();
  });

  /** Runs a script; a crash or a hang is an error here. */
  const run = async (name: string, args: readonly string[] = [], flags: readonly string[] = []) => {
    const before = performance.now();
    const { stdout, stderr, code } = await runScript(compiled, name, args, flags);
    if (code !== 0) throw new Error(`${name} ended with ${String(code)}: ${stderr}`);
    return { stdout, stderr, milliseconds: performance.now() - before };
  };

  test('20 workers terminated in mid-computation', { timeout: 60_000 }, async () => {
    const { stdout, stderr } = await run('terminate.mjs', ['20']);
    expect([stdout, stderr]).toEqual(['terminated 20', '']);
  });

  test('10 workers terminated in the middle of an output layer', { timeout: 60_000 }, async () => {
    const { stdout, stderr } = await run('terminate.mjs', ['10', 'hidden']);
    expect([stdout, stderr]).toEqual(['terminated 10', '']);
  });

  test.runIf(process.platform === 'linux')(
    'an output layer takes the workspace that it was given, and no more',
    { timeout: 60_000 },
    async () => {
      // In MiB: 64 of logits; growth with little workspace, and with enough for all of them.
      const { stdout, stderr } = await run('hidden-memory.mjs');
      expect(stderr).toBe('');
      const { little, much } = JSON.parse(stdout) as Record<string, { memory: number; gradients: number; growth: number }>;
      expect(present(little).memory).toBeLessThanOrEqual(8);
      expect(present(little).growth).toBeLessThan(8 + present(little).gradients + 6);
      // It was a measurement.
      expect(present(much).memory).toBeGreaterThan(30);
      expect(present(much).growth).toBeGreaterThan(30);
    },
  );

  test('workers alone have the addon, and end by themselves', { timeout: 60_000 }, async () => {
    const { stdout, stderr } = await run('workers-only.mjs');
    expect([stdout, stderr]).toEqual(['workers 8', '']);
  });

  test('process.exit() in mid-computation: at once, with its code', { timeout: 60_000 }, async () => {
    const { stdout, stderr } = await run('exit.mjs');
    // A computation or two may be over by then, on a machine that is late with its timers.
    expect(stdout).toMatch(/^(finished\n){0,7}leaving$/);
    expect(stderr).toBe('');
  });

  test('a pending computation keeps the process alive, an idle addon does not', { timeout: 60_000 }, async () => {
    const { stdout, stderr } = await run('pending.mjs');
    expect(stdout).toMatch(/^loss \d+\.\d+$/);
    expect(stderr).toBe('');
  });

  test('a batch lives as long as its computation, and no longer', { timeout: 60_000 }, async () => {
    const { stdout, stderr } = await run('collect.mjs', [], ['--expose-gc']);
    expect([stdout, stderr]).toEqual(['collected', '']);
  });

  test('memory is flat over thousands of calls of every kind', { timeout: 90_000 }, async () => {
    const { stdout, stderr } = await run('leak.mjs', [], ['--expose-gc']);
    expect(stderr).toBe('');
    const growth = JSON.parse(stdout) as Record<string, { rss: number; external: number; arrayBuffers: number }>;
    expect(Object.keys(growth)).toEqual([
      'dense',
      'factored',
      'logps',
      'fromHidden',
      'fromHidden async, and aborted',
      'fromLogps',
      'refused',
      'tiny',
      'tiny async',
      'async',
      'aborted',
    ]);
    // In MiB, over 1000 calls, each of which would leave 1 if it kept its gradient, or over 20 000 small ones.
    for (const [kind, { rss, external, arrayBuffers }] of Object.entries(growth)) {
      expect(arrayBuffers, `${kind}: array buffers`).toBeLessThan(0.5);
      expect(external, `${kind}: external memory`).toBeLessThan(0.5);
      expect(rss, `${kind}: resident memory`).toBeLessThan(16);
    }
  });
});
