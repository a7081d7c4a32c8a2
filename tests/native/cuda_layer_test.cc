// Jobs with an output layer on the emulation: products by what stands for cuBLASLt
// (tests/simt/cublaslt), everything around them ours.
#include <dlfcn.h>
#include <cstdlib>
#include <functional>
#include <optional>
#include "products.h"
#include "device_jobs.h"
#include "jobs/plan.h"
#include "layer_cases.h"

using namespace problems;

namespace {

using check::thin;

/// Of a row of a chunk, where gradients are wanted.
size_t workspace_row(const LayerProblem& l) {
  const size_t stride = size_t(l.p.shape.vocab + 7) / 8 * 8;
  return stride * (l.layer.dtype == Dtype::float32 ? 4 : 6) + 2 * l.row_bytes();
}

/// Bytes on the device that begin so many past an aligned address.
struct DeviceArray {
  DeviceBytes memory;
  size_t offset;
  DeviceArray(int device, Stream stream, const void* from, size_t bytes, size_t offset_bytes)
      : memory(device, offset_bytes + bytes), offset(offset_bytes) {
    if (bytes) cuda::copy_to_device(device, stream, memory.data + offset, from, bytes);
  }
  char* data() const { return memory.data + offset; }
  void fetch(Stream stream, void* to, size_t bytes) const {
    if (bytes) cuda::copy_to_host(memory.device, stream, to, data(), bytes);
  }
};

/// The job's arrays moved to the device for `run`, and its gradients back.
template <class AnyJob>
void with_device_arrays(const LayerProblem& l, AnyJob& job, int device, int64_t offset,
                        const std::function<void(const Place&)>& run) {
  OwnStream stream(device);
  const size_t past = size_t(offset) * dtype_bytes(l.layer.dtype);
  const DeviceArray hidden(device, stream.stream, l.hidden.data(), l.hidden.size(), past),
      weight(device, stream.stream, l.weight.data(), l.weight.size(), past),
      bias(device, stream.stream, l.bias.data(), l.bias.size(), past);
  job.layer->hidden = hidden.data();
  job.layer->weight = weight.data();
  if (job.layer->bias) job.layer->bias = bias.data();
  struct Moved {
    LayerGradients::Buffer* buffer = nullptr;
    void* host = nullptr;
    size_t bytes = 0;
    std::optional<DeviceArray> array;
  } moved[3];
  if constexpr (std::is_same_v<AnyJob, Job>) {
    LayerGradients& out = job.gradients.layer;
    const size_t vocab = size_t(l.p.shape.vocab), size = size_t(l.layer.hidden);
    moved[0].buffer = &out.hidden, moved[0].bytes = l.hidden.size();
    moved[1].buffer = &out.weight, moved[1].bytes = vocab * size * sizeof(float);
    moved[2].buffer = &out.bias, moved[2].bytes = vocab * sizeof(float);
    for (Moved& m : moved) {
      m.host = m.buffer->data;
      if (!m.host) continue;
      m.array.emplace(device, stream.stream, m.host, m.bytes,
                      size_t(offset) * (&m == moved ? dtype_bytes(l.layer.dtype) : sizeof(float)));
      m.buffer->data = m.array->data();
    }
  }
  auto back = [&] {
    for (Moved& m : moved)
      if (m.array) {
        m.array->fetch(stream.stream, m.host, m.bytes);
        m.buffer->data = m.host;
      }
  };
  try {
    run({device, stream.stream});
  } catch (...) {
    back();
    throw;
  }
  back();
}

LayerResult on_device(const LayerProblem& l, const LayerRun& run, int device = 0,
                      int64_t offset = 0) {
  PreparedLayer prepared(l, run);
  with_device_arrays(l, prepared.numbers.job, device, offset, [&](const Place& place) {
    cuda::run_layer(prepared.numbers.job, place, *Pool::shared());
  });
  return prepared.collect();
}
LayerResult staged(const LayerProblem& l, const LayerRun& run, int device = 1) {
  PreparedLayer prepared(l, run);
  cuda::run_staged(prepared.numbers.job, device);
  return prepared.collect();
}

/// The gradient of the logits has the layer's type.
double rounding(Dtype d) {
  return d == Dtype::float32 ? 2e-5 : d == Dtype::float16 ? 0x1p-10 : 0x1p-7;
}

/// The products of a scope, as what stands for cuBLASLt counts them.
struct Products {
  uint64_t count_before = 0, sum_before = 0;
  Products() { read(count_before, sum_before); }
  static void read(uint64_t& count, uint64_t& sum) {
    static const auto counts = [] {
      CHECK(cuda::layer_problem().empty(), "%s", cuda::layer_problem().c_str());
      void* const library = dlopen(DIRALIGN_CUBLASLT_DEFAULT, RTLD_NOW | RTLD_LOCAL);
      return reinterpret_cast<void (*)(uint64_t*, uint64_t*)>(dlsym(library, "simt_products"));
    }();
    counts(&count, &sum);
  }
  uint64_t count() const {
    uint64_t count, sum;
    read(count, sum);
    return count - count_before;
  }
  uint64_t multiplications() const {
    uint64_t count, sum;
    read(count, sum);
    return sum - sum_before;
  }
};

struct Failing {
  explicit Failing(const char* what) { setenv("SIMT_FAIL", what, 1); }
  ~Failing() { unsetenv("SIMT_FAIL"); }
};

void check_layer(const std::string& what, const LayerProblem& l, const Truth& truth,
                 const LayerRun& run, const LayerResult& result) {
  problems::check_layer(what, l, truth, run, result, rounding(l.layer.dtype));
}

LayerRunner backend() {
  return {
      {[](const LayerProblem& l, const LayerRun& run) { return on_device(l, run); },
       [](const LayerProblem& l, const LayerRun& run) { return staged(l, run); }},
      check_layer,
      [](const LayerProblem& l, int64_t rows) { return workspace_row(l) * size_t(rows) + 4096; },
      5};
}

}  // namespace

TEST(cuda_layer_types) {
  int k = 0;
  for (Dtype d : dtypes) {
    for (bool bias : {false, true}) {
      for (int64_t size : {1, 7, 24, 64}) {
        if (k++ % (thin ? 7 : 1) != 0) continue;
        const LayerProblem l(with_likelihood("dpo", 0.3), shape_of(uint64_t(k), 30 + k),
                             {d, size, bias});
        const Truth truth(l.p);
        for (int64_t offset : {0, 1, 3}) {
          const std::string what =
              check::text("%s hidden %d bias %d offset %d", dtype_names[int(d)], int(size),
                          int(bias), int(offset));
          check_layer(what, l, truth, {}, on_device(l, {}, int(offset % 2), offset));
        }
        check_layer("staged", l, truth, {}, staged(l, {}));
      }
    }
  }
}

TEST(cuda_layer_every_method) {
  for (int m = 0; m < method_count(); m++) {
    for (int k = 0; k < 3; k++) {
      if ((3 * m + k) % (thin ? 29 : 1) != 0) continue;
      Objective o = reference::objective(m, k % 2 ? 0.1 : 0.7);
      Shape shape = shape_of(uint64_t(10 * m + k), 41);
      shape.sequences = reference::facts(o).is_linear ? 3 : 6;
      shape.packed = k >= 1;
      if (reference::takes_likelihood(o) && k > 0) {
        o.settings.sft_weight = 0.6;
        o.settings.sft_reduction = k == 2;
        shape.sft_labels = k == 2;
      }
      shape.fields = k == 2;
      const LayerProblem l(o, shape, {dtypes[(m + k) % 3], 16, k == 1});
      const Truth truth(l.p);
      const LayerRun small{workspace_row(l) * 7 + 4096};
      const std::string what =
          check::text("%s %s %d", reference::name_of(o), dtype_names[(m + k) % 3], k);
      check_layer(what, l, truth, {}, on_device(l, {}, 0, k));
      check_layer(what + " small", l, truth, small, on_device(l, small, 1));
      check_layer(what + " staged", l, truth, small, staged(l, small, 0));
    }
  }
}

TEST(cuda_layer_chunks) {
  // From all pairs at a time to one row: the numbers' bits are the same, whatever fits, and as
  // sequenceLogps has them.
  for (Dtype d : dtypes) {
    if (thin && d != Dtype::bfloat16) continue;
    Shape shape = shape_of(21 + uint64_t(d), 53);
    shape.sequences = 8;
    shape.tokens = 6;
    shape.packed = true;
    const LayerProblem l(with_likelihood("simpo", 1.5), shape, {d, 20, true});
    const Truth truth(l.p);
    const auto too_small = thrown<WorkspaceTooSmall>([&] { on_device(l, {1}); });
    CHECK(too_small && too_small->needed > workspace_row(l));
    if (!too_small) return;
    CHECK(thrown<WorkspaceTooSmall>([&] { on_device(l, {too_small->needed - 1}); }));
    CHECK(thrown<WorkspaceTooSmall>([&] { staged(l, {too_small->needed - 1}); }));
    std::optional<Result> first;
    for (int64_t rows : {1, 2, 3, 5, 9, 14, 100}) {
      if (thin && rows % 7 != 2) continue;
      const LayerRun run{too_small->needed + size_t(rows - 1) * workspace_row(l) * 4 / 3 +
                         (rows > 1 ? 512 : 0)};
      const std::string what = check::text("%s %d rows at a time", dtype_names[int(d)], int(rows));
      const LayerResult result = on_device(l, run, 0, rows % 3), by_host = staged(l, run);
      check_layer(what, l, truth, run, result);
      check_layer(what + ", staged", l, truth, run, by_host);
      if (!first) first = result.numbers;
      CHECK(result.numbers.same(*first) && by_host.numbers.same(*first), "%s: other bits",
            what.c_str());
      check_layer_logps(what, l, truth, run.memory, first->logps, [&](auto& job) {
        with_device_arrays(l, job, 0, rows % 3, [&](const Place& place) {
          cuda::run_layer(job, place, *Pool::shared());
        });
      });
      check_layer_logps(what + ", staged", l, truth, run.memory, first->logps,
                        [](auto& job) { cuda::run_staged(job, 1); });
    }
  }
}
TEST(cuda_layer_coupled) { layers_coupled(backend()); }

TEST(cuda_layer_outputs) {
  // Every gradient left out, written or added to.
  for (Dtype d : dtypes) {
    if (thin && d != Dtype::float16) continue;
    const LayerProblem l(with_likelihood("cpo", 0.2), shape_of(41), {d, 16, true});
    const Truth truth(l.p);
    for (int k = 0; k < 27; k++) {
      if (thin && k % 5 != 2) continue;
      LayerRun run{k % 2 ? plenty : workspace_row(l) * 4 + 4096};
      auto choose = [](int how, bool& wanted, bool& add) { wanted = how > 0, add = how > 1; };
      choose(k % 3, run.hidden, run.add_hidden);
      choose(k / 3 % 3, run.weight, run.add_weight);
      choose(k / 9, run.bias, run.add_bias);
      const std::string what = check::text("%s outputs %d", dtype_names[int(d)], k);
      check_layer(what, l, truth, run, on_device(l, run, 0, k % 4));
      check_layer(what + " staged", l, truth, run, staged(l, run));
    }
  }
}

TEST(cuda_layer_halves) {
  // Two halves of a batch, added up, are the batch.
  Shape shape = shape_of(51);
  shape.sequences = 4;
  shape.ignore = 0;
  const LayerProblem l(reference::objective("simpo", 1), shape, {Dtype::float32, 16, false});
  const LayerResult whole = on_device(l, {});
  std::vector<float> weight(whole.weight.size(), 0);
  for (int64_t pair : {0, 1}) {
    LayerProblem half = l;
    half.p.shape.sequences = 2;
    half.p.rows = 2 * shape.tokens;
    half.hidden.clear(), half.p.labels.clear();
    for (int64_t s : {pair, pair + 2}) {
      half.hidden.insert(half.hidden.end(),
                         l.hidden.begin() + s * shape.tokens * int64_t(l.row_bytes()),
                         l.hidden.begin() + (s + 1) * shape.tokens * int64_t(l.row_bytes()));
      half.p.labels.insert(half.p.labels.end(), l.p.labels.begin() + s * shape.tokens,
                           l.p.labels.begin() + (s + 1) * shape.tokens);
    }
    const LayerResult part = on_device(half, {});
    for (size_t i = 0; i < weight.size(); i++)
      weight[i] += part.weight[i] / 2;  // each is a mean over its pairs
  }
  for (size_t i = 0; i < weight.size(); i++)
    CHECK(std::fabs(weight[i] - whole.weight[i]) <= 1e-5f * std::fabs(whole.weight[i]) + 1e-6f,
          "%zu: %g, not %g", i, double(weight[i]), double(whole.weight[i]));
}

TEST(cuda_layer_edges) { layers_edges(backend()); }

TEST(cuda_layer_idle_rows) {
  // A pair whose loss is flat takes no part in the second and the third product.
  Shape shape = shape_of(81, 19);
  shape.sequences = 4;
  shape.tokens = thin ? 140 : 200;
  shape.ignore = 0;
  LayerProblem l(reference::objective("hinge", 0.01), shape, {Dtype::float32, 8, false});
  l.p.references = {0, -1e6, 0, 0};  // the second pair's margin is far above 1
  const Truth truth(l.p);
  const Products products;
  const LayerResult result = on_device(l, {});
  CHECK(result.numbers.coefficients[0] != 0 && result.numbers.coefficients[1] == 0);
  check_layer("idle", l, truth, {}, result);
  const uint64_t forward = uint64_t(l.p.rows) * 19 * 8;
  CHECK(products.multiplications() == forward + 2 * (forward / 2), "%llu, %llu a product",
        (unsigned long long)products.multiplications(), (unsigned long long)forward);
  CHECK(products.count() == 3);
  l.p.references = {-1e6, -1e6, 0, 0};
  const Products none;
  check_layer("all idle", l, Truth(l.p), {}, on_device(l, {}));
  CHECK(none.count() == 1);
}

TEST(cuda_layer_idle_not_finite) { layers_idle_not_finite(backend()); }

TEST(cuda_layer_recomputed) {
  // A group that fits is not computed twice, and one that does not is.
  Shape shape = shape_of(91);
  shape.sequences = 2;
  shape.tokens = 8;
  shape.ignore = 0;
  const LayerProblem l(reference::objective("simpo", 1), shape, {Dtype::float32, 8, false});
  const Products kept;
  on_device(l, {});
  CHECK(kept.count() == 3, "%d", int(kept.count()));
  const Products again;
  on_device(l, {workspace_row(l) * 12 + 2048});
  CHECK(again.count() == 8, "%d", int(again.count()));  // two chunks, four products each
  const Products forward;
  LayerRun run;
  run.hidden = run.weight = run.bias = false;
  on_device(l, run);
  CHECK(forward.count() == 1, "%d", int(forward.count()));
}

TEST(cuda_layer_small_coefficients) {
  // float16: gradients of the logits far below its smallest number.
  Objective o = reference::objective("simpo", 1e-7);
  const LayerProblem l(o, shape_of(101), {Dtype::float16, 8, true});
  LayerRun run;
  run.hidden = false;
  const Truth truth(l.p);
  const LayerResult result = on_device(l, run);
  check_layer("small", l, truth, run, result);
  CHECK(std::any_of(result.weight.begin(), result.weight.end(),
                    [](float g) { return g != 0 && std::fabs(g) < 1e-7f; }));
}

TEST(cuda_layer_cancelled) {
  const LayerProblem l(reference::objective("dpo", 0.1), shape_of(111), {Dtype::float32, 8, true});
  for (bool on_host : {false, true}) {
    PreparedLayer stopped(l, {});
    Job& job = stopped.numbers.job;
    job.cancelled = true;
    if (on_host) cuda::run_staged(job, 0);
    else
      with_device_arrays(l, job, 0, 0,
                         [&](const Place& place) { cuda::run_layer(job, place, *Pool::shared()); });
    const LayerResult result = stopped.collect();
    CHECK(result.numbers.loss == 0 && result.numbers.losses[0] == -1);
    CHECK(std::all_of(result.weight.begin(), result.weight.end(),
                      [](float x) { return std::isnan(x); }));
    CHECK(std::memcmp(result.hidden.data(), result.hidden_before.data(), result.hidden.size()) ==
          0);
  }
}

TEST(cuda_layer_failures) {
  // Each product in turn, the choice of an algorithm, memory, a launch: the error says what,
  // nothing is leaked, and the next call is good.
  const LayerProblem l(reference::objective("dpo", 0.1), shape_of(121), {Dtype::bfloat16, 8, true});
  const Truth truth(l.p);
  const size_t before = simt::live_allocations();
  for (const char* failure :
       {"cublasLtMatmul:13:0", "cublasLtMatmul:15:1", "cublasLtMatmul:13:2",
        "cudaMallocAsync:2:3:2", "cudaLaunchKernel:719:1", "cudaLaunchKernel:719:4"}) {
    for (bool on_host : {false, true}) {
      const auto error = thrown<DeviceError>([&] {
        const Failing scope(failure);
        if (on_host) staged(l, {}, 0);
        else on_device(l, {});
      });
      CHECK(error.has_value(), "%s", failure);
      if (error && failure[1] == 'u' && failure[2] == 'b') {
        CHECK(error->name == (failure[16] == '3' ? "CUBLAS_STATUS_EXECUTION_FAILED"
                                                 : "CUBLAS_STATUS_NOT_SUPPORTED"),
              "%s", error->what());
        CHECK(std::strstr(error->what(), "cublasLtMatmul: CUBLAS_STATUS_"), "%s", error->what());
      }
      CHECK(simt::live_allocations() == before, "%s", failure);
      check_layer("after a failure", l, truth, {}, on_device(l, {}));
    }
  }
  // Of a shape that nothing was chosen for yet.
  const LayerProblem fresh(reference::objective("dpo", 0.1), shape_of(122, 71),
                           {Dtype::bfloat16, 8, true});
  const auto error = thrown<DeviceError>([&] {
    const Failing scope("cublasLtMatmulAlgoGetHeuristic:14:0");
    on_device(fresh, {});
  });
  CHECK(error && error->name == "CUBLAS_STATUS_INTERNAL_ERROR");
}

TEST(cuda_layer_library) {
  cuda::cublaslt::Functions functions{};
  const std::string sound = DIRALIGN_CUBLASLT_DEFAULT,
                    directory = sound.substr(0, sound.rfind('/'));
  CHECK(cuda::layer_problem().empty());
  CHECK(cuda::cublaslt::load(nullptr, functions).empty() &&
        cuda::cublaslt::load("", functions).empty());
  CHECK(cuda::cublaslt::load(sound.c_str(), functions).empty() &&
        cuda::cublaslt::load(directory.c_str(), functions).empty());
  auto says = [&](const std::string& where, const char* what) {
    const std::string problem = cuda::cublaslt::load(where.c_str(), functions);
    CHECK(problem.find(what) != std::string::npos &&
              problem.find("DIRALIGN_CUBLASLT") != std::string::npos,
          "%s", problem.c_str());
  };
  says(directory + "-12", "version 12");
  says(directory + "-lacking", "no cublasLtMatmul");
  says(directory + "-nowhere", "cannot open shared object file");
}
