/**
 * Results of the kernels held to the float64 reference: the bounds, and the checks that apply them.
 * `diralign verify` and the tests run the same ones. What is checked is behind {@link Library}, so
 * that a test can plant an error and see it caught.
 */
import { cuda } from '../device/cuda.js';
import { sequenceFieldNames } from '../batch/fields.js';
import { contract } from '../contract.generated.js';
import {
  alignmentsOf,
  averagesTokens,
  configsOf,
  hasLikelihoodTerm,
  isMix,
  lossOfLogits,
  lossOfLogps,
  objectiveOf,
  type LossConfig,
} from './objectives.js';
import {
  decodeBfloat16,
  decodeFloat16,
  finiteDifference,
  referenceLogps,
  referenceLogpsBackward,
  type FamilyFields,
  type ReferenceBatch,
  type ReferenceConfig,
} from './reference.js';
import { baseline } from './reference/fields.js';
import type { BatchFields, LogitsArray, LogitsBatch, LogpsBatch } from '../batch/types.js';
import type { Dtype } from '../dtype.js';
import type { RunOptions } from '../loss/options.js';
import { unitsOf } from '../units.js';
import type { LogpsResult, LossResult } from '../loss/results.js';

/** An element that is known to be there. */
function at<T>(array: ArrayLike<T>, index: number): T {
  return array[index] as T;
}

// ----------------------------------------------------------------------------------------------
// 16-bit numbers

const decodeTables = new Map<Dtype, Float64Array>();

/** Value of an element of an array of this dtype. */
export function decoder(dtype: Dtype): (element: number) => number {
  if (dtype === 'float32') return (element) => element;
  let values = decodeTables.get(dtype);
  if (!values) {
    values = Float64Array.from({ length: 0x10000 }, (_, bits) =>
      (dtype === 'float16' ? decodeFloat16 : decodeBfloat16)(bits),
    );
    decodeTables.set(dtype, values);
  }
  const known = values;
  return (bits) => at(known, bits);
}

/**
 * Digits behind the leading 1, exponent of the smallest normal number, least magnitude that rounds
 * to infinity.
 */
const formats = {
  float32: { fraction: 23, lowest: -126, overflow: 2 ** 128 - 2 ** 103 },
  float16: { fraction: 10, lowest: -14, overflow: 65520 },
  bfloat16: { fraction: 7, lowest: -126, overflow: 2 ** 127 * (2 - 2 ** -8) },
} as const;

const double = new Float64Array(1);
const words = new Uint32Array(double.buffer);

/** By the exponent's bits of a float64, the distance between neighbours of the format there. */
function spacing({ fraction, lowest }: { fraction: number; lowest: number }): Float64Array {
  const exponent = (bits: number): number => Math.max(bits - 1023, lowest) - fraction;
  return Float64Array.from({ length: 0x800 }, (_, bits) => 2 ** exponent(bits));
}
const spacings = { float16: spacing(formats.float16), bfloat16: spacing(formats.bfloat16) };

/**
 * The distance between neighbours of the 16-bit format at |x|. By the bits of x: this is called for
 * every element.
 */
export function ulp(x: number, dtype: 'float16' | 'bfloat16'): number {
  double[0] = x;
  return at(spacings[dtype], (at(words, 1) >>> 20) & 0x7ff);
}

/** Bits of the nearest number of the 16-bit format, ties to even. */
export function encode(x: number, dtype: 'float16' | 'bfloat16'): number {
  const { fraction, lowest, overflow } = formats[dtype];
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0;
  const infinity = 0x7fff & -(1 << fraction);
  if (Number.isNaN(x)) return infinity | (1 << (fraction - 1));
  const size = Math.abs(x);
  if (size >= overflow) return sign | infinity;
  const unit = size === 0 ? 1 : ulp(size, dtype);
  const down = Math.floor(size / unit);
  const rest = size / unit - down;
  const units = down + (rest > 0.5 || (rest === 0.5 && down % 2 === 1) ? 1 : 0);
  // The leading 1 of a normal number is a unit of the exponent: it is there already, and a carry
  // runs on into it.
  const exponent = size === 0 ? 0 : Math.round(Math.log2(unit)) + fraction - lowest;
  return sign | ((exponent << fraction) + units);
}

// ----------------------------------------------------------------------------------------------
// Bounds, against float64 values of the already rounded inputs

/** A loss, of the batch or of a pair: 1e-6 of the value, 1e-6 where it is below 1. */
export function lossBound(expected: number): number {
  return 1e-6 * Math.max(1, Math.abs(expected));
}

/**
 * What the float32 sums of the rows can make of a loss that is steep in its log-probabilities: (h -
 * 1 / (2 beta))^2 of long sequences is. Each row carries a rounding of its own, so that a
 * sequence's error grows with the root of its tokens; four of these deviations are allowed for.
 * `slope` is the size of the loss's derivative in the sequence's log-probability.
 */
export function steepness(slope: number, tokens: number): number {
  return slope * 4 * 2 ** -24 * Math.sqrt(tokens);
}

/** A log-probability summed over so many tokens. */
export function logpBound(expected: number, tokens: number): number {
  return 1e-6 * tokens + 1e-6 * Math.abs(expected);
}

/**
 * An element of a float32 gradient. `scale` is |coefficient| p, at the label |coefficient| (1 - p);
 * `largest` the largest element of the whole gradient. Relative to each element: at a vocabulary of
 * 128256 most probabilities are near 8e-6, and an absolute bound of 1e-5 would check nothing.
 */
export function gradientBound(scale: number, largest: number): number {
  // The last term is the smallest float32: what rounding costs a number that is nearly 0.
  return 1e-5 * scale + 1e-9 * largest + 2 ** -149;
}

/**
 * An element of a 16-bit gradient: half a unit for its rounding, a hundredth for the float32 value
 * that was rounded.
 */
export function halfGradientBound(expected: number, dtype: 'float16' | 'bfloat16'): number {
  return 0.51 * ulp(expected, dtype);
}

/**
 * The sum of a row of the gradient, which is 0 but for rounding. `size` is the sum of the
 * magnitudes; `rounding` what the bounds of the elements' own rounding add up to.
 */
export function rowSumBound(size: number, rounding: number): number {
  return 1e-6 * size + rounding;
}

/** dLoss/dlogp against differences of the loss, which know the error of their own. */
export function differenceBound(expected: number, largest: number, error: number): number {
  return 1e-6 * Math.abs(expected) + 1e-9 * largest + 8 * error;
}

// ----------------------------------------------------------------------------------------------
// What was found

export const kinds = ['loss', 'logps', 'label', 'others', 'sums', 'layer', 'differences'] as const;
/**
 * Losses; log-probabilities and rewards; the label's element of a row; its other elements; sums of
 * rows; the gradients of an output layer; finite differences.
 */
export type Kind = (typeof kinds)[number];

export interface Miss {
  readonly kind: Kind;
  readonly what: string;
  readonly actual: number;
  readonly expected: number;
  readonly bound: number;
}

/** The worst error of each kind as a share of its bound, and what exceeded it. */
export class Tally {
  readonly worst: Record<Kind, number> = {
    loss: 0,
    logps: 0,
    label: 0,
    others: 0,
    sums: 0,
    layer: 0,
    differences: 0,
  };
  readonly misses: Miss[] = [];
  private missed = 0;

  /** All misses, more than are kept. */
  get count(): number {
    return this.missed;
  }

  /** A NaN is as expected only where NaN is expected. */
  near(kind: Kind, actual: number, expected: number, bound: number, what: () => string): void {
    if (this.fits(kind, actual, expected, bound)) return;
    // The first few say what is wrong.
    if (this.missed++ < 4) this.misses.push({ kind, what: what(), actual, expected, bound });
  }

  private fits(kind: Kind, actual: number, expected: number, bound: number): boolean {
    if (actual === expected || (Number.isNaN(actual) && Number.isNaN(expected))) return true;
    const share = Math.abs(actual - expected) / bound;
    if (share <= this.worst[kind]) return share <= 1;
    // A NaN comes here, too, and is no number to compare others with.
    this.worst[kind] = Number.isNaN(share) ? Infinity : share;
    return share <= 1;
  }

  merge(other: Tally): void {
    for (const kind of kinds) this.worst[kind] = Math.max(this.worst[kind], other.worst[kind]);
    this.missed += other.missed;
  }
}

// ----------------------------------------------------------------------------------------------
// What is expected

/** Rows of a batch, padded or packed, as the checks walk over them. */
interface Rows {
  readonly sequences: number;
  readonly rows: number;
  readonly vocab: number;
  readonly stride: number;
  readonly ignoreIndex: number;
  readonly offset: (sequence: number) => number;
}

export function rowsOf({
  shape,
  offsets,
  labels,
  rowStride,
  ignoreIndex = -100,
}: Omit<ReferenceBatch, 'logits'>): Rows {
  const [first, second, third] = shape;
  const vocab = third ?? second;
  return {
    sequences: third === undefined ? (offsets?.length ?? 1) - 1 : first,
    rows: labels.length,
    vocab,
    stride: rowStride ?? vocab,
    ignoreIndex,
    offset: (sequence) => (third === undefined ? at(offsets ?? [], sequence) : sequence * second),
  };
}

/**
 * A set of labels, and what every row scored by them adds to dS / dlogits, [rows, vocab]: onehot -
 * softmax, times its weight and the slope of the logits' transform.
 */
interface Scored {
  readonly labels: Int32Array;
  readonly logps: Float64Array;
  /** Per sequence: scored rows, and the sum of their weights, which is as many without any. */
  readonly counts: Int32Array;
  readonly lengths: Float64Array;
  readonly residual: Float64Array;
  /** The largest magnitude of the residual in each sequence. */
  readonly peaks: Float64Array;
}

/** A batch and what the reference makes of its rows, once for all objectives. */
export interface Prepared<B extends ReferenceBatch = LogitsBatch> {
  readonly batch: B;
  readonly alignment: Scored;
  /** Where the likelihood term has labels of its own. */
  readonly likelihood: Scored | undefined;
}

/** What says which rows there are, and which softmax they have. */
function rowsAlone(batch: ReferenceBatch, labels: Int32Array): ReferenceBatch {
  const { logits, dtype, shape, rowStride, offsets, ignoreIndex } = batch;
  const { tokenWeights, logitScale, logitSoftcap, temperature } = batch;
  const rows = { logits, dtype, shape, rowStride, offsets, ignoreIndex };
  return { ...rows, labels, tokenWeights, logitScale, logitSoftcap, temperature };
}

function scoreRows(batch: ReferenceBatch, labels: Int32Array): Scored {
  const own = rowsAlone(batch, labels);
  const { logps, counts } = referenceLogps(own);
  const sequences = new Float64Array(logps.length).fill(1);
  const { gradLogits: residual } = referenceLogpsBackward(own, { sequences });
  const { offset, vocab } = rowsOf(own);
  const peaks = logps.map((_, b) => {
    const part = residual.subarray(offset(b) * vocab, offset(b + 1) * vocab);
    return part.reduce((largest, x) => Math.max(largest, Math.abs(x)), 0);
  });
  return { labels, logps, counts, lengths: lengthsOf(own), residual, peaks };
}

/** Per sequence: the sum of the weights of its scored rows. */
export function lengthsOf(batch: Omit<ReferenceBatch, 'logits'>): Float64Array {
  const { labels, tokenWeights } = batch;
  const { sequences, offset, ignoreIndex } = rowsOf(batch);
  const lengths = new Float64Array(sequences);
  for (let b = 0; b < sequences; b++)
    for (let row = offset(b); row < offset(b + 1); row++)
      if (labels[row] !== ignoreIndex)
        lengths[b] = at(lengths, b) + (tokenWeights ? at(tokenWeights, row) : 1);
  return lengths;
}

export function prepare<B extends ReferenceBatch>(batch: B): Prepared<B> {
  const { labels, sftLabels } = batch;
  return {
    batch,
    alignment: scoreRows(batch, labels),
    likelihood: sftLabels && scoreRows(batch, sftLabels),
  };
}

/**
 * The batch with some value of each field that the loss needs and the batch lacks; of those that it
 * may have, too, where the batch has none of its own and the configuration has more than a method
 * and its temperature.
 */
export function withFields<B extends object>(
  config: LossConfig,
  batch: B,
  sequences: number,
): B & BatchFields {
  const own: FamilyFields = batch;
  const infos = alignmentsOf(config);
  const [info] = infos;
  if (!info) return batch;
  // Groups of one, two and more candidates.
  const some = [...new Set([0, Math.min(1, sequences), Math.min(3, sequences), sequences])];
  const groups = info.arity === 'group' ? Int32Array.from(own.groups ?? some) : undefined;
  const sizes = { unit: unitsOf(info, sequences, groups), sequence: sequences, row: 0 };
  const isVaried =
    sequenceFieldNames.every((name) => own[name] === undefined) &&
    (isMix(config) || Object.keys(config).some((key) => key !== 'method' && key !== 'beta'));
  const value = ({ name, per, kind }: (typeof contract)['fields'][number]): unknown => {
    if (per === 'batch') return 0.25 + name.length / 8;
    const values = Float64Array.from({ length: sizes[per] }, (_, i) => 0.6 + (i % 4) / 8);
    if (kind === 'flag') return Uint8Array.from(values, (x) => Number(x < 0.7));
    // Neighbours change places: distinct, and not in order.
    return kind === 'rank' ? Int32Array.from(values, (_, i) => i ^ 1) : values;
  };
  const fields = contract.fields.filter(({ name, per }) => {
    const takers = infos.flatMap((each) => each.fields[name] ?? []);
    if (takers.length < (name === 'weights' ? infos.length : 1) || per === 'row') return false;
    if (name === 'sftDenominator' && !averagesTokens(config)) return false;
    if (own[name] !== undefined) return false;
    return isVaried || takers.some(({ needed }) => needed);
  });
  return {
    ...batch,
    ...(groups && { groups }),
    ...Object.fromEntries(fields.map((field) => [field.name, value(field)])),
  };
}

/** What `fromLogps` takes of a batch. */
export function sequenceBatch(
  batch: Partial<ReferenceBatch>,
  { logps, lengths }: { readonly logps: Float64Array; readonly lengths: Float64Array },
): LogpsBatch {
  const names = ['reference', 'groups', ...sequenceFieldNames] as const;
  const given = names.filter((name) => batch[name] !== undefined);
  return {
    logps,
    counts: lengths,
    ...Object.fromEntries(given.map((name) => [name, batch[name]])),
  };
}

export interface Term extends Pick<Scored, 'labels' | 'residual'> {
  /** dLoss/dlogps, by sequence. */
  readonly coefficients: Float64Array;
  /** By row, in place of `coefficients`. */
  readonly rows?: Float64Array;
  /** Of what adds up to the residual: as large as its elements, unless they are differences. */
  readonly sizes?: Float64Array;
}

/** What multiplies the residual of a row of sequence b. */
export function coefficientOf({ coefficients, rows }: Term, b: number, row: number): number {
  return at(rows ?? coefficients, rows ? row : b);
}

export interface Expected {
  readonly loss: number;
  readonly losses: Float64Array;
  readonly rewards: Float64Array;
  /** Of a mixture: the losses of its terms. */
  readonly parts?: readonly number[] | undefined;
  /** The gradient is the sum of the terms' coefficient * residual. */
  readonly terms: readonly Term[];
  /** Per sequence: what errors of its log-probabilities can make of the loss. */
  readonly slack: Float64Array;
  /** The largest element of the gradient. */
  readonly largest: number;
}

export function expectation(
  config: LossConfig,
  { batch, alignment, likelihood }: Prepared<ReferenceBatch>,
): Expected {
  const own = likelihood && hasLikelihoodTerm(config) ? likelihood : undefined;
  const { terms, values } = own
    ? termsOfLogits(config, batch, [alignment, own])
    : termsOfLogps(config, batch, alignment);
  const { loss, losses, rewards } = values;
  return {
    ...{ loss, losses, rewards, terms },
    parts: (values as { readonly terms?: readonly number[] }).terms,
    slack: alignment.logps.map((_, b) =>
      terms.reduce(
        (all, { coefficients, lengths }) =>
          all + steepness(Math.abs(at(coefficients, b)), at(lengths, b)),
        0,
      ),
    ),
    largest: largestElement(terms, rowsOf(batch), own ? undefined : alignment.peaks),
  };
}

function termsOfLogps(config: LossConfig, batch: ReferenceBatch, alignment: Scored) {
  const values = lossOfLogps(config, sequenceBatch(batch, alignment));
  return { values, terms: [{ ...alignment, coefficients: values.gradLogps }] };
}

/** Where the likelihood term has labels of its own. */
function termsOfLogits(
  config: LossConfig,
  batch: ReferenceBatch,
  [alignment, likelihood]: readonly [Scored, Scored],
) {
  const values = lossOfLogits(config, batch);
  const terms = [
    { ...alignment, coefficients: values.coefficients },
    { ...likelihood, coefficients: values.likelihoodCoefficients },
  ];
  return { values, terms };
}

/** What is expected with a `gradientScale`. */
export function scaled(expected: Expected, scale: number): Expected {
  const times = (c: number): number => (scale === 0 ? 0 : scale * c);
  const terms = expected.terms.map((term) => ({
    ...term,
    coefficients: term.coefficients.map(times),
    ...(term.rows && { rows: term.rows.map(times) }),
  }));
  return { ...expected, terms, largest: Math.abs(scale) * expected.largest };
}

/** `peaks`: those of the residual's sequences, where there is one term. */
export function largestElement(terms: readonly Term[], rows: Rows, peaks?: Float64Array): number {
  const [first] = terms;
  let largest = 0;
  for (let b = 0; b < rows.sequences; b++) {
    if (first && peaks) {
      largest = Math.max(largest, Math.abs(at(first.coefficients, b)) * at(peaks, b));
      continue;
    }
    for (let row = rows.offset(b); row < rows.offset(b + 1); row++) {
      // What multiplies the rows that a term does not score may be anything.
      const own = terms.filter(({ labels }) => at(labels, row) !== rows.ignoreIndex);
      for (let i = row * rows.vocab; i < (row + 1) * rows.vocab; i++) {
        let element = 0;
        for (const term of own) element += coefficientOf(term, b, row) * at(term.residual, i);
        largest = Math.max(largest, Math.abs(element));
      }
    }
  }
  return largest;
}

// ----------------------------------------------------------------------------------------------
// Checks

/** What is verified. */
export interface Library {
  loss(config: LossConfig, batch: LogitsBatch, run: RunOptions): LossResult;
  fromLogps(config: LossConfig, batch: LogpsBatch): LogpsResult;
}

export const library: Library = {
  loss: (config, batch, run) => objectiveOf(config)(batch, run),
  fromLogps: (config, batch) => objectiveOf(config).fromLogps(batch),
};

/**
 * The library on logits in the memory of device 0, where they are copied for each call, and from
 * where their gradient is copied back.
 */
export const deviceLibrary: Library = {
  loss: (config, batch, run) => {
    const { backend, gradient, gradientScale, inPlace = false } = run;
    const host = batch.logits;
    const memory = cuda.alloc(host.byteLength);
    try {
      memory.copyFrom(host);
      const onDevice = { ...batch, logits: memory.tensor(batch.dtype ?? 'float32') };
      const { gradLogits, ...values } = objectiveOf(config)(onDevice, {
        inPlace,
        gradientScale,
        ...(backend && { backend }),
        ...(gradient && { gradient }),
      });
      if (!gradLogits) return values;
      try {
        const target = inPlace
          ? host
          : new (host.constructor as new (length: number) => LogitsArray)(host.length);
        gradLogits.copyTo(target);
        return { ...values, gradLogits: target };
      } finally {
        gradLogits.dispose();
      }
    } finally {
      memory.dispose();
    }
  },
  fromLogps: (config, batch) => library.fromLogps(config, batch),
};

export function checkValues(
  tally: Tally,
  { batch, alignment }: Prepared<ReferenceBatch>,
  config: LossConfig,
  expected: Expected,
  actual: Omit<LossResult, 'gradLogits' | 'rowScale'>,
): void {
  const { slack } = expected;
  const total = slack.reduce((x, y) => x + y, 0);
  tally.near('loss', actual.loss, expected.loss, lossBound(expected.loss) + total, () => 'loss');
  // The mean of the pairs has their slopes divided by their number. Which sequences a pair's loss
  // depends on is the method's own affair.
  const pairSlack = 2 * expected.losses.length * Math.max(...slack);
  expected.losses.forEach((loss, i) => {
    tally.near(
      'loss',
      at(actual.losses, i),
      loss,
      lossBound(loss) + pairSlack,
      () => `losses[${i}]`,
    );
  });
  expected.parts?.forEach((loss, i) => {
    const part = actual.terms?.[i]?.loss ?? NaN;
    tally.near('loss', part, loss, lossBound(loss) + pairSlack, () => `terms[${i}].loss`);
  });
  const { beta = 1 } = at(configsOf(config), 0);
  let rewardBound = 0;
  for (let b = 0; b < rowsOf(batch).sequences; b++) {
    const [logp, count] = [at(alignment.logps, b), at(alignment.counts, b)];
    const ownBound = logpBound(logp, at(alignment.lengths, b));
    tally.near('logps', at(actual.counts, b), count, 0, () => `counts[${b}]`);
    tally.near('logps', at(actual.logps, b), logp, ownBound, () => `logps[${b}]`);
    // A reward is beta times a log-ratio, per token or not: it inherits the log-probability's
    // error, and one rounding of its own.
    const reward = at(expected.rewards, b);
    const bound = beta * ownBound + 2 ** -50 * Math.abs(reward);
    rewardBound += bound;
    tally.near('logps', at(actual.rewards, b), reward, bound, () => `rewards[${b}]`);
  }
  checkMetrics(tally, batch, expected, actual.metrics, rewardBound);
}

/** The metrics that unpaired and group methods have beside those of pairs. */
function checkMetrics(
  tally: Tally,
  { kl }: ReferenceBatch,
  { rewards }: Expected,
  metrics: LossResult['metrics'],
  bound: number,
): void {
  const given = metrics as Readonly<Record<string, number | undefined>>;
  const near = (name: string, wanted: number, allowed: number): void => {
    const found = given[name];
    if (found !== undefined) tally.near('logps', found, wanted, allowed, () => `metrics.${name}`);
  };
  if (kl !== undefined) near('kl', baseline(kl), 2 ** -40 * baseline(kl));
  const mean = rewards.reduce((x, y) => x + y, 0) / rewards.length;
  near('rewards/mean', mean, bound / rewards.length);
}

/**
 * Every element of a gradient. Rows that nothing scores must be 0 to the bit, a negative zero being
 * another bit. `rowScale`, where the gradient is factored, leaves the coefficient out of the array,
 * and the array is rounded without it.
 */
export function checkGradient(
  tally: Tally,
  { batch }: Pick<Prepared, 'batch'>,
  expected: Expected,
  actual: LogitsArray,
  rowScale?: Float32Array,
): void {
  const { dtype = 'float32' } = batch;
  const { sequences, vocab, stride, offset, ignoreIndex } = rowsOf(batch);
  // Nothing overflows a factored element but its coefficient.
  const overflow = rowScale === undefined ? formats[dtype].overflow : Infinity;
  const elements = new Float64Array(vocab);
  const values = new Float64Array(vocab);
  const magnitudes = new Float64Array(vocab);
  for (let b = 0; b < sequences; b++) {
    for (let row = offset(b); row < offset(b + 1); row++) {
      readRow(actual, dtype, row * stride, elements);
      const terms = expected.terms.filter(({ labels }) => at(labels, row) !== ignoreIndex);
      const [first] = terms;
      if (!first) {
        const v = elements.findIndex((element) => !Object.is(element, 0));
        if (v >= 0)
          tally.near(
            'others',
            at(elements, v) || NaN,
            0,
            0,
            () => `row ${row} is ignored, its element ${v}`,
          );
        continue;
      }
      values.fill(0);
      magnitudes.fill(0);
      for (const term of terms)
        addRow(coefficientOf(term, b, row), term, row * vocab, values, magnitudes);
      // The bound of an element is `relative` * its magnitude + `least`, and half a unit of a
      // 16-bit format.
      const relative = gradientBound(1, 0);
      const least = gradientBound(0, expected.largest);
      const factor = rowScale === undefined ? 1 : at(rowScale, row);
      const coefficient = coefficientOf(first, b, row);
      if (rowScale !== undefined && Math.abs(coefficient) >= formats.float32.overflow) {
        tally.near('others', factor, coefficient * Infinity, 0, () => `rowScale[${row}]`);
        continue;
      }
      const own = Math.abs(factor);
      const label = at(first.labels, row);
      const other = terms[1] ? at(terms[1].labels, row) : label;
      let sum = 0;
      // 0 but for rounding, unless a cap bends the logits.
      let whole = 0;
      // What differences of larger numbers lose.
      let uncertain = 0;
      let size = 0;
      let rounding = 0;
      // What is no worse than what was seen already needs no look: nearly everything.
      const { worst } = tally;
      const [seen, seenOfLabels] = [Math.min(worst.others, 1), Math.min(worst.label, 1)];
      for (let v = 0; v < vocab; v++) {
        let value = values[v] ?? NaN;
        const magnitude = magnitudes[v] ?? NaN;
        let bound = relative * magnitude + least;
        if (dtype === 'float32') rounding += 2 ** -24 * magnitude + 2 ** -149;
        else {
          const half = own === 0 ? 0 : own * halfGradientBound(value / own, dtype);
          rounding += half;
          // A factored element is a product of two rounded numbers; a dense one was rounded once,
          // from what may be a difference of larger ones.
          const lost = relative * (magnitude - Math.abs(value));
          bound = rowScale === undefined ? half + lost : half + bound;
        }
        // Too large for the format: infinite, as any conversion has it, and the row then has no
        // sum.
        if (Math.abs(value) >= overflow) value *= Infinity;
        const product = factor * (elements[v] ?? NaN);
        const isLabel = v === label || v === other;
        const allowed = (isLabel ? seenOfLabels : seen) * bound;
        if (product !== value && !(Math.abs(product - value) <= allowed))
          nearElement(tally, isLabel, product, value, bound, row, v);
        sum += product;
        whole += value;
        size += Math.abs(value) === Infinity ? Infinity : magnitude;
        uncertain += magnitude - Math.abs(value);
      }
      if (size < Infinity)
        tally.near(
          'sums',
          sum,
          whole,
          rowSumBound(size, rounding) + relative * (Math.abs(whole) + uncertain),
          () => `gradient, sum of row ${row}`,
        );
    }
  }
}

/** A function of its own: the words for a miss would be remembered of every element. */
function nearElement(
  tally: Tally,
  isLabel: boolean,
  actual: number,
  expected: number,
  bound: number,
  row: number,
  column: number,
): void {
  const what = (): string =>
    `gradient, row ${row}, element ${column}${isLabel ? ', its label' : ''}`;
  tally.near(isLabel ? 'label' : 'others', actual, expected, bound, what);
}

/** A row of an array of any dtype. */
function readRow(source: LogitsArray, dtype: Dtype, begin: number, row: Float64Array): void {
  if (source instanceof Float32Array) {
    row.set(source.subarray(begin, begin + row.length));
    return;
  }
  const bits = source as Uint16Array;
  const decode = decoder(dtype);
  for (let v = 0; v < row.length; v++) row[v] = decode(bits[begin + v] ?? NaN);
}

function addRow(
  coefficient: number,
  { residual, sizes = residual }: Term,
  begin: number,
  values: Float64Array,
  magnitudes: Float64Array,
): void {
  for (let v = 0; v < values.length; v++) {
    values[v] = (values[v] ?? NaN) + coefficient * (residual[begin + v] ?? NaN);
    magnitudes[v] = (magnitudes[v] ?? NaN) + Math.abs(coefficient * (sizes[begin + v] ?? NaN));
  }
}

function sameBits(a: ArrayBufferView, b: ArrayBufferView): boolean {
  const bytes = (view: ArrayBufferView): Buffer =>
    Buffer.from(view.buffer as ArrayBuffer, view.byteOffset, view.byteLength);
  return bytes(a).equals(bytes(b));
}

/** The gradient written over the logits, bit for bit that of a separate array. */
export function checkInPlace(
  tally: Tally,
  { batch }: Pick<Prepared, 'batch'>,
  separate: LogitsArray,
  inPlace: LogitsArray,
): void {
  const { rows, vocab, stride } = rowsOf(batch);
  const [a, b] = [separate, inPlace] as [Float32Array, Float32Array];
  for (let row = 0; row < rows; row++) {
    const [begin, end] = [row * stride, row * stride + vocab];
    if (sameBits(a.subarray(begin, end), b.subarray(begin, end))) continue;
    tally.near(
      'others',
      NaN,
      0,
      0,
      () => `gradient in place, row ${row}: other bits than in an array of its own`,
    );
  }
}

/**
 * dLoss/dlogps of the library's own loss from log-probabilities, and against differences of that
 * loss.
 */
export function checkDifferences(
  tally: Tally,
  lib: Library,
  config: LossConfig,
  given: Prepared,
): void {
  const { alignment } = given;
  const batch = withFields(config, given.batch, given.alignment.logps.length);
  const sequences = sequenceBatch(batch, alignment);
  const expected = lossOfLogps(config, sequences);
  const actual = lib.fromLogps(config, sequences);
  tally.near('loss', actual.loss, expected.loss, lossBound(expected.loss), () => 'fromLogps: loss');
  // Without scored tokens there is no log-probability that could move.
  const isScored = (b: number): boolean => at(alignment.counts, b) > 0;
  const f = (moved: Float64Array): number =>
    lib.fromLogps(config, { ...sequences, logps: moved.map((logp, b) => (isScored(b) ? logp : 0)) })
      .loss;
  const { gradient, error } = finiteDifference(f, alignment.logps);
  const largest = Math.max(...gradient.map(Math.abs));
  gradient.forEach((slope, b) => {
    if (!isScored(b)) return;
    // Differences that say nothing must not pass for a check; beside the loss's own rounding they
    // cannot say more.
    const doubt = Math.min(at(error, b), 1e-4 * largest) + Number.EPSILON * Math.abs(expected.loss);
    tally.near(
      'differences',
      at(actual.gradLogps, b),
      slope,
      differenceBound(slope, largest, doubt),
      () => `fromLogps: gradLogps[${b}]`,
    );
  });
}

/** A copy of the batch whose logits may be overwritten. */
function copied(batch: LogitsBatch): LogitsBatch {
  return { ...batch, logits: (batch.logits as Float32Array).slice() };
}

/**
 * Everything about one objective on one batch: values, and the gradient dense, in place and
 * factored.
 */
export function checkObjective(
  lib: Library,
  config: LossConfig,
  given: Prepared,
  backend: 'cpu' | 'cuda' = 'cpu',
): Tally {
  const tally = new Tally();
  const prepared = {
    ...given,
    batch: withFields(config, given.batch, given.alignment.logps.length),
  };
  const { batch, likelihood } = prepared;
  const expected = expectation(config, prepared);
  const dense = lib.loss(config, batch, { backend });
  checkValues(tally, prepared, config, expected, dense);
  if (!dense.gradLogits) throw new TypeError('a dense gradient was asked for and is missing');
  checkGradient(tally, prepared, expected, dense.gradLogits);

  const overwritten = copied(batch);
  lib.loss(config, overwritten, { backend, inPlace: true });
  checkInPlace(tally, prepared, dense.gradLogits, overwritten.logits);

  if (!likelihood) {
    const gradientScale = -0.75;
    const factored = lib.loss(config, batch, { backend, gradient: 'factored', gradientScale });
    tally.near(
      'loss',
      factored.loss,
      dense.loss,
      0,
      () => 'loss with a factored gradient: other bits than with a dense one',
    );
    if (factored.gradLogits)
      checkGradient(
        tally,
        prepared,
        scaled(expected, gradientScale),
        factored.gradLogits,
        factored.rowScale,
      );
  }
  return tally;
}

/** Values from elsewhere that a batch should have. */
export interface Known {
  readonly call: ReferenceConfig;
  readonly loss: number;
  readonly losses?: readonly number[] | undefined;
  readonly logps?: readonly number[] | undefined;
  readonly counts?: readonly number[] | undefined;
  /** Elements of the gradient, by their indices in the shape of the logits. */
  readonly gradient?:
    | { readonly at: readonly (readonly number[])[]; readonly value: readonly number[] }
    | undefined;
}

/**
 * The library against values from elsewhere. Without the probability of an element, its bound is
 * relative to its own size.
 */
export function checkExpected(
  lib: Library,
  batch: LogitsBatch,
  known: Known,
  backend: 'cpu' | 'cuda' = 'cpu',
): Tally {
  const tally = new Tally();
  const { call, loss, losses, logps, counts, gradient } = known;
  const actual = lib.loss(call, batch, { backend, gradient: gradient ? 'dense' : 'none' });
  tally.near('loss', actual.loss, loss, lossBound(loss), () => 'loss');
  losses?.forEach((expected, i) => {
    tally.near(
      'loss',
      actual.losses[i] ?? NaN,
      expected,
      lossBound(expected),
      () => `losses[${i}]`,
    );
  });
  logps?.forEach((expected, b) => {
    tally.near(
      'logps',
      actual.logps[b] ?? NaN,
      expected,
      logpBound(expected, actual.counts[b] ?? 0),
      () => `logps[${b}]`,
    );
  });
  counts?.forEach((expected, b) => {
    tally.near('logps', actual.counts[b] ?? NaN, expected, 0, () => `counts[${b}]`);
  });
  if (!gradient) return tally;
  const { dtype = 'float32', shape, rowStride } = batch;
  const decode = decoder(dtype);
  const stride = rowStride ?? shape.at(-1) ?? 0;
  const elements = actual.gradLogits as Float32Array | Uint16Array;
  const largest = Math.max(...gradient.value.map(Math.abs));
  gradient.value.forEach((expected, i) => {
    const indices = gradient.at[i] ?? [];
    const [first = NaN, second = NaN, third] = indices;
    const position =
      third === undefined ? first * stride + second : (first * shape[1] + second) * stride + third;
    const bound =
      dtype === 'float32'
        ? gradientBound(Math.abs(expected), largest)
        : halfGradientBound(expected, dtype);
    tally.near(
      'others',
      decode(elements[position] ?? NaN),
      expected,
      bound,
      () => `gradient at [${indices.join(', ')}]`,
    );
  });
  return tally;
}
