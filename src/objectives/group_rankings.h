// Losses of a group of K candidates, whose scores are s and u = beta s. `Candidates` has what they
// may look at: see batch_terms.h. Differences of scores are formed before beta multiplies them: two
// of them that overflow have one.
#pragma once
#include "objective.h"

namespace diralign {

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
