/** The objectives and batches that `diralign verify` goes through. */
import { isLikelihood, methods, type MethodInfo } from '../catalogue.js';
import { presets } from '../presets.js';
import { alignmentsOf, configsOf, isLikelihoodAlone, type LossConfig } from './objectives.js';
import { referenceLayer, referenceLogps, type ReferenceConfig } from './reference.js';
import type { HiddenBatch, LogitsArray, LogitsBatch } from '../batch/types.js';
import type { Dtype } from '../dtype.js';
import { decoder, encode } from './verification.js';

/**
 * Second values of the options, beside their defaults; every method that has the option is checked
 * with them.
 */
const otherValues: Readonly<Record<string, readonly (number | string)[]>> = {
  labelSmoothing: [0.2],
  gamma: [1.5],
  lambda: [0.25],
  calibrationWeight: [0.5],
  divergence: ['forward_kl', 'js', 'alpha'],
  alpha: [0.3],
  tau: [0.5],
  penalty: [5],
  desirableWeight: [1.5],
  undesirableWeight: [0.5],
  rewardTemperature: [0.5],
};

/**
 * The method as it is by default, and each of its settings changed in turn. Taken from the
 * catalogue: a new method is checked, too.
 */
export function configs(info: MethodInfo): ReferenceConfig[] {
  const method = info.name;
  const best = presets.best['ultrafeedback-llama-3.1-8b'][info.name]?.beta;
  const base: ReferenceConfig = info.beta ? { method, beta: 0.1 } : { method };
  const list: ReferenceConfig[] = [base, { ...base, normalize: !info.normalize }];
  if (best !== undefined && best !== base.beta) list.push({ method, beta: best });
  for (const sftReduction of ['token', 'mean'] as const) {
    if (isLikelihood(info)) list.push({ ...base, sftReduction });
    else if ('sftWeight' in info.options) list.push({ ...base, sftWeight: 0.5, sftReduction });
  }
  if ('sftWeight' in info.options) list.push({ ...base, sftWeight: 0.5 });
  if (info.reference) list.push({ ...base, referenceFree: true });
  for (const name of Object.keys(info.options)) {
    for (const value of otherValues[name] ?? []) {
      // Of the divergences, one has an alpha.
      const alphaOfDivergence = name === 'alpha' && 'divergence' in info.options;
      list.push({
        ...base,
        ...(alphaOfDivergence && { divergence: 'alpha' as const }),
        [name]: value,
      });
    }
  }
  return list;
}

export function allConfigs(): ReferenceConfig[] {
  return methods().flatMap(configs);
}

/**
 * Mixtures of two and three: of each arity, with a likelihood, and with methods of whole batches.
 */
export const mixtures: readonly LossConfig[] = (
  [
    [
      [0.8, { method: 'dpo', beta: 0.1 }],
      [0.2, { method: 'bco_pair', beta: 0.1 }],
      [1, { method: 'sft', sftReduction: 'mean' }],
    ],
    [
      [0.5, { method: 'simpo', beta: 2, labelSmoothing: 0.1 }],
      [2, { method: 'sft', sftReduction: 'token' }],
    ],
    [
      [1, { method: 'aot', beta: 0.1 }],
      [0.5, { method: 'ipo', beta: 0.1 }],
      [0.25, { method: 'dpo', beta: 0.1, sftWeight: 0.5 }],
    ],
    [
      [0.7, { method: 'kto', beta: 0.1 }],
      [0.3, { method: 'bco', beta: 0.1 }],
      [0.1, { method: 'sft' }],
    ],
    [
      [1, { method: 'plackett_luce', beta: 0.1 }],
      [0.5, { method: 'nca_listwise', beta: 0.1 }],
    ],
  ] satisfies [number, ReferenceConfig][][]
).map((terms) => terms.map(([weight, config]) => ({ weight, config })));

/**
 * Uniform numbers in [0, 1) that are the same in every run (a linear congruence with mixed output).
 */
function uniform(seed: number): () => number {
  let state = BigInt(seed) * 2n + 1n;
  return () => {
    state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffffffffffffffffn;
    return Number(((state ^ (state >> 33n)) >> 12n) & 0xfffffffffffffn) / 2 ** 52;
  };
}

interface Sizes {
  readonly sequences: number;
  readonly tokens: number;
  readonly vocab: number;
}

/** A reference that mostly agrees with the policy, as one it was trained from does. */
function nearby(batch: LogitsBatch, next: () => number): Float64Array {
  return referenceLogps(batch).logps.map((logp) => logp * (0.8 + 0.4 * next()));
}

/** A reference that is near under the weights of tokens and the transform, too. */
function referred(batch: LogitsBatch): LogitsBatch {
  return { ...batch, reference: nearby(batch, uniform(11)) };
}

/**
 * Logits around 0, some larger, labels anywhere. About a third of the rows is ignored and holds
 * nothing but NaN.
 */
function random(
  { sequences, tokens, vocab }: Sizes,
  seed: number,
): LogitsBatch & { readonly logits: Float32Array } {
  const next = uniform(seed);
  const rows = sequences * tokens;
  const labels = Int32Array.from({ length: rows }, (_, row) =>
    row % tokens !== 0 && next() < 0.33 ? -100 : Math.floor(next() * vocab),
  );
  const logits = Float32Array.from({ length: rows * vocab }, (_, i) => {
    const value = 8 * (next() - 0.5) * (next() < 0.05 ? 3 : 1);
    return labels[Math.floor(i / vocab)] === -100 ? NaN : value;
  });
  const batch = { logits, shape: [sequences, tokens, vocab] as const, labels };
  return { ...batch, reference: nearby(batch, next) };
}

/**
 * Rows so sure of their label that 1 - p is 1e-12 and thereabouts: the log-odds live on those
 * digits.
 */
function certain(): LogitsBatch {
  const [sequences, tokens, vocab] = [4, 3, 8];
  const batch = random({ sequences, tokens, vocab }, 5);
  const logits = batch.logits.map((value, i) => {
    const row = Math.floor(i / vocab);
    if (Number.isNaN(value)) return NaN;
    return i % vocab === batch.labels[row] ? 27 + (row % 5) * 0.25 : value / 16;
  });
  return { ...batch, logits, reference: Float64Array.of(-1e-3, -0.2, -0.1, -2e-3) };
}

/**
 * Log-ratios of 30 to 950 nats below 0, as in a training that has gone wrong: exponential scores of
 * the rejected are beyond float64 there, and their slopes meet the sigmoids of those scores.
 */
function far(): LogitsBatch {
  const [sequences, tokens, vocab] = [6, 3, 8];
  const below = [10, 0, 250, 2, 300, 320]; // of each row, in nats
  const labels = Int32Array.from({ length: sequences * tokens }, (_, row) => row % vocab);
  const logits = Float32Array.from({ length: sequences * tokens * vocab }, (_, i) => {
    const row = Math.floor(i / vocab);
    return i % vocab === labels[row] ? -(below[Math.floor(row / tokens)] ?? 0) : (i % 5) / 4;
  });
  return {
    logits,
    shape: [sequences, tokens, vocab],
    labels,
    reference: Float64Array.of(-4, -5, -6, -7, -8, -9),
  };
}

/**
 * A pair whose chosen sequence has no scored token, another whose rejected one has none; rows wider
 * than the vocabulary.
 */
function ragged(): LogitsBatch {
  const [sequences, tokens, vocab, rowStride] = [8, 5, 31, 40];
  const batch = random({ sequences, tokens, vocab }, 6);
  const labels = batch.labels.slice();
  labels.fill(-100, 1 * tokens, 2 * tokens);
  labels.fill(-100, 6 * tokens, 7 * tokens);
  const logits = new Float32Array(sequences * tokens * rowStride).fill(NaN);
  labels.forEach((label, row) => {
    if (label !== -100)
      logits.set(batch.logits.subarray(row * vocab, (row + 1) * vocab), row * rowStride);
  });
  return { ...batch, logits, labels, rowStride };
}

/**
 * The likelihood term scores the prompt, too. A row with either label is read; with neither it is
 * NaN.
 */
function prompted(): LogitsBatch {
  const batch = random({ sequences: 4, tokens: 6, vocab: 13 }, 7);
  const sftLabels = batch.labels.map((label, row) => (row % 6 < 3 ? row % 13 : label));
  const next = uniform(8);
  const logits = batch.logits.map((value, i) => {
    const row = Math.floor(i / 13);
    return Number.isNaN(value) && sftLabels[row] !== -100 ? 6 * next() - 3 : value;
  });
  return { ...batch, logits, sftLabels };
}

/** Tokens of other weights than 1, above and below; one of weight 0. */
function weighted<B extends { readonly labels: Int32Array }>(batch: B) {
  const tokenWeights = Float64Array.from(batch.labels, (_, row) =>
    row === 4 ? 0 : 0.25 + ((5 * row) % 8) / 4,
  );
  return { ...batch, tokenWeights };
}

/** Logits that a model scales and caps before the softmax, at another temperature. */
function transformed<B extends object>(batch: B) {
  return { ...batch, logitScale: 0.75, logitSoftcap: 5, temperature: 1.25 };
}

export interface NamedBatch {
  readonly name: string;
  readonly batch: LogitsBatch;
  /** Whether the loss has a derivative there that differences can see. */
  readonly isSmooth: (config: LossConfig) => boolean;
  readonly isChecked: (config: LossConfig) => boolean;
}

const always = (): boolean => true;
const isCoupled = (config: LossConfig): boolean =>
  alignmentsOf(config).some((info) => info.batchCoupled);
/** The likelihood itself has one set of labels. */
const hasTwoSetsOfLabels = (config: LossConfig): boolean =>
  !configsOf(config).every(isLikelihoodAlone);

export function syntheticBatches(): NamedBatch[] {
  const sized = ([1, 2, 31, 513] as const).map((vocab, i) => ({
    name: `vocabulary ${vocab}`,
    batch: random({ sequences: 4, tokens: 4, vocab }, i + 1),
    // With one word every log-probability is 0, at the end of its range.
    isSmooth: () => vocab > 1,
    isChecked: always,
  }));
  return [
    ...sized,
    {
      name: 'certain rows',
      batch: certain(),
      // Margins so near one another change places under the smallest step.
      isSmooth: (config) => !isCoupled(config),
      // Two slopes of the sigmoid that agree in all digits of float64: the reference has none left
      // of their difference.
      isChecked: (config) =>
        configsOf(config).every(
          ({ method, referenceFree }) => method !== 'apo_down' || referenceFree !== true,
        ),
    },
    // Losses of 0, and losses that grow e-fold with every nat, have no differences worth the name.
    { name: 'far from the reference', batch: far(), isSmooth: () => false, isChecked: always },
    { name: 'empty sequences, wide rows', batch: ragged(), isSmooth: always, isChecked: always },
    {
      name: 'likelihood of the prompt',
      batch: prompted(),
      isSmooth: always,
      isChecked: hasTwoSetsOfLabels,
    },
    {
      name: 'weights of tokens',
      batch: referred(weighted(random({ sequences: 4, tokens: 3, vocab: 11 }, 9))),
      isSmooth: always,
      isChecked: always,
    },
    {
      name: 'scale, cap and temperature',
      batch: referred(transformed(random({ sequences: 4, tokens: 3, vocab: 35 }, 10))),
      isSmooth: () => false,
      isChecked: always,
    },
  ];
}

export interface NamedHiddenBatch {
  readonly name: string;
  readonly batch: HiddenBatch;
  readonly isChecked: (config: LossConfig) => boolean;
}

/** Hidden states around 0 and a layer whose logits are; ignored rows hold nothing but NaN. */
function randomLayer(
  sizes: Sizes & { readonly hiddenSize: number; readonly bias: boolean },
  seed: number,
): HiddenBatch {
  const { sequences, tokens, vocab, hiddenSize, bias } = sizes;
  const next = uniform(seed);
  const rows = sequences * tokens;
  const numbers = (length: number, size: number): Float32Array =>
    Float32Array.from({ length }, () => size * (next() - 0.5));
  const labels = Int32Array.from({ length: rows }, (_, row) =>
    row % tokens !== 0 && next() < 0.33 ? -100 : Math.floor(next() * vocab),
  );
  const hidden = numbers(rows * hiddenSize, 3).map((x, i) =>
    labels[Math.floor(i / hiddenSize)] === -100 ? NaN : x,
  );
  const weight = numbers(vocab * hiddenSize, 8 / Math.sqrt(hiddenSize));
  const batch = {
    hidden,
    weight,
    ...(bias && { bias: numbers(vocab, 2) }),
    shape: [sequences, tokens, vocab] as const,
    labels,
  };
  const { logps } = referenceLogps(referenceLayer(batch).batch);
  return { ...batch, reference: logps.map((logp) => logp * (0.8 + 0.4 * next())) };
}

export function syntheticHiddenBatches(): NamedHiddenBatch[] {
  const sizes = [
    { vocab: 1, hiddenSize: 1, bias: true },
    { vocab: 31, hiddenSize: 17, bias: false },
    { vocab: 129, hiddenSize: 33, bias: true },
  ];
  const sized = sizes.map((size, i) => ({
    name: `output layer, ${size.vocab} x ${size.hiddenSize}`,
    batch: randomLayer({ sequences: 4, tokens: 4, ...size }, 20 + i),
    isChecked: always,
  }));
  const whole = randomLayer({ sequences: 6, tokens: 4, vocab: 13, hiddenSize: 5, bias: true }, 24);
  const labels = whole.labels.slice();
  labels.fill(-100, 1 * 4, 2 * 4);
  labels.fill(-100, 5 * 4, 6 * 4);
  const prompt = randomLayer({ sequences: 4, tokens: 5, vocab: 13, hiddenSize: 5, bias: true }, 25);
  const sftLabels = prompt.labels.map((label, row) =>
    label !== -100 && row % 5 < 2 ? row % 13 : label,
  );
  return [
    ...sized,
    { name: 'output layer, empty sequences', batch: { ...whole, labels }, isChecked: always },
    {
      name: 'output layer, likelihood of the prompt',
      batch: { ...prompt, sftLabels },
      isChecked: hasTwoSetsOfLabels,
    },
    {
      name: 'output layer, fields of rows',
      batch: weighted(
        transformed(
          randomLayer({ sequences: 4, tokens: 3, vocab: 19, hiddenSize: 7, bias: true }, 26),
        ),
      ),
      isChecked: always,
    },
  ];
}

/** The same batch in another dtype, rounded to nearest. */
export function convertedHidden(batch: HiddenBatch, dtype: 'float16' | 'bfloat16'): HiddenBatch {
  const convert = (array: LogitsArray): Uint16Array =>
    Uint16Array.from(array as Float32Array, (x) => encode(x, dtype));
  const { hidden, weight, bias } = batch;
  return {
    ...batch,
    hidden: convert(hidden),
    weight: convert(weight),
    ...(bias && { bias: convert(bias) }),
    dtype,
  };
}

/** The same batch in another dtype, rounded to nearest. */
export function converted(batch: LogitsBatch, dtype: Dtype): LogitsBatch {
  const own = batch.dtype ?? 'float32';
  if (own === dtype) return batch;
  const decode = decoder(own);
  const values = Float32Array.from(batch.logits as Float32Array, decode);
  const logits = dtype === 'float32' ? values : Uint16Array.from(values, (x) => encode(x, dtype));
  return { ...batch, logits, dtype };
}

/**
 * Padded to packed: the rows behind the last that is scored are cut off. A packed batch stays as it
 * is.
 */
export function packed(batch: LogitsBatch): LogitsBatch {
  const { shape, labels, sftLabels, logits, rowStride, ignoreIndex = -100, ...rest } = batch;
  if (shape.length === 2) return batch;
  const [sequences, tokens, vocab] = shape as readonly [number, number, number];
  const stride = rowStride ?? vocab;
  const isScored = (row: number): boolean =>
    labels[row] !== ignoreIndex || (sftLabels !== undefined && sftLabels[row] !== ignoreIndex);
  const offsets = new Int32Array(sequences + 1);
  const kept: number[] = [];
  for (let b = 0; b < sequences; b++) {
    let end = (b + 1) * tokens;
    while (end > b * tokens && !isScored(end - 1)) end--;
    for (let row = b * tokens; row < end; row++) kept.push(row);
    offsets[b + 1] = kept.length;
  }
  const source = logits as Float32Array;
  const target = new (source.constructor as Float32ArrayConstructor)(kept.length * stride);
  kept.forEach((row, i) => {
    // The last row of a batch may lack its padding.
    target.set(source.subarray(row * stride, row * stride + vocab), i * stride);
  });
  const pick = (values: Int32Array): Int32Array => Int32Array.from(kept, (row) => values[row] ?? 0);
  const { tokenWeights } = batch;
  return {
    ...rest,
    logits: target,
    shape: [kept.length, vocab],
    offsets,
    ...(rowStride !== undefined && { rowStride }),
    labels: pick(labels),
    ...(sftLabels && { sftLabels: pick(sftLabels) }),
    ...(tokenWeights && {
      tokenWeights: Float64Array.from(kept, (row) => tokenWeights[row] ?? 0),
    }),
    ignoreIndex,
  };
}
