// Jobs from logits in device memory whose batch is spread over processes: the launch in two halves,
// between which the host knows what the other processes have.
#pragma once
#include <optional>
#include <vector>
#include "collected.h"
#include "merged_rows.h"

namespace diralign::cuda {

/// Where no rows are to be merged, the device finishes its rows and sequences as it does for one
/// process alone, with the same bits.
class LogitsPhases : public Phases {
 public:
  /// Enqueues nothing.
  LogitsPhases(Job& job, const Place& place, Pool& pool)
      : job_(job),
        mode_(job.gradients.logits.mode),
        place_(place),
        groups_(group_units_reaching(job.rows, 0, job.rows.units.count, INT64_MAX)) {
    if (job.parallel->merges_rows()) merged_.emplace(job, job.batch.dtype, place, pool);
    else numbers_.emplace(job);
  }

  const std::vector<UnitGroup>& groups() const override { return groups_; }
  const double* sft_logps() const override {
    return merged_ ? merged_->results().sft_logps() : numbers_->sft_logps();
  }
  const Array<RowMeasures>& measures() const override {
    return merged_ ? merged_->results().measures() : numbers_->measures();
  }
  int64_t underflows() const override {
    return merged_ ? merged_->underflows() : launch_ ? launch_->underflows() : 0;
  }

  void reduce(const UnitGroup& group, const BatchLoss*) override {
    if (merged_) {
      merged_->begin(group, {});
      merged_->reduce(group.rows, target());
      if (!job_.stopped()) merged_->results().sum(group);
      return;
    }
    LossRequest request = logits_request(job_);
    request.splits = mode_ == GradientMode::dense;
    launch_.emplace(request, place_);
    synchronize();
    numbers_->take(*launch_, group);
    if (!job_.stopped()) numbers_->sum_over_processes();
  }

  void differentiate(const UnitGroup& group, const BatchLoss* loss) override {
    if (merged_) return differentiate_merged(group, loss);
    if (mode_ != GradientMode::dense) return;
    launch_->differentiate(job_.evaluates_together() ? job_.loss->outputs.coefficients : nullptr);
    synchronize();
  }

  /// Rows that no term scores are among those of the launch.
  void write_zeros() override {}

 private:
  LossWork::Target target() const {
    return {.logits = job_.batch.logits,
            .gradient = job_.gradients.logits.data,
            .row_stride = job_.batch.row_stride,
            .gradient_elements = job_.gradients.logits.elements,
            .gradient_dtype = job_.batch.dtype};
  }
  void synchronize() const {
    check(cudaStreamSynchronize(as_stream(place_.stream)), "cudaStreamSynchronize");
  }

  void differentiate_merged(const UnitGroup& group, const BatchLoss* loss) {
    if (mode_ == GradientMode::none) return;
    const GradientOutput& output = job_.gradients.logits;
    LossWork* const work = merged_->differentiate(loss, 1, !output.zeroed, 1, 2);
    if (!work) {  // all of it is padding
      if (!output.zeroed && output.elements > 0)
        check(cudaMemsetAsync(output.data, 0, size_t(output.elements) * job_.batch.element_bytes(),
                              as_stream(place_.stream)),
              "cudaMemsetAsync");
      return synchronize();
    }
    Stages order(work->parts());
    order.add(Work::gradient, 0, uint32_t(group.rows.size()), 0);
    if (!output.zeroed) order.add(Work::zero, 0, uint32_t(job_.rows.ignored.size()), 0);
    work->launch(order, target());
    synchronize();
  }

  Job& job_;
  const GradientMode mode_;
  const Place place_;
  const std::vector<UnitGroup> groups_;
  std::optional<MergedRows> merged_;
  // Where nothing is to be merged.
  std::optional<Collected> numbers_;
  std::optional<LossLaunch> launch_;
};

}  // namespace diralign::cuda
