// The jobs of the CPU backend from logits to loss and gradient, against a straightforward computation in long double.
// kernel_set() is what runs: DIRALIGN_ISA chooses another.
#include "cpu/compute.h"
#include "cpu/kernels.h"
#include <chrono>
#include <limits>
#include <memory>
#include <thread>
#include "check.h"
#include "reference.h"

using namespace diralign;
using namespace diralign::cpu;
using reference::Real;
using Mode = GradientOutput::Mode;

namespace {

constexpr const char* dtype_names[] = {"float32", "float16", "bfloat16"};
constexpr int32_t ignored = -100;

double load(Dtype d, const void* data, int64_t i) { return double(kernel_set().rows[int(d)].load(data, i)); }

/// Distance of two neighbouring numbers of the dtype where x lies.
double unit(Dtype d, double x) {
  const int digits = d == Dtype::float32 ? 24 : d == Dtype::float16 ? 11 : 8, smallest = d == Dtype::float16 ? -14 : -126;
  const int exponent = x == 0 ? smallest : std::max(smallest, std::ilogb(x));
  return std::ldexp(1.0, exponent - digits + 1);
}

/// What a test asks for; the rest is drawn at random.
struct Shape {
  Dtype dtype = Dtype::float32;
  int64_t sequences = 4, tokens = 5, vocab = 100;
  int64_t padding = 0;       ///< columns between the vocabulary and the next row
  bool packed = false, sft_labels = false, last_row_padded = true;
  double ignore = 0.3;       ///< share of rows without a label
  double spread = 2;
  uint64_t seed = 1;
};

/// A batch in memory of its own. Rows that do not count, and padding, hold NaN: nothing may come of them.
struct Problem {
  Shape shape;
  Objective objective;
  int64_t rows, stride, elements;
  std::vector<char> logits;
  std::vector<int32_t> labels, sft_labels, offsets;
  std::vector<double> references;

  Problem(const Objective& o, const Shape& s) : shape(s), objective(o), rows(s.sequences * s.tokens), stride(s.vocab + s.padding) {
    check::Random random(s.seed);
    if (s.packed) {
      offsets.push_back(0);
      for (int64_t i = 0; i < s.sequences; i++) offsets.push_back(offsets.back() + int32_t(random.below(2 * s.tokens + 1)));
      rows = offsets.back();
    }
    elements = rows == 0 ? 0 : rows * stride - (s.last_row_padded ? 0 : s.padding);
    const int64_t pairs = o.likelihood_only() ? s.sequences : s.sequences / 2;
    for (int64_t r = 0; r < rows; r++) {
      labels.push_back(random.uniform() < s.ignore ? ignored : int32_t(random.below(s.vocab)));
      // The same label, another, or one of the two terms only.
      const int64_t kind = random.below(4);
      sft_labels.push_back(kind == 0 ? ignored : kind == 1 ? labels.back() : int32_t(random.below(s.vocab)));
    }
    const float nan_value = std::numeric_limits<float>::quiet_NaN();
    logits.resize(size_t(elements) * dtype_bytes(s.dtype));
    for (int64_t i = 0; i < elements; i++) {
      const int64_t r = i / stride;
      const bool scored = labels[size_t(r)] != ignored || (s.sft_labels && sft_labels[size_t(r)] != ignored && sequence_of(r) < pairs);
      kernel_set().rows[int(s.dtype)].store(logits.data(), i, scored && i % stride < s.vocab ? float(s.spread * random.normal()) : nan_value);
    }
    if (o.uses_reference())
      for (int64_t i = 0; i < s.sequences; i++) references.push_back(-double(s.tokens) * random.uniform(1, 6));
  }

  int64_t sequence_of(int64_t row) const {
    if (!shape.packed) return row / shape.tokens;
    int64_t s = 0;
    while (offsets[size_t(s) + 1] <= row) s++;
    return s;
  }
  int64_t pairs() const { return objective.likelihood_only() ? shape.sequences : shape.sequences / 2; }

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
    return b;
  }
};

struct Run {
  Mode mode = Mode::dense;
  bool in_place = false;
  bool zeroed = false;
  int threads = 1;
};

/// All that a LossJob writes.
struct Result {
  double loss = 0;
  std::vector<double> losses, rewards, coefficients, metrics, logps;
  std::vector<char> gradient;  // without its guards
  std::vector<float> row_scale;

  bool same(const Result& other) const {
    auto equal = [](const auto& a, const auto& b) { return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof a[0]) == 0); };
    return check::same_bits(loss, other.loss) && equal(losses, other.losses) && equal(rewards, other.rewards) && equal(coefficients, other.coefficients) &&
           equal(metrics, other.metrics) && equal(logps, other.logps) && equal(gradient, other.gradient) && equal(row_scale, other.row_scale);
  }
};

constexpr size_t guard = 64;
constexpr char guard_byte = 0x5a;
bool guards_intact(const std::vector<char>& memory) {
  for (size_t i = 0; i < guard; i++)
    if (memory[i] != guard_byte || memory[memory.size() - 1 - i] != guard_byte) return false;
  return true;
}

/// Prepares a job the way the addon does; `memory` is the gradient between two guards.
struct Prepared {
  LossJob job;
  Result result;
  std::vector<char> memory;
  std::vector<float> scale;  // with one guard at each end

  Prepared(const Problem& p, const Run& run) {
    const size_t sequences = size_t(p.shape.sequences), bytes = p.logits.size();
    job.batch = p.batch();
    CHECK(!list_rows(job.batch, p.pairs(), job.rows));
    job.objective = p.objective;
    job.reference = p.references;
    job.threads = run.threads;
    result.losses.assign(size_t(p.pairs()), -1);
    result.rewards.assign(sequences, -1);
    result.coefficients.assign(sequences, -1);
    result.metrics.assign(metric_count, -1);
    result.logps.assign(sequences, -1);
    job.outputs = {result.losses.data(), result.rewards.data(), result.coefficients.data(), result.metrics.data()};
    job.logps = result.logps.data();
    job.loss = &result.loss;
    job.gradient.mode = run.mode;
    if (run.mode == Mode::none) return;
    memory.assign(bytes + 2 * guard, guard_byte);
    job.gradient.data = memory.data() + guard;
    if (run.in_place) {
      std::copy(p.logits.begin(), p.logits.end(), memory.begin() + guard);
      job.batch.logits = job.gradient.data;
    } else if (run.zeroed) {
      std::fill(memory.begin() + guard, memory.end() - guard, char(0));
    }
    job.gradient.zeroed = run.zeroed;
    job.gradient.elements = p.elements;
    if (run.mode == Mode::factored) {
      scale.assign(size_t(p.rows) + 2, 0);
      scale.front() = scale.back() = 12345;
      job.gradient.row_scale = scale.data() + 1;
    }
  }
  Result finish(Pool& pool) {
    cpu::run(job, pool);
    if (!memory.empty()) {
      CHECK(guards_intact(memory), "wrote outside the gradient");
      result.gradient.assign(memory.begin() + guard, memory.end() - guard);
    }
    if (!scale.empty()) {
      CHECK(scale.front() == 12345 && scale.back() == 12345, "wrote outside the row scales");
      result.row_scale.assign(scale.begin() + 1, scale.end() - 1);
    }
    return result;
  }
};

Result compute(const Problem& p, const Run& run) {
  const auto pool = Pool::shared();
  const std::vector<char> before = p.logits;
  const Result result = Prepared(p, run).finish(*pool);
  CHECK(p.logits == before, "the logits were written to");
  return result;
}

/// The truth of a problem: log-probabilities, loss and its derivatives, in long double.
struct Truth {
  std::vector<Real> logsumexp, row_logps;  // per row
  std::vector<Real> logps, sft_logps;
  std::vector<int32_t> counts, sft_counts;
  std::vector<Real> losses, coefficients, likelihood;
  Real loss;

  explicit Truth(const Problem& p) {
    const size_t sequences = size_t(p.shape.sequences), rows = size_t(p.rows);
    logsumexp.assign(rows, 0), row_logps.assign(rows, 0);
    logps.assign(sequences, 0), sft_logps.assign(sequences, 0);
    counts.assign(sequences, 0), sft_counts.assign(sequences, 0);
    for (int64_t r = 0; r < p.rows; r++) {
      const int64_t s = p.sequence_of(r);
      const int32_t label = p.labels[size_t(r)];
      const int32_t sft = s >= p.pairs() ? ignored : p.shape.sft_labels ? p.sft_labels[size_t(r)] : label;
      if (label == ignored && sft == ignored) continue;
      Real max = -INFINITY, sum = 0;
      for (int64_t v = 0; v < p.shape.vocab; v++) max = std::max(max, Real(load(p.shape.dtype, p.logits.data(), r * p.stride + v)));
      for (int64_t v = 0; v < p.shape.vocab; v++) sum += expl(load(p.shape.dtype, p.logits.data(), r * p.stride + v) - max);
      logsumexp[size_t(r)] = max + logl(sum);
      auto logp = [&](int32_t y) { return load(p.shape.dtype, p.logits.data(), r * p.stride + y) - logsumexp[size_t(r)]; };
      if (label != ignored) {
        row_logps[size_t(r)] = logp(label);
        logps[size_t(s)] += logp(label);
        counts[size_t(s)]++;
      }
      if (sft != ignored) {
        sft_logps[size_t(s)] += logp(sft);
        sft_counts[size_t(s)]++;
      }
    }
    reference::Batch batch(p.objective, logps, sft_logps, counts, sft_counts, p.references.empty() ? nullptr : p.references.data());
    losses = batch.losses();
    loss = batch.loss();
    for (size_t s = 0; s < sequences; s++) {
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
      coefficients.push_back(counts[s] == 0 ? 0 : by(batch.logps));
      // One set of labels: the derivative by it is the sum of both terms'; of `sft` the likelihood is the objective itself.
      likelihood.push_back(sft_counts[s] == 0 || p.objective.likelihood_only() ? 0 : by(batch.sft_logps));
    }
  }
};

/// Numbers per pair and per sequence.
void check_numbers(const char* what, const Problem& p, const Truth& truth, const Result& result) {
  for (size_t s = 0; s < truth.logps.size(); s++) {
    CHECK(fabsl(result.logps[s] - truth.logps[s]) <= 1e-6L * (truth.counts[s] + fabsl(truth.logps[s])), "%s: sequence %zu: %.17g, not %.17Lg", what, s, result.logps[s], truth.logps[s]);
    CHECK(fabsl(result.coefficients[s] - truth.coefficients[s]) <= 1e-5L * fabsl(truth.coefficients[s]) + 1e-12L, "%s: coefficient of sequence %zu: %.17g, not %.17Lg", what, s,
          result.coefficients[s], truth.coefficients[s]);
  }
  for (size_t i = 0; i < truth.losses.size(); i++)
    CHECK(fabsl(result.losses[i] - truth.losses[i]) <= 1e-6L * std::max(Real(1), fabsl(truth.losses[i])), "%s: pair %zu: %.17g, not %.17Lg", what, i, result.losses[i], truth.losses[i]);
  CHECK(fabsl(result.loss - truth.loss) <= 1e-6L * std::max(Real(1), fabsl(truth.loss)), "%s: loss %.17g, not %.17Lg", what, result.loss, truth.loss);
  CHECK(result.metrics[nonfinite] == 0, "%s", what);
  (void)p;
}

/// Every element of the gradient, given the sequences' coefficients, which check_numbers() has held against the truth; in the factored form times the row's scale is the gradient, so the scale is checked, and the rest
/// with a coefficient of 1.
void check_gradient(const char* what, const Problem& p, const Truth& truth, const Result& result, Mode mode) {
  const Dtype d = p.shape.dtype;
  const bool factored = mode == Mode::factored;
  for (int64_t r = 0; r < p.rows; r++) {
    const int64_t s = p.sequence_of(r);
    const int32_t label = p.labels[size_t(r)];
    const int32_t sft = s >= p.pairs() ? ignored : p.shape.sft_labels ? p.sft_labels[size_t(r)] : label;
    const bool scored = label != ignored || sft != ignored;
    const double align = label == ignored ? 0 : result.coefficients[size_t(s)], likelihood = sft == ignored ? 0 : double(truth.likelihood[size_t(s)]);
    const double scale = std::fabs(align) + std::fabs(likelihood);
    if (factored) {
      const double expected = scored ? align + likelihood : 0;
      CHECK(std::fabs(double(result.row_scale[size_t(r)]) - expected) <= 1e-5 * std::fabs(expected) + 1e-12, "%s: scale of row %lld: %g, not %g", what, (long long)r, double(result.row_scale[size_t(r)]), expected);
    }
    for (int64_t v = 0; v < p.stride && r * p.stride + v < p.elements; v++) {
      const double value = load(d, result.gradient.data(), r * p.stride + v);
      if (!scored || v >= p.shape.vocab) {
        CHECK(value == 0 && !std::signbit(value), "%s: row %lld column %lld counts for nothing and has %g", what, (long long)r, (long long)v, value);
        continue;
      }
      const Real probability = expl(load(d, p.logits.data(), r * p.stride + v) - truth.logsumexp[size_t(r)]), rest = 1 - probability;
      double expected = double(align * (v == label ? rest : -probability) + likelihood * (v == sft ? rest : -probability));
      // 1 - p in place of p for the entry of a label.
      double bound = 1e-5 * (std::fabs(align) * double(v == label ? rest : probability) + std::fabs(likelihood) * double(v == sft ? rest : probability)) + 1e-9 * scale;
      if (factored) {
        expected = double(v == label ? rest : -probability);
        bound = 1e-5 * std::fabs(expected) + 1e-9;
      }
      CHECK(std::fabs(value - expected) <= bound + 0.51 * unit(d, expected), "%s: row %lld column %lld (label %d, %d): %.9g, not %.9g", what, (long long)r, (long long)v, label, sft, value, expected);
    }
  }
}

std::string describe(const Problem& p, const Run& run) {
  return check::text("%s %s %s%s%s%s%s V %lld stride %lld threads %d", p.objective.info().name, dtype_names[int(p.shape.dtype)],
                     run.mode == Mode::dense ? "dense" : run.mode == Mode::factored ? "factored" : "none", run.in_place ? " in place" : "", run.zeroed ? " zeroed" : "",
                     p.shape.packed ? " packed" : "", p.shape.sft_labels ? " sftLabels" : "", (long long)p.shape.vocab, (long long)p.stride, run.threads);
}

void check_all_modes(const Problem& p, std::vector<int> threads = {1}) {
  const Truth truth(p);
  for (Mode mode : {Mode::none, Mode::dense, Mode::factored}) {
    if (mode == Mode::factored && p.shape.sft_labels) continue;
    Result first;
    for (bool in_place : {false, true}) {
      for (bool zeroed : {false, true}) {
        if ((in_place && zeroed) || (mode == Mode::none && (in_place || zeroed))) continue;
        for (int t : threads) {
          const Run run{mode, in_place, zeroed, t};
          const std::string what = describe(p, run);
          const Result result = compute(p, run);
          if (first.losses.empty() || mode == Mode::none) {
            check_numbers(what.c_str(), p, truth, result);
            if (mode != Mode::none) check_gradient(what.c_str(), p, truth, result, mode);
            first = result;
          } else if (mode == Mode::factored && in_place && p.shape.dtype == Dtype::float32) {
            // Its exponentials were taken before the maximum was known: other roundings.
            check_numbers(what.c_str(), p, truth, result);
            check_gradient(what.c_str(), p, truth, result, mode);
          } else {
            CHECK(result.same(first), "%s: differs", what.c_str());
          }
        }
      }
    }
  }
}

constexpr Dtype dtypes[] = {Dtype::float32, Dtype::float16, Dtype::bfloat16};

}  // namespace

TEST(compute_every_method) {
  for (int m = 0; m < method_count(); m++) {
    for (int k = 0; k < 4; k++) {
      Objective o = reference::objective(m, k % 2 ? 0.1 : 0.7);
      Shape shape;
      shape.sequences = o.likelihood_only() ? 3 : 6;
      shape.vocab = 61;
      shape.padding = k % 2 ? 3 : 0;
      shape.packed = k >= 2;
      shape.dtype = dtypes[(m + k) % 3];
      shape.seed = uint64_t(10 * m + k);
      if (!o.likelihood_only() && k > 0) {
        o.settings.sft_weight = 0.6;
        o.settings.sft_reduction = k == 2;
        shape.sft_labels = k == 3;
      }
      check_all_modes(Problem(o, shape));
    }
  }
}

TEST(compute_shapes) {
  const Objective o = [] {
    Objective with_sft = reference::objective("dpo", 0.2);
    with_sft.settings.sft_weight = 0.5;
    return with_sft;
  }();
  for (Dtype d : dtypes) {
    uint64_t seed = 1000;
    for (int64_t vocab : {1, 2, 7, 31, 32, 33, 511, 512, 513, 1025}) {
      for (int64_t padding : {0, 1, 37}) {
        Shape shape;
        shape.dtype = d;
        shape.vocab = vocab;
        shape.padding = padding;
        shape.last_row_padded = vocab % 2 == 0;
        shape.tokens = 3;
        shape.packed = padding == 1;
        shape.sft_labels = padding == 37;
        shape.seed = seed++;
        check_all_modes(Problem(o, shape));
      }
    }
  }
}

TEST(compute_edges) {
  for (const char* name : {"dpo", "orpo", "sft", "aot"}) {
    const Objective o = reference::objective(name, 0.3);
    Shape shape;
    shape.seed = 77;
    shape.tokens = 0;  // no rows at all
    check_all_modes(Problem(o, shape));
    shape.tokens = 4;
    shape.ignore = 2;  // every row ignored
    check_all_modes(Problem(o, shape));
    shape.ignore = 0;
    shape.tokens = 1;
    check_all_modes(Problem(o, shape));
    shape.sequences = 0;
    check_all_modes(Problem(o, shape));
  }
}

TEST(compute_threads_give_the_same_bits) {
  for (Dtype d : dtypes) {
    Objective o = reference::objective("orpo", 0.5);
    o.settings.sft_weight = 1;
    Shape shape;
    shape.dtype = d;
    shape.sequences = 8;
    shape.tokens = 90;
    shape.vocab = 1003;
    shape.padding = 5;
    shape.seed = 5;
    const Problem p(o, shape);
    for (Mode mode : {Mode::none, Mode::dense, Mode::factored}) {
      for (bool in_place : {false, true}) {
        if (mode == Mode::none && in_place) continue;
        const Result one = compute(p, {mode, in_place, false, 1});
        for (int threads = 2; threads <= 8; threads++) CHECK(compute(p, {mode, in_place, false, threads}).same(one), "%s", describe(p, {mode, in_place, false, threads}).c_str());
      }
    }
  }
}

TEST(compute_many_groups) {
  // More rows than one group of pairs holds, and a gradient large enough to be written past the caches.
  Shape shape;
  shape.sequences = 40;
  shape.tokens = 64;
  shape.vocab = 2003;
  shape.padding = 1;
  shape.ignore = 0.1;
  shape.seed = 6;
  const Problem p(reference::objective("simpo", 2), shape);
  check_all_modes(p, {2});
  const Result one = compute(p, {Mode::dense, false, false, 1});
  CHECK(compute(p, {Mode::dense, false, false, 4}).same(one));
  CHECK(compute(p, {Mode::dense, true, false, 3}).same(one));
}

TEST(compute_pair_alone) {
  // A pair's log-probabilities and gradient do not depend on its company, up to the mean over pairs (here a power of two).
  Shape shape;
  shape.sequences = 8;
  shape.seed = 7;
  shape.vocab = 700;
  const Problem p(reference::objective("dpo", 0.1), shape);
  const Result all = compute(p, {});
  const size_t rows = size_t(shape.tokens * p.stride) * dtype_bytes(shape.dtype);
  for (size_t pair = 0; pair < 4; pair++) {
    Problem alone = p;
    alone.shape.sequences = 2;
    alone.rows = 2 * shape.tokens;
    alone.elements = alone.rows * alone.stride;
    auto both = [&](const auto& v, size_t n) {
      auto result = v;
      result.assign(v.begin() + int64_t(pair * n), v.begin() + int64_t((pair + 1) * n));
      result.insert(result.end(), v.begin() + int64_t((pair + 4) * n), v.begin() + int64_t((pair + 5) * n));
      return result;
    };
    alone.logits = both(p.logits, rows);
    alone.labels = both(p.labels, size_t(shape.tokens));
    alone.references = both(p.references, 1);
    const Result one = compute(alone, {});
    CHECK(one.losses[0] == all.losses[pair] && one.logps == both(all.logps, 1) && one.rewards == both(all.rewards, 1));
    CHECK(one.coefficients[0] == 4 * all.coefficients[pair] && one.coefficients[1] == 4 * all.coefficients[pair + 4]);
    const std::vector<char> expected = both(all.gradient, rows);
    for (int64_t i = 0; i < alone.elements; i++) CHECK(load(shape.dtype, one.gradient.data(), i) == 4 * load(shape.dtype, expected.data(), i), "at %lld", (long long)i);
  }
}

TEST(compute_not_finite) {
  // A NaN or +inf in a scored row is its pair's alone; a -inf there is a probability of 0.
  for (Dtype d : dtypes) {
    Shape shape;
    shape.dtype = d;
    shape.ignore = 0;
    shape.seed = 8;
    const Problem sound(reference::objective("dpo", 0.1), shape);
    const int64_t bad_row = shape.tokens * 3 + 1;  // of the rejected sequence of pair 1
    for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      for (bool in_place : {false, true}) {
        Problem p = sound;
        const int64_t column = (p.labels[size_t(bad_row)] + 40) % shape.vocab;
        kernel_set().rows[int(d)].store(p.logits.data(), bad_row * p.stride + column, bad);
        const Result before = compute(sound, {Mode::dense, in_place, false, 1}), after = compute(p, {Mode::dense, in_place, false, 1});
        CHECK(std::isnan(after.losses[1]) && std::isnan(after.loss) && after.losses[0] == before.losses[0], "%s %g", dtype_names[int(d)], double(bad));
        CHECK(after.metrics[nonfinite] == 1 && std::isnan(after.logps[3]) && after.logps[1] == before.logps[1]);
        const size_t sequence = size_t(shape.tokens * p.stride) * dtype_bytes(d);
        for (size_t s : {size_t{0}, size_t{2}}) CHECK(std::memcmp(after.gradient.data() + s * sequence, before.gradient.data() + s * sequence, sequence) == 0);
      }
    }
    // Half of the vocabulary ruled out, in another pattern on every row: the truth knows what to do with -inf.
    Problem p = sound;
    for (int64_t r = 0; r < p.rows; r++)
      for (int64_t v = 0; v < shape.vocab; v++)
        if ((v + r) % 2 && v != p.labels[size_t(r)]) kernel_set().rows[int(d)].store(p.logits.data(), r * p.stride + v, -std::numeric_limits<float>::infinity());
    check_all_modes(p);
    // Large logits: the probabilities are 0 and 1, and the arithmetic is not what rounds.
    for (int64_t i = 0; i < p.elements; i++) kernel_set().rows[int(d)].store(p.logits.data(), i, float((i * 7919 % 131) * 500 - 32000));
    check_all_modes(p);
  }
}

TEST(compute_cancellation) {
  const auto pool = Pool::shared();
  Shape shape;
  shape.sequences = 16;
  shape.tokens = 60;
  shape.vocab = 900;
  shape.seed = 9;
  const Problem p(reference::objective("dpo", 0.1), shape);
  for (Mode mode : {Mode::none, Mode::dense, Mode::factored}) {
    // Before it starts: nothing is written.
    Prepared stopped(p, {mode, false, false, 2});
    stopped.job.cancelled = true;
    const Result result = stopped.finish(*pool);
    CHECK(result.loss == 0);
    for (char byte : result.gradient)
      if (byte != guard_byte) {
        CHECK(byte == guard_byte);
        break;
      }
    // At any moment: it returns, and the guards are what finish() checks.
    for (int delay = 0; delay < 8; delay++) {
      Prepared running(p, {mode, delay % 2 == 1 && mode != Mode::none, false, 3});
      std::thread canceller([&] {
        std::this_thread::sleep_for(std::chrono::microseconds(100 * delay));
        running.job.cancelled = true;
      });
      running.finish(*pool);
      canceller.join();
    }
  }
}

TEST(compute_sequence_logps) {
  const auto pool = Pool::shared();
  for (Dtype d : dtypes) {
    for (bool packed : {false, true}) {
      Shape shape;
      shape.dtype = d;
      shape.packed = packed;
      shape.vocab = 777;
      shape.padding = 2;
      shape.tokens = 30;
      shape.seed = 11;
      const Problem p(reference::objective("cpo", 0.1), shape);
      const Result trained = compute(p, {});
      for (int threads : {1, 4}) {
        std::vector<double> logps(size_t(shape.sequences), -1);
        SequenceLogpsJob job;
        job.batch = p.batch();
        job.threads = threads;
        job.logps = logps.data();
        CHECK(!list_rows(job.batch, shape.sequences / 2, job.rows));
        cpu::run(job, *pool);
        // The same bits as training's: where policy and reference are one model the margin is 0.
        CHECK(logps == trained.logps, "%s threads %d", dtype_names[int(d)], threads);
      }
      // Taken as a reference, they give exactly ln 2.
      Problem same = p;
      same.objective = reference::objective("dpo", 0.1);
      same.references = trained.logps;
      const Result start = compute(same, {});
      for (double loss : start.losses) CHECK(loss == std::log(2.0), "%.17g", loss);
      CHECK(start.metrics[rewards_margins] == 0);
    }
  }
}

TEST(compute_token_logps) {
  const auto pool = Pool::shared();
  for (Dtype d : dtypes) {
    Shape shape;
    shape.dtype = d;
    shape.vocab = 900;
    shape.padding = 1;
    shape.tokens = 40;
    shape.seed = 12;
    const Problem p(reference::objective("sft", 1), shape);
    const Truth truth(p);
    std::vector<double> first;
    for (int threads : {1, 3}) {
      const size_t rows = size_t(p.rows);
      std::vector<double> out(3 * rows, 0);
      TokenLogpsJob job;
      job.batch = p.batch();
      job.threads = threads;
      job.logps = out.data(), job.logsumexp = out.data() + rows, job.entropy = out.data() + 2 * rows;
      CHECK(!list_rows(job.batch, shape.sequences, job.rows));
      cpu::run(job, *pool);
      for (size_t r = 0; r < rows; r++) {
        if (p.labels[r] == ignored) {
          CHECK(out[r] == 0 && out[rows + r] == 0 && out[2 * rows + r] == 0, "row %zu", r);
          continue;
        }
        Real entropy = 0;
        for (int64_t v = 0; v < shape.vocab; v++) {
          const Real logp = load(d, p.logits.data(), int64_t(r) * p.stride + v) - truth.logsumexp[r];
          entropy -= expl(logp) * logp;
        }
        CHECK(fabsl(out[r] - truth.row_logps[r]) <= 1e-6L, "row %zu: %.17g, not %.17Lg", r, out[r], truth.row_logps[r]);
        CHECK(fabsl(out[rows + r] - truth.logsumexp[r]) <= 1e-6L, "row %zu: %.17g, not %.17Lg", r, out[rows + r], truth.logsumexp[r]);
        CHECK(fabsl(out[2 * rows + r] - entropy) <= 2e-6L * std::max(Real(1), entropy), "row %zu: %.17g, not %.17Lg", r, out[2 * rows + r], entropy);
      }
      if (first.empty()) first = out;
      CHECK(out == first);
    }
  }
}

TEST(compute_concurrent_jobs) {
  // Several environments compute at once on the one pool: each gets its own bits.
  std::vector<std::thread> environments;
  for (uint64_t e = 0; e < 4; e++)
    environments.emplace_back([e] {
      Shape shape;
      shape.sequences = 6;
      shape.tokens = 50;
      shape.vocab = 801;
      shape.seed = 20 + e;
      const Problem p(reference::objective("simpo", 2), shape);
      const Result one = compute(p, {Mode::dense, false, false, 1});
      for (int k = 0; k < 4; k++) CHECK(compute(p, {Mode::dense, k % 2 == 1, false, 2 + k}).same(one));
    });
  for (std::thread& t : environments) t.join();
}

TEST(compute_large_pages) {
  // Advice only: the contents stay, whatever the alignment and size.
  std::vector<char> memory(size_t{5} << 20, 7);
  for (size_t offset : {0, 1, 4096, 12345})
    for (size_t bytes : {size_t{0}, size_t{1}, size_t{4096}, size_t{3} << 20}) advise_large_pages(memory.data() + offset, bytes);
  for (char byte : memory)
    if (byte != 7) {
      CHECK(byte == 7);
      break;
    }
}
