// From the log-probabilities of a batch's sequences to the loss terms and coefficients of its
// pairs, host and device. The loops over pairs, and where the arrays live, are the backends'.
#pragma once
#include <cstdint>
#include "evaluate.h"

namespace diralign {

/// What the pair stage looks at, besides the log-probabilities. Plain data with pointers to host or
/// device memory.
struct BatchTerms {
  int method;
  Settings settings;
  bool likelihood_only;  ///< `sft`: every sequence is chosen, pairs == sequences
  Coupling coupling;
  int64_t sequences, pairs;
  const int32_t* counts;      ///< per sequence: rows scored by the alignment term
  const int32_t* sft_counts;  ///< per sequence: rows scored by the likelihood term
  const double* reference;    ///< per sequence, or null
  double chosen_tokens;       ///< sum of sft_counts over the chosen

  DIRALIGN_HD Sequence sequence(const double* logps, int64_t s) const {
    return {logps[s], double(counts[s]), reference ? reference[s] : 0};
  }

  /// The divisor of a chosen sequence's likelihood term.
  DIRALIGN_HD double likelihood_divisor(int64_t s) const {
    return settings.normalize != 0 && sft_counts[s] > 1 ? sft_counts[s] : 1;
  }

  /// dLoss/dlogp of the likelihood term that is added to an alignment loss, for every scored row of
  /// sequence `s`; 0 on rejected ones.
  DIRALIGN_HD double likelihood_coefficient(int64_t s) const {
    if (s >= pairs || settings.sft_weight == 0 || likelihood_only) return 0;
    if (settings.sft_reduction != 0)
      return chosen_tokens > 0 ? -settings.sft_weight / chosen_tokens : 0;
    return -settings.sft_weight / (double(pairs) * likelihood_divisor(s));
  }

  /// Pair i of an objective that does not couple the batch, or sequence i of `sft`: its loss, the
  /// likelihood term left out, and its dLoss/dlogps, the mean over pairs included.
  DIRALIGN_HD PairTerms evaluate(const double* logps, int64_t i) const {
    if (likelihood_only && settings.sft_reduction != 0) {
      // The token mean, written as a mean over sequences, so that the losses average to the loss.
      const double weight = chosen_tokens > 0 ? 1 / chosen_tokens : 0;
      return {-logps[i] * weight * double(sequences), counts[i] > 0 ? -weight : 0, 0};
    }
    return evaluate_pair(method, settings, sequence(logps, i),
                         likelihood_only ? Sequence{0, 0, 0} : sequence(logps, i + pairs),
                         double(pairs));
  }

  // An objective that couples the batch sets the i-th smallest of one list of scores against the
  // i-th smallest of another: the policy's margins against the reference's, or the scores of the
  // chosen against those of the rejected.

  DIRALIGN_HD double upper_score(const double* logps, int64_t i) const {
    const Sequence w = sequence(logps, i);
    if (coupling == Coupling::scores) return LogRatio::score(w, settings).value;
    const Sequence l = sequence(logps, i + pairs);
    return LogRatio::score({w.logp, w.count, 0}, settings).value -
           LogRatio::score({l.logp, l.count, 0}, settings).value;
  }
  DIRALIGN_HD double lower_score(const double* logps, int64_t i) const {
    const Sequence l = sequence(logps, i + pairs);
    if (coupling == Coupling::scores) return LogRatio::score(l, settings).value;
    const Sequence w = sequence(logps, i);
    return LogRatio::score({w.reference, w.count, 0}, settings).value -
           LogRatio::score({l.reference, l.count, 0}, settings).value;
  }
  /// The order of both lists: ascending, ties by index, NaNs last, so that it is the same
  /// everywhere.
  DIRALIGN_HD static bool before(double x, int64_t i, double y, int64_t j) {
    const bool x_nan = x != x, y_nan = y != y;
    if (x_nan || y_nan) return x_nan == y_nan ? i < j : y_nan;
    return x == y ? i < j : x < y;
  }
  /// The terms of one rank: pair `upper` has the rank in the one list, pair `lower` in the other.
  /// The coefficients are those of the chosen sequence of `upper` and of the rejected sequence of
  /// `coupled_rejected(upper, lower)`; each pair gets each exactly once.
  DIRALIGN_HD PairTerms evaluate_rank(const double* logps, double upper_value, double lower_value,
                                      int64_t upper, int64_t lower) const {
    const Ranked r = rank_difference(method, settings, upper_value - lower_value);
    const Scaled slope = settings.lambda * r.slope_chosen / double(pairs);
    const int64_t j = coupled_rejected(upper, lower);
    return {weighted(settings.lambda, r.loss),
            counts[upper] > 0
                ? value(slope * LogRatio::score(sequence(logps, upper), settings).slope)
                : 0,
            counts[j + pairs] > 0
                ? value(-slope * LogRatio::score(sequence(logps, j + pairs), settings).slope)
                : 0};
  }
  DIRALIGN_HD int64_t coupled_rejected(int64_t upper, int64_t lower) const {
    return coupling == Coupling::margins ? upper : lower;
  }
};

}  // namespace diralign
