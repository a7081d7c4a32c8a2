// What a job takes from the sums of a row beside its log-probability: numbers of tokens, and of the
// metrics that a run asks for.
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
  const float other = sums.sum == 0 ? -INFINITY : sums.top;
  return {entropy(statistics, sums), mean_logit, sums.label > other ? 1.0 : 0.0};
}

/// Sums of measures, and how many rows they are of, for the metrics that are their means.
struct MeasureSums {
  double entropies = 0, largest = 0;
  double logits[2] = {}, counts[2] = {};  ///< chosen, rejected
};
/// `rows`: one per scored row; those that the likelihood term alone scores do not count. The order
/// of the additions is the rows', whoever measured them.
MeasureSums sum_measures(const Job& job, const Array<RowMeasures>& rows);
/// After BatchLoss::finish.
void write_measures(Job& job, const MeasureSums& sums);

/// Of a row of the batch.
inline void write_token(const TokensWanted& wanted, int64_t row, double logp, double log_sum,
                        double nats) {
  wanted.logps[row] = logp;
  wanted.logsumexp[row] = log_sum;
  wanted.entropy[row] = nats;
}
inline void write_token(const TokensWanted& wanted, int64_t row, const RowSums& sums) {
  const RowStatistics s = row_statistics(sums);
  write_token(wanted, row, s.logp, logsumexp(s), entropy(s, sums));
}

}  // namespace diralign
