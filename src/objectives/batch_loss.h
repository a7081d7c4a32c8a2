// From sequence log-probabilities to losses, rewards, coefficients and metrics of a batch, on the host.
#pragma once
#include <cstdint>
#include <vector>
#include "evaluate.h"

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
  /// `counts` and `sft_counts` (scored rows of the likelihood term; the same array unless sftLabels differ) hold one per sequence,
  /// `reference` may be null.
  BatchLoss(const Objective& objective, int64_t sequences, const int32_t* counts, const int32_t* sft_counts, const double* reference,
            const LossOutputs& outputs);

  /// Evaluates pairs [first, last); needs logps and sft_logps of their sequences. A coupled objective takes all pairs at once.
  void evaluate(const double* logps, const double* sft_logps, int64_t first, int64_t last);

  /// Fills the metrics and returns the loss; needs every pair evaluated.
  double finish(const double* logps, const double* sft_logps);

  /// dLoss/dlogp of the likelihood term for every scored row of sequence `s`; 0 on rejected sequences.
  double likelihood_coefficient(int64_t s) const;

  int64_t pairs() const { return pairs_; }
  /// The pair, or for `sft` the sequence, that sequence `s` belongs to.
  int64_t pair_of(int64_t s) const { return s < pairs_ ? s : s - pairs_; }

 private:
  Sequence sequence(const double* logps, int64_t s) const;
  void evaluate_pairs(const double* logps, int64_t first, int64_t last);
  void evaluate_likelihood(const double* logps, int64_t first, int64_t last);
  void evaluate_coupled(const double* logps);
  double pair_nll(const double* sft_logps, int64_t pair) const;

  Objective objective_;
  int64_t sequences_, pairs_;
  const int32_t *counts_, *sft_counts_;
  const double* reference_;
  LossOutputs out_;
  double chosen_tokens_ = 0;  // of the likelihood term
};

}  // namespace diralign
