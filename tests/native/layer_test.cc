// Jobs with an output layer on the CPU: every way of getting from the logits of a chunk to the
// gradients, against long double.
#include <functional>
#include "backends/backend.h"
#include "jobs/plan.h"
#include "layer_cases.h"

using namespace problems;

namespace {

using check::thin;

LayerResult compute(const LayerProblem& l, const LayerRun& run, int threads = 1) {
  PreparedLayer prepared(l, run);
  prepared.numbers.job.threads = threads;
  host_backend().run(prepared.numbers.job, 0, *Pool::shared());
  return prepared.collect();
}

const cpu::ProductKernels& products(Dtype d) { return cpu::kernel_set().products[int(d)]; }

void check_layer(const std::string& what, const LayerProblem& l, const Truth& truth,
                 const LayerRun& run, const LayerResult& result) {
  problems::check_layer(what, l, truth, run, result,
                        products(l.layer.dtype).gradient == Dtype::bfloat16 ? 0x1p-8 : 2e-5);
}

/// The workspace that a row of a chunk takes, where gradients are wanted, and that of one thread.
size_t row_bytes(const LayerProblem& l) {
  return size_t(l.p.shape.vocab + l.layer.hidden) * sizeof(float);
}
size_t workspace(const LayerProblem& l, int64_t rows) {
  return products(l.layer.dtype).scratch_bytes + (size_t(rows) * row_bytes(l) + 63) / 64 * 64;
}

LayerRunner backend() {
  return {{[](const LayerProblem& l, const LayerRun& run) { return compute(l, run); }},
          check_layer,
          workspace,
          90};
}

size_t needed_for(const LayerProblem& l) {
  const auto too_small = thrown<WorkspaceTooSmall>([&] { compute(l, {1}); });
  CHECK(too_small.has_value());
  return too_small ? too_small->needed : 0;
}

}  // namespace

TEST(layer_types) {
  int k = 0;
  for (Dtype d : dtypes) {
    for (bool bias : {false, true}) {
      for (int64_t size : {1, 7, 24, 64, 515}) {
        k++;
        const LayerProblem l(with_likelihood("dpo", 0.3), shape_of(uint64_t(k), 30 + 17 * k),
                             {d, size, bias});
        const std::string what =
            check::text("%s hidden %d bias %d", dtype_names[int(d)], int(size), int(bias));
        check_layer(what, l, Truth(l.p), {}, compute(l, {}));
      }
    }
  }
}

TEST(layer_every_method) {
  for (int m = 0; m < method_count(); m++) {
    for (int k = 0; k < 4; k++) {
      if ((4 * m + k) % (thin ? 9 : 1) != 0) continue;
      Objective o = reference::objective(m, k % 2 ? 0.1 : 0.7);
      Shape shape = shape_of(uint64_t(10 * m + k), 41);
      shape.sequences = reference::facts(o).is_linear ? 3 : 6;
      shape.tokens = 80;
      shape.packed = k >= 1;
      // AlphaPO's score of a whole sequence is an exponential of it: nothing to differentiate
      // numerically.
      if (k == 1 && std::strcmp(reference::name_of(o), "alphapo") != 0)
        o.settings.normalize = !o.settings.normalize;
      if (reference::takes_likelihood(o) && k > 1) {
        o.settings.sft_weight = 0.6;
        o.settings.sft_reduction = k == 3;
        shape.sft_labels = k == 3;
      }
      shape.fields = k == 3;
      const LayerProblem l(o, shape, {dtypes[(m + k) % 3], 4, k == 1});
      const Truth truth(l.p);
      const std::string what =
          check::text("%s %s %d", reference::name_of(o), dtype_names[(m + k) % 3], k);
      // All kept; pairs that are deferred where the method and the labels allow it; pairs that are
      // recomputed.
      const LayerResult first = compute(l, {});
      check_layer(what, l, truth, {}, first);
      for (int64_t rows : {90, 3}) {
        const LayerRun run{workspace(l, rows)};
        const LayerResult result = compute(l, run, 2);
        check_layer(what + check::text(" %d rows", int(rows)), l, truth, run, result);
        CHECK(result.numbers.same(first.numbers), "%s: other bits with %d rows", what.c_str(),
              int(rows));
      }
    }
  }
}

TEST(layer_opposite_coefficients) {
  // Those that are said to be opposite are, and no others: a pair's two gradients may share one
  // sum.
  check::Random random(2);
  for (int m = 0; m < method_count(); m++) {
    const MethodInfo& info = method_info(m);
    if (facts_of(m).arity != Arity::pair || facts_of(m).scope != Scope::unit) continue;
    for (double divergence : {0.0, 1.0, 2.0, 3.0}) {
      for (bool normalize : {false, true}) {
        Objective o = reference::objective(m, 0.4);
        o.settings.normalize = normalize;
        o.settings.divergence = divergence;
        if (divergence != 0 && !reference::has_option(m, &Settings::divergence)) continue;
        bool opposite = true;
        for (int k = 0; k < 20; k++) {
          const Sequence w{-random.uniform(1, 9), 7, -random.uniform(1, 9)},
              l{-random.uniform(1, 9), 4, -random.uniform(1, 9)};
          const PairTerms t = reference::pair_terms(o, w, l);
          const double x = t.coefficient_chosen * normalizer(w, o.settings),
                       y = t.coefficient_rejected * normalizer(l, o.settings);
          opposite = opposite && std::fabs(x + y) <= 1e-12 * std::fabs(x);
        }
        CHECK(opposite == opposite_coefficients(m, o.settings), "%s, divergence %g, normalize %d",
              info.name, divergence, normalize);
      }
    }
  }
}

TEST(layer_chunks) {
  // From all pairs at a time to one row: the numbers' bits are the same, whatever fits and whoever
  // computes, and as sequenceLogps has them.
  for (Dtype d : dtypes) {
    for (const char* name : {"simpo", "orpo", "sft"}) {
      if (thin && (d != Dtype::bfloat16 || name[0] != 's')) continue;
      Shape shape = shape_of(21 + uint64_t(d), 53);
      shape.sequences = 6;
      shape.tokens = 100;
      shape.packed = true;
      const LayerProblem l(reference::objective(name, 1.5), shape, {d, 5, true});
      const Truth truth(l.p);
      const size_t least = needed_for(l);
      CHECK(thrown<WorkspaceTooSmall>([&] { compute(l, {least - 64}); }));
      CHECK(least == workspace(l, 1));
      std::optional<Result> first;
      size_t most_used = 0;
      for (int64_t rows : {1, 2, 3, 40, 80, 150, 400, 100000}) {
        const LayerRun run{workspace(l, rows)};
        const std::string what =
            check::text("%s %s %d rows at a time", name, dtype_names[int(d)], int(rows));
        std::optional<LayerResult> one;
        for (int threads : {1, 3}) {
          const LayerResult result = compute(l, run, threads);
          check_layer(what, l, truth, run, result);
          if (!first) first = result.numbers;
          if (!one) one = result;
          CHECK(result.numbers.same(*first), "%s: other bits", what.c_str());
          CHECK(result.weight == one->weight && result.hidden == one->hidden &&
                    result.bias == one->bias,
                "%s: %d threads give other bits", what.c_str(), threads);
          most_used = std::max(most_used, result.memory_used);
        }
        check_layer_logps(what, l, truth, run.memory, first->logps,
                          [](auto& job) { host_backend().run(job, 0, *Pool::shared()); });
      }
      CHECK(most_used < workspace(l, 1000), "it took %zu", most_used);
    }
  }
}

TEST(layer_given) {
  // The derivatives of a loss, given as the caller's own: the gradients of the loss, bit for bit
  // where its coefficients are known before its rows are multiplied. Deferred, they enter later.
  for (Dtype d : dtypes) {
    for (const char* name : {"dpo", "nca", "plackett_luce"}) {
      Shape shape = shape_of(35 + uint64_t(d), 41);
      shape.tokens = 80;
      shape.fields = true;
      const LayerProblem l(reference::objective(name, 0.2), shape, {d, 4, true});
      const Truth truth(l.p);
      for (int64_t rows : {1000, 90, 3}) {
        const LayerRun run{workspace(l, rows)};
        const LayerResult loss = compute(l, run);
        PreparedLayer prepared(l, run);
        Job& job = prepared.numbers.job;
        job.loss.reset();
        job.batch.fields = {};
        DerivativesGiven& given = job.given.emplace();
        for (int64_t r = 0; r < l.p.rows; r++)
          given.logps.push_back(loss.numbers.coefficients[size_t(l.p.sequence_of(r))] *
                                l.p.row_weight(r));
        host_backend().run(job, 0, *Pool::shared());
        LayerResult result = prepared.collect();
        result.numbers = loss.numbers;
        const std::string what = check::text("%s %s %d rows", name, dtype_names[int(d)], int(rows));
        check_layer(what, l, truth, run, result);
        if (rows == 90) continue;
        CHECK(result.hidden == loss.hidden, "%s: hidden", what.c_str());
        CHECK(result.weight == loss.weight && result.bias == loss.bias, "%s: weight", what.c_str());
      }
    }
  }
}

TEST(layer_coupled) { layers_coupled(backend()); }

TEST(layer_outputs) {
  // Every gradient left out, written or added to; kept, deferred with one sum or two, and
  // recomputed.
  for (Dtype d : dtypes) {
    for (const char* name : {"cpo", "nca"}) {
      Shape shape = shape_of(41);
      shape.sequences = 2;
      shape.tokens = 120;
      const LayerProblem l(reference::objective(name, 0.2), shape, {d, 3, true});
      const Truth truth(l.p);
      for (int k = 0; k < 81; k++) {
        if (thin && k % 11 != 2) continue;
        LayerRun run{workspace(l, k % 3 == 0 ? 1000 : k % 3 == 1 ? 100 : 10)};
        auto choose = [](int how, bool& wanted, bool& add) { wanted = how > 0, add = how > 1; };
        choose(k / 3 % 3, run.hidden, run.add_hidden);
        choose(k / 9 % 3, run.weight, run.add_weight);
        choose(k / 27, run.bias, run.add_bias);
        check_layer(check::text("%s %s outputs %d", name, dtype_names[int(d)], k), l, truth, run,
                    compute(l, run));
      }
    }
  }
}

TEST(layer_edges) { layers_edges(backend()); }

TEST(layer_idle_rows) {
  // A pair whose loss is flat leaves no trace in the gradients.
  Shape shape = shape_of(81, 19);
  shape.sequences = 4;
  shape.tokens = 100;
  shape.ignore = 0.2;
  LayerProblem l(reference::objective("hinge", 0.01), shape, {Dtype::float32, 8, false});
  l.p.references = {0, -1e6, 0, 0};  // the second pair's margin is far above 1
  const Truth truth(l.p);
  for (int64_t rows : {1000, 75, 10}) {
    const LayerRun run{workspace(l, rows)};
    const LayerResult result = compute(l, run);
    CHECK(result.numbers.coefficients[0] != 0 && result.numbers.coefficients[1] == 0);
    check_layer("idle", l, truth, run, result);
  }
  l.p.references = {-1e6, -1e6, 0, 0};
  check_layer("all idle", l, Truth(l.p), {}, compute(l, {}));
}

TEST(layer_not_finite) {
  // A NaN in one pair's hidden states stays in that pair, but for the gradients that all pairs
  // share.
  Shape shape = shape_of(91, 40);
  shape.ignore = 0;
  LayerProblem l(reference::objective("simpo", 1), shape, {Dtype::float32, 6, true});
  const LayerResult sound = compute(l, {});
  store(Dtype::float32, l.hidden.data(), 3, std::numeric_limits<float>::quiet_NaN());
  const LayerResult result = compute(l, {});
  CHECK(std::isnan(result.numbers.losses[0]) &&
        check::same_bits(result.numbers.losses[1], sound.numbers.losses[1]));
  CHECK(result.numbers.metrics[nonfinite] == 1);
  const size_t sequence = size_t(shape.tokens) * l.row_bytes();
  for (size_t s : {1, 3})
    CHECK(std::memcmp(result.hidden.data() + s * sequence, sound.hidden.data() + s * sequence,
                      sequence) == 0,
          "sequence %zu", s);
}

TEST(layer_idle_not_finite) { layers_idle_not_finite(backend()); }

TEST(layer_cancelled) {
  const LayerProblem l(reference::objective("dpo", 0.1), shape_of(111), {Dtype::float32, 8, true});
  PreparedLayer stopped(l, {});
  stopped.numbers.job.cancelled = true;
  host_backend().run(stopped.numbers.job, 0, *Pool::shared());
  const LayerResult result = stopped.collect();
  CHECK(result.numbers.loss == 0 && result.numbers.losses[0] == -1);
  CHECK(std::all_of(result.weight.begin(), result.weight.end(),
                    [](float x) { return std::isnan(x); }));
}

TEST(layer_plan) {
  RowList rows;
  rows.units = {Arity::pair, 3, nullptr};
  rows.scored.resize(20);
  rows.begin = {0, 6, 9, 3, 6, 14};
  rows.end = {3, 6, 14, 6, 9, 20};
  auto sizes = [&](int64_t chunk, bool together, int64_t shared = INT64_MAX) {
    std::string text;
    for (const UnitGroup& g : group_units(rows, chunk, together, shared))
      text += check::text("%lld-%lld:%lld%s ", (long long)g.first_unit, (long long)g.last_unit,
                          (long long)g.rows.size(), g.kept ? "k" : "");
    return text;
  };
  CHECK(sizes(100, false) == "0-3:20k ");
  CHECK(sizes(9, false) == "0-2:9k 2-3:11 ");
  CHECK(sizes(6, false) == "0-1:6k 1-2:3k 2-3:11 ");
  CHECK(sizes(100, false, 9) == "0-2:9k 2-3:11k ");
  CHECK(sizes(9, true) == "0-3:20 ");
  for (int64_t chunk : {1, 3, 7, 20, 50}) {
    int64_t at = 2;
    for (const RowRange& r : cut_rows({2, 20}, chunk)) {
      CHECK(r.begin == at && r.size() > 0 && r.size() <= chunk);
      at = r.end;
    }
    CHECK(at == 20);
  }
  CHECK(cut_rows({5, 5}, 3).empty());
  const std::string pattern = "..##.#.....#..";  // # is active
  std::string ranges;
  for (const RowRange& r : active_ranges({0, int64_t(pattern.size())}, 3,
                                         [&](int64_t i) { return pattern[size_t(i)] == '.'; }))
    ranges += check::text("%d-%d ", int(r.begin), int(r.end));
  CHECK(ranges == "2-6 11-12 ", "%s", ranges.c_str());
}
