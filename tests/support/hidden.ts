// Batches of hidden states, the reference cases of the output layer, and results held to float64
// stage by stage.
import fs from 'node:fs';
import { brotliDecompressSync } from 'node:zlib';
import { expect } from 'vitest';
import {
  DirAlignError,
  dirAlignLoss,
  type HiddenBatch,
  type HiddenLossResult,
  type Logits,
  type WithReference,
} from '../../ts/index.js';
import type { LossConfig } from '../../ts/verification/objectives.js';
import {
  referenceHiddenLoss,
  referenceLayer,
  type ReferenceConfig,
} from '../../ts/verification/reference.js';
import {
  expectation,
  logpBound,
  lossBound,
  scaled,
  Tally,
} from '../../ts/verification/verification.js';
import {
  checkLayerGradients,
  layerGradients,
  termsAt,
  type PreparedHidden,
} from '../../ts/verification/hidden.js';
import type { Dtype } from './batches.js';
import { gradientBound, type Misses } from './bounds.js';
import { at, encodeHalf, generator, integer, normal, present, sameBits } from './numbers.js';
import { checkValueStages } from './stages.js';
import { fromPlanes } from './vectors.js';

export type HostArray = Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>;
export type HostHidden = HiddenBatch<HostArray, HostArray | undefined> & WithReference;

export interface HiddenSpec {
  readonly seed: number;
  readonly sequences: number;
  readonly tokens: number;
  readonly vocab: number;
  readonly size: number;
  readonly dtype?: Dtype;
  readonly bias?: boolean;
  /** Standard deviation of the logits, about. */
  readonly scale?: number;
  /** Share of rows that are ignored; their hidden states are NaN. */
  readonly ignored?: number;
}

export const store = (values: Float32Array<ArrayBuffer>, dtype: Dtype): HostArray =>
  dtype === 'float32' ? values : encodeHalf(values, dtype);

/**
 * Padded; every sequence has a scored row where it has a row at all; the reference is near what the
 * policy would be.
 */
export function randomHidden(spec: HiddenSpec): HostHidden {
  const {
    seed,
    sequences,
    tokens,
    vocab,
    size,
    dtype = 'float32',
    bias = true,
    scale = 2,
    ignored = 0.3,
  } = spec;
  const random = generator(seed);
  const rows = sequences * tokens;
  const labels = Int32Array.from({ length: rows }, () =>
    random() < ignored ? -100 : integer(random, 0, vocab - 1),
  );
  for (let b = 0; b < sequences && tokens > 0; b++)
    labels[b * tokens + integer(random, 0, tokens - 1)] = integer(random, 0, vocab - 1);
  const numbers = (length: number, deviation: number): Float32Array<ArrayBuffer> =>
    Float32Array.from({ length }, () => deviation * normal(random));
  const hidden = numbers(rows * size, 1).map((x, i) =>
    at(labels, Math.floor(i / size)) === -100 ? NaN : x,
  );
  const reference = Float64Array.from({ length: sequences }, (_, b) => {
    const scored = labels
      .subarray(b * tokens, (b + 1) * tokens)
      .filter((label) => label !== -100).length;
    return -scored * (Math.log(vocab) + 0.3 * normal(random)) - 0.1;
  });
  return {
    hidden: store(hidden, dtype),
    weight: store(numbers(vocab * size, scale / Math.sqrt(size)), dtype),
    ...(bias && { bias: store(numbers(vocab, 0.5), dtype) }),
    ...(dtype !== 'float32' && { dtype }),
    shape: [sequences, tokens, vocab],
    labels,
    reference,
  };
}

/** The least `memory` that a call takes, by its own word. */
export function leastMemory(
  batch: HostHidden,
  config: ReferenceConfig = { method: 'dpo', beta: 0.1 },
  run: object = {},
): number {
  try {
    dirAlignLoss(config as never).fromHidden(batch, { ...run, memory: 1 });
  } catch (error) {
    if (error instanceof DirAlignError && error.code === 'ERR_DIRALIGN_OPTION')
      return Number(/at least (\d+)/.exec(error.message)?.[1]);
    throw error;
  }
  throw new Error('one byte was enough');
}

/**
 * From one row of logits at a time to everything at once; steps of a row of `vocab` logits and a
 * hidden state.
 */
export function memories(
  batch: HostHidden,
  config: ReferenceConfig,
  rows: readonly number[],
): number[] {
  const least = leastMemory(batch, config);
  const vocab = batch.shape.at(-1) ?? NaN;
  const row = 4 * (vocab + batch.weight.length / vocab);
  return rows.map((n) => least + Math.ceil(n * row));
}

export const gradients = ['gradHidden', 'gradWeight', 'gradBias'] as const;
const values = ['losses', 'logps', 'counts', 'rewards', 'coefficients'] as const;
type Values = Pick<HiddenLossResult<Logits>, (typeof values)[number] | 'loss' | 'metrics'>;

/** Everything but gradients, to the bit. */
export function sameValues(actual: Values, expected: Values, what: string): void {
  for (const key of values)
    expect(sameBits(actual[key], expected[key]), `${what}: ${key}`).toBe(true);
  expect(Object.is(actual.loss, expected.loss), what).toBe(true);
  expect(actual.metrics, what).toStrictEqual(expected.metrics);
}

export function sameGradients(
  actual: HiddenLossResult,
  expected: HiddenLossResult,
  what: string,
): void {
  for (const key of gradients) {
    expect(actual[key] === undefined, `${what}: ${key}`).toBe(expected[key] === undefined);
    if (expected[key])
      expect(sameBits(present(actual[key]), expected[key]), `${what}: ${key}`).toBe(true);
  }
}

/**
 * A result against float64, stage by stage: see stages.ts. `scale` is the run's `gradientScale`.
 */
export function checkStages(
  tally: Tally,
  config: LossConfig,
  prepared: PreparedHidden,
  result: HiddenLossResult,
  scale = 1,
): void {
  checkValueStages(tally, config, prepared.prepared, result);
  const expected = expectation(config, prepared.prepared);
  const { terms } = scaled(
    { ...expected, terms: termsAt(config, prepared, expected, result) },
    scale,
  );
  checkLayerGradients(tally, prepared, layerGradients(prepared, terms), result);
}

// ----------------------------------------------------------------------------------------------
// The reference cases

interface LayerArrays {
  readonly hidden: Float32Array<ArrayBuffer>;
  readonly weight: Float32Array<ArrayBuffer>;
  readonly bias: Float32Array<ArrayBuffer> | undefined;
}
export interface LayerInput extends LayerArrays {
  readonly name: string;
  readonly B: number;
  readonly T: number;
  readonly V: number;
  readonly H: number;
  readonly reference: Float64Array;
  readonly counts: readonly number[];
  readonly logps: readonly number[];
  readonly labels: Int32Array;
}
export interface LayerCase {
  readonly id: string;
  readonly input: LayerInput;
  readonly call: ReferenceConfig;
  readonly loss: number;
  readonly losses: readonly number[] | undefined;
  /** In float32. */
  readonly gradients: LayerArrays;
}

interface Lengths {
  readonly hidden: number;
  readonly weight: number;
  readonly bias?: number;
}
interface Packed {
  readonly inputs: Readonly<
    Record<
      string,
      Omit<LayerInput, 'reference' | 'labels'> & {
        reference: number[];
        labels: number[];
        lengths: Lengths;
      }
    >
  >;
  readonly cases: readonly (Omit<LayerCase, 'input' | 'gradients'> & {
    readonly input: string;
    readonly lengths: Lengths;
  })[];
}

/** The cases of the fused output layer that scripts/pack-vectors.mjs packed. */
export function loadLayerCases(
  folder = new URL('../fixtures/vectors/', import.meta.url),
): LayerCase[] {
  const unpack = (name: string): Buffer =>
    brotliDecompressSync(fs.readFileSync(new URL(name, folder)));
  const packed = JSON.parse(unpack('layer-cases.json.br').toString()) as Packed;
  const data = new Float32Array(Uint8Array.from(fromPlanes(unpack('layer.f32.br'), 4)).buffer);
  let read = 0;
  const take = (length: number): Float32Array<ArrayBuffer> => data.slice(read, (read += length));
  const arrays = ({ hidden, weight, bias }: Lengths): LayerArrays => ({
    hidden: take(hidden),
    weight: take(weight),
    bias: bias === undefined ? undefined : take(bias),
  });
  const inputs = new Map<string, LayerInput>();
  for (const [name, { reference, labels, lengths, ...input }] of Object.entries(packed.inputs)) {
    const own = { reference: Float64Array.from(reference), labels: Int32Array.from(labels) };
    inputs.set(name, { ...input, ...own, ...arrays(lengths), name });
  }
  const cases = packed.cases.map(({ input, lengths, ...c }) => ({
    ...c,
    input: inputs.get(input) as LayerInput,
    gradients: arrays(lengths),
  }));
  if (read !== data.length) throw new Error('the arrays do not fit the cases');
  return cases;
}

/** A case as a call takes it. `sft` has no rejected sequences. */
export function layerBatch({ input, call }: LayerCase): HostHidden {
  const { B, T, V, H, hidden, weight, bias, labels, reference } = input;
  const sequences = call.method === 'sft' ? B : 2 * B;
  return {
    hidden: hidden.slice(0, sequences * T * H),
    weight: weight.slice(),
    ...(bias && { bias: bias.slice() }),
    shape: [sequences, T, V],
    labels: labels.slice(0, sequences * T),
    reference: reference.slice(0, sequences),
  };
}

/** Per element of a gradient, the sum of the magnitudes of its terms. */
function layerTerms(
  batch: HostHidden,
  config: ReferenceConfig,
): Record<(typeof gradients)[number], Float64Array> {
  const { gradLogits } = referenceHiddenLoss(config, batch);
  const { hidden, weight, hiddenSize, isScored } = referenceLayer(batch);
  const vocab = weight.length / hiddenSize;
  const result = {
    gradHidden: new Float64Array(hidden.length),
    gradWeight: new Float64Array(weight.length),
    gradBias: new Float64Array(vocab),
  };
  const add = (array: Float64Array, i: number, x: number): void => {
    array[i] = at(array, i) + Math.abs(x);
  };
  for (let row = 0; row * hiddenSize < hidden.length; row++) {
    if (!isScored(row)) continue;
    for (let v = 0; v < vocab; v++) {
      const g = at(gradLogits, row * vocab + v);
      add(result.gradBias, v, g);
      for (let k = 0; k < hiddenSize; k++) {
        add(result.gradHidden, row * hiddenSize + k, g * at(weight, v * hiddenSize + k));
        add(result.gradWeight, v * hiddenSize + k, g * at(hidden, row * hiddenSize + k));
      }
    }
  }
  return result;
}

const termsOfCases = new WeakMap<LayerCase, ReturnType<typeof layerTerms>>();

/**
 * A result against the reference values of a case; gradients to what the sum of the magnitudes of
 * an element's terms allows.
 */
export function checkLayerCase(
  misses: Misses,
  what: string,
  c: LayerCase,
  result: HiddenLossResult<HostArray>,
): void {
  const terms = termsOfCases.get(c) ?? layerTerms(layerBatch(c), c.call);
  termsOfCases.set(c, terms);
  misses.near(`${what} loss`, result.loss, c.loss, lossBound(c.loss));
  if (c.losses) misses.each(`${what} losses`, result.losses, c.losses, lossBound);
  const logps = c.input.logps.slice(0, result.logps.length);
  misses.each(`${what} logps`, result.logps, logps, (x, b) => logpBound(x, at(c.input.counts, b)));
  for (const [name, key] of [
    ['gradHidden', 'hidden'],
    ['gradWeight', 'weight'],
    ['gradBias', 'bias'],
  ] as const) {
    // `sft` has no rejected sequences.
    const expected = c.gradients[key]?.subarray(0, result[name]?.length);
    misses.require(
      (expected === undefined) === (result[name] === undefined),
      `${what} ${name} is there`,
    );
    if (!expected || !result[name]) continue;
    const largest = expected.reduce((x, y) => Math.max(x, Math.abs(y)), 0);
    misses.each(
      `${what} ${name}`,
      result[name],
      expected,
      (x, i) => gradientBound(at(terms[name], i), largest) + 2 ** -23 * Math.abs(x),
    );
  }
}
