/** What the losses of pairs are made of. */
import { type Dual, exp, expm1, logSigmoid, softplus } from './dual.js';
import type { Options, Side } from './method.js';
import { at, sum } from './numbers.js';

type Difference = (chosen: Side, rejected: Side) => Dual;

/**
 * (1 - e) sp(-u) + e sp(u): the logistic loss of a margin u whose label is wrong with probability
 * e.
 */
export function smoothed(u: Dual, e: number): Dual {
  const right = softplus(u.negated()).times(1 - e);
  return e === 0 ? right : right.plus(softplus(u).times(e));
}

/** h = r_w - r_l. */
export function margin(chosen: Side, rejected: Side): Dual {
  return chosen.ratio.minus(rejected.ratio);
}

/** (r_w - t)^2 + (r_l + t)^2 with t = 1 / (2 beta). */
export function calibration(beta: number): Difference {
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
  return rounded.at(h);
}

/**
 * The margin s(r_w) - s(r_l) of the scores of an f-divergence: r (reverse KL), -e^-r (forward KL),
 * log sg(r) (Jensen-Shannon), (1 - e^(-alpha r)) / alpha, whose limit at alpha = 0 is r.
 */
export function divergenceMargin(divergence: Options['divergence'], alpha: number): Difference {
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
export function saturatingMargin(alpha: number): Difference {
  return (chosen, rejected) => {
    const difference = saturating(chosen.ratio, alpha).minus(saturating(rejected.ratio, alpha));
    if (alpha === 0) return difference;
    const h = exactMargin(chosen, rejected);
    const [sign, larger] = alpha * h.value >= 0 ? [1, rejected.ratio] : [-1, chosen.ratio];
    const front = exp(larger.times(-alpha)).times(-sign / alpha);
    const value = expm1(h.times(-sign * alpha)).times(front);
    return difference.at(value.wide);
  };
}

/**
 * Positions of the values in ascending order; equal values keep the order of their pairs, NaN comes
 * last.
 */
export function ascending(values: readonly number[]): number[] {
  const rank = (x: number): number => (Number.isNaN(x) ? 1 : 0);
  return values
    .map((_, index) => index)
    .sort((i, j) => {
      const [x, y] = [at(values, i), at(values, j)];
      return rank(x) - rank(y) || (x < y ? -1 : x > y ? 1 : i - j);
    });
}
