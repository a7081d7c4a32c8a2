// From the log-probabilities of a batch's sequences to the loss terms and coefficients of its
// units, host and device. The loops over units, and where the arrays live, are the backends'.
#pragma once
#include <cstdint>
#include "evaluate.h"

namespace diralign {

/// What the evaluation of units looks at, besides the log-probabilities. Plain data with pointers
/// to host or device memory.
struct BatchTerms {
  int method;
  Settings settings;
  Scope scope;
  Units units;
  const int32_t* counts;      ///< per sequence: rows scored by the alignment term
  const int32_t* sft_counts;  ///< per sequence: rows scored by the likelihood term
  const double* reference;    ///< per sequence, or null
  double likely_tokens;       ///< sum of sft_counts

  DIRALIGN_HD Sequence sequence(const double* logps, int64_t s) const {
    return {logps[s], double(counts[s]), reference ? reference[s] : 0};
  }
  /// Whether a unit's loss depends on the others: then they are evaluated together.
  DIRALIGN_HD bool is_sorted() const { return scope != Scope::unit; }

  /// The divisor of a sequence's likelihood term.
  DIRALIGN_HD double likelihood_divisor(int64_t s) const {
    return settings.normalize != 0 && sft_counts[s] > 1 ? sft_counts[s] : 1;
  }

  /// dLoss/dlogp of the likelihood term that is added to an alignment loss, for every scored row of
  /// sequence `s`; 0 on those that it does not score.
  DIRALIGN_HD double likelihood_coefficient(int64_t s) const {
    if (settings.sft_weight == 0 || !units.is_likely(s)) return 0;
    if (settings.sft_reduction != 0)
      return likely_tokens > 0 ? -settings.sft_weight / likely_tokens : 0;
    return -settings.sft_weight / (double(units.count) * likelihood_divisor(s));
  }

  /// Unit u of an objective whose units are evaluated each for itself. Returns its loss, the
  /// likelihood term left out, and writes dLoss/dlogps of its sequences, the mean over units
  /// included, where they are among `coefficients`.
  DIRALIGN_HD double evaluate(const double* logps, int64_t u, double* coefficients) const {
    UnitVisitor visitor{*this, logps, u, coefficients, 0};
    visit_method(method, visitor);
    return visitor.loss;
  }

  // An objective of a sorted scope sets the i-th smallest of one list of scores against the i-th
  // smallest of another: the policy's margins against the reference's, or the scores of the chosen
  // against those of the rejected.

  DIRALIGN_HD double upper_score(const double* logps, int64_t u) const {
    return sorted_score(logps, u, true);
  }
  DIRALIGN_HD double lower_score(const double* logps, int64_t u) const {
    return sorted_score(logps, u, false);
  }
  /// The order of both lists: ascending, ties by index, NaNs last, so that it is the same
  /// everywhere.
  DIRALIGN_HD static bool before(double x, int64_t i, double y, int64_t j) {
    const bool x_nan = x != x, y_nan = y != y;
    if (x_nan || y_nan) return x_nan == y_nan ? i < j : y_nan;
    return x == y ? i < j : x < y;
  }
  /// One rank: unit `upper` has it in the one list, unit `lower` in the other. Returns the loss of
  /// the rank, and writes the coefficients of two sequences; all ranks write each once.
  DIRALIGN_HD double evaluate_rank(const double* logps, double upper_value, double lower_value,
                                   int64_t upper, int64_t lower, double* coefficients) const {
    RankVisitor visitor{*this, logps, upper_value - lower_value, upper, lower, coefficients, 0};
    visit_method(method, visitor);
    return visitor.loss;
  }

 private:
  struct UnitVisitor {
    const BatchTerms& terms;
    const double* logps;
    int64_t unit;
    double* coefficients;
    double loss;

    template <class Method>
    DIRALIGN_HD void operator()() {
      if constexpr (Method::arity == Arity::single) {
        if (Method::Ranking::is_likelihood && terms.settings.sft_reduction != 0)
          return token_mean();
        const SingleTerms t = evaluate_single<Method>(terms.settings, terms.sequence(logps, unit),
                                                      double(terms.units.count));
        loss = t.loss;
        coefficients[unit] = t.coefficient;
      } else if constexpr (Method::scope == Scope::unit) {
        const int64_t chosen = terms.units.sequence(unit, 0),
                      rejected = terms.units.sequence(unit, 1);
        const PairTerms t =
            evaluate_pair<Method>(terms.settings, terms.sequence(logps, chosen),
                                  terms.sequence(logps, rejected), double(terms.units.count));
        loss = t.loss;
        coefficients[chosen] = t.coefficient_chosen;
        coefficients[rejected] = t.coefficient_rejected;
      }
    }
    /// Written as a mean over sequences, so that the losses average to the loss.
    DIRALIGN_HD void token_mean() {
      const double weight = terms.likely_tokens > 0 ? 1 / terms.likely_tokens : 0;
      loss = -logps[unit] * weight * double(terms.units.count);
      coefficients[unit] = terms.counts[unit] > 0 ? -weight : 0;
    }
  };

  struct SortedVisitor {
    const BatchTerms& terms;
    Sequence chosen, rejected;
    bool upper;
    double score;

    template <class Method>
    DIRALIGN_HD void operator()() {
      const Settings& o = terms.settings;
      auto value = [&](const Sequence& s) { return Method::Score::score(s, o).value; };
      if constexpr (Method::scope == Scope::sorted_scores) {
        score = value(upper ? chosen : rejected);
      } else if constexpr (Method::scope == Scope::sorted_margins) {
        score = upper ? value({chosen.logp, chosen.count, 0}) -
                            value({rejected.logp, rejected.count, 0})
                      : value({chosen.reference, chosen.count, 0}) -
                            value({rejected.reference, rejected.count, 0});
      }
    }
  };
  DIRALIGN_HD double sorted_score(const double* logps, int64_t u, bool upper) const {
    SortedVisitor visitor{*this, sequence(logps, units.sequence(u, 0)),
                          sequence(logps, units.sequence(u, 1)), upper, 0};
    visit_method(method, visitor);
    return visitor.score;
  }

  struct RankVisitor {
    const BatchTerms& terms;
    const double* logps;
    double difference;
    int64_t upper, lower;
    double* coefficients;
    double loss;

    template <class Method>
    DIRALIGN_HD void operator()() {
      if constexpr (Method::scope != Scope::unit) {
        const Settings& o = terms.settings;
        const Ranked r = Method::Ranking::rank({difference, 0, difference, 0, 0}, o);
        const Scaled slope = o.lambda * r.slope_chosen / double(terms.units.count);
        const int64_t chosen = terms.units.sequence(upper, 0),
                      rejected = terms.units.sequence(
                          Method::scope == Scope::sorted_margins ? upper : lower, 1);
        loss = weighted(o.lambda, r.loss);
        coefficients[chosen] = coefficient<Method>(slope, chosen);
        coefficients[rejected] = coefficient<Method>(-slope, rejected);
      }
    }
    template <class Method>
    DIRALIGN_HD double coefficient(Scaled slope, int64_t s) const {
      if (terms.counts[s] == 0) return 0;
      return value(slope * Method::Score::score(terms.sequence(logps, s), terms.settings).slope);
    }
  };
};

}  // namespace diralign
