// The jobs of the CPU backend from logits to loss and gradient, against a straightforward
// computation in long double. kernel_set() is what runs: DIRALIGN_ISA chooses another.
#include "backends/backend.h"
#include "backends/cpu/pages.h"
#include <chrono>
#include <thread>
#include "backend_cases.h"

using namespace problems;
using cpu::advise_large_pages;

namespace {

Result compute(const Problem& p, const Run& run) {
  const auto pool = Pool::shared();
  const std::vector<char> before = p.logits;
  Prepared prepared(p, run);
  host_backend().run(prepared.job, 0, *pool);
  CHECK(p.logits == before, "the logits were written to");
  return prepared.collect();
}

JobRunner with_threads(const std::vector<int>& threads) {
  JobRunner backend;
  backend.rounds_differently_in_place = true;
  for (const int n : threads) {
    auto run = [n](auto& job) {
      job.threads = n;
      host_backend().run(job, 0, *Pool::shared());
    };
    backend.ways.push_back({check::text("%d threads", n),
                            [n](const Problem& p, Run how) {
                              how.threads = n;
                              return compute(p, how);
                            },
                            [run](const Problem& p) { return sequence_logps_of(p, run); },
                            [run](const Problem& p) { return token_logps_of(p, run); }});
  }
  return backend;
}

}  // namespace

TEST(compute_every_method) { every_method(with_threads({1})); }
TEST(compute_shapes) { shapes(with_threads({1}), {1, 2, 7, 31, 32, 33, 511, 512, 513, 1025}); }
TEST(compute_edges) { edges(with_threads({1})); }
TEST(compute_pair_alone) { pair_alone(with_threads({1})); }
TEST(compute_not_finite) { not_finite(with_threads({1})); }
TEST(compute_underflows) { underflows(with_threads({1, 3})); }
TEST(compute_sequence_logps) { sequence_logps(with_threads({1, 4})); }
TEST(compute_token_logps) { token_logps(with_threads({1, 3})); }

TEST(compute_threads_give_the_same_bits) {
  for (Dtype d : dtypes) {
    if (check::thin && d != Dtype::bfloat16) continue;
    Objective o = reference::objective("orpo", 0.5);
    o.settings.sft_weight = 1;
    Shape shape;
    shape.dtype = d;
    shape.sequences = 8;
    shape.tokens = 45;
    shape.vocab = 1003;
    shape.padding = 5;
    shape.seed = 5;
    const Problem p(o, shape);
    for (Mode mode : {Mode::none, Mode::dense, Mode::factored}) {
      for (bool in_place : {false, true}) {
        if (mode == Mode::none && in_place) continue;
        const Result one = compute(p, {mode, in_place, false, 1});
        for (int threads = 2; threads <= 8; threads += check::thin ? 3 : 1)
          CHECK(compute(p, {mode, in_place, false, threads}).same(one), "%s",
                describe(p, {mode, in_place, false, threads}).c_str());
      }
    }
  }
}

TEST(compute_many_groups) {
  // More rows than one group of pairs holds, and a gradient large enough to be written past the
  // caches.
  Shape shape;
  shape.sequences = 40;
  shape.tokens = 64;
  shape.vocab = 2003;
  shape.padding = 1;
  shape.ignore = 0.1;
  shape.seed = 6;
  const Problem p(reference::objective("simpo", 2), shape);
  if (!check::thin) check_all_modes(with_threads({2}), p);
  const Result one = compute(p, {Mode::dense, false, false, 1});
  CHECK(compute(p, {Mode::dense, false, false, 4}).same(one));
  CHECK(compute(p, {Mode::dense, true, false, 3}).same(one));
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
    host_backend().run(stopped.job, 0, *pool);
    const Result result = stopped.collect();
    CHECK(result.loss == 0);
    for (char byte : result.gradient)
      if (byte != guard_byte) {
        CHECK(byte == guard_byte);
        break;
      }
    // At any moment: it returns, and the guards are what collect() checks.
    for (int delay = 0; delay < 8; delay++) {
      Prepared running(p, {mode, delay % 2 == 1 && mode != Mode::none, false, 3});
      std::thread canceller([&] {
        std::this_thread::sleep_for(std::chrono::microseconds(100 * delay));
        running.job.cancelled = true;
      });
      host_backend().run(running.job, 0, *pool);
      running.collect();
      canceller.join();
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
      for (int k = 0; k < 4; k++)
        CHECK(compute(p, {Mode::dense, k % 2 == 1, false, 2 + k}).same(one));
    });
  for (std::thread& t : environments) t.join();
}

TEST(compute_large_pages) {
  // Advice only: the contents stay, whatever the alignment and size.
  std::vector<char> memory(size_t{5} << 20, 7);
  for (size_t offset : {0, 1, 4096, 12345})
    for (size_t bytes : {size_t{0}, size_t{1}, size_t{4096}, size_t{3} << 20})
      advise_large_pages(memory.data() + offset, bytes);
  for (char byte : memory)
    if (byte != 7) {
      CHECK(byte == 7);
      break;
    }
}
