// cuBLASLt, which is loaded when it is first needed: nothing is linked against it, and the package
// does not bring its half gigabyte.
#pragma once
#include <string>
#include "runtime.h"

namespace diralign::cuda {

namespace cublaslt {

// What is used of cuBLASLt's C interface, declared from NVIDIA's documentation
// (docs.nvidia.com/cuda/cublas, "Using the cuBLASLt API"). These numbers and layouts are the same
// in every release of the major version below.

constexpr int major_version = 13;

using Status = int;
using Handle = struct Context*;
using MatmulDesc = struct MatmulDescription*;
using Layout = struct MatrixLayout*;
using Preference = struct MatmulPreference*;
struct Algorithm {
  uint64_t data[8];
};
struct Heuristic {
  Algorithm algorithm;
  size_t workspace_bytes;
  Status state;
  float waves;
  int reserved[4];
};

enum DataType : int { r_32f = 0, r_16f = 2, r_16bf = 14 };  // cudaDataType_t
enum ComputeType : int { compute_32f = 68 };      // cublasComputeType_t: no TF32 for float32
enum Operation : int32_t { op_n = 0, op_t = 1 };  // cublasOperation_t
enum Epilogue : uint32_t { epilogue_default = 1, epilogue_bias = 4 };
enum ReductionSchemes : uint32_t { reduction_none = 0, reduction_compute_type = 2 };
enum DescAttribute : int {
  desc_transa = 3,
  desc_transb = 4,
  desc_epilogue = 7,
  desc_bias_pointer = 8
};
enum PreferenceAttribute : int {
  preference_max_workspace_bytes = 1,
  preference_reduction_scheme_mask = 3,
  preference_min_alignment_a_bytes = 5,
  preference_min_alignment_b_bytes = 6,
  preference_min_alignment_c_bytes = 7,
  preference_min_alignment_d_bytes = 8
};
enum Property : int { property_major = 0 };  // libraryPropertyType_t

struct Functions {
  Status (*get_property)(Property property, int* value);
  Status (*create)(Handle* handle);
  Status (*desc_create)(MatmulDesc* desc, ComputeType compute, DataType scale);
  Status (*desc_set)(MatmulDesc desc, DescAttribute attribute, const void* value, size_t bytes);
  Status (*desc_destroy)(MatmulDesc desc);
  Status (*layout_create)(Layout* layout, DataType type, uint64_t rows, uint64_t columns,
                          int64_t leading_dimension);
  Status (*layout_destroy)(Layout layout);
  Status (*preference_create)(Preference* preference);
  Status (*preference_set)(Preference preference, PreferenceAttribute attribute, const void* value,
                           size_t bytes);
  Status (*preference_destroy)(Preference preference);
  Status (*get_heuristic)(Handle handle, MatmulDesc desc, Layout a, Layout b, Layout c, Layout d,
                          Preference preference, int wanted, Heuristic* results, int* found);
  Status (*check_algorithm)(Handle handle, MatmulDesc desc, Layout a, Layout b, Layout c, Layout d,
                            const Algorithm* algorithm, Heuristic* result);
  Status (*matmul)(Handle handle, MatmulDesc desc, const void* alpha, const void* a,
                   Layout a_layout, const void* b, Layout b_layout, const void* beta, const void* c,
                   Layout c_layout, void* d, Layout d_layout, const Algorithm* algorithm,
                   void* workspace, size_t workspace_bytes, cudaStream_t stream);
};

inline DataType type_of(Dtype dtype) {
  return dtype == Dtype::float32 ? r_32f : dtype == Dtype::float16 ? r_16f : r_16bf;
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

/// Loads the library: the file or directory `where`, or from where libraries are usually found.
/// What was wrong, or an empty string.
std::string load(const char* where, Functions& functions);

struct Library {
  Functions functions{};
  std::string problem;  ///< why there are none
};
/// Loaded once.
const Library& library();

/// One for each device, made when it is first needed and never destroyed.
Handle handle_of(int device);

constexpr Status not_supported = 15;

/// @throws DeviceError that names the call and the product that it is made for
void check(Status status, const char* call, const char* product);

}  // namespace cublaslt

}  // namespace diralign::cuda
