// Random batches and objectives for the tests.
import type { LogitsBatch, Method, Objective, WithReference } from '../../ts/index.js';
import { dirAlignLoss } from '../../ts/index.js';
import type { ReferenceConfig } from '../../ts/verification/reference.js';
import {
  at,
  encodeHalf,
  generator,
  integer,
  normal,
  type HalfDtype,
  type Random,
} from './numbers.js';

export type Dtype = 'float32' | HalfDtype;
export const dtypes: readonly Dtype[] = ['float32', 'float16', 'bfloat16'];

export interface BatchSpec {
  readonly seed: number;
  readonly sequences: number;
  readonly tokens: number;
  readonly vocab: number;
  readonly dtype?: Dtype;
  /** Standard deviation of the logits. */
  readonly scale?: number;
  /** Share of rows that are ignored. */
  readonly ignored?: number;
  /** Logits as of {@link randomRow}, and NaN in ignored rows. */
  readonly peaked?: boolean;
}

export type HostBatch = LogitsBatch<Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>> &
  WithReference;

/** Logits of a standard deviation near 2.5, a few far above the rest as a trained head has them. */
export function randomRow(random: Random, vocab: number): Float32Array<ArrayBuffer> {
  const row = Float32Array.from({ length: vocab }, () => 2.5 * normal(random));
  for (let i = 0; i < 3; i++) {
    const v = integer(random, 0, vocab - 1);
    row[v] = at(row, v) + 4 + 4 * random();
  }
  return row;
}

export function inDtype(
  values: Float32Array<ArrayBuffer>,
  dtype: Dtype,
): Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer> {
  return dtype === 'float32' ? values : encodeHalf(values, dtype);
}

/**
 * Padded; every sequence has a scored row where it has a row at all; the reference is near what the
 * policy would be.
 */
export function randomBatch(spec: BatchSpec): HostBatch {
  const { seed, sequences, tokens, vocab, dtype = 'float32', scale = 2, ignored = 0.3 } = spec;
  const { peaked = false } = spec;
  const random = generator(seed);
  const rows = sequences * tokens;
  const values = peaked
    ? new Float32Array(rows * vocab)
    : Float32Array.from({ length: rows * vocab }, () => scale * normal(random));
  const labels = Int32Array.from({ length: rows }, () =>
    random() < ignored ? -100 : integer(random, 0, vocab - 1),
  );
  for (let b = 0; b < sequences && tokens > 0; b++)
    labels[b * tokens + integer(random, 0, tokens - 1)] = integer(random, 0, vocab - 1);
  if (peaked)
    labels.forEach((label, row) => {
      if (label === -100) values.fill(NaN, row * vocab, (row + 1) * vocab);
      else values.set(randomRow(random, vocab), row * vocab);
    });
  const reference = Float64Array.from({ length: sequences }, (_, b) => {
    const scored = labels
      .subarray(b * tokens, (b + 1) * tokens)
      .filter((label) => label !== -100).length;
    return -scored * (Math.log(vocab) + 0.3 * normal(random)) - 0.1;
  });
  return {
    logits: inDtype(values, dtype),
    ...(dtype === 'float32' ? {} : { dtype }),
    shape: [sequences, tokens, vocab],
    labels,
    reference,
  };
}

/** The batch with logits of its own, which a call may overwrite. */
export function copyOf(batch: HostBatch): HostBatch {
  return { ...batch, logits: batch.logits.slice() };
}

/** Sequence log-probabilities of a plausible size, their counts, and a reference near them. */
export function randomLogps(random: Random, pairs: number) {
  const counts = Int32Array.from({ length: 2 * pairs }, () => integer(random, 1, 12));
  const logps = Float64Array.from(counts, (n) => -n * (0.05 + 2 * random()));
  const reference = logps.map((x) => Math.min(-0.01, x + normal(random)));
  return { logps, counts, reference };
}

/** Those that need nothing of a batch but its rows and a reference. */
export const everyMethod: readonly Method[] = [
  ...([
    'sft',
    'dpo',
    'ipo',
    'simpo',
    'orpo',
    'asft',
    'apo_zero',
    'nca',
    'cal_dpo',
    'hinge',
    'robust',
    'exo_pair',
  ] as const),
  ...([
    'bco_pair',
    'sppo_hard',
    'aot',
    'aot_unpaired',
    'discopop',
    'apo_down',
    'cpo',
    'alphapo',
    'r_dpo',
    'dpop',
    'simper',
  ] as const),
];
export const coupled: readonly Method[] = ['aot', 'aot_unpaired'];

/** Values of the options of their own that methods have, besides the defaults. */
const ownOptions: Partial<Record<Method, readonly Partial<ReferenceConfig>[]>> = {
  dpo: [
    { labelSmoothing: 0.2 },
    { divergence: 'forward_kl' },
    { divergence: 'js' },
    { divergence: 'alpha', alpha: 0.3 },
    { divergence: 'alpha', alpha: -0.7 },
    { divergence: 'alpha', alpha: 0 },
    { divergence: 'js', labelSmoothing: 0.1 },
  ],
  simpo: [{ gamma: 0 }, { gamma: -1.2 }, { labelSmoothing: 0.3 }],
  orpo: [{ lambda: 0.25 }, { lambda: 0 }],
  asft: [{ lambda: 0.25 }],
  cal_dpo: [{ calibrationWeight: 0.5 }, { calibrationWeight: 0 }],
  robust: [{ labelSmoothing: 0 }, { labelSmoothing: 0.4 }],
  exo_pair: [{ labelSmoothing: 0.2 }],
  aot: [{ labelSmoothing: 0.2 }],
  aot_unpaired: [{ labelSmoothing: 0.2 }],
  discopop: [{ tau: 0.5 }, { tau: 2 }],
  cpo: [{ labelSmoothing: 0.2 }],
  alphapo: [{ alpha: 0 }, { alpha: -0.4 }, { gamma: 0.1, labelSmoothing: 0.2 }],
  r_dpo: [{ alpha: 0.4 }, { alpha: -0.4 }],
  dpop: [{ penalty: 0.5 }, { penalty: 0 }],
};
const noReference: readonly Method[] = ['sft', 'simpo', 'orpo', 'asft', 'cpo', 'alphapo', 'simper'];

/** Every method with every option, normalised and not. */
export function everyConfig(beta = 0.4): ReferenceConfig[] {
  return everyMethod.flatMap((method) => {
    const shared: Partial<ReferenceConfig>[] =
      method === 'sft'
        ? [{}, { sftReduction: 'token' }]
        : [
            {},
            { sftWeight: 0.7 },
            { sftWeight: 0.7, sftReduction: 'token' },
            { sftReduction: 'token' },
          ];
    const free: Partial<ReferenceConfig>[] = noReference.includes(method)
      ? []
      : [{ referenceFree: true }];
    return [...shared, ...free, ...(ownOptions[method] ?? [])].flatMap((options) =>
      [false, true].map((normalize) => ({
        method,
        ...(method === 'sft' ? {} : { beta }),
        normalize,
        ...options,
      })),
    );
  });
}

/** The objective of the same settings. */
export function objectiveOf(config: ReferenceConfig): Objective {
  return dirAlignLoss(config as never);
}

/** Rows of a padded array, permuted. */
export function permuteRows<T extends Float32Array | Uint16Array | Float64Array | Int32Array>(
  array: T,
  order: readonly number[],
  rowLength: number,
): T {
  const result = array.slice();
  order.forEach((from, to) => {
    result.set(array.subarray(from * rowLength, (from + 1) * rowLength), to * rowLength);
  });
  return result as T;
}

/** log(1 - e^a). */
export function log1mexp(a: number): number {
  return a > -Math.LN2 ? Math.log(-Math.expm1(a)) : Math.log1p(-Math.exp(a));
}

/** log(1 + e^x). */
export function softplus(x: number): number {
  return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
}

/** Mean log-probability of sequence b. */
export function meanLogp(
  batch: { readonly logps: ArrayLike<number>; readonly counts: ArrayLike<number> },
  b: number,
): number {
  return at(batch.logps, b) / at(batch.counts, b);
}
