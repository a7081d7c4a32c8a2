// Jobs with an output layer: products by cuBLASLt, and the loss kernel on what fits of their logits
// at a time.
//
//   for each group of units:
//     for each chunk of its rows:  logits = hidden weight^T + bias,  reduce unless they are known,
//                                  and their gradient where the derivatives are given
//     on the host:                 coefficients of the units, which say what rows have a gradient
//     for each chunk again:        logits once more, unless one chunk holds the group,
//                                  gradient of the logits,  its products with the weight and with
//                                  the hidden states, for the rows that have one
//
// Logits and their gradient exist for one chunk.
//
// Where other processes have other words, every chunk's rows are merged before the next, and each
// adds up the gradient of its hidden states over the processes.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>
#include "layer_products.h"
#include "loss_work.h"
#include "measure_rows.h"
#include "merged_rows.h"
#include "tuning.h"
#include "jobs/driver.h"

namespace diralign::cuda {

class LayerPhases : public Phases {
 public:
  /// Enqueues nothing. `pool`: of a job among processes.
  LayerPhases(Job& job, const Place& place, const LayerArrays& arrays, Pool* pool = nullptr)
      : job_(job),
        place_(place),
        stream_(as_stream(place.stream)),
        dense_(arrays.gradients.any()),
        products_(job, place, arrays),
        sft_logps_(job.batch.sft_labels ? size_t(job.batch.sequences) : 0) {
    if (job.parallel && job.parallel->merges_rows())
      merged_.emplace(job, Dtype::float32, place, *pool);
    // Ranks of vocab go through the same chunks.
    const int64_t most = products_.most_rows(),
                  chunk_rows = merged_ ? least_of_all(job.parallel->session, most) : most;
    plan_groups(std::max<int64_t>(1, chunk_rows));
    if (job.rows.scored.empty()) return;
    if (!merged_) plan_work();
    products_.allocate(chunks_);
  }
  /// Waits for the end of the work: the stages of `products_` and of `work_` are given back.
  ~LayerPhases() { ignore(cudaStreamSynchronize(stream_)); }
  LayerPhases(const LayerPhases&) = delete;
  LayerPhases& operator=(const LayerPhases&) = delete;

  const std::vector<UnitGroup>& groups() const override { return groups_; }
  const double* sft_logps() const override {
    if (merged_) return merged_->results().sft_logps();
    return sft_logps_.empty() ? job_.logps : sft_logps_.data();
  }
  const Array<RowMeasures>& measures() const override {
    return merged_ ? merged_->results().measures() : row_measures_;
  }

  /// Once what the arrays hold is enqueued, before the first group.
  void start() { products_.start(); }

  void reduce(const UnitGroup& group, const BatchLoss*) override {
    const std::vector<RowRange>& chunks = chunks_[index(group)];
    if (merged_) return reduce_merged(group, chunks);
    for (size_t k = 0; k < chunks.size(); k++) {
      const RowRange& chunk = chunks[k];
      if (job_.cancelled) return;
      products_.multiply(chunk);
      if (measures_)
        measures_->launch(chunk.begin, chunk.size(), products_.logits(), Dtype::float32,
                          job_.batch.vocab, products_.stride());
      if (!job_.knows_rows()) {
        Stages order(work_->parts());
        order.add(Work::reduce, uint32_t(chunk.begin), uint32_t(chunk.size()),
                  device_group(group, k));
        work_->launch(order, no_gradient());
      }
      if (job_.given && dense_) differentiate_given(group, k);
      pace();
    }
    if (job_.given) return;
    const bool last = &group == &groups_.back();
    if (group.rows.size() > 0) work_->fetch();
    if (last && measures_) measures_->fetch();
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    if (group.rows.size() > 0) has_nan_ = new_nan_rows();
    take(group);
    if (job_.parallel && !job_.cancelled) sum_logps(job_, sft_logps_);
    for (size_t i = 0; last && i < row_measures_.size(); i++)
      row_measures_[i] = measures_->row(int64_t(i));
  }

  void differentiate(const UnitGroup& group, const BatchLoss* loss) override {
    if (job_.given) return;
    const int exponent = exponent_of(group.rows, loss);
    const std::vector<RowRange>& chunks = chunks_[index(group)];
    if (chunks.empty()) return;
    GradientWork work{nullptr, 0, group.rows.begin};
    if (!merged_) {
      if (job_.parallel && job_.evaluates_together())
        work_->set_coefficients(job_.loss->outputs.coefficients);
      work = {&*work_, device_group(group, 0), 0};
    } else {
      size_t stages = 0;
      for (const RowRange& chunk : chunks) stages += most_stages(chunk);
      work.launches =
          merged_->differentiate(loss, std::ldexp(1.0, exponent), false, chunks.size(), stages);
    }
    for (const RowRange& chunk : chunks) {
      if (job_.cancelled) return;
      const std::vector<RowRange> active = active_of(chunk, loss, has_nan_);
      if (active.empty()) continue;
      if (!group.kept) products_.multiply(chunk);
      differentiate(work, chunk, active, exponent);
      pace();
    }
  }

  void write_zeros() override {
    products_.write_zeros();
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }

 private:
  void plan_groups(int64_t chunk_rows) {
    // Without a gradient nothing is decided between groups.
    groups_ = group_units(job_.rows, chunk_rows, !dense_ || job_.evaluates_together());
    for (const UnitGroup& group : groups_) chunks_.push_back(cut_rows(group.rows, chunk_rows));
  }

  void plan_work() {
    const int64_t rows = int64_t(job_.rows.scored.size());
    LossRequest request = request_of(job_);
    request.dtype = Dtype::float32;
    std::vector<Group> on_device;
    size_t launches = 0, stages = 0;
    for (size_t g = 0; g < groups_.size(); g++) {
      for (const RowRange& chunk : chunks_[g]) {
        request.chunks.push_back(chunk);
        launches += dense_ ? 2 : 1;
        stages += 1 + (dense_ ? most_stages(chunk) : 0);
      }
      device_group_.push_back(uint32_t(on_device.size()));
      // What a row needs of its group is there in the launch that reduces it.
      if (job_.given)
        for (const RowRange& chunk : chunks_[g]) add_group(on_device, {0, 0, chunk, true}, 0);
      else if (groups_[g].rows.size() > 0) add_group(on_device, groups_[g], 0);
    }
    work_.emplace(request, on_device, launches, stages, place_);
    if (!job_.asked().any()) return;
    measures_.emplace(job_.rows, RowRange{0, rows}, request.chunks, request.transform, place_);
    row_measures_.resize(size_t(rows));
  }
  /// Of a chunk's gradient.
  static size_t most_stages(const RowRange& chunk) {
    return size_t(chunk.size() / (shortest_not_finite + 1) + 1);
  }
  /// Lets the host run ahead of the device by two chunks and no more, so that a cancelled job soon
  /// ends.
  void pace() {
    Marker& marker = ahead_[turn_ % ahead_.size()];
    if (turn_++ >= ahead_.size()) marker.synchronize();
    marker.record(stream_);
  }

  LossWork::Target no_gradient() const {
    return {products_.logits(), nullptr, products_.stride(), 0, Dtype::float32};
  }

  size_t index(const UnitGroup& group) const { return size_t(&group - groups_.data()); }

  /// Of the k-th chunk of a group.
  uint32_t device_group(const UnitGroup& group, size_t k) const {
    return device_group_[index(group)] + uint32_t(job_.given ? k : 0);
  }

  /// The numbers of a group, whose rows are reduced.
  void take(const UnitGroup& group) {
    for (int64_t i = group.rows.begin; job_.tokens && i < group.rows.end; i++)
      work_->take_token(*job_.tokens, i, job_.rows.scored[size_t(i)].row);
    if (job_.tokens) return;
    job_.rows.units.for_sequences(group.first_unit, group.last_unit, [&](int64_t s) {
      const bool has_rows = job_.rows.end[size_t(s)] > job_.rows.begin[size_t(s)];
      job_.logps[s] = has_rows ? work_->logp(s) : 0;
      if (!sft_logps_.empty()) sft_logps_[size_t(s)] = has_rows ? work_->sft_logp(s) : 0;
    });
  }
  /// Whether rows with a NaN were reduced since the last time. Once the results are fetched.
  bool new_nan_rows() {
    const int64_t before = std::exchange(nan_rows_, dense_ ? work_->nan_rows() : 0);
    return nan_rows_ > before;
  }

  RowCoefficients coefficients(int64_t i, const BatchLoss* loss) const {
    return row_coefficients(job_, loss, job_.rows.scored[size_t(i)]);
  }
  /// Of the power of two that the gradients of some rows are multiplied with.
  int exponent_of(const RowRange& rows, const BatchLoss* loss) const {
    double largest = 0;
    for (int64_t i = rows.begin; i < rows.end; i++)
      largest = std::fmax(largest, largest_entry(job_.batch, coefficients(i, loss)));
    // The entries of a float16 gradient just below 2^15: they need its few digits, and smaller
    // ones its whole range.
    return job_.batch.dtype == Dtype::float16 && largest > 0
               ? std::min(15 - (std::ilogb(largest) + 1), 100)
               : -gradient_exponent(largest);
  }
  /// The parts of a chunk that have a gradient. A hidden state that is not finite makes its logits
  /// all NaN or infinite, and the log-probability a NaN.
  std::vector<RowRange> active_of(const RowRange& chunk, const BatchLoss* loss,
                                  bool has_nan) const {
    return active_ranges(chunk, has_nan ? shortest_not_finite : shortest_gap,
                         [&](int64_t i) { return coefficients(i, loss).idle(); });
  }
  /// Of the k-th chunk, whose logits are there.
  void differentiate_given(const UnitGroup& group, size_t k) {
    const RowRange& chunk = chunks_[index(group)][k];
    const std::vector<RowRange> active = active_of(chunk, nullptr, has_nan_beside(chunk));
    if (!active.empty())
      differentiate({&*work_, device_group(group, k), 0}, chunk, active,
                    exponent_of(chunk, nullptr));
  }
  /// Whether a row of a chunk that has no gradient may have a NaN.
  bool has_nan_beside(const RowRange& chunk) {
    bool idle = false, nan = false;
    for (int64_t i = chunk.begin; i < chunk.end; i++) {
      if (!coefficients(i, nullptr).idle()) continue;
      idle = true;
      nan = nan || (job_.knows_rows() &&
                    std::isnan(job_.given->known_logps[size_t(job_.rows.scored[size_t(i)].row)]));
    }
    if (!idle || job_.knows_rows()) return nan;
    work_->fetch();
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    return new_nan_rows();
  }

  void reduce_merged(const UnitGroup& group, const std::vector<RowRange>& chunks) {
    merged_->begin(group, chunks);
    for (const RowRange& chunk : chunks) {
      if (job_.cancelled) return;
      products_.multiply(chunk);
      merged_->reduce(chunk, no_gradient());
    }
    if (job_.cancelled) return;
    merged_->results().sum(group);
    has_nan_ = merged_->has_nan();
  }

  /// What writes the gradients of a group's logits.
  struct GradientWork {
    LossWork* launches;  ///< null: the rank has no words
    uint32_t group;      ///< as they have it
    int64_t first_row;   ///< of theirs, in the list of scored rows
  };
  void differentiate(const GradientWork& work, const RowRange& chunk,
                     const std::vector<RowRange>& active, int exponent) {
    products_.zero_hidden_gradient();
    if (work.launches) {
      Stages order(work.launches->parts());
      for (const RowRange& range : active)
        order.add(Work::gradient, uint32_t(range.begin - work.first_row), uint32_t(range.size()),
                  work.group);
      const int64_t stride = products_.stride();
      work.launches->launch(
          order, {products_.logits(), products_.gradient(), stride, chunk.size() * stride,
                  job_.batch.dtype, std::ldexp(1.0, exponent)});
    }
    for (const RowRange& range : active) products_.add_gradients(chunk, range, exponent);
  }

  Job& job_;
  Place place_;
  cudaStream_t stream_;
  bool dense_;
  LayerProducts products_;
  std::vector<UnitGroup> groups_;
  std::vector<std::vector<RowRange>> chunks_;  ///< of each group
  std::vector<uint32_t> device_group_;         ///< groups without rows are none on the device
  std::array<Marker, 2> ahead_;
  size_t turn_ = 0;
  int64_t nan_rows_ = 0;  ///< so far
  bool has_nan_ = false;  ///< a row of the last group
  Array<double> sft_logps_;
  Array<RowMeasures> row_measures_;
  std::optional<MergedRows> merged_;  ///< in place of the next two
  std::optional<LossWork> work_;
  std::optional<MeasureWork> measures_;
};

}  // namespace diralign::cuda
