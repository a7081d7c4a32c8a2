// The products of a job's layer, and the sums of its rows of logits, on a team of threads and in
// one workspace.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include "kernels.h"
#include "pages.h"
#include "share.h"
#include "tuning.h"
#include "jobs/plan.h"

namespace diralign::cpu {

inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

class LayerProducts {
 public:
  /// `row_floats`: what a row takes of the workspace. The share of the threads' scratch does not
  /// depend on how many there are, so that the cut of the work does not.
  LayerProducts(Job& job, Pool& pool, int64_t row_floats)
      : job_(job),
        batch_(job.batch),
        layer_(*job.layer),
        transforms_(!job.batch.transform.is_identity()),
        factors_(factors_of(job.batch.transform)),
        rows_(kernel_set().rows[int(Dtype::float32)]),
        products_(kernel_set().products[int(job.batch.dtype)]),
        scratch_share_(scratch_share(layer_.memory, products_.scratch_bytes,
                                     size_t(row_floats) * sizeof(float))),
        team_(pool, team_size()) {
    hidden_rows_.reserve(job.rows.scored.size());
    for (const ScoredRow& r : job.rows.scored) hidden_rows_.push_back(r.row);
  }
  LayerProducts(const LayerProducts&) = delete;
  LayerProducts& operator=(const LayerProducts&) = delete;

  /// Floats that the workspace may have.
  int64_t budget() const {
    return int64_t((layer_.memory / alignment * alignment - scratch_share_) / sizeof(float));
  }

  /// Once, before any product.
  float* allocate(int64_t floats) {
    const size_t scratch = size_t(team_.members()) * products_.scratch_bytes,
                 bytes =
                     size_t(round_up(int64_t(scratch + size_t(floats) * sizeof(float)), alignment));
    memory_ = Pages(bytes);
    layer_.memory_used = bytes;
    return reinterpret_cast<float*>(static_cast<char*>(memory_.data()) + scratch);
  }

  Team& team() { return team_; }
  const ProductKernels& kernels() const { return products_; }
  bool cancelled() const { return job_.stopped(); }

  /// Logits of scored rows [range), and `take(i, row)` for each.
  template <class Take>
  void forward(const RowRange& range, float* z, Take&& take) {
    logits(range, z);
    for_rows(team_, job_, range.begin, range.end, false,
             [&](int64_t i, int) { take(i, z + (i - range.begin) * batch_.vocab); });
  }
  RowSums reduce(int64_t i, const float* row, bool with_moment) const {
    return reduce_columns(row, batch_.vocab, job_.rows.scored[size_t(i)].primary(), with_moment);
  }
  RowSums reduce_columns(const float* logits, int64_t columns, int32_t label,
                         bool with_moment) const {
    if (transforms_) return rows_.reduce_transformed(logits, columns, label, factors_, with_moment);
    const auto reduce = with_moment ? rows_.reduce_with_moment : rows_.reduce;
    return reduce(logits, columns, label);
  }
  double squares(const float* logits, int64_t columns, int32_t label, float max) const {
    return rows_.squares(logits, columns, label, factors_, max);
  }

  double sum(const float* logits, int64_t columns) const { return rows_.sum(logits, columns); }
  double mean(const float* row) const { return sum(row, batch_.vocab) / double(batch_.vocab); }

  void logits(const RowRange& range, float* z) {
    for_columns(batch_.vocab, 4, products_.tile_columns,
                [&](int64_t first, int64_t last, void* scratch) {
                  products_.logits(hidden(range), range.size(), layer_.weight, layer_.bias,
                                   layer_.hidden_size, first, last, z, batch_.vocab, scratch);
                });
  }

  /// Puts the gradient of row i in the place of its logits.
  void differentiate(float* row, const RowGradient& g) const {
    if (g.zero || batch_.vocab == 0) {
      std::memset(row, 0, size_t(batch_.vocab) * dtype_bytes(products_.gradient));
      return;
    }
    auto label_entry = [&](int32_t label, float value) {
      return transforms_ ? batch_.transform.by_logit(value, row[label]) : value;
    };
    const float own = g.label < 0 ? 0 : label_entry(g.label, g.label_value),
                second = g.second_label < 0 ? 0 : label_entry(g.second_label, g.second_value);
    if (transforms_ || g.bend != 0)
      products_.transformed_gradient(row, row, batch_.vocab, factors_, g);
    else products_.softmax(row, row, batch_.vocab, g.shift, g.factor);
    if (g.label >= 0) products_.store(row, g.label, own);
    if (g.second_label >= 0) products_.store(row, g.second_label, second);
  }

  /// out[i, h] for the rows of `range`, whose gradients are at `z`.
  void hidden_gradient(const RowRange& range, const float* z, float* out) {
    if (batch_.vocab == 0) {  // of a shard without columns
      std::memset(out, 0, size_t(range.size() * layer_.hidden_size) * sizeof(float));
      return;
    }
    const auto [row_step, column_step] = cut_hidden_gradient(range.size());
    const int64_t row_parts = (range.size() + row_step - 1) / row_step,
                  column_parts = (layer_.hidden_size + column_step - 1) / column_step;
    team_.run(row_parts * column_parts, [&](int64_t item, int member) {
      if (cancelled()) return;
      const int64_t row = item / column_parts * row_step,
                    column = item % column_parts * column_step;
      products_.hidden_gradient(z + row * batch_.vocab, gradient_stride(),
                                std::min(row_step, range.size() - row), batch_.vocab, layer_.weight,
                                layer_.hidden_size, column,
                                std::min(column + column_step, layer_.hidden_size),
                                out + row * layer_.hidden_size, scratch(member));
    });
  }
  void weight_gradient(const RowRange& range, const float* z, bool accumulate, float* out) {
    for_columns(
        batch_.vocab, 8, products_.tile_rows, [&](int64_t first, int64_t last, void* scratch) {
          products_.weight_gradient(z, gradient_stride(), range.size(), hidden(range),
                                    layer_.hidden_size, first, last, accumulate, out, scratch);
        });
  }
  void bias_gradient(const RowRange& range, const float* z, bool accumulate, float* out) {
    for_columns(batch_.vocab, 4, products_.tile_columns, [&](int64_t first, int64_t last, void*) {
      products_.bias_gradient(z, gradient_stride(), range.size(), first, last, accumulate, out);
    });
  }
  /// x *= 2^exponent, float32; what overflows is infinite, and 0 stays 0.
  void shift(float* x, int64_t n, int exponent) {
    for_columns(n, 16, 1024, [&](int64_t first, int64_t last, void*) {
      shift_floats(x + first, last - first, exponent);
    });
  }
  static void shift_floats(float* x, int64_t n, int exponent) {
    constexpr int most = 100;  // a normal number either way
    for (int step; exponent != 0; exponent -= step) {
      step = std::clamp(exponent, -most, most);
      kernel_set().products[int(Dtype::float32)].finish(x, x, n, std::ldexp(1.0f, step), false);
    }
  }
  /// out (+)= factor * x, float32.
  void add_scaled(const float* x, float* out, int64_t n, float factor, bool accumulate) {
    const ProductKernels& float32 = kernel_set().products[int(Dtype::float32)];
    for_columns(n, 16, 1024, [&](int64_t first, int64_t last, void*) {
      float32.finish(x + first, out + first, last - first, factor, accumulate);
    });
  }

 private:
  static constexpr int64_t alignment = 64;

  static size_t scratch_share(size_t memory, size_t scratch, size_t row) {
    memory = memory / alignment * alignment;
    const size_t needed = size_t(round_up(int64_t(scratch + row), alignment));
    if (memory < needed) throw WorkspaceTooSmall(memory, needed);
    return std::max<size_t>(scratch, std::min(memory / 4, memory - row) / alignment * alignment);
  }
  int team_size() const {
    const int64_t multiplications =
        int64_t(job_.rows.scored.size()) * batch_.vocab * layer_.hidden_size;
    const int64_t most = std::min<int64_t>(int64_t(scratch_share_ / products_.scratch_bytes),
                                           multiplications / multiplications_per_thread);
    return int(std::clamp<int64_t>(most, 1, std::max(1, job_.threads)));
  }

  /// Rows and columns of a thread's part of the product that sums over words. Each part packs its
  /// columns of the weight once, and its rows' gradients once for a block of columns.
  std::pair<int64_t, int64_t> cut_hidden_gradient(int64_t rows) const {
    std::pair<int64_t, int64_t> best;
    int64_t least = INT64_MAX;
    for (int64_t parts = 1; parts <= team_.members(); parts++) {
      const int64_t columns = team_.members() / parts;
      const int64_t row_step = round_up((rows + parts - 1) / parts, products_.tile_rows),
                    column_step = round_up((layer_.hidden_size + columns - 1) / columns,
                                           products_.tile_columns),
                    blocks = (column_step + products_.block_columns - 1) / products_.block_columns;
      const int64_t cost =
          row_step * column_step + multiplications_per_packed * (column_step + row_step * blocks);
      if (cost >= least) continue;
      least = cost;
      best = {row_step, column_step};
    }
    return best;
  }

  /// Calls `part(first, last, scratch)` for parts of [0, n), about `each` for every thread, cut at
  /// multiples of `unit`.
  template <class Part>
  void for_columns(int64_t n, int64_t each, int64_t unit, Part&& part) {
    const int64_t count = int64_t(team_.members()) * each,
                  step = round_up(std::max<int64_t>(1, (n + count - 1) / count), unit);
    team_.run((n + step - 1) / step, [&](int64_t item, int member) {
      if (!cancelled()) part(item * step, std::min(n, (item + 1) * step), scratch(member));
    });
  }

  void* scratch(int member) const {
    return static_cast<char*>(memory_.data()) + size_t(member) * products_.scratch_bytes;
  }
  RowsView hidden(const RowRange& range) const {
    return {layer_.hidden, layer_.hidden_size, hidden_rows_.data() + range.begin};
  }
  /// In elements: rows are as far apart as the logits'.
  int64_t gradient_stride() const {
    return batch_.vocab * int64_t(sizeof(float) / dtype_bytes(products_.gradient));
  }

  Job& job_;
  const Batch& batch_;
  OutputLayer& layer_;
  const bool transforms_;
  const TransformFactors factors_;
  const RowKernels& rows_;
  const ProductKernels& products_;
  size_t scratch_share_;
  Team team_;
  Array<int64_t> hidden_rows_;  // per scored row
  Pages memory_;
};

}  // namespace diralign::cpu
