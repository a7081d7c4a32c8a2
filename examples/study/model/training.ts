import * as tf from '@tensorflow/tfjs-core';
import { sequenceLogps } from 'diralign/tfjs';
import { attention } from './attention.js';
import { threads } from './backend.js';
import type { Batch } from './batch.js';
import { adam, norm, schedule } from './optimizer.js';
import { logitsOf, matricesFrom, tidyScope, type Matrices } from './transformer.js';
import { matricesOf, viewsOf, type ModelShape } from './weights.js';

/**
 * Logits of the completions' rows. What prompts attend to in the last layer is of no use to them.
 */
export function batchLogits(matrices: Matrices, shape: ModelShape, batch: Batch): tf.Tensor2D {
  const { inputIds, positions, promptRows: scoredFrom, prompts, branches } = batch;
  return logitsOf(matrices, shape, { inputIds, positions, scoredFrom }, (qkv, layer) =>
    attention(qkv, layer === shape.layers - 1 ? branches : [...prompts, ...branches], shape),
  );
}

/** In nats: log-probabilities of the completions. */
export function completionLogps(
  weights: Float32Array,
  shape: ModelShape,
  batch: Batch,
): Float64Array {
  return tidyScope(() => {
    const { labels, offsets } = batch;
    return sequenceLogps(
      batchLogits(matricesFrom(shape, weights), shape, batch),
      { labels, offsets },
      { threads },
    ).logps;
  });
}

export type BatchLoss = (logits: tf.Tensor2D, batch: Batch) => tf.Scalar;

/** The loss, and its gradient in all weights, as one vector. */
export function lossAndGradient(
  weights: Float32Array,
  shape: ModelShape,
  batch: Batch,
  loss: BatchLoss,
): { readonly loss: number; readonly gradient: Float32Array } {
  const names = matricesOf(shape).map(({ name }) => name);
  const gradient = new Float32Array(weights.length);
  const views = viewsOf(shape, gradient);
  const value = tidyScope(() => {
    const matrices = matricesFrom(shape, weights);
    const compute = tf.valueAndGrads((...tensors: tf.Tensor[]) => {
      const given = Object.fromEntries(names.map((name, i) => [name, tensors[i] as tf.Tensor2D]));
      return loss(batchLogits(given, shape, batch), batch);
    });
    const { value, grads } = compute(names.map((name) => matrices[name] as tf.Tensor2D));
    names.forEach((name, i) => views.get(name)?.set((grads[i] as tf.Tensor).dataSync<'float32'>()));
    return value.dataSync<'float32'>()[0] as number;
  });
  return { loss: value, gradient };
}

export interface Training {
  readonly learningRate: number;
  readonly batches: readonly Batch[];
  /** Of the batch of this number. */
  readonly loss: (step: number) => BatchLoss;
  readonly onStep?: (step: number, loss: number) => void;
}

export interface Trained {
  readonly losses: readonly number[];
  /** A loss or a gradient was not finite; training ended there, with the weights before it. */
  readonly diverged: boolean;
}

/** One step a batch; changes the weights. */
export function train(
  weights: Float32Array,
  shape: ModelShape,
  { learningRate, batches, loss, onStep }: Training,
): Trained {
  const update = adam(weights);
  const losses: number[] = [];
  for (const [step, batch] of batches.entries()) {
    const found = lossAndGradient(weights, shape, batch, loss(step));
    if (!Number.isFinite(found.loss) || !Number.isFinite(norm(found.gradient)))
      return { losses, diverged: true };
    losses.push(found.loss);
    update(found.gradient, learningRate * schedule(step, batches.length));
    onStep?.(step, found.loss);
  }
  return { losses, diverged: false };
}
