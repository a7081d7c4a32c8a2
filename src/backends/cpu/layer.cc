#include "layer.h"
#include <cstdlib>
#include <cstring>
#include <new>
#include "jobs/plan.h"
#include "compute.h"
#include "kernels.h"
#include "loss_rows.h"
#include "team_rows.h"
#if defined(__unix__)
#include <sys/mman.h>
#endif

namespace diralign::cpu {

namespace {

/// Rows of logits at a time where the pairs ask for no more: packing a block of weights is then a
/// few percent of multiplying it, and the logits of common vocabularies stay within tens of
/// megabytes.
constexpr int64_t preferred_rows = 512;

/// Fewer idle rows than this between two active ones are multiplied along, with a gradient of 0,
/// unless their hidden states may not be finite: then 0 times them would be a NaN.
constexpr int64_t shortest_gap = 16, shortest_gap_beside_nan = 1;

/// Deferring the coefficients of a pair pays where a chunk has at least so many rows.
constexpr int64_t fewest_deferred_rows = 64;

/// Fewer multiplications than this are done sooner by one thread than by waking another.
constexpr int64_t multiplications_per_thread = int64_t{1} << 21;

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Straight from the system and back: malloc would keep tens of megabytes of what is freed, in an
// arena for each thread. AddressSanitizer watches the ends of what malloc gives.
#if defined(__unix__) && !defined(__SANITIZE_ADDRESS__)
void* take_pages(size_t bytes) {
  void* const memory = mmap(nullptr, std::max<size_t>(1, bytes), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw OutOfMemory(bytes);
  return memory;
}
void give_back(void* memory, size_t bytes) {
  if (memory) munmap(memory, std::max<size_t>(1, bytes));
}
#else
void* take_pages(size_t bytes) {
  void* const memory = std::aligned_alloc(64, std::max<size_t>(64, bytes));
  if (!memory) throw OutOfMemory(bytes);
  return memory;
}
void give_back(void* memory, size_t) { std::free(memory); }
#endif

/// The products of a job's layer, and the sums of its rows of logits, on a team of threads and in
/// one workspace.
class LayerEngine {
 public:
  /// `row_floats`: what a row takes of the workspace. The share of the threads' scratch does not
  /// depend on how many there are, so that the cut of the work does not.
  LayerEngine(Job& job, Pool& pool, int64_t row_floats)
      : job_(job),
        batch_(job.batch),
        layer_(*job.layer),
        rows_(kernel_set().rows[int(Dtype::float32)]),
        products_(kernel_set().products[int(job.batch.dtype)]),
        scratch_share_(scratch_share(layer_.memory, products_.scratch_bytes,
                                     size_t(row_floats) * sizeof(float))),
        team_(pool, team_size()) {
    hidden_rows_.reserve(job.rows.scored.size());
    for (const ScoredRow& r : job.rows.scored) hidden_rows_.push_back(r.row);
  }
  ~LayerEngine() { give_back(memory_, memory_bytes_); }
  LayerEngine(const LayerEngine&) = delete;
  LayerEngine& operator=(const LayerEngine&) = delete;

  /// Floats that the workspace may have.
  int64_t budget() const {
    return int64_t((layer_.memory / alignment * alignment - scratch_share_) / sizeof(float));
  }

  /// Once, before any product.
  float* allocate(int64_t floats) {
    const size_t scratch = size_t(team_.members()) * products_.scratch_bytes,
                 bytes =
                     size_t(round_up(int64_t(scratch + size_t(floats) * sizeof(float)), alignment));
    memory_ = take_pages(bytes);
    memory_bytes_ = bytes;
    advise_large_pages(memory_, bytes);
    layer_.memory_used = bytes;
    return reinterpret_cast<float*>(static_cast<char*>(memory_) + scratch);
  }

  Team& team() { return team_; }
  const ProductKernels& products() const { return products_; }
  bool cancelled() const { return job_.cancelled.load(std::memory_order_relaxed); }

  /// Logits of scored rows [range), and `take(i, row)` for each.
  template <class Take>
  void forward(const RowRange& range, float* z, Take&& take) {
    logits(range, z);
    for_rows(team_, job_, range.begin, range.end, false,
             [&](int64_t i, int) { take(i, z + (i - range.begin) * batch_.vocab); });
  }
  RowSums reduce(int64_t i, const float* row) const {
    return rows_.reduce(row, batch_.vocab, job_.rows.scored[size_t(i)].primary());
  }
  RowSums reduce_with_moment(int64_t i, const float* row) const {
    return rows_.reduce_with_moment(row, batch_.vocab, job_.rows.scored[size_t(i)].primary());
  }

  double mean(const float* row) const {
    return rows_.sum(row, batch_.vocab) / double(batch_.vocab);
  }

  void logits(const RowRange& range, float* z) {
    for_columns(batch_.vocab, 4, products_.tile_columns,
                [&](int64_t first, int64_t last, void* scratch) {
                  products_.logits(hidden(range), range.size(), layer_.weight, layer_.bias,
                                   layer_.hidden_size, first, last, z, batch_.vocab, scratch);
                });
  }

  /// Puts the gradient of row i in the place of its logits.
  void differentiate(float* row, const RowGradient& g) const {
    if (g.zero) {
      std::memset(row, 0, size_t(batch_.vocab) * dtype_bytes(products_.gradient));
      return;
    }
    products_.softmax(row, row, batch_.vocab, g.shift, g.factor);
    products_.store(row, g.label, g.label_value);
    if (g.second_label >= 0) products_.store(row, g.second_label, g.second_value);
  }

  /// out[i, h] for the rows of `range`, whose gradients are at `z`.
  void hidden_gradient(const RowRange& range, const float* z, float* out) {
    // Each part packs all of its rows' gradients or all of the weight: shared out by rows where
    // there are enough of them.
    const int64_t parts = std::clamp<int64_t>(range.size() / (4 * products_.tile_rows), 1,
                                              team_.members()),
                  columns = team_.members() / parts;
    const int64_t row_step = round_up((range.size() + parts - 1) / parts, products_.tile_rows);
    const int64_t column_step =
        round_up((layer_.hidden_size + columns - 1) / columns, products_.tile_columns);
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
    return std::max(scratch, std::min(memory / 4, memory - row) / alignment * alignment);
  }
  int team_size() const {
    const int64_t multiplications =
        int64_t(job_.rows.scored.size()) * batch_.vocab * layer_.hidden_size;
    const int64_t most = std::min<int64_t>(int64_t(scratch_share_ / products_.scratch_bytes),
                                           multiplications / multiplications_per_thread);
    return int(std::clamp<int64_t>(most, 1, std::max(1, job_.threads)));
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
    return static_cast<char*>(memory_) + size_t(member) * products_.scratch_bytes;
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
  const RowKernels& rows_;
  const ProductKernels& products_;
  size_t scratch_share_;
  Team team_;
  Array<int64_t> hidden_rows_;  // per scored row
  void* memory_ = nullptr;
  size_t memory_bytes_ = 0;
};

/// A loss from hidden states. The coefficients of a pair are known when its sequences are; what its
/// rows' gradients are then made of:
///   kept      the logits of the whole pair, which fit the workspace
///   deferred  products of the gradients of the log-probabilities alone; the coefficients follow
///   when they are known, in one pass over
///             the gradient of the weight
///   neither   the logits once more
class LayerLossRun {
 public:
  LayerLossRun(LossJob& job, Pool& pool)
      : job_(job),
        gradients_(job.layer_gradients),
        vocab_(job.batch.vocab),
        hidden_size_(job.layer->hidden_size),
        loss_(job.terms(), job.outputs),
        rows_(job),
        engine_(job, pool, row_floats()),
        weight_started_(gradients_.weight.accumulate),
        bias_started_(gradients_.bias.accumulate) {}

  void run() {
    plan();
    // The likelihood's coefficients follow from the counts.
    if (known()) loss_.evaluate(job_.logps, rows_.sft_logps(), 0, loss_.pairs());
    for (const Group& group : groups_) {
      if (!gradients_.any()) forward_only(group);
      else if (group.deferred_rows > 0) run_deferred(group);
      else run_exact(group);
      if (engine_.cancelled()) return;
    }
    shift_layer(exponent_);
    write_zeros();
    if (engine_.cancelled()) return;
    *job_.loss = loss_.finish(job_.logps, rows_.sft_logps(), job_.largest_coefficient());
    rows_.finish_measures();
  }

 private:
  struct Group : PairGroup {
    int64_t deferred_rows;  ///< of a chunk; 0: not deferred
  };

  int64_t row_floats() const { return vocab_ + (gradients_.hidden.data ? hidden_size_ : 0); }
  bool known() const { return job_.objective.likelihood_only(); }
  /// One number scales both of a pair's sequences.
  bool opposite() const {
    return job_.objective.settings.sft_weight == 0 &&
           opposite_coefficients(job_.objective.method, job_.objective.settings);
  }
  int64_t layer_floats() const {
    return (gradients_.weight.data ? vocab_ * hidden_size_ : 0) +
           (gradients_.bias.data ? vocab_ : 0);
  }
  int64_t deferred_floats(const PairGroup& group) const {
    return (opposite() ? 1 : 2) * layer_floats() +
           (gradients_.hidden.data ? group.rows.size() * hidden_size_ : 0);
  }

  void plan() {
    const int64_t most_rows = engine_.budget() / row_floats();
    chunk_rows_ = std::min(preferred_rows, most_rows);
    int64_t floats = 0;
    const bool together = job_.objective.coupled();
    for (const PairGroup& pairs :
         group_pairs(job_.rows, loss_.pairs(), most_rows, together, preferred_rows)) {
      Group group{pairs, 0};
      int64_t needed = std::min(chunk_rows_, pairs.rows.size()) * row_floats();
      if (pairs.kept && gradients_.any() && !known()) {
        needed = pairs.rows.size() * row_floats();
      } else if (gradients_.any() && !together && !known() && !job_.batch.sft_labels) {
        const int64_t rows =
            std::min(preferred_rows, (engine_.budget() - deferred_floats(pairs)) / vocab_);
        if (rows >= std::min(fewest_deferred_rows, pairs.rows.size())) {
          group.deferred_rows = rows;
          needed = deferred_floats(pairs) + rows * vocab_;
        }
      }
      floats = std::max(floats, needed);
      groups_.push_back(group);
    }
    workspace_ = engine_.allocate(floats);
  }

  void forward(const RowRange& range, float* z) {
    engine_.forward(range, z, [&](int64_t i, const float* row) {
      if (job_.asked.logits) rows_.take_mean(i, engine_.mean(row));
      rows_.take(i,
                 job_.asked.entropy ? engine_.reduce_with_moment(i, row) : engine_.reduce(i, row),
                 [row](int32_t v) { return row[v]; });
    });
  }
  void evaluate(const Group& group) {
    rows_.sum_pairs(group.first_pair, group.last_pair, loss_.pairs());
    loss_.evaluate(job_.logps, rows_.sft_logps(), group.first_pair, group.last_pair);
  }

  void forward_only(const Group& group) {
    for (const RowRange& chunk : cut_rows(group.rows, chunk_rows_)) {
      forward(chunk, workspace_);
      if (engine_.cancelled()) return;
    }
    evaluate(group);
  }

  void run_exact(const Group& group) {
    const std::vector<RowRange> chunks = cut_rows(
        group.rows, group.kept && !known() ? std::max<int64_t>(1, group.rows.size()) : chunk_rows_);
    for (const RowRange& chunk : chunks) {
      forward(chunk, workspace_);
      if (engine_.cancelled()) return;
      if (known()) backward(chunk, false);
    }
    evaluate(group);
    if (known()) return;
    for (const RowRange& chunk : chunks) {
      backward(chunk, !group.kept);
      if (engine_.cancelled()) return;
    }
  }

  /// From the logits of a chunk, which are at the start of the workspace or to be computed again,
  /// to its share of the gradients.
  void backward(const RowRange& chunk, bool again) {
    bool beside_nan = false;
    for (int64_t i = chunk.begin; i < chunk.end && !beside_nan; i++)
      beside_nan = rows_.is_nan(i) && idle(i);
    const std::vector<RowRange> active =
        active_ranges(chunk, beside_nan ? shortest_gap_beside_nan : shortest_gap,
                      [&](int64_t i) { return idle(i); });
    for (int64_t i = chunk.begin; i < chunk.end; i++)
      fit(largest_entry(rows_.coefficients(i, loss_)));
    int64_t done = chunk.begin;
    for (const RowRange& range : active) {
      zero_hidden(done, range.begin);
      done = range.end;
      float* z = workspace_ + (range.begin - chunk.begin) * vocab_;
      if (again) engine_.logits(range, z);
      for_rows(engine_.team(), job_, range.begin, range.end, true, [&](int64_t i, int) {
        engine_.differentiate(z + (i - range.begin) * vocab_,
                              rows_.gradient(i, scaled_coefficients(i)));
      });
      if (gradients_.hidden.data) {
        float* out =
            workspace_ + chunk.size() * vocab_ + (range.begin - chunk.begin) * hidden_size_;
        engine_.hidden_gradient(range, z, out);
        for_rows(engine_.team(), job_, range.begin, range.end, false, [&](int64_t i, int) {
          write_hidden(i, out + (i - range.begin) * hidden_size_, std::ldexp(1.0, exponent_));
        });
      }
      if (gradients_.weight.data)
        engine_.weight_gradient(range, z, std::exchange(weight_started_, true), weight());
      if (gradients_.bias.data)
        engine_.bias_gradient(range, z, std::exchange(bias_started_, true), bias());
      if (engine_.cancelled()) return;
    }
    zero_hidden(done, chunk.end);
  }
  /// Of row i, in the units of the sums.
  RowCoefficients scaled_coefficients(int64_t i) const {
    const RowCoefficients c = rows_.coefficients(i, loss_);
    return exponent_ == 0 ? c : RowCoefficients{scaled(c.align), scaled(c.likelihood)};
  }
  double scaled(double coefficient) const { return std::ldexp(finite(coefficient), -exponent_); }
  /// Makes room in the units of the sums for a coefficient, before anything of its size is added.
  void fit(double largest) {
    const int needed = gradient_exponent(largest);
    if (needed <= exponent_) return;
    shift_layer(exponent_ - needed);
    exponent_ = needed;
  }
  void shift_layer(int exponent) {
    if (gradients_.weight.data && weight_started_)
      engine_.shift(weight(), vocab_ * hidden_size_, exponent);
    if (gradients_.bias.data && bias_started_) engine_.shift(bias(), vocab_, exponent);
  }
  bool idle(int64_t i) const { return rows_.coefficients(i, loss_).idle(); }

  /// One pair, in chunks whose gradients carry what is known of the coefficients. Where the
  /// coefficients are opposite that is all but one factor; otherwise each sequence has a sum of its
  /// own.
  void run_deferred(const Group& group) {
    const int64_t chosen = group.first_pair, rejected = chosen + loss_.pairs();
    const BatchTerms terms = job_.terms();
    const bool one = opposite();
    auto normalizer_of = [&](int64_t s) {
      return normalizer(terms.sequence(job_.logps, s), terms.settings);
    };
    const double weights[2] = {one ? 1 / normalizer_of(chosen) : 1,
                               one ? -1 / normalizer_of(rejected) : 1};
    float* const hidden = workspace_;
    float* const sums = hidden + (gradients_.hidden.data ? group.rows.size() * hidden_size_ : 0);
    float* const z = sums + (one ? 1 : 2) * layer_floats();
    auto weight_sum = [&](int k) { return sums + k * layer_floats(); };
    auto bias_sum = [&](int k) {
      return weight_sum(k) + (gradients_.weight.data ? vocab_ * hidden_size_ : 0);
    };
    bool started[2] = {};
    for (int side = 0; side < 2; side++) {
      const int64_t s = side == 0 ? chosen : rejected;
      const int sum = one ? 0 : side;
      for (const RowRange& chunk :
           cut_rows({job_.rows.begin[size_t(s)], job_.rows.end[size_t(s)]}, group.deferred_rows)) {
        forward(chunk, z);
        for_rows(engine_.team(), job_, chunk.begin, chunk.end, true, [&](int64_t i, int) {
          engine_.differentiate(z + (i - chunk.begin) * vocab_,
                                rows_.gradient(i, {weights[side], 0}));
        });
        if (gradients_.hidden.data)
          engine_.hidden_gradient(chunk, z,
                                  hidden + (chunk.begin - group.rows.begin) * hidden_size_);
        if (gradients_.weight.data)
          engine_.weight_gradient(chunk, z, started[sum], weight_sum(sum));
        if (gradients_.bias.data) engine_.bias_gradient(chunk, z, started[sum], bias_sum(sum));
        started[sum] = true;
        if (engine_.cancelled()) return;
      }
    }
    evaluate(group);
    double factors[2];
    for (int side = 0; side < 2; side++) {
      const int64_t s = side == 0 ? chosen : rejected;
      const double coefficient = job_.outputs.coefficients[s] + loss_.likelihood_coefficient(s);
      factors[side] =
          finite(gradient_coefficient(coefficient, job_.gradient_scale) / weights[side]);
    }
    // An empty sequence has no coefficient; the other one has the factor then.
    if (one)
      factors[0] = factors[1] = job_.rows.counts[size_t(chosen)] > 0 ? factors[0] : factors[1];
    if (gradients_.hidden.data)
      for_rows(engine_.team(), job_, group.rows.begin, group.rows.end, false, [&](int64_t i, int) {
        const int side = job_.rows.scored[size_t(i)].sequence == chosen ? 0 : 1;
        write_hidden(i, hidden + (i - group.rows.begin) * hidden_size_, factors[side]);
      });
    for (int sum = 0; sum < (one ? 1 : 2); sum++) {
      if (!started[sum] || factors[sum] == 0) continue;
      fit(std::fabs(factors[sum]));
      const float factor = float(scaled(factors[sum]));
      if (gradients_.weight.data)
        engine_.add_scaled(weight_sum(sum), weight(), vocab_ * hidden_size_, factor,
                           std::exchange(weight_started_, true));
      if (gradients_.bias.data)
        engine_.add_scaled(bias_sum(sum), bias(), vocab_, factor,
                           std::exchange(bias_started_, true));
    }
  }

  float* weight() const { return static_cast<float*>(gradients_.weight.data); }
  float* bias() const { return static_cast<float*>(gradients_.bias.data); }
  size_t hidden_bytes() const { return size_t(hidden_size_) * job_.batch.element_bytes(); }
  char* hidden_row(int64_t row) const {
    return static_cast<char*>(gradients_.hidden.data) + size_t(row) * hidden_bytes();
  }
  void zero_hidden_row(int64_t row) const {
    if (gradients_.hidden.data && !gradients_.hidden.accumulate && !gradients_.hidden.zeroed)
      std::memset(hidden_row(row), 0, hidden_bytes());
  }
  /// Scored rows [begin, end) whose coefficients are 0.
  void zero_hidden(int64_t begin, int64_t end) const {
    for (int64_t i = begin; i < end; i++) zero_hidden_row(job_.rows.scored[size_t(i)].row);
  }
  /// Uses `x` up.
  void write_hidden(int64_t i, float* x, double factor) const {
    const int64_t row = job_.rows.scored[size_t(i)].row;
    const int exponent = gradient_exponent(std::fabs(factor));
    engine_.shift_floats(x, hidden_size_, exponent);
    const float rest = float(std::ldexp(factor, -exponent));
    if (rest == 0) zero_hidden_row(row);
    else
      engine_.products().finish(x, hidden_row(row), hidden_size_, rest,
                                gradients_.hidden.accumulate);
  }

  /// What no row contributed to.
  void write_zeros() {
    for (const int64_t row : job_.rows.ignored) zero_hidden_row(row);
    if (weight() && !weight_started_ && !gradients_.weight.zeroed)
      std::memset(weight(), 0, size_t(vocab_ * hidden_size_) * sizeof(float));
    if (bias() && !bias_started_ && !gradients_.bias.zeroed)
      std::memset(bias(), 0, size_t(vocab_) * sizeof(float));
  }

  LossJob& job_;
  const LayerGradients& gradients_;
  int64_t vocab_, hidden_size_;
  BatchLoss loss_;
  LossRows rows_;
  LayerEngine engine_;
  std::vector<Group> groups_;
  int64_t chunk_rows_ = 0;
  float* workspace_ =
      nullptr;  // a chunk's logits, then its rows of the hidden gradient; deferred: see there
  bool weight_started_, bias_started_;  // there is something to add to
  int exponent_ = 0;  // the sums of the weight and the bias are in units of 2^exponent_
};

/// `take(i, row)` for every scored row, in chunks: logits have the bits that a loss computes.
template <class Take>
void for_logits(Job& job, LayerEngine& engine, Take&& take) {
  const int64_t rows = std::min(preferred_rows, engine.budget() / job.batch.vocab);
  const RowRange all{0, int64_t(job.rows.scored.size())};
  float* const z = engine.allocate(std::min(rows, all.size()) * job.batch.vocab);
  for (const RowRange& chunk : cut_rows(all, rows)) {
    engine.forward(chunk, z, take);
    if (engine.cancelled()) return;
  }
}

}  // namespace

void run_layer(LossJob& job, Pool& pool) { LayerLossRun(job, pool).run(); }

void run_layer(SequenceLogpsJob& job, Pool& pool) {
  LayerEngine engine(job, pool, job.batch.vocab);
  Array<double> row_logps(job.rows.scored.size());
  for_logits(job, engine, [&](int64_t i, const float* row) {
    row_logps[size_t(i)] = row_statistics(engine.reduce(i, row)).logp;
  });
  write_sequence_logps(job, row_logps);
}

void run_layer(TokenLogpsJob& job, Pool& pool) {
  LayerEngine engine(job, pool, job.batch.vocab);
  for_logits(job, engine, [&](int64_t i, const float* row) {
    write_token(job, job.rows.scored[size_t(i)].row, engine.reduce_with_moment(i, row));
  });
}

}  // namespace diralign::cpu
