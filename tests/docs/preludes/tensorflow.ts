/** A model of TensorFlow.js, of one layer. */
import '@tensorflow/tfjs-backend-cpu';
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-layers'; // registers the gradients of all ops

export { dirAlignLoss } from 'diralign';

const [sequences, length, vocab, size] = [4, 6, 12, 8];
export const tokens = tf.randomNormal<tf.Rank.R2>([sequences * length, size], 0, 1, 'float32', 1);
export const labels = Int32Array.from({ length: sequences * length }, (_, i) =>
  i % length < 2 ? -100 : i % vocab,
);

function modelOf(seed: number) {
  const weight = tf.variable(tf.randomNormal<tf.Rank.R2>([size, vocab], 0, 0.1, 'float32', seed));
  const apply = (inputs: tf.Tensor2D): tf.Tensor3D =>
    tf.reshape(tf.matMul(inputs, weight), [sequences, length, vocab]);
  return { apply, predict: apply };
}
export const model = modelOf(2);
export const referenceModel = modelOf(3);
export const optimizer = tf.train.sgd(0.1);
export const log = (metrics: object): void => {
  if (!('rewards/margins' in metrics)) throw new Error('these are no metrics');
};
