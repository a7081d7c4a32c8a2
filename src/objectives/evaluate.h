// The pair stage: score and ranking loss composed, for one pair, host and device.
#pragma once
#include <type_traits>
#include "methods.h"

namespace diralign {

/// The alignment term of one pair, `lambda` included.
struct PairTerms {
  double loss;
  double coefficient_chosen;    ///< dloss / dlogp of the chosen sequence, over the number of pairs
  double coefficient_rejected;  ///< the same of the rejected one
};

struct PairVisitor {
  const Settings& settings;
  const Sequence& chosen;
  const Sequence& rejected;
  double pairs;
  PairTerms result;

  template <class Method>
  DIRALIGN_HD void operator()() {
    using Score = typename Method::Score;
    if (Score::is_log_ratio(settings)) evaluate<LogRatio, typename Method::Ranking>();
    else evaluate<Score, typename Method::Ranking>();
  }
  template <class Score, class Ranking>
  DIRALIGN_HD void evaluate() {
    const Scored w = Score::score(chosen, settings), l = Score::score(rejected, settings);
    const Scaled margin = Score::margin(w, l, chosen, rejected, settings);
    const Ranked r =
        Ranking::rank({w.value, l.value, margin, chosen.count, rejected.count}, settings);
    result = {weighted(settings.lambda, r.loss), coefficient(r.slope_chosen, w.slope),
              coefficient(r.slope_rejected, l.slope)};
  }
  /// A slope of 0 (an empty sequence) means "no gradient" even where the ranking's derivative is
  /// infinite.
  DIRALIGN_HD double coefficient(Scaled ranking, Scaled score) const {
    if (score.factor == 0) return 0;
    // Most pairs. What leaves float64 in the second product does so in the quotient, too.
    const double first = settings.lambda * ranking.factor, plain = first * score.factor / pairs;
    const bool in_range = is_normal(first) & is_normal(plain);
    if ((is_plain(ranking) & is_plain(score) & in_range) | (ranking.factor == 0)) return plain;
    return value(settings.lambda * ranking * score / pairs);
  }
};

/// Pairs of an objective that does not couple the batch.
DIRALIGN_HD PairTerms evaluate_pair(int method, const Settings& settings, const Sequence& chosen,
                                    const Sequence& rejected, double pairs = 1) {
  PairVisitor visitor{settings, chosen, rejected, pairs, {0, 0, 0}};
  visit_method(method, visitor);
  return visitor.result;
}

struct OppositeVisitor {
  const Settings& settings;
  bool result = false;

  template <class Method>
  DIRALIGN_HD void operator()() {
    result = Method::Score::is_log_ratio(settings) &&
             std::is_base_of_v<OfMargin, typename Method::Ranking>;
  }
};

/// Whether the two coefficients of a pair are x / normalizer and -x / normalizer for some x,
/// whatever the log-probabilities.
inline bool opposite_coefficients(int method, const Settings& settings) {
  OppositeVisitor visitor{settings};
  visit_method(method, visitor);
  return visitor.result;
}

struct RankVisitor {
  const Settings& settings;
  double difference;
  Ranked result;

  template <class Method>
  DIRALIGN_HD void operator()() {
    result = Method::Ranking::rank({difference, 0, difference, 0, 0}, settings);
  }
};

/// The ranking loss of a difference of two scores, for the objectives that sort the batch first.
DIRALIGN_HD Ranked rank_difference(int method, const Settings& settings, double difference) {
  RankVisitor visitor{settings, difference, {0, 0, 0}};
  visit_method(method, visitor);
  return visitor.result;
}

/// beta times the log-ratio (log-probability without a reference), per token where `normalize` is
/// set.
DIRALIGN_HD double reward(const Settings& settings, const Sequence& s) {
  return settings.beta * LogRatio::score(s, settings).value;
}

}  // namespace diralign
