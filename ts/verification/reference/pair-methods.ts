/** The methods of pairs. */
import { type Dual, exp, logSigmoid, relu, sigmoid, softplus } from './dual.js';
import {
  ascending,
  calibration,
  divergenceMargin,
  margin,
  saturatingMargin,
  smoothed,
} from './margins.js';
import { halves, likelihood, type Method, pairs, scored, type Side } from './method.js';
import { at } from './numbers.js';

const ofRatios = { arity: 'pair', normalize: false, reference: true } as const;
const ofPolicy = { arity: 'pair', normalize: true, reference: false } as const;
const ofSortedRatios = {
  ...ofRatios,
  isCoupled: true,
  options: { ...scored, labelSmoothing: 0 },
} as const;

/** sp(-beta D_i), smoothed, of the differences D_i of a batch. */
const smoothedDifferences =
  (
    differences: (chosen: readonly Side[], rejected: readonly Side[]) => readonly Dual[],
  ): NonNullable<Method['loss']> =>
  (beta, { labelSmoothing }) =>
  (sides) =>
    differences(...halves(sides)).map((d) => smoothed(d.times(beta), labelSmoothing));

export const pairMethods = {
  // sp(-z), smoothed, z = beta (s(r_w) - s(r_l)) - margin
  dpo: {
    ...ofRatios,
    options: { ...scored, labelSmoothing: 0, divergence: 'reverse_kl', alpha: 0.5 },
    takes: ['margins', 'preferences'],
    loss: (beta, { labelSmoothing, divergence, alpha }) => {
      const difference = divergenceMargin(divergence, alpha);
      return pairs((w, l, { margin: m, error = labelSmoothing }) =>
        smoothed(difference(w, l).times(beta).minus(m), error),
      );
    },
  },

  // (h - t)^2, t = 1 / (2 beta) or the pair's target
  ipo: {
    ...ofRatios,
    options: scored,
    takes: ['targets'],
    loss: (beta) =>
      pairs((w, l, { target = 1 / (2 * beta) }) => margin(w, l).minus(target).squared()),
  },

  // sp(-z), smoothed, z = beta (a_w - a_l) - gamma - margin
  simpo: {
    ...ofPolicy,
    options: { ...likelihood, labelSmoothing: 0, gamma: 0.5 },
    takes: ['margins', 'preferences'],
    loss: (beta, { labelSmoothing, gamma }) =>
      pairs((w, l, { margin: m, error = labelSmoothing }) =>
        smoothed(w.policy.minus(l.policy).times(beta).minus(gamma).minus(m), error),
      ),
  },

  // lambda sp(-z), z = beta (o_w - o_l) - margin
  orpo: {
    ...ofPolicy,
    options: { ...likelihood, lambda: 1 },
    takes: ['margins'],
    loss: (beta, { lambda }) =>
      pairs((w, l, { margin: m }) =>
        softplus(w.odds.minus(l.odds).times(beta).minus(m).negated()).times(lambda),
      ),
  },

  // lambda (sp(-beta o_w) + sp(beta o_l))
  asft: {
    ...ofPolicy,
    options: { ...likelihood, lambda: 1 },
    loss: (beta, { lambda }) =>
      pairs((w, l) =>
        softplus(w.odds.times(-beta))
          .plus(softplus(l.odds.times(beta)))
          .times(lambda),
      ),
  },

  // -e^a_w + e^a_l
  simper: {
    ...ofPolicy,
    options: likelihood,
    takesNoBeta: true,
    // s(x) = e^x - 1
    loss: () => pairs((w, l) => saturatingMargin(-1)(w, l).negated()),
  },

  // 1 - sg(beta r_w) + sg(beta r_l), where 1 - sg(x) = sg(-x)
  apo_zero: {
    ...ofRatios,
    options: scored,
    loss: (beta) =>
      pairs((w, l) => sigmoid(w.ratio.times(-beta)).plus(sigmoid(l.ratio.times(beta)))),
  },

  // sp(-beta r_w) + (sp(beta r_w) + sp(beta r_l)) / 2
  nca: {
    ...ofRatios,
    options: scored,
    loss: (beta) =>
      pairs((w, l) => {
        const either = softplus(w.ratio.times(beta)).plus(softplus(l.ratio.times(beta)));
        return softplus(w.ratio.times(-beta)).plus(either.times(0.5));
      }),
  },

  // sp(-h) + c ((r_w - 1 / (2 beta))^2 + (r_l + 1 / (2 beta))^2)
  cal_dpo: {
    ...ofRatios,
    options: { ...scored, calibrationWeight: 1 },
    loss: (beta, { calibrationWeight }) =>
      pairs((w, l) =>
        softplus(margin(w, l).negated()).plus(calibration(beta)(w, l).times(calibrationWeight)),
      ),
  },

  // max(0, 1 - z), z = beta h - margin
  hinge: {
    ...ofRatios,
    options: scored,
    takes: ['margins'],
    loss: (beta) =>
      pairs((w, l, { margin: m }) => relu(margin(w, l).times(beta).minus(m).negated().plus(1))),
  },

  // ((1 - e) sp(-z) - e sp(z)) / (1 - 2 e), z = beta h - margin
  robust: {
    ...ofRatios,
    options: { ...scored, labelSmoothing: 0.1 },
    takes: ['margins', 'preferences'],
    preferences: { expected: 'above 1/2', fits: (p) => p > 0.5 },
    loss: (beta, { labelSmoothing }) =>
      pairs((w, l, { margin: m, error: e = labelSmoothing }) => {
        const z = margin(w, l).times(beta).minus(m);
        const right = softplus(z.negated()).times(1 - e);
        return right.minus(softplus(z).times(e)).times(1 / (1 - 2 * e));
      }),
  },

  // q (log q - log(1 - e)) + (1 - q) (log(1 - q) - log e), q = sg(z), z = beta h - margin: KL from
  // (q, 1 - q) to (1 - e, e)
  exo_pair: {
    ...ofRatios,
    options: { ...scored, labelSmoothing: 0.001 },
    takes: ['margins', 'preferences'],
    preferences: { expected: 'within (0, 1)', fits: (p) => p > 0 && p < 1 },
    loss: (beta, { labelSmoothing }) =>
      pairs((w, l, { margin: m, error: e = labelSmoothing }) => {
        const z = margin(w, l).times(beta).minus(m);
        const right = sigmoid(z).times(logSigmoid(z).minus(Math.log1p(-e)));
        return right.plus(sigmoid(z.negated()).times(logSigmoid(z.negated()).minus(Math.log(e))));
      }),
  },

  // sp(-beta r_w) + sp(beta r_l)
  bco_pair: {
    ...ofRatios,
    options: scored,
    loss: (beta) =>
      pairs((w, l) => softplus(w.ratio.times(-beta)).plus(softplus(l.ratio.times(beta)))),
  },

  // (r_w - 1 / (2 beta))^2 + (r_l + 1 / (2 beta))^2
  sppo_hard: { ...ofRatios, options: scored, loss: (beta) => pairs(calibration(beta)) },

  // sp(-beta D_i), smoothed, D_i the difference of the i-th smallest S_w - S_l and the i-th
  // smallest R_w - R_l
  aot: {
    ...ofSortedRatios,
    loss: smoothedDifferences((chosen, rejected) => {
      const margins = chosen.map((w, i) => w.policy.minus(at(rejected, i).policy));
      const references = chosen.map((w, i) => w.reference - at(rejected, i).reference);
      const byReference = ascending(references);
      return ascending(margins.map((h) => h.value)).map((pair, rank) =>
        at(margins, pair).minus(at(references, at(byReference, rank))),
      );
    }),
  },

  // sp(-beta D_i), smoothed, D_i the difference of the i-th smallest r_w and the i-th smallest r_l
  aot_unpaired: {
    ...ofSortedRatios,
    loss: smoothedDifferences((chosen, rejected) => {
      const byRejected = ascending(rejected.map((l) => l.ratio.value));
      return ascending(chosen.map((w) => w.ratio.value)).map((w, rank) =>
        margin(at(chosen, w), at(rejected, at(byRejected, rank))),
      );
    }),
  },

  // (1 - m) sp(-z) + m e^-z, m = sg(z / tau), z = beta h - margin; m e^-z is one exponential, which
  // does not overflow for tau < 1
  discopop: {
    ...ofRatios,
    options: { ...scored, tau: 0.05 },
    takes: ['margins'],
    loss: (beta, { tau }) =>
      pairs((w, l, { margin: m }) => {
        const z = margin(w, l).times(beta).minus(m);
        const logistic = sigmoid(z.times(-1 / tau)).times(softplus(z.negated()));
        return logistic.plus(exp(logSigmoid(z.times(1 / tau)).minus(z)));
      }),
  },

  // sg(beta r_w) + 1 - sg(beta h). Its derivative by r_w is a difference of slopes that may agree
  // in most of their digits: what is left of it is good to 2^-53 of them, and not of itself.
  apo_down: {
    ...ofRatios,
    options: scored,
    loss: (beta) =>
      pairs((w, l) => sigmoid(w.ratio.times(beta)).plus(sigmoid(margin(w, l).times(-beta)))),
  },

  // sp(-z), smoothed, z = beta (S_w - S_l) - margin
  cpo: {
    ...ofPolicy,
    normalize: false,
    options: { ...likelihood, labelSmoothing: 0 },
    takes: ['margins', 'preferences'],
    loss: (beta, { labelSmoothing }) =>
      pairs((w, l, { margin: m, error = labelSmoothing }) =>
        smoothed(w.policy.minus(l.policy).times(beta).minus(m), error),
      ),
  },

  // sp(-z), smoothed, z = R_w - R_l - gamma - margin, R = beta (1 - e^(-alpha a)) / alpha
  alphapo: {
    ...ofPolicy,
    options: { ...likelihood, labelSmoothing: 0, gamma: 0.5, alpha: 0.25 },
    takes: ['margins', 'preferences'],
    loss: (beta, { labelSmoothing, gamma, alpha }) => {
      const difference = saturatingMargin(alpha);
      return pairs((w, l, { margin: m, error = labelSmoothing }) =>
        smoothed(difference(w, l).times(beta).minus(gamma).minus(m), error),
      );
    },
  },

  // sp(-z), z = beta h + alpha (n_w - n_l) - margin
  r_dpo: {
    ...ofRatios,
    options: { ...scored, alpha: 0.05 },
    takes: ['margins'],
    loss: (beta, { alpha }) =>
      pairs((w, l, { margin: m }) => {
        const longer = alpha * (w.length - l.length);
        return softplus(margin(w, l).times(beta).plus(longer).minus(m).negated());
      }),
  },

  // sp(-z), z = beta (h - penalty max(0, -r_w)) - margin
  dpop: {
    ...ofRatios,
    options: { ...scored, penalty: 50 },
    takes: ['margins'],
    loss: (beta, { penalty }) =>
      pairs((w, l, { margin: m }) => {
        const penalized = margin(w, l).minus(relu(w.ratio.negated()).times(penalty));
        return softplus(penalized.times(beta).minus(m).negated());
      }),
  },
} satisfies Readonly<Record<string, Method>>;
