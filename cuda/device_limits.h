// What a device can have of the loss kernels at a time.
#pragma once
#include "loss_kernel.h"
#include "runtime.h"

namespace diralign::cuda {

struct DeviceLimits {
  bool known = false;
  size_t l2_bytes = 0;
  uint32_t multiprocessors = 0;
  bool launches_together = false;  ///< whether blocks may wait for each other
  /// On a multiprocessor, by the types of logits and gradient.
  uint32_t blocks[dtype_count][dtype_count][pass_count] = {};

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

}  // namespace diralign::cuda
