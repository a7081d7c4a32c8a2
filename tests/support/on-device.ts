// Any call of the package on a device, on tensors there and on host arrays that travel there, and
// how near its numbers must be to those in float64.
import {
  logpsBackward,
  tokenLogps,
  type LogitsBatch,
  type LogpsDerivatives,
} from '../../ts/index.js';
import type { ReferenceConfig } from '../../ts/verification/reference.js';
import { inDtype, objectiveOf, type Dtype } from './batches.js';
import { gradientBound, halfBound, largestOf, logpBound, type Misses } from './bounds.js';
import { Copy, takeGradient, type Elements } from './device.js';
import { at, decodeHalf, generator, integer, normal, present } from './numbers.js';

export type Numbers = ArrayLike<number>;
type Arrays = 'logits' | 'hidden' | 'weight' | 'bias';
export interface Run {
  readonly backend?: 'cuda';
  readonly gradient?: 'dense' | 'factored';
  readonly inPlace?: true;
  readonly memory?: number;
}
/** Any call of the package: its gradients come back as numbers. */
export type Call = (batch: never, run: never) => object;
export interface Results {
  readonly gradLogits: Elements;
  readonly gradHidden: Elements;
  readonly gradWeight: Elements;
  readonly gradBias: Elements;
  readonly [other: string]: unknown;
}
export interface Way {
  readonly name: string;
  readonly compute: (batch: object, call: Call, run?: Run, shift?: number) => Results;
}

const arraysOf = (batch: object): [Arrays, Elements][] =>
  (Object.entries(batch) as [Arrays, Elements][]).filter(([name]) =>
    ['logits', 'hidden', 'weight', 'bias'].includes(name),
  );
/** Of the array that it is the gradient of. */
const gradientName = (name: Arrays) => `grad${name.charAt(0).toUpperCase()}${name.slice(1)}`;

export const ways: readonly Way[] = [
  {
    name: 'in device memory',
    compute(batch, call, run = {}, shift = 1) {
      const { dtype } = batch as { readonly dtype?: Dtype };
      const arrays = arraysOf(batch);
      const copies = arrays.map(
        ([name, array]) => [name, new Copy(array, dtype, { shift })] as const,
      );
      try {
        const tensors = Object.fromEntries(copies.map(([name, copy]) => [name, copy.tensor]));
        const result = call({ ...batch, ...tensors } as never, run as never);
        const read = arrays.flatMap(([name, array], i) => {
          const gradient = (result as Record<string, unknown>)[gradientName(name)];
          const copy = present(copies[i])[1];
          if (gradient === undefined) return [];
          const like =
            name === 'logits' || name === 'hidden' ? array : new Float32Array(array.length);
          const host = run.inPlace ? copy.read() : takeGradient(gradient as never, like as never);
          return [[gradientName(name), host]];
        });
        return { ...result, ...Object.fromEntries(read) } as Results;
      } finally {
        for (const [, copy] of copies) copy.dispose();
      }
    },
  },
  {
    name: 'in host arrays',
    compute(batch, call, run = {}) {
      const own = run.inPlace
        ? Object.fromEntries(arraysOf(batch).map(([name, array]) => [name, array.slice()]))
        : {};
      return call({ ...batch, ...own } as never, { ...run, backend: 'cuda' } as never) as Results;
    },
  },
];

/**
 * An element that is a difference of larger ones, as those of the entropy and of products are, is
 * as good as the largest.
 */
export function nearLargest(
  misses: Misses,
  what: string,
  actual: Numbers,
  expected: Numbers,
): void {
  const largest = largestOf(expected);
  misses.each(what, actual, expected, () => gradientBound(largest, 0));
}
/** A unit whose coefficient nearly cancels has the error of its log-probabilities. */
export function nearElements(
  misses: Misses,
  what: string,
  actual: Numbers,
  expected: Numbers,
): void {
  const largest = largestOf(expected);
  misses.each(what, actual, expected, (x) => gradientBound(Math.abs(x), 20 * largest));
}
export function nearRows(misses: Misses, actual: Numbers, expected: Numbers): void {
  misses.each('logps', actual, expected, (x) => logpBound(x, 1));
}
export function nearLayer(
  misses: Misses,
  actual: Results,
  expected: { gradHidden: Numbers; gradWeight: Numbers; gradBias?: Numbers },
): void {
  for (const name of ['gradHidden', 'gradWeight', 'gradBias'] as const)
    if (expected[name]) nearLargest(misses, name, actual[name], expected[name]);
    else misses.require(!(name in actual), `${name}: there is one`);
}

export const objectiveCall = (config: ReferenceConfig): Call => objectiveOf(config);
export const hiddenCall =
  (config: ReferenceConfig): Call =>
  (batch, run) =>
    objectiveOf(config).fromHidden(batch, run);
export const backwardCall =
  (derivatives: LogpsDerivatives): Call =>
  (batch, run) =>
    logpsBackward(batch, derivatives, run);
export const tokensCall: Call = (batch: LogitsBatch, run: object) =>
  tokenLogps(batch, { ...run, collision: true });

export const transforms = [
  { logitScale: 0.0625 },
  { logitSoftcap: 3 },
  { logitScale: 1.5, logitSoftcap: 30, temperature: 0.7 },
  { temperature: 1.25 },
] as const;

interface Spec {
  readonly dtype?: Dtype;
  readonly sequences?: number;
  readonly tokens?: number;
  readonly vocab: number;
  readonly padding?: number;
  readonly deviation?: number;
}

/** Rows of logits, some without a label, and weights of the tokens, some of them 0. */
export function randomRows(seed: number, spec: Spec) {
  const { dtype = 'float32', sequences = 4, tokens = 2, vocab, padding = 0, deviation = 3 } = spec;
  const random = generator(seed);
  const rows = sequences * tokens;
  const rowStride = vocab + padding;
  const numbers = Float32Array.from({ length: rows * rowStride }, (_, i) =>
    i % rowStride < vocab ? deviation * normal(random) : NaN,
  );
  const logits = inDtype(numbers, dtype);
  return {
    logits,
    dtype,
    shape: [sequences, tokens, vocab] as const,
    rowStride,
    labels: Int32Array.from({ length: rows }, (_, row) =>
      row % tokens > 0 && random() < 0.3 ? -100 : integer(random, 0, vocab - 1),
    ),
    reference: Float64Array.from({ length: sequences }, () => -5 * random()),
    tokenWeights: Float64Array.from({ length: rows }, (_, row) =>
      row % tokens > 0 && random() < 0.3 ? 0 : 0.5 + random(),
    ),
  };
}
export type RandomRows = ReturnType<typeof randomRows>;

/** The same in float64, without what lies between the rows. */
export function exact<B extends RandomRows>(batch: B) {
  const { logits, dtype, shape, rowStride, ...rest } = batch;
  const values = dtype === 'float32' ? logits : decodeHalf(logits, dtype);
  const vocab = shape[2];
  const packed = new Float64Array(batch.labels.length * vocab);
  batch.labels.forEach((_, row) => {
    for (let v = 0; v < vocab; v++) packed[row * vocab + v] = at(values, row * rowStride + v);
  });
  return { ...rest, shape, logits: packed };
}

/** A gradient of logits, where the padding must be 0. */
export function nearGradient(
  misses: Misses,
  { dtype, shape, rowStride, labels }: RandomRows,
  actual: Elements,
  expected: Numbers,
  bound: (expected: number, row: number) => number,
): void {
  const values = dtype === 'float32' ? actual : decodeHalf(actual, dtype);
  const vocab = shape[2];
  const least = (labels.length - 1) * rowStride + vocab;
  misses.require(values.length >= least, () => `${values.length} elements of ${least}`);
  values.forEach((value, i) => {
    const [row, v] = [Math.floor(i / rowStride), i % rowStride];
    const wanted = v < vocab ? at(expected, row * vocab + v) : 0;
    const own = dtype === 'float32' ? 0 : halfBound(wanted, dtype);
    misses.near(() => `[${row}, ${v}]`, value, wanted, v < vocab ? bound(wanted, row) + own : 0);
  });
}
