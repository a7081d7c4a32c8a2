// Ranking losses: functions of the two scores of a pair, with the derivative by each. w is the chosen score, l the rejected one,
// h = w - l their margin, u = beta h. sg is the sigmoid, sp the softplus.
#pragma once
#include "objective.h"

namespace diralign {

/// A ranking loss of the margin alone, up to what the counts add: its two slopes are opposite.
struct OfMargin {};

/// (1 - e) sp(-u) + e sp(u); dL/du = sg(u) - (1 - e), formed so that it keeps its digits where either side vanishes.
DIRALIGN_HD Ranked smoothed_logistic(double u, double epsilon, double du_dscore) {
  const double loss = (1 - epsilon) * softplus(-u) + (epsilon == 0 ? 0 : epsilon * softplus(u));
  const double slope = epsilon == 0 ? -sigmoid(-u) : epsilon * sigmoid(u) - (1 - epsilon) * sigmoid(-u);
  return pairwise(loss, du_dscore * slope);
}

/// sp(-u), with label smoothing e: (1 - e) sp(-u) + e sp(u) (conservative DPO).
struct PairwiseLogistic : OfMargin {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    return smoothed_logistic(o.beta * (p.chosen - p.rejected), o.label_smoothing, o.beta);
  }
};

/// The logistic loss of u - gamma.
struct PairwiseLogisticWithMargin : OfMargin {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    return smoothed_logistic(o.beta * (p.chosen - p.rejected) - o.gamma, o.label_smoothing, o.beta);
  }
};

/// The logistic loss of u + alpha (L_w - L_l): the reward pays alpha for every token.
struct PairwiseLogisticWithLength : OfMargin {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    return smoothed_logistic(o.beta * (p.chosen - p.rejected) + o.alpha * (p.chosen_count - p.rejected_count), 0, o.beta);
  }
};

/// (h - 1 / (2 beta))^2.
struct PairwiseSquared : OfMargin {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const double d = p.chosen - p.rejected - 1 / (2 * o.beta);
    return pairwise(d * d, 2 * d);
  }
};

/// max(0, 1 - u); the derivative at the kink is 0.
struct PairwiseHinge : OfMargin {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const double slack = 1 - o.beta * (p.chosen - p.rejected);
    if (slack <= 0) return pairwise(0, 0);
    return pairwise(slack, slack > 0 ? -o.beta : slack);  // a NaN stays one
  }
};

/// [(1 - e) sp(-u) - e sp(u)] / (1 - 2 e): unbiased under label flips of probability e, and may be negative.
struct PairwiseRobust : OfMargin {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const double u = o.beta * (p.chosen - p.rejected), e = o.label_smoothing, scale = 1 / (1 - 2 * e);
    return pairwise(((1 - e) * softplus(-u) - (e == 0 ? 0 : e * softplus(u))) * scale, -o.beta * ((1 - e) * sigmoid(-u) + e * sigmoid(u)) * scale);
  }
};

/// KL from (1 - e, e) to (sg(u), sg(-u)): q (log q - log(1 - e)) + (1 - q)(log(1 - q) - log e), q = sg(u);
/// dL/du = sg'(u) (u - log((1 - e) / e)).
struct PairwiseExo : OfMargin {
  /// sg(u) (log sg(u) - log_target), 0 where sg(u) is.
  DIRALIGN_HD static double relative_entropy(double u, double log_target) {
    const double q = sigmoid(u);
    return q == 0 ? 0 : q * (log_sigmoid(u) - log_target);
  }
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const double u = o.beta * (p.chosen - p.rejected), e = o.label_smoothing;
    const double log_keep = ::log1p(-e), log_flip = ::log(e);
    const double loss = relative_entropy(u, log_keep) + relative_entropy(-u, log_flip);
    const double slope = sigmoid_slope(u);
    return pairwise(loss, slope == 0 ? 0 : o.beta * slope * (u - (log_keep - log_flip)));
  }
};

/// (1 - m) sp(-u) + m e^-u, m = sg(u / tau): the log-ratio modulated loss. m e^-u = exp(-u - sp(-u / tau)) cannot overflow in between.
struct PairwiseDiscovered : OfMargin {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const double u = o.beta * (p.chosen - p.rejected);
    const double m = sigmoid(u / o.tau), rest = sigmoid(-u / o.tau);
    const double modulated = ::exp(-u - softplus(-u / o.tau));  // m e^-u
    const double loss = rest * softplus(-u) + modulated;
    const double slope = -rest * sigmoid(-u) - modulated + rest / o.tau * (modulated - m * softplus(-u));
    return pairwise(loss, o.beta * slope);
  }
};

/// sp(-beta (h - penalty max(0, -w))): the margin pays where the chosen falls below the reference; the derivative at the kink is 0.
struct PairwiseWithFloor {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const bool below = p.chosen < 0;
    const double u = o.beta * (p.chosen - p.rejected + (below ? o.penalty * p.chosen : 0));
    const double slope = -o.beta * sigmoid(-u);
    return {softplus(-u), slope * (below ? 1 + o.penalty : 1), -slope};
  }
};

/// sp(-beta w) + sp(beta l): two binary cross-entropies.
struct PointwiseLogistic {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const double w = o.beta * p.chosen, l = o.beta * p.rejected;
    return {softplus(-w) + softplus(l), -o.beta * sigmoid(-w), o.beta * sigmoid(l)};
  }
};

/// 1 - sg(beta w) + sg(beta l), in (0, 2).
struct PointwiseSigmoid {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const double w = o.beta * p.chosen, l = o.beta * p.rejected;
    return {sigmoid(-w) + sigmoid(l), -o.beta * sigmoid_slope(w), o.beta * sigmoid_slope(l)};
  }
};

/// sg(beta w) + 1 - sg(u), in (0, 2): both are pushed down, the rejected faster.
struct PointwiseSigmoidDown {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const double w = o.beta * p.chosen, u = o.beta * (p.chosen - p.rejected);
    return {sigmoid(w) + sigmoid(-u), o.beta * sigmoid_slope_difference(w, u), o.beta * sigmoid_slope(u)};
  }
};

/// sp(-beta w) + sp(beta w) / 2 + sp(beta l) / 2; in w its minimum is at sg(beta w) = 2/3.
struct PointwiseContrastive {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const double w = o.beta * p.chosen, l = o.beta * p.rejected;
    return {softplus(-w) + 0.5 * softplus(w) + 0.5 * softplus(l), o.beta * (0.5 * sigmoid(w) - sigmoid(-w)), 0.5 * o.beta * sigmoid(l)};
  }
};

/// (w - 1 / (2 beta))^2 + (l + 1 / (2 beta))^2.
struct PointwiseSquared {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const double target = 1 / (2 * o.beta), w = p.chosen - target, l = p.rejected + target;
    return {w * w + l * l, 2 * w, 2 * l};
  }
};

/// sp(-h) + calibrationWeight [(w - 1 / (2 beta))^2 + (l + 1 / (2 beta))^2]: beta sets the target only.
struct CalibratedLogistic {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings& o) {
    const double h = p.chosen - p.rejected;
    const Ranked calibration = PointwiseSquared::rank(p, o);
    const double c = o.calibration_weight;
    return {softplus(-h) + c * calibration.loss, -sigmoid(-h) + c * calibration.slope_chosen, sigmoid(-h) + c * calibration.slope_rejected};
  }
};

/// -w: the likelihood alone.
struct ChosenOnly {
  DIRALIGN_HD static Ranked rank(const ScoredPair& p, const Settings&) { return {-p.chosen, -1, 0}; }
};

}  // namespace diralign
