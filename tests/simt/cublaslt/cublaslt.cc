// Stands for cuBLASLt on the emulation: the part of its C interface that cuda/cublaslt.cc uses,
// with a plain product in the order of the stream. The numbers are written down once more from
// NVIDIA's documentation, so that a slip in one place shows.
//
// It refuses what cuBLASLt refuses: shapes and leading dimensions that do not fit, types without a
// kernel, attributes it does not know, pointers less aligned than the algorithm was chosen for, too
// little workspace. How the sum is cut depends on the algorithm, and that on the sizes and
// alignments it was chosen for, so that bits differ where cuBLASLt's may.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>
#include "runtime.h"

#define EXPORTED extern "C" __attribute__((visibility("default")))

#if !defined(STAND_IN_VERSION)
#define STAND_IN_VERSION 13
#endif

namespace {

using Status = int;
constexpr Status success = 0, not_initialized = 1, invalid_value = 7, execution_failed = 13,
                 not_supported = 15;

const simt::Access* devices = nullptr;
std::atomic<uint64_t> products{0}, multiplications{0};

Status injected(const char* name) { return devices ? devices->injected(name) : not_initialized; }

enum class Kind : uint32_t {
  handle = 0x68616e64,
  desc = 0x64657363,
  layout = 0x6c61796f,
  preference = 0x70726566
};
struct Object {
  Kind kind;
};
struct Handle : Object {};
struct Desc : Object {
  int compute, scale;
  int32_t transpose_a = 0, transpose_b = 0;
  uint32_t epilogue = 1;
  const void* bias = nullptr;
};
struct Layout : Object {
  int type;
  uint64_t rows, columns;
  int64_t leading_dimension;
};
struct Preference : Object {
  uint64_t workspace = 0;
  uint32_t reduction_schemes = 7;
  uint32_t alignment[4] = {256, 256, 256, 256};  // of A, B, C, D
};
struct Algorithm {
  uint64_t magic, alignment_a, alignment_b, alignment_d, block, workspace, least_columns, unused;
};
static_assert(sizeof(Algorithm) == 64);
struct Heuristic {
  Algorithm algorithm;
  size_t workspace_bytes;
  Status state;
  float waves;
  int reserved[4];
};
constexpr uint64_t magic = 0x6375626c61734c74;

template <class T>
bool is(const T* object, Kind kind) {
  return object && object->kind == kind;
}
template <class T>
Status destroy(T* object, Kind kind) {
  if (!is(object, kind)) return invalid_value;
  delete object;
  return success;
}

constexpr int r_32f = 0, r_16f = 2, r_16bf = 14;
size_t bytes_of(int type) { return type == r_32f ? 4 : 2; }
bool known(int type) { return type == r_32f || type == r_16f || type == r_16bf; }

struct Sizes {
  uint64_t m, n, k;
};
/// Whether there is such a product.
Status sizes_of(const Handle* handle, const Desc* desc, const Layout* a, const Layout* b,
                const Layout* c, const Layout* d, Sizes& sizes) {
  if (!is(handle, Kind::handle)) return not_initialized;
  if (!is(desc, Kind::desc)) return invalid_value;
  for (const Layout* layout : {a, b, c, d})
    if (!is(layout, Kind::layout) || layout->rows == 0 || layout->columns == 0 ||
        layout->leading_dimension < int64_t(layout->rows))
      return invalid_value;
  sizes = {desc->transpose_a ? a->columns : a->rows, desc->transpose_b ? b->rows : b->columns,
           desc->transpose_a ? a->rows : a->columns};
  if ((desc->transpose_b ? b->columns : b->rows) != sizes.k) return invalid_value;
  for (const Layout* out : {c, d})
    if (out->rows != sizes.m || out->columns != sizes.n) return invalid_value;
  if (a->type != b->type || c->type != d->type || (d->type != r_32f && d->type != a->type))
    return not_supported;
  if (desc->compute != 68 || desc->scale != r_32f) return not_supported;
  if (desc->epilogue != 1 && (desc->epilogue != 4 || d->type != r_32f)) return not_supported;
  if (desc->epilogue == 4 && !desc->bias) return invalid_value;
  return success;
}

bool aligned(const void* pointer, uint64_t alignment) {
  return reinterpret_cast<uintptr_t>(pointer) % alignment == 0;
}

float to_float(int type, const void* data, uint64_t i) {
  if (type == r_32f) return static_cast<const float*>(data)[i];
  const uint16_t bits = static_cast<const uint16_t*>(data)[i];
  return type == r_16f ? float(std::bit_cast<_Float16>(bits))
                       : std::bit_cast<float>(uint32_t(bits) << 16);
}
void from_float(int type, void* data, uint64_t i, float x) {
  if (type == r_32f) {
    static_cast<float*>(data)[i] = x;
  } else if (type == r_16f) {
    static_cast<uint16_t*>(data)[i] = std::bit_cast<uint16_t>(_Float16(x));
  } else {
    const uint32_t u = std::bit_cast<uint32_t>(x);
    static_cast<uint16_t*>(data)[i] =
        uint16_t(x != x ? 0x7fffu : (u + 0x7fffu + (u >> 16 & 1u)) >> 16);
  }
}

/// op(X), element (row, column) at [column][row] or the other way round: `depth` outermost for
/// neither, so that sums run along memory.
std::vector<float> read(const Layout& layout, const void* data, bool transposed) {
  std::vector<float> values(layout.rows * layout.columns);
  for (uint64_t column = 0; column < layout.columns; ++column)
    for (uint64_t row = 0; row < layout.rows; ++row)
      values[transposed ? column * layout.rows + row : row * layout.columns + column] =
          to_float(layout.type, data, column * uint64_t(layout.leading_dimension) + row);
  return values;
}

struct Work {
  Sizes sizes;
  Desc desc;
  Layout a, b, d;
  const void *a_data, *b_data;
  void *d_data, *workspace;
  size_t workspace_bytes;
  float alpha, beta;
  uint64_t block;

  void run() const {
    if (workspace_bytes) std::memset(workspace, 0x7f, workspace_bytes);
    // Both with k as the fast index.
    const std::vector<float> left = read(a, a_data, desc.transpose_a),
                             right = read(b, b_data, !desc.transpose_b);
    for (uint64_t j = 0; j < sizes.n; ++j) {
      for (uint64_t i = 0; i < sizes.m; ++i) {
        const float *x = &left[i * sizes.k], *y = &right[j * sizes.k];
        float sum = 0;
        for (uint64_t from = 0; from < sizes.k; from += block) {
          float part = 0;
          for (uint64_t l = from; l < std::min(sizes.k, from + block); ++l) part += x[l] * y[l];
          sum += part;
        }
        const uint64_t at = j * uint64_t(d.leading_dimension) + i;
        float value = alpha * sum;
        if (beta != 0)
          value += beta * to_float(d.type, d_data, at);  // with 0 it is not read: it may be a NaN
        if (desc.epilogue == 4) value += static_cast<const float*>(desc.bias)[i];
        from_float(d.type, d_data, at, value);
      }
    }
  }
};

uint64_t extent(const Layout& layout) {
  return ((layout.columns - 1) * uint64_t(layout.leading_dimension) + layout.rows) *
         bytes_of(layout.type);
}

template <class T>
bool take(T& into, const void* value, size_t bytes) {
  if (bytes != sizeof(T)) return false;
  std::memcpy(&into, value, bytes);
  return true;
}

}  // namespace

EXPORTED void simt_attach(const simt::Access* given) { devices = given; }
/// Products enqueued so far, and the multiplications in them.
EXPORTED void simt_products(uint64_t* count, uint64_t* sum) {
  *count = products;
  *sum = multiplications;
}

EXPORTED Status cublasLtGetProperty(int property, int* value) {
  if (!value || property != 0) return invalid_value;
  *value = STAND_IN_VERSION;
  return success;
}

EXPORTED Status cublasLtCreate(Handle** handle) {
  if (const Status failure = injected("cublasLtCreate")) return failure;
  *handle = new Handle{{Kind::handle}};
  return success;
}

EXPORTED Status cublasLtMatmulDescCreate(Desc** desc, int compute, int scale) {
  *desc = new Desc{{Kind::desc}, compute, scale};
  return success;
}
EXPORTED Status cublasLtMatmulDescDestroy(Desc* desc) { return destroy(desc, Kind::desc); }
EXPORTED Status cublasLtMatmulDescSetAttribute(Desc* desc, int attribute, const void* value,
                                               size_t bytes) {
  if (!is(desc, Kind::desc) || !value) return invalid_value;
  switch (attribute) {
    case 3:
      return take(desc->transpose_a, value, bytes) && (desc->transpose_a | 1) == 1 ? success
                                                                                   : invalid_value;
    case 4:
      return take(desc->transpose_b, value, bytes) && (desc->transpose_b | 1) == 1 ? success
                                                                                   : invalid_value;
    case 7: return take(desc->epilogue, value, bytes) ? success : invalid_value;
    case 8: return take(desc->bias, value, bytes) ? success : invalid_value;
    default: return not_supported;
  }
}

EXPORTED Status cublasLtMatrixLayoutCreate(Layout** layout, int type, uint64_t rows,
                                           uint64_t columns, int64_t leading_dimension) {
  if (!known(type)) return invalid_value;
  *layout = new Layout{{Kind::layout}, type, rows, columns, leading_dimension};
  return success;
}
EXPORTED Status cublasLtMatrixLayoutDestroy(Layout* layout) {
  return destroy(layout, Kind::layout);
}

EXPORTED Status cublasLtMatmulPreferenceCreate(Preference** preference) {
  *preference = new Preference{{Kind::preference}};
  return success;
}
EXPORTED Status cublasLtMatmulPreferenceDestroy(Preference* preference) {
  return destroy(preference, Kind::preference);
}
EXPORTED Status cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute,
                                                     const void* value, size_t bytes) {
  if (!is(preference, Kind::preference) || !value) return invalid_value;
  switch (attribute) {
    case 1: return take(preference->workspace, value, bytes) ? success : invalid_value;
    case 3:
      return take(preference->reduction_schemes, value, bytes) && preference->reduction_schemes <= 7
                 ? success
                 : invalid_value;
    case 5:
    case 6:
    case 7:
    case 8: {
      uint32_t& alignment = preference->alignment[attribute - 5];
      return take(alignment, value, bytes) && std::has_single_bit(alignment) ? success
                                                                             : invalid_value;
    }
    default: return not_supported;
  }
}

EXPORTED Status cublasLtMatmulAlgoGetHeuristic(Handle* handle, Desc* desc, Layout* a, Layout* b,
                                               Layout* c, Layout* d, Preference* preference,
                                               int wanted, Heuristic* results, int* found) {
  if (const Status failure = injected("cublasLtMatmulAlgoGetHeuristic")) return failure;
  Sizes sizes;
  if (const Status status = sizes_of(handle, desc, a, b, c, d, sizes)) return status;
  if (!is(preference, Kind::preference) || wanted < 1) return invalid_value;
  const uint32_t *alignment = preference->alignment,
                 least = std::min({alignment[0], alignment[1], alignment[3]});
  *found = 0;
  auto offer = [&](uint64_t block, uint64_t workspace, uint64_t least_columns) {
    if (*found == wanted || workspace > preference->workspace) return;
    results[(*found)++] = {
        {magic, alignment[0], alignment[1], alignment[3], block, workspace, least_columns, 0},
        size_t(workspace),
        success,
        1,
        {}};
  };
  // The best for many columns cannot do few; others want workspace, with the sum split where it may
  // be.
  if (sizes.n >= 64) offer(64, 0, 64);
  offer(6, 8192, 1);
  if (preference->reduction_schemes != 0) offer(sizes.k / 2 + 1, 4096, 1);
  offer(sizes.n >= 1024 ? 32 : sizes.n >= 16 ? 16 : least >= 16 ? 8 : 4, 0, 1);
  return success;
}

EXPORTED Status cublasLtMatmulAlgoCheck(Handle* handle, Desc* desc, Layout* a, Layout* b, Layout* c,
                                        Layout* d, const Algorithm* algorithm, Heuristic* result) {
  Sizes sizes;
  if (const Status status = sizes_of(handle, desc, a, b, c, d, sizes)) return status;
  if (!algorithm || algorithm->magic != magic || !result) return invalid_value;
  if (sizes.n < algorithm->least_columns) return not_supported;
  *result = {*algorithm, size_t(algorithm->workspace), success, 1, {}};
  return success;
}

EXPORTED Status cublasLtMatmul(Handle* handle, Desc* desc, const void* alpha, const void* a,
                               Layout* a_layout, const void* b, Layout* b_layout, const void* beta,
                               const void* c, Layout* c_layout, void* d, Layout* d_layout,
                               const Algorithm* algorithm, void* workspace, size_t workspace_bytes,
                               cudaStream_t stream) {
  if (const Status failure = injected("cublasLtMatmul")) return failure;
  Sizes sizes;
  if (const Status status = sizes_of(handle, desc, a_layout, b_layout, c_layout, d_layout, sizes))
    return status;
  if (!alpha || !beta || !algorithm || algorithm->magic != magic) return invalid_value;
  if (c != d || c_layout->leading_dimension != d_layout->leading_dimension) return not_supported;
  if (sizes.n < algorithm->least_columns) return not_supported;
  if (!aligned(a, algorithm->alignment_a) || !aligned(b, algorithm->alignment_b) ||
      !aligned(d, algorithm->alignment_d))
    return not_supported;
  if (desc->epilogue == 4 && !aligned(desc->bias, 4)) return not_supported;
  if (workspace_bytes < algorithm->workspace || (workspace_bytes > 0 && !aligned(workspace, 16)))
    return invalid_value;
  if (!devices->on_device(a, extent(*a_layout)) || !devices->on_device(b, extent(*b_layout)) ||
      !devices->on_device(d, extent(*d_layout)))
    return invalid_value;
  if (workspace_bytes > 0 && !devices->on_device(workspace, workspace_bytes)) return invalid_value;
  if (desc->epilogue == 4 && !devices->on_device(desc->bias, sizes.m * 4)) return invalid_value;
  auto work = std::make_unique<Work>(
      Work{sizes, *desc, *a_layout, *b_layout, *d_layout, a, b, d, workspace, algorithm->workspace,
           *static_cast<const float*>(alpha), *static_cast<const float*>(beta), algorithm->block});
  const cudaError_t error = devices->enqueue(
      stream,
      [](const void* data) {
        static_cast<const Work*>(data)->run();
        return cudaSuccess;
      },
      work.release(), [](void* data) { delete static_cast<Work*>(data); });
  if (error != cudaSuccess) return execution_failed;
  products++;
  multiplications += sizes.m * sizes.n * sizes.k;
  return success;
}
