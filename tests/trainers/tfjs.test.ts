// diralign/tfjs as a user of TensorFlow.js meets it, on the cpu and the wasm backend.
import { createRequire } from 'node:module';
import path from 'node:path';
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import { setWasmPaths } from '@tensorflow/tfjs-backend-wasm';
import * as layers from '@tensorflow/tfjs-layers';
import { beforeAll, describe, expect, test } from 'vitest';
import {
  dirAlignLoss,
  GradientBuffers,
  sequenceLogps as sequenceLogpsOf,
  type LogitsBatch,
  type ObjectiveCalls,
} from '../../ts/index.js';
import { sequenceLogps, tfDirAlignLoss } from '../../ts/trainers/tfjs/index.js';
import type { TfLossResult } from '../../ts/trainers/tfjs/types.js';
import { everyMethod, objectiveOf } from '../support/batches.js';
import { Misses } from '../support/bounds.js';
import { at, generator, integer, normal, type Random } from '../support/numbers.js';
import { given, largest, pairsOfWords, S, T, V, type Given } from '../support/trainers.js';
import { expectRefusal, thrownBy, titled, type Kind, type Words } from '../support/refusal.js';

const require = createRequire(import.meta.url);
setWasmPaths(
  path.join(path.dirname(require.resolve('@tensorflow/tfjs-backend-wasm/package.json')), 'dist/'),
);

/** DPO of TensorFlow.js's own ops, differentiated by TensorFlow.js. */
function dpoOfOps(
  logits: tf.Tensor3D,
  { labels, reference }: Given['batch'],
  beta: number,
): tf.Scalar {
  const [sequences, tokens, vocab] = logits.shape;
  const scored = tf.tensor2d(
    Float32Array.from(labels, (label) => (label === -100 ? 0 : 1)),
    [sequences, tokens],
  );
  const words = tf.tensor2d(
    labels.map((label) => Math.max(label, 0)),
    [sequences, tokens],
    'int32',
  );
  const chosenWords = tf.oneHot(words, vocab);
  const logps = tf.sum(tf.mul(tf.sum(tf.mul(tf.logSoftmax(logits), chosenWords), -1), scored), -1);
  const ratios = tf.sub(logps, tf.tensor1d(Float32Array.from(reference)));
  const [chosen, rejected] = tf.split(ratios, 2) as [tf.Tensor, tf.Tensor];
  return tf.mean(tf.softplus(tf.mul(tf.sub(chosen, rejected), -beta)));
}

/** An objective that writes down its calls. */
function observed(objective: ObjectiveCalls) {
  const calls: {
    batch: Partial<LogitsBatch>;
    gradient: unknown;
    gradLogits?: unknown;
    gradWeight?: unknown;
  }[] = [];
  const call = (batch: LogitsBatch, run: Parameters<ObjectiveCalls>[1]) => {
    const result = objective(batch, run);
    calls.push({ batch, gradient: run?.gradient, gradLogits: result.gradLogits });
    return result;
  };
  const fromHidden = (...[batch, run]: Parameters<ObjectiveCalls['fromHidden']>) => {
    const result = objective.fromHidden(batch, run);
    calls.push({ batch: {}, gradient: run?.gradient, gradWeight: result.gradWeight });
    return result;
  };
  return { calls, objective: Object.assign(call, objective, { fromHidden }) };
}

const floats = (x: tf.Tensor): Float32Array => x.dataSync<'float32'>();
describe.each(['cpu', 'wasm'])('on the %s backend', (backend) => {
  beforeAll(async () => {
    expect(await tf.setBackend(backend)).toBe(true);
    await tf.ready();
  });

  test('loss and gradient are those of the same loss made of ops', () => {
    const { logits, batch } = given(1);
    const dpo = tfDirAlignLoss(dirAlignLoss('dpo', 0.4));
    const x = tf.tensor3d(logits, [S, T, V]);
    const native = tf.valueAndGrad((y: tf.Tensor) => dpo(y, batch))(x);
    const ops = tf.valueAndGrad((y: tf.Tensor) => dpoOfOps(y as tf.Tensor3D, batch, 0.4))(x);
    expect(native.value.shape).toEqual([]);
    expect(native.grad.shape).toEqual([S, T, V]);
    const misses = new Misses();
    const expected = ops.grad.dataSync();
    misses.near('loss', native.value.dataSync()[0], at(ops.value.dataSync(), 0), 1e-6);
    misses.each('gradient', native.grad.dataSync(), expected, () => 2e-6 * largest(expected));
    expect(misses.list).toEqual([]);
    expect(largest(expected)).toBeGreaterThan(0.01);
  });

  test('every method: the gradient is the slope of the loss', () => {
    const misses = new Misses();
    const random = generator(2);
    for (const method of everyMethod) {
      const objective = objectiveOf({ method, ...(method === 'sft' ? {} : { beta: 0.3 }) });
      const loss = tfDirAlignLoss(objective);
      const { logits, batch } = given(3);
      // Along a direction, in float64 as onResult has it; the step is a power of two, so that it is
      // exact.
      const direction = Float32Array.from(logits, () => integer(random, -2, 2));
      const lossAt = (step: number): number => {
        let result: TfLossResult | undefined;
        const moved = tf.tensor3d(
          logits.map((value, i) => Math.fround(value + step * at(direction, i))),
          [S, T, V],
        );
        loss(moved, batch, { onResult: (r) => (result = r) });
        return (result as unknown as TfLossResult).loss;
      };
      const step = 2 ** -8;
      const slope =
        (4 * (lossAt(step) - lossAt(-step)) - (lossAt(2 * step) - lossAt(-2 * step)) / 2) /
        (6 * step);
      const gradient = floats(
        tf.grad((y: tf.Tensor) => loss(y, batch))(tf.tensor3d(logits, [S, T, V])),
      );
      const along = gradient.reduce((sum, g, i) => sum + g * at(direction, i), 0);
      const size = gradient.reduce((sum, g, i) => sum + Math.abs(g * at(direction, i)), 0);
      misses.near(method, along, slope, 2e-4 * size);
      misses.require(size > 0, `${method}: has no gradient`);
    }
    expect(misses.list).toEqual([]);
  });

  test('what comes after the loss scales its gradient', () => {
    const { logits, batch } = given(4);
    const dpo = tfDirAlignLoss(dirAlignLoss('dpo', 0.4));
    const x = tf.tensor3d(logits, [S, T, V]);
    const loss = (y: tf.Tensor): tf.Scalar => dpo(y, batch);
    const one = tf.grad(loss)(x).dataSync();
    const misses = new Misses();
    const seeded = tf.grad(loss)(x, tf.scalar(-0.25)).dataSync();
    misses.each(
      'seeded',
      seeded,
      one.map((g) => -0.25 * g),
      () => 0,
    );
    // d(3 L(x) + L(2 x))/dx = 3 L'(x) + 2 L'(2 x): two records of the op on one tape.
    const two = tf.grad(loss)(tf.mul(x, 2)).dataSync();
    const sum = tf
      .grad((y: tf.Tensor) => tf.add(tf.mul(loss(y), 3), loss(tf.mul(y, 2))))(x)
      .dataSync();
    misses.each(
      'sum',
      sum,
      one.map((g, i) => 3 * g + 2 * at(two, i)),
      () => 1e-6 * largest(one),
    );
    expect(misses.list).toEqual([]);
  });

  test('metrics that the run asks for are those of the call', () => {
    const { logits, batch } = given(19);
    const results: TfLossResult[] = [];
    const dpo = dirAlignLoss('dpo', 0.4);
    const run = {
      metrics: ['entropy', 'mean_token_accuracy'],
      onResult: (result: TfLossResult) => results.push(result),
    } as const;
    tfDirAlignLoss(dpo)(tf.tensor3d(logits, [S, T, V]), batch, run).dataSync();
    const { metrics } = run;
    const direct = dpo({ ...batch, logits, shape: [S, T, V] }, { metrics });
    expect(results[0]?.metrics).toEqual(direct.metrics);
    expect(direct.metrics.entropy).toBeGreaterThan(0);
  });

  test('gradientScale multiplies the gradient, and neither the loss nor the result', () => {
    const { logits, batch } = given(17);
    const x = tf.tensor3d(logits, [S, T, V]);
    const results: TfLossResult[] = [];
    const dpo = tfDirAlignLoss(dirAlignLoss('dpo', 0.4));
    const [plain, scaled] = [1, 32].map((gradientScale) => {
      const run = { gradientScale, onResult: (result: TfLossResult) => results.push(result) };
      return tf.valueAndGrad((y: tf.Tensor) => dpo(y, batch, run))(x);
    });
    expect(results[1]).toEqual(results[0]);
    expect(scaled?.value.dataSync()).toEqual(plain?.value.dataSync());
    expect(scaled?.grad.dataSync()).toEqual(plain?.grad.dataSync<'float32'>().map((g) => 32 * g));
  });

  test('packed batches, tensors for labels and reference, and sftLabels', () => {
    const { logits, batch } = given(5);
    const loss = tfDirAlignLoss(dirAlignLoss('dpo', 0.4, false, { sftWeight: 0.5 }));
    const sftLabels = batch.labels.map((label) => (label === -100 ? 3 : label));
    const reference = Float32Array.from(batch.reference);
    const gradOf = (shape: number[], given: Parameters<typeof loss>[1]): Float32Array =>
      floats(tf.grad((y: tf.Tensor) => loss(y, given))(tf.tensor(logits, shape)));
    const arrays = gradOf([S, T, V], { labels: batch.labels, sftLabels, reference });
    const tensors = gradOf([S, T, V], {
      labels: tf.tensor2d(batch.labels, [S, T], 'int32'),
      sftLabels: tf.tensor2d(sftLabels, [S, T], 'int32'),
      reference: tf.tensor1d(reference),
    });
    const offsets = Int32Array.from({ length: S + 1 }, (_, i) => i * T);
    const packed = gradOf([S * T, V], {
      labels: tf.tensor1d(batch.labels, 'int32'),
      sftLabels,
      reference,
      offsets,
    });
    const without = gradOf([S, T, V], { labels: batch.labels, reference });
    expect(tensors).toEqual(arrays);
    expect(packed).toEqual(arrays);
    expect(without).not.toEqual(arrays);
  });

  test('sequenceLogps makes the reference: a policy equal to it has a loss of ln 2', () => {
    const { logits, batch } = given(6);
    const x = tf.tensor3d(logits, [S, T, V]);
    const before = tf.memory().numTensors;
    const made = sequenceLogps(x, { labels: batch.labels }, { threads: 1 });
    expect(made).toEqual(sequenceLogpsOf({ logits, shape: [S, T, V], labels: batch.labels }));
    let result: TfLossResult | undefined;
    const dpo = tfDirAlignLoss(dirAlignLoss('dpo', 0.1));
    dpo(
      x,
      { labels: batch.labels, reference: made.logps },
      { onResult: (r) => (result = r) },
    ).dispose();
    expect(result?.loss).toBe(Math.LN2);
    expect(tf.memory().numTensors).toBe(before);
  });

  test('onResult has what the objective returns, but for the gradient', () => {
    const { logits, batch } = given(7);
    const objective = dirAlignLoss('orpo', 0.3);
    const { gradLogits, ...expected } = objective({
      logits,
      shape: [S, T, V],
      labels: batch.labels,
    });
    const x = tf.tensor3d(logits, [S, T, V]);
    const results: TfLossResult[] = [];
    const loss = (y: tf.Tensor): tf.Scalar =>
      tfDirAlignLoss(objective)(
        y,
        { labels: batch.labels },
        { onResult: (r) => results.push(r), threads: 1 },
      );
    const { value, grad } = tf.valueAndGrad(loss)(x);
    expect(loss(x).dataSync()).toEqual(value.dataSync());
    expect(results).toEqual([expected, expected]);
    expect(value.dataSync()[0]).toBe(Math.fround(expected.loss));
    expect(grad.dataSync()).toEqual(gradLogits);
  });

  test('the gradient is computed where one is recorded, once', () => {
    const { logits, batch } = given(8);
    const { objective, calls } = observed(dirAlignLoss('dpo', 0.1));
    const loss = tfDirAlignLoss(objective);
    const x = tf.tensor3d(logits, [S, T, V]);
    loss(x, batch);
    tf.tidy(() => loss(x, batch));
    tf.grad((y: tf.Tensor) => loss(y, batch))(x);
    expect(calls.map(({ gradient }) => gradient)).toEqual(['none', 'none', 'dense']);
  });

  test('a hundred steps leave no tensor and no byte', () => {
    const { logits, batch } = given(9);
    const dpo = tfDirAlignLoss(dirAlignLoss('dpo', 0.1));
    const x = tf.variable(tf.tensor3d(logits, [S, T, V]));
    const optimizer = tf.train.sgd(0.5);
    const step = (): void => {
      optimizer.minimize(() => dpo(x, batch), false, [x]);
      tf.dispose(tf.grad((y: tf.Tensor) => tf.mul(dpo(y, batch), 2))(x));
      // Recorded and never differentiated.
      tf.dispose(tf.grad((y: tf.Tensor) => (dpo(y, batch), tf.sum(y)))(x));
      dpo(x, batch).dispose();
      expect(() => dpo(x, { ...batch, reference: undefined as never })).toThrow();
    };
    step();
    const { numTensors, numBytes, numDataBuffers } = tf.memory();
    for (let i = 0; i < 100; i++) step();
    expect(tf.memory()).toMatchObject({ numTensors, numBytes, numDataBuffers });
  });

  test('a recorded loss keeps no tensor for the backward pass', () => {
    const { logits, batch } = given(20);
    const dpo = tfDirAlignLoss(dirAlignLoss('dpo', 0.1));
    const keptBy = (loss: (y: tf.Tensor) => tf.Scalar): number => {
      let kept = NaN;
      tf.grad((y: tf.Tensor) => {
        const before = tf.memory().numDataBuffers;
        tf.tidy(() => loss(tf.add(y, 1)));
        kept = tf.memory().numDataBuffers - before;
        return tf.sum(y);
      })(tf.tensor3d(logits, [S, T, V]));
      return kept;
    };
    const bySum = keptBy(() => tf.scalar(0));
    expect(keptBy((y) => dpo(y, batch))).toBe(bySum);
    // Ops that need their input do keep some.
    expect(keptBy((y) => tf.sum(tf.square(y)))).toBeGreaterThan(bySum);
  });

  test.each(['sgd', 'adam'] as const)('trains with %s', (name) => {
    const { tokens, labels } = pairsOfWords(generator(10), 6);
    const optimizer = {
      sgd: () => tf.train.sgd(2),
      adam: () => tf.train.adam(0.1),
    }[name]();
    const inputs = tf.oneHot(tf.tensor1d(tokens.flat(), 'int32'), V);
    const weight = tf.variable(
      tf.tensor2d(
        Float32Array.from({ length: V * V }, (_, i) => Math.sin(i) / 4),
        [V, V],
      ),
    );
    const forward = (): tf.Tensor => tf.reshape(tf.matMul(inputs, weight), [tokens.length, T, V]);
    const initial = tf.tidy(forward);
    const { logps: reference } = sequenceLogps(initial, { labels });
    const dpo = tfDirAlignLoss(dirAlignLoss('dpo', 0.5));
    const losses: number[] = [];
    for (let i = 0; i < 25; i++) {
      optimizer.minimize(
        () => dpo(forward(), { labels, reference }, { onResult: ({ loss }) => losses.push(loss) }),
        false,
        [weight],
      );
    }
    expect(losses).toHaveLength(25);
    expect(losses[0]).toBe(Math.LN2);
    expect(losses.at(-1)).toBeLessThan(0.5 * Math.LN2);
    optimizer.dispose();
  });

  test('trains a model of tfjs-layers, by minimize', () => {
    const { tokens, labels } = pairsOfWords(generator(11), 8);
    const model = layers.sequential({
      layers: [
        layers.layers.dense({
          units: 12,
          activation: 'tanh',
          inputShape: [T, V],
          kernelInitializer: seeded(1),
        }),
        layers.layers.dense({ units: V, kernelInitializer: seeded(2) }),
      ],
    });
    const inputs = tf.oneHot(tf.tensor2d(tokens, undefined, 'int32'), V);
    const { logps: reference } = sequenceLogps(model.predict(inputs) as tf.Tensor, { labels });
    const dpo = tfDirAlignLoss(dirAlignLoss('dpo', 0.5));
    const optimizer = tf.train.adam(0.02);
    const results: TfLossResult[] = [];
    const step = (): void => {
      optimizer.minimize(() =>
        dpo(
          model.apply(inputs, { training: true }) as tf.Tensor,
          { labels, reference },
          { onResult: (r) => results.push(r) },
        ),
      );
    };
    step();
    const { numTensors } = tf.memory();
    for (let i = 0; i < 60; i++) step();
    expect(tf.memory().numTensors).toBe(numTensors);
    expect(results[0]?.loss).toBe(Math.LN2);
    expect(results.at(-1)?.loss).toBeLessThan(0.2);
    expect(results.at(-1)?.metrics['rewards/accuracies']).toBe(1);
    model.dispose();
  });

  test('trains a model of tfjs-layers, by compile and fit', async () => {
    // fit shuffles samples, so a sample is a pair: tokens [pairs, 2, T], logits [pairs, 2, T, V].
    // It wants targets of the shape of the model's output: the label of a row, repeated.
    const pairs = 8;
    const { tokens, labels } = pairsOfWords(generator(12), pairs);
    const pairwise = (x: tf.Tensor): tf.Tensor =>
      tf.transpose(tf.reshape(x, [2, pairs, T, -1]), [1, 0, 2, 3]);
    const inputs = pairwise(tf.oneHot(tf.tensor2d(tokens, undefined, 'int32'), V));
    const targets = tf.tile(pairwise(tf.tensor1d(labels, 'int32')), [1, 1, 1, V]);
    const model = layers.sequential({
      layers: [
        layers.layers.dense({
          units: 12,
          activation: 'tanh',
          inputShape: [2, T, V],
          kernelInitializer: seeded(3),
        }),
        layers.layers.dense({ units: V, kernelInitializer: seeded(4) }),
      ],
    });
    const simpo = tfDirAlignLoss(dirAlignLoss('simpo', 2));
    const accuracies: (number | undefined)[] = [];
    const sequences = (x: tf.Tensor): tf.Tensor =>
      tf.reshape(tf.transpose(x, [1, 0, 2, 3]), [-1, T, V]);
    const labelsOf = (target: tf.Tensor): tf.Tensor =>
      tf.squeeze(tf.slice(sequences(target), [0, 0, 0], [-1, -1, 1]), [2]);
    model.compile({
      optimizer: tf.train.adam(0.02),
      loss: (target: tf.Tensor, logits: tf.Tensor) =>
        simpo(
          sequences(logits),
          { labels: tf.cast(labelsOf(target), 'int32') },
          { onResult: ({ metrics }) => accuracies.push(metrics['rewards/accuracies']) },
        ),
    });
    const { history } = await model.fit(inputs, targets, { epochs: 25, batchSize: 4 });
    const losses = history.loss as number[];
    expect(losses).toHaveLength(25);
    expect(losses.at(-1)).toBeLessThan(0.5 * at(losses, 0));
    expect(accuracies.at(-1)).toBe(1);
    model.dispose();
  });

  test('a second derivative is refused, not taken for 0', () => {
    const { logits, batch } = given(13);
    const dpo = tfDirAlignLoss(dirAlignLoss('dpo', 0.1));
    const x = tf.tensor3d(logits, [S, T, V]);
    const slopeThroughLayer = (y: tf.Tensor): tf.Tensor =>
      tf.grad((z: tf.Tensor) => dpo(tf.mul(z, z), batch))(y);
    // The first derivative under another tape is right.
    const nested = tf.tidy(() => {
      let inner: Float32Array | undefined;
      tf.grad((y: tf.Tensor) => {
        inner = slopeThroughLayer(y).dataSync<'float32'>().slice();
        return tf.sum(y);
      })(x);
      return inner;
    });
    expect(nested).toEqual(slopeThroughLayer(x).dataSync());
    const error = thrownBy(() => tf.grad((y: tf.Tensor) => tf.sum(slopeThroughLayer(y)))(x));
    expectRefusal(error, 'TypeError OPTION', 'differentiable once');
  });

  describe('from hidden states', () => {
    const H = 6;
    const layer = (random: Random) => ({
      hidden: tf.tensor3d(
        Float32Array.from({ length: S * T * H }, () => normal(random)),
        [S, T, H],
      ),
      weight: tf.tensor2d(
        Float32Array.from({ length: V * H }, () => normal(random)),
        [V, H],
      ),
      bias: tf.tensor1d(Float32Array.from({ length: V }, () => normal(random))),
    });

    test('gradients in lent memory: of every step its own', () => {
      const random = generator(41);
      const { calls, objective } = observed(dirAlignLoss('dpo', 0.4));
      const dpo = tfDirAlignLoss(objective);
      const buffers = new GradientBuffers();
      const grads =
        (run: object) =>
        (inputs: tf.Tensor[], { batch }: Given) =>
          tf.grads((hidden: tf.Tensor, weight: tf.Tensor, bias: tf.Tensor) =>
            dpo.fromHidden({ hidden, weight, bias }, batch, run),
          )(inputs);
      const steps = [1, 2, 3].map((seed) => [Object.values(layer(random)), given(seed)] as const);
      const lent = steps.map(([inputs, step]) => grads({ buffers })(inputs, step));
      const own = steps.map(([inputs, step]) => grads({})(inputs, step));
      expect(lent.map((each) => each.map(floats))).toEqual(own.map((each) => each.map(floats)));
      // Where TensorFlow.js has copied them, they were given back.
      const lengths = calls.map(({ gradWeight }) => (gradWeight as Float32Array).length);
      const first = backend === 'wasm' ? 0 : V * H;
      expect(lengths).toEqual([first, first, first, V * H, V * H, V * H]);
      expectRefusal(
        () => dpo.fromHidden(layer(random), given(1).batch, { buffers: {} as never }),
        'TypeError OPTION',
        'buffers: | GradientBuffers',
      );
    });

    test('lent memory kept by a backend chosen before the backward pass is its own', async () => {
      const { hidden, weight, bias } = layer(generator(42));
      const { batch } = given(42);
      const dpo = tfDirAlignLoss(dirAlignLoss('dpo', 0.4));
      const buffers = new GradientBuffers();
      const grads = (run: object, then: () => unknown) =>
        tf.grads((h: tf.Tensor, w: tf.Tensor, b: tf.Tensor) => {
          const loss = dpo.fromHidden({ hidden: h, weight: w, bias: b }, batch, run);
          void then();
          return loss;
        })([hidden, weight, bias]);
      const expected = grads({}, () => undefined).map(floats);
      const found = grads({ buffers }, () => tf.setBackend('cpu'));
      dirAlignLoss('sft').fromHidden(
        {
          hidden: floats(hidden),
          weight: floats(weight),
          shape: [S, T, V],
          hiddenSize: H,
          labels: batch.labels,
        },
        { buffers },
      );
      expect(found.map(floats)).toEqual(expected);
      await tf.setBackend(backend);
    });

    test.each([true, false])(
      'loss and gradients are those through logits; bias: %s',
      (withBias) => {
        const { hidden, weight, bias } = layer(generator(14));
        const { batch } = given(14);
        const dpo = tfDirAlignLoss(dirAlignLoss('dpo', 0.4));
        const inputs = withBias ? [hidden, weight, bias] : [hidden, weight];
        let memory = 0;
        const fused = tf.valueAndGrads((h: tf.Tensor, w: tf.Tensor, b?: tf.Tensor) => {
          const onResult = (result: { memory: number }): void => void (memory = result.memory);
          return tf.mul(
            dpo.fromHidden({ hidden: h, weight: w, ...(b && { bias: b }) }, batch, {
              onResult,
              threads: 1,
            }),
            3,
          );
        })(inputs);
        const through = tf.valueAndGrads((h: tf.Tensor, w: tf.Tensor, b?: tf.Tensor) => {
          const rows = tf.matMul(tf.reshape(h, [S * T, H]), w, false, true);
          return tf.mul(dpo(tf.reshape(b ? tf.add(rows, b) : rows, [S, T, V]), batch), 3);
        })(inputs);
        const misses = new Misses();
        misses.near('loss', fused.value.dataSync()[0], at(through.value.dataSync(), 0), 3e-6);
        through.grads.forEach((expected, i) => {
          const values = expected.dataSync();
          misses.require(largest(values) > 1e-3, `input ${i} has no gradient`);
          misses.each(
            `input ${i}`,
            (fused.grads[i] as tf.Tensor).dataSync(),
            values,
            () => 1e-5 * largest(values),
          );
          expect(fused.grads[i]?.shape).toEqual(expected.shape);
        });
        expect(misses.list).toEqual([]);
        expect(fused.grads).toHaveLength(inputs.length);
        expect(memory).toBeGreaterThan(0);
      },
    );

    test('gradientScale multiplies every gradient', () => {
      const { hidden, weight } = layer(generator(18));
      const { batch } = given(18);
      const dpo = tfDirAlignLoss(dirAlignLoss('dpo', 0.4));
      const [plain, scaled] = [1, 32].map((gradientScale) => {
        const loss = (h: tf.Tensor, w: tf.Tensor): tf.Scalar =>
          dpo.fromHidden({ hidden: h, weight: w }, batch, { gradientScale });
        return tf.valueAndGrads(loss)([hidden, weight]);
      });
      expect(scaled?.value.dataSync()).toEqual(plain?.value.dataSync());
      plain?.grads.forEach((grad, i) => {
        expect(scaled?.grads[i]?.dataSync()).toEqual(grad.dataSync<'float32'>().map((g) => 32 * g));
      });
    });

    test('packed, and within the memory given', () => {
      const { hidden, weight } = layer(generator(15));
      const { batch } = given(15);
      const dpo = tfDirAlignLoss(dirAlignLoss('dpo', 0.4));
      const offsets = Int32Array.from({ length: S + 1 }, (_, i) => i * T);
      const packed = dpo.fromHidden(
        { hidden: tf.reshape(hidden, [S * T, H]), weight },
        { ...batch, offsets },
      );
      expect(packed.dataSync()).toEqual(dpo.fromHidden({ hidden, weight }, batch).dataSync());
      const error = thrownBy(() => dpo.fromHidden({ hidden, weight }, batch, { memory: 1 }));
      expectRefusal(error, 'RangeError OPTION', 'memory: 1');
    });

    test('trains hidden states and the layer, and leaves no tensor', () => {
      const { tokens, labels } = pairsOfWords(generator(16), 6);
      const random = generator(17);
      const variable = (...shape: [number, number]): tf.Variable =>
        tf.variable(
          tf.tensor2d(
            Float32Array.from({ length: shape[0] * shape[1] }, () => 0.3 * normal(random)),
            shape,
          ),
        );
      const [embedding, weight, bias] = [
        variable(V, H),
        variable(V, H),
        tf.variable(tf.zeros([V])),
      ];
      const words = tf.oneHot(tf.tensor1d(tokens.flat(), 'int32'), V);
      const orpo = tfDirAlignLoss(dirAlignLoss('orpo', 1, true, { sftWeight: 1 }));
      const optimizer = tf.train.adam(0.05);
      const losses: number[] = [];
      const step = (): void => {
        optimizer.minimize(
          () => {
            const hidden = tf.reshape(tf.matMul(words, embedding), [tokens.length, T, H]);
            return orpo.fromHidden(
              { hidden, weight, bias },
              { labels },
              { onResult: ({ loss }) => losses.push(loss) },
            );
          },
          false,
          [embedding, weight, bias],
        );
      };
      step();
      const { numTensors, numBytes } = tf.memory();
      for (let i = 0; i < 50; i++) step();
      expect(tf.memory()).toMatchObject({ numTensors, numBytes });
      expect(losses.at(-1)).toBeLessThan(0.5 * at(losses, 0));
      optimizer.dispose();
    });
  });
});

test('the cpu backend copies nothing: neither logits nor the gradient', async () => {
  await tf.setBackend('cpu');
  const { logits, batch } = given(18);
  const { objective, calls } = observed(dirAlignLoss('dpo', 0.1));
  const x = tf.tensor3d(logits, [S, T, V]);
  const gradient = tf.grad((y: tf.Tensor) => tfDirAlignLoss(objective)(y, batch))(x);
  expect(calls).toHaveLength(1);
  expect(calls[0]?.batch.logits).toBe(logits);
  expect(gradient.dataSync()).toBe(calls[0]?.gradLogits);
  expect(logits).toEqual(given(18).logits);
});

describe('what is refused', () => {
  const { logits, batch } = given(19);
  const loss = tfDirAlignLoss(dirAlignLoss('dpo', 0.1));
  const tensor = (shape: number[] = [S, T, V], dtype: 'float32' | 'int32' = 'float32'): tf.Tensor =>
    tf.tensor(dtype === 'float32' ? logits : Int32Array.from(logits), shape, dtype);
  const layer = (): { hidden: tf.Tensor; weight: tf.Tensor; bias: tf.Tensor } => ({
    hidden: tf.zeros([S, T, 3]),
    weight: tf.zeros([V, 3]),
    bias: tf.zeros([V]),
  });
  beforeAll(async () => {
    await tf.setBackend('cpu');
  });
  const labels = (shape: number[], dtype: 'int32' | 'float32'): tf.Tensor => tf.zeros(shape, dtype);
  const disposed = (): tf.Tensor => {
    const x = tensor();
    x.dispose();
    return x;
  };
  const refused: [() => unknown, Kind, Words][] = [
    [
      () => tfDirAlignLoss('dpo' as never),
      'TypeError OPTION',
      "objective: expected what dirAlignLoss returns, not 'dpo'",
    ],
    [
      () => loss(logits as never, batch),
      'TypeError DTYPE',
      'logits: expected a Tensor of float32, not Float32Array',
    ],
    [
      () => loss(tensor([S, T, V], 'int32'), batch),
      'TypeError DTYPE',
      'logits: its dtype is int32; expected float32',
    ],
    [
      () => loss(tensor([S * T, V]), batch),
      'RangeError SHAPE',
      `logits: its shape is [${S * T}, ${V}]; expected [sequences, tokens, vocab]`,
    ],
    [
      () => loss(tensor([2, 2, T, V]), batch),
      'RangeError SHAPE',
      'expected [sequences, tokens, vocab]',
    ],
    [
      () => loss(tensor(), { ...batch, offsets: Int32Array.of(0, 20) }),
      'RangeError SHAPE',
      'expected [rows, vocab]',
    ],
    [() => loss(disposed(), batch), 'TypeError SHAPE', 'logits: the tensor is disposed'],
    [
      () => loss(tensor(), undefined as never),
      'TypeError OPTION',
      'batch: expected an object, not undefined',
    ],
    [
      () => loss(tensor(), { ...batch, shape: [S, T, V] } as never),
      'TypeError OPTION',
      'batch.shape: no such option',
    ],
    [
      () => loss(tensor(), batch, { gradient: 'none' } as never),
      'TypeError OPTION',
      'run.gradient: no such option',
    ],
    [
      () => loss(tensor(), batch, { onResult: 3 as never }),
      'TypeError OPTION',
      'run.onResult: expected a function, not 3',
    ],
    [
      () => loss(tensor(), { ...batch, labels: labels([S, T], 'float32') }),
      'TypeError LABEL',
      'labels: its dtype is float32; expected int32 | cast',
    ],
    [
      () => loss(tensor(), { ...batch, labels: labels([T, S], 'int32') }),
      'RangeError SHAPE',
      `labels: its shape is [${T}, ${S}]; expected [${S}, ${T}]`,
    ],
    [
      () => loss(tensor(), { ...batch, labels: [...batch.labels] as never }),
      'TypeError LABEL',
      'labels: expected Int32Array, not Array',
    ],
    [
      () => loss(tensor(), { ...batch, labels: batch.labels.fill(V) }),
      'RangeError LABEL',
      `labels[0]: ${V}`,
    ],
    [
      () => loss(tensor(), { labels: batch.labels } as never),
      'TypeError REFERENCE',
      "reference: 'dpo' needs",
    ],
    [
      () => loss(tensor(), { ...batch, reference: tf.zeros([2, 2]) }),
      'RangeError REFERENCE',
      'reference: its shape is [2, 2]; expected [sequences]',
    ],
    [
      () => loss(tensor(), { ...batch, reference: tf.zeros([S], 'int32') }),
      'TypeError REFERENCE',
      'reference: its dtype is int32',
    ],
    [
      () =>
        loss(tf.zeros([3, T, V]), {
          labels: new Int32Array(3 * T),
          reference: new Float64Array(3),
        }),
      'RangeError SHAPE',
      '3 sequences',
    ],
    [() => sequenceLogps(tensor([S * T, V]), batch), 'RangeError SHAPE', 'logits: its shape'],
    [
      () => sequenceLogps(tensor(), batch, { onResult: () => undefined } as never),
      'TypeError OPTION',
      'run.onResult: no such option',
    ],
    [() => loss.fromHidden(tensor() as never, undefined as never), 'TypeError OPTION', 'layer.'],
    [
      () => loss.fromHidden({ ...layer(), hidden: tf.zeros([S, T, 3], 'int32') }, batch),
      'TypeError DTYPE',
      'hidden: its dtype is int32',
    ],
    [
      () => loss.fromHidden({ ...layer(), hidden: tf.zeros([S * T, 3]) }, batch),
      'RangeError SHAPE',
      'hidden: its shape is [20, 3]',
    ],
    [
      () => loss.fromHidden({ ...layer(), weight: tf.zeros([3, V]) }, batch),
      'RangeError SHAPE',
      `weight: its shape is [3, ${V}]; expected [vocab, 3]`,
    ],
    [
      () => loss.fromHidden({ ...layer(), bias: tf.zeros([3]) }, batch),
      'RangeError SHAPE',
      `bias: its shape is [3]; expected [${V}]`,
    ],
  ];
  test.each(titled(refused))('%s', (_, action, kind, words) => {
    const inside = thrownBy(() =>
      tf.tidy(() => tf.grad(() => action() as tf.Tensor)(tf.scalar(1))),
    );
    for (const error of [thrownBy(action), inside]) expectRefusal(error, kind, words);
  });
});

function seeded(seed: number) {
  return layers.initializers.glorotUniform({ seed });
}
