#include "products.h"
#include <algorithm>
#include <compare>
#include <map>
#include <mutex>
#include <vector>
#include "tuning.h"

namespace diralign::cuda {

using namespace cublaslt;

namespace {

uint32_t alignment_of(const void* pointer) {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  return uint32_t(std::min<uintptr_t>(16, address & (~address + 1)));
}

/// What an algorithm was chosen for.
struct Choice {
  int device, product;
  Dtype dtype, d_type;
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

constexpr const char* product_names[] = {"logits", "gradient of the hidden states",
                                         "gradient of the weight"};

}  // namespace

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
  bool any_rows;  ///< the algorithm and the bits must not depend on n
};

Products::Products(const Layer& layer) : layer_(layer), handle_(handle_of(layer.device)) {}

Products::Product Products::logits_product(float* out, const void* hidden, int64_t rows) const {
  return {.name = 0,
          .transpose_a = true,
          .transpose_b = false,
          .m = layer_.vocab,
          .n = rows,
          .k = layer_.hidden,
          .a = layer_.weight,
          .b = hidden,
          .lda = layer_.hidden,
          .ldb = layer_.hidden,
          .d = out,
          .ldd = layer_.logits_stride,
          .d_type = Dtype::float32,
          .bias = layer_.bias,
          .alpha = 1,
          .beta = 0,
          .any_rows = true};
}
void Products::logits(cudaStream_t stream, float* out, const void* hidden, int64_t rows) {
  multiply(stream, logits_product(out, hidden, rows));
}

Products::Product Products::hidden_product(void* out, Dtype dtype, const void* gradient,
                                           int64_t rows, float scale, bool add) const {
  return {.name = 1,
          .transpose_a = false,
          .transpose_b = false,
          .m = layer_.hidden,
          .n = rows,
          .k = layer_.vocab,
          .a = layer_.weight,
          .b = gradient,
          .lda = layer_.hidden,
          .ldb = layer_.logits_stride,
          .d = out,
          .ldd = layer_.hidden,
          .d_type = dtype,
          .bias = nullptr,
          .alpha = scale,
          .beta = add ? 1.0f : 0.0f,
          .any_rows = false};
}
void Products::hidden_gradient(cudaStream_t stream, void* out, const void* gradient, int64_t rows,
                               float scale, bool add) {
  multiply(stream, hidden_product(out, layer_.dtype, gradient, rows, scale, add));
}
void Products::hidden_gradient(cudaStream_t stream, float* out, const void* gradient, int64_t rows,
                               float scale) {
  multiply(stream, hidden_product(out, Dtype::float32, gradient, rows, scale, false));
}

void Products::weight_gradient(cudaStream_t stream, float* out, const void* gradient,
                               const void* hidden, int64_t rows, float scale, bool add) {
  multiply(stream, {.name = 2,
                    .transpose_a = false,
                    .transpose_b = true,
                    .m = layer_.hidden,
                    .n = layer_.vocab,
                    .k = rows,
                    .a = hidden,
                    .b = gradient,
                    .lda = layer_.hidden,
                    .ldb = layer_.logits_stride,
                    .d = out,
                    .ldd = layer_.hidden,
                    .d_type = Dtype::float32,
                    .bias = nullptr,
                    .alpha = scale,
                    .beta = add ? 1.0f : 0.0f,
                    .any_rows = false});
}

/// A product in cuBLASLt's words, and what its algorithm is chosen for.
struct Products::Description {
  struct Layouts {
    Owned<cublaslt::Layout> a{library().functions.layout_destroy},
        b{library().functions.layout_destroy}, d{library().functions.layout_destroy};
  };
  const Products& products;
  const Product& p;
  const Functions& f = library().functions;
  const char* const name;
  const size_t workspace;
  const Choice choice;
  Owned<MatmulDesc> desc{f.desc_destroy};

  Description(const Products& of, const Product& product)
      : products(of),
        p(product),
        name(product_names[product.name]),
        workspace(product.any_rows ? 0 : of.layer_.workspace_bytes),
        choice(choice_for()) {
    check(f.desc_create(desc.out(), compute_32f, r_32f), "cublasLtMatmulDescCreate", name);
    auto set = [&](DescAttribute attribute, auto value) {
      check(f.desc_set(desc, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute",
            name);
    };
    set(desc_transa, p.transpose_a ? op_t : op_n);
    set(desc_transb, p.transpose_b ? op_t : op_n);
    if (p.bias) {
      set(desc_epilogue, epilogue_bias);
      set(desc_bias_pointer, p.bias);
    }
  }

  /// The first product's workspace is none at any time: how much there is must not choose its
  /// algorithm.
  Choice choice_for() const {
    const Layer& layer = products.layer_;
    const uint32_t row_bytes_alignment =
        uint32_t(row_alignment(size_t(layer.hidden) * dtype_bytes(layer.dtype)));
    const uint32_t alignment_b =
        p.any_rows ? std::min(alignment_of(p.b), row_bytes_alignment) : alignment_of(p.b);
    return {layer.device,
            p.name,
            layer.dtype,
            p.d_type,
            p.bias != nullptr,
            p.m,
            p.any_rows ? many_rows : p.n,
            p.k,
            layer.logits_stride,
            alignment_of(p.a),
            alignment_b,
            alignment_of(p.d),
            workspace};
  }

  void lay_out(Layouts& layouts, int64_t n) const {
    auto create = [&](Owned<cublaslt::Layout>& layout, Dtype type, int64_t rows, int64_t columns,
                      int64_t leading_dimension) {
      check(f.layout_create(layout.out(), type_of(type), uint64_t(rows), uint64_t(columns),
                            leading_dimension),
            "cublasLtMatrixLayoutCreate", name);
    };
    const Dtype dtype = products.layer_.dtype;
    create(layouts.a, dtype, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.lda);
    create(layouts.b, dtype, p.transpose_b ? n : p.k, p.transpose_b ? p.k : n, p.ldb);
    create(layouts.d, p.d_type, p.m, n, p.ldd);
  }

  /// The best first, and how many were offered.
  std::vector<Algorithm> usable_algorithms(int& offered) const {
    Owned<Preference> preference(f.preference_destroy);
    check(f.preference_create(preference.out()), "cublasLtMatmulPreferenceCreate", name);
    auto prefer = [&](PreferenceAttribute attribute, auto value) {
      check(f.preference_set(preference, attribute, &value, sizeof value),
            "cublasLtMatmulPreferenceSetAttribute", name);
    };
    prefer(preference_max_workspace_bytes, uint64_t(workspace));
    // Partial sums of a split are float32 everywhere: in the type of the output they would be
    // rounded.
    prefer(preference_reduction_scheme_mask,
           uint32_t(p.any_rows ? reduction_none : reduction_compute_type));
    prefer(preference_min_alignment_a_bytes, choice.alignment_a);
    prefer(preference_min_alignment_b_bytes, choice.alignment_b);
    prefer(preference_min_alignment_c_bytes, choice.alignment_d);
    prefer(preference_min_alignment_d_bytes, choice.alignment_d);
    Layouts many, one;
    lay_out(many, choice.n);
    lay_out(one, 1);
    Heuristic found[most_algorithms];
    offered = 0;
    check(f.get_heuristic(products.handle_, desc, many.a, many.b, many.d, many.d, preference,
                          most_algorithms, found, &offered),
          "cublasLtMatmulAlgoGetHeuristic", name);
    offered = std::clamp(offered, 0, most_algorithms);
    std::vector<Algorithm> usable;
    for (const Heuristic* candidate = found; candidate != found + offered; ++candidate) {
      if (candidate->state != 0 || candidate->workspace_bytes > workspace) continue;
      Heuristic result{};
      if (p.any_rows && f.check_algorithm(products.handle_, desc, one.a, one.b, one.d, one.d,
                                          &candidate->algorithm, &result) != 0)
        continue;
      usable.push_back(candidate->algorithm);
    }
    return usable;
  }
};

void Products::multiply(cudaStream_t stream, const Product& p) {
  const Description description(*this, p);
  const Functions& f = description.f;
  Algorithm algorithm;
  if (!Choices::get().find(description.choice, algorithm)) {
    int offered = 0;
    const std::vector<Algorithm> usable = description.usable_algorithms(offered);
    if (usable.empty()) check(not_supported, "cublasLtMatmulAlgoGetHeuristic", description.name);
    algorithm = usable.front();
    Choices::get().keep(description.choice, algorithm);
  }
  Description::Layouts layouts;
  description.lay_out(layouts, p.n);
  const size_t workspace = description.workspace;
  check(f.matmul(handle_, description.desc, &p.alpha, p.a, layouts.a, p.b, layouts.b, &p.beta, p.d,
                 layouts.d, p.d, layouts.d, &algorithm, workspace ? layer_.workspace : nullptr,
                 workspace, stream),
        "cublasLtMatmul", description.name);
}

LayerAlgorithms Products::logits_algorithms() const {
  // Of addresses only the alignment counts: that of allocations.
  void* const somewhere = reinterpret_cast<void*>(uintptr_t{256});
  const Product product = logits_product(static_cast<float*>(somewhere), somewhere, many_rows);
  LayerAlgorithms result;
  result.usable = int(Description(*this, product).usable_algorithms(result.offered).size());
  return result;
}

LayerAlgorithms layer_algorithms(int device, Dtype dtype, int64_t vocab, int64_t hidden) {
  if (!layer_problem().empty()) throw std::runtime_error(layer_problem());
  const DeviceGuard guard(device);
  return Products({device, dtype, vocab, hidden, logits_stride(vocab),
                   reinterpret_cast<const void*>(uintptr_t{256}), nullptr, nullptr, 0})
      .logits_algorithms();
}

}  // namespace diralign::cuda
