// What the memory allows: the yardstick of the benchmarks.
#include "platform.cuh"
#include "runtime.h"

namespace diralign::cuda {

namespace {

constexpr uint32_t copy_threads = 256;
constexpr uint32_t copies = 4;  ///< 16-byte loads in flight for each thread

__global__ void __launch_bounds__(copy_threads) copy(uint4* to, const uint4* from, size_t vectors) {
  const size_t first = size_t(blockIdx.x) * (copy_threads * copies) + threadIdx.x;
  uint4 data[copies];
  CUDA_UNROLL
  for (uint32_t k = 0; k < copies; k++)
    if (first + k * copy_threads < vectors) data[k] = load16(from + first + k * copy_threads, true);
  CUDA_UNROLL
  for (uint32_t k = 0; k < copies; k++)
    if (first + k * copy_threads < vectors) store16(to + first + k * copy_threads, data[k]);
}

}  // namespace

void copy_kernel(int device, Stream stream, void* to, const void* from, size_t bytes) {
  const DeviceGuard guard(device);
  const size_t vectors = bytes / sizeof(uint4), block = copy_threads * copies;
  if (vectors == 0) return;
  check(launch_kernel(copy, dim3(uint32_t((vectors + block - 1) / block)), dim3(copy_threads),
                      as_stream(stream), static_cast<uint4*>(to), static_cast<const uint4*>(from),
                      vectors),
        "the copy kernel");
}

}  // namespace diralign::cuda
