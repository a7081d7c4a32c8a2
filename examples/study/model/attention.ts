/**
 * Causal attention over packed rows. TensorFlow.js multiplies batches of small matrices ten times slower than single large ones, and knows
 * neither packed rows nor the causal mask; plain loops that visit what a row may see, and nothing else, take a third of its time.
 */
import { customGrad, tensor2d, type Tensor2D } from '@tensorflow/tfjs-core';

/** A sequence, or a branch of one: its rows, after those of a context that may be shared with other branches. */
export interface Span {
  /** Row numbers, the context's first; row i sees rows 0 to i. */
  readonly rows: Int32Array;
  /** How many of them are the context, which this span only reads. */
  readonly context: number;
}

export interface HeadShape {
  readonly heads: number;
  readonly width: number;
}

/** Rows of queries, keys and values side by side, [rows, 3 width]; each is heads side by side. */
export interface Attended {
  readonly qkv: Float32Array;
  readonly shape: HeadShape;
}

/**
 * What one row attends to: the weighted values of the first `count` rows of `visible`, added up in `out` from `outStart`.
 * The weights, [heads, count], are written to `weights` from `weightStart`.
 */
export function attendRow(
  { qkv, shape: { heads, width } }: Attended,
  query: number,
  visible: Int32Array,
  count: number,
  weights: Float32Array,
  weightStart: number,
  out: Float32Array,
  outStart: number,
): void {
  const stride = 3 * width;
  const size = width / heads;
  const scale = 1 / Math.sqrt(size);
  for (let head = 0; head < heads; head++) {
    const queryStart = query * stride + head * size;
    const keyOffset = width + head * size;
    const valueOffset = 2 * width + head * size;
    const first = weightStart + head * count;
    let largest = -Infinity;
    for (let j = 0; j < count; j++) {
      const keyStart = visible[j]! * stride + keyOffset;
      let score = 0;
      for (let c = 0; c < size; c++) score += qkv[queryStart + c]! * qkv[keyStart + c]!;
      score *= scale;
      weights[first + j] = score;
      if (score > largest) largest = score;
    }
    let sum = 0;
    for (let j = 0; j < count; j++) {
      const weight = Math.exp(weights[first + j]! - largest);
      weights[first + j] = weight;
      sum += weight;
    }
    const target = outStart + head * size;
    for (let j = 0; j < count; j++) {
      const weight = weights[first + j]! / sum;
      weights[first + j] = weight;
      const valueStart = visible[j]! * stride + valueOffset;
      for (let c = 0; c < size; c++) out[target + c]! += weight * qkv[valueStart + c]!;
    }
  }
}

/** Adds to `gradQkv` what the gradient of a row's output, `gradOut` from `outStart`, is in queries, keys and values. */
function attendRowBackward(
  { qkv, shape: { heads, width } }: Attended,
  query: number,
  visible: Int32Array,
  count: number,
  weights: Float32Array,
  weightStart: number,
  gradOut: Float32Array,
  outStart: number,
  gradQkv: Float32Array,
  gradWeights: Float64Array,
): void {
  const stride = 3 * width;
  const size = width / heads;
  const scale = 1 / Math.sqrt(size);
  for (let head = 0; head < heads; head++) {
    const queryStart = query * stride + head * size;
    const keyOffset = width + head * size;
    const valueOffset = 2 * width + head * size;
    const first = weightStart + head * count;
    const source = outStart + head * size;
    let expected = 0;
    for (let j = 0; j < count; j++) {
      const valueStart = visible[j]! * stride + valueOffset;
      const weight = weights[first + j]!;
      let gradWeight = 0;
      for (let c = 0; c < size; c++) {
        const grad = gradOut[source + c]!;
        gradWeight += grad * qkv[valueStart + c]!;
        gradQkv[valueStart + c]! += weight * grad;
      }
      gradWeights[j] = gradWeight;
      expected += weight * gradWeight;
    }
    for (let j = 0; j < count; j++) {
      const gradScore = weights[first + j]! * (gradWeights[j]! - expected) * scale;
      const keyStart = visible[j]! * stride + keyOffset;
      for (let c = 0; c < size; c++) {
        gradQkv[queryStart + c]! += gradScore * qkv[keyStart + c]!;
        gradQkv[keyStart + c]! += gradScore * qkv[queryStart + c]!;
      }
    }
  }
}

/**
 * Attention of every row of the spans that is not context, differentiable once: [rows, 3 width] to [rows, width]. Rows that are no span's
 * own come out as 0.
 */
export function attention(qkv: Tensor2D, spans: readonly Span[], shape: HeadShape): Tensor2D {
  const [rows] = qkv.shape;
  const { heads, width } = shape;
  const visit = (each: (row: number, visible: Int32Array, count: number, weightStart: number) => void): number => {
    let weightStart = 0;
    for (const { rows: visible, context } of spans) {
      for (let i = context; i < visible.length; i++) {
        each(visible[i]!, visible, i + 1, weightStart);
        weightStart += heads * (i + 1);
      }
    }
    return weightStart;
  };
  const op = customGrad((input) => {
    const attended = { qkv: (input as Tensor2D).dataSync<'float32'>(), shape };
    const weights = new Float32Array(visit(() => undefined));
    const out = new Float32Array(rows * width);
    visit((row, visible, count, weightStart) => {
      attendRow(attended, row, visible, count, weights, weightStart, out, row * width);
    });
    const gradFunc = (dy: Tensor2D): Tensor2D => {
      const gradOut = dy.dataSync<'float32'>();
      const gradQkv = new Float32Array(rows * 3 * width);
      const scratch = new Float64Array(Math.max(...spans.map((span) => span.rows.length)));
      visit((row, visible, count, weightStart) => {
        attendRowBackward(attended, row, visible, count, weights, weightStart, gradOut, row * width, gradQkv, scratch);
      });
      return tensor2d(gradQkv, [rows, 3 * width]);
    };
    return { value: tensor2d(out, [rows, width]), gradFunc };
  });
  return op(qkv) as Tensor2D;
}
