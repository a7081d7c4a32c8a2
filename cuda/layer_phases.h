// Jobs with an output layer: products by cuBLASLt, and the loss kernel on what fits of their logits
// at a time.
//
//   for each group of units:
//     for each chunk of its rows:  logits = hidden weight^T + bias,  reduce unless they are known,
//                                  and their gradient where the derivatives are given
//     on the host:                 coefficients of the units, which say what rows have a gradient
//     for each chunk again:        logits once more, unless one chunk holds the group;  gradient of
//     the logits;
//                                  its products with the weight and with the hidden states, for the
//                                  rows that have one
//
// Logits are float32 and exist for one chunk. Their gradient has the layer's type, for the
// products; that of float32 lies in place.
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
#include "products.h"
#include "hidden_sum.h"
#include "layer_kernels.h"
#include "loss_work.h"
#include "measure_rows.h"
#include "merged_rows.h"
#include "tuning.h"
#include "distributed/parallel.h"
#include "jobs/driver.h"

namespace diralign::cuda {

inline size_t aligned(size_t bytes) { return (bytes + 255) & ~size_t{255}; }

/// The layer in device memory.
struct LayerArrays {
  const void *hidden, *weight, *bias;
  LayerGradients gradients;
  bool packed;  ///< row i of the hidden states and of their gradient is that of the i-th scored
                ///< row; otherwise that of the batch
};

/// What a job's workspace is made of, in bytes.
struct WorkspacePlan {
  int64_t chunk_rows = 0;
  size_t product = 0;  ///< cuBLASLt's

  /// `row`: of every row of a chunk; `fixed`: beside them.
  WorkspacePlan(size_t memory, size_t row, size_t fixed, int64_t rows) {
    if (rows == 0) return;
    if (memory < fixed + row) throw WorkspaceTooSmall(memory, fixed + row);
    product = std::min(most_product_workspace, (memory - fixed - row) / 4) & ~size_t{255};
    chunk_rows = std::min(rows, int64_t((memory - fixed - product) / row));
  }
};

class LayerPhases : public Phases {
 public:
  /// Enqueues nothing. `pool`: of a job among processes.
  LayerPhases(Job& job, const Place& place, const LayerArrays& arrays, Pool* pool = nullptr)
      : job_(job),
        layer_(*job.layer),
        place_(place),
        stream_(as_stream(place.stream)),
        arrays_(arrays),
        dense_(arrays.gradients.any()),
        stride_(logits_stride(job.batch.vocab)),
        hidden_row_(size_t(layer_.hidden_size) * job.batch.element_bytes()),
        sft_logps_(job.batch.sft_labels ? size_t(job.batch.sequences) : 0) {
    layer_.memory_used = 0;
    if (job.parallel && job.parallel->merges_rows()) {
      merged_.emplace(job, Dtype::float32, place, *pool);
      Session& session = job.parallel->session;
      if (arrays.gradients.hidden.data && job.parallel->sums_hidden && session.has(Axis::vocab))
        hidden_sum_.emplace(session, place, layer_.hidden_size,
                            job.parallel->wire(job.batch.dtype));
    }
    const RowBytes row = row_bytes();
    const WorkspacePlan plan(layer_.memory,
                             row.logits + row.gradient + row.hidden + row.hidden_gradient,
                             bias_bytes() + (hidden_sum_ ? hidden_sum_->padding() : 0) + 4 * 256,
                             int64_t(job.rows.scored.size()));
    // Ranks of vocab go through the same chunks.
    const int64_t chunk_rows =
        merged_ ? least_of_all(job.parallel->session, plan.chunk_rows) : plan.chunk_rows;
    plan_groups(std::max<int64_t>(1, chunk_rows));
    if (job.rows.scored.empty()) return;
    if (!merged_) plan_work();
    allocate(row, plan.product);
  }
  /// Waits for the end of the work: the stages of `rows_` and of `work_` are given back.
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
  void start() {
    if (rows_.data()) {
      for (int64_t i = 0; i < int64_t(job_.rows.scored.size()); i++)
        row_stage_.as<uint32_t>()[i] = uint32_t(row_of(i));
      check(cudaMemcpyAsync(rows_.data(), row_stage_.data(), rows_.bytes(), cudaMemcpyHostToDevice,
                            stream_),
            "cudaMemcpyAsync");
    }
    if (bias_.data())
      widen(stream_, bias_.as<float>(), arrays_.bias, job_.batch.dtype, job_.batch.vocab);
  }

  void reduce(const UnitGroup& group, const BatchLoss*) override {
    const std::vector<RowRange>& chunks = chunks_[index(group)];
    if (merged_) return reduce_merged(group, chunks);
    for (size_t k = 0; k < chunks.size(); k++) {
      const RowRange& chunk = chunks[k];
      if (job_.cancelled) return;
      multiply(chunk);
      if (measures_)
        measures_->launch(chunk.begin, chunk.size(), logits_.data(), Dtype::float32,
                          job_.batch.vocab, stride_);
      if (!job_.knows_rows()) {
        Stages order(work_->parts());
        order.add(Work::reduce, uint32_t(chunk.begin), uint32_t(chunk.size()),
                  device_group(group, k));
        work_->launch(order, {logits_.data(), nullptr, stride_, 0, Dtype::float32});
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
      if (!group.kept) multiply(chunk);
      differentiate(work, chunk, active, exponent);
      pace();
    }
  }

  void write_zeros() override {
    zero_hidden_gradient();
    const LayerGradients& out = arrays_.gradients;
    // Where nothing was written: all words, or, with padding past a vocabulary, that.
    auto zero = [&](const LayerGradients::Buffer& buffer, bool written, int64_t each) {
      const int64_t first = (written ? job_.batch.vocab : 0) * each,
                    count = job_.batch.row_stride * each - first;
      if (buffer.data && !buffer.accumulate && !buffer.zeroed && count > 0)
        check(cudaMemsetAsync(static_cast<float*>(buffer.data) + first, 0,
                              size_t(count) * sizeof(float), stream_),
              "cudaMemsetAsync");
    };
    zero(out.weight, weight_written_, layer_.hidden_size);
    zero(out.bias, bias_written_, 1);
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }

 private:
  /// What a row of a chunk takes of the workspace.
  struct RowBytes {
    size_t logits, gradient, hidden, hidden_gradient;
  };
  RowBytes row_bytes() const {
    const bool in_place = job_.batch.dtype == Dtype::float32;
    return {.logits = size_t(stride_) * sizeof(float),
            .gradient = dense_ && !in_place ? size_t(stride_) * job_.batch.element_bytes() : 0,
            .hidden = hidden_row_,
            .hidden_gradient = hidden_sum_                     ? hidden_sum_->row_bytes()
                               : arrays_.gradients.hidden.data ? hidden_row_
                                                               : 0};
  }
  size_t bias_bytes() const {
    return arrays_.bias ? aligned(size_t(job_.batch.vocab) * sizeof(float)) : 0;
  }

  void plan_groups(int64_t chunk_rows) {
    // Without a gradient nothing is decided between groups.
    groups_ = group_units(job_.rows, chunk_rows, !dense_ || job_.evaluates_together());
    scatters_ = hidden_sum_.has_value();
    for (const UnitGroup& group : groups_) {
      chunks_.push_back(cut_rows(group.rows, chunk_rows));
      for (const RowRange& chunk : chunks_.back()) {
        longest_ = std::max(longest_, chunk.size());
        gathers_ = gathers_ || !in_one_piece(chunk, arrays_.hidden);
        scatters_ = scatters_ || !in_one_piece(chunk, arrays_.gradients.hidden.data);
      }
    }
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
  void allocate(const RowBytes& row, size_t product) {
    const size_t longest = size_t(longest_), rows = job_.rows.scored.size();
    auto take = [&](size_t bytes) {
      layer_.memory_used += aligned(bytes);
      return Workspace(place_.device, stream_, bytes);
    };
    logits_ = take(longest * row.logits);
    if (row.gradient) gradient_ = take(longest * row.gradient);
    if (gathers_) hidden_ = take(longest * hidden_row_);
    if (row.hidden_gradient && scatters_)
      hidden_gradient_ =
          take(longest * row.hidden_gradient + (hidden_sum_ ? hidden_sum_->padding() : 0));
    if (hidden_sum_) hidden_sum_->begin(longest_);
    if (bias_bytes()) bias_ = take(bias_bytes());
    product_ = take(product);
    if (gathers_ || scatters_) {
      row_stage_ = PinnedBlock(rows * sizeof(uint32_t));
      rows_ = Workspace(place_.device, stream_, rows * sizeof(uint32_t));
    }
    if (job_.batch.vocab == 0) return;
    products_.emplace(Products::Layer{.device = place_.device,
                                      .dtype = job_.batch.dtype,
                                      .vocab = job_.batch.vocab,
                                      .hidden = layer_.hidden_size,
                                      .logits_stride = stride_,
                                      .weight = arrays_.weight,
                                      .bias = bias_.as<float>(),
                                      .workspace = product_.data(),
                                      .workspace_bytes = product});
  }

  int64_t row_of(int64_t i) const { return arrays_.packed ? i : job_.rows.scored[size_t(i)].row; }
  template <class T>
  T* at_row(T* data, int64_t i) const {
    return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(data) +
                                size_t(row_of(i)) * hidden_row_);
  }
  /// Whether rows of an array lie one after another, and as aligned as those of a copy would be:
  /// the products' algorithms may depend on it.
  bool in_one_piece(const RowRange& range, const void* data) const {
    if (reinterpret_cast<uintptr_t>(data) % row_alignment(hidden_row_) != 0) return false;
    for (int64_t i = range.begin + 1; i < range.end; i++)
      if (row_of(i) != row_of(i - 1) + 1) return false;
    return true;
  }
  const uint32_t* indices(int64_t i) const { return rows_.as<uint32_t>() + i; }

  /// Lets the host run ahead of the device by two chunks and no more, so that a cancelled job soon
  /// ends.
  void pace() {
    Marker& marker = ahead_[turn_ % ahead_.size()];
    if (turn_++ >= ahead_.size()) marker.synchronize();
    marker.record(stream_);
  }

  /// The hidden states of a chunk, once `multiply` has brought them together.
  const void* hidden_of(const RowRange& chunk) const {
    return in_one_piece(chunk, arrays_.hidden) ? at_row(arrays_.hidden, chunk.begin)
                                               : hidden_.data();
  }

  void multiply(const RowRange& chunk) {
    if (!products_) return;
    if (!in_one_piece(chunk, arrays_.hidden))
      gather_rows(stream_, hidden_.data(), arrays_.hidden, indices(chunk.begin), chunk.size(),
                  hidden_row_);
    products_->logits(stream_, logits_.as<float>(), hidden_of(chunk), chunk.size());
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
    for_sequences(group, [&](int64_t s) {
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
  template <class Take>
  void for_sequences(const UnitGroup& group, Take&& take) const {
    job_.rows.units.for_sequences(group.first_unit, group.last_unit, take);
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
      multiply(chunk);
      merged_->reduce(chunk, {logits_.data(), nullptr, stride_, 0, Dtype::float32});
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
    zero_hidden_gradient();
    const Dtype dtype = job_.batch.dtype;
    void* const gradient = gradient_.data() ? gradient_.data() : logits_.data();
    if (work.launches) {
      Stages order(work.launches->parts());
      for (const RowRange& range : active)
        order.add(Work::gradient, uint32_t(range.begin - work.first_row), uint32_t(range.size()),
                  work.group);
      work.launches->launch(order, {logits_.data(), gradient, stride_, chunk.size() * stride_,
                                    dtype, std::ldexp(1.0, exponent)});
    }

    const LayerGradients& out = arrays_.gradients;
    // The products' factor is a float32: beyond it all that is not tiny overflows as it is.
    const float scale = std::ldexp(1.0f, std::min(-exponent, 127));
    for (const RowRange& range : active) {
      const int64_t in_chunk = range.begin - chunk.begin;
      const char* const rows = static_cast<const char*>(gradient) +
                               size_t(in_chunk) * size_t(stride_) * dtype_bytes(dtype);
      const char* const hidden =
          static_cast<const char*>(hidden_of(chunk)) + size_t(in_chunk) * hidden_row_;
      if (hidden_sum_) {
        add_hidden_gradient(range, rows, scale);
      } else if (out.hidden.data && products_) {
        const bool direct = in_one_piece(range, out.hidden.data);
        void* const to = direct ? at_row(out.hidden.data, range.begin) : hidden_gradient_.data();
        if (!direct && out.hidden.accumulate)
          gather_rows(stream_, to, out.hidden.data, indices(range.begin), range.size(),
                      hidden_row_);
        products_->hidden_gradient(stream_, to, rows, range.size(), scale, out.hidden.accumulate);
        if (!direct)
          scatter_rows(stream_, out.hidden.data, to, indices(range.begin), range.size(),
                       hidden_row_);
      }
      if (out.weight.data && products_) {
        products_->weight_gradient(stream_, static_cast<float*>(out.weight.data), rows, hidden,
                                   range.size(), scale, out.weight.accumulate || weight_written_);
        weight_written_ = true;
      }
      if (out.bias.data && products_) {
        sum_columns(stream_, static_cast<float*>(out.bias.data), rows, dtype, range.size(),
                    job_.batch.vocab, stride_, scale, out.bias.accumulate || bias_written_);
        bias_written_ = true;
      }
    }
  }

  /// The gradient of some hidden states over all processes that have other words.
  void add_hidden_gradient(const RowRange& range, const void* gradient, float scale) {
    float* const own = hidden_gradient_.as<float>();
    const int64_t count = range.size() * layer_.hidden_size;
    const size_t bytes = size_t(count) * sizeof(float);
    if (products_) products_->hidden_gradient(stream_, own, gradient, range.size(), scale);
    else check(cudaMemsetAsync(own, 0, bytes, stream_), "cudaMemsetAsync");
    hidden_sum_->sum(own, range.size());
    write_rows(stream_, arrays_.gradients.hidden.data, job_.batch.dtype, own, indices(range.begin),
               range.size(), layer_.hidden_size, arrays_.gradients.hidden.accumulate);
  }

  /// Once, before anything else is written: what no product writes is 0.
  void zero_hidden_gradient() {
    const LayerGradients::Buffer& hidden = arrays_.gradients.hidden;
    if (hidden_zeroed_ || !hidden.data || hidden.accumulate || hidden.zeroed) return;
    const size_t rows = arrays_.packed ? job_.rows.scored.size() : size_t(job_.batch.rows);
    if (rows > 0)
      check(cudaMemsetAsync(hidden.data, 0, rows * hidden_row_, stream_), "cudaMemsetAsync");
    hidden_zeroed_ = true;
  }

  Job& job_;
  OutputLayer& layer_;
  Place place_;
  cudaStream_t stream_;
  LayerArrays arrays_;
  bool dense_, gathers_ = false, scatters_ = false;
  int64_t stride_, longest_ = 0;  ///< of a chunk, in rows
  size_t hidden_row_;
  std::vector<UnitGroup> groups_;
  std::vector<std::vector<RowRange>> chunks_;  ///< of each group
  std::vector<uint32_t> device_group_;         ///< groups without rows are none on the device
  std::array<Marker, 2> ahead_;
  size_t turn_ = 0;
  bool hidden_zeroed_ = false, weight_written_ = false, bias_written_ = false;
  int64_t nan_rows_ = 0;  ///< so far
  bool has_nan_ = false;  ///< a row of the last group
  PinnedBlock row_stage_;
  Workspace logits_, gradient_, hidden_, hidden_gradient_, bias_, product_, rows_;
  Array<double> sft_logps_;
  Array<RowMeasures> row_measures_;
  std::optional<MergedRows> merged_;     ///< in place of the next two
  std::optional<HiddenSum> hidden_sum_;  ///< where the gradient of hidden states is complete
  std::optional<LossWork> work_;
  std::optional<MeasureWork> measures_;
  std::optional<Products> products_;
};

}  // namespace diralign::cuda
