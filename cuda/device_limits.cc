#include "device_limits.h"
#include <algorithm>
#include <mutex>
#include <string>

namespace diralign::cuda {

namespace {

/// Throws for a kernel that the device cannot be asked about; says so where the build has no code
/// for it.
void check_code(cudaError_t error, int index) {
  const char* const call = "cudaOccupancyMaxActiveBlocksPerMultiprocessor";
  if (error != cudaErrorNoKernelImageForDevice && error != cudaErrorInvalidDeviceFunction &&
      error != cudaErrorUnsupportedPtxVersion)
    return check(error, call);
  ignore(error);
  const DeviceProperties found = properties(index);
  const std::string capability = std::to_string(found.major) + "." + std::to_string(found.minor);
  const DeviceStatus built = status();
  const std::string text =
      "this build has machine code for " +
      std::string(*built.architectures ? built.architectures : "no architecture") +
      " and PTX for " + (*built.ptx ? built.ptx : "none") +
      ", and the device has compute capability " + capability + "; npx diralign build --cuda " +
      capability + " builds for it";
  throw DeviceError(call, int(error), cudaGetErrorName(error), text.c_str());
}

/// By device. Never destroyed: other threads may outlive static objects.
std::mutex limits_mutex;
std::vector<DeviceLimits>& known_limits(int device) {
  static auto& known = *new std::vector<DeviceLimits>;
  if (size_t(device) >= known.size()) known.resize(size_t(device) + 1);
  return known;
}

}  // namespace

DeviceLimits limits(int device) {
  const std::lock_guard lock(limits_mutex);
  DeviceLimits& found = known_limits(device)[size_t(device)];
  if (found.known) return found;
  const auto attribute = [device](cudaDeviceAttr which) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
    return value;
  };
  DeviceLimits asked;
  asked.known = true;
  asked.l2_bytes = size_t(std::max(attribute(cudaDevAttrL2CacheSize), 0));
  asked.multiprocessors = uint32_t(attribute(cudaDevAttrMultiProcessorCount));
  asked.clusters = attribute(cudaDevAttrClusterLaunch) != 0;
  asked.launches_together = attribute(cudaDevAttrCooperativeLaunch) != 0;
  for (int logits = 0; logits < dtype_count; logits++) {
    for (int gradient = 0; gradient < dtype_count; gradient++) {
      if (logits != gradient && Dtype(logits) != Dtype::float32) continue;
      for (int pass = 0; pass < pass_count; pass++) {
        const auto occupancy =
            loss_kernels(Dtype(logits), Dtype(gradient)).blocks_per_multiprocessor[pass];
        if (!occupancy) continue;
        int blocks = 0;
        check_code(occupancy(&blocks), device);
        asked.blocks[logits][gradient][pass] = uint32_t(std::max(0, blocks));
      }
    }
  }
  return found = asked;
}

void no_launches_together(int device) {
  const std::lock_guard lock(limits_mutex);
  known_limits(device)[size_t(device)].launches_together = false;
}

uint32_t clusters_at_once(int device, Dtype logits, uint32_t parts) {
  if (parts < 2 || parts > largest_cluster) return 0;
  const DeviceLimits known = limits(device);
  if (!known.clusters) return 0;
  const std::lock_guard lock(limits_mutex);
  auto& clusters = known_limits(device)[size_t(device)].clusters_of[int(logits)][parts];
  if (!clusters) {
    // Whatever it says, there is another way.
    const auto at_once = [logits](uint32_t blocks) {
      int found = 0;
      const cudaError_t error = loss_kernels(logits).clusters_at_once(blocks, &found);
      if (error) ignore(error);
      return error ? 0 : uint32_t(found);
    };
    const uint32_t found = at_once(parts);
    const bool fill = found * parts >= at_once(1) * least_share_in_clusters;
    clusters = fill ? found : 0;
  }
  return *clusters;
}

void no_clusters(int device) {
  const std::lock_guard lock(limits_mutex);
  known_limits(device)[size_t(device)].clusters = false;
}

std::vector<KernelResidency> kernel_residency(int device) {
  const DeviceGuard guard(device);
  const DeviceLimits known = limits(device);
  std::vector<KernelResidency> result;
  for (int logits = 0; logits < dtype_count; logits++)
    for (int gradient = 0; gradient < dtype_count; gradient++)
      for (int pass = 0; pass < pass_count; pass++)
        if ((logits == gradient || Dtype(logits) == Dtype::float32) &&
            loss_kernels(Dtype(logits), Dtype(gradient)).launch[pass])
          result.push_back(
              {Dtype(logits), Dtype(gradient), pass, int(known.blocks[logits][gradient][pass])});
  return result;
}

std::vector<ClusterResidency> cluster_residency(int device) {
  const DeviceGuard guard(device);
  std::vector<ClusterResidency> result;
  for (int logits = 0; logits < dtype_count; logits++)
    for (uint32_t parts = 2; parts <= largest_cluster; parts++)
      result.push_back(
          {Dtype(logits), int(parts), int(clusters_at_once(device, Dtype(logits), parts))});
  return result;
}

}  // namespace diralign::cuda
