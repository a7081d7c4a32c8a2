// What every backend must do, whatever it runs on: the test bodies, given a backend.
#pragma once
#include <functional>
#include "problems.h"

namespace problems {

/// One way to have a backend do the jobs. Its results are the same bits every time.
struct Way {
  std::string name;
  std::function<Result(const Problem&, const Run&)> loss;
  std::function<std::vector<double>(const Problem&)> sequence_logps;
  /// Per row the log-probability; then the logsumexp of all rows; then their entropy. 0 where there
  /// is none.
  std::function<std::vector<double>(const Problem&)> token_logps;
};

/// Ways that must agree bit for bit.
struct JobRunner {
  std::vector<Way> ways;
  /// factored, in place, float32: the exponentials are taken before the maximum is known.
  bool rounds_differently_in_place = false;
  /// Every how many of a case's problems are tried, and whether gradients in memory that is zero
  /// already are.
  int step = 1;
  bool zeroed = true;

  Result loss(const Problem& p, const Run& run) const { return ways[0].loss(p, run); }
};

/// All modes by all ways, against the truth.
inline void check_all_modes(const JobRunner& backend, const Problem& p) {
  const Truth truth(p);
  for (Mode mode : {Mode::none, Mode::dense, Mode::factored}) {
    if (mode == Mode::factored && p.shape.sft_labels) continue;
    Result first;
    bool checked = false;
    for (bool in_place : {false, true}) {
      for (bool zeroed : {false, true}) {
        if ((zeroed && (in_place || !backend.zeroed)) ||
            (mode == Mode::none && (in_place || zeroed)))
          continue;
        for (const Way& way : backend.ways) {
          const Run run{mode, in_place, zeroed, 1};
          const std::string what = way.name + ": " + describe(p, run);
          const Result result = way.loss(p, run);
          const bool rounded_differently = backend.rounds_differently_in_place &&
                                           mode == Mode::factored && in_place &&
                                           p.shape.dtype == Dtype::float32;
          if (checked && !rounded_differently) {
            CHECK(result.same(first), "%s: differs", what.c_str());
            continue;
          }
          check_numbers(what.c_str(), truth, result);
          if (mode != Mode::none) check_gradient(what.c_str(), p, truth, result, mode);
          first = result;
          checked = true;
        }
      }
    }
  }
}

inline void every_method(const JobRunner& backend) {
  for (int m = 0; m < method_count(); m++) {
    for (int k = 0; k < 4; k++) {
      if ((4 * m + k) % backend.step != 0) continue;
      Objective o = reference::objective(m, k % 2 ? 0.1 : 0.7);
      Shape shape;
      shape.sequences = reference::facts(o).is_linear ? 3 : 6;
      shape.vocab = 61;
      shape.padding = k % 2 ? 3 : 0;
      shape.packed = k >= 2;
      shape.dtype = dtypes[(m + k) % 3];
      shape.seed = uint64_t(10 * m + k);
      if (reference::takes_likelihood(o) && k > 0) {
        o.settings.sft_weight = 0.6;
        o.settings.sft_reduction = k == 2;
        shape.sft_labels = k == 3;
      }
      shape.fields = k == 3;
      check_all_modes(backend, Problem(o, shape));
    }
  }
}

inline void shapes(const JobRunner& backend, const std::vector<int64_t>& vocabs) {
  const Objective o = [] {
    Objective with_sft = reference::objective("dpo", 0.2);
    with_sft.settings.sft_weight = 0.5;
    return with_sft;
  }();
  for (Dtype d : dtypes) {
    uint64_t seed = 1000;
    int problem = int(d);
    for (int64_t vocab : vocabs) {
      for (int64_t padding : {0, 1, 37}) {
        if (problem++ % backend.step != 0) continue;
        Shape shape;
        shape.dtype = d;
        shape.vocab = vocab;
        shape.padding = padding;
        shape.last_row_padded = vocab % 2 == 0;
        shape.tokens = 3;
        shape.packed = padding == 1;
        shape.sft_labels = padding == 37;
        shape.seed = seed++;
        check_all_modes(backend, Problem(o, shape));
      }
    }
  }
}

inline void edges(const JobRunner& backend) {
  for (const char* name : {"dpo", "orpo", "sft", "aot"}) {
    const Objective o = reference::objective(name, 0.3);
    Shape shape;
    shape.seed = 77;
    shape.tokens = 0;  // no rows at all
    check_all_modes(backend, Problem(o, shape));
    shape.tokens = 4;
    shape.ignore = 2;  // every row ignored
    check_all_modes(backend, Problem(o, shape));
    shape.ignore = 0;
    shape.tokens = 1;
    check_all_modes(backend, Problem(o, shape));
    shape.sequences = 0;
    check_all_modes(backend, Problem(o, shape));
  }
}

inline void pair_alone(const JobRunner& backend) {
  // A pair's log-probabilities and gradient do not depend on its company, up to the mean over pairs
  // (here a power of two).
  Shape shape;
  shape.sequences = 8;
  shape.seed = 7;
  shape.vocab = 700;
  const Problem p(reference::objective("dpo", 0.1), shape);
  const Result all = backend.loss(p, {});
  const size_t rows = size_t(shape.tokens * p.stride) * dtype_bytes(shape.dtype);
  for (size_t pair = 0; pair < 4; pair++) {
    Problem alone = p;
    alone.shape.sequences = 2;
    alone.rows = 2 * shape.tokens;
    alone.elements = alone.rows * alone.stride;
    auto both = [&](const auto& v, size_t n) {
      auto result = v;
      result.assign(v.begin() + int64_t(pair * n), v.begin() + int64_t((pair + 1) * n));
      result.insert(result.end(), v.begin() + int64_t((pair + 4) * n),
                    v.begin() + int64_t((pair + 5) * n));
      return result;
    };
    alone.logits = both(p.logits, rows);
    alone.labels = both(p.labels, size_t(shape.tokens));
    alone.references = both(p.references, 1);
    const Result one = backend.loss(alone, {});
    CHECK(one.losses[0] == all.losses[pair] && one.logps == both(all.logps, 1) &&
          one.rewards == both(all.rewards, 1));
    CHECK(one.coefficients[0] == 4 * all.coefficients[pair] &&
          one.coefficients[1] == 4 * all.coefficients[pair + 4]);
    const std::vector<char> expected = both(all.gradient, rows);
    for (int64_t i = 0; i < alone.elements; i++)
      CHECK(load(shape.dtype, one.gradient.data(), i) == 4 * load(shape.dtype, expected.data(), i),
            "at %lld", (long long)i);
  }
}

inline void not_finite(const JobRunner& backend) {
  // A NaN or +inf in a scored row is its pair's alone; a -inf there is a probability of 0.
  for (Dtype d : dtypes) {
    if (int(d) % backend.step != 0) continue;
    Shape shape;
    shape.dtype = d;
    shape.ignore = 0;
    shape.seed = 8;
    const Problem sound(reference::objective("dpo", 0.1), shape);
    const int64_t bad_row = shape.tokens * 3 + 1;  // of the rejected sequence of pair 1
    for (float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      for (bool in_place : {false, true}) {
        Problem p = sound;
        const int64_t column = (p.labels[size_t(bad_row)] + 40) % shape.vocab;
        store(d, p.logits.data(), bad_row * p.stride + column, bad);
        const Result before = backend.loss(sound, {Mode::dense, in_place, false, 1}),
                     after = backend.loss(p, {Mode::dense, in_place, false, 1});
        CHECK(std::isnan(after.losses[1]) && std::isnan(after.loss) &&
                  after.losses[0] == before.losses[0],
              "%s %g", dtype_names[int(d)], double(bad));
        CHECK(after.metrics[nonfinite] == 1 && std::isnan(after.logps[3]) &&
              after.logps[1] == before.logps[1]);
        const size_t sequence = size_t(shape.tokens * p.stride) * dtype_bytes(d);
        for (size_t s : {size_t{0}, size_t{2}})
          CHECK(std::memcmp(after.gradient.data() + s * sequence,
                            before.gradient.data() + s * sequence, sequence) == 0);
      }
    }
    // Half of the vocabulary ruled out, in another pattern on every row: the truth knows what to do
    // with -inf.
    Problem p = sound;
    for (int64_t r = 0; r < p.rows; r++)
      for (int64_t v = 0; v < shape.vocab; v++)
        if ((v + r) % 2 && v != p.labels[size_t(r)])
          store(d, p.logits.data(), r * p.stride + v, -std::numeric_limits<float>::infinity());
    check_all_modes(backend, p);
    // Large logits: the probabilities are 0 and 1, and the arithmetic is not what rounds.
    for (int64_t i = 0; i < p.elements; i++)
      store(d, p.logits.data(), i, float((i * 7919 % 131) * 500 - 32000));
    check_all_modes(backend, p);
  }
}

inline void underflows(const JobRunner& backend) {
  // Coefficients of twice the smallest normal number: the entries of some labels are smaller.
  for (Dtype d : dtypes) {
    if (int(d) % backend.step != 0) continue;
    Shape shape;
    shape.dtype = d;
    shape.sequences = 6;
    shape.tokens = 9;
    shape.vocab = 6;
    shape.padding = 1;
    shape.spread = 3;
    shape.seed = 17;
    const double normal = d == Dtype::float16 ? 0x1p-14 : 0x1p-126;
    const Problem p(reference::objective("dpo", 12 * normal), shape);
    for (const Way& way : backend.ways) {
      for (bool in_place : {false, true}) {
        const Result result = way.loss(p, {Mode::dense, in_place, false, 1});
        int expected = 0, scored = 0;
        for (int64_t r = 0; r < p.rows; r++) {
          const int32_t label = p.labels[size_t(r)];
          if (label == ignored) continue;
          scored++;
          const int64_t place = r * p.stride + label;
          expected += std::fabs(load(d, result.gradient.data(), place)) < normal;
        }
        CHECK(expected > 2 && expected < scored - 2, "%s: %d of %d rows", way.name.c_str(),
              expected, scored);
        CHECK(result.metrics[underflow] == expected, "%s %s: %g, not %d", way.name.c_str(),
              dtype_names[int(d)], result.metrics[underflow], expected);
      }
      CHECK(way.loss(p, {Mode::factored, false, false, 1}).metrics[underflow] == 0);
      CHECK(way.loss(p, {Mode::none, false, false, 1}).metrics[underflow] == 0);
    }
  }
}

inline void sequence_logps(const JobRunner& backend) {
  for (Dtype d : dtypes) {
    if (int(d) % backend.step != 0) continue;
    for (bool packed : {false, true}) {
      Shape shape;
      shape.dtype = d;
      shape.packed = packed;
      shape.vocab = 777;
      shape.padding = 2;
      shape.tokens = 30;
      shape.seed = 11;
      const Problem p(reference::objective("cpo", 0.1), shape);
      const Result trained = backend.loss(p, {});
      // The same bits as training's: where policy and reference are one model the margin is 0.
      for (const Way& way : backend.ways)
        CHECK(way.sequence_logps(p) == trained.logps, "%s: %s", way.name.c_str(),
              dtype_names[int(d)]);
      // Taken as a reference, they give exactly ln 2.
      Problem same = p;
      same.objective = reference::objective("dpo", 0.1);
      same.references = trained.logps;
      const Result start = backend.loss(same, {});
      for (double loss : start.losses) CHECK(loss == std::log(2.0), "%.17g", loss);
      CHECK(start.metrics[rewards_margins] == 0);
    }
  }
}

inline void token_logps(const JobRunner& backend) {
  for (Dtype d : dtypes) {
    if (int(d) % backend.step != 0) continue;
    Shape shape;
    shape.dtype = d;
    shape.vocab = 900;
    shape.padding = 1;
    shape.tokens = 40;
    shape.seed = 12;
    const Problem p(reference::objective("sft", 1), shape);
    const Truth truth(p);
    std::vector<double> first;
    for (const Way& way : backend.ways) {
      const size_t rows = size_t(p.rows);
      const std::vector<double> out = way.token_logps(p);
      for (size_t r = 0; r < rows; r++) {
        if (p.labels[r] == ignored) {
          CHECK(out[r] == 0 && out[rows + r] == 0 && out[2 * rows + r] == 0, "row %zu", r);
          continue;
        }
        Real entropy = 0;
        for (int64_t v = 0; v < shape.vocab; v++) {
          const Real logp =
              load(d, p.logits.data(), int64_t(r) * p.stride + v) - truth.logsumexp[r];
          entropy -= expl(logp) * logp;
        }
        CHECK(fabsl(out[r] - truth.row_logps[r]) <= 1e-6L, "row %zu: %.17g, not %.17Lg", r, out[r],
              truth.row_logps[r]);
        CHECK(fabsl(out[rows + r] - truth.logsumexp[r]) <= 1e-6L, "row %zu: %.17g, not %.17Lg", r,
              out[rows + r], truth.logsumexp[r]);
        CHECK(fabsl(out[2 * rows + r] - entropy) <= 2e-6L * std::max(Real(1), entropy),
              "row %zu: %.17g, not %.17Lg", r, out[2 * rows + r], entropy);
      }
      if (first.empty()) first = out;
      CHECK(out == first, "%s", way.name.c_str());
    }
  }
}

/// For the ways of a backend: `run(job)` does it.
template <class RunJob>
std::vector<double> sequence_logps_of(const Problem& p, RunJob&& run) {
  std::vector<double> logps(size_t(p.shape.sequences), -1);
  Job job;
  job.batch = p.batch();
  job.logps = logps.data();
  CHECK(!list_rows(job.batch, single_units(p.shape.sequences), job.rows));
  run(job);
  return logps;
}
template <class RunJob>
std::vector<double> token_logps_of(const Problem& p, RunJob&& run) {
  const size_t rows = size_t(p.rows);
  std::vector<double> out(3 * rows, 0);
  Job job;
  job.batch = p.batch();
  job.tokens = TokensWanted{out.data(), out.data() + rows, out.data() + 2 * rows};
  CHECK(!list_rows(job.batch, single_units(p.shape.sequences), job.rows));
  run(job);
  return out;
}

}  // namespace problems
