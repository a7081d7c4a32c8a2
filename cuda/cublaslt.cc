#include "cublaslt.h"

#include <dirent.h>
#include <dlfcn.h>
#include <algorithm>
#include <compare>
#include <cstdlib>
#include <iterator>
#include <map>
#include <mutex>
#include <vector>

namespace diralign::gpu {

namespace cublaslt {

namespace {

constexpr const char* file_name = "libcublasLt.so.13";

template <class Function>
bool find(void* library, const char* name, Function& function, std::string& missing) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (!function && missing.empty()) missing = name;
  return function != nullptr;
}

const char* name_of(Status status) {
  switch (status) {
    case 1: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case 3: return "CUBLAS_STATUS_ALLOC_FAILED";
    case 7: return "CUBLAS_STATUS_INVALID_VALUE";
    case 8: return "CUBLAS_STATUS_ARCH_MISMATCH";
    case 11: return "CUBLAS_STATUS_MAPPING_ERROR";
    case 13: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case 14: return "CUBLAS_STATUS_INTERNAL_ERROR";
    case 15: return "CUBLAS_STATUS_NOT_SUPPORTED";
    case 16: return "CUBLAS_STATUS_LICENSE_ERROR";
    default: return "an unknown status of cuBLAS";
  }
}

constexpr Status not_supported = 15;

void check(Status status, const char* call, const char* product) {
  if (status != 0) throw Error(call, status, name_of(status), std::string("the product for the ").append(product).c_str());
}

}  // namespace

std::string load(const char* where, Functions& f) {
  std::vector<std::string> candidates;
  if (where && *where) {
    DIR* const directory = opendir(where);
    if (directory) closedir(directory);
    candidates = {directory ? std::string(where) + "/" + file_name : where};
  } else {
#if defined(DIRALIGN_CUBLASLT_DEFAULT)
    candidates = {DIRALIGN_CUBLASLT_DEFAULT};
#else
    candidates = {file_name, std::string("/usr/local/cuda/lib64/") + file_name};
#endif
  }
  const std::string needs = "an output layer on a device needs cuBLASLt " + std::to_string(major_version) + ": ";
  const std::string advice = "; DIRALIGN_CUBLASLT may name the file or its directory";
  void* library = nullptr;
  std::string tried;
  for (const std::string& candidate : candidates) {
    library = gpu_load_library(candidate.c_str());
    if (library) break;
    const char* const reason = dlerror();
    tried += (tried.empty() ? "" : "; ") + (reason ? std::string(reason) : candidate + " cannot be loaded");
  }
  if (!library) return needs + tried + advice;

  std::string missing;
  find(library, "cublasLtGetProperty", f.get_property, missing);
  find(library, "cublasLtCreate", f.create, missing);
  find(library, "cublasLtMatmulDescCreate", f.desc_create, missing);
  find(library, "cublasLtMatmulDescSetAttribute", f.desc_set, missing);
  find(library, "cublasLtMatmulDescDestroy", f.desc_destroy, missing);
  find(library, "cublasLtMatrixLayoutCreate", f.layout_create, missing);
  find(library, "cublasLtMatrixLayoutDestroy", f.layout_destroy, missing);
  find(library, "cublasLtMatmulPreferenceCreate", f.preference_create, missing);
  find(library, "cublasLtMatmulPreferenceSetAttribute", f.preference_set, missing);
  find(library, "cublasLtMatmulPreferenceDestroy", f.preference_destroy, missing);
  find(library, "cublasLtMatmulAlgoGetHeuristic", f.get_heuristic, missing);
  find(library, "cublasLtMatmulAlgoCheck", f.check_algorithm, missing);
  find(library, "cublasLtMatmul", f.matmul, missing);
  int version = 0;
  std::string problem;
  if (!missing.empty()) problem = "the library that was found has no " + missing;
  else if (f.get_property(property_major, &version) != 0 || version != major_version) problem = "the library that was found is version " + std::to_string(version);
  if (problem.empty()) return {};  // never unloaded: the driver may be gone first at the end of the process
  dlclose(library);
  return needs + problem + advice;
}

namespace {

struct Library {
  Functions functions{};
  std::string problem;
};
const Library& library() {
  static const Library& loaded = *[] {
    auto* const made = new Library;
    made->problem = load(std::getenv("DIRALIGN_CUBLASLT"), made->functions);
    return made;
  }();
  return loaded;
}

/// One for each device, made when it is first needed and never destroyed.
Handle handle_of(int device) {
  static std::mutex mutex;
  static auto& handles = *new std::vector<Handle>;
  const std::lock_guard lock(mutex);
  if (size_t(device) >= handles.size()) handles.resize(size_t(device) + 1);
  Handle& handle = handles[size_t(device)];
  if (!handle) {
    const DeviceGuard guard(device);
    Handle made = nullptr;
    check(library().functions.create(&made), "cublasLtCreate", "logits");
    handle = made;
  }
  return handle;
}

/// The descriptions that a call is made of; destroyed with it.
template <class T>
class Owned {
 public:
  explicit Owned(Status (*destroy)(T)) : destroy_(destroy) {}
  ~Owned() {
    if (value_) (void)destroy_(value_);
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  T* out() { return &value_; }
  operator T() const { return value_; }

 private:
  T value_ = nullptr;
  Status (*destroy_)(T);
};

DataType type_of(Dtype dtype) { return dtype == Dtype::float32 ? r_32f : dtype == Dtype::float16 ? r_16f : r_16bf; }

uint32_t alignment_of(const void* pointer) {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  return uint32_t(std::min<uintptr_t>(16, address & (~address + 1)));
}

/// What an algorithm was chosen for.
struct Choice {
  int device, product;
  Dtype dtype;
  bool bias;
  int64_t m, n, k, logits_stride;
  uint32_t alignment_a, alignment_b, alignment_d;
  size_t workspace;
  auto operator<=>(const Choice&) const = default;
};

/// Choices made before: asking takes tens of microseconds.
class Choices {
 public:
  static Choices& get() {
    static Choices& choices = *new Choices;
    return choices;
  }
  bool find(const Choice& choice, Algorithm& algorithm) {
    const std::lock_guard lock(mutex_);
    const auto found = known_.find(choice);
    if (found == known_.end()) return false;
    algorithm = found->second;
    return true;
  }
  void keep(const Choice& choice, const Algorithm& algorithm) {
    const std::lock_guard lock(mutex_);
    if (known_.size() >= 1024) known_.clear();  // of more shapes than a training has
    known_[choice] = algorithm;
  }

 private:
  std::mutex mutex_;
  std::map<Choice, Algorithm> known_;
};

/// The rows that the algorithm of the first product is chosen for, whatever their number.
constexpr int64_t many_rows = 2048;
constexpr const char* product_names[] = {"logits", "gradient of the hidden states", "gradient of the weight"};

}  // namespace

}  // namespace cublaslt

using namespace cublaslt;

const std::string& layer_problem() {
  static const std::string& problem = *[] {
    const gpu::Status found = status();
    return new std::string(found.devices > 0 ? library().problem : found.error_text.empty() ? "there is no CUDA device" : "there is no CUDA device: " + found.error_text);
  }();
  return problem;
}

/// As cuBLASLt sees it, all in column-major order: D [m, n] = alpha op(A) op(B) + beta D.
struct Products::Product {
  int name;  ///< of product_names
  bool transpose_a, transpose_b;
  int64_t m, n, k;
  const void *a, *b;
  int64_t lda, ldb;
  void* d;
  int64_t ldd;
  Dtype d_type;
  const float* bias;  ///< or null
  float alpha, beta;
  bool any_rows;      ///< the algorithm and the bits must not depend on n
};

Products::Products(const Layer& layer) : layer_(layer), handle_(handle_of(layer.device)) {}

void Products::logits(cudaStream_t stream, float* out, const void* hidden, int64_t rows) {
  multiply(stream, {0, true, false, layer_.vocab, rows, layer_.hidden, layer_.weight, hidden, layer_.hidden, layer_.hidden, out, layer_.logits_stride, Dtype::float32,
                    layer_.bias, 1, 0, true});
}

void Products::hidden_gradient(cudaStream_t stream, void* out, const void* gradient, int64_t rows, float scale, bool add) {
  multiply(stream, {1, false, false, layer_.hidden, rows, layer_.vocab, layer_.weight, gradient, layer_.hidden, layer_.logits_stride, out, layer_.hidden, layer_.dtype,
                    nullptr, scale, add ? 1.0f : 0.0f, false});
}

void Products::weight_gradient(cudaStream_t stream, float* out, const void* gradient, const void* hidden, int64_t rows, float scale, bool add) {
  multiply(stream, {2, false, true, layer_.hidden, layer_.vocab, rows, hidden, gradient, layer_.hidden, layer_.logits_stride, out, layer_.hidden, Dtype::float32, nullptr,
                    scale, add ? 1.0f : 0.0f, false});
}

void Products::multiply(cudaStream_t stream, const Product& p) {
  const Functions& f = library().functions;
  const char* const name = product_names[p.name];
  Owned<MatmulDesc> desc(f.desc_destroy);
  check(f.desc_create(desc.out(), compute_32f, r_32f), "cublasLtMatmulDescCreate", name);
  auto set = [&](DescAttribute attribute, auto value) { check(f.desc_set(desc, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute", name); };
  set(desc_transa, p.transpose_a ? op_t : op_n);
  set(desc_transb, p.transpose_b ? op_t : op_n);
  if (p.bias) {
    set(desc_epilogue, epilogue_bias);
    set(desc_bias_pointer, p.bias);
  }
  auto create = [&](Owned<cublaslt::Layout>& layout, Dtype type, int64_t rows, int64_t columns, int64_t leading_dimension) {
    check(f.layout_create(layout.out(), type_of(type), uint64_t(rows), uint64_t(columns), leading_dimension), "cublasLtMatrixLayoutCreate", name);
  };
  struct Layouts {
    Owned<cublaslt::Layout> a, b, d;
  };
  auto lay_out = [&](Layouts& layouts, int64_t n) {
    create(layouts.a, layer_.dtype, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.lda);
    create(layouts.b, layer_.dtype, p.transpose_b ? n : p.k, p.transpose_b ? p.k : n, p.ldb);
    create(layouts.d, p.d_type, p.m, n, p.ldd);
  };
  auto none = [&] { return Layouts{Owned<cublaslt::Layout>(f.layout_destroy), Owned<cublaslt::Layout>(f.layout_destroy), Owned<cublaslt::Layout>(f.layout_destroy)}; };
  Layouts layouts = none();
  lay_out(layouts, p.n);

  // The first product's workspace is none at any time: how much there is must not choose its algorithm.
  const size_t workspace = p.any_rows ? 0 : layer_.workspace_bytes;
  const int64_t chosen_for = p.any_rows ? many_rows : p.n;
  const uint32_t row_bytes_alignment = uint32_t(row_alignment(size_t(layer_.hidden) * dtype_bytes(layer_.dtype)));
  const uint32_t alignment_b = p.any_rows ? std::min(alignment_of(p.b), row_bytes_alignment) : alignment_of(p.b);
  const Choice choice{layer_.device, p.name,           layer_.dtype,       p.bias != nullptr, p.m, chosen_for, p.k, layer_.logits_stride,
                      alignment_of(p.a), alignment_b, alignment_of(p.d), workspace};
  Algorithm algorithm;
  if (!Choices::get().find(choice, algorithm)) {
    Owned<Preference> preference(f.preference_destroy);
    check(f.preference_create(preference.out()), "cublasLtMatmulPreferenceCreate", name);
    auto prefer = [&](PreferenceAttribute attribute, auto value) {
      check(f.preference_set(preference, attribute, &value, sizeof value), "cublasLtMatmulPreferenceSetAttribute", name);
    };
    prefer(preference_max_workspace_bytes, uint64_t(workspace));
    // Partial sums of a split are float32 everywhere: in the type of the output they would be rounded.
    prefer(preference_reduction_scheme_mask, uint32_t(p.any_rows ? reduction_none : reduction_compute_type));
    prefer(preference_min_alignment_a_bytes, choice.alignment_a);
    prefer(preference_min_alignment_b_bytes, choice.alignment_b);
    prefer(preference_min_alignment_c_bytes, choice.alignment_d);
    prefer(preference_min_alignment_d_bytes, choice.alignment_d);
    Layouts many = none(), one = none();
    lay_out(many, chosen_for);
    lay_out(one, 1);
    Heuristic found[8];
    int count = 0;
    check(f.get_heuristic(handle_, desc, many.a, many.b, many.d, many.d, preference, int(std::size(found)), found, &count), "cublasLtMatmulAlgoGetHeuristic", name);
    const auto usable = [&](const Heuristic& candidate) {
      if (candidate.state != 0 || candidate.workspace_bytes > workspace) return false;
      Heuristic result{};
      return !p.any_rows || f.check_algorithm(handle_, desc, one.a, one.b, one.d, one.d, &candidate.algorithm, &result) == 0;
    };
    const Heuristic* const best = std::find_if(found, found + std::clamp(count, 0, int(std::size(found))), usable);
    if (best == found + std::clamp(count, 0, int(std::size(found)))) check(not_supported, "cublasLtMatmulAlgoGetHeuristic", name);
    algorithm = best->algorithm;
    Choices::get().keep(choice, algorithm);
  }
  check(f.matmul(handle_, desc, &p.alpha, p.a, layouts.a, p.b, layouts.b, &p.beta, p.d, layouts.d, p.d, layouts.d, &algorithm, workspace ? layer_.workspace : nullptr,
                 workspace, stream),
        "cublasLtMatmul", name);
}

}  // namespace diralign::gpu
