// Score and ranking loss composed, for one unit, host and device.
#pragma once
#include <type_traits>
#include "methods.h"

namespace diralign {

/// The alignment term of one pair, `lambda` included.
struct PairTerms {
  double loss;
  double coefficient_chosen;    ///< dloss / dlogp of the chosen sequence, over the number of units
  double coefficient_rejected;  ///< the same of the rejected one
};

/// The same of one sequence.
struct SingleTerms {
  double loss;
  double coefficient;
};

/// dloss / dlogp: the slope of the ranking loss by the score, times that of the score. A slope of 0
/// (an empty sequence) means "no gradient" even where the ranking's derivative is infinite.
DIRALIGN_HD double coefficient(const Settings& settings, Scaled ranking, Scaled score,
                               double units) {
  if (score.factor == 0) return 0;
  // Most units. What leaves float64 in the second product does so in the quotient, too.
  const double first = settings.lambda * ranking.factor, plain = first * score.factor / units;
  const bool in_range = is_normal(first) & is_normal(plain);
  if ((is_plain(ranking) & is_plain(score) & in_range) | (ranking.factor == 0)) return plain;
  return value(settings.lambda * ranking * score / units);
}

template <class Score, class Ranking>
DIRALIGN_HD PairTerms evaluate_pair_of(const Settings& settings, const Sequence& chosen,
                                       const Sequence& rejected, double units) {
  const Scored w = Score::score(chosen, settings), l = Score::score(rejected, settings);
  const Scaled margin = Score::margin(w, l, chosen, rejected, settings);
  const Ranked r =
      Ranking::rank({w.value, l.value, margin, chosen.count, rejected.count}, settings);
  return {weighted(settings.lambda, r.loss), coefficient(settings, r.slope_chosen, w.slope, units),
          coefficient(settings, r.slope_rejected, l.slope, units)};
}

/// A pair of a method whose units are pairs, each for itself.
template <class Method>
DIRALIGN_HD PairTerms evaluate_pair(const Settings& settings, const Sequence& chosen,
                                    const Sequence& rejected, double units) {
  using Score = typename Method::Score;
  using Ranking = typename Method::Ranking;
  return Score::is_log_ratio(settings)
             ? evaluate_pair_of<LogRatio, Ranking>(settings, chosen, rejected, units)
             : evaluate_pair_of<Score, Ranking>(settings, chosen, rejected, units);
}

/// A sequence of a method whose units are sequences.
template <class Method>
DIRALIGN_HD SingleTerms evaluate_single(const Settings& settings, const Sequence& sequence,
                                        double units) {
  const Scored s = Method::Score::score(sequence, settings);
  const RankedSingle r = Method::Ranking::rank(s.value, settings);
  return {weighted(settings.lambda, r.loss), coefficient(settings, r.slope, s.slope, units)};
}

/// What the stages of a call ask of a method.
struct MethodFacts {
  Arity arity;
  Scope scope;
  bool is_odds;    ///< it ranks log-odds
  bool is_linear;  ///< in the log-probabilities: the counts alone give the coefficients
};
struct FactsVisitor {
  MethodFacts facts{};
  template <class Method>
  DIRALIGN_HD void operator()() {
    facts = {Method::arity, Method::scope, Method::Score::is_odds, false};
    if constexpr (Method::arity == Arity::single) facts.is_linear = Method::Ranking::is_likelihood;
  }
};
inline MethodFacts facts_of(int method) {
  FactsVisitor visitor;
  visit_method(method, visitor);
  return visitor.facts;
}

struct OppositeVisitor {
  const Settings& settings;
  bool result = false;

  template <class Method>
  DIRALIGN_HD void operator()() {
    if constexpr (Method::arity == Arity::pair)
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

/// beta times the log-ratio (log-probability without a reference), per token where `normalize` is
/// set.
DIRALIGN_HD double reward(const Settings& settings, const Sequence& s) {
  return settings.beta * LogRatio::score(s, settings).value;
}

}  // namespace diralign
