// Batches drawn at random with their truth in long double, and what a backend's results are held
// to: for every backend alike.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>
#include "check.h"
#include "backends/cpu/kernels.h"
#include "jobs/job.h"
#include "reference.h"

namespace problems {

using namespace diralign;
using reference::Real;
using Mode = GradientOutput::Mode;

constexpr Dtype dtypes[] = {Dtype::float32, Dtype::float16, Dtype::bfloat16};
constexpr int32_t ignored = -100;

// Storage of the dtype, not arithmetic: the processor's conversions have tests of their own.
inline double load(Dtype d, const void* data, int64_t i) {
  return double(cpu::kernel_set().rows[int(d)].load(data, i));
}
inline void store(Dtype d, void* data, int64_t i, float value) {
  cpu::kernel_set().rows[int(d)].store(data, i, value);
}

/// Distance of two neighbouring numbers of the dtype where x lies.
inline double unit(Dtype d, double x) {
  const int digits = d == Dtype::float32   ? 24
                     : d == Dtype::float16 ? 11
                                           : 8,
            smallest = d == Dtype::float16 ? -14 : -126;
  const int exponent = x == 0 ? smallest : std::max(smallest, std::ilogb(x));
  return std::ldexp(1.0, exponent - digits + 1);
}

/// What a test asks for; the rest is drawn at random.
struct Shape {
  Dtype dtype = Dtype::float32;
  int64_t sequences = 4, tokens = 5, vocab = 100;
  int64_t padding = 0;  ///< columns between the vocabulary and the next row
  bool packed = false, sft_labels = false, last_row_padded = true;
  double ignore = 0.3;  ///< share of rows without a label
  double spread = 2;
  uint64_t seed = 1;
  bool fields = false;  ///< all that the method takes of a batch; otherwise what it needs
};

/// A batch in memory of its own. Rows that do not count, and padding, hold NaN: nothing may come of
/// them.
struct Problem {
  Shape shape;
  Objective objective;
  int64_t rows, stride, elements;
  std::vector<char> logits;
  std::vector<int32_t> labels, sft_labels, offsets, groups;
  std::vector<double> references;
  reference::OwnFields fields;

  Problem(const Objective& o, const Shape& s)
      : shape(s), objective(o), rows(s.sequences * s.tokens), stride(s.vocab + s.padding) {
    check::Random random(s.seed);
    if (s.packed) {
      offsets.push_back(0);
      for (int64_t i = 0; i < s.sequences; i++)
        offsets.push_back(offsets.back() + int32_t(random.below(2 * s.tokens + 1)));
      rows = offsets.back();
    }
    elements = rows == 0 ? 0 : rows * stride - (s.last_row_padded ? 0 : s.padding);
    const bool grouped = reference::facts(o).arity == Arity::group;
    for (int32_t first = 0, size = 0; grouped && first <= s.sequences; first += ++size)
      groups.push_back(first);
    if (grouped && groups.back() < s.sequences) groups.push_back(int32_t(s.sequences));
    check::Random own(s.seed + 77);
    fields = reference::random_fields(o.method, units(), rows, s.fields, own);
    for (int64_t r = 0; r < rows; r++) {
      labels.push_back(random.uniform() < s.ignore ? ignored : int32_t(random.below(s.vocab)));
      // The same label, another, or one of the two terms only.
      const int64_t kind = random.below(4);
      sft_labels.push_back(kind == 0   ? ignored
                           : kind == 1 ? labels.back()
                                       : int32_t(random.below(s.vocab)));
    }
    const float nan_value = std::numeric_limits<float>::quiet_NaN();
    logits.resize(size_t(elements) * dtype_bytes(s.dtype));
    for (int64_t i = 0; i < elements; i++) {
      const int64_t r = i / stride;
      const bool scored =
          labels[size_t(r)] != ignored ||
          (s.sft_labels && sft_labels[size_t(r)] != ignored && likely(sequence_of(r)));
      store(s.dtype, logits.data(), i,
            scored && i % stride < s.vocab ? float(s.spread * random.normal()) : nan_value);
    }
    if (o.uses_reference)
      for (int64_t i = 0; i < s.sequences; i++)
        references.push_back(-double(s.tokens) * random.uniform(1, 6));
  }

  int64_t sequence_of(int64_t row) const {
    if (!shape.packed) return row / shape.tokens;
    int64_t s = 0;
    while (offsets[size_t(s) + 1] <= row) s++;
    return s;
  }
  Units units() const {
    return units_of(objective.method, shape.sequences, groups.data(), int64_t(groups.size()) - 1);
  }
  int64_t pairs() const { return units().count; }
  bool likely(int64_t s) const { return is_likely(units(), fields.view(), s); }
  /// The label of the likelihood term.
  int32_t sft_label(int64_t row) const {
    return !likely(sequence_of(row)) ? ignored
           : shape.sft_labels        ? sft_labels[size_t(row)]
                                     : labels[size_t(row)];
  }
  double row_weight(int64_t row) const { return field(fields.view().token_weights, row, 1); }

  Batch batch() const {
    Batch b;
    b.logits = logits.data();
    b.dtype = shape.dtype;
    b.rows = rows;
    b.vocab = shape.vocab;
    b.row_stride = stride;
    b.sequences = shape.sequences;
    b.offsets = shape.packed ? offsets.data() : nullptr;
    b.labels = labels.data();
    b.sft_labels = shape.sft_labels ? sft_labels.data() : nullptr;
    b.ignore_index = ignored;
    b.fields = fields.view();
    return b;
  }
};

struct Run {
  Mode mode = Mode::dense;
  bool in_place = false;
  bool zeroed = false;
  int threads = 1;
};

/// All that a Job writes.
struct Result {
  double loss = 0;
  std::vector<double> losses, rewards, coefficients, metrics, logps;
  std::vector<char> gradient;  // without its guards
  std::vector<float> row_scale;

  /// The same bits, but for those of a NaN: its sign is that of the operand which came first.
  bool same(const Result& other) const {
    auto same_number = [](auto a, auto b) {
      return check::same_bits(a, b) || (std::isnan(double(a)) && std::isnan(double(b)));
    };
    auto equal = [&](const auto& a, const auto& b) {
      return std::equal(a.begin(), a.end(), b.begin(), b.end(), same_number);
    };
    return same_number(loss, other.loss) && equal(losses, other.losses) &&
           equal(rewards, other.rewards) && equal(coefficients, other.coefficients) &&
           equal(metrics, other.metrics) && equal(logps, other.logps) &&
           equal(gradient, other.gradient) && equal(row_scale, other.row_scale);
  }
};

constexpr size_t guard = 64;
constexpr char guard_byte = 0x5a;
inline bool guards_intact(const std::vector<char>& memory) {
  for (size_t i = 0; i < guard; i++)
    if (memory[i] != guard_byte || memory[memory.size() - 1 - i] != guard_byte) return false;
  return true;
}

/// Prepares a job the way the addon does; `memory` is the gradient between two guards.
struct Prepared {
  Job job;
  Result result;
  std::vector<char> memory;
  std::vector<float> scale;  // with one guard at each end

  Prepared(const Problem& p, const Run& run) {
    const size_t sequences = size_t(p.shape.sequences), bytes = p.logits.size();
    job.batch = p.batch();
    CHECK(!list_rows(job.batch, p.units(), job.rows));
    LossWanted& loss = job.loss.emplace();
    loss.objectives.assign(1, p.objective);
    loss.reference = Array<double>(p.references.begin(), p.references.end());
    job.threads = run.threads;
    result.losses.assign(size_t(p.pairs()), -1);
    result.rewards.assign(sequences, -1);
    result.coefficients.assign(sequences, -1);
    result.metrics.assign(metric_count, -1);
    result.logps.assign(sequences, -1);
    loss.outputs = {result.losses.data(), result.rewards.data(), result.coefficients.data(),
                    result.metrics.data(), &result.loss};
    job.logps = result.logps.data();
    GradientOutput& gradient = job.gradients.logits;
    gradient.mode = run.mode;
    if (run.mode == Mode::none) return;
    memory.assign(bytes + 2 * guard, guard_byte);
    gradient.data = memory.data() + guard;
    if (run.in_place) {
      std::copy(p.logits.begin(), p.logits.end(), memory.begin() + guard);
      job.batch.logits = gradient.data;
    } else if (run.zeroed) {
      std::fill(memory.begin() + guard, memory.end() - guard, char(0));
    }
    gradient.zeroed = run.zeroed;
    gradient.elements = p.elements;
    if (run.mode == Mode::factored) {
      scale.assign(size_t(p.rows) + 2, 0);
      scale.front() = scale.back() = 12345;
      gradient.row_scale = scale.data() + 1;
    }
  }
  /// What the job left, once it has run.
  Result collect() {
    if (!memory.empty()) {
      CHECK(guards_intact(memory), "wrote outside the gradient");
      result.gradient.assign(memory.begin() + guard, memory.end() - guard);
      const Dtype d = job.batch.dtype;
      for (int64_t i = 0; i < job.gradients.logits.elements; i++)
        if (std::isnan(load(d, result.gradient.data(), i)))
          store(d, result.gradient.data(), i, std::numeric_limits<float>::quiet_NaN());
    }
    if (!scale.empty()) {
      CHECK(scale.front() == 12345 && scale.back() == 12345, "wrote outside the row scales");
      result.row_scale.assign(scale.begin() + 1, scale.end() - 1);
    }
    return result;
  }
};

/// The truth of a problem: log-probabilities, loss and its derivatives, in long double.
struct Truth {
  std::vector<Real> logsumexp, row_logps;  // per row
  std::vector<Real> logps, sft_logps;
  std::vector<double> lengths, sft_lengths;
  std::vector<Real> losses, coefficients, likelihood;
  Real loss;

  /// `derivatives`: without them `coefficients` and `likelihood` stay 0; they take a loss of the
  /// batch for each sequence.
  explicit Truth(const Problem& p, bool derivatives = true) {
    const size_t sequences = size_t(p.shape.sequences), rows = size_t(p.rows);
    logsumexp.assign(rows, 0), row_logps.assign(rows, 0);
    logps.assign(sequences, 0), sft_logps.assign(sequences, 0);
    lengths.assign(sequences, 0), sft_lengths.assign(sequences, 0);
    for (int64_t r = 0; r < p.rows; r++) {
      const int64_t s = p.sequence_of(r);
      const int32_t label = p.labels[size_t(r)], sft = p.sft_label(r);
      const double weight = p.row_weight(r);
      if (label == ignored && sft == ignored) continue;
      Real max = -INFINITY, sum = 0;
      for (int64_t v = 0; v < p.shape.vocab; v++)
        max = std::max(max, Real(load(p.shape.dtype, p.logits.data(), r * p.stride + v)));
      for (int64_t v = 0; v < p.shape.vocab; v++)
        sum += expl(load(p.shape.dtype, p.logits.data(), r * p.stride + v) - max);
      logsumexp[size_t(r)] = max + logl(sum);
      auto logp = [&](int32_t y) {
        return load(p.shape.dtype, p.logits.data(), r * p.stride + y) - logsumexp[size_t(r)];
      };
      if (label != ignored) {
        row_logps[size_t(r)] = logp(label);
        logps[size_t(s)] += weight * logp(label);
        lengths[size_t(s)] += weight;
      }
      if (sft != ignored) {
        sft_logps[size_t(s)] += weight * logp(sft);
        sft_lengths[size_t(s)] += weight;
      }
    }
    reference::Batch batch(p.objective, p.units(), p.fields.view(), logps, sft_logps, lengths,
                           sft_lengths, p.references.empty() ? nullptr : p.references.data());
    losses = batch.losses();
    loss = batch.loss();
    coefficients.assign(sequences, 0), likelihood.assign(sequences, 0);
    for (size_t s = 0; s < sequences && derivatives; s++) {
      auto by = [&](std::vector<Real>& values) {
        const Real kept = values[s];
        const Real d = reference::derivative(
            [&](Real x) {
              values[s] = x;
              return batch.loss();
            },
            kept, 1e-3L * std::max(Real(1e-3), std::min(Real(1), fabsl(kept))));
        values[s] = kept;
        return d;
      };
      coefficients[s] = lengths[s] == 0 ? 0 : by(batch.logps);
      // One set of labels: the derivative by it is the sum of both terms'; of `sft` the likelihood
      // is the objective itself.
      likelihood[s] =
          sft_lengths[s] == 0 || reference::facts(p.objective).is_linear ? 0 : by(batch.sft_logps);
    }
  }
};

/// Numbers per pair and per sequence.
inline void check_numbers(const char* what, const Truth& truth, const Result& result) {
  for (size_t s = 0; s < truth.logps.size(); s++) {
    CHECK(fabsl(result.logps[s] - truth.logps[s]) <=
              1e-6L * (truth.lengths[s] + fabsl(truth.logps[s])),
          "%s: sequence %zu: %.17g, not %.17Lg", what, s, result.logps[s], truth.logps[s]);
    CHECK(fabsl(result.coefficients[s] - truth.coefficients[s]) <=
              1e-5L * fabsl(truth.coefficients[s]) + 1e-12L,
          "%s: coefficient of sequence %zu: %.17g, not %.17Lg", what, s, result.coefficients[s],
          truth.coefficients[s]);
  }
  for (size_t i = 0; i < truth.losses.size(); i++)
    CHECK(fabsl(result.losses[i] - truth.losses[i]) <=
              1e-6L * std::max(Real(1), fabsl(truth.losses[i])),
          "%s: pair %zu: %.17g, not %.17Lg", what, i, result.losses[i], truth.losses[i]);
  CHECK(fabsl(result.loss - truth.loss) <= 1e-6L * std::max(Real(1), fabsl(truth.loss)),
        "%s: loss %.17g, not %.17Lg", what, result.loss, truth.loss);
  CHECK(result.metrics[nonfinite] == 0, "%s", what);
}

/// Every element of the gradient, given the sequences' coefficients, which check_numbers() has held
/// against the truth. In the factored form the row's scale is checked, and the rest with a
/// coefficient of 1.
inline void check_gradient(const char* what, const Problem& p, const Truth& truth,
                           const Result& result, Mode mode) {
  const Dtype d = p.shape.dtype;
  const bool factored = mode == Mode::factored;
  for (int64_t r = 0; r < p.rows; r++) {
    const int64_t s = p.sequence_of(r);
    const int32_t label = p.labels[size_t(r)], sft = p.sft_label(r);
    const bool scored = label != ignored || sft != ignored;
    const double weight = p.row_weight(r),
                 align = label == ignored ? 0 : weight * result.coefficients[size_t(s)],
                 likelihood = sft == ignored ? 0 : weight * double(truth.likelihood[size_t(s)]);
    const double scale = std::fabs(align) + std::fabs(likelihood);
    if (factored) {
      const double expected = scored ? align + likelihood : 0;
      CHECK(std::fabs(double(result.row_scale[size_t(r)]) - expected) <=
                1e-5 * std::fabs(expected) + 1e-12,
            "%s: scale of row %lld: %g, not %g", what, (long long)r,
            double(result.row_scale[size_t(r)]), expected);
    }
    for (int64_t v = 0; v < p.stride && r * p.stride + v < p.elements; v++) {
      const double value = load(d, result.gradient.data(), r * p.stride + v);
      if (!scored || v >= p.shape.vocab) {
        CHECK(value == 0 && !std::signbit(value),
              "%s: row %lld column %lld counts for nothing and has %g", what, (long long)r,
              (long long)v, value);
        continue;
      }
      const Real probability =
                     expl(load(d, p.logits.data(), r * p.stride + v) - truth.logsumexp[size_t(r)]),
                 rest = 1 - probability;
      double expected = double(align * (v == label ? rest : -probability) +
                               likelihood * (v == sft ? rest : -probability));
      // 1 - p in place of p for the entry of a label.
      double bound = 1e-5 * (std::fabs(align) * double(v == label ? rest : probability) +
                             std::fabs(likelihood) * double(v == sft ? rest : probability)) +
                     1e-9 * scale;
      if (factored) {
        expected = double(v == label ? rest : -probability);
        bound = 1e-5 * std::fabs(expected) + 1e-9;
      }
      CHECK(std::fabs(value - expected) <= bound + 0.51 * unit(d, expected),
            "%s: row %lld column %lld (label %d, %d): %.9g, not %.9g", what, (long long)r,
            (long long)v, label, sft, value, expected);
    }
  }
}

inline std::string describe(const Problem& p, const Run& run) {
  return check::text("%s %s %s%s%s%s%s%s V %lld stride %lld threads %d",
                     reference::name_of(p.objective), dtype_names[int(p.shape.dtype)],
                     run.mode == Mode::dense      ? "dense"
                     : run.mode == Mode::factored ? "factored"
                                                  : "none",
                     run.in_place ? " in place" : "", run.zeroed ? " zeroed" : "",
                     p.shape.packed ? " packed" : "", p.shape.sft_labels ? " sftLabels" : "",
                     p.shape.fields ? " fields" : "", (long long)p.shape.vocab, (long long)p.stride,
                     run.threads);
}

}  // namespace problems
