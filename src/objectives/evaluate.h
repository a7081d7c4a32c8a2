// Score and ranking loss composed, for one unit, host and device.
#pragma once
#include <type_traits>
#include "methods.h"

namespace diralign {

/// What the loss of a unit counts for: its weight, over what divides the sum of all.
struct Share {
  double weight, denominator;
};

/// dloss / dlogp: the slope of the ranking loss by the score, times that of the score and the
/// unit's share. A slope of 0 (an empty sequence) means "no gradient" even where the ranking's
/// derivative is infinite, and so does a weight of 0.
DIRALIGN_HD double coefficient(const Share& share, Scaled ranking, Scaled score) {
  if ((score.factor == 0) | (share.weight == 0)) return 0;
  // Most units. What leaves float64 in the second product does so in the quotient, too.
  const double first = share.weight * ranking.factor,
               plain = first * score.factor / share.denominator;
  const bool in_range = is_normal(first) & is_normal(plain);
  if ((is_plain(ranking) & is_plain(score) & in_range) | (ranking.factor == 0)) return plain;
  return value(share.weight * ranking * score / share.denominator);
}

/// What a pair has of its own in place of the settings.
struct PairFields {
  double offset, flip, target;
};
/// A variable, because device code calls no function of the host, evaluated before or not.
template <class Method>
inline constexpr bool smooths = smooths_labels(Method::info);

/// Those that the method takes: another of a mixture may have asked for the rest.
template <class Method>
DIRALIGN_HD PairFields pair_fields(const Fields& fields, int64_t unit, const Settings& o) {
  constexpr bool sets_margin = std::is_base_of_v<WithPairMargin, typename Method::Ranking>;
  return {sets_margin ? field(fields.margins, unit, 0) : 0,
          smooths<Method> && fields.preferences ? 1 - fields.preferences[unit] : o.label_smoothing,
          field(fields.targets, unit, margin_target(o))};
}

/// The alignment term of one pair, `lambda` included, and its derivatives times the pair's share.
struct PairTerms {
  double loss;
  double coefficient_chosen, coefficient_rejected;
};

template <class Score, class Ranking>
DIRALIGN_HD PairTerms evaluate_pair_of(const Settings& settings, const Sequence& chosen,
                                       const Sequence& rejected, const PairFields& own,
                                       const Share& share) {
  const Scored w = Score::score(chosen, settings), l = Score::score(rejected, settings);
  const Scaled margin = Score::margin(w, l, chosen, rejected, settings);
  const Ranked r = Ranking::rank(
      {w.value, l.value, margin, chosen.count, rejected.count, own.offset, own.flip, own.target},
      settings);
  const Share all{settings.lambda * share.weight, share.denominator};
  return {weighted(settings.lambda, r.loss), coefficient(all, r.slope_chosen, w.slope),
          coefficient(all, r.slope_rejected, l.slope)};
}

/// A pair of a method whose units are pairs, each for itself.
template <class Method>
DIRALIGN_HD PairTerms evaluate_pair(const Settings& settings, const Sequence& chosen,
                                    const Sequence& rejected, const PairFields& own,
                                    const Share& share) {
  using Score = typename Method::Score;
  using Ranking = typename Method::Ranking;
  return Score::is_log_ratio(settings)
             ? evaluate_pair_of<LogRatio, Ranking>(settings, chosen, rejected, own, share)
             : evaluate_pair_of<Score, Ranking>(settings, chosen, rejected, own, share);
}

/// What the stages of a call ask of a method.
struct MethodFacts {
  Arity arity;
  Scope scope;
  bool is_odds;       ///< it ranks log-odds
  bool is_linear;     ///< in the log-probabilities: the counts alone give the coefficients
  bool takes_margin;  ///< a pair may set a margin of its own
};
struct FactsVisitor {
  MethodFacts facts{};
  template <class Method>
  DIRALIGN_HD void operator()() {
    facts = {Method::arity, Method::scope, Method::Score::is_odds, false, false};
    if constexpr (Method::arity == Arity::single) facts.is_linear = Method::Ranking::is_likelihood;
    if constexpr (Method::arity == Arity::pair && Method::scope == Scope::unit)
      facts.takes_margin = std::is_base_of_v<WithPairMargin, typename Method::Ranking>;
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
