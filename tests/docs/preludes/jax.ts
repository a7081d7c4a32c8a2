/** A model of jax-js, of one layer. */
import { init, numpy as np } from '@jax-js/jax';

export { tree } from '@jax-js/jax';
export { dirAlignLoss } from 'diralign';

await init('cpu');
const [sequences, length, vocab, size] = [4, 3, 7, 5];
const wave = (shape: number[], step: number): np.Array =>
  np
    .array(
      Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => Math.sin(i * step)),
    )
    .reshape(shape);

export const tokens = wave([sequences, length, size], 0.7);
export const labels = Int32Array.from({ length: sequences * length }, (_, i) =>
  i % length === 0 ? -100 : i % vocab,
);
export const referenceParams = wave([size, vocab], 0.2);
// oxlint-disable-next-line prefer-const -- a snippet assigns to it.
export let params = wave([size, vocab], 0.3);
export const learningRate = 0.1;
export const model = (weight: np.Array, inputs: np.Array): np.Array => np.matmul(inputs, weight);
