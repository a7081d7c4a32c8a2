// The scored rows of a job, where the host finishes them: what is known of them as it comes in, the
// sums of their sequences, and their gradients.
#pragma once
#include <cmath>
#include <optional>
#include "measures.h"
#include "plan.h"
#include "distributed/sharded_rows.h"
#include "rows/gradient.h"

namespace diralign {

class RowResults {
 public:
  explicit RowResults(Job& job)
      : job_(job),
        separate_sft_(job.batch.sft_labels != nullptr),
        needs_moment_(job.needs_moment()),
        needs_mean_(job.needs_mean()),
        statistics_(job.tokens ? 0 : job.rows.scored.size()),
        measures_(job.asked().any() ? job.rows.scored.size() : 0),
        entropies_(job.by_entropy() ? job.rows.scored.size() : 0) {
    if (separate_sft_) {
      sft_row_logps_.resize(job.rows.scored.size());
      sft_logps_.resize(size_t(job.batch.sequences));
    }
    if (job.knows_rows()) take_known(*job.given);
    if (is_spread() && !job.knows_rows()) shards_.emplace(job);
  }

  /// Whether rows have columns in other processes, or are summed in cells.
  bool is_spread() const { return job_.parallel && job_.parallel->merges_rows(); }
  /// Where the columns of rows are in parts: these are put in place of `take`, and taken by
  /// `take_merged` once they were exchanged.
  bool merges() const { return shards_.has_value(); }
  ShardedRows& shards() { return *shards_; }
  void take_merged(int64_t i) {
    if (needs_mean_) take_mean(i, shards_->mean(i));
    const RowSums sums = shards_->sums(i);
    take(i, sums, [&](int32_t) { return double(shards_->second_value(i)); });
    if (!shards_->has_squares()) return;
    const RowStatistics s = row_statistics(sums);
    job_.tokens->collision[job_.rows.scored[size_t(i)].row] =
        log_collision(s, shards_->squares(i, s.max) + label_square(s, sums.label));
  }

  /// Whether the sums must have the moment.
  bool needs_moment() const { return needs_moment_; }
  bool needs_mean() const { return needs_mean_; }

  /// The mean of row i's logits, where a metric asks for it; before `take`.
  void take_mean(int64_t i, double mean_logit) { measures_[size_t(i)].mean_logit = mean_logit; }
  /// The sums of row i; `value(v)` is what its logit v becomes.
  template <class Value>
  void take(int64_t i, const RowSums& sums, Value&& value) {
    const ScoredRow& r = job_.rows.scored[size_t(i)];
    if (job_.tokens) return write_token(*job_.tokens, r.row, sums);
    const RowStatistics& s = statistics_[size_t(i)] = row_statistics(sums);
    if (!entropies_.empty()) entropies_[size_t(i)] = entropy(s, sums);
    if (!measures_.empty())
      measures_[size_t(i)] = row_measures(sums, s, measures_[size_t(i)].mean_logit);
    if (separate_sft_)
      sft_row_logps_[size_t(i)] = r.sft_label < 0              ? 0
                                  : r.sft_label == r.primary() ? s.logp
                                                               : value(r.sft_label) - logsumexp(s);
  }

  /// The sequences of a group, whose rows are all known, in row order.
  void sum(const UnitGroup& group) {
    if (job_.tokens || job_.given) return;
    job_.rows.units.for_sequences(group.first_unit, group.last_unit,
                                  [&](int64_t s) { sum_sequence(s); });
    if (job_.parallel) sum_logps(job_, sft_logps_);
  }

  /// Per sequence: log-probability under the labels of the likelihood term.
  const double* sft_logps() const { return separate_sft_ ? sft_logps_.data() : job_.logps; }
  const Array<RowMeasures>& measures() const { return measures_; }
  const RowStatistics& statistics(int64_t i) const { return statistics_[size_t(i)]; }

  RowCoefficients coefficients(int64_t i, const BatchLoss* loss) const {
    return row_coefficients(job_, loss, job_.rows.scored[size_t(i)]);
  }
  RowGradient gradient(int64_t i, const RowCoefficients& c) const {
    const ScoredRow& r = job_.rows.scored[size_t(i)];
    const RowTerms terms = row_terms(statistics_[size_t(i)], separate_sft_,
                                     separate_sft_ ? sft_row_logps_[size_t(i)] : 0);
    if (c.entropy != 0)
      return own_entries(
          row_gradient_with_entropy(terms, r.label, c.align, c.entropy, entropies_[size_t(i)]));
    return own_entries(row_gradient(terms, r.label, r.sft_label, c.align, c.likelihood,
                                    least_normal(job_.batch.dtype)));
  }
  /// Onehot - softmax.
  RowGradient residual(int64_t i) const {
    const RowTerms terms = row_terms(statistics_[size_t(i)], false, 0);
    return own_entries(row_gradient(terms, job_.rows.scored[size_t(i)].primary(), -1, 1, 0, 0));
  }

 private:
  /// The labels as columns that are here.
  RowGradient own_entries(RowGradient g) const {
    g.label = job_.batch.column(g.label), g.second_label = job_.batch.column(g.second_label);
    return g;
  }
  void take_known(const DerivativesGiven& given) {
    for (size_t i = 0; i < job_.rows.scored.size(); i++) {
      const size_t row = size_t(job_.rows.scored[i].row);
      statistics_[i] = known_statistics(given.known_logps[row], given.known_logsumexp[row]);
      if (!entropies_.empty()) entropies_[i] = given.known_entropy[row];
    }
  }
  void sum_sequence(int64_t s) {
    double logp = 0, sft_logp = 0;
    for (int64_t i = job_.rows.begin[size_t(s)]; i < job_.rows.end[size_t(s)]; i++) {
      const ScoredRow& r = job_.rows.scored[size_t(i)];
      if (r.has_label()) logp += share_of(r.weight, statistics_[size_t(i)].logp);
      if (separate_sft_) sft_logp += share_of(r.weight, sft_row_logps_[size_t(i)]);
    }
    job_.logps[s] = logp;
    if (separate_sft_) sft_logps_[size_t(s)] = sft_logp;
  }

  Job& job_;
  const bool separate_sft_, needs_moment_, needs_mean_;
  Array<RowStatistics> statistics_;          // per scored row
  Array<RowMeasures> measures_;              // per scored row, where metrics need them
  Array<double> entropies_;                  // per scored row, where one has a derivative
  Array<double> sft_row_logps_, sft_logps_;  // where sftLabels differ
  std::optional<ShardedRows> shards_;
};

}  // namespace diralign
