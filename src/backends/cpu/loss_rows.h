// The scored rows of a loss on the CPU: what is known of them as it comes in, the sums of their
// sequences, and their gradients.
#pragma once
#include <cmath>
#include "jobs/measures.h"
#include "rows/gradient.h"

namespace diralign::cpu {

class LossRows {
 public:
  explicit LossRows(LossJob& job)
      : job_(job),
        separate_sft_(job.batch.sft_labels != nullptr),
        statistics_(job.rows.scored.size()),
        measures_(job.asked.any() ? job.rows.scored.size() : 0) {
    if (!separate_sft_) return;
    sft_row_logps_.resize(job.rows.scored.size());
    sft_logps_.resize(size_t(job.batch.sequences));
  }

  /// The sums of row i; `logit(v)` reads its entry v.
  template <class Logit>
  const RowStatistics& take(int64_t i, const RowSums& sums, Logit&& logit) {
    const ScoredRow& r = job_.rows.scored[size_t(i)];
    const RowStatistics& s = statistics_[size_t(i)] = row_statistics(sums);
    if (!measures_.empty())
      measures_[size_t(i)] = row_measures(sums, s, measures_[size_t(i)].mean_logit);
    if (separate_sft_)
      sft_row_logps_[size_t(i)] = r.sft_label < 0 ? 0
                                  : r.sft_label == r.primary()
                                      ? s.logp
                                      : double(logit(r.sft_label)) - logsumexp(s);
    return s;
  }

  /// The mean of row i's logits, where a metric asks for it; before `take`.
  void take_mean(int64_t i, double mean_logit) { measures_[size_t(i)].mean_logit = mean_logit; }
  /// After BatchLoss::finish.
  void finish_measures() const {
    if (job_.asked.any()) write_measures(job_, measures_);
  }

  /// The sequences of pairs [first, last) of `pairs`, whose rows are all known, in row order.
  void sum_pairs(int64_t first, int64_t last, int64_t pairs) {
    for (int64_t p = first; p < last; p++) {
      sum_sequence(p);
      if (job_.batch.sequences > pairs) sum_sequence(p + pairs);
    }
  }

  /// Per sequence: log-probability under the labels of the likelihood term.
  const double* sft_logps() const { return separate_sft_ ? sft_logps_.data() : job_.logps; }

  RowCoefficients coefficients(int64_t i, const BatchLoss& loss) const {
    return row_coefficients(job_, loss, job_.rows.scored[size_t(i)]);
  }
  bool is_nan(int64_t i) const { return std::isnan(statistics_[size_t(i)].logp); }
  RowGradient gradient(int64_t i, const RowCoefficients& c) const {
    const ScoredRow& r = job_.rows.scored[size_t(i)];
    const RowTerms terms = row_terms(statistics_[size_t(i)], separate_sft_,
                                     separate_sft_ ? sft_row_logps_[size_t(i)] : 0);
    return row_gradient(terms, r.label, r.sft_label, c.align, c.likelihood,
                        least_normal(job_.batch.dtype));
  }

 private:
  void sum_sequence(int64_t s) {
    double logp = 0, sft_logp = 0;
    for (int64_t i = job_.rows.begin[size_t(s)]; i < job_.rows.end[size_t(s)]; i++) {
      if (job_.rows.scored[size_t(i)].has_label()) logp += statistics_[size_t(i)].logp;
      if (separate_sft_) sft_logp += sft_row_logps_[size_t(i)];
    }
    job_.logps[s] = logp;
    if (separate_sft_) sft_logps_[size_t(s)] = sft_logp;
  }

  LossJob& job_;
  bool separate_sft_;
  Array<RowStatistics> statistics_;          // per scored row
  Array<RowMeasures> measures_;              // per scored row, where metrics need them
  Array<double> sft_row_logps_, sft_logps_;  // where sftLabels differ
};

}  // namespace diralign::cpu
