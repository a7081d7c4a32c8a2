#include <algorithm>
#include <cmath>
#include "kernels.h"
#include "jobs/row_results.h"
#include "run.h"
#include "share.h"
#include "tuning.h"
#include "jobs/driver.h"
#include "jobs/host_gradient.h"

namespace diralign::cpu {

namespace {

int team_size(const Job& job) {
  const int64_t rows = int64_t(job.rows.scored.size()), elements = rows * job.batch.vocab;
  const int64_t useful = std::min<int64_t>(elements / elements_per_thread, rows);
  return int(std::clamp<int64_t>(useful, 1, std::max(1, job.threads)));
}

class LogitsPhases : public Phases {
 public:
  LogitsPhases(Job& job, Pool& pool)
      : job_(job),
        batch_(job.batch),
        output_(job.gradients.logits),
        gradient_(job.batch, output_),
        transforms_(!job.batch.transform.is_identity()),
        factors_(factors_of(job.batch.transform)),
        kernels_(kernel_set().rows[int(job.batch.dtype)]),
        team_(pool, team_size(job)),
        rows_(job),
        groups_(make_groups()) {
    if (exponentials_once())
      block_anchors_.resize(size_t(team_.members()),
                            std::vector<float>(size_t((batch_.vocab - 1) / block_elements + 1)));
  }

  const std::vector<UnitGroup>& groups() const override { return groups_; }
  const double* sft_logps() const override { return rows_.sft_logps(); }
  const Array<RowMeasures>& measures() const override { return rows_.measures(); }
  int64_t underflows() const override { return underflows_; }

  void reduce(const UnitGroup& group, const BatchLoss*) override {
    if (job_.knows_rows() && output_.mode != GradientMode::factored) return;
    for_rows(team_, job_, group.rows.begin, group.rows.end, false, [this](int64_t i, int member) {
      if (job_.knows_rows()) write_residual(i);
      else if (rows_.merges()) put_parts(i);
      else reduce_row(i, member);
    });
    if (rows_.merges() && !job_.stopped()) {
      rows_.shards().exchange(group.rows);
      for_rows(team_, job_, group.rows.begin, group.rows.end, false, [this](int64_t i, int) {
        rows_.take_merged(i);
        if (output_.mode == GradientMode::factored) write_residual(i);
      });
    }
    if (!job_.stopped()) rows_.sum(group);
  }

  void differentiate(const UnitGroup& group, const BatchLoss* loss) override {
    if (output_.mode != GradientMode::dense) return;
    for_rows(team_, job_, group.rows.begin, group.rows.end, true,
             [&](int64_t i, int) { differentiate_row(i, loss); });
  }

  void write_zeros() override {
    const Array<int64_t>& ignored = job_.rows.ignored;
    const int64_t count = int64_t(ignored.size()), step = rows_per_item(batch_);
    if (output_.zeroed) return;
    team_.run((count + step - 1) / step, [&](int64_t item, int) {
      for (int64_t k = item * step; k < std::min(count, (item + 1) * step); k++) {
        gradient_.zero_row(ignored[size_t(k)]);
        gradient_.zero_padding(ignored[size_t(k)]);
      }
    });
  }

 private:
  std::vector<UnitGroup> make_groups() const {
    // Only a dense gradient reads the rows again.
    const bool together = output_.mode != GradientMode::dense || job_.evaluates_together() ||
                          rows_.merges();  // in one exchange
    const int64_t row_bytes = int64_t(std::max<size_t>(1, batch_.row_bytes()));
    return group_units_reaching(
        job_.rows, 0, job_.rows.units.count,
        together ? INT64_MAX : (int64_t(group_bytes) + row_bytes - 1) / row_bytes);
  }

  bool in_place() const { return output_.data == batch_.logits; }
  bool exponentials_once() const {
    return output_.mode == GradientMode::factored && in_place() && !transforms_ &&
           !job_.knows_rows() && !rows_.merges() && kernels_.negative_softmax_in_place;
  }

  /// With the moment where it is needed; every other bit is the same without.
  RowSums reduce_columns(const void* row, int64_t columns, int32_t label) const {
    if (transforms_)
      return kernels_.reduce_transformed(row, columns, label, factors_, rows_.needs_moment());
    const auto reduce = rows_.needs_moment() ? kernels_.reduce_with_moment : kernels_.reduce;
    return reduce(row, columns, label);
  }
  RowSums reduce_sums(const ScoredRow& r, int member) {
    const void* row = batch_.row(r.row);
    const int32_t label = r.primary();
    if (!exponentials_once()) return reduce_columns(row, batch_.vocab, label);
    const double moment =
        rows_.needs_moment() ? kernels_.reduce_with_moment(row, batch_.vocab, label).moment : 0;
    RowSums sums =
        kernels_.negative_softmax_in_place(static_cast<float*>(gradient_.row(r.row)), batch_.vocab,
                                           label, block_anchors_[size_t(member)].data());
    sums.moment = moment;
    return sums;
  }

  void reduce_row(int64_t i, int member) {
    const ScoredRow& r = job_.rows.scored[size_t(i)];
    const void* row = batch_.row(r.row);
    auto take_mean = [&] {
      if (rows_.needs_mean())
        rows_.take_mean(i, kernels_.sum(row, batch_.vocab) / double(batch_.vocab));
    };
    if (exponentials_once()) take_mean();  // before the row is overwritten
    const RowSums sums = reduce_sums(r, member);
    // Once the reduction, which hides the loading, has brought the row into the cache.
    if (!exponentials_once()) take_mean();
    rows_.take(i, sums, [&](int32_t v) { return value(row, v); });
    if (job_.tokens && job_.tokens->collision) take_collision(r, sums);
    if (output_.mode == GradientMode::factored) write_residual(i);
  }

  void put_parts(int64_t i) {
    const char* const row = static_cast<const char*>(batch_.row(job_.rows.scored[size_t(i)].row));
    auto at = [&](int64_t column) { return row + size_t(column) * batch_.element_bytes(); };
    rows_.shards().put(
        i,
        [&](int64_t first, int64_t count, int32_t label) {
          return reduce_columns(at(first), count, label);
        },
        [&](int64_t first, int64_t count) { return kernels_.sum(at(first), count); },
        [&](int64_t first, int64_t count, int32_t label, float top) {
          return kernels_.squares(at(first), count, label, factors_, top);
        },
        [&](int64_t column) { return float(value(row, column)); });
  }

  /// What a logit becomes.
  double value(const void* row, int64_t column) const {
    return batch_.transform.value(double(kernels_.load(row, column)));
  }

  void take_collision(const ScoredRow& r, const RowSums& sums) {
    const RowStatistics s = row_statistics(sums);
    const double squares =
        kernels_.squares(batch_.row(r.row), batch_.vocab, r.primary(), factors_, s.max);
    job_.tokens->collision[r.row] = log_collision(s, squares + label_square(s, sums.label));
  }

  /// onehot - softmax.
  void write_residual(int64_t i) {
    const ScoredRow& r = job_.rows.scored[size_t(i)];
    const RowGradient g = rows_.residual(i);
    if (exponentials_once()) kernels_.store(gradient_.row(r.row), g.label, g.label_value);
    else write_entries(r, g);
    gradient_.zero_padding(r.row);
  }

  void write_entries(const ScoredRow& r, const RowGradient& g) {
    const void* const row = batch_.row(r.row);
    void* const out = gradient_.row(r.row);
    auto label_entry = [&](int32_t label, float value) {
      return transforms_ ? batch_.transform.by_logit(value, kernels_.load(row, label)) : value;
    };
    const float own = g.label < 0 ? 0 : label_entry(g.label, g.label_value),
                second = g.second_label < 0 ? 0 : label_entry(g.second_label, g.second_value);
    if (batch_.vocab == 0) return;
    if (transforms_ || g.bend != 0)
      kernels_.transformed_gradient(row, out, batch_.vocab, factors_, g);
    else kernels_.scaled_exp(row, out, batch_.vocab, g.shift, g.factor, streamed());
    if (g.label >= 0) kernels_.store(out, g.label, own);
    if (g.second_label >= 0) kernels_.store(out, g.second_label, second);
  }

  void differentiate_row(int64_t i, const BatchLoss* loss) {
    const ScoredRow& r = job_.rows.scored[size_t(i)];
    const RowGradient g = rows_.gradient(i, rows_.coefficients(i, loss));
    if (g.underflows) underflows_.fetch_add(1, std::memory_order_relaxed);
    if (g.zero) gradient_.zero_row(r.row);
    else write_entries(r, g);
    gradient_.zero_padding(r.row);
  }

  bool streamed() const {
    return !in_place() && job_.rows.scored.size() * batch_.row_bytes() > streamed_bytes;
  }

  Job& job_;
  const Batch& batch_;
  const GradientOutput& output_;
  const HostGradient gradient_;
  const bool transforms_;
  const TransformFactors factors_;
  const RowKernels& kernels_;
  Team team_;
  RowResults rows_;
  std::vector<UnitGroup> groups_;
  std::vector<std::vector<float>> block_anchors_;  // per member
  std::atomic<int64_t> underflows_{0};             // rows
};

}  // namespace

void run_logits(Job& job, Pool& pool) {
  LogitsPhases phases(job, pool);
  run_phases(job, phases);
}

}  // namespace diralign::cpu
