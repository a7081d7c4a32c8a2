/**
 * A decoder-only transformer of TensorFlow.js ops: learned positions, RMS norms before each half of
 * a block, no biases.
 */
import * as tf from '@tensorflow/tfjs-core';
import { vocabulary } from '../records/vocabulary.js';
import { matricesOf, viewsOf, type ModelShape } from './weights.js';

/** The matrices, by name. */
export type Matrices = Readonly<Record<string, tf.Tensor2D>>;

export interface Rows {
  readonly inputIds: Int32Array;
  readonly positions: Int32Array;
  /**
   * Rows before these are context only: they have no logits, and nothing that only their logits
   * would need is computed.
   */
  readonly scoredFrom: number;
}

/**
 * What the rows of a layer attend to, from their queries, keys and values side by side: [rows, 3
 * width] to [rows, width].
 */
export type Attend = (qkv: tf.Tensor2D, layer: number) => tf.Tensor2D;

/**
 * `tf.tidy` for results that are no tensors: it would look for tensors in them, element by element.
 */
export function tidyScope<Result>(compute: () => Result): Result {
  let result: Result | undefined;
  tf.tidy(() => {
    result = compute();
  });
  return result as Result;
}

/** The caller disposes of them. */
export function matricesFrom(shape: ModelShape, weights: Float32Array): Matrices {
  const views = viewsOf(shape, weights);
  return Object.fromEntries(
    matricesOf(shape).map(({ name, rows, columns }) => [
      name,
      tf.tensor2d(views.get(name) as Float32Array, [rows, columns], 'float32'),
    ]),
  );
}

/**
 * x w. The wasm backend is fast where neither factor is to be transposed, and ten times slower
 * elsewhere: so the gradients transpose first, the narrower of two long factors.
 */
function product(x: tf.Tensor2D, w: tf.Tensor2D): tf.Tensor2D {
  const op = tf.customGrad((...args) => {
    const [a, b, save] = args as unknown as [
      tf.Tensor2D,
      tf.Tensor2D,
      (tensors: tf.Tensor[]) => void,
    ];
    save([a, b]);
    const gradFunc = (dy: tf.Tensor2D, saved: tf.Tensor[]): tf.Tensor[] => {
      const [x, w] = saved as [tf.Tensor2D, tf.Tensor2D];
      const gradW =
        x.shape[1] <= dy.shape[1]
          ? tf.matMul(tf.transpose(x), dy)
          : tf.transpose(tf.matMul(tf.transpose(dy), x));
      return [tf.matMul(dy, tf.transpose(w)), gradW];
    };
    return { value: tf.matMul<tf.Tensor2D>(a, b), gradFunc };
  });
  return op(x, w);
}

/**
 * Word and position embeddings added up: a product with two ones a row, which is faster here than
 * gathering and scattering.
 */
function embed(table: tf.Tensor2D, { inputIds, positions }: Rows): tf.Tensor2D {
  const columns = table.shape[0];
  const ones = new Float32Array(inputIds.length * columns);
  inputIds.forEach((id, row) => {
    ones[row * columns + id] = 1;
    ones[row * columns + vocabulary.length + (positions[row] as number)] = 1;
  });
  const op = tf.customGrad((matrix) => {
    const selection = tf.tensor2d(ones, [inputIds.length, columns]);
    const gradFunc = (dy: tf.Tensor2D): tf.Tensor =>
      tf.transpose(tf.matMul(tf.transpose(dy), tf.tensor2d(ones, [inputIds.length, columns])));
    return { value: tf.matMul<tf.Tensor2D>(selection, matrix as tf.Tensor2D), gradFunc };
  });
  return op(table);
}

/** x over the root mean square of its row. Gains would be factors of the matrix that comes next. */
function rmsNorm(x: tf.Tensor2D): tf.Tensor2D {
  const op = tf.customGrad((...args) => {
    const [input, save] = args as unknown as [tf.Tensor2D, (tensors: tf.Tensor[]) => void];
    const scale = tf.rsqrt(tf.add(tf.mean(tf.square(input), 1, true), 1e-5));
    const value = tf.mul<tf.Tensor2D>(input, scale);
    save([value, scale]);
    const gradFunc = (dy: tf.Tensor2D, saved: tf.Tensor[]): tf.Tensor => {
      const [y, s] = saved as [tf.Tensor2D, tf.Tensor2D];
      return tf.mul(tf.sub(dy, tf.mul(y, tf.mean(tf.mul(dy, y), 1, true))), s);
    };
    return { value, gradFunc };
  });
  return op(x);
}

function rowsAfter(x: tf.Tensor2D, first: number): tf.Tensor2D {
  return first === 0 ? x : tf.slice(x, [first, 0]);
}

/** Logits of the scored rows, [rows - scoredFrom, vocabulary]. */
export function logitsOf(
  matrices: Matrices,
  { layers }: ModelShape,
  rows: Rows,
  attend: Attend,
): tf.Tensor2D {
  const matrix = (name: string): tf.Tensor2D => matrices[name] as tf.Tensor2D;
  let x = embed(matrix('embedding'), rows);
  for (let layer = 0; layer < layers; layer++) {
    const of = (part: string): tf.Tensor2D => matrix(`blocks.${layer}.${part}`);
    let attended = attend(product(rmsNorm(x), of('attention.qkv')), layer);
    if (layer === layers - 1) {
      x = rowsAfter(x, rows.scoredFrom);
      attended = rowsAfter(attended, rows.scoredFrom);
    }
    x = tf.add(x, product(attended, of('attention.out')));
    x = tf.add(x, product(tf.relu(product(rmsNorm(x), of('mlp.up'))), of('mlp.down')));
  }

  return product(rmsNorm(x), matrix('unembedding'));
}
