// How a kernel starts, on CUDA and on the emulation of the tests (tests/simt).
#pragma once
#include "platform.h"

namespace diralign::cuda {

/// kernel<<<grid, block, 0, stream>>>(arguments...), with its launch error.
template <class... Parameters, class... Arguments>
cudaError_t launch_kernel(void (*kernel)(Parameters...), dim3 grid, dim3 block, cudaStream_t stream,
                          const Arguments&... arguments) {
#if defined(__CUDACC__)
  kernel<<<grid, block, 0, stream>>>(static_cast<Parameters>(arguments)...);
  return cudaGetLastError();
#else
  return simt::launch(kernel, grid, block, 0, stream, static_cast<Parameters>(arguments)...);
#endif
}

/// The same for a kernel whose blocks wait for each other: all of them are on the device together,
/// or it is refused.
template <class Parameter>
cudaError_t launch_cooperative(void (*kernel)(Parameter), dim3 grid, dim3 block,
                               cudaStream_t stream, const Parameter& argument) {
#if defined(__CUDACC__)
  void* arguments[] = {const_cast<Parameter*>(&argument)};
  return cudaLaunchCooperativeKernel(kernel, grid, block, arguments, 0, stream);
#else
  return simt::launch_together(kernel, grid, block, 0, stream, argument);
#endif
}

#if defined(__CUDACC__)
/// The compute capability from which on blocks work in clusters, as CUDA writes it.
constexpr int first_with_clusters = 90;
inline cudaLaunchConfig_t in_clusters(cudaLaunchAttribute& cluster, dim3 grid, uint32_t blocks,
                                      dim3 block, size_t shared_bytes, cudaStream_t stream) {
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {blocks, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = grid, config.blockDim = block, config.stream = stream;
  config.dynamicSmemBytes = shared_bytes;
  config.attrs = &cluster, config.numAttrs = 1;
  return config;
}
#endif
/// The same for a kernel whose blocks work in clusters of `blocks` consecutive ones, with that much
/// dynamic shared memory each. `clusters_at_once` comes first.
template <class Parameter>
cudaError_t launch_clusters(void (*kernel)(Parameter), dim3 grid, uint32_t blocks, dim3 block,
                            size_t shared_bytes, cudaStream_t stream, const Parameter& argument) {
#if defined(__CUDACC__)
  cudaLaunchAttribute cluster{};
  const cudaLaunchConfig_t config = in_clusters(cluster, grid, blocks, block, shared_bytes, stream);
  return cudaLaunchKernelEx(&config, kernel, argument);
#else
  return simt::launch_clusters(kernel, grid, blocks, block, shared_bytes, stream, argument);
#endif
}
/// How many clusters of so many blocks the current device runs at a time: none where it has no
/// clusters, or where what it would run was compiled for devices that have none.
template <class Parameter>
cudaError_t clusters_at_once(void (*kernel)(Parameter), uint32_t blocks, dim3 block,
                             size_t shared_bytes, int* clusters) {
  *clusters = 0;
#if defined(__CUDACC__)
  cudaFuncAttributes compiled;
  if (const cudaError_t error = cudaFuncGetAttributes(&compiled, kernel)) return error;
  if (compiled.binaryVersion < first_with_clusters || compiled.ptxVersion < first_with_clusters)
    return cudaSuccess;
#endif
  // More than 48 KiB has to be asked for; and without the second, the driver may leave the L1 cache
  // what more blocks would need.
  constexpr int all_there_is = 100;
  if (const cudaError_t error = cudaFuncSetAttribute(
          kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)))
    return error;
  if (const cudaError_t error = cudaFuncSetAttribute(
          kernel, cudaFuncAttributePreferredSharedMemoryCarveout, all_there_is))
    return error;
#if defined(__CUDACC__)
  // Every device with clusters has those of 8; a function asks for larger ones.
  if (blocks > 8) {
    if (const cudaError_t error =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1))
      return error;
  }
  cudaLaunchAttribute cluster{};
  const cudaLaunchConfig_t config =
      in_clusters(cluster, blocks, blocks, block, shared_bytes, nullptr);
  return cudaOccupancyMaxActiveClusters(clusters, kernel, &config);
#else
  return simt::clusters_at_once(blocks, block, shared_bytes, clusters);
#endif
}

}  // namespace diralign::cuda
