// diralign/jax-js as a user of jax-js meets it, on the cpu and the wasm device.
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import {
  Array as JaxArray,
  defaultDevice,
  devicePut,
  grad,
  init,
  jit,
  nn,
  numpy as np,
  tree,
  type Device,
} from '@jax-js/jax';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  DirAlignError,
  dirAlignLoss,
  GradientBuffers,
  sequenceLogps as sequenceLogpsOf,
  type LogitsBatch,
  type ObjectiveCalls,
} from '../../ts/index.js';
import {
  jaxDirAlignLoss,
  sequenceLogps,
  type JaxForward,
  type JaxLossValues,
} from '../../ts/trainers/jax-js/index.js';
import { everyMethod, objectiveOf } from '../support/batches.js';
import { Misses } from '../support/bounds.js';
import { generator, integer, normal, present, type Random } from '../support/numbers.js';
import { given, largest, pairsOfWords, S, T, V } from '../support/trainers.js';
import { expectRefusal, thrownBy, titled, type Kind, type Words } from '../support/refusal.js';

const H = 6;

/**
 * Slots of memory that the devices hold: the library does not tell, so that its devices are watched
 * as they give and take.
 */
let liveSlots = 0;
const unwatch: (() => void)[] = [];
beforeAll(async () => {
  await init('cpu', 'wasm');
  const entry = createRequire(import.meta.url)
    .resolve('@jax-js/jax')
    .replace(/\.cjs$/, '.js');
  const found = /getBackend, [^]*? from "(\.\/backend-[^"]+)"/.exec(
    fs.readFileSync(entry, 'utf8'),
  )?.[1];
  const module = (await import(
    pathToFileURL(path.join(path.dirname(entry), String(found))).href
  )) as Record<string, unknown>;
  const getBackend = Object.values(module).find(
    (value) => typeof value === 'function' && value.name === 'getBackend',
  );
  interface Backend {
    malloc(...args: unknown[]): number;
    incRef(slot: number): void;
    decRef(slot: number): void;
  }
  for (const device of ['cpu', 'wasm']) {
    const backend = (getBackend as (device: string) => Backend)(device);
    for (const [name, by] of [
      ['malloc', 1],
      ['incRef', 1],
      ['decRef', -1],
    ] as const) {
      const original = backend[name].bind(backend) as (...args: unknown[]) => unknown;
      Object.defineProperty(backend, name, {
        configurable: true,
        value: (...args: unknown[]) => ((liveSlots += by), original(...args)),
      });
      unwatch.push(() => Reflect.deleteProperty(backend, name));
    }
  }
});
afterAll(() => {
  for (const restore of unwatch) restore();
});

function array(random: Random, shape: number[], scale = 1): JaxArray {
  const size = shape.reduce((a, b) => a * b, 1);
  return np.array(
    Float32Array.from({ length: size }, () => scale * normal(random)),
    { shape },
  );
}

const floats = (x: JaxArray): Float32Array => x.ref.dataSync() as Float32Array;
// A tree of jax-js needs the index signature of a type.
// oxlint-disable-next-line typescript/consistent-type-definitions
type Model = {
  embedding: JaxArray;
  layers: { weight: JaxArray; bias: JaxArray }[];
  head: { weight: JaxArray; bias: JaxArray };
};

function model(random: Random): Model {
  const [scale, width] = [0.7, 8];
  return {
    embedding: array(random, [V, width], scale),
    layers: [{ weight: array(random, [width, H], scale), bias: array(random, [H], scale) }],
    head: { weight: array(random, [V, H], scale), bias: array(random, [V], scale) },
  };
}

const wordsOf = (tokens: readonly number[]): JaxArray =>
  nn.oneHot(np.array(Int32Array.from(tokens), { dtype: np.int32 }), V);

/** Hidden states [sequences, T, H] of words [rows, V]. */
function hiddenOf({ embedding, layers }: Omit<Model, 'head'>, words: JaxArray): JaxArray {
  const embedded = np.dot(words.ref, embedding);
  const rows = layers.reduce(
    (x, { weight, bias }) => np.tanh(np.dot(x, weight).add(bias)),
    embedded,
  );
  return rows.reshape([-1, T, H]);
}

const logitsOf = ({ head, ...rest }: Model, words: JaxArray): JaxArray =>
  np.dot(hiddenOf(rest, words), np.transpose(head.weight)).add(head.bias);
const layerOf = ({ head, ...rest }: Model, words: JaxArray) => ({
  hidden: hiddenOf(rest, words),
  ...head,
});

const tokensOf = (random: Random): number[] =>
  Array.from({ length: S * T }, () => integer(random, 0, V - 1));

interface Calls {
  readonly from: string;
  readonly run: Readonly<Record<string, unknown>> | undefined;
  readonly logits?: Float32Array;
}

/** An objective that writes down its calls. */
function observed(objective: ObjectiveCalls) {
  const calls: Calls[] = [];
  const call = (batch: LogitsBatch, run: Parameters<ObjectiveCalls>[1]) => {
    calls.push({
      from: 'logits',
      run: run as Calls['run'],
      logits: (batch.logits as Float32Array).slice(),
    });
    return objective(batch, run);
  };
  const fromHidden = (...[batch, run]: Parameters<ObjectiveCalls['fromHidden']>) => {
    calls.push({ from: 'hidden', run: run as Calls['run'] });
    return objective.fromHidden(batch, run);
  };
  return { calls, objective: Object.assign(call, objective, { fromHidden }) };
}

describe.each<Device>(['cpu', 'wasm'])('on the %s device', (device) => {
  beforeAll(() => {
    defaultDevice(device);
  });

  test('loss, values and gradient are those of the core for the same logits', () => {
    const { logits, batch } = given(1);
    const objective = dirAlignLoss('dpo', 0.4);
    const params = { x: np.array(logits, { shape: [S, T, V] }) };
    expect(params.x.device).toBe(device);
    const { grads, ...values } = jaxDirAlignLoss(objective)(({ x }) => x, params, batch);
    const { gradLogits, ...expected } = objective({
      logits,
      shape: [S, T, V],
      labels: batch.labels,
      reference: batch.reference,
    });
    expect(values).toEqual(expected);
    expect(grads.x.shape).toEqual([S, T, V]);
    expect(floats(grads.x)).toEqual(gradLogits);
    expect(grads.x.device).toBe(device);
    expect(floats(params.x)).toEqual(logits);
  });

  test.each(['logits', 'jitted', 'hidden', 'jitted hidden'])(
    'the gradients of a model are those of the same loss of ops: %s',
    (kind) => {
      const random = generator(2);
      const params = model(random);
      const words = wordsOf(tokensOf(random));
      const { batch } = given(2);
      const forward = (kind.endsWith('hidden') ? layerOf : logitsOf) as (
        params: Model,
        words: JaxArray,
      ) => JaxArray;
      const jitted = jit(forward) as unknown as typeof forward;
      const f: JaxForward<Model> = (p) =>
        kind.startsWith('jitted') ? jitted(p, words.ref) : forward(p, words);
      const { loss, grads } = jaxDirAlignLoss(dirAlignLoss('dpo', 0.4))(f, params, batch);
      const ops = (p: Model): JaxArray => dpoOfOps(logitsOf(p, words), batch, 0.4);
      const expected = grad(ops)(tree.ref(params));
      const misses = new Misses();
      misses.near('loss', loss, ops(tree.ref(params)).item(), 2e-6);
      const leaves = tree.leaves<JaxArray>(grads);
      tree.leaves<JaxArray>(expected).forEach((leaf, i) => {
        const values = leaf.dataSync() as Float32Array;
        misses.require(largest(values) > 1e-3, `leaf ${i} has no gradient`);
        misses.each(
          `leaf ${i}`,
          floats(leaves[i] as JaxArray),
          values,
          () => 2e-5 * largest(values),
        );
      });
      expect(tree.structure(grads).equals(tree.structure(params))).toBe(true);
      expect(leaves.map(({ shape }) => shape)).toEqual(
        tree.leaves<JaxArray>(params).map(({ shape }) => shape),
      );
      expect(misses.list).toEqual([]);
    },
  );

  test('gradients of a layer in lent memory: each step has its own and returns it', async () => {
    const random = generator(31);
    const params = model(random);
    const objective = dirAlignLoss('dpo', 0.4);
    const { calls, objective: watched } = observed(objective);
    const step = jaxDirAlignLoss(watched);
    const buffers = new GradientBuffers();
    const roomOf = () =>
      (present(calls.at(-1)).run as { out: { gradWeight: Float32Array } }).out.gradWeight;
    const steps = Array.from({ length: 3 }, () => {
      const words = wordsOf(tokensOf(random));
      return [(p: Model) => layerOf(p, words), given(integer(random, 1, 99)).batch] as const;
    });
    const kept: JaxArray[][] = [];
    const expected: JaxArray[][] = [];
    for (const [forward, batch] of steps) {
      kept.push(tree.leaves<JaxArray>(step(forward, params, batch, { buffers }).grads));
      expect(roomOf()).toHaveLength(0);
      const later = await jaxDirAlignLoss(objective).async(forward, params, batch, { buffers });
      expected.push(tree.leaves<JaxArray>(step(forward, params, batch).grads));
      expect(roomOf()).not.toHaveLength(0);
      expect(tree.leaves<JaxArray>(later.grads).map(floats)).toEqual(
        kept.at(-1)?.map((x) => floats(x.ref)),
      );
    }
    expect(kept.map((grads) => grads.map(floats))).toEqual(
      expected.map((grads) => grads.map(floats)),
    );
    const [forward, batch] = steps[0] as (typeof steps)[0];
    expectRefusal(
      () => step(forward, params, batch, { buffers: {} as never }),
      'TypeError OPTION',
      'buffers: | GradientBuffers',
    );
    expect(() => step(forward, params, batch, { buffers, memory: 1 })).toThrow(/memory/);
    expect(roomOf()).toHaveLength(0);
  });

  test.each(['logits', 'hidden'])(
    'metrics that the run asks for, and no others: %s',
    async (kind) => {
      const random = generator(22);
      const params = model(random);
      const words = wordsOf(tokensOf(random));
      const { batch } = given(22);
      const forward: JaxForward<Model> = (p) =>
        kind === 'hidden' ? layerOf(p, words) : logitsOf(p, words);
      const step = jaxDirAlignLoss(dirAlignLoss('dpo', 0.4));
      const metrics = ['entropy', 'logits/rejected'] as const;
      const plain = step(forward, params, batch);
      expect(plain.metrics).not.toHaveProperty('entropy');
      for (const result of [
        step(forward, params, batch, { metrics }),
        await step.async(forward, params, batch, { metrics }),
      ]) {
        expect(result.metrics).toMatchObject(plain.metrics);
        expect(result.metrics.entropy).toBeGreaterThan(0);
        expect(Object.keys(result.metrics).sort()).toEqual(
          [...Object.keys(plain.metrics), ...metrics].sort(),
        );
      }
    },
  );

  test.each(['logits', 'hidden'])(
    'gradientScale multiplies the gradients, and nothing else: %s',
    async (kind) => {
      const random = generator(21);
      const params = model(random);
      const words = wordsOf(tokensOf(random));
      const { batch } = given(21);
      const forward: JaxForward<Model> = (p) =>
        kind === 'hidden' ? layerOf(p, words) : logitsOf(p, words);
      const step = jaxDirAlignLoss(dirAlignLoss('dpo', 0.4));
      const { grads: plain, ...values } = step(forward, params, batch);
      // A power of two: float32 scales exactly all the way back.
      const run = { gradientScale: 2 ** 8 };
      for (const { grads, ...scaled } of [
        step(forward, params, batch, run),
        await step.async(forward, params, batch, run),
      ]) {
        expect(scaled).toEqual(values);
        const expected = tree.leaves<JaxArray>(plain);
        tree.leaves<JaxArray>(grads).forEach((leaf, i) => {
          expect(floats(leaf)).toEqual(floats(expected[i] as JaxArray).map((g) => 2 ** 8 * g));
        });
      }
    },
  );

  test('every method: the gradients are the slope of the loss', () => {
    const misses = new Misses();
    const random = generator(3);
    const params = model(random);
    const words = wordsOf(tokensOf(random));
    const { batch } = given(3);
    // The cpu device interprets its kernels; two kinds of method there, with and without a
    // reference, and every one on the other.
    for (const forward of [logitsOf, layerOf]) {
      for (const method of device === 'cpu' ? (['ipo', 'orpo'] as const) : everyMethod) {
        const step = jaxDirAlignLoss(
          objectiveOf({ method, ...(method === 'sft' ? {} : { beta: 0.3 }) }),
        );
        // The model is in float32: steps along the gradient itself are large enough to see, and its
        // slope there is its square.
        const { grads } = step((p) => forward(p, words), params, batch);
        const norm = Math.sqrt(
          tree
            .leaves<JaxArray>(grads)
            .reduce((sum, g) => sum + floats(g).reduce((s, x) => s + x * x, 0), 0),
        );
        const lossAt = (h: number): number => {
          const moved = tree.map<JaxArray, JaxArray, Model>(
            (p, g) => p.add(g.mul(h / norm)),
            tree.ref(params),
            tree.ref(grads),
          );
          const { loss } = step((p) => forward(p, words), moved, batch, { gradient: 'none' });
          tree.dispose(moved);
          return loss;
        };
        const h = 2 ** -6;
        const slope =
          (4 * (lossAt(h) - lossAt(-h)) - (lossAt(2 * h) - lossAt(-2 * h)) / 2) / (6 * h);
        misses.near(method, norm, slope, 1e-3 * norm);
        misses.require(norm > 1e-3, `${method}: has no gradient`);
      }
    }
    expect(misses.list).toEqual([]);
  });

  test('one native call a step; nothing is differentiated for the loss alone', () => {
    const random = generator(4);
    const params = model(random);
    const words = wordsOf(tokensOf(random));
    const { batch } = given(4);
    const { calls, objective } = observed(dirAlignLoss('dpo', 0.4));
    const step = jaxDirAlignLoss(objective);
    const seen: unknown[] = [];
    const f: JaxForward<Model> = (p) => (seen.push(p.embedding), logitsOf(p, words));
    const full = step(f, params, batch, { threads: 1 });
    const alone = step(f, params, batch, { gradient: 'none' });
    const { grads, ...values } = full;
    expectNear(alone, values);
    expect(calls.map(({ from, run }) => [from, run?.gradient, run?.threads])).toEqual([
      ['logits', 'dense', 1],
      ['logits', 'none', undefined],
    ]);
    expect(seen.map((x) => x instanceof JaxArray)).toEqual([false, true]);
    expect(calls[1]?.logits).toEqual(logitsOf(tree.ref(params), words).dataSync());
    tree.dispose(grads);
  });

  test('what does not depend on the parameters is frozen: the same gradients, none for it', () => {
    const random = generator(5);
    const { head, ...rest } = model(random);
    const words = wordsOf(tokensOf(random));
    const { batch } = given(5);
    const { calls, objective } = observed(dirAlignLoss('dpo', 0.4));
    const step = jaxDirAlignLoss(objective);
    const whole = step((p) => layerOf(p, words), { ...rest, head }, batch).grads;
    const body = step(
      (p) => ({ hidden: hiddenOf(p, words), weight: head.weight.ref, bias: head.bias.ref }),
      rest,
      batch,
    ).grads;
    const hidden = hiddenOf(tree.ref(rest), words);
    const top = step((p) => ({ hidden: hidden.ref, ...p }), head, batch).grads;
    const bias = step(
      (p) => ({ hidden: hidden.ref, weight: head.weight.ref, bias: p }),
      head.bias,
      batch,
    ).grads;
    const misses = new Misses();
    const { head: headOfWhole, ...bodyOfWhole } = whole;
    for (const [some, all] of [
      [body, bodyOfWhole],
      [top, headOfWhole],
      [bias, headOfWhole.bias],
    ] as const) {
      const expected = tree.leaves<JaxArray>(all);
      tree.leaves<JaxArray>(some).forEach((leaf, i) => {
        const values = floats(expected[i] as JaxArray);
        misses.each(`leaf ${i}`, floats(leaf), values, () => 1e-5 * largest(values));
      });
    }
    expect(misses.list).toEqual([]);
    const kinds = calls.map(({ run }) =>
      Object.values(run?.out as Record<string, unknown>).map((out) =>
        out instanceof Float32Array ? 'computed' : out,
      ),
    );
    expect(kinds).toEqual([
      ['computed', 'computed', 'computed'],
      ['computed', false, false],
      [false, 'computed', 'computed'],
      [false, false, 'computed'],
    ]);
  });

  test('packed batches, Arrays for labels and reference, and sftLabels', () => {
    const { logits, batch } = given(6);
    const step = jaxDirAlignLoss(dirAlignLoss('dpo', 0.4, false, { sftWeight: 0.5 }));
    const sftLabels = batch.labels.map((label) => (label === -100 ? 3 : label));
    const reference = Float32Array.from(batch.reference);
    const gradOf = (shape: number[], from: Parameters<typeof step>[2]): Float32Array =>
      step((x: JaxArray) => x, np.array(logits, { shape }), from).grads.dataSync() as Float32Array;
    const arrays = gradOf([S, T, V], { labels: batch.labels, sftLabels, reference });
    const inJax = {
      labels: np.array(batch.labels, { shape: [S, T] }),
      sftLabels: np.array(sftLabels, { shape: [S, T] }),
      reference: np.array(reference),
    };
    const offsets = Int32Array.from({ length: S + 1 }, (_, i) => i * T);
    for (let i = 0; i < 2; i++) expect(gradOf([S, T, V], inJax)).toEqual(arrays);
    expect(tree.leaves<JaxArray>(inJax).map(({ refCount }) => refCount)).toEqual([1, 1, 1]);
    expect(
      gradOf([S * T, V], { ...inJax, labels: np.array(batch.labels), sftLabels, offsets }),
    ).toEqual(arrays);
    expect(gradOf([S, T, V], { labels: batch.labels, reference })).not.toEqual(arrays);
    const other = batch.labels.map((label) => (label === -100 ? -1 : label));
    expect(gradOf([S, T, V], { labels: other, ignoreIndex: -1, sftLabels, reference })).toEqual(
      arrays,
    );
  });

  test('sequenceLogps makes the reference: a policy equal to it has a loss of ln 2', async () => {
    const random = generator(7);
    const params = model(random);
    const words = wordsOf(tokensOf(random));
    const { labels } = given(7).batch;
    const dpo = jaxDirAlignLoss(dirAlignLoss('dpo', 0.1));
    for (const forward of [logitsOf, layerOf] as JaxForward<Model>[]) {
      const f: JaxForward<Model> = (p) =>
        (forward as (p: Model, words: JaxArray) => JaxArray)(p, words);
      const made = sequenceLogps(f, params, { labels }, { threads: 1 });
      expect(await sequenceLogps.async(f, params, { labels })).toEqual(made);
      if (forward === (logitsOf as unknown)) {
        const logits = logitsOf(tree.ref(params), words).dataSync() as Float32Array;
        expect(made).toEqual(sequenceLogpsOf({ logits, shape: [S, T, V], labels }));
      }
      expect(dpo(f, params, { labels, reference: made.logps }, { gradient: 'none' }).loss).toBe(
        Math.LN2,
      );
    }
  });

  test('async gives the same bits, and can be aborted', async () => {
    const random = generator(8);
    const params = model(random);
    const words = wordsOf(tokensOf(random));
    const { batch } = given(8);
    const dpo = jaxDirAlignLoss(dirAlignLoss('dpo', 0.4));
    const labels = np.array(batch.labels, { shape: [S, T] });
    for (const forward of [logitsOf, layerOf]) {
      const f: JaxForward<Model> = (p) => forward(p, words);
      const { grads, ...values } = dpo(f, params, batch);
      const later = await dpo.async(f, params, { ...batch, labels });
      const { grads: laterGrads, ...laterValues } = later;
      expect(laterValues).toEqual(values);
      expect(tree.leaves<JaxArray>(laterGrads).map(floats)).toEqual(
        tree.leaves<JaxArray>(grads).map(floats),
      );
      expectNear(await dpo.async(f, params, batch, { gradient: 'none' }), values);
      const signal = AbortSignal.abort('enough');
      await expect(dpo.async(f, params, batch, { signal })).rejects.toMatchObject({
        code: 'ERR_DIRALIGN_ABORTED',
      });
    }
    expect(labels.refCount).toBe(1);
  });

  test("params and batch stay the caller's, gradients become so, no memory is kept", async () => {
    const random = generator(9);
    const params = model(random);
    const words = wordsOf(tokensOf(random));
    const { batch } = given(9);
    const inJax = {
      labels: np.array(batch.labels, { shape: [S, T] }),
      reference: np.array(Float32Array.from(batch.reference)),
    };
    const before = tree.leaves<JaxArray>(params).map(floats);
    const dpo = jaxDirAlignLoss(dirAlignLoss('dpo', 0.4));
    const f: JaxForward<Model> = (p) => logitsOf(p, words);
    const h: JaxForward<Model> = (p) => layerOf(p, words);
    const frozen: JaxForward<Model['head']> = (p) => ({
      hidden: array(generator(1), [S, T, H]),
      ...p,
    });
    const wrong: JaxForward<Model> = (p) => logitsOf(p, words).reshape([S * T, V]);
    const ignorant: JaxForward<Model> = (p) => (tree.dispose(p), np.zeros([S, T, V]).add(1));
    const round = async (): Promise<void> => {
      for (const forward of [f, h]) {
        for (const given of [batch, inJax]) {
          const { grads } = dpo(forward, params, given);
          expect(tree.leaves<JaxArray>(grads).map(({ refCount }) => refCount)).toEqual([
            1, 1, 1, 1, 1,
          ]);
          tree.dispose(grads);
          dpo(forward, params, given, { gradient: 'none' });
          tree.dispose((await dpo.async(forward, params, given)).grads);
        }
        sequenceLogps(forward, params, { labels: inJax.labels });
        await sequenceLogps.async(forward, params, { labels: inJax.labels });
        for (const bad of [
          { labels: batch.labels },
          { ...batch, labels: new Int32Array(3) },
          { ...inJax, labels: batch.labels.fill.call(batch.labels.slice(), V) },
        ]) {
          expect(() => dpo(forward, params, bad as never)).toThrow(DirAlignError);
          await expect(dpo.async(forward, params, bad as never)).rejects.toBeInstanceOf(
            DirAlignError,
          );
        }
      }
      tree.dispose(dpo(frozen, params.head, batch).grads);
      for (const bad of [wrong, ignorant])
        expect(() => dpo(bad, params, batch)).toThrow(DirAlignError);
      expect(() => sequenceLogps(wrong, params, { labels: inJax.labels })).toThrow(DirAlignError);
      expect(() => dpo(f, params, { ...inJax, labels: inJax.reference })).toThrow(DirAlignError);
    };
    await round();
    const slots = liveSlots;
    for (let i = 0; i < 2; i++) await round();
    expect(liveSlots).toBe(slots);
    expect(
      [...tree.leaves<JaxArray>(params), ...tree.leaves<JaxArray>(inJax), words].map(
        ({ refCount }) => refCount,
      ),
    ).toEqual(Array.from({ length: 8 }, () => 1));
    expect(tree.leaves<JaxArray>(params).map(floats)).toEqual(before);
    // That slots are counted at all.
    dpo(f, params, batch);
    expect(liveSlots).toBeGreaterThan(slots);
  });

  test.each(['logits', 'hidden'])('trains a model from %s', (from) => {
    const { tokens, labels } = pairsOfWords(generator(10), 6);
    const words = wordsOf(tokens.flat());
    const forward: JaxForward<Model> = (p) =>
      from === 'logits' ? logitsOf(p, words) : layerOf(p, words);
    let params = model(generator(11));
    const { logps: reference } = sequenceLogps(forward, params, { labels });
    const dpo = jaxDirAlignLoss(dirAlignLoss('dpo', 0.5));
    const losses: number[] = [];
    let accuracy: number | undefined;
    let slots = 0;
    for (let i = 0; i < 30; i++) {
      const { loss, grads, metrics } = dpo(forward, params, { labels, reference });
      params = tree.map<JaxArray, JaxArray, Model>((p, g) => p.sub(g.mul(1)), params, grads);
      losses.push(loss);
      accuracy = metrics['rewards/accuracies'];
      tree.leaves<JaxArray>(params).forEach(floats);
      if (i === 1) slots = liveSlots;
    }
    expect(liveSlots).toBe(slots);
    expect(losses[0]).toBeCloseTo(Math.LN2, 6);
    expect(losses.at(-1)).toBeLessThan(0.3 * Math.LN2);
    expect(accuracy).toBe(1);
    tree.dispose(params);
  });
});

describe('what is refused', () => {
  const { logits, batch } = given(13);
  const objective = dirAlignLoss('dpo', 0.1);
  const loss = jaxDirAlignLoss(objective);
  const random = generator(13);
  const identity = (x: JaxArray): JaxArray => x;
  const x = (shape: number[] = [S, T, V]): JaxArray => np.array(logits, { shape });
  const layer = () => ({
    hidden: array(random, [S, T, H]),
    weight: array(random, [V, H]),
    bias: array(random, [V]),
  });
  const labels = (shape: number[] = [S, T]): JaxArray => np.array(batch.labels, { shape });
  const freed = <A extends JaxArray>(array: A): A => (array.dispose(), array);
  type Call = (step: typeof loss | typeof loss.async) => unknown;
  const refused: [Call, Kind, Words][] = [
    [
      (f) => f(x() as never, x(), batch),
      'TypeError OPTION',
      'forward: expected a function of params, not Array',
    ],
    [
      (f) => f(identity, { w: logits } as never, batch),
      'TypeError OPTION',
      'params: | Float32Array',
    ],
    [(f) => f(identity, freed(x()), batch), 'TypeError SHAPE', 'params: the array is freed | .ref'],
    [
      (f) => f(identity, x(), undefined as never),
      'TypeError OPTION',
      'batch: expected an object, not undefined',
    ],
    [
      (f) => f(identity, x(), { ...batch, shape: [] } as never),
      'TypeError OPTION',
      'batch.shape: no such option',
    ],
    [
      (f) => f(identity, x(), batch, { out: logits } as never),
      'TypeError OPTION',
      'run.out: no such option',
    ],
    [
      (f) => f(identity, x(), batch, { gradient: 'factored' as never }),
      'TypeError OPTION',
      "run.gradient: 'factored'",
    ],
    [(f) => f(identity, x(), batch, { memory: 1e9 }), 'TypeError OPTION', 'run.memory'],
    [(f) => f((p) => p, layer(), batch, { memory: 1 }), 'RangeError OPTION', 'memory: 1 bytes'],
    [
      (f) => f((() => undefined) as never, x(), batch),
      'TypeError OPTION',
      'forward: expected to return logits | undefined',
    ],
    [
      (f) => f((p) => ({ ...p, kernel: p.weight.ref }), layer(), batch),
      'TypeError OPTION',
      'forward.kernel: no such',
    ],
    [
      (f) => f(((p: JaxArray) => ({ hidden: p })) as never, x(), batch),
      'TypeError DTYPE',
      'weight: expected an Array of float32',
    ],
    [(f) => f(() => x(), x(), batch), 'TypeError OPTION', 'forward: | does not depend on params'],
    [
      (f) => f((p) => p.astype(np.float16), x(), batch),
      'TypeError DTYPE',
      'logits: its dtype is float16; expected float32',
    ],
    [
      (f) => f(identity, x([S * T, V]), batch),
      'RangeError SHAPE',
      `logits: its shape is [${S * T}, ${V}]; expected [sequences, tokens, vocab]`,
    ],
    [
      (f) => f(identity, x(), { ...batch, offsets: Int32Array.of(0, 20) }),
      'RangeError SHAPE',
      'expected [rows, vocab]',
    ],
    [
      (f) => f((p) => ({ ...p, weight: np.transpose(p.weight) }), layer(), batch),
      'RangeError SHAPE',
      `weight: its shape is [${H}, ${V}]; expected [vocab, ${H}]`,
    ],
    [
      (f) => f((p) => ({ ...p, bias: p.bias.reshape([1, V]) }), layer(), batch),
      'RangeError SHAPE',
      `bias: its shape is [1, ${V}]; expected [${V}]`,
    ],
    [
      (f) => f(identity, x(), { ...batch, labels: labels().astype(np.float32) }),
      'TypeError LABEL',
      'labels: its dtype is float32; expected int32 | astype',
    ],
    [
      (f) => f(identity, x(), { ...batch, labels: freed(labels()) }),
      'TypeError SHAPE',
      'labels: the array is freed',
    ],
    [
      (f) => f(identity, x(), { ...batch, labels: labels([T, S]) }),
      'RangeError SHAPE',
      `labels: its shape is [${T}, ${S}]; expected [${S}, ${T}]`,
    ],
    [
      (f) => f(identity, x(), { ...batch, labels: [1] as never }),
      'TypeError LABEL',
      'labels: expected Int32Array, not Array',
    ],
    [
      (f) => f(identity, x(), { ...batch, labels: batch.labels.slice().fill(V) }),
      'RangeError LABEL',
      `labels[0]: ${V}`,
    ],
    [
      (f) => f(identity, x(), { labels: batch.labels } as never),
      'TypeError REFERENCE',
      "reference: 'dpo' needs",
    ],
    [
      (f) => f(identity, x(), { ...batch, reference: np.zeros([2, 2]) }),
      'RangeError REFERENCE',
      'reference: its shape is [2, 2]; expected [sequences]',
    ],
    [
      (f) => f(identity, x(), { ...batch, reference: np.zeros([S], { dtype: np.int32 }) }),
      'TypeError REFERENCE',
      'reference: its dtype is int32',
    ],
  ];
  test.each(titled(refused))('%s', async (_, call, kind, words) => {
    defaultDevice('wasm');
    expectRefusal(() => call(loss), kind, words);
    const later = await Promise.resolve(call(loss.async)).catch((error: unknown) => error);
    expectRefusal(later, kind, words);
  });

  test('no objective, a signal for a synchronous call, options that sequenceLogps lacks', () => {
    expectRefusal(
      () => jaxDirAlignLoss('dpo' as never),
      'TypeError OPTION',
      "objective: expected what dirAlignLoss returns, not 'dpo'",
    );
    const signal = { signal: new AbortController().signal };
    expectRefusal(
      () => loss(identity, x(), batch, signal as never),
      'TypeError OPTION',
      'run.signal: no such option',
    );
    expectRefusal(
      () => sequenceLogps(identity, x(), batch, signal as never),
      'TypeError OPTION',
      'run.signal',
    );
    expectRefusal(
      () => sequenceLogps(identity, x([S * T, V]), batch),
      'RangeError SHAPE',
      'logits: its shape',
    );
  });

  test('params under a transformation of jax-js', () => {
    const inside = thrownBy(() => grad((p: JaxArray) => (loss(identity, p, batch), p.sum()))(x()));
    expectRefusal(inside, 'TypeError OPTION', 'cannot be inside of jit, grad or vmap');
  });

  test('nothing is computed, and the model is not called where it need not be', () => {
    const { calls, objective: watched } = observed(objective);
    const step = jaxDirAlignLoss(watched);
    let forwards = 0;
    const counting = (p: JaxArray): JaxArray => (forwards++, p);
    for (const bad of [
      { ...batch, more: 1 },
      { ...batch, labels: labels().astype(np.float32) },
    ]) {
      expect(() => step(counting, x(), bad)).toThrow(DirAlignError);
    }
    expect(forwards).toBe(0);
    expect(() => step(counting, x([S * T, V]), batch)).toThrow(DirAlignError);
    expect(forwards).toBe(1);
    expect(calls).toEqual([]);
  });
});

test('a model on another device than the default one', async () => {
  defaultDevice('wasm');
  const { logits, batch } = given(12);
  const x = await devicePut(np.array(logits, { shape: [S, T, V] }), 'cpu');
  const step = jaxDirAlignLoss(dirAlignLoss('dpo', 0.4));
  const { grads } = step((y: JaxArray) => y.mul(2), x, batch);
  expect(grads.device).toBe('cpu');
  expect(largest(grads.dataSync() as Float32Array)).toBeGreaterThan(0.01);
});

/**
 * Of the same logits up to their last bits: the cpu device rounds otherwise under a tape than
 * without one.
 */
function expectNear(found: JaxLossValues, expected: JaxLossValues): void {
  expect(found).not.toHaveProperty('grads');
  const misses = new Misses();
  misses.near('loss', found.loss, expected.loss, 1e-6);
  for (const name of ['losses', 'logps', 'counts', 'rewards', 'coefficients'] as const) {
    misses.each(name, found[name], expected[name], () => 1e-5 * largest(expected[name]));
  }
  expect(misses.list).toEqual([]);
  expect(Object.keys(found).sort()).toEqual(Object.keys(expected).sort());
}

/** DPO of jax-js's own ops. */
function dpoOfOps(
  logits: JaxArray,
  { labels, reference }: { labels: Int32Array; reference: Float64Array },
  beta: number,
): JaxArray {
  const scored = np.array(
    Float32Array.from(labels, (label) => (label === -100 ? 0 : 1)),
    { shape: [S, T] },
  );
  const words = nn.oneHot(
    np.array(
      labels.map((label) => Math.max(label, 0)),
      { shape: [S, T] },
    ),
    V,
  );
  const logps = nn.logSoftmax(logits, -1).mul(words).sum(-1).mul(scored).sum(-1);
  const ratios = logps.sub(np.array(Float32Array.from(reference))).reshape([2, S / 2]);
  const signs = np.array(Float32Array.of(-beta, beta), { shape: [2, 1] });
  return nn.softplus(ratios.mul(signs).sum(0)).mean();
}
