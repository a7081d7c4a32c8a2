// The jobs of the CUDA backend on the emulation: those of the CPU backend's tests on device memory
// and on host arrays, the borders of parts, tiles and groups, and that nothing but a row's contents
// and a sequence's length decides the bits.
//
// Tests named cuda_... run again in other orders of the emulation (CMakeLists.txt); those named
// gpu_... set theirs, or take too long.
#include <cstdlib>
#include <iterator>
#include <utility>
#include "backend_cases.h"
#include "backends/backend.h"
#include "device_jobs.h"
#include "loss_launch.h"

using namespace problems;

namespace {

/// The second device holds half the blocks of the first, and its cache keeps every batch of a test
/// in one group of pairs. Before the first call of CUDA, and not where the environment has it
/// otherwise. Half as many threads under ThreadSanitizer, which compares each with all others at
/// every barrier; loss_mutants.cc has two multiprocessors there, too.
[[maybe_unused]] const bool devices_differ = [] {
  setenv("SIMT_MULTIPROCESSORS", check::thin ? "1,1" : "2,1", 0);
  setenv("SIMT_L2", "65536,1073741824", 0);
  return true;
}();

/// The schedule of the emulation for a scope.
struct InOrder {
  simt::Schedule before = simt::schedule();
  explicit InOrder(simt::Schedule schedule) { simt::set_schedule(schedule); }
  ~InOrder() { simt::set_schedule(before); }
};
constexpr simt::Schedule orders[] = {{simt::Schedule::forward, 0},
                                     {simt::Schedule::reverse, 0},
                                     {simt::Schedule::random, 1},
                                     {simt::Schedule::random, 2},
                                     {simt::Schedule::random, 3}};

Result staged(const Problem& p, const Run& run, int device) {
  const std::vector<char> before = p.logits;
  Prepared prepared(p, run);
  cuda::run_staged(prepared.job, device);
  CHECK(p.logits == before, "the logits were written to");
  return prepared.collect();
}

/// Another place for every call: all that a type allows come up, those of logits and gradient
/// independently.
Where next_place(const Problem& p, int device) {
  static uint64_t calls = 0;
  const uint64_t k = calls++, places = 16 / dtype_bytes(p.shape.dtype);
  return {device, int64_t(k % places), int64_t(k / places % places)};
}

Way device_way(int device) {
  auto run = [device](const Problem& p, auto& job) {
    OwnStream stream(device);
    const DeviceLogits logits(p, next_place(p, device), stream);
    job.batch.logits = logits.data();
    run_on_device(job, {device, stream.stream});
    logits.check_unchanged();
  };
  return {check::text("device %d", device),
          [device](const Problem& p, const Run& how) {
            return on_device(p, how, next_place(p, device));
          },
          [run](const Problem& p) { return sequence_logps_of(p, [&](auto& job) { run(p, job); }); },
          [run](const Problem& p) { return token_logps_of(p, [&](auto& job) { run(p, job); }); }};
}
Way staged_way(int device) {
  auto run = [device](auto& job) { cuda::run_staged(job, device); };
  return {check::text("staged on device %d", device),
          [device](const Problem& p, const Run& how) { return staged(p, how, device); },
          [run](const Problem& p) { return sequence_logps_of(p, run); },
          [run](const Problem& p) { return token_logps_of(p, run); }};
}

/// ThreadSanitizer finds a race in the first problem that has it; the arithmetic is for the other
/// builds.
JobRunner with_ways(std::vector<Way> ways) {
  JobRunner backend{std::move(ways)};
  backend.step = check::thin ? 37 : 1;
  backend.zeroed = !check::thin;
  return backend;
}
const JobRunner& every_way() {
  static const JobRunner backend = with_ways({device_way(0), staged_way(1)});
  return backend;
}
const JobRunner& both_devices() {
  static const JobRunner backend = with_ways({device_way(0), device_way(1), staged_way(0)});
  return backend;
}

/// Whether launches for this vocabulary on that device keep a row's parts in registers until the
/// row is known.
bool in_one_stage(int device, Dtype d, int64_t vocab) {
  int before = 0, blocks = 0;
  CHECK(cudaGetDevice(&before) == cudaSuccess && cudaSetDevice(device) == cudaSuccess);
  CHECK(cuda::loss_kernels(d).blocks_per_multiprocessor[int(cuda::Pass::factored)](&blocks) ==
        cudaSuccess);
  CHECK(cudaSetDevice(before) == cudaSuccess);
  return cuda::cut_row(uint32_t(vocab), uint32_t(dtype_bytes(d))).parts <=
         uint32_t(blocks * cuda::properties(device).multiprocessors);
}

Objective with_likelihood(const char* name, double beta) {
  Objective o = reference::objective(name, beta);
  o.settings.sft_weight = 0.6;
  return o;
}

/// The alignment term's labels of a sequence, all gone.
void ignore_sequence(Problem& p, int64_t s) {
  for (int64_t r = 0; r < p.rows; r++)
    if (p.sequence_of(r) == s) p.labels[size_t(r)] = ignored;
}

const JobRunner& cpu_backend() {
  static const JobRunner backend{{{"CPU",
                                   [](const Problem& p, const Run& run) {
                                     Prepared prepared(p, run);
                                     host_backend().run(prepared.job, 0, *Pool::shared());
                                     return prepared.collect();
                                   },
                                   {},
                                   {}}}};
  return backend;
}

/// A result whose numbers may be NaN or infinite, against the CPU backend's, which has tests of its
/// own.
void check_like_cpu(const char* what, const Problem& p, const Result& result, Mode mode) {
  const Result expected = cpu_backend().loss(p, {mode, false, false, 1});
  auto near = [](double a, double b, double unit_of_b) {
    if (!std::isfinite(a) || !std::isfinite(b)) return std::isnan(a) ? std::isnan(b) : a == b;
    return std::fabs(a - b) <= 2e-5 * std::fabs(b) + unit_of_b;
  };
  auto compare = [&](const char* name, const auto& a, const auto& b) {
    CHECK(a.size() == b.size(), "%s: %s", what, name);
    for (size_t i = 0; i < std::min(a.size(), b.size()); i++)
      CHECK(near(double(a[i]), double(b[i]), 1e-6), "%s: %s[%zu]: %.9g, not %.9g", what, name, i,
            double(a[i]), double(b[i]));
  };
  compare("losses", result.losses, expected.losses);
  compare("rewards", result.rewards, expected.rewards);
  compare("coefficients", result.coefficients, expected.coefficients);
  compare("metrics", result.metrics, expected.metrics);
  compare("logps", result.logps, expected.logps);
  compare("row scales", result.row_scale, expected.row_scale);
  compare("loss", std::vector<double>{result.loss}, std::vector<double>{expected.loss});
  const Dtype d = p.shape.dtype;
  for (int64_t i = 0; mode != Mode::none && i < p.elements; i++) {
    const double a = load(d, result.gradient.data(), i), b = load(d, expected.gradient.data(), i);
    CHECK(near(a, b, 1.01 * unit(d, b) + 1e-9), "%s: gradient[%lld]: %.9g, not %.9g", what,
          (long long)i, a, b);
    if (std::isnan(a) != std::isnan(b)) return;
  }
}

using check::thin;

}  // namespace

TEST(cuda_devices_differ) {
  // What the tests of this file rely on.
  CHECK(thin || cuda::properties(0).multiprocessors > cuda::properties(1).multiprocessors);
  CHECK(cuda::properties(0).l2_cache < cuda::properties(1).l2_cache);
}

TEST(device_every_method) { every_method(every_way()); }
TEST(cuda_shapes) { shapes(every_way(), {1, 2, 7, 31, 255, 2047, 2048, 2049}); }
TEST(cuda_edges) { edges(every_way()); }
TEST(cuda_pair_alone) { pair_alone(every_way()); }
TEST(cuda_not_finite) { not_finite(every_way()); }
TEST(cuda_underflows) { underflows(both_devices()); }
TEST(cuda_sequence_logps) { sequence_logps(both_devices()); }
TEST(cuda_token_logps) { token_logps(both_devices()); }

TEST(cuda_far_from_reference) {
  // Coefficients beyond float32, infinite ones, and those that vanish against them: what becomes of
  // them, and what is counted.
  for (Dtype d : dtypes) {
    for (double divergence : {1.0, 3.0}) {
      Objective o = reference::objective("dpo", 0.1);
      o.settings.divergence = divergence;
      o.settings.alpha = 2;
      Shape shape;
      shape.dtype = d;
      shape.sequences = 10;
      shape.seed = 18;
      Problem p(o, shape);
      // The chosen of the pairs lose so much to their reference, the rejected next to nothing; but
      // in the last pair both lose all.
      const double lost[] = {-20, 60, 140, 900, 900, 1, 1, 1, 1, 1000};
      const Result near = cpu_backend().loss(p, {Mode::none, false, false, 1});
      for (size_t s = 0; s < 10; s++) p.references[s] = near.logps[s] + lost[s];
      for (const Mode mode : {Mode::dense, Mode::factored})
        check_like_cpu("far from the reference", p, every_way().loss(p, {mode, false, false, 1}),
                       mode);
    }
  }
}

TEST(cuda_vocabularies) {
  // Around a part: 8192 floats, or 16384 numbers of 16 bits; and rows of several parts.
  int k = 0;
  for (int64_t vocab : {8191, 8192, 8193, 16384, 16385, 50257}) {
    for (Dtype d : dtypes) {
      Shape shape;
      shape.dtype = d;
      shape.vocab = vocab;
      shape.sequences = 2;
      shape.tokens = vocab > 20000 ? 1 : 2;
      shape.padding = k % 3;
      shape.ignore = vocab > 20000 ? 0 : 0.25;
      shape.spread = k % 2 ? 2 : 6;
      shape.sft_labels = k % 4 == 3;
      shape.seed = uint64_t(300 + k);
      if (thin && k % 7 != 2) {
        k++;
        continue;
      }
      check_all_modes(every_way(), Problem(with_likelihood("simpo", 1.5), shape));
      k++;
    }
  }
}

TEST(cuda_more_parts_than_blocks) {
  for (Dtype d : dtypes) {
    CHECK(!in_one_stage(0, d, 131073) && !in_one_stage(1, d, 131073));
    if (thin && d != Dtype::bfloat16) continue;
    Shape shape;
    shape.dtype = d;
    shape.vocab = 131073;
    shape.sequences = 1;
    shape.tokens = 1;
    shape.ignore = 0;
    shape.seed = 31 + uint64_t(d);
    check_all_modes(every_way(), Problem(reference::objective("sft", 1), shape));
  }
}

TEST(device_one_stage_like_two) {
  // onehot - softmax from registers, and from logits that are read again: the same bits, aligned or
  // not.
  if (thin) return;  // the devices are alike
  for (Dtype d : dtypes) {
    Shape shape;
    shape.dtype = d;
    shape.vocab = d == Dtype::float32 ? 40001 : 80003;
    shape.sequences = 2;
    shape.tokens = 1;
    shape.ignore = 0;
    shape.padding = (8 - shape.vocab % 8) % 8;  // every row at a multiple of 16 bytes, or none
    shape.seed = 41 + uint64_t(d);
    CHECK(in_one_stage(0, d, shape.vocab) && !in_one_stage(1, d, shape.vocab), "%s",
          dtype_names[int(d)]);
    const Problem p(reference::objective("cpo", 0.5), shape);
    const Result one = on_device(p, {Mode::factored, false, false, 1}, {0, 0, 0});
    for (bool in_place : {false, true})
      for (const Where& where :
           {Where{0, 0, 0}, Where{0, 1, 1}, Where{0, 0, 3}, Where{1, 0, 0}, Where{1, 3, 1}})
        CHECK(on_device(p, {Mode::factored, in_place, false, 1}, where).same(one),
              "%s device %d offsets %d %d", dtype_names[int(d)], where.device,
              int(where.logits_offset), int(where.gradient_offset));
    for (int device : {0, 1})
      CHECK(staged(p, {Mode::factored, false, false, 1}, device).same(one), "%s staged",
            dtype_names[int(d)]);
  }
}

TEST(device_bits_at_any_alignment) {
  for (Dtype d : dtypes) {
    const int64_t places = 16 / int64_t(dtype_bytes(d)), vocab = thin ? 37 : 2 * 2048 + 37;
    Shape shape;
    shape.dtype = d;
    shape.vocab = vocab;
    shape.sequences = 2;
    shape.tokens = 2;
    shape.ignore = 0.2;
    shape.seed = 51;
    const Problem p(with_likelihood("orpo", 0.4), shape);
    for (Mode mode : {Mode::dense, Mode::factored}) {
      const Result first = on_device(p, {mode, false, false, 1}, {0, 0, 0});
      const Truth truth(p);
      check_gradient(dtype_names[int(d)], p, truth, first, mode);
      for (int64_t x = 0; x < places; x++) {
        if (!thin || x % 3 == 1)
          CHECK(on_device(p, {mode, true, false, 1}, {0, x, x}).same(first), "%s in place at %d",
                dtype_names[int(d)], int(x));
        for (int64_t y = 0; y < places; y++)
          if (!thin || (x + 3 * y) % 11 == 1)
            CHECK(on_device(p, {mode, false, false, 1}, {0, x, y}).same(first), "%s from %d to %d",
                  dtype_names[int(d)], int(x), int(y));
      }
    }
  }
}

TEST(device_bits_in_any_order) {
  // Pairs of many parts in groups of their own, small ones in a group together; on both devices.
  for (int64_t vocab : {20011, 131}) {
    Shape shape;
    shape.dtype = vocab > 1000 ? Dtype::float32 : Dtype::bfloat16;
    shape.vocab = vocab;
    shape.sequences = vocab > 1000 ? 6 : 20;
    shape.tokens = vocab > 1000 ? 2 : 5;
    shape.packed = true;
    shape.padding = 3;
    shape.seed = 61;
    const Problem p(with_likelihood("dpo", 0.3), shape),
        coupled(reference::objective("aot", 0.3), shape);
    for (const Problem* problem : {&p, &coupled}) {
      for (Mode mode : {Mode::none, Mode::dense, Mode::factored}) {
        Result first;
        for (const simt::Schedule& order : orders) {
          const InOrder scope(order);
          for (int device : {0, 1}) {
            if (thin &&
                (vocab > 1000 ? order.seed != 2
                              : order.order != simt::Schedule::reverse || problem == &coupled))
              continue;
            const Result result =
                on_device(*problem, {mode, mode != Mode::none && device == 1, false, 1},
                          next_place(p, device));
            if (first.logps.empty()) first = result;
            CHECK(result.same(first), "%s V %d order %d %llu device %d",
                  reference::name_of(problem->objective), int(vocab), int(order.order),
                  (unsigned long long)order.seed, device);
          }
        }
      }
    }
  }
}

TEST(device_bits_in_any_company) {
  // Sequences of very different lengths, taken out of their batch in another order.
  Shape shape;
  shape.dtype = Dtype::float16;
  shape.vocab = 75;
  shape.sequences = thin ? 4 : 9;
  shape.tokens = thin ? 3 : 150;
  shape.packed = true;
  shape.seed = 71;
  const Problem p(reference::objective("sft", 1), shape);
  const std::vector<double> all = every_way().ways[0].sequence_logps(p);
  check::Random random(72);
  for (int k = 0; k < 4; k++) {
    std::vector<int64_t> taken;
    for (int64_t s = shape.sequences; s-- > 0;)
      if (random.below(2)) taken.push_back(s);
    if (taken.empty()) taken.push_back(0);
    Problem some = p;
    some.shape.sequences = int64_t(taken.size());
    some.labels.clear(), some.logits.clear();
    some.offsets = {0};
    for (int64_t s : taken) {
      const int64_t begin = p.offsets[size_t(s)], end = p.offsets[size_t(s) + 1],
                    row_bytes = p.stride * int64_t(dtype_bytes(shape.dtype));
      some.labels.insert(some.labels.end(), p.labels.begin() + begin, p.labels.begin() + end);
      some.logits.insert(some.logits.end(), p.logits.begin() + begin * row_bytes,
                         p.logits.begin() + end * row_bytes);
      some.offsets.push_back(some.offsets.back() + int32_t(end - begin));
    }
    some.rows = some.offsets.back();
    some.elements = some.rows * some.stride;
    for (const Way& way : both_devices().ways) {
      const std::vector<double> logps = way.sequence_logps(some);
      for (size_t i = 0; i < taken.size(); i++)
        CHECK(check::same_bits(logps[i], all[size_t(taken[i])]), "%s: sequence %d",
              way.name.c_str(), int(taken[i]));
    }
  }
}

TEST(cuda_many_groups) {
  // Two rows fill a group on the first device; the second takes the batch as one.
  Shape shape;
  shape.vocab = 2049;
  shape.sequences = thin ? 6 : 24;
  shape.tokens = 2;
  shape.padding = 1;
  shape.seed = 81;
  check_all_modes(both_devices(), Problem(with_likelihood("dpo", 0.2), shape));
  // Pairs without rows first, in the middle and last; and pairs with one sequence only.
  for (const char* name : {"dpo", "apo_zero", "sft", "aot_unpaired"}) {
    shape.sequences = thin ? 8 : 16;
    shape.dtype = name[1] == 'p' ? Dtype::float16 : Dtype::float32;
    shape.vocab = name[1] == 'p' ? 4100 : 2049;
    shape.seed++;
    if (thin && name[0] != 'd') continue;
    Problem p(reference::objective(name, 0.2), shape);
    const int64_t pairs = p.pairs();
    for (int64_t pair : {int64_t{0}, int64_t{1}, pairs / 2, pairs - 2, pairs - 1}) {
      ignore_sequence(p, pair);
      if (pair != 1 && !reference::facts(p.objective).is_linear) ignore_sequence(p, pair + pairs);
    }
    if (!reference::facts(p.objective).is_linear) ignore_sequence(p, pairs / 2 - 1 + pairs);
    check_all_modes(both_devices(), p);
  }
}

TEST(device_many_tiles) {
  // Several tiles of 256 rows in a group, sequences longer than what a warp sums.
  for (Dtype d : {Dtype::float32, Dtype::bfloat16}) {
    Shape shape;
    shape.dtype = d;
    shape.vocab = 3;
    shape.sequences = thin ? 2 : 4;
    shape.tokens = thin ? 300 : 800;
    shape.ignore = 0.1;
    shape.seed = 91;
    if (thin && d != Dtype::float32) continue;
    const Problem p(with_likelihood("dpo", 0.01), shape);
    const Truth truth(p);
    for (Mode mode : {Mode::dense, Mode::factored}) {
      if (thin && mode == Mode::factored) continue;
      const Run run{mode, false, false, 1};
      const Result result = on_device(p, run, next_place(p, 0));
      const std::string what = describe(p, run);
      check_numbers(what.c_str(), truth, result);
      check_gradient(what.c_str(), p, truth, result, mode);
      if (!thin) CHECK(staged(p, run, 1).same(result), "%s: staged", what.c_str());
    }
  }
}

TEST(device_coupled) {
  for (const char* name : {"aot", "aot_unpaired"}) {
    for (int64_t pairs : {1, 2, 3, 100, 1000}) {
      if (thin && pairs > (name[3] ? 3 : 100)) continue;
      Shape shape;
      shape.sequences = 2 * pairs;
      shape.tokens = 1;
      shape.ignore = 0.05;
      shape.vocab = 5;
      shape.seed = uint64_t(100 + pairs);
      const Problem p(reference::objective(name, 0.7), shape);
      const std::string what = check::text("%s %d pairs", name, int(pairs));
      const Run run{Mode::dense, false, false, 1};
      const Result result = on_device(p, run, next_place(p, 0));
      CHECK(staged(p, run, 1).same(result), "%s", what.c_str());
      // Where scores are close, finite differences would change their ranks.
      const Truth truth(p, pairs <= 3);
      if (pairs <= 3) check_numbers(what.c_str(), truth, result);
      else check_like_cpu(what.c_str(), p, result, Mode::dense);
      check_gradient(what.c_str(), p, truth, result, Mode::dense);
      // Scores that are NaN rank last and concern nobody else.
      Problem bad = p;
      for (int64_t s = 0; s < shape.sequences; s += std::max<int64_t>(2, pairs / 3))
        bad.references[size_t(s)] = std::numeric_limits<double>::quiet_NaN();
      check_like_cpu(what.c_str(), bad, on_device(bad, run, next_place(p, 1)), Mode::dense);
      // Equal scores rank by index.
      Problem ties = p;
      for (double& r : ties.references) r = -2;
      for (int64_t i = 0; i < ties.elements; i++)
        store(Dtype::float32, ties.logits.data(), i, float(i % 5));
      for (int32_t& label : ties.labels) label = label == ignored ? ignored : label % 2;
      check_like_cpu(what.c_str(), ties, on_device(ties, run, next_place(p, 0)), Mode::dense);
    }
  }
}

TEST(cuda_zero_coefficients) {
  // A row that only a term of weight 0 scores, and one of a pair whose loss is flat: exactly 0,
  // whatever the row holds.
  for (Dtype d : dtypes) {
    Shape shape;
    shape.dtype = d;
    shape.vocab = 300;
    shape.sft_labels = true;
    shape.ignore = 0.5;
    shape.seed = 111;
    Problem p(reference::objective("dpo", 0.1), shape);  // sft_weight is 0
    int64_t without_weight = 0;
    for (int64_t r = 0; r < p.rows; r++) {
      if (p.labels[size_t(r)] != ignored || p.sft_labels[size_t(r)] == ignored) continue;
      without_weight++;
      for (int64_t v = 0; v < p.stride; v++)
        store(d, p.logits.data(), r * p.stride + v, std::numeric_limits<float>::quiet_NaN());
    }
    CHECK(without_weight > 0);
    auto check_zero = [&](const Problem& problem, const Result& result, auto&& zero) {
      for (int64_t r = 0; r < problem.rows; r++)
        for (int64_t v = 0; v < problem.stride; v++) {
          const double g = load(d, result.gradient.data(), r * problem.stride + v);
          if (zero(r)) CHECK(g == 0 && !std::signbit(g), "row %d column %d: %g", int(r), int(v), g);
        }
    };
    for (const Way& way : every_way().ways) {
      const Result result = way.loss(p, {Mode::dense, false, false, 1});
      check_zero(p, result, [&](int64_t r) { return p.labels[size_t(r)] == ignored; });
      check_like_cpu(way.name.c_str(), p, result, Mode::dense);
    }

    shape.sft_labels = false;
    Problem flat(reference::objective("hinge", 1), shape);
    for (size_t s = 0; s < 4; s++) flat.references[s] = s < 2 ? -1e6 : 0;  // margins far above 1
    for (const Way& way : every_way().ways) {
      const Result result = way.loss(flat, {Mode::dense, false, false, 1});
      CHECK(result.loss == 0 && result.coefficients[0] == 0);
      check_zero(flat, result, [](int64_t) { return true; });
    }
  }
}

TEST(cuda_rows_not_finite) {
  // Rows of nothing but one value, in every mode.
  constexpr float infinity = std::numeric_limits<float>::infinity(),
                  nan_value = std::numeric_limits<float>::quiet_NaN();
  for (Dtype d : dtypes) {
    if (thin && d != Dtype::float16) continue;
    Shape shape;
    shape.dtype = d;
    shape.vocab = 2100;
    shape.sequences = 12;
    shape.tokens = 2;
    shape.ignore = 0;
    shape.seed = 121;
    Problem p(reference::objective("simpo", 0.5), shape);
    auto fill = [&](int64_t row, float value, float label_value) {
      for (int64_t v = 0; v < shape.vocab; v++)
        store(d, p.logits.data(), row * p.stride + v,
              v == p.labels[size_t(row)] ? label_value : value);
    };
    fill(0, -infinity, -infinity);
    fill(2, -infinity, 1);
    fill(4, 3, -infinity);
    fill(6, infinity, 0);
    fill(8, 0, infinity);
    fill(10, nan_value, 0);
    fill(13, 0, nan_value);
    for (Mode mode : {Mode::none, Mode::dense, Mode::factored}) {
      Result first;
      for (const Way& way : every_way().ways) {
        const std::string what = way.name + ": " + describe(p, {mode, false, false, 1});
        const Result result =
            way.loss(p, {mode, mode != Mode::none && !first.logps.empty(), false, 1});
        check_like_cpu(what.c_str(), p, result, mode);
        if (first.logps.empty()) first = result;
        CHECK(result.same(first), "%s: differs", what.c_str());
      }
    }
  }
}

TEST(device_cancelled) {
  // A staged job that is cancelled before it starts writes nothing.
  Shape shape;
  shape.seed = 131;
  const Problem p(reference::objective("dpo", 0.1), shape);
  for (Mode mode : {Mode::none, Mode::dense, Mode::factored}) {
    Prepared stopped(p, {mode, false, false, 1});
    stopped.job.cancelled = true;
    cuda::run_staged(stopped.job, 0);
    const Result result = stopped.collect();
    CHECK(result.loss == 0 && result.losses[0] == -1);
    CHECK(std::all_of(result.gradient.begin(), result.gradient.end(),
                      [](char byte) { return byte == guard_byte; }));
  }
}

TEST(device_staged_in_pieces) {
  // More than a stage of 4 MiB holds, and rows that do not end with one; without ThreadSanitizer,
  // more than a chunk of 64 MiB, too.
  Shape shape;
  shape.dtype = Dtype::bfloat16;
  shape.sequences = 4;
  shape.ignore = 0.2;
  shape.seed = 141;
  shape.vocab = thin ? 300001 : 1000003;
  shape.tokens = thin ? 2 : 11;
  shape.padding = 5;
  const Problem p(reference::objective("cpo", 0.2), shape);
  for (Mode mode : {Mode::dense, Mode::factored}) {
    if (mode == Mode::factored && check::slow) continue;
    const Result expected = on_device(p, {mode, false, false, 1}, {0, 0, 0}),
                 result = staged(p, {mode, false, false, 1}, 1);
    CHECK(result.same(expected), "%d", int(mode));
  }
}
