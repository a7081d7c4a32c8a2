// The loss kernels of a type, as the host launches them. One translation unit a type (loss_*.cu)
// instantiates them.
#pragma once
#include "rows/dtype.h"
#include "plan.h"

namespace diralign::cuda {

constexpr int pass_count = 5;

struct LossKernels {
  /// `together`: blocks wait for each other, so that all of them must be on the device at once.
  cudaError_t (*launch[pass_count])(const Plan& plan, uint32_t blocks, bool together,
                                    cudaStream_t stream);
  /// Blocks that fit on a multiprocessor of the current device at the same time.
  cudaError_t (*blocks_per_multiprocessor[pass_count])(int* blocks);
  /// Pass::factored of rows of several parts, a cluster of as many blocks a row; see
  /// cluster_kernel.cuh.
  cudaError_t (*launch_clusters)(const Plan& plan, uint32_t clusters, cudaStream_t stream);
  /// Clusters of so many blocks that the current device runs at a time; 0: it cannot.
  cudaError_t (*clusters_at_once)(uint32_t blocks, int* clusters);
};

extern const LossKernels loss_kernels_float32, loss_kernels_float16, loss_kernels_bfloat16;
/// Those of float32 logits whose gradient is shorter; Pass::dense and Pass::general alone.
extern const LossKernels gradient_kernels_float16, gradient_kernels_bfloat16;

inline const LossKernels& loss_kernels(Dtype dtype) {
  return dtype == Dtype::float32   ? loss_kernels_float32
         : dtype == Dtype::float16 ? loss_kernels_float16
                                   : loss_kernels_bfloat16;
}
/// The gradient has the type of the logits, or the logits are float32.
inline const LossKernels& loss_kernels(Dtype logits, Dtype gradient) {
  if (logits == gradient) return loss_kernels(logits);
  return gradient == Dtype::float16 ? gradient_kernels_float16 : gradient_kernels_bfloat16;
}

}  // namespace diralign::cuda
