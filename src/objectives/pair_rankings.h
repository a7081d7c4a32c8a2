// Ranking losses: functions of the two scores of a pair, with the derivative by each. w is the
// chosen score, l the rejected one, h = w - l their margin, u = beta h. sg is the sigmoid, sp the
// softplus.
#pragma once
#include "objective.h"

namespace diralign {

/// A ranking loss of the margin alone, up to what the counts add: its two slopes are opposite.
struct OfMargin {};

/// A ranking loss that a pair may set a margin of its own: a logistic or a hinge of u - margin.
struct WithPairMargin {};

/// u = beta h, less the pair's own margin.
DIRALIGN_HD double scaled_margin(const ScoredPair& p, const Settings& o) {
  return value(o.beta * p.margin) - p.offset;
}

/// (1 - e) sp(-u) + e sp(u); dL/du = sg(u) - (1 - e), formed so that it keeps its digits where
/// either side vanishes.
DIRALIGN_HD Ranked smoothed_logistic(double u, double epsilon, double du_dscore) {
  const Logistic right = logistic(-u);
  if (epsilon == 0) return pairwise(right.loss, du_dscore * -right.slope);
  const Logistic wrong = logistic(u);
  const double loss = (1 - epsilon) * right.loss + epsilon * wrong.loss;
  return pairwise(loss, du_dscore * (epsilon * wrong.slope - (1 - epsilon) * right.slope));
}

/// sp(-u), with label smoothing e: (1 - e) sp(-u) + e sp(u) (conservative DPO).
struct PairwiseLogistic : OfMargin, WithPairMargin {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    return smoothed_logistic(scaled_margin(p, o), p.flip, o.beta);
  }
};

/// The logistic loss of u - gamma.
struct PairwiseLogisticWithMargin : OfMargin, WithPairMargin {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    return smoothed_logistic(scaled_margin(p, o) - o.gamma, p.flip, o.beta);
  }
};

/// The logistic loss of u + alpha (L_w - L_l): the reward pays alpha for every token.
struct PairwiseLogisticWithLength : OfMargin, WithPairMargin {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const Scaled u = o.beta * p.margin + o.alpha * Scaled(p.chosen_count - p.rejected_count);
    return smoothed_logistic(value(u) - p.offset, 0, o.beta);
  }
};

/// (h - 1 / (2 beta))^2, or what the pair's margin is drawn to in place of 1 / (2 beta).
struct PairwiseSquared : OfMargin {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings&) {
    const double d = value(p.margin) - p.target;
    return pairwise(d * d, 2 * d);
  }
};

/// max(0, 1 - u); the derivative at the kink is 0.
struct PairwiseHinge : OfMargin, WithPairMargin {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const double slack = 1 - scaled_margin(p, o);
    if (slack <= 0) return pairwise(0, 0);
    return pairwise(slack, slack > 0 ? -o.beta : slack);  // a NaN stays one
  }
};

/// [(1 - e) sp(-u) - e sp(u)] / (1 - 2 e): unbiased under label flips of probability e, and may be
/// negative.
struct PairwiseRobust : OfMargin, WithPairMargin {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const double u = scaled_margin(p, o), e = p.flip, scale = 1 / (1 - 2 * e);
    const Logistic right = logistic(-u), wrong = logistic(u);
    const double loss = (1 - e) * right.loss - (e == 0 ? 0 : e * wrong.loss);
    return pairwise(loss * scale, -o.beta * ((1 - e) * right.slope + e * wrong.slope) * scale);
  }
};

/// KL from (1 - e, e) to (sg(u), sg(-u)): q (log q - log(1 - e)) + (1 - q)(log(1 - q) - log e), q =
/// sg(u); dL/du = sg'(u) (u - log((1 - e) / e)).
struct PairwiseExo : OfMargin, WithPairMargin {
  /// sg(u) (log sg(u) - log_target), 0 where sg(u) is.
  DIRALIGN_HD static double relative_entropy(double u, double log_target) {
    const double q = sigmoid(u);
    return q == 0 ? 0 : q * (log_sigmoid(u) - log_target);
  }
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const double u = scaled_margin(p, o), e = p.flip;
    const double log_keep = ::log1p(-e), log_flip = ::log(e);
    const double loss = relative_entropy(u, log_keep) + relative_entropy(-u, log_flip);
    return pairwise(loss, o.beta * scaled_sigmoid_slope(u) * (u - (log_keep - log_flip)));
  }
};

/// (1 - m) sp(-u) + m e^-u, m = sg(u / tau): the log-ratio modulated loss. m e^-u = exp(-u - sp(-u
/// / tau)) cannot overflow in between.
struct PairwiseDiscovered : OfMargin, WithPairMargin {
  /// dL/du, with `rest` 1 - m, `modulated` m e^-u, `softplus` sp(-u).
  template <class Real>
  DIRALIGN_HD static Real slope(Real m, Real rest, Real falling, Real modulated, double softplus,
                                double tau) {
    return -rest * falling - modulated + rest / tau * (modulated - m * softplus);
  }
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const double u = scaled_margin(p, o), tau = o.tau, m = sigmoid(u / tau),
                 rest = sigmoid(-u / tau), falling = sigmoid(-u), positive = softplus(-u);
    const double exponent = -u - softplus(-u / tau), modulated = ::exp(exponent);
    if (::fabs(u) < scaled_beyond && exponent < scaled_beyond && tau > 1e-290) {
      const double plain = slope(m, rest, falling, modulated, positive, tau);
      return pairwise(rest * positive + modulated, o.beta * Scaled(plain));
    }
    // A finite stand-in for -inf: u and u / tau have a difference then.
    const double v = u < -DBL_MAX ? -DBL_MAX : u, log_modulated = -v - softplus(-v / tau);
    const Scaled far = slope(scaled_sigmoid(v / tau), scaled_sigmoid(-v / tau), scaled_sigmoid(-v),
                             scaled_exp(log_modulated), softplus(-v), tau);
    return pairwise(rest * positive + ::exp(log_modulated), o.beta * far);
  }
};

/// sp(-beta (h - penalty max(0, -w))): the margin pays where the chosen falls below the reference;
/// the derivative at the kink is 0.
struct PairwiseWithFloor : WithPairMargin {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const bool pays = p.chosen < 0 && o.penalty > 0;
    const double u =
        value(o.beta * (p.margin + (pays ? o.penalty * Scaled(p.chosen) : 0))) - p.offset;
    const Logistic right = logistic(-u);
    const Scaled slope = -o.beta * right.slope;
    return {right.loss, slope * (pays ? 1 + o.penalty : 1), -slope};
  }
};

/// e^l - e^w, of log-probabilities. Where they are near each other the digits are in the margin;
/// that of two infinite ones is NaN, and their probabilities are 0.
struct PairwiseProbability {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings&) {
    const double w = ::exp(p.chosen), l = ::exp(p.rejected), margin = value(p.margin);
    return {::fabs(margin) < 1 ? -l * ::expm1(margin) : l - w, -w, l};
  }
};

/// sp(-beta w) + sp(beta l): two binary cross-entropies.
struct PointwiseLogistic {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const Logistic w = logistic(-o.beta * p.chosen), l = logistic(o.beta * p.rejected);
    return {w.loss + l.loss, -o.beta * w.slope, o.beta * l.slope};
  }
};

/// 1 - sg(beta w) + sg(beta l), in (0, 2).
struct PointwiseSigmoid {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const double w = o.beta * p.chosen, l = o.beta * p.rejected;
    return {sigmoid(-w) + sigmoid(l), -o.beta * scaled_sigmoid_slope(w),
            o.beta * scaled_sigmoid_slope(l)};
  }
};

/// sg(beta w) + 1 - sg(u), in (0, 2): both are pushed down, the rejected faster.
struct PointwiseSigmoidDown {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const double w = o.beta * p.chosen, l = o.beta * p.rejected, u = scaled_margin(p, o);
    return {sigmoid(w) + sigmoid(-u), o.beta * sigmoid_slope_difference(w, u, -l),
            o.beta * scaled_sigmoid_slope(u)};
  }
};

/// sp(-beta w) + sp(beta w) / 2 + sp(beta l) / 2; in w its minimum is at sg(beta w) = 2/3.
struct PointwiseContrastive {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const double w = o.beta * p.chosen;
    const Logistic up = logistic(-w), down = logistic(w), l = logistic(o.beta * p.rejected);
    return {up.loss + 0.5 * down.loss + 0.5 * l.loss, o.beta * (0.5 * down.slope - up.slope),
            0.5 * o.beta * l.slope};
  }
};

/// (w - 1 / (2 beta))^2 + (l + 1 / (2 beta))^2.
struct PointwiseSquared {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const double target = margin_target(o), w = p.chosen - target, l = p.rejected + target;
    return {w * w + l * l, 2 * w, 2 * l};
  }
};

/// sp(-h) + calibrationWeight [(w - 1 / (2 beta))^2 + (l + 1 / (2 beta))^2]: beta sets the target
/// only.
struct CalibratedLogistic {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const Logistic pull = logistic(-value(p.margin));
    const double slope = -value(pull.slope), c = o.calibration_weight;
    if (c == 0) return pairwise(pull.loss, slope);
    const double target = margin_target(o), w = p.chosen - target, l = p.rejected + target;
    return {pull.loss + (c * w * w + c * l * l), slope + c * (2 * w), -slope + c * (2 * l)};
  }
};

}  // namespace diralign
