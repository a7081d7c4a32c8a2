// The metrics that a run asks for: means over the scored rows of what a loss itself does not need.
#pragma once
#include "job.h"

namespace diralign {

/// What the metrics need of a row; numbers that nothing asks for are arbitrary.
struct RowMeasures {
  double entropy;     ///< of its softmax, in nats
  double mean_logit;  ///< over the vocabulary
  double is_largest;  ///< 1 where the label's logit is above every other, otherwise 0
};

/// From a row's sums, to which the moment belongs where the entropy is asked for.
DIRALIGN_HD RowMeasures row_measures(const RowSums& sums, const RowStatistics& statistics,
                                     double mean_logit) {
  // A sum of 0: every other logit is -inf, which is below what `max` starts from.
  const float other = sums.sum == 0 ? -INFINITY : sums.max;
  return {entropy(statistics, sums), mean_logit, sums.target > other ? 1.0 : 0.0};
}

/// After BatchLoss::finish. `rows`: one per scored row; those that the likelihood term alone scores
/// do not count. The order of the additions is the rows', whoever measured them.
inline void write_measures(LossJob& job, const Array<RowMeasures>& rows) {
  const int64_t pairs =
      job.objective.likelihood_only() ? job.batch.sequences : job.batch.sequences / 2;
  double entropies = 0, largest = 0, logits[2] = {}, counts[2] = {};  // by side: chosen, rejected
  for (size_t i = 0; i < rows.size(); i++) {
    const ScoredRow& r = job.rows.scored[i];
    if (!r.has_label()) continue;
    const int side = r.sequence < pairs ? 0 : 1;
    counts[side]++;
    entropies += rows[i].entropy;
    if (side == 0) largest += rows[i].is_largest;
    logits[side] += rows[i].mean_logit;
  }
  auto mean = [](double sum, double count) { return count > 0 ? sum / count : 0; };
  double* const m = job.outputs.metrics;
  m[mean_entropy] = mean(entropies, counts[0] + counts[1]);
  m[token_accuracy] = mean(largest, counts[0]);
  m[logits_chosen] = mean(logits[0], counts[0]);
  m[logits_rejected] = mean(logits[1], counts[1]);
}

}  // namespace diralign
