/**
 * Results of `fromHidden` held to the float64 reference, as ts/verification/verification.ts holds
 * those of logits.
 */
import { cuda } from '../device/cuda.js';
import type { DeviceTensor } from '../device/memory.js';
import {
  isLikelihoodAlone,
  isMix,
  lossOfLogps,
  objectiveOf,
  type LossConfig,
} from './objectives.js';
import { referenceLayer, type ReferenceConfig, type ReferenceLayer } from './reference.js';
import type { BatchRows, HiddenBatch, LogitsArray } from '../batch/types.js';
import type { Dtype } from '../dtype.js';
import type { HiddenRunOptions } from '../loss/options.js';
import type { HiddenLossResult } from '../loss/results.js';
import {
  checkValues,
  coefficientOf,
  decoder,
  expectation,
  halfGradientBound,
  lengthsOf,
  prepare,
  rowsOf,
  sequenceBatch,
  Tally,
  withFields,
  type Expected,
  type Prepared,
  type Term,
} from './verification.js';

/** What is verified. */
export type HiddenLibrary = (
  config: LossConfig,
  batch: HiddenBatch,
  run: HiddenRunOptions,
) => HiddenLossResult;

export const hiddenLibrary: HiddenLibrary = (config, batch, run) =>
  objectiveOf(config).fromHidden(batch, run);

/**
 * The library on data in the memory of device 0, where it is copied for each call, and from where
 * the gradients are copied back.
 */
export const deviceHiddenLibrary: HiddenLibrary = (config, batch, { backend, memory }) => {
  const { dtype = 'float32' } = batch;
  const place = (array: LogitsArray) => {
    const buffer = cuda.alloc(array.byteLength);
    if (array.byteLength > 0) buffer.copyFrom(array);
    return buffer;
  };
  const buffers = [
    place(batch.hidden),
    place(batch.weight),
    ...(batch.bias ? [place(batch.bias)] : []),
  ] as const;
  try {
    const [hidden, weight, bias] = buffers;
    const onDevice: HiddenBatch<DeviceTensor> = {
      ...(batch as BatchRows & { readonly hiddenSize?: number }),
      hidden: hidden.tensor(dtype),
      weight: weight.tensor(dtype),
      ...(bias && { bias: bias.tensor(dtype) }),
    };
    const { gradHidden, gradWeight, gradBias, ...values } = objectiveOf(config).fromHidden(
      onDevice,
      {
        ...(backend && { backend }),
        ...(memory !== undefined && { memory }),
      },
    );
    const take = <A extends LogitsArray>(tensor: DeviceTensor | undefined, target: A): A => {
      if (!tensor) throw new TypeError('a gradient was asked for and is missing');
      if (target.byteLength > 0) tensor.copyTo(target);
      tensor.dispose();
      return target;
    };
    const like = new (batch.hidden.constructor as new (length: number) => LogitsArray)(
      batch.hidden.length,
    );
    return {
      ...values,
      gradHidden: take(gradHidden, like),
      gradWeight: take(gradWeight, new Float32Array(batch.weight.length)),
      ...(batch.bias && { gradBias: take(gradBias, new Float32Array(batch.bias.length)) }),
    };
  } finally {
    for (const buffer of buffers) buffer.dispose();
  }
};

/** A batch of hidden states and what the reference makes of its rows, once for all objectives. */
export interface PreparedHidden {
  readonly batch: HiddenBatch;
  readonly layer: ReferenceLayer;
  readonly prepared: Prepared<ReferenceLayer['batch']>;
}

export function prepareHidden(batch: HiddenBatch): PreparedHidden {
  const layer = referenceLayer(batch);
  return { batch, layer, prepared: prepare(layer.batch) };
}

/**
 * What an element of a gradient of the layer may be off by, as a share of the sum of the magnitudes
 * of its terms. In float32, as for the gradient of logits. Where the gradient of the logits goes
 * into the products in 16 bits, it is rounded once more: by half a unit of its format, to which the
 * sums add their own. On the CPU that is so for bfloat16, where the processor multiplies it;
 * float16 is multiplied in float32 there.
 */
export const layerPrecision: Readonly<Record<'cpu' | 'cuda', Readonly<Record<Dtype, number>>>> = {
  cpu: { float32: 1e-5, float16: 1e-5, bfloat16: 2 ** -8 },
  cuda: { float32: 1e-5, float16: 2 ** -10, bfloat16: 2 ** -8 },
};

/** A gradient in float64, and the sum of the magnitudes of the terms of each element. */
interface Sums {
  readonly value: Float64Array;
  readonly size: Float64Array;
}
const sums = (length: number): Sums => ({
  value: new Float64Array(length),
  size: new Float64Array(length),
});

export interface ExpectedLayer {
  readonly gradHidden: Sums;
  readonly gradWeight: Sums;
  readonly gradBias: Sums;
}

/**
 * The chain rule over the terms of the gradient of the logits, coefficient * (onehot - softmax).
 */
export function layerGradients(
  { layer, batch }: PreparedHidden,
  terms: readonly Term[],
): ExpectedLayer {
  const { hidden, weight, hiddenSize } = layer;
  const { sequences, vocab, offset, ignoreIndex } = rowsOf(batch);
  const gradHidden = sums(hidden.length);
  const gradWeight = sums(weight.length);
  const gradBias = sums(vocab);
  const values = new Float64Array(vocab);
  const sizes = new Float64Array(vocab);
  for (let b = 0; b < sequences; b++) {
    for (let row = offset(b); row < offset(b + 1); row++) {
      values.fill(0);
      sizes.fill(0);
      let active = false;
      for (const term of terms) {
        const { labels, residual, sizes: own = residual } = term;
        const coefficient = coefficientOf(term, b, row);
        if (labels[row] === ignoreIndex || coefficient === 0) continue;
        active = true;
        for (let v = 0; v < vocab; v++) {
          values[v] = (values[v] ?? NaN) + coefficient * (residual[row * vocab + v] ?? NaN);
          sizes[v] = (sizes[v] ?? NaN) + Math.abs(coefficient * (own[row * vocab + v] ?? NaN));
        }
      }
      if (!active) continue;
      const h = row * hiddenSize;
      for (let v = 0; v < vocab; v++) {
        const g = values[v] ?? NaN;
        const m = sizes[v] ?? NaN;
        const w = v * hiddenSize;
        add(gradBias, v, g, m);
        for (let k = 0; k < hiddenSize; k++) {
          const x = hidden[h + k] ?? NaN;
          const y = weight[w + k] ?? NaN;
          add(gradHidden, h + k, g * y, m * Math.abs(y));
          add(gradWeight, w + k, g * x, m * Math.abs(x));
        }
      }
    }
  }
  return { gradHidden, gradWeight, gradBias };
}

function add({ value, size }: Sums, i: number, term: number, magnitude: number): void {
  value[i] = (value[i] ?? NaN) + term;
  size[i] = (size[i] ?? NaN) + magnitude;
}

type Gradients = Pick<HiddenLossResult, 'gradHidden' | 'gradWeight' | 'gradBias' | 'backend'>;

/**
 * Every element of every gradient; those of hidden states that nothing scores must be 0 to the bit.
 */
export function checkLayerGradients(
  tally: Tally,
  { batch, layer }: PreparedHidden,
  expected: ExpectedLayer,
  actual: Gradients,
): void {
  const { dtype = 'float32' } = batch;
  const relative = layerPrecision[actual.backend][dtype];
  for (const name of ['gradHidden', 'gradWeight', 'gradBias'] as const) {
    if (name === 'gradBias' && !batch.bias) {
      if (actual.gradBias)
        tally.near('layer', NaN, 0, 0, () => 'gradBias: there is one without a bias');
      continue;
    }
    const { value, size } = expected[name];
    const given = actual[name] as Float32Array | undefined;
    if (given?.length !== value.length) {
      tally.near('layer', given?.length ?? NaN, value.length, 0, () => `${name}: length`);
      continue;
    }
    const half = name === 'gradHidden' && dtype !== 'float32' ? dtype : undefined;
    const decode = decoder(half && given instanceof Uint16Array ? half : 'float32');
    let largest = 0;
    for (const x of value) largest = Math.max(largest, Math.abs(x));
    for (let i = 0; i < value.length; i++) {
      const element = decode(given[i] ?? NaN);
      const wanted = value[i] ?? NaN;
      if (name === 'gradHidden' && !layer.isScored(Math.floor(i / layer.hiddenSize))) {
        if (!Object.is(element, 0))
          tally.near('layer', element || NaN, 0, 0, () => `gradHidden[${i}], of an ignored row`);
        continue;
      }
      const rounding = half ? halfGradientBound(wanted, half) : 0;
      const bound = relative * (size[i] ?? NaN) + 1e-9 * largest + 2 ** -149 + rounding;
      if (
        element === wanted ||
        Math.abs(element - wanted) <= Math.min(1, tally.worst.layer) * bound
      )
        continue;
      tally.near('layer', element, wanted, bound, () => `${name}[${i}]`);
    }
  }
}

/**
 * The terms of the gradient at the log-probabilities that were found, so that the products are held
 * to what they add, however steep an objective is: a coefficient may change by far more than a
 * log-probability's rounding.
 */
export function termsAt(
  config: LossConfig,
  { batch }: { readonly batch: BatchRows },
  { terms }: Expected,
  { logps }: Pick<HiddenLossResult, 'logps'>,
): readonly Term[] {
  const [alignment, ...likelihood] = terms;
  if (!alignment) return [];
  const sequences = { ...sequenceBatch(batch, { logps, lengths: lengthsOf(batch) }) };
  if (likelihood.length === 0) {
    const { gradLogps } = lossOfLogps(config, sequences);
    return [{ ...alignment, coefficients: gradLogps }];
  }
  // A term of its own, whose coefficients are those of the lengths.
  delete sequences.sftDenominator;
  const { gradLogps } = lossOfLogps(withoutLikelihood(config), sequences);
  return [{ ...alignment, coefficients: gradLogps }, ...likelihood];
}

function withoutLikelihood(config: LossConfig): LossConfig {
  const without = (one: ReferenceConfig): ReferenceConfig => {
    const rest = { ...one };
    delete rest.sftWeight;
    delete rest.sftReduction;
    return rest;
  };
  if (!isMix(config)) return without(config);
  return config
    .filter((term) => !isLikelihoodAlone(term.config))
    .map((term) => ({ ...term, config: without(term.config) }));
}

/** Everything about one objective on one batch. */
export function checkHiddenObjective(
  lib: HiddenLibrary,
  config: LossConfig,
  hidden: PreparedHidden,
  backend: 'cpu' | 'cuda' = 'cpu',
): Tally {
  const tally = new Tally();
  const { prepared } = hidden;
  const batch = withFields(config, hidden.batch, prepared.alignment.logps.length);
  const expected = expectation(config, {
    ...prepared,
    batch: withFields(config, prepared.batch, prepared.alignment.logps.length),
  });
  const actual = lib(config, batch, { backend });
  checkValues(tally, hidden.prepared, config, expected, actual);
  checkLayerGradients(
    tally,
    hidden,
    layerGradients(hidden, termsAt(config, { batch }, expected, actual)),
    actual,
  );
  return tally;
}
