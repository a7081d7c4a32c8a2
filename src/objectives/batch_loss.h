// From sequence log-probabilities to losses, rewards, coefficients and metrics of a batch, on the
// host.
#pragma once
#include <vector>
#include "batch_terms.h"

namespace diralign {

/// Member, public name. `underflow`, rows of a dense gradient of logits, is the backends' to count;
/// those from `mean_entropy` on are means over rows, where they are asked for: write_measures()
/// fills them.
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

struct Objective {
  int method;
  Settings settings;

  const MethodInfo& info() const;
  MethodFacts facts() const { return facts_of(method); }
  /// How a batch of so many sequences is compared.
  Units units(int64_t sequences) const;
  /// Whether a reference's log-probabilities enter the scores.
  bool uses_reference() const { return info().reference && settings.reference_free == 0; }
};

/// `counts` and `sft_counts` (scored rows of the likelihood term; the same array unless sftLabels
/// differ) hold one per sequence, `reference` may be null.
BatchTerms batch_terms(const Objective& objective, const Units& units, const int32_t* counts,
                       const int32_t* sft_counts, const double* reference);

/// Where a batch's numbers go. Lengths: units, sequences or metric_count.
struct LossOutputs {
  double* losses;
  double* rewards;
  double* coefficients;
  double* metrics;
};

/// The loss of a batch, in stages: units can be evaluated as soon as their sequences are known.
class BatchLoss {
 public:
  BatchLoss(const BatchTerms& terms, const LossOutputs& outputs) : terms_(terms), out_(outputs) {}

  /// Evaluates units [first, last); needs logps and sft_logps of their sequences. A sorted
  /// objective takes all units at once.
  void evaluate(const double* logps, const double* sft_logps, int64_t first, int64_t last);

  /// Fills the metrics and returns the loss; needs every unit evaluated. One with a coefficient
  /// beyond `largest`, what the gradient is computed in, counts as not finite.
  double finish(const double* logps, const double* sft_logps, double largest);

  double likelihood_coefficient(int64_t s) const { return terms_.likelihood_coefficient(s); }
  const Units& units() const { return terms_.units; }
  bool is_sorted() const { return terms_.is_sorted(); }

 private:
  void evaluate_sorted(const double* logps);
  void compare(const double* logps, int64_t chosen, int64_t rejected, bool odds);
  double unit_nll(const double* sft_logps, int64_t unit) const;
  double reward_margin(int64_t chosen, int64_t rejected, const double* logps) const;

  BatchTerms terms_;
  LossOutputs out_;
};

}  // namespace diralign
