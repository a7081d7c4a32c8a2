// Jobs from logits in device memory whose batch is spread over processes: the launch in two halves,
// between which the host knows what the other processes have.
#pragma once
#include <deque>
#include <optional>
#include <vector>
#include "collected.h"
#include "tuning.h"
#include "jobs/pool.h"
#include "jobs/row_results.h"

namespace diralign::cuda {

/// Where other processes have other columns, or there is a grid of columns, the device sums parts
/// of rows and writes gradients; the host merges the parts and finishes the rows. Otherwise the
/// device finishes its rows and sequences as it does for one process alone.
class LogitsPhases : public Phases {
 public:
  /// Enqueues nothing.
  LogitsPhases(Job& job, const Place& place, Pool& pool)
      : job_(job),
        batch_(job.batch),
        mode_(job.gradients.logits.mode),
        place_(place),
        team_(pool, team_size(job)),
        groups_(group_units_reaching(job.rows, 0, job.rows.units.count, INT64_MAX)) {
    if (job.parallel->merges_rows()) rows_.emplace(job);
    else numbers_.emplace(job);
  }

  const std::vector<UnitGroup>& groups() const override { return groups_; }
  const double* sft_logps() const override {
    return rows_ ? rows_->sft_logps() : numbers_->sft_logps();
  }
  const Array<RowMeasures>& measures() const override {
    return rows_ ? rows_->measures() : numbers_->measures();
  }
  int64_t underflows() const override { return underflows_; }

  void reduce(const UnitGroup& group, const BatchLoss*) override {
    if (rows_) return reduce_parts(group);
    LossRequest request = logits_request(job_);
    request.splits = mode_ == GradientMode::dense;
    launch_.emplace(request, place_);
    synchronize();
    numbers_->take(*launch_, group);
    numbers_->sum_over_processes();
  }

  void differentiate(const UnitGroup& group, const BatchLoss* loss) override {
    if (rows_) return differentiate_merged(group, loss);
    if (mode_ != GradientMode::dense) return;
    launch_->differentiate(job_.evaluates_together() ? job_.loss->outputs.coefficients : nullptr);
    synchronize();
    underflows_ = launch_->underflows();
  }

  /// Rows that no term scores are among those of the launch.
  void write_zeros() override {}

 private:
  static int team_size(const Job& job) {
    const int64_t useful = int64_t(job.rows.scored.size()) / host_rows_per_thread;
    return int(std::clamp<int64_t>(useful, 1, std::max(1, job.threads)));
  }
  void synchronize() const {
    check(cudaStreamSynchronize(as_stream(place_.stream)), "cudaStreamSynchronize");
  }
  template <class Row>
  void for_rows(const RowRange& rows, Row&& row) {
    constexpr int64_t step = host_rows_per_thread / 4;
    team_.run((rows.size() + step - 1) / step, [&](int64_t item, int) {
      const int64_t first = rows.begin + item * step;
      for (int64_t i = first; i < std::min(rows.end, first + step); i++) row(i);
    });
  }

  void reduce_parts(const UnitGroup& group) {
    std::deque<MeasureWork> means;
    if (group.rows.size() > 0 && batch_.vocab > 0) {
      LossRequest request = parts_request();
      launch_.emplace(request, place_);
      if (rows_->needs_mean()) measure(group.rows, means);
      synchronize();
      const int64_t columns = request.cut().columns(uint32_t(batch_.element_bytes()));
      for_rows(group.rows, [&](int64_t i) { put(i, i - group.rows.begin, columns, means); });
    } else {
      for_rows(group.rows, [&](int64_t i) { put(i, 0, 1, means); });
    }
    if (job_.stopped()) return;
    rows_->shards().exchange(group.rows);
    for_rows(group.rows, [&](int64_t i) { rows_->take_merged(i); });
    rows_->sum(group);
  }

  LossRequest parts_request() const {
    LossRequest r = logits_request(job_);
    r.pass = rows_->needs_moment() ? Pass::tokens : Pass::logps;
    r.parts_of = &batch_;
    r.column_grid = job_.parallel->column_grid;
    r.write_ignored = r.measures = false;
    r.derivatives.clear();
    return r;
  }

  int64_t cell_columns() const {
    return job_.parallel->column_grid > 0 ? job_.parallel->column_grid : batch_.vocab;
  }
  /// The means of the rows' logits, of each cell of columns.
  void measure(const RowRange& rows, std::deque<MeasureWork>& means) const {
    for (int64_t first = 0; first < batch_.vocab; first += cell_columns()) {
      MeasureWork& work =
          means.emplace_back(job_.rows, rows, std::vector<RowRange>{}, batch_.transform, place_);
      work.launch(0, rows.size(),
                  static_cast<const char*>(batch_.logits) + size_t(first) * batch_.element_bytes(),
                  batch_.dtype, std::min(cell_columns(), batch_.vocab - first), batch_.row_stride);
      work.fetch();
    }
  }

  /// The parts of row i, the k-th of the launch, merged to those of the cells. `columns`: of a
  /// part.
  void put(int64_t i, int64_t k, int64_t columns, const std::deque<MeasureWork>& means) {
    rows_->shards().put(
        i,
        [&](int64_t first, int64_t count, int32_t) {
          const int64_t part = first / columns, end = (first + count + columns - 1) / columns;
          return RowSums{
              merge_in_order(uint32_t(end - part),
                             [&](uint32_t j) { return launch_->parts().part(k, part + j); }),
              launch_->parts().target(k)};
        },
        [&](int64_t first, int64_t count) {
          return means[size_t(first / cell_columns())].row(k).mean_logit * double(count);
        },
        [&](int64_t) { return launch_->parts().sft_target(k); });
  }

  void differentiate_merged(const UnitGroup& group, const BatchLoss* loss) {
    if (mode_ == GradientMode::none) return;
    std::vector<RowGradient> gradients(size_t(group.rows.size()));
    for_rows(group.rows, [&](int64_t i) {
      RowGradient& g = gradients[size_t(i - group.rows.begin)];
      g = mode_ == GradientMode::factored ? rows_->residual(i)
                                          : rows_->gradient(i, rows_->coefficients(i, loss));
    });
    if (mode_ == GradientMode::dense)
      for (const RowGradient& g : gradients) underflows_ += g.underflows;
    const GradientOutput& output = job_.gradients.logits;
    if (batch_.vocab == 0) {
      if (!output.zeroed && output.elements > 0)
        check(cudaMemsetAsync(output.data, 0, size_t(output.elements) * batch_.element_bytes(),
                              as_stream(place_.stream)),
              "cudaMemsetAsync");
      return synchronize();
    }
    LossRequest request = logits_request(job_);
    request.pass = Pass::dense;
    request.terms.objective_count = 0;
    request.measures = false;
    request.derivatives.clear();
    request.row_gradients = std::move(gradients);
    launch_.emplace(request, place_);
    synchronize();
  }

  Job& job_;
  const Batch& batch_;
  const GradientMode mode_;
  const Place place_;
  Team team_;
  const std::vector<UnitGroup> groups_;
  std::optional<RowResults> rows_;    ///< where the host merges them
  std::optional<Collected> numbers_;  ///< where the device finishes them
  std::optional<LossLaunch> launch_;
  int64_t underflows_ = 0;
};

}  // namespace diralign::cuda
