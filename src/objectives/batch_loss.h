// From sequence log-probabilities to losses, rewards, coefficients and metrics of a batch, on the
// host.
#pragma once
#include <vector>
#include "batch_terms.h"

namespace diralign {

/// Order of LossOutputs::metrics; names are in catalogue.cc.
enum Metric {
  rewards_chosen,
  rewards_rejected,
  rewards_accuracies,
  rewards_margins,
  logps_chosen,
  logps_rejected,
  nll_loss,
  log_odds_chosen,
  log_odds_ratio,
  nonfinite,
  empty_sequences,
  underflow,  ///< rows of a dense gradient of logits: the backends count them
  ranking_accuracy,
  num_tokens,
  // Means over rows, where they are asked for: write_measures() fills them.
  mean_entropy,
  token_accuracy,
  logits_chosen,
  logits_rejected,
  metric_count
};

struct Objective {
  int method;
  Settings settings;

  const MethodInfo& info() const;
  bool likelihood_only() const;
  bool coupled() const { return info().coupling != Coupling::none; }
  /// Whether a reference's log-probabilities enter the scores.
  bool uses_reference() const { return info().reference && settings.reference_free == 0; }
};

/// `counts` and `sft_counts` (scored rows of the likelihood term; the same array unless sftLabels
/// differ) hold one per sequence, `reference` may be null.
BatchTerms batch_terms(const Objective& objective, int64_t sequences, const int32_t* counts,
                       const int32_t* sft_counts, const double* reference);

/// Where a batch's numbers go. Lengths: pairs, sequences or metric_count.
struct LossOutputs {
  double* losses;
  double* rewards;
  double* coefficients;
  double* metrics;
};

/// The loss of a batch, in stages: pairs can be evaluated as soon as their sequences are known.
class BatchLoss {
 public:
  BatchLoss(const BatchTerms& terms, const LossOutputs& outputs) : terms_(terms), out_(outputs) {}

  /// Evaluates pairs [first, last); needs logps and sft_logps of their sequences. A coupled
  /// objective takes all pairs at once.
  void evaluate(const double* logps, const double* sft_logps, int64_t first, int64_t last);

  /// Fills the metrics and returns the loss; needs every pair evaluated. A pair with a coefficient
  /// beyond `largest`, what the gradient is computed in, counts as not finite.
  double finish(const double* logps, const double* sft_logps, double largest);

  double likelihood_coefficient(int64_t s) const { return terms_.likelihood_coefficient(s); }
  int64_t pairs() const { return terms_.pairs; }

 private:
  void evaluate_pairs(const double* logps, int64_t first, int64_t last);
  void evaluate_coupled(const double* logps);
  double pair_nll(const double* sft_logps, int64_t pair) const;
  double reward_margin(int64_t chosen, int64_t rejected, const double* logps) const;

  BatchTerms terms_;
  LossOutputs out_;
};

}  // namespace diralign
