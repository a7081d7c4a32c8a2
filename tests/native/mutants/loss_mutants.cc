// Mutants of the loss kernel: one barrier, arrival or wait of its source left out, or one load made
// a column too long. Every one must be found, or nothing would say that the others are right.
//
//   loss_mutants                      all of them; exit status 0 when each is found, and the kernel
//   itself is clean loss_mutants run PROBLEM MUTANT   one of them in this process: what the first
//   does, in processes of their own
//
// Missing order is ThreadSanitizer's to find: other builds try the loads only.
#include <sys/resource.h>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>
#include "device_jobs.h"
#include "loss_kernel.h"
#include "platform.cuh"

namespace mutants {

/// A call in the kernel's source that can be left out.
struct Place {
  const char* what;
  const char* file;
  int line;
  std::string name() const {
    const char* const slash = std::strrchr(file, '/');
    return std::string(what) + " " + (slash ? slash + 1 : file) + ":" + std::to_string(line);
  }
};

// By the number of the place. Nothing here may order the threads of a kernel, which a mutex would:
// that hides the mutant.
constexpr int most = 100;
std::atomic<const Place*> seen[most];
int chosen = -1;

/// Whether the call is the mutant's.
template <int number>
bool left_out(const Place& place) {
  static_assert(number < most);
  seen[number].store(&place, std::memory_order_relaxed);
  return number == chosen;
}

inline void barrier(bool left_out) {
  if (!left_out) __syncthreads();
}
inline void warp_barrier(bool left_out) {
  if (!left_out) __syncwarp();
}
/// Left out is the order; without the count the kernel would not end.
inline uint32_t arrive(uint32_t* counter, bool left_out) {
  return left_out ? atomicAdd(counter, 1u) : diralign::cuda::arrive(counter);
}
inline void await(const uint32_t* counter, uint32_t count, bool left_out) {
  if (!left_out) diralign::cuda::await(counter, count);
}
inline void await_copies(bool left_out) {
  if (!left_out) diralign::cuda::await_copies();
}

}  // namespace mutants

#define MUTANT(what)                                                 \
  [] {                                                               \
    static constexpr mutants::Place place{what, __FILE__, __LINE__}; \
    return mutants::left_out<__COUNTER__>(place);                    \
  }()
#define __syncwarp() mutants::warp_barrier(MUTANT("__syncwarp"))
#include "copied_part.cuh"
#define __syncthreads() mutants::barrier(MUTANT("__syncthreads"))
#define arrive(counter) mutants::arrive(counter, MUTANT("arrive"))
#define await(counter, count) mutants::await(counter, count, MUTANT("await"))
#define load_vectors(row, vocab, ...) \
  load_vectors(row, (vocab) + (MUTANT("load_vectors") ? 1 : 0), __VA_ARGS__)
#define copy_part(row, vocab, ...) \
  copy_part(row, (vocab) + (MUTANT("copy_part") ? 1 : 0), __VA_ARGS__)
#define await_copies() mutants::await_copies(MUTANT("await_copies"))
#include "loss_kernel.cuh"

// In the place of loss_float32.cu, which the linker then leaves in its archive.
namespace diralign::cuda {
const LossKernels loss_kernels_float32 = loss_kernels_of<float>;
}

// What the tests' checks call; they have no harness here.
namespace check {
int failures = 0;
void fail(const char* file, int line, const char* condition, const std::string& detail) {
  failures++;
  std::fprintf(stderr, "%s:%d: CHECK(%s) %s\n", file, line, condition, detail.c_str());
}
std::string text() { return {}; }
std::string text(const char* format, ...) { return format; }
}  // namespace check

namespace {

using namespace problems;

/// Batches that reach every place of the kernel between them, the quick ones first.
struct Case {
  const char* name;
  const char* method;
  Shape shape;
  Run run;
  Where where;
};
std::vector<Case> cases() {
  auto shape = [](int64_t sequences, int64_t tokens, int64_t vocab) {
    Shape s;
    s.sequences = sequences;
    s.tokens = tokens;
    s.vocab = vocab;
    s.ignore = 0;
    return s;
  };
  const Where first{0, 0, 0}, shifted{0, 1, 2};
  return {
      {"a row of two parts", "sft", shape(1, 1, 9001), {Mode::none, false, false, 1}, first},
      {"two rows", "sft", shape(1, 2, 40), {Mode::dense, false, false, 1}, first},
      // The second tile, of two rows, is finished first, by a block that does nothing afterwards:
      // no later arrival orders what it wrote.
      {"two tiles", "sft", shape(1, 258, 3), {Mode::none, false, false, 1}, shifted},
      {"dense", "dpo", shape(4, 2, 9001), {Mode::dense, true, false, 1}, first},
      {"factored", "simpo", shape(4, 2, 9001), {Mode::factored, false, false, 1}, shifted},
      {"more parts than blocks",
       "simpo",
       shape(2, 1, 70001),
       {Mode::factored, false, false, 1},
       shifted},
      {"coupled", "aot", shape(14, 1, 40), {Mode::dense, false, false, 1}, shifted},
      {"long sequences", "cpo", shape(2, 513, 3), {Mode::none, false, false, 1}, shifted},
  };
}

Result result_of(const Case& c) {
  return on_device(Problem(reference::objective(c.method, 0.3), c.shape), c.run, c.where);
}

int run(const std::string& name, int mutant) {
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  for (const Case& c : cases()) {
    if (c.name != name) continue;
    // A mutant may also go round for ever.
    const rlimit processor_time{60, 60};
    setrlimit(RLIMIT_CPU, &processor_time);
    mutants::chosen = mutant;
    const Result result = result_of(c);
    // Where ThreadSanitizer finds it, this process has ended by now.
    mutants::chosen = -1;
    if (result.same(result_of(c))) return 0;
    std::printf("a wrong result\n");
    return 1;
  }
  std::fprintf(stderr, "no problem of this name: %s\n", name.c_str());
  return 0;
}

/// Runs a mutant in a process of its own; whether it was found.
bool found(const char* program, const std::string& name, int mutant, int order,
           std::string& output) {
  const std::string command =
      "env SIMT_ORDER=" + std::to_string(order) +
      " TSAN_OPTIONS=\"$TSAN_OPTIONS halt_on_error=1 atexit_sleep_ms=0\" '" + program + "' run '" +
      name + "' " + std::to_string(mutant) + " 2>&1";
  FILE* const pipe = popen(command.c_str(), "r");
  if (!pipe) return false;
  output.clear();
  char buffer[4096];
  for (size_t n; (n = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0;) output.append(buffer, n);
  return pclose(pipe) != 0;
}

}  // namespace

int main(int argc, char** argv) {
  // More parts than blocks, clusters that fill them, and all pairs in one group or each in its own.
  setenv("SIMT_MULTIPROCESSORS", "2", 0);
  if (argc == 4 && !std::strcmp(argv[1], "run")) return run(argv[2], std::atoi(argv[3]));
  std::map<int, std::string> names;
  std::map<int, std::vector<std::string>> reached;  // by which problems
  for (const Case& c : cases()) {
    for (auto& place : mutants::seen) place = nullptr;
    const Problem p(reference::objective(c.method, 0.3), c.shape);
    const Result result = on_device(p, c.run, c.where);
    const Truth truth(p);
    check_numbers(c.name, truth, result);
    if (c.run.mode != Mode::none) check_gradient(c.name, p, truth, result, c.run.mode);
    for (int k = 0; k < mutants::most; k++) {
      if (!mutants::seen[k]) continue;
      reached[k].push_back(c.name);
      names[k] = mutants::seen[k].load()->name();
    }
  }
  int tried = 0, missed = 0;
  for (const auto& [mutant, problems] : reached) {
    const bool reads = names[mutant].find("load_vectors") == 0 ||
                       names[mutant].find("copy_part") == 0 ||
                       names[mutant].find("await_copies") == 0;
    if (!check::thread_sanitized && !reads) continue;
    tried++;
    bool caught = false;
    std::string output;
    // What else a block does may order by chance what the mutant does not, so that a case or an
    // order can hide it.
    for (int order = 1; order <= 3 && !caught; order++)
      for (size_t k = 0; k < problems.size() && !caught; k++)
        caught = found(argv[0], problems[k], mutant, order, output);
    if (caught) {
      if (argc == 2 && !std::strcmp(argv[1], "show"))
        std::printf("%s:\n%s\n", names[mutant].c_str(), output.c_str());
      continue;
    }
    missed++;
    std::printf("FAIL  without %s nothing is found\n", names[mutant].c_str());
  }
  std::printf("%d mutants at %zu places, %d missed, %d checks failed\n", tried, reached.size(),
              missed, check::failures);
  return missed != 0 || check::failures != 0 || tried == 0 || reached.size() < 10;
}
