// What every backend must make of an output layer, whatever it runs on: the test bodies, given a
// backend.
#pragma once
#include <functional>
#include "layer_problems.h"

namespace problems {

struct LayerRunner {
  /// Ways to have it do a loss.
  std::vector<std::function<LayerResult(const LayerProblem&, const LayerRun&)>> ways;
  std::function<void(const std::string& what, const LayerProblem&, const Truth&, const LayerRun&,
                     const LayerResult&)>
      check;
  /// Enough for so many rows at a time, and not for many more.
  std::function<size_t(const LayerProblem&, int64_t rows)> memory;
  int64_t long_tokens;  ///< of a sequence, where a pair is to be cut

  void check_all(const std::string& what, const LayerProblem& l, const Truth& truth,
                 const LayerRun& run) const {
    for (size_t way = 0; way < ways.size(); way++)
      check(what + check::text(", way %zu", way), l, truth, run, ways[way](l, run));
  }
};

inline void layers_coupled(const LayerRunner& backend) {
  for (const char* name : {"aot", "aot_unpaired"}) {
    Shape shape = shape_of(31);
    shape.sequences = 8;
    const LayerProblem l(reference::objective(name, 0.4), shape, {Dtype::float32, 12, false});
    const Truth truth(l.p);
    for (int64_t rows : {1000, 5}) backend.check_all(name, l, truth, {backend.memory(l, rows)});
  }
}

inline void layers_edges(const LayerRunner& backend) {
  for (const char* name : {"dpo", "sft", "aot"}) {
    for (int k = 0; k < 5; k++) {
      Shape shape = shape_of(61 + uint64_t(k), k == 4 ? 1 : 37);
      if (k == 0) shape.tokens = 0;
      if (k == 1) shape.ignore = 2;  // every row
      if (k == 2) shape.tokens = 1;
      if (k == 3) shape.sequences = 0;
      if (k == 4 && name[0] == 'a')
        continue;  // every score is the same, and their order is no function to differentiate
      const LayerProblem l(reference::objective(name, 0.3), shape, {Dtype::bfloat16, 8, true});
      const Truth truth(l.p);
      for (const LayerRun& run : {LayerRun{}, LayerRun{plenty, true, true, true, true, true, true}})
        backend.check_all(check::text("%s edge %d", name, k), l, truth, run);
    }
    // Pairs without rows, or with one sequence alone, whether they fit or are cut.
    Shape shape = shape_of(71);
    shape.sequences = 12;
    shape.tokens = backend.long_tokens;
    shape.packed = true;
    LayerProblem l(reference::objective(name, 0.3), shape, {Dtype::float32, 2, false});
    const int64_t pairs = l.p.pairs();
    auto ignore = [&](int64_t s) {
      for (int64_t r = 0; r < l.p.rows; r++)
        if (l.p.sequence_of(r) == s) l.p.labels[size_t(r)] = ignored;
    };
    for (int64_t pair : {int64_t{0}, pairs / 2, pairs - 1}) {
      ignore(pair);
      if (pairs < 12) ignore(pair + pairs);
    }
    ignore(1);
    if (pairs < 12) ignore(2 + pairs);
    const Truth truth(l.p);
    for (int64_t rows : {10000, 70, 2})
      backend.check_all(name, l, truth, {backend.memory(l, rows)});
  }
}

inline void layers_idle_not_finite(const LayerRunner& backend) {
  // A row that only a term of weight 0 scores adds nothing to any gradient, whatever its hidden
  // state is.
  for (float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Shape shape = shape_of(85);
    shape.sft_labels = true;
    shape.ignore = 0.5;
    LayerProblem l(reference::objective("dpo", 0.1), shape, {Dtype::float16, 8, true});
    int changed = 0;
    for (int64_t r = 0; r < l.p.rows; r++) {
      if (l.p.labels[size_t(r)] != ignored || l.p.sft_labels[size_t(r)] == ignored ||
          !l.p.likely(l.p.sequence_of(r)))
        continue;
      store(l.layer.dtype, l.hidden.data(), r * l.layer.hidden, bad);
      changed++;
    }
    CHECK(changed > 0);
    for (const auto& way : backend.ways) {
      const LayerResult result = way(l, {});
      CHECK(std::isfinite(result.numbers.loss));
      for (float x : result.weight) CHECK(std::isfinite(x));
      for (float x : result.bias) CHECK(std::isfinite(x));
      for (int64_t i = 0; i < l.p.rows * l.layer.hidden; i++)
        CHECK(std::isfinite(load(l.layer.dtype, result.hidden.data(), i)));
    }
  }
}

/// sequenceLogps and tokenLogps by one way of computing them, `compute(job)`: every number of a
/// scored row, and no other, is written over the NaN that was there. `logps`, per sequence, bit for
/// bit.
template <class Compute>
void check_layer_logps(const std::string& what, const LayerProblem& l, const Truth& truth,
                       size_t memory, const std::vector<double>& logps, Compute&& compute) {
  const double poison = std::numeric_limits<double>::quiet_NaN();
  auto run = [&](auto& job) {
    job.batch = l.p.batch();
    job.batch.logits = nullptr;
    job.batch.dtype = l.layer.dtype;
    job.layer =
        OutputLayer{l.hidden.data(), l.weight.data(), l.layer.bias ? l.bias.data() : nullptr,
                    l.layer.hidden,  memory,          0};
    CHECK(!list_rows(job.batch, single_units(l.p.shape.sequences), job.rows));
    compute(job);
    CHECK(job.layer->memory_used > 0 && job.layer->memory_used <= memory, "%s: %zu bytes",
          what.c_str(), job.layer->memory_used);
  };
  Job sequences;
  std::vector<double> sums(logps.size(), poison);
  sequences.logps = sums.data();
  run(sequences);
  CHECK(sums == logps, "%s", what.c_str());

  Job tokens;
  const size_t rows = size_t(l.p.rows);
  std::vector<double> out(3 * rows, poison);
  tokens.tokens = TokensWanted{out.data(), out.data() + rows, out.data() + 2 * rows};
  run(tokens);
  for (size_t r = 0; r < rows; r++) {
    if (l.p.labels[r] == ignored) {
      CHECK(std::isnan(out[r]) && std::isnan(out[rows + r]) && std::isnan(out[2 * rows + r]),
            "%s: row %zu is ignored", what.c_str(), r);
      continue;
    }
    Real entropy = 0;
    for (int64_t v = 0; v < l.p.shape.vocab; v++) {
      const Real logp =
          load(Dtype::float32, l.p.logits.data(), int64_t(r) * l.p.stride + v) - truth.logsumexp[r];
      entropy -= expl(logp) * logp;
    }
    auto close = [&](const char* name, double value, Real expected) {
      CHECK(fabsl(value - expected) <= 2e-6L * (1 + fabsl(expected)),
            "%s: %s of row %zu: %.17g, not %.17Lg", what.c_str(), name, r, value, expected);
    };
    close("log-probability", out[r], truth.row_logps[r]);
    close("logsumexp", out[rows + r], truth.logsumexp[r]);
    close("entropy", out[2 * rows + r], entropy);
  }
}

}  // namespace problems
