// What a device can have of the loss kernels at a time.
#pragma once
#include <optional>
#include "loss_kernel.h"
#include "runtime.h"

namespace diralign::cuda {

struct DeviceLimits {
  bool known = false;
  size_t l2_bytes = 0;
  uint32_t multiprocessors = 0;
  bool launches_together = false;  ///< whether blocks may wait for each other
  bool clusters = false;           ///< whether blocks may work in clusters
  /// On a multiprocessor, by the types of logits and gradient.
  uint32_t blocks[dtype_count][dtype_count][pass_count] = {};
  /// By the type of the logits and the blocks of one; unknown until asked for.
  std::optional<uint32_t> clusters_of[dtype_count][largest_cluster + 1] = {};

  uint32_t resident_blocks(Dtype logits, Dtype gradient, Pass pass) const {
    const uint32_t fit = blocks[int(logits)][int(gradient)][int(pass)];
    // With none a launch would fail, and blocks that wait for others would wait for ever.
    if (fit == 0)
      throw DeviceError("cudaOccupancyMaxActiveBlocksPerMultiprocessor",
                        int(cudaErrorLaunchOutOfResources), "cudaErrorLaunchOutOfResources",
                        "no block of the loss kernel fits a multiprocessor of the device");
    return fit * multiprocessors;
  }
};

/// Of the current device, which is `device`. Asked for once: a launch should not wait for the
/// driver's answers.
DeviceLimits limits(int device);
/// For a part of a device, whose multiprocessors are fewer than the device says.
void no_launches_together(int device);
/// Clusters of so many blocks that the current device, which is `device`, runs at a time, for rows
/// of so many parts. 0 where blocks that wait for each other are better: for one part, and where
/// clusters would leave too much of the device empty.
uint32_t clusters_at_once(int device, Dtype logits, uint32_t parts);
void no_clusters(int device);

}  // namespace diralign::cuda
