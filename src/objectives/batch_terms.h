// From the log-probabilities of a batch's sequences to the loss terms and coefficients of its
// units, host and device. The loops over units, and where the arrays live, are the backends'.
#pragma once
#include <cstdint>
#include "evaluate.h"

namespace diralign {

/// What the evaluation of units looks at, besides the log-probabilities. Plain data with pointers
/// to host or device memory.
struct BatchTerms {
  const Objective* objectives;  ///< whose weighted sum the loss is; none: the sequences alone
  int objective_count;
  Units units;
  const double* lengths;      ///< per sequence: rows scored by the alignment term, or their weights
  const double* sft_lengths;  ///< the same of the likelihood term
  const double* reference;    ///< per sequence, or null
  Fields fields;
  double denominator;      ///< of the sum over units
  double sft_denominator;  ///< of a likelihood term's sum over tokens; 0 where there are none

  DIRALIGN_HD Sequence sequence(const Objective& o, const double* logps, int64_t s) const {
    return {logps[s], lengths[s], o.uses_reference && reference ? reference[s] : 0};
  }
  /// Whether a unit's loss depends on the others: then they are evaluated together.
  DIRALIGN_HD bool is_sorted() const {
    for (int i = 0; i < objective_count; i++)
      if (objectives[i].scope != Scope::unit) return true;
    return false;
  }
  DIRALIGN_HD double weight(int64_t unit) const { return field(fields.weights, unit, 1); }
  /// x times the weight of the unit, which leaves nothing of it where it is 0.
  DIRALIGN_HD double share_of(int64_t unit, double x) const {
    return diralign::share_of(weight(unit), x);
  }

  /// The divisor of a sequence's log-probability in a likelihood term, unless that is over tokens.
  DIRALIGN_HD double likelihood_divisor(const Settings& o, int64_t s) const {
    const bool per_token = o.normalize != 0 || o.sft_reduction == double(Reduction::mean);
    return per_token && sft_lengths[s] > 0 ? sft_lengths[s] : 1;
  }

  /// dLoss/dlogp of the likelihood terms that are added to alignment losses, for every scored row
  /// of sequence `s`; 0 on those that they do not score.
  DIRALIGN_HD double likelihood_coefficient(int64_t s) const {
    double sum = 0;
    for (int i = 0; i < objective_count; i++) {
      const Settings& o = objectives[i].settings;
      if (o.sft_weight == 0 || !is_likely(units, fields, s)) continue;
      const double weight = objectives[i].weight * o.sft_weight * this->weight(units.unit_of(s));
      if (weight == 0) continue;
      if (o.sft_reduction != double(Reduction::token))
        sum -= weight / (denominator * likelihood_divisor(o, s));
      else if (sft_denominator > 0) sum -= weight / sft_denominator;
    }
    return sum;
  }

  /// Unit u by an objective whose units are evaluated each for itself. Returns its loss, the
  /// likelihood term and the weights left out, and writes the share of dLoss/dlogps of its
  /// sequences, where they are among `coefficients`: adds it, where `adds` is set. `scratch`: of
  /// groups, a number per sequence.
  DIRALIGN_HD double evaluate(const Objective& objective, const double* logps, int64_t u, bool adds,
                              double* coefficients, double* scratch) const {
    UnitVisitor visitor{*this, objective, logps, u, adds, coefficients, scratch, 0};
    visit_method(objective.method, visitor);
    return visitor.loss;
  }

  // An objective of a sorted scope sets the i-th smallest of one list of scores against the i-th
  // smallest of another: the policy's margins against the reference's, or the scores of the chosen
  // against those of the rejected.

  DIRALIGN_HD double upper_score(const Objective& o, const double* logps, int64_t u) const {
    return sorted_score(o, logps, u, true);
  }
  DIRALIGN_HD double lower_score(const Objective& o, const double* logps, int64_t u) const {
    return sorted_score(o, logps, u, false);
  }
  /// The order of both lists: ascending, ties by index, NaNs last, so that it is the same
  /// everywhere.
  DIRALIGN_HD static bool before(double x, int64_t i, double y, int64_t j) {
    const bool x_nan = x != x, y_nan = y != y;
    if (x_nan || y_nan) return x_nan == y_nan ? i < j : y_nan;
    return x == y ? i < j : x < y;
  }
  /// One rank: unit `upper` has it in the one list, unit `lower` in the other. Returns the loss of
  /// the rank, and writes, or adds to, the coefficients of two sequences; all ranks do to each
  /// once.
  DIRALIGN_HD double evaluate_rank(const Objective& objective, const double* logps,
                                   double upper_value, double lower_value, int64_t upper,
                                   int64_t lower, bool adds, double* coefficients) const {
    RankVisitor visitor{*this, objective,    logps, upper_value - lower_value, upper, lower,
                        adds,  coefficients, 0};
    visit_method(objective.method, visitor);
    return visitor.loss;
  }

 private:
  DIRALIGN_HD static void put(double* coefficients, int64_t s, bool adds, double x) {
    coefficients[s] = adds ? coefficients[s] + x : x;
  }

  /// The candidates of a group, as its ranking loss sees them.
  template <class Score>
  struct Candidates {
    const BatchTerms& terms;
    const Objective& objective;
    const double* logps;
    int64_t unit;
    bool adds;
    double *coefficients, *scratch_numbers;

    DIRALIGN_HD int64_t size() const { return terms.units.size(unit); }
    DIRALIGN_HD int64_t sequence(int64_t k) const { return terms.units.sequence(unit, k); }
    DIRALIGN_HD double score(int64_t k) const {
      return Score::score(terms.sequence(objective, logps, sequence(k)), objective.settings).value;
    }
    DIRALIGN_HD double reward(int64_t k) const { return terms.fields.rewards[sequence(k)]; }
    /// The place of the k-th best.
    DIRALIGN_HD int64_t best(int64_t k) const {
      return int64_t(terms.fields.best_first[sequence(k)]);
    }
    DIRALIGN_HD double& scratch(int64_t k) const { return scratch_numbers[sequence(k)]; }
    /// The derivative by u of candidate k, once for each.
    DIRALIGN_HD void add(int64_t k, Scaled slope) const {
      const int64_t s = sequence(k);
      const Settings& o = objective.settings;
      const Scaled by_logp = Score::score(terms.sequence(objective, logps, s), o).slope;
      put(coefficients, s, adds,
          coefficient(terms.share(objective, unit), o.beta * slope, by_logp));
    }
  };
  /// `lambda` left out.
  DIRALIGN_HD Share share(const Objective& o, int64_t unit) const {
    return {o.weight * weight(unit), denominator};
  }

  struct UnitVisitor {
    const BatchTerms& terms;
    const Objective& objective;
    const double* logps;
    int64_t unit;
    bool adds;
    double *coefficients, *scratch;
    double loss;

    template <class Method>
    DIRALIGN_HD void operator()() {
      const Settings& o = objective.settings;
      if constexpr (Method::arity == Arity::group) {
        using Score = typename Method::Score;
        loss = Method::Ranking::rank(
            Candidates<Score>{terms, objective, logps, unit, adds, coefficients, scratch}, o);
      } else if constexpr (Method::arity == Arity::single) {
        if constexpr (Method::Ranking::is_likelihood) {
          likelihood();
        } else {
          const Scored s = Method::Score::score(terms.sequence(objective, logps, unit), o);
          const RankedSingle r = Method::Ranking::rank(s.value, o, {terms.fields, unit});
          loss = r.loss;
          put(coefficients, unit, adds,
              coefficient(terms.share(objective, unit), r.slope, s.slope));
        }
      } else if constexpr (Method::scope == Scope::unit) {
        const int64_t chosen = terms.units.sequence(unit, 0),
                      rejected = terms.units.sequence(unit, 1);
        const PairTerms t = evaluate_pair<Method>(
            o, terms.sequence(objective, logps, chosen), terms.sequence(objective, logps, rejected),
            pair_fields<Method>(terms.fields, unit, o), terms.share(objective, unit));
        loss = t.loss;
        put(coefficients, chosen, adds, t.coefficient_chosen);
        put(coefficients, rejected, adds, t.coefficient_rejected);
      }
    }
    /// A likelihood alone; written as a mean over units, so that their losses average to the loss.
    /// With a weight of its own it is a mixture's likelihood term, and aligns nothing.
    DIRALIGN_HD void likelihood() {
      const Settings& o = objective.settings;
      const Share share = terms.share(objective, unit);
      if (o.sft_weight != 0) {
        for (int64_t place = 0; place < terms.units.size(unit); place++)
          put(coefficients, terms.units.sequence(unit, place), adds, 0);
        return;
      }
      double coefficient;
      if (o.sft_reduction == double(Reduction::token)) {
        const double part = terms.sft_denominator > 0 ? 1 / terms.sft_denominator : 0;
        loss = -logps[unit] * part * share.denominator;
        coefficient = -part * share.weight;
      } else {
        const double n = terms.likelihood_divisor(o, unit);
        loss = -(logps[unit] / n);
        coefficient = -share.weight * (1 / n) / share.denominator;
      }
      put(coefficients, unit, adds, terms.lengths[unit] > 0 ? coefficient : 0);
    }
  };

  struct SortedVisitor {
    const Settings& settings;
    Sequence chosen, rejected;
    bool upper;
    double score;

    template <class Method>
    DIRALIGN_HD void operator()() {
      auto value = [&](const Sequence& s) { return Method::Score::score(s, settings).value; };
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
  DIRALIGN_HD double sorted_score(const Objective& o, const double* logps, int64_t u,
                                  bool upper) const {
    SortedVisitor visitor{o.settings, sequence(o, logps, units.sequence(u, 0)),
                          sequence(o, logps, units.sequence(u, 1)), upper, 0};
    visit_method(o.method, visitor);
    return visitor.score;
  }

  struct RankVisitor {
    const BatchTerms& terms;
    const Objective& objective;
    const double* logps;
    double difference;
    int64_t upper, lower;
    bool adds;
    double* coefficients;
    double loss;

    template <class Method>
    DIRALIGN_HD void operator()() {
      if constexpr (Method::scope != Scope::unit) {
        const Settings& o = objective.settings;
        const Ranked r = Method::Ranking::rank(
            {difference, 0, difference, 0, 0, 0, o.label_smoothing, margin_target(o)}, o);
        const Scaled slope = o.lambda * objective.weight * r.slope_chosen / terms.denominator;
        const int64_t chosen = terms.units.sequence(upper, 0),
                      rejected = terms.units.sequence(
                          Method::scope == Scope::sorted_margins ? upper : lower, 1);
        loss = weighted(o.lambda, r.loss);
        put(coefficients, chosen, adds, coefficient<Method>(slope, chosen));
        put(coefficients, rejected, adds, coefficient<Method>(-slope, rejected));
      }
    }
    template <class Method>
    DIRALIGN_HD double coefficient(Scaled slope, int64_t s) const {
      if (terms.lengths[s] == 0) return 0;
      return value(
          slope *
          Method::Score::score(terms.sequence(objective, logps, s), objective.settings).slope);
    }
  };
};

}  // namespace diralign
