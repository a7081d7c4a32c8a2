/**
 * Every objective in float64, from logits, by definition: what `diralign verify` and the tests hold
 * the native code to.
 *
 * Slow on purpose, and independent: nothing is shared with the native code or its catalogue. No
 * derivative of an objective is written down here. A loss is a function of two dual numbers, the
 * log-probabilities of a chosen and a rejected sequence, and its gradient is what the chain rule
 * makes of that function (`Dual`), or what differences of the loss say (`finiteDifference`).
 */
import { rangeError, typeError } from '../errors.js';
import { Wide } from './wide.js';
import type {
  BatchRows,
  HiddenBatch,
  LogitsArray,
  LogitsBatch,
  LogitsShape,
  LogpsBatch,
} from '../batch/types.js';
import type { Dtype } from '../dtype.js';
import type { SequenceLogps, TokenLogps } from '../loss/results.js';

/** The methods that the reference knows: those of `dirAlignLoss`. */
export type ReferenceMethod =
  | 'sft'
  | 'dpo'
  | 'ipo'
  | 'simpo'
  | 'orpo'
  | 'asft'
  | 'apo_zero'
  | 'nca'
  | 'cal_dpo'
  | 'hinge'
  | 'robust'
  | 'exo_pair'
  | 'bco_pair'
  | 'sppo_hard'
  | 'aot'
  | 'aot_unpaired'
  | 'discopop'
  | 'apo_down'
  | 'cpo'
  | 'alphapo'
  | 'r_dpo'
  | 'dpop'
  | 'kto'
  | 'bco';

/**
 * The settings `dirAlignLoss` takes. An option left out has the method's default; one without a
 * meaning is an error.
 */
export interface ReferenceConfig {
  /** Whose loss. */
  readonly method: ReferenceMethod;
  /** Temperature on the score, above 0. */
  readonly beta?: number | undefined;
  /** Whether log-probabilities are divided by the scored tokens. */
  readonly normalize?: boolean | undefined;
  /** Share of pairs that are taken to be labelled the wrong way round. */
  readonly labelSmoothing?: number | undefined;
  /** Margin that `simpo` and `alphapo` ask for. */
  readonly gamma?: number | undefined;
  /** Scores log-probabilities instead of log-ratios. */
  readonly referenceFree?: boolean | undefined;
  /** Weight of the likelihood term on the chosen. */
  readonly sftWeight?: number | undefined;
  /** What the likelihood term averages over. */
  readonly sftReduction?: 'sequence' | 'token' | undefined;
  /** Weight of the ranking term of `orpo` and `asft`. */
  readonly lambda?: number | undefined;
  /** Weight of the squares of `cal_dpo`. */
  readonly calibrationWeight?: number | undefined;
  /** What the score of `dpo` is of the log-ratio. */
  readonly divergence?: 'reverse_kl' | 'forward_kl' | 'js' | 'alpha' | undefined;
  /** Of the alpha divergence, of `alphapo`, or of `r_dpo`. */
  readonly alpha?: number | undefined;
  /** Temperature of the mixture in `discopop`. */
  readonly tau?: number | undefined;
  /** Weight of the penalty in `dpop`. */
  readonly penalty?: number | undefined;
  /** Weights of the two sorts of sequences of `kto`. */
  readonly desirableWeight?: number | undefined;
  readonly undesirableWeight?: number | undefined;
}

/** What {@link referenceLoss} gives, under the names of a `LossResult`. */
export interface ReferenceResult {
  /** Mean over pairs, the likelihood term included. */
  readonly loss: number;
  /** Per pair; per sequence for `sft`. */
  readonly losses: Float64Array;
  /** Per sequence, summed over its scored rows, in nats. */
  readonly logps: Float64Array;
  /** Per sequence: scored rows. */
  readonly counts: Int32Array;
  /**
   * Per sequence: beta times the log-ratio (the log-probability without a reference), per token
   * where `normalize` is true.
   */
  readonly rewards: Float64Array;
  /** dLoss/dlogps per sequence, the likelihood term (`sftWeight`) left out. */
  readonly coefficients: Float64Array;
  /** dLoss/dlogits, [rows, vocab] without the padding of `rowStride`. */
  readonly gradLogits: Float64Array;
}

/** A batch of logits, which may be in float64, too. */
export type ReferenceBatch = Omit<LogitsBatch, 'logits'> & {
  /** Row-major. */
  readonly logits: LogitsArray | Float64Array;
};

/** `gradLogits` is the gradient of the logits that the layer would give. */
export interface ReferenceHiddenResult extends ReferenceResult {
  /** [rows, hiddenSize]. */
  readonly gradHidden: Float64Array;
  /** [vocab, hiddenSize]. */
  readonly gradWeight: Float64Array;
  /** [vocab], as it is with a bias. */
  readonly gradBias: Float64Array;
}

/** What {@link referenceFromLogps} gives. */
export interface ReferenceLogpsResult {
  /** Mean over pairs, the likelihood term included. */
  readonly loss: number;
  /** Per pair; per sequence for `sft`. */
  readonly losses: Float64Array;
  /**
   * Per sequence: beta times the log-ratio (the log-probability without a reference), per token
   * where `normalize` is true.
   */
  readonly rewards: Float64Array;
  /** dLoss/dlogps per sequence, the likelihood term included. */
  readonly gradLogps: Float64Array;
}

/** An element that is known to be there. */
function at<T>(array: ArrayLike<T>, index: number): T {
  return array[index] as T;
}

// ----------------------------------------------------------------------------------------------
// Numbers

/** Bits of a bfloat16 to its value: the upper half of a float32. */
export function decodeBfloat16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 7) & 0xff;
  const fraction = (bits & 0x7f) / 128;
  if (exponent === 255) return fraction === 0 ? sign * Infinity : NaN;
  return exponent === 0
    ? sign * fraction * 2 ** -126
    : sign * (1 + fraction) * 2 ** (exponent - 127);
}

/** Bits of an IEEE binary16 to its value. */
export function decodeFloat16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = (bits & 0x3ff) / 1024;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return exponent === 0 ? sign * fraction * 2 ** -14 : sign * (1 + fraction) * 2 ** (exponent - 15);
}

/**
 * A sum whose error does not grow with the number of terms: what each addition rounds away is kept
 * (Neumaier).
 */
class Sum {
  private total = 0;
  private lost = 0;
  add(term: number): void {
    const next = this.total + term;
    const [large, small] =
      Math.abs(this.total) >= Math.abs(term) ? [this.total, term] : [term, this.total];
    // Infinities have nothing to lose, and Infinity - Infinity would make a NaN of them.
    if (Number.isFinite(next)) this.lost += large - next + small;
    this.total = next;
  }
  get value(): number {
    return this.total + this.lost;
  }
}

/** Sum of term(0), ..., term(count - 1). */
function sum(count: number, term: (index: number) => number): number {
  const result = new Sum();
  for (let index = 0; index < count; index++) result.add(term(index));
  return result.value;
}

/** Mean over the pairs. */
function mean(values: ArrayLike<number>): number {
  return sum(values.length, (index) => at(values, index)) / values.length;
}

// ----------------------------------------------------------------------------------------------
// Dual numbers

/**
 * A value with its derivatives in the log-probabilities of one chosen and one rejected sequence.
 * Two derivatives are enough, because every term of every objective, the order statistics of `aot`
 * included, joins one chosen sequence to one rejected one. All three have exponents without end
 * (`Wide`): an exponential score of a log-ratio of -1000 is e^1000, and its slope meets a sigmoid
 * of minus that.
 */
export class Dual {
  /** The value, of any size. */
  readonly wide: Wide;
  /** Its derivative by the chosen sequence's log-probability, of any size. */
  readonly byChosen: Wide;
  /** Its derivative by the rejected sequence's log-probability, of any size. */
  readonly byRejected: Wide;

  constructor(value: number | Wide, dChosen: number | Wide = 0, dRejected: number | Wide = 0) {
    this.wide = Wide.of(value);
    this.byChosen = Wide.of(dChosen);
    this.byRejected = Wide.of(dRejected);
  }

  /** The nearest float64 of the value: infinite or 0 where it is beyond them. */
  get value(): number {
    return this.wide.number;
  }
  /** The nearest float64 of the derivative by the chosen. */
  get dChosen(): number {
    return this.byChosen.number;
  }
  /** The nearest float64 of the derivative by the rejected. */
  get dRejected(): number {
    return this.byRejected.number;
  }

  /** f(this), given f and f' at the value. A derivative of 0 stays 0 even where f' is infinite. */
  map(value: number | Wide, slope: number | Wide): Dual {
    return new Dual(
      value,
      times(this.byChosen, Wide.of(slope)),
      times(this.byRejected, Wide.of(slope)),
    );
  }
  /** this + other. */
  plus(other: Dual | number): Dual {
    if (typeof other === 'number')
      return new Dual(this.wide.plus(Wide.of(other)), this.byChosen, this.byRejected);
    return new Dual(
      this.wide.plus(other.wide),
      this.byChosen.plus(other.byChosen),
      this.byRejected.plus(other.byRejected),
    );
  }
  /** this - other. */
  minus(other: Dual | number): Dual {
    return this.plus(typeof other === 'number' ? -other : other.negated());
  }
  /** this other, by the product rule. */
  times(other: Dual | number): Dual {
    if (typeof other === 'number') return this.map(this.wide.times(Wide.of(other)), other);
    return new Dual(
      this.wide.times(other.wide),
      times(this.byChosen, other.wide).plus(times(other.byChosen, this.wide)),
      times(this.byRejected, other.wide).plus(times(other.byRejected, this.wide)),
    );
  }
  /** -this. */
  negated(): Dual {
    return this.times(-1);
  }
  /** this^2. */
  squared(): Dual {
    return this.times(this);
  }
}

/**
 * derivative * slope, where a derivative of 0 means "does not depend on it" and outweighs any
 * slope.
 */
function times(derivative: Wide, slope: Wide): Wide {
  return derivative.isZero ? derivative : derivative.times(slope);
}

const one = Wide.of(1);

/** 1 / (1 + e^-x), with the full relative precision of either tail. */
function logistic(x: Wide): Wide {
  const e = x.abs().negated().exp();
  return (x.number >= 0 ? one : e).over(one.plus(e));
}

/** e^x; derivative e^x. */
export function exp(x: Dual): Dual {
  const e = x.wide.exp();
  return x.map(e, e);
}

/** e^x - 1; derivative e^x. */
export function expm1(x: Dual): Dual {
  return x.map(x.wide.expm1(), x.wide.exp());
}

/** sg(x) = 1 / (1 + e^-x); derivative sg(x) sg(-x). */
export function sigmoid(x: Dual): Dual {
  const value = logistic(x.wide);
  return x.map(value, value.times(logistic(x.wide.negated())));
}

/** sp(x) = log(1 + e^x); derivative sg(x). */
export function softplus(x: Dual): Dual {
  const rest = x.wide.abs().negated().exp().log1p();
  return x.map(x.value > 0 ? x.wide.plus(rest) : rest, logistic(x.wide));
}

/** log sg(x) = -sp(-x). */
export function logSigmoid(x: Dual): Dual {
  return softplus(x.negated()).negated();
}

/** max(0, x); derivative 1 where x > 0, and 0 at the kink. NaN stays NaN. */
export function relu(x: Dual): Dual {
  if (Number.isNaN(x.value)) return x.map(NaN, NaN);
  return x.value > 0 ? x : x.map(0, 0);
}

/**
 * log(1 - e^a) for a < 0; derivative -e^a / (1 - e^a) = -1 / (e^-a - 1). Where e^a is above 1/2 the
 * rest comes from expm1, and below it the logarithm from log1p: no digit is lost to the 1.
 */
export function log1mexp(a: Dual): Dual {
  const value =
    a.value > -Math.LN2 ? Math.log(-Math.expm1(a.value)) : Math.log1p(-Math.exp(a.value));
  return a.map(value, -1 / Math.expm1(-a.value));
}

/**
 * Where a sequence is certain (a = 0) its odds are infinite; this nearest thing to certainty keeps
 * them finite.
 */
const certainty = -1e-37;

/**
 * o(a) = a - log(1 - e^a), the log-odds of e^a; derivative 1 / (1 - e^a). Value and derivative are
 * those at the clamped a: the derivative is not set to 0.
 */
export function logOdds(a: Dual): Dual {
  const clamped = new Dual(a.value > certainty ? certainty : a.value, a.byChosen, a.byRejected);
  return clamped.map(clamped.value - log1mexp(clamped).value, -1 / Math.expm1(clamped.value));
}

// ----------------------------------------------------------------------------------------------
// Objectives: functions of the log-probabilities of a chosen and a rejected sequence

/** One sequence of a pair, as a loss sees it. */
interface Side {
  /** S, or S / L where the objective normalises. */
  readonly policy: Dual;
  /** R likewise; 0 without a reference. */
  readonly reference: number;
  /** policy - reference, from one subtraction of the sums. */
  readonly ratio: Dual;
  /** log-odds of e^policy; 0 for a sequence without scored tokens. */
  readonly odds: Dual;
  /** L, the number of scored tokens. */
  readonly length: number;
  /** S and R, and what they are divided by in the numbers above. */
  readonly sums: readonly [policy: number, reference: number];
  readonly divisor: number;
}

type PairLoss = (chosen: Side, rejected: Side) => Dual;

/** A term of the batch's mean, and the sequences that it depends on. */
interface Term {
  readonly loss: Dual;
  readonly chosen: number;
  readonly rejected: number;
}

/** What an unpaired method is told of a sequence. */
interface Feedback {
  readonly desirable: boolean;
  readonly baseline: number;
  readonly shift: number;
}

type SingleLoss = (side: Side, feedback: Feedback) => Dual;

type BatchLoss = (chosen: readonly Side[], rejected: readonly Side[]) => Term[];

interface Options {
  labelSmoothing: number;
  gamma: number;
  referenceFree: boolean;
  sftWeight: number;
  sftReduction: 'sequence' | 'token';
  lambda: number;
  calibrationWeight: number;
  divergence: 'reverse_kl' | 'forward_kl' | 'js' | 'alpha';
  alpha: number;
  tau: number;
  penalty: number;
  desirableWeight: number;
  undesirableWeight: number;
}

interface Method {
  readonly normalize: boolean;
  readonly reference: boolean;
  /** Options the method has, with their defaults. */
  readonly options: Partial<Options>;
  /** Undefined where the likelihood term is all there is: then there is no beta either. */
  readonly loss: ((beta: number, options: Options) => BatchLoss) | undefined;
  /** Of a method of single sequences, in place of `loss`. */
  readonly single?: (beta: number, options: Options) => SingleLoss;
}

const likelihood = { sftWeight: 0, sftReduction: 'sequence' } as const;
const withReference = { normalize: false, reference: true } as const;
const scored = { ...likelihood, referenceFree: false } as const;

/** An objective whose batch loss is the mean over its pairs. */
function pairs(loss: PairLoss): BatchLoss {
  return (chosen, rejected) =>
    chosen.map((side, i) => ({ loss: loss(side, at(rejected, i)), chosen: i, rejected: i }));
}

/**
 * (1 - e) sp(-u) + e sp(u): the logistic loss of a margin u whose label is wrong with probability
 * e.
 */
function smoothed(u: Dual, e: number): Dual {
  const right = softplus(u.negated()).times(1 - e);
  return e === 0 ? right : right.plus(softplus(u).times(e));
}

/** h = r_w - r_l. */
function margin(chosen: Side, rejected: Side): Dual {
  return chosen.ratio.minus(rejected.ratio);
}

/** (r_w - t)^2 + (r_l + t)^2 with t = 1 / (2 beta). */
function calibration(beta: number): PairLoss {
  const target = 1 / (2 * beta);
  return (chosen, rejected) =>
    chosen.ratio.minus(target).squared().plus(rejected.ratio.plus(target).squared());
}

/**
 * h without what rounding r_w and r_l took from it, where both have one divisor: e^1000 would make
 * a margin of that.
 */
function exactMargin(chosen: Side, rejected: Side): Dual {
  const rounded = margin(chosen, rejected);
  if (chosen.divisor !== rejected.divisor) return rounded;
  const parts = [chosen.sums[0], -chosen.sums[1], -rejected.sums[0], rejected.sums[1]];
  const h = sum(4, (i) => at(parts, i)) / chosen.divisor;
  return new Dual(h, rounded.byChosen, rounded.byRejected);
}

/**
 * The margin s(r_w) - s(r_l) of the scores of an f-divergence: r (reverse KL), -e^-r (forward KL),
 * log sg(r) (Jensen-Shannon), (1 - e^(-alpha r)) / alpha, whose limit at alpha = 0 is r.
 */
function divergenceMargin(divergence: Options['divergence'], alpha: number): PairLoss {
  switch (divergence) {
    case 'reverse_kl':
      return margin;
    case 'forward_kl':
      return saturatingMargin(1); // 1 - e^-r and -e^-r have one margin
    case 'js':
      return (chosen, rejected) => logSigmoid(chosen.ratio).minus(logSigmoid(rejected.ratio));
    case 'alpha':
      return saturatingMargin(alpha);
  }
}

/** s(x) = (1 - e^(-alpha x)) / alpha, the identity at alpha = 0. */
function saturating(x: Dual, alpha: number): Dual {
  return alpha === 0 ? x : expm1(x.times(-alpha)).times(-1 / alpha);
}

/**
 * s(r_w) - s(r_l) for the score above. The value is that of
 *
 *   e^(-alpha r_l) (1 - e^(-alpha h)) / alpha,   or, with the larger exponential in front,
 *   -e^(-alpha r_w) (1 - e^(alpha h)) / alpha,
 *
 * which has digits that the two scores have lost.
 */
function saturatingMargin(alpha: number): PairLoss {
  return (chosen, rejected) => {
    const difference = saturating(chosen.ratio, alpha).minus(saturating(rejected.ratio, alpha));
    if (alpha === 0) return difference;
    const h = exactMargin(chosen, rejected);
    const [sign, larger] = alpha * h.value >= 0 ? [1, rejected.ratio] : [-1, chosen.ratio];
    const front = exp(larger.times(-alpha)).times(-sign / alpha);
    const value = expm1(h.times(-sign * alpha)).times(front);
    return new Dual(value.wide, difference.byChosen, difference.byRejected);
  };
}

/**
 * Positions of the values in ascending order; equal values keep the order of their pairs, NaN comes
 * last.
 */
function ascending(values: readonly number[]): number[] {
  const rank = (x: number): number => (Number.isNaN(x) ? 1 : 0);
  return values
    .map((_, index) => index)
    .sort((i, j) => {
      const [x, y] = [at(values, i), at(values, j)];
      return rank(x) - rank(y) || (x < y ? -1 : x > y ? 1 : i - j);
    });
}

const definitions: Readonly<Record<ReferenceMethod, Method>> = {
  // Its loss is the likelihood term itself, whatever the number of sequences: see `likelihoodTerm`.
  sft: {
    normalize: true,
    reference: false,
    options: { sftReduction: 'sequence' },
    loss: undefined,
  },

  // sp(-beta (s(r_w) - s(r_l))), smoothed
  dpo: {
    ...withReference,
    options: { ...scored, labelSmoothing: 0, divergence: 'reverse_kl', alpha: 0.5 },
    loss: (beta, { labelSmoothing, divergence, alpha }) => {
      const difference = divergenceMargin(divergence, alpha);
      return pairs((w, l) => smoothed(difference(w, l).times(beta), labelSmoothing));
    },
  },

  // (h - 1 / (2 beta))^2
  ipo: {
    ...withReference,
    options: scored,
    loss: (beta) =>
      pairs((w, l) =>
        margin(w, l)
          .minus(1 / (2 * beta))
          .squared(),
      ),
  },

  // sp(-u), smoothed, u = beta (a_w - a_l) - gamma
  simpo: {
    normalize: true,
    reference: false,
    options: { ...likelihood, labelSmoothing: 0, gamma: 0.5 },
    loss: (beta, { labelSmoothing, gamma }) =>
      pairs((w, l) => smoothed(w.policy.minus(l.policy).times(beta).minus(gamma), labelSmoothing)),
  },

  // lambda sp(-beta (o_w - o_l))
  orpo: {
    normalize: true,
    reference: false,
    options: { ...likelihood, lambda: 1 },
    loss: (beta, { lambda }) =>
      pairs((w, l) => softplus(w.odds.minus(l.odds).times(-beta)).times(lambda)),
  },

  // lambda (sp(-beta o_w) + sp(beta o_l))
  asft: {
    normalize: true,
    reference: false,
    options: { ...likelihood, lambda: 1 },
    loss: (beta, { lambda }) =>
      pairs((w, l) =>
        softplus(w.odds.times(-beta))
          .plus(softplus(l.odds.times(beta)))
          .times(lambda),
      ),
  },

  // 1 - sg(beta r_w) + sg(beta r_l), where 1 - sg(x) = sg(-x)
  apo_zero: {
    ...withReference,
    options: scored,
    loss: (beta) =>
      pairs((w, l) => sigmoid(w.ratio.times(-beta)).plus(sigmoid(l.ratio.times(beta)))),
  },

  // sp(-beta r_w) + (sp(beta r_w) + sp(beta r_l)) / 2
  nca: {
    ...withReference,
    options: scored,
    loss: (beta) =>
      pairs((w, l) => {
        const either = softplus(w.ratio.times(beta)).plus(softplus(l.ratio.times(beta)));
        return softplus(w.ratio.times(-beta)).plus(either.times(0.5));
      }),
  },

  // sp(-h) + c ((r_w - 1 / (2 beta))^2 + (r_l + 1 / (2 beta))^2)
  cal_dpo: {
    ...withReference,
    options: { ...scored, calibrationWeight: 1 },
    loss: (beta, { calibrationWeight }) =>
      pairs((w, l) =>
        softplus(margin(w, l).negated()).plus(calibration(beta)(w, l).times(calibrationWeight)),
      ),
  },

  // max(0, 1 - beta h)
  hinge: {
    ...withReference,
    options: scored,
    loss: (beta) => pairs((w, l) => relu(margin(w, l).times(-beta).plus(1))),
  },

  // ((1 - e) sp(-u) - e sp(u)) / (1 - 2 e), u = beta h
  robust: {
    ...withReference,
    options: { ...scored, labelSmoothing: 0.1 },
    loss: (beta, { labelSmoothing: e }) =>
      pairs((w, l) => {
        const u = margin(w, l).times(beta);
        const right = softplus(u.negated()).times(1 - e);
        return right.minus(softplus(u).times(e)).times(1 / (1 - 2 * e));
      }),
  },

  // q (log q - log(1 - e)) + (1 - q) (log(1 - q) - log e), q = sg(beta h): KL from (q, 1 - q) to (1
  // - e, e)
  exo_pair: {
    ...withReference,
    options: { ...scored, labelSmoothing: 0.001 },
    loss: (beta, { labelSmoothing: e }) =>
      pairs((w, l) => {
        const u = margin(w, l).times(beta);
        const right = sigmoid(u).times(logSigmoid(u).minus(Math.log1p(-e)));
        return right.plus(sigmoid(u.negated()).times(logSigmoid(u.negated()).minus(Math.log(e))));
      }),
  },

  // sp(-beta r_w) + sp(beta r_l)
  bco_pair: {
    ...withReference,
    options: scored,
    loss: (beta) =>
      pairs((w, l) => softplus(w.ratio.times(-beta)).plus(softplus(l.ratio.times(beta)))),
  },

  // (r_w - 1 / (2 beta))^2 + (r_l + 1 / (2 beta))^2
  sppo_hard: { ...withReference, options: scored, loss: (beta) => pairs(calibration(beta)) },

  // sp(-beta D_i), smoothed, D_i the difference of the i-th smallest S_w - S_l and the i-th
  // smallest R_w - R_l
  aot: {
    ...withReference,
    options: { ...scored, labelSmoothing: 0 },
    loss: (beta, { labelSmoothing }) => {
      return (chosen, rejected) => {
        const margins = chosen.map((w, i) => w.policy.minus(at(rejected, i).policy));
        const references = chosen.map((w, i) => w.reference - at(rejected, i).reference);
        const byReference = ascending(references);
        return ascending(margins.map((h) => h.value)).map((pair, rank) => ({
          loss: smoothed(
            at(margins, pair)
              .minus(at(references, at(byReference, rank)))
              .times(beta),
            labelSmoothing,
          ),
          chosen: pair,
          rejected: pair,
        }));
      };
    },
  },

  // sp(-beta D_i), smoothed, D_i the difference of the i-th smallest r_w and the i-th smallest r_l
  aot_unpaired: {
    ...withReference,
    options: { ...scored, labelSmoothing: 0 },
    loss: (beta, { labelSmoothing }) => {
      return (chosen, rejected) => {
        const byRejected = ascending(rejected.map((l) => l.ratio.value));
        return ascending(chosen.map((w) => w.ratio.value)).map((w, rank) => {
          const l = at(byRejected, rank);
          const difference = margin(at(chosen, w), at(rejected, l));
          return { loss: smoothed(difference.times(beta), labelSmoothing), chosen: w, rejected: l };
        });
      };
    },
  },

  // (1 - m) sp(-u) + m e^-u, m = sg(u / tau), u = beta h; m e^-u is one exponential, which does not
  // overflow for tau < 1
  discopop: {
    ...withReference,
    options: { ...scored, tau: 0.05 },
    loss: (beta, { tau }) =>
      pairs((w, l) => {
        const u = margin(w, l).times(beta);
        const logistic = sigmoid(u.times(-1 / tau)).times(softplus(u.negated()));
        return logistic.plus(exp(logSigmoid(u.times(1 / tau)).minus(u)));
      }),
  },

  // sg(beta r_w) + 1 - sg(beta h). Its derivative by r_w is a difference of slopes that may agree
  // in most of their digits: what is left of it is good to 2^-53 of them, and not of itself.
  apo_down: {
    ...withReference,
    options: scored,
    loss: (beta) =>
      pairs((w, l) => sigmoid(w.ratio.times(beta)).plus(sigmoid(margin(w, l).times(-beta)))),
  },

  // sp(-beta (S_w - S_l)), smoothed
  cpo: {
    normalize: false,
    reference: false,
    options: { ...likelihood, labelSmoothing: 0 },
    loss: (beta, { labelSmoothing }) =>
      pairs((w, l) => smoothed(w.policy.minus(l.policy).times(beta), labelSmoothing)),
  },

  // sp(-(R_w - R_l - gamma)), smoothed, R = beta (1 - e^(-alpha a)) / alpha
  alphapo: {
    normalize: true,
    reference: false,
    options: { ...likelihood, labelSmoothing: 0, gamma: 0.5, alpha: 0.25 },
    loss: (beta, { labelSmoothing, gamma, alpha }) => {
      const difference = saturatingMargin(alpha);
      return pairs((w, l) => smoothed(difference(w, l).times(beta).minus(gamma), labelSmoothing));
    },
  },

  // sp(-(beta h + alpha (L_w - L_l)))
  r_dpo: {
    ...withReference,
    options: { ...scored, alpha: 0.05 },
    loss: (beta, { alpha }) =>
      pairs((w, l) =>
        softplus(
          margin(w, l)
            .times(-beta)
            .minus(alpha * (w.length - l.length)),
        ),
      ),
  },

  // sp(-beta (h - penalty max(0, -r_w)))
  dpop: {
    ...withReference,
    options: { ...scored, penalty: 50 },
    loss: (beta, { penalty }) =>
      pairs((w, l) =>
        softplus(margin(w, l).minus(relu(w.ratio.negated()).times(penalty)).times(-beta)),
      ),
  },

  // dW (1 - sg(beta (r - z))) where desirable, uW (1 - sg(beta (z - r))) where not
  kto: {
    ...withReference,
    options: { ...scored, desirableWeight: 1, undesirableWeight: 1 },
    loss: undefined,
    single:
      (beta, { desirableWeight, undesirableWeight }) =>
      ({ ratio }, { desirable, baseline }) => {
        const beyond = ratio.minus(baseline).times(beta);
        return desirable
          ? sigmoid(beyond.negated()).times(desirableWeight)
          : sigmoid(beyond).times(undesirableWeight);
      },
  },

  // dW sp(-(u - shift)) where desirable, uW sp(u - shift) where not
  bco: {
    ...withReference,
    options: { ...scored, desirableWeight: 1, undesirableWeight: 1 },
    loss: undefined,
    single:
      (beta, { desirableWeight, undesirableWeight }) =>
      ({ ratio }, { desirable, shift }) => {
        const gain = ratio.times(beta).minus(shift);
        return desirable
          ? softplus(gain.negated()).times(desirableWeight)
          : softplus(gain).times(undesirableWeight);
      },
  },
};

// ----------------------------------------------------------------------------------------------
// From sequence log-probabilities

interface Resolved {
  readonly method: ReferenceMethod;
  readonly beta: number;
  readonly normalize: boolean;
  readonly usesReference: boolean;
  readonly options: Options;
  /** Undefined where the likelihood term is all there is. */
  readonly loss: BatchLoss | undefined;
  /** Of a method of single sequences. */
  readonly single: SingleLoss | undefined;
}

function resolve(config: ReferenceConfig): Resolved {
  const { method, beta, normalize, ...given } = config;
  if (!Object.hasOwn(definitions, method)) {
    throw typeError('ERR_DIRALIGN_OPTION', `method: ${JSON.stringify(method)} is none of them.`);
  }
  const definition = definitions[method];
  const options: Record<string, unknown> = { ...definition.options };
  for (const [name, value] of Object.entries<unknown>(given)) {
    if (value === undefined) continue;
    if (!Object.hasOwn(options, name))
      throw typeError('ERR_DIRALIGN_OPTION', `${name}: '${method}' has no such option.`);
    options[name] = value;
  }
  const hasBeta = definition.loss !== undefined || definition.single !== undefined;
  if (hasBeta && !(beta !== undefined && beta > 0 && Number.isFinite(beta))) {
    throw rangeError(
      'ERR_DIRALIGN_OPTION',
      `beta: ${String(beta)}; expected a finite number above 0.`,
    );
  }
  const resolved = options as unknown as Options;
  // The likelihood objective has no temperature: its rewards are plain log-probabilities.
  const temperature = hasBeta && beta !== undefined ? beta : 1;
  return {
    method,
    beta: temperature,
    normalize: normalize ?? definition.normalize,
    usesReference: definition.reference && !resolved.referenceFree,
    options: resolved,
    loss: definition.loss?.(temperature, resolved),
    single: definition.single?.(temperature, resolved),
  };
}

/** The likelihood term's own sums, where its labels differ from those of the alignment term. */
interface Likelihood {
  readonly logps: ArrayLike<number>;
  readonly counts: ArrayLike<number>;
}

/** n, or 1 where it is 0: nothing is scored there. */
function divisorOf(n: number): number {
  return n === 0 ? 1 : n;
}

/** Whether the likelihood term is all there is. */
function isLikelihood({ loss, single }: Resolved): boolean {
  return loss === undefined && single === undefined;
}

/**
 * Negative log-likelihood of the first `sequences` sequences, one number per sequence whose mean is
 * the term of the loss, and the factor f of each: nll_i = -f_i S_i.
 *
 * 'sequence': f_i = 1 / max(L_i, 1) where the objective normalises, 1 where it does not. 'token':
 * sum(S) / sum(L). For `sft` it is split into the sequences' shares, f_i = sequences / sum(L);
 * beside an alignment term every pair carries the whole of it.
 */
function likelihoodTerm(settings: Resolved, sequences: number, { logps, counts }: Likelihood) {
  const tokens = divisorOf(sum(sequences, (i) => at(counts, i)));
  const factors = Float64Array.from({ length: sequences }, (_, i) => {
    if (settings.options.sftReduction === 'token') return sequences / tokens;
    return settings.normalize ? 1 / divisorOf(at(counts, i)) : 1;
  });
  const nll = Float64Array.from({ length: sequences }, (_, i) =>
    at(counts, i) === 0 ? 0 : -at(logps, i) * at(factors, i),
  );
  if (settings.options.sftReduction === 'token' && !isLikelihood(settings)) nll.fill(mean(nll));
  return { factors, nll };
}

interface Scores {
  readonly loss: number;
  readonly losses: Float64Array;
  readonly rewards: Float64Array;
  readonly coefficients: Float64Array;
  /**
   * Per sequence: dLoss/dS of the likelihood term, S being the sum over its own labels. Nothing for
   * `sft`.
   */
  readonly likelihood: Float64Array;
}

/** loss = mean of losses, losses_i = (alignment term)_i + sftWeight nll_i. */
function score(
  settings: Resolved,
  batch: Omit<LogpsBatch, 'counts'> & { readonly counts: ArrayLike<number> },
  separate?: Likelihood,
): Scores {
  const { logps, counts, reference } = batch;
  const { beta, normalize, options } = settings;
  const sequences = logps.length;
  if (counts.length !== sequences) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `counts: ${counts.length} of them; expected ${sequences}, one per sequence.`,
    );
  }
  const ratios = settings.usesReference ? reference : undefined;
  if (settings.usesReference && ratios?.length !== sequences) {
    const given = ratios === undefined ? 'missing' : `${ratios.length} numbers`;
    throw rangeError(
      'ERR_DIRALIGN_REFERENCE',
      `reference: ${given}; '${settings.method}' needs one per sequence, ${sequences}.`,
    );
  }

  // A sequence without scored tokens has score 0 that depends on nothing, whatever the reference
  // says.
  const empty = (b: number): boolean => at(counts, b) === 0;
  const divisor = (b: number): number => (normalize ? divisorOf(at(counts, b)) : 1);
  const policySum = (b: number): number => (empty(b) ? 0 : at(logps, b));
  const referenceSum = (b: number): number =>
    empty(b) || ratios === undefined ? 0 : at(ratios, b);

  const rewards = Float64Array.from(
    logps,
    (_, b) => (beta * (policySum(b) - referenceSum(b))) / divisor(b),
  );
  const coefficients = new Float64Array(sequences);
  const likelihood = new Float64Array(sequences);

  if (isLikelihood(settings)) {
    const { factors, nll } = likelihoodTerm(settings, sequences, { logps, counts });
    for (let b = 0; b < sequences; b++)
      if (!empty(b)) coefficients[b] = -at(factors, b) / sequences;
    return { loss: mean(nll), losses: nll, rewards, coefficients, likelihood };
  }

  if (settings.loss && sequences % 2 !== 0) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `logps: ${sequences} sequences; expected an even number, chosen then rejected.`,
    );
  }
  const count = settings.loss ? sequences / 2 : sequences;

  const side = (b: number): Side => {
    const seed: [number, number] = empty(b) ? [0, 0] : b < count ? [1, 0] : [0, 1];
    const policy = new Dual(policySum(b), ...seed);
    const scale = 1 / divisor(b);
    const perToken = (x: Dual): Dual => x.map(x.value / divisor(b), scale);
    return {
      policy: perToken(policy),
      reference: referenceSum(b) / divisor(b),
      ratio: perToken(policy.minus(referenceSum(b))),
      odds: empty(b) ? new Dual(0) : logOdds(perToken(policy)),
      length: at(counts, b),
      sums: [policySum(b), referenceSum(b)],
      divisor: divisor(b),
    };
  };
  const sides = Array.from(logps, (_, b) => side(b));
  const { single } = settings;
  const terms: readonly (Omit<Term, 'rejected'> & Partial<Term>)[] =
    settings.loss?.(sides.slice(0, count), sides.slice(count)) ??
    sides.map((each, b) => {
      const feedback = {
        desirable: Boolean(batch.desirable?.[b]),
        baseline: batch.kl ?? NaN,
        shift: batch.shift ?? NaN,
      };
      return { loss: (single as SingleLoss)(each, feedback), chosen: b };
    });
  const losses = Float64Array.from(terms, (term) => term.loss.value);
  for (const { loss, chosen, rejected } of terms) {
    coefficients[chosen] = loss.byChosen.over(Wide.of(count)).number;
    if (rejected !== undefined)
      coefficients[count + rejected] = loss.byRejected.over(Wide.of(count)).number;
  }

  if (options.sftWeight !== 0) {
    const own = separate ?? { logps, counts };
    const { factors, nll } = likelihoodTerm(settings, count, own);
    for (let i = 0; i < count; i++) {
      losses[i] = at(losses, i) + options.sftWeight * at(nll, i);
      if (at(own.counts, i) !== 0) likelihood[i] = (-options.sftWeight * at(factors, i)) / count;
    }
  }
  return { loss: mean(losses), losses, rewards, coefficients, likelihood };
}

/** The objective of sequence log-probabilities, and its gradient in them. */
export function referenceFromLogps(
  config: ReferenceConfig,
  batch: LogpsBatch,
): ReferenceLogpsResult {
  const { loss, losses, rewards, coefficients, likelihood } = score(resolve(config), batch);
  return { loss, losses, rewards, gradLogps: coefficients.map((c, b) => c + at(likelihood, b)) };
}

// ----------------------------------------------------------------------------------------------
// From logits

/** A batch as [rows, vocab] numbers in sequences of rows. */
interface Rows {
  readonly rows: number;
  readonly vocab: number;
  readonly sequences: number;
  /** First row of sequence b; `offsets(sequences)` is the number of rows. */
  readonly offset: (b: number) => number;
  readonly logit: (row: number, v: number) => number;
  readonly ignoreIndex: number;
}

function reader(
  name: string,
  data: ReferenceBatch['logits'],
  given: Dtype | undefined,
): (index: number) => number {
  const numbers = data as unknown as ArrayLike<number>;
  const dtypes: Record<string, Dtype | 'float64' | undefined> = {
    Float64Array: 'float64',
    Float32Array: 'float32',
    Float16Array: 'float16',
    Uint16Array: given,
  };
  const dtype = dtypes[data[Symbol.toStringTag]];
  if (dtype === undefined || (data instanceof Uint16Array && dtype === 'float32')) {
    throw typeError(
      'ERR_DIRALIGN_DTYPE',
      `${name}: a ${data[Symbol.toStringTag]} of dtype ${String(given)}.`,
    );
  }
  if (!(data instanceof Uint16Array)) return (index) => at(numbers, index);
  const decode = dtype === 'float16' ? decodeFloat16 : decodeBfloat16;
  return (index) => decode(at(numbers, index));
}

function outline(batch: BatchRows): Omit<Rows, 'logit'> {
  const { offsets, labels, ignoreIndex = -100 } = batch;
  const shape = batch.shape as LogitsShape;
  const packed = shape.length === 2;
  const [rows, vocab] = shape.length === 2 ? shape : [shape[0] * shape[1], shape[2]];
  const sequences = shape.length === 2 ? (offsets?.length ?? 0) - 1 : shape[0];
  const offset = (b: number): number => (shape.length === 2 ? (offsets?.[b] ?? NaN) : b * shape[1]);
  if (packed ? offset(0) !== 0 || offset(sequences) !== rows : offsets !== undefined) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `offsets: expected ${packed ? `from 0 to ${rows}` : 'none, the batch being padded'}.`,
    );
  }
  for (const [name, given] of [
    ['labels', labels] as const,
    ['sftLabels', batch.sftLabels] as const,
  ]) {
    if (given === undefined) continue;
    if (given.length !== rows)
      throw rangeError('ERR_DIRALIGN_SHAPE', `${name}: ${given.length} of them; expected ${rows}.`);
    const outside = given.findIndex(
      (label) => label !== ignoreIndex && !(label >= 0 && label < vocab),
    );
    if (outside >= 0) {
      throw rangeError(
        'ERR_DIRALIGN_LABEL',
        `${name}[${outside}]: ${at(given, outside)}; expected [0, ${vocab}) or ${ignoreIndex}.`,
      );
    }
  }
  return { rows, vocab, sequences, offset, ignoreIndex };
}

function view(batch: ReferenceBatch): Rows {
  const rows = outline(batch);
  const { logits, dtype, rowStride = rows.vocab } = batch;
  const needed = rows.rows === 0 ? 0 : (rows.rows - 1) * rowStride + rows.vocab;
  if (rowStride < rows.vocab || logits.length < needed) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `logits: ${logits.length} elements; expected at least ${needed}.`,
    );
  }
  const element = reader('logits', logits, dtype);
  return { ...rows, logit: (row, v) => element(row * rowStride + v) };
}

/** The softmax of a row, seen from its label. */
interface Row {
  readonly logp: number;
  readonly logsumexp: number;
  readonly entropy: number;
  /** d logp / d logits: onehot - softmax. */
  readonly gradient: Float64Array;
}

/**
 * With m the largest logit, e_v = exp(z_v - m) and `rest` the sum of e over all v but the label y:
 *
 *   p_v = e_v / (rest + e_y),   1 - p_y = rest / (rest + e_y),
 *   log p_y = -log1p(rest) where y is the largest, so that a label near certainty keeps the digits
 *   of 1 - p_y;
 *   log p_y = (z_y - m) - log1p(others) elsewhere, `others` the sum over all v but one of the
 *   largest;
 *   entropy = sum_v p_v (log1p(others) - (z_v - m)), a sum without cancellation; p_v = 0
 *   contributes 0.
 *
 * A row that holds a NaN or a +inf, or nothing but -inf, has no softmax: all of it is NaN.
 */
function softmaxRow(batch: Rows, row: number, label: number): Row {
  const { vocab, logit } = batch;
  let top = 0;
  let invalid = false;
  for (let v = 0; v < vocab; v++) {
    if (Number.isNaN(logit(row, v))) invalid = true;
    if (logit(row, v) > logit(row, top)) top = v;
  }
  // The label itself where it shares the maximum: its log-probability then takes the exact form.
  if (logit(row, label) === logit(row, top)) top = label;
  const max = invalid || !Number.isFinite(logit(row, top)) ? NaN : logit(row, top);
  const e = Float64Array.from({ length: vocab }, (_, v) => Math.exp(logit(row, v) - max));
  const rest = sum(vocab, (v) => (v === label ? 0 : at(e, v)));
  const others = sum(vocab, (v) => (v === top ? 0 : at(e, v)));
  const total = rest + at(e, label);
  const logTotal = Math.log1p(others);
  return {
    logp: logit(row, label) - max - logTotal,
    logsumexp: max + logTotal,
    entropy: sum(vocab, (v) =>
      at(e, v) === 0 ? 0 : (at(e, v) / total) * (logTotal - (logit(row, v) - max)),
    ),
    gradient: e.map((ev, v) => (v === label ? rest : -ev) / total),
  };
}

/** Weight of a row's log-probability. */
type Weight = (row: number) => number;

const weightOf =
  ({ tokenWeights }: BatchRows): Weight =>
  (row) =>
    tokenWeights ? at(tokenWeights, row) : 1;

interface SequenceSums extends SequenceLogps {
  /** Sums of the weights of scored rows. */
  readonly lengths: Float64Array;
}

/** Sums over the scored rows of each sequence: a row of weight 0 is not there. */
function sumRows(batch: Rows, labels: Int32Array, weight: Weight): SequenceSums {
  const logps = new Float64Array(batch.sequences);
  const counts = new Int32Array(batch.sequences);
  const lengths = new Float64Array(batch.sequences);
  for (let b = 0; b < batch.sequences; b++) {
    const [total, length] = [new Sum(), new Sum()];
    for (let row = batch.offset(b); row < batch.offset(b + 1); row++) {
      const label = at(labels, row);
      if (label === batch.ignoreIndex) continue;
      counts[b] = at(counts, b) + 1;
      length.add(weight(row));
      if (weight(row) !== 0) total.add(weight(row) * softmaxRow(batch, row, label).logp);
    }
    logps[b] = total.value;
    lengths[b] = length.value;
  }
  return { logps, counts, lengths };
}

/** Sequence log-probabilities: S = sum of log p_y over the rows whose label is not ignored. */
export function referenceLogps(batch: ReferenceBatch): SequenceLogps {
  const { logps, counts } = sumRows(view(batch), batch.labels, weightOf(batch));
  return { logps, counts };
}

/** Log-probability, logsumexp and entropy of every row; 0 where the label is ignored. */
export function referenceTokenLogps(batch: ReferenceBatch): TokenLogps {
  const rows = view(batch);
  const logps = new Float64Array(rows.rows);
  const logsumexp = new Float64Array(rows.rows);
  const entropy = new Float64Array(rows.rows);
  batch.labels.forEach((label, row) => {
    if (label === rows.ignoreIndex) return;
    const softmax = softmaxRow(rows, row, label);
    logps[row] = softmax.logp;
    logsumexp[row] = softmax.logsumexp;
    entropy[row] = softmax.entropy;
  });
  return { logps, logsumexp, entropy };
}

/**
 * The objective of a batch of logits and its gradient: row t of sequence b gets (dLoss/dS_b)
 * (onehot(y_t) - softmax(z_t)), and for a chosen sequence the likelihood term's share likewise with
 * its own labels.
 */
export function referenceLoss(config: ReferenceConfig, batch: ReferenceBatch): ReferenceResult {
  const settings = resolve(config);
  const rows = view(batch);
  const { labels, sftLabels, reference, desirable, kl, shift } = batch;
  if (isLikelihood(settings) && sftLabels !== undefined) {
    throw typeError(
      'ERR_DIRALIGN_LABEL',
      'sftLabels: are those of a likelihood term beside an alignment term; sft has only labels.',
    );
  }
  const weight = weightOf(batch);
  const { logps, counts, lengths } = sumRows(rows, labels, weight);
  const own = sftLabels && sumRows(rows, sftLabels, weight);
  const separate = own && { logps: own.logps, counts: own.lengths };
  const sequenceBatch = { logps, counts: lengths, reference, desirable, kl, shift };
  const { loss, losses, rewards, coefficients, likelihood } = score(
    settings,
    sequenceBatch,
    separate,
  );

  const gradLogits = new Float64Array(rows.rows * rows.vocab);
  const addRows = (b: number, targets: Int32Array, coefficient: number): void => {
    if (coefficient === 0) return;
    for (let row = rows.offset(b); row < rows.offset(b + 1); row++) {
      const label = at(targets, row);
      if (label === rows.ignoreIndex || weight(row) === 0) continue;
      softmaxRow(rows, row, label).gradient.forEach((g, v) => {
        const index = row * rows.vocab + v;
        gradLogits[index] = at(gradLogits, index) + coefficient * weight(row) * g;
      });
    }
  };
  for (let b = 0; b < rows.sequences; b++) {
    const [alignment, term] = [at(coefficients, b), at(likelihood, b)];
    if (sftLabels === undefined) addRows(b, labels, alignment + term);
    else {
      addRows(b, labels, alignment);
      addRows(b, sftLabels, term);
    }
  }
  return { loss, losses, logps, counts, rewards, coefficients, gradLogits };
}

// ----------------------------------------------------------------------------------------------
// From hidden states

/** An output layer in float64. */
export interface ReferenceLayer {
  /** Elements of a hidden state. */
  readonly hiddenSize: number;
  /** [rows, hiddenSize]. */
  readonly hidden: Float64Array;
  /** [vocab, hiddenSize]. */
  readonly weight: Float64Array;
  /**
   * The batch by its logits; rows that no term scores are NaN, whatever their hidden states are.
   */
  readonly batch: Omit<LogitsBatch, 'logits'> & {
    /** [rows, vocab]. */
    readonly logits: Float64Array;
  };
  /** Whether a term scores the row. */
  readonly isScored: (row: number) => boolean;
}

/** logits[row, v] = sum over k of hidden[row, k] weight[v, k], plus bias[v]. */
export function referenceLayer(given: HiddenBatch): ReferenceLayer {
  const { hidden, weight, bias, dtype, hiddenSize: size, ...batch } = given;
  const { rows, vocab, ignoreIndex } = outline(batch);
  const hiddenSize = size ?? weight.length / vocab;
  for (const [name, length, expected] of [
    ['hidden', hidden.length, rows * hiddenSize],
    ['weight', weight.length, vocab * hiddenSize],
    ['bias', bias?.length ?? vocab, vocab],
  ] as const) {
    if (length !== expected)
      throw rangeError('ERR_DIRALIGN_SHAPE', `${name}: ${length} elements; expected ${expected}.`);
  }
  const { labels, sftLabels } = batch;
  const isScored = (row: number): boolean =>
    at(labels, row) !== ignoreIndex ||
    (sftLabels !== undefined && at(sftLabels, row) !== ignoreIndex);
  const values = (name: string, data: LogitsArray): Float64Array => {
    const element = reader(name, data, dtype);
    return Float64Array.from({ length: data.length }, (_, i) => element(i));
  };
  const [states, weights] = [values('hidden', hidden), values('weight', weight)];
  const biases = bias && values('bias', bias);
  const logits = new Float64Array(rows * vocab).fill(NaN);
  for (let row = 0; row < rows; row++) {
    if (!isScored(row)) continue;
    for (let v = 0; v < vocab; v++) {
      let total = biases ? at(biases, v) : 0;
      for (let k = 0; k < hiddenSize; k++)
        total += at(states, row * hiddenSize + k) * at(weights, v * hiddenSize + k);
      logits[row * vocab + v] = total;
    }
  }
  return { hiddenSize, hidden: states, weight: weights, batch: { ...batch, logits }, isScored };
}

/**
 * The objective of a batch of hidden states. With G the gradient of the logits, the chain rule
 * gives
 *
 *   dLoss/dhidden = G weight,   dLoss/dweight = transposed(G) hidden,
 *   dLoss/dbias = the sum of the rows of G.
 */
export function referenceHiddenLoss(
  config: ReferenceConfig,
  given: HiddenBatch,
): ReferenceHiddenResult {
  const { hiddenSize, hidden, weight, batch, isScored } = referenceLayer(given);
  const result = referenceLoss(config, batch);
  const { rows, vocab } = outline(batch);
  const gradHidden = new Float64Array(rows * hiddenSize);
  const gradWeight = new Float64Array(vocab * hiddenSize);
  const gradBias = new Float64Array(vocab);
  for (let row = 0; row < rows; row++) {
    if (!isScored(row)) continue;
    for (let v = 0; v < vocab; v++) {
      const g = at(result.gradLogits, row * vocab + v);
      // A row without a coefficient adds nothing, whatever its hidden state is.
      if (g === 0) continue;
      gradBias[v] = at(gradBias, v) + g;
      for (let k = 0; k < hiddenSize; k++) {
        const [i, j] = [row * hiddenSize + k, v * hiddenSize + k];
        gradHidden[i] = at(gradHidden, i) + g * at(weight, j);
        gradWeight[j] = at(gradWeight, j) + g * at(hidden, i);
      }
    }
  }
  return { ...result, gradHidden, gradWeight, gradBias };
}

// ----------------------------------------------------------------------------------------------
// Finite differences

/** A gradient by differences of the function: what {@link finiteDifference} gives. */
export interface FiniteDifference {
  /** df/dx_i. */
  readonly gradient: Float64Array;
  /** An estimate of the error of each. */
  readonly error: Float64Array;
}

interface Estimate {
  readonly slope: number;
  readonly error: number;
}

/**
 * f'(0) from values of f alone. Central differences D(h) = (f(h) - f(-h)) / (2 h) have errors in
 * h^2, h^4, ...; halving h and eliminating one power after the other,
 *
 *   D[j][k] = D[j][k-1] + (D[j][k-1] - D[j-1][k-1]) / (4^k - 1),
 *
 * leaves them far below those of any single step (Richardson). One-sided differences (f(0) - f(-h))
 * / h have errors in all powers of h: 2^k in place of 4^k. The entry of the table is taken that
 * differs least from those it was made of, but no difference is believed beyond what the rounding
 * of f leaves of it: where f does not move at all, zeros agree perfectly.
 */
function richardson(
  f: (step: number) => number,
  largest: number,
  central: boolean,
  levels: number,
): Estimate {
  let best: Estimate = { slope: NaN, error: Infinity };
  let previous: number[] = [];
  for (let level = 0, h = largest; level < levels; level++, h /= 2) {
    const [high, low, width] = central ? [f(h), f(-h), 2 * h] : [f(0), f(-h), h];
    const rounding = (Number.EPSILON * Math.max(Math.abs(high), Math.abs(low))) / width;
    const current = [(high - low) / width];
    for (let k = 1; k <= level; k++) {
      const [fine, coarse] = [at(current, k - 1), at(previous, k - 1)];
      const refined = fine + (fine - coarse) / ((central ? 4 : 2) ** k - 1);
      current.push(refined);
      const error = Math.max(Math.abs(refined - fine), Math.abs(refined - coarse), rounding);
      if (error <= best.error) best = { slope: refined, error };
    }
    previous = current;
  }
  return best;
}

/**
 * The gradient of f at x by differences of f. No coordinate moves beyond `bound`, by default 0:
 * these are log-probabilities. One that is near it has two scales, its distance to the bound
 * (log-odds change over it) and its own size (log-ratios do), so it is differenced twice, within
 * the distance and backwards, and the better estimate counts.
 */
export function finiteDifference(
  f: (x: Float64Array) => number,
  x: ArrayLike<number>,
  { bound = 0, levels = 12 }: { bound?: number; levels?: number } = {},
): FiniteDifference {
  const gradient = new Float64Array(x.length);
  const error = new Float64Array(x.length);
  for (let i = 0; i < x.length; i++) {
    const value = at(x, i);
    const along = (step: number): number => {
      const point = Float64Array.from(x);
      point[i] = value + step;
      return f(point);
    };
    const room = bound - value;
    // Powers of two: a step and its halves are then exact beside all but the tiniest values.
    const power = (size: number): number => 2 ** Math.floor(Math.log2(size));
    const natural = power(Math.max(1, Math.abs(value)) / 4);
    const central =
      room > 0 ? richardson(along, Math.min(natural, power(room / 2)), true, levels) : undefined;
    const backward = room < 2 * natural ? richardson(along, natural, false, levels) : undefined;
    const estimates = [central, backward].filter((estimate) => estimate !== undefined);
    const best = estimates.reduce((a, b) => (b.error < a.error ? b : a));
    gradient[i] = best.slope;
    error[i] = best.error;
  }
  return { gradient, error };
}
