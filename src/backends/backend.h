// What computes jobs. A build registers its backends in registry.cc; everything else finds them
// here.
#pragma once
#include <memory>
#include "device.h"
#include "jobs/job.h"
#include "jobs/pool.h"

namespace diralign {

/// Whose memory the arrays of a job are, and who computes it.
#define DIRALIGN_TARGETS(X)                                  \
  X(cpu)                                                     \
  /* a device, on host arrays that travel there in pieces */ \
  X(staged)                                                  \
  X(device)
DIRALIGN_NAMED_ENUM(Target, target_names, DIRALIGN_TARGETS);

struct Backend {
  /// A job on host arrays, to its end, on any thread. It stops soon once it is cancelled.
  void (*run)(Job& job, int device, Pool& pool);

  // Of a backend with memory of its own.

  /// Its memory, streams and events.
  const DeviceApi* device = nullptr;
  /// A job from logits in device memory: enqueued on the caller's thread. Returns before the device
  /// is done; when something is thrown nothing was written.
  std::unique_ptr<Launch> (*launch)(Job& job, const Place& place) = nullptr;
  /// A job from logits in device memory that is spread over processes, to its end, on any thread:
  /// the host merges rows and evaluates units between the launches. The stream is past it on
  /// return.
  void (*run_logits)(Job& job, const Place& place, Pool& pool) = nullptr;
  /// A job with an output layer in device memory, to its end, on any thread: the host decides
  /// between the products. The stream is past it on return.
  void (*run_layer)(Job& job, const Place& place, Pool& pool) = nullptr;
};

/// The one on the host, which every build has.
const Backend& host_backend();
/// Whether there is one with devices.
bool has_device_backend();
/// That one; throws std::logic_error in a build without.
const Backend& device_backend();

}  // namespace diralign
