/**
 * The weights of the model: one vector, for the optimiser and for files, and the matrices in it.
 */
import { readSafetensors, writeSafetensors } from '../../../ts/safetensors.js';
import { normal, type Random } from '../records/random.js';
import { vocabulary } from '../records/vocabulary.js';

export interface ModelShape {
  readonly layers: number;
  readonly heads: number;
  readonly width: number;
  readonly positions: number;
}

interface Matrix {
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
}

/** In the order of the vector. Matrices are [inputs, outputs]: rows times matrix. */
export function matricesOf({ layers, width, positions }: ModelShape): Matrix[] {
  const block = (layer: number): Matrix[] => [
    { name: `blocks.${layer}.attention.qkv`, rows: width, columns: 3 * width },
    { name: `blocks.${layer}.attention.out`, rows: width, columns: width },
    { name: `blocks.${layer}.mlp.up`, rows: width, columns: 4 * width },
    { name: `blocks.${layer}.mlp.down`, rows: 4 * width, columns: width },
  ];
  return [
    { name: 'embedding', rows: vocabulary.length + positions, columns: width },
    ...Array.from({ length: layers }, (_, layer) => block(layer)).flat(),
    { name: 'unembedding', rows: width, columns: vocabulary.length },
  ];
}

function sizeOf(matrices: readonly Matrix[]): number {
  return matrices.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
}

/** Views into the vector, by name. */
export function viewsOf(shape: ModelShape, vector: Float32Array): Map<string, Float32Array> {
  const views = new Map<string, Float32Array>();
  let start = 0;
  for (const { name, rows, columns } of matricesOf(shape))
    views.set(name, vector.subarray(start, (start += rows * columns)));
  return views;
}

/**
 * Normal weights that keep the size of their inputs; what is added to the residual stream starts
 * small, as in GPT-2.
 */
export function initialWeights(shape: ModelShape, random: Random): Float32Array {
  const weights = new Float32Array(sizeOf(matricesOf(shape)));
  let i = 0;
  for (const { name, rows, columns } of matricesOf(shape)) {
    const residual = name.endsWith('.out') || name.endsWith('.down');
    const deviation =
      name === 'embedding' ? 0.5 : 1 / Math.sqrt(rows * (residual ? 2 * shape.layers : 1));
    for (const end = i + rows * columns; i < end; i++) weights[i] = deviation * normal(random);
  }
  return weights;
}

export function saveWeights(path: string, shape: ModelShape, weights: Float32Array): void {
  const views = viewsOf(shape, weights);
  const tensors = matricesOf(shape).map(({ name, rows, columns }) => {
    return [
      name,
      { dtype: 'F32', shape: [rows, columns], data: views.get(name) as Float32Array },
    ] as const;
  });
  writeSafetensors(path, new Map(tensors));
}

/** @throws where the file is damaged, or of a model of another shape. */
export function loadWeights(path: string, shape: ModelShape): Float32Array {
  const tensors = readSafetensors(path);
  const weights = new Float32Array(sizeOf(matricesOf(shape)));
  for (const [name, view] of viewsOf(shape, weights)) {
    const data = tensors.get(name)?.data;
    if (!(data instanceof Float32Array) || data.length !== view.length) {
      throw new Error(
        `${path}: tensor ${name} is not ${view.length} float32 numbers; ` +
          'is it of another model? Delete it.',
      );
    }
    view.set(data);
  }
  return weights;
}
