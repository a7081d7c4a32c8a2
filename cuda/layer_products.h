// A chunk of rows in the workspace of a job, and its products with the output layer. Hidden states
// are brought together from wherever they lie in the batch, and their gradients go back there.
//
// Logits are float32. Their gradient has the layer's type, for the products; that of float32 takes
// their place.
#pragma once
#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>
#include "hidden_sum.h"
#include "layer_kernels.h"
#include "products.h"
#include "tuning.h"
#include "distributed/parallel.h"
#include "jobs/plan.h"
#include "distributed/parallel.h"

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

class LayerProducts {
 public:
  LayerProducts(Job& job, const Place& place, const LayerArrays& arrays)
      : job_(job),
        layer_(*job.layer),
        place_(place),
        stream_(as_stream(place.stream)),
        arrays_(arrays),
        stride_(logits_stride(job.batch.vocab)),
        hidden_row_(size_t(layer_.hidden_size) * job.batch.element_bytes()) {
    layer_.memory_used = 0;
    if (!arrays.gradients.hidden.data || !job.parallel || !job.parallel->merges_rows()) return;
    Session& session = job.parallel->session;
    if (job.parallel->sums_hidden && session.has(Axis::vocab))
      hidden_sum_.emplace(session, place, layer_.hidden_size, job.parallel->wire(job.batch.dtype));
  }

  /// How many rows a chunk may have in the memory of the job.
  int64_t most_rows() const { return plan().chunk_rows; }
  /// For these chunks, in groups.
  void allocate(const std::vector<std::vector<RowRange>>& chunks) {
    size_t longest = 0;
    bool gathers = false, scatters = hidden_sum_.has_value();
    for (const std::vector<RowRange>& group : chunks)
      for (const RowRange& chunk : group) {
        longest = std::max(longest, size_t(chunk.size()));
        gathers = gathers || !in_one_piece(chunk, arrays_.hidden);
        scatters = scatters || !in_one_piece(chunk, arrays_.gradients.hidden.data);
      }
    auto take = [&](size_t bytes) {
      layer_.memory_used += aligned(bytes);
      return Workspace(place_.device, stream_, bytes);
    };
    const RowBytes row = row_bytes();
    logits_ = take(longest * row.logits);
    if (row.gradient) gradient_ = take(longest * row.gradient);
    if (gathers) hidden_ = take(longest * hidden_row_);
    if (row.hidden_gradient && scatters)
      hidden_gradient_ =
          take(longest * row.hidden_gradient + (hidden_sum_ ? hidden_sum_->padding() : 0));
    if (hidden_sum_) hidden_sum_->begin(int64_t(longest));
    if (bias_bytes()) bias_ = take(bias_bytes());
    const size_t product = plan().product;
    product_ = take(product);
    if (gathers || scatters) {
      const size_t bytes = job_.rows.scored.size() * sizeof(uint32_t);
      row_stage_ = PinnedBlock(bytes);
      rows_ = Workspace(place_.device, stream_, bytes);
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
  /// Once what the arrays hold is enqueued.
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

  /// Computes the logits of a chunk.
  void multiply(const RowRange& chunk) {
    if (!products_) return;
    if (!in_one_piece(chunk, arrays_.hidden))
      gather_rows(stream_, hidden_.data(), arrays_.hidden, indices(chunk.begin), chunk.size(),
                  hidden_row_);
    products_->logits(stream_, logits_.as<float>(), hidden_of(chunk), chunk.size());
  }
  const void* logits() const { return logits_.data(); }
  /// Where the gradient of the chunk's logits is to be written.
  void* gradient() const { return gradient_.data() ? gradient_.data() : logits_.data(); }
  /// Elements from a row of either to the next.
  int64_t stride() const { return stride_; }

  /// What some rows of the chunk add to the gradients of the layer; that of its logits is there,
  /// times 2^exponent.
  void add_gradients(const RowRange& chunk, const RowRange& range, int exponent) {
    // The products' factor is a float32: beyond it all that is not tiny overflows as it is.
    const float scale = std::ldexp(1.0f, std::min(-exponent, 127));
    const size_t in_chunk = size_t(range.begin - chunk.begin);
    const Dtype dtype = job_.batch.dtype;
    const char* const rows =
        static_cast<const char*>(gradient()) + in_chunk * size_t(stride_) * dtype_bytes(dtype);
    add_hidden_gradient(range, rows, scale);
    if (!products_) return;
    const LayerGradients& out = arrays_.gradients;
    if (out.weight.data) {
      const char* const hidden =
          static_cast<const char*>(hidden_of(chunk)) + in_chunk * hidden_row_;
      products_->weight_gradient(stream_, static_cast<float*>(out.weight.data), rows, hidden,
                                 range.size(), scale, out.weight.accumulate || weight_written_);
      weight_written_ = true;
    }
    if (out.bias.data) {
      sum_columns(stream_, static_cast<float*>(out.bias.data), rows, dtype, range.size(),
                  job_.batch.vocab, stride_, scale, out.bias.accumulate || bias_written_);
      bias_written_ = true;
    }
  }

  /// Once, before any gradient is added: what no product writes is 0.
  void zero_hidden_gradient() {
    const LayerGradients::Buffer& hidden = arrays_.gradients.hidden;
    if (hidden_zeroed_ || !hidden.data || hidden.accumulate || hidden.zeroed) return;
    const size_t rows = arrays_.packed ? job_.rows.scored.size() : size_t(job_.batch.rows);
    if (rows > 0)
      check(cudaMemsetAsync(hidden.data, 0, rows * hidden_row_, stream_), "cudaMemsetAsync");
    hidden_zeroed_ = true;
  }
  /// At the end, to all gradients.
  void write_zeros() {
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
  }

 private:
  /// What a row of a chunk takes of the workspace.
  struct RowBytes {
    size_t logits, gradient, hidden_gradient;
  };
  RowBytes row_bytes() const {
    const bool in_place = job_.batch.dtype == Dtype::float32 || !arrays_.gradients.any();
    return {.logits = size_t(stride_) * sizeof(float),
            .gradient = in_place ? 0 : size_t(stride_) * job_.batch.element_bytes(),
            .hidden_gradient = hidden_sum_                     ? hidden_sum_->row_bytes()
                               : arrays_.gradients.hidden.data ? hidden_row_
                                                               : 0};
  }
  WorkspacePlan plan() const {
    const RowBytes row = row_bytes();
    return {layer_.memory, row.logits + row.gradient + hidden_row_ + row.hidden_gradient,
            bias_bytes() + (hidden_sum_ ? hidden_sum_->padding() : 0) + 4 * 256,
            int64_t(job_.rows.scored.size())};
  }
  size_t bias_bytes() const {
    return arrays_.bias ? aligned(size_t(job_.batch.vocab) * sizeof(float)) : 0;
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
  /// The hidden states of a chunk, once `multiply` has brought them together.
  const void* hidden_of(const RowRange& chunk) const {
    return in_one_piece(chunk, arrays_.hidden) ? at_row(arrays_.hidden, chunk.begin)
                                               : hidden_.data();
  }

  void add_hidden_gradient(const RowRange& range, const void* gradient, float scale) {
    const LayerGradients::Buffer& out = arrays_.gradients.hidden;
    if (hidden_sum_) return add_hidden_gradient_of_all(range, gradient, scale);
    if (!out.data || !products_) return;
    const bool direct = in_one_piece(range, out.data);
    void* const to = direct ? at_row(out.data, range.begin) : hidden_gradient_.data();
    if (!direct && out.accumulate)
      gather_rows(stream_, to, out.data, indices(range.begin), range.size(), hidden_row_);
    products_->hidden_gradient(stream_, to, gradient, range.size(), scale, out.accumulate);
    if (!direct)
      scatter_rows(stream_, out.data, to, indices(range.begin), range.size(), hidden_row_);
  }
  /// The same over all processes that have other words.
  void add_hidden_gradient_of_all(const RowRange& range, const void* gradient, float scale) {
    float* const own = hidden_gradient_.as<float>();
    const size_t bytes = size_t(range.size() * layer_.hidden_size) * sizeof(float);
    if (products_) products_->hidden_gradient(stream_, own, gradient, range.size(), scale);
    else check(cudaMemsetAsync(own, 0, bytes, stream_), "cudaMemsetAsync");
    hidden_sum_->sum(own, range.size());
    write_rows(stream_, arrays_.gradients.hidden.data, job_.batch.dtype, own, indices(range.begin),
               range.size(), layer_.hidden_size, arrays_.gradients.hidden.accumulate);
  }

  Job& job_;
  OutputLayer& layer_;
  Place place_;
  cudaStream_t stream_;
  LayerArrays arrays_;
  int64_t stride_;
  size_t hidden_row_;
  bool hidden_zeroed_ = false, weight_written_ = false, bias_written_ = false;
  PinnedBlock row_stage_;
  Workspace logits_, gradient_, hidden_, hidden_gradient_, bias_, product_, rows_;
  std::optional<HiddenSum> hidden_sum_;  ///< where the gradient of hidden states is complete
  std::optional<Products> products_;     ///< none: the rank has no words
};

}  // namespace diralign::cuda
