/** Values with their derivatives, for the objectives of the reference. */
import { Wide } from '../wide.js';
import { at } from './numbers.js';

/**
 * A value with its derivatives in the log-probabilities of the sequences that it depends on. All of
 * them have exponents without end (`Wide`): an exponential score of a log-ratio of -1000 is e^1000,
 * and its slope meets a sigmoid of minus that.
 */
export class Dual {
  /** The value, of any size. */
  readonly wide: Wide;
  private readonly slopes = new Map<number, Wide>();

  /** A value, and its derivatives by sequences 0, 1, ... */
  constructor(value: number | Wide, ...derivatives: readonly (number | Wide)[]) {
    this.wide = Wide.of(value);
    derivatives.forEach((slope, sequence) => {
      this.add(sequence, Wide.of(slope));
    });
  }

  /** The log-probability of a sequence: it depends on itself alone. */
  static variable(value: number, sequence: number): Dual {
    const result = new Dual(value);
    result.add(sequence, one);
    return result;
  }

  /** The nearest float64 of the value: infinite or 0 where it is beyond them. */
  get value(): number {
    return this.wide.number;
  }
  /** The derivatives that are not 0, by sequence. */
  get derivatives(): ReadonlyMap<number, Wide> {
    return this.slopes;
  }
  /** The nearest float64 of the derivative by a sequence. */
  derivative(sequence: number): number {
    return this.slopes.get(sequence)?.number ?? 0;
  }
  /** The derivative by the first sequence, a pair's chosen. */
  get dChosen(): number {
    return this.derivative(0);
  }
  /** The derivative by the second sequence, a pair's rejected. */
  get dRejected(): number {
    return this.derivative(1);
  }

  /** A derivative of 0 is not kept: it means "does not depend on it" and outweighs any slope. */
  private add(sequence: number, slope: Wide): void {
    const total = this.slopes.get(sequence)?.plus(slope) ?? slope;
    if (total.isZero) this.slopes.delete(sequence);
    else this.slopes.set(sequence, total);
  }

  /** A value with the derivatives of the sum of slope_i x_i. */
  static chain(value: number | Wide, terms: readonly (readonly [x: Dual, slope: Wide])[]): Dual {
    const result = new Dual(value);
    for (const [x, slope] of terms)
      for (const [sequence, own] of x.slopes) result.add(sequence, own.times(slope));
    return result;
  }

  /** f(this), given f and f' at the value. */
  map(value: number | Wide, slope: number | Wide): Dual {
    return Dual.chain(value, [[this, Wide.of(slope)]]);
  }
  /** The derivatives of this at another value, which has digits that this one has lost. */
  at(value: number | Wide): Dual {
    return this.map(value, one);
  }
  /** this + other. */
  plus(other: Dual | number): Dual {
    if (typeof other === 'number') return this.at(this.wide.plus(Wide.of(other)));
    return Dual.chain(this.wide.plus(other.wide), [
      [this, one],
      [other, one],
    ]);
  }
  /** this - other. */
  minus(other: Dual | number): Dual {
    return this.plus(typeof other === 'number' ? -other : other.negated());
  }
  /** this other, by the product rule. */
  times(other: Dual | number): Dual {
    if (typeof other === 'number') return this.map(this.wide.times(Wide.of(other)), other);
    return Dual.chain(this.wide.times(other.wide), [
      [this, other.wide],
      [other, this.wide],
    ]);
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

const zero = Wide.of(0);
const one = Wide.of(1);

/** Their sum. */
export function total(terms: readonly Dual[]): Dual {
  return terms.reduce((sum, term) => sum.plus(term), new Dual(0));
}

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

/**
 * log(sum of e^x); derivative softmax(x). Of (0, x) it is sp(x), to the bit. The largest is taken
 * out of the sum, which keeps the digits of the others.
 */
export function logSumExp(xs: readonly Dual[]): Dual {
  const top = xs.reduce((best, x, i) => (x.value > at(xs, best).value ? i : best), 0);
  const largest = at(xs, top).wide;
  const ratio = (x: Dual, i: number): Wide =>
    i === top ? one : x.wide.plus(largest.negated()).exp();
  const ratios = xs.map(ratio);
  const others = ratios.reduce((sum, e, i) => (i === top ? sum : sum.plus(e)), zero);
  const all = one.plus(others);
  return Dual.chain(
    largest.plus(others.log1p()),
    xs.map((x, i) => [x, at(ratios, i).over(all)]),
  );
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
  const clamped = a.at(a.value > certainty ? certainty : a.value);
  return clamped.map(clamped.value - log1mexp(clamped).value, -1 / Math.expm1(clamped.value));
}
