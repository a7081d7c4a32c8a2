/**
 * Causal attention over packed rows, in plain loops that visit what a row may see and nothing else.
 * TensorFlow.js knows neither packed rows nor the causal mask, and its wasm backend multiplies
 * batches of small matrices ten times slower than large ones.
 */
import { customGrad, tensor2d, type Tensor2D } from '@tensorflow/tfjs-core';

/**
 * A sequence, or a branch of one: its rows, after those of a context that may be shared with other
 * branches.
 */
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

/**
 * Scratch of one head over one span: rows of `size` numbers, one after the other and in float64, so
 * that the loops over them neither jump nor convert.
 */
function gather(
  into: Float64Array,
  from: Float32Array,
  rows: Int32Array,
  first: number,
  stride: number,
  offset: number,
  size: number,
): void {
  for (let i = first, target = first * size; i < rows.length; i++) {
    for (let c = 0, source = (rows[i] as number) * stride + offset; c < size; c++)
      into[target++] = from[source++] as number;
  }
}

function scatter(
  into: Float32Array,
  from: Float64Array,
  rows: Int32Array,
  stride: number,
  offset: number,
  size: number,
): void {
  for (let i = 0, source = 0; i < rows.length; i++) {
    for (let c = 0, target = (rows[i] as number) * stride + offset; c < size; c++, target++) {
      into[target] = (into[target] as number) + (from[source++] as number);
    }
  }
}

/** Softmax of `scores` from `start` to `end`, in place. */
function softmax(scores: Float64Array, start: number, end: number): void {
  let largest = -Infinity;
  for (let j = start; j < end; j++) largest = Math.max(largest, scores[j] as number);
  let sum = 0;
  for (let j = start; j < end; j++) sum += scores[j] = Math.exp((scores[j] as number) - largest);
  for (let j = start; j < end; j++) scores[j] = (scores[j] as number) / sum;
}

/** sum over c of a[aStart + c] b[bStart + c] */
function dot(
  a: Float64Array,
  aStart: number,
  b: Float64Array,
  bStart: number,
  size: number,
): number {
  let sum = 0;
  for (let c = 0; c < size; c++) sum += (a[aStart + c] as number) * (b[bStart + c] as number);
  return sum;
}

/** y += factor x */
function addScaled(
  y: Float64Array,
  yStart: number,
  factor: number,
  x: Float64Array,
  xStart: number,
  size: number,
): void {
  for (let c = 0; c < size; c++)
    y[yStart + c] = (y[yStart + c] as number) + factor * (x[xStart + c] as number);
}

/** One head over one span, its rows gathered. */
interface Head {
  readonly size: number;
  readonly context: number;
  readonly length: number;
  readonly queries: Float64Array;
  readonly keys: Float64Array;
  readonly values: Float64Array;
}

/** The weights of row i begin at i (i + 1) / 2: a row sees one more than the row before. */
function rowStart(i: number): number {
  return (i * (i + 1)) / 2;
}

function forward(
  { size, context, length, queries, keys, values }: Head,
  weights: Float64Array,
  out: Float64Array,
): void {
  const scale = 1 / Math.sqrt(size);
  out.fill(0, 0, length * size);
  for (let i = context; i < length; i++) {
    const start = rowStart(i);
    for (let j = 0; j <= i; j++)
      weights[start + j] = scale * dot(queries, i * size, keys, j * size, size);
    softmax(weights, start, start + i + 1);
    for (let j = 0; j <= i; j++)
      addScaled(out, i * size, weights[start + j] as number, values, j * size, size);
  }
}

interface HeadGradients {
  readonly queries: Float64Array;
  readonly keys: Float64Array;
  readonly values: Float64Array;
}

/**
 * weights w = softmax(scale q k), out = w v: dv_j = w_ij dout_i, dw_ij = dout_i v_j, ds_ij = w_ij
 * (dw_ij - sum_j w_ij dw_ij).
 */
function backward(
  { size, context, length, queries, keys, values }: Head,
  weights: Float64Array,
  gradOut: Float64Array,
  grad: HeadGradients,
  gradWeights: Float64Array,
): void {
  const scale = 1 / Math.sqrt(size);
  for (const part of [grad.queries, grad.keys, grad.values]) part.fill(0, 0, length * size);
  for (let i = context; i < length; i++) {
    const start = rowStart(i);
    let expected = 0;
    for (let j = 0; j <= i; j++) {
      const weight = weights[start + j] as number;
      const gradWeight = dot(gradOut, i * size, values, j * size, size);
      addScaled(grad.values, j * size, weight, gradOut, i * size, size);
      gradWeights[j] = gradWeight;
      expected += weight * gradWeight;
    }
    for (let j = 0; j <= i; j++) {
      const gradScore =
        scale * (weights[start + j] as number) * ((gradWeights[j] as number) - expected);
      addScaled(grad.queries, i * size, gradScore, keys, j * size, size);
      addScaled(grad.keys, j * size, gradScore, queries, i * size, size);
    }
  }
}

/**
 * Calls `each` with every head over every span; `weightStart` is where its weights begin among
 * those of all.
 */
function visit(
  qkv: Float32Array,
  spans: readonly Span[],
  { heads, width }: HeadShape,
  each: (head: Head, rows: Int32Array, offset: number, weightStart: number) => void,
): void {
  const size = width / heads;
  const longest = Math.max(...spans.map(({ rows }) => rows.length));
  const [queries, keys, values] = scratch(3, longest * size) as [
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  let weightStart = 0;
  for (const { rows, context } of spans) {
    for (let offset = 0; offset < width; offset += size) {
      gather(queries, qkv, rows, context, 3 * width, offset, size);
      gather(keys, qkv, rows, 0, 3 * width, width + offset, size);
      gather(values, qkv, rows, 0, 3 * width, 2 * width + offset, size);
      each(
        { size, context, length: rows.length, queries, keys, values },
        rows,
        offset,
        weightStart,
      );
      weightStart += rowStart(rows.length);
    }
  }
}

function scratch(count: number, length: number): Float64Array[] {
  return Array.from({ length: count }, () => new Float64Array(length));
}

/**
 * From queries, keys and values side by side, each of them heads side by side, [rows, 3 width], to
 * what the rows of the spans attend to, [rows, width]; rows of no span, or only of contexts, are 0.
 */
export function attend(
  qkv: Float32Array,
  spans: readonly Span[],
  shape: HeadShape,
  weights?: Float64Array,
): Float32Array {
  const { heads, width } = shape;
  const size = width / heads;
  const longest = Math.max(...spans.map(({ rows }) => rows.length));
  const out = new Float32Array(qkv.length / 3);
  const [headOut] = scratch(1, longest * size) as [Float64Array];
  const headWeights = new Float64Array(rowStart(longest));
  visit(qkv, spans, shape, (head, rows, offset, weightStart) => {
    const kept = weights?.subarray(weightStart, weightStart + rowStart(head.length)) ?? headWeights;
    forward(head, kept, headOut);
    scatter(out, headOut, rows, width, offset, size);
  });
  return out;
}

/** {@link attend} as a differentiable op; differentiable once. */
export function attention(qkv: Tensor2D, spans: readonly Span[], shape: HeadShape): Tensor2D {
  const [rowCount, columns] = qkv.shape;
  const { heads, width } = shape;
  const size = width / heads;
  const op = customGrad((input) => {
    const values = (input as Tensor2D).dataSync<'float32'>();
    const weights = new Float64Array(
      heads * spans.reduce((sum, { rows }) => sum + rowStart(rows.length), 0),
    );
    const out = attend(values, spans, shape, weights);
    const gradFunc = (dy: Tensor2D): Tensor2D => {
      const gradOut = dy.dataSync<'float32'>();
      const gradQkv = new Float32Array(rowCount * columns);
      const longest = Math.max(...spans.map(({ rows }) => rows.length));
      const [queries, keys, headValues, headOut] = scratch(4, longest * size) as [
        Float64Array,
        Float64Array,
        Float64Array,
        Float64Array,
      ];
      const gradWeights = new Float64Array(longest);
      visit(values, spans, shape, (head, rows, offset, weightStart) => {
        gather(headOut, gradOut, rows, head.context, width, offset, size);
        const kept = weights.subarray(weightStart, weightStart + rowStart(head.length));
        backward(head, kept, headOut, { queries, keys, values: headValues }, gradWeights);
        scatter(gradQkv, queries, rows, columns, offset, size);
        scatter(gradQkv, keys, rows, columns, width + offset, size);
        scatter(gradQkv, headValues, rows, columns, 2 * width + offset, size);
      });
      return tensor2d(gradQkv, [rowCount, columns]);
    };
    return { value: tensor2d(out, [rowCount, width]), gradFunc };
  });
  return op(qkv);
}
