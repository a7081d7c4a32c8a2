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

/// e^l - e^w, of log-probabilities. Where they are near each other the digits are in the margin; that
/// of two infinite ones is NaN, and their probabilities are 0.
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

// Of one score. dW and uW are the weights of desirable and undesirable sequences.

/// -s: the negative log-likelihood.
struct Likelihood {
  static constexpr bool is_likelihood = true;
};

/// A loss of how good a sequence is said to be: x is `gain` where it is desirable, otherwise -gain.
struct OfFeedback {
  static constexpr bool is_likelihood = false;

  DIRALIGN_HD static bool desirable(const FieldsAt& at) {
    return at.fields.desirable[at.sequence] != 0;
  }
  /// From the loss and slope at x, weights left out.
  DIRALIGN_HD static RankedSingle of(const FieldsAt& at, const Settings& o, Scaled loss,
                                     Scaled slope) {
    const bool up = desirable(at);
    const double weight = up ? o.desirable_weight : o.undesirable_weight;
    slope = weight == 0 ? Scaled(0) : weight * o.beta * slope;
    return {weighted(weight, loss), up ? slope : -slope};
  }
};

/// dW (1 - sg(u - beta z)), uW (1 - sg(beta z - u)); u = beta s, z the batch's `kl`, of which no
/// derivative is taken. 1 - sg(x) = sg(-x), with digits.
struct BeyondBaseline : OfFeedback {
  DIRALIGN_HD static RankedSingle rank(double score, const Settings& o, const FieldsAt& at) {
    const double gain = o.beta * (score - *at.fields.kl), x = desirable(at) ? gain : -gain;
    return of(at, o, scaled_sigmoid(-x), -scaled_sigmoid_slope(x));
  }
};

/// dW (1 - sg(u)), uW sg(u).
struct BeyondZero : OfFeedback {
  DIRALIGN_HD static RankedSingle rank(double score, const Settings& o, const FieldsAt& at) {
    const double x = desirable(at) ? o.beta * score : -o.beta * score;
    return of(at, o, scaled_sigmoid(-x), -scaled_sigmoid_slope(x));
  }
};

/// dW sp(-(u - shift)), uW sp(u - shift).
struct BeyondShift : OfFeedback {
  DIRALIGN_HD static RankedSingle rank(double score, const Settings& o, const FieldsAt& at) {
    const double gain = o.beta * score - field(at.fields.shift, 0, 0);
    const Logistic l = logistic(desirable(at) ? -gain : gain);
    return of(at, o, scaled_loss(l), -l.slope);
  }
};

// Of a group of K candidates, whose scores are s and u = beta s. `Candidates` has what they may
// look at: see batch_terms.h. Differences of scores are formed before beta multiplies them: two of
// them that overflow have one.

/// -sum over k < K of (u_k - logsumexp over j >= k of u_j), candidates best first (Plackett 1975,
/// Luce 1959): a sum of softplus(-d_k), d_k = u_k less the logsumexp of those after it.
struct PlackettLuce {
  template <class Candidates>
  DIRALIGN_HD static double rank(const Candidates& c, const Settings& o) {
    const int64_t last = c.size() - 1;
    // logsumexp over those after the k-th: beta times the score of `anchor`, plus `rest`.
    double anchor = c.score(c.best(last)), rest = 0, loss = 0;
    for (int64_t k = last - 1; k >= 0; k--) {
      const double score = c.score(c.best(k)), d = o.beta * (score - anchor) - rest;
      const double fall = logistic(-d).loss;
      loss += fall;
      c.scratch(k) = d;
      if (d > 0) anchor = score, rest = fall;
      else rest += logistic(d).loss;
    }
    // What the terms so far share out among the candidates from the k-th on.
    Scaled mass = 0;
    for (int64_t k = 0; k < last; k++) {
      const double d = c.scratch(k);
      const Scaled to_others = logistic(-d).slope;
      c.add(c.best(k), mass * logistic(d).slope - to_others);
      mass = (mass + 1) * to_others;
    }
    c.add(c.best(last), mass);
    return loss;
  }
};

/// A softmax over a group, relative to its largest entry: with 1 - p, which keeps its digits as p
/// tends to 1.
struct GroupSoftmax {
  int64_t largest = 0;
  Scaled rest = 0;  ///< of e^(x - largest), the largest entry's 1 left out

  /// `difference(k, from)`: entry k less another.
  template <class Difference>
  DIRALIGN_HD static GroupSoftmax over(int64_t size, const Difference& difference) {
    GroupSoftmax s;
    for (int64_t k = 1; k < size; k++)
      if (difference(k, s.largest) > 0) s.largest = k;
    for (int64_t k = 0; k < size; k++)
      if (k != s.largest) s.rest = s.rest + scaled_exp(difference(k, s.largest));
    return s;
  }
  DIRALIGN_HD Scaled p(int64_t k, double difference) const {
    return (k == largest ? Scaled(1) : scaled_exp(difference)) / (rest + 1);
  }
  DIRALIGN_HD Scaled p_less_1(int64_t k, double difference) const {
    return k == largest ? -rest / (rest + 1) : p(k, difference) - 1;
  }
};

/// The softmax of rewards / temperature over a group, whose halves have a difference where they do
/// not.
template <class Candidates>
struct RewardShares {
  const Candidates& candidates;
  double temperature;
  GroupSoftmax softmax;

  DIRALIGN_HD RewardShares(const Candidates& c, const Settings& o)
      : candidates(c), temperature(o.reward_temperature) {
    softmax = GroupSoftmax::over(c.size(),
                                 [this](int64_t k, int64_t from) { return difference(k, from); });
  }
  DIRALIGN_HD double difference(int64_t k, int64_t from) const {
    return (candidates.reward(k) / 2 - candidates.reward(from) / 2) / temperature * 2;
  }
  DIRALIGN_HD Scaled share(int64_t k) const { return softmax.p(k, difference(k, softmax.largest)); }
  DIRALIGN_HD Scaled share_less_1(int64_t k) const {
    return softmax.p_less_1(k, difference(k, softmax.largest));
  }
};

/// -sum of y_k log softmax(u)_k, y the softmax of rewards / temperature (InfoNCA).
struct SoftLabels {
  template <class Candidates>
  DIRALIGN_HD static double rank(const Candidates& c, const Settings& o) {
    auto u = [&](int64_t k, int64_t from) -> Scaled {
      return Scaled(o.beta) * (c.score(k) - c.score(from));
    };
    const GroupSoftmax p =
        GroupSoftmax::over(c.size(), [&](int64_t k, int64_t from) { return value(u(k, from)); });
    const RewardShares<Candidates> y(c, o);
    double loss = 0;
    for (int64_t k = 0; k < c.size(); k++) {
      const Scaled fall = u(k, p.largest), share = y.share(k);
      const double du = value(fall);
      loss += value(share * ::log1p(value(p.rest))) - value(share * fall);
      // The difference of two numbers near 1 is that of what they lack.
      c.add(k, k == p.largest ? p.p_less_1(k, du) - y.share_less_1(k) : p.p(k, du) - share);
    }
    return loss;
  }
};

/// sum of (y_k sp(-u_k) + sp(u_k) / K) (NCA).
struct SoftContrast {
  template <class Candidates>
  DIRALIGN_HD static double rank(const Candidates& c, const Settings& o) {
    const RewardShares<Candidates> y(c, o);
    const double each = 1 / double(c.size());
    double loss = 0;
    for (int64_t k = 0; k < c.size(); k++) {
      const double u = o.beta * c.score(k);
      const Scaled share = y.share(k);
      const Logistic up = logistic(-u), down = logistic(u);
      loss += value(share * up.loss) + each * down.loss;
      c.add(k, each * down.slope - share * up.slope);
    }
    return loss;
  }
};

}  // namespace diralign
