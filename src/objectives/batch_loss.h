// From sequence log-probabilities to losses, rewards, coefficients and metrics of a batch, on the
// host.
#pragma once
#include <vector>
#include "batch_terms.h"

namespace diralign {

/// Member, public name. `underflow`, rows of a dense gradient of logits, is the backends' to count,
/// and `mixed_hardware` known to jobs among processes alone; those from `mean_entropy` on are means
/// over rows, where they are asked for: write_measures() fills them.
#define DIRALIGN_METRICS(X)                   \
  X(rewards_chosen, "rewards/chosen")         \
  X(rewards_rejected, "rewards/rejected")     \
  X(rewards_accuracies, "rewards/accuracies") \
  X(rewards_margins, "rewards/margins")       \
  X(logps_chosen, "logps/chosen")             \
  X(logps_rejected, "logps/rejected")         \
  X(nll_loss, "nll_loss")                     \
  X(log_odds_chosen, "log_odds_chosen")       \
  X(log_odds_ratio, "log_odds_ratio")         \
  X(nonfinite, "nonfinite")                   \
  X(empty_sequences, "empty_sequences")       \
  X(underflow, "underflow")                   \
  X(ranking_accuracy, "ranking_accuracy")     \
  X(num_tokens, "num_tokens")                 \
  X(rewards_mean, "rewards/mean")             \
  X(baseline, "kl")                           \
  X(mixed_hardware, "mixed_hardware")         \
  X(mean_entropy, "entropy")                  \
  X(token_accuracy, "mean_token_accuracy")    \
  X(logits_chosen, "logits/chosen")           \
  X(logits_rejected, "logits/rejected")

enum Metric {
#define DIRALIGN_METRIC(member, name) member,
  DIRALIGN_METRICS(DIRALIGN_METRIC)
#undef DIRALIGN_METRIC
      metric_count
};
inline constexpr const char* metric_names[] = {
#define DIRALIGN_METRIC(member, name) name,
    DIRALIGN_METRICS(DIRALIGN_METRIC)
#undef DIRALIGN_METRIC
};

/// What a batch of sequences brings to its loss. Arrays in host memory, which outlive what is made
/// of them.
struct SequenceData {
  Units units;
  const double *lengths, *sft_lengths;  ///< per sequence: see BatchTerms
  const double* reference = nullptr;
  Fields fields{};
};
BatchTerms batch_terms(const Objective* objectives, int count, const SequenceData& data);

/// Where a batch's numbers go: those of each objective, one objective after another, and the
/// coefficients of them all.
struct LossOutputs {
  double* losses;        ///< [objectives][units]
  double* rewards;       ///< [objectives][sequences]
  double* coefficients;  ///< [sequences]
  double* metrics;       ///< [objectives][metric_count]
  double* values;        ///< [objectives]: the losses of the batch
};

/// The loss of a batch, in stages: units can be evaluated as soon as their sequences are known.
class BatchLoss {
 public:
  BatchLoss(const BatchTerms& terms, const LossOutputs& outputs);

  /// Evaluates units [first, last); needs logps and sft_logps of their sequences. Where an
  /// objective is sorted, all units at once.
  void evaluate(const double* logps, const double* sft_logps, int64_t first, int64_t last);

  /// Fills the metrics and the values; needs every unit evaluated. A unit with a coefficient beyond
  /// `largest`, what the gradient is computed in, counts as not finite. `tokens`: scored ones.
  void finish(const double* logps, const double* sft_logps, double largest, double tokens);

  double likelihood_coefficient(int64_t s) const { return terms_.likelihood_coefficient(s); }
  const Units& units() const { return terms_.units; }

 private:
  class OfObjective;

  BatchTerms terms_;
  LossOutputs out_;
  std::vector<double> scratch_;  // per sequence, of groups
};

}  // namespace diralign
