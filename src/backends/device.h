// Devices as the addon sees them: plain C++, no CUDA header. A backend with devices fills a
// DeviceApi.
//
// Handles of streams and events are CUDA's own (cudaStream_t, cudaEvent_t) as integers: other
// libraries' can be passed in. 0 is the default stream. Every function selects the device it is
// given and restores the calling thread's own on return.
#pragma once
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>
#include "rows/dtype.h"

namespace diralign {

/// A call of a device's runtime that failed: `what()` names the call, the error and the runtime's
/// own text.
struct DeviceError : std::runtime_error {
  DeviceError(const std::string& call, int error, const char* error_name, const char* text)
      : std::runtime_error(call + ": " + error_name + ": " + text), code(error), name(error_name) {}
  int code;          ///< cudaError_t
  std::string name;  ///< for instance cudaErrorMemoryAllocation
};

/// What is there.
struct DeviceStatus {
  bool compiled = false;
  const char* architectures = "";  ///< those with machine code, comma separated
  const char* ptx = "";            ///< those with PTX, which later devices translate for themselves
  int runtime = 0, driver = 0;     ///< 13000 is CUDA 13.0; driver 0: none installed
  int error = 0;                   ///< cudaError_t of counting the devices
  std::string error_text;
  int devices = 0;
};

struct DeviceProperties {
  std::string name, uuid;
  int major = 0, minor = 0;  ///< compute capability
  int multiprocessors = 0;
  /// Bytes; the last per block, opted in.
  size_t memory = 0, l2_cache = 0, shared_memory = 0;
  /// Bytes per second by clock and bus width, 0 where the driver does not tell.
  double memory_bandwidth = 0;
};

/// A loss kernel on a device. Fewer resident blocks than the registers were cut for mean that other
/// code runs than was built for it.
struct KernelResidency {
  Dtype logits, gradient;
  int pass;    ///< a Pass of cuda/plan.h
  int blocks;  ///< on a multiprocessor at the same time
};
/// How many clusters of so many blocks a device runs at a time; 0 where rows of so many parts are
/// computed without clusters.
struct ClusterResidency {
  Dtype logits;
  int parts, clusters;
};
/// The algorithms of cuBLASLt for the logits of an output layer: offered, and of those the ones
/// that any number of rows may use.
struct LayerAlgorithms {
  int offered = 0, usable = 0;
};

/// NCCL, or what stands for it.
struct CollectiveLibrary {
  std::string version, path;
};
/// What the first rank gives the others to find each other by.
using CollectiveId = std::array<char, 128>;
class DeviceCarrier;

/// What a runtime knows of an address.
struct PointerInfo {
#define DIRALIGN_POINTER_KINDS(X) X(unregistered) X(host) X(device) X(managed)
  enum class Kind { DIRALIGN_POINTER_KINDS(DIRALIGN_ENUMERATOR) } kind = Kind::unregistered;
  static constexpr const char* kind_names[] = {DIRALIGN_POINTER_KINDS(DIRALIGN_TEXT)};
  int device = -1;
  /// The allocation around it, or the mappings that follow one another there; null and 0 where
  /// unknown.
  const void* base = nullptr;
  size_t bytes = 0;
};

using Stream = uintptr_t;
using Event = uintptr_t;

/// Where device data is, and the stream it is ordered on.
struct Place {
  int device = 0;
  Stream stream = 0;
  /// Of a launch: recorded right before the first work that is enqueued, when the host has prepared
  /// all of it; 0: none.
  Event begin = 0;
};

/// A job on device data, enqueued. The job must outlive it.
class Launch {
 public:
  /// Waits for the end of the work, if it has not ended, and frees what it took.
  virtual ~Launch() = default;
  /// Once the stream is past the work, and did not fail: fills the job's host outputs.
  virtual void finish() = 0;
};

struct DeviceApi {
  /// Never throws.
  DeviceStatus (*status)();
  DeviceProperties (*properties)(int index);
  /// Bytes. Starts the device for this process, which takes some hundred megabytes of it;
  /// `properties` does not.
  size_t (*free_memory)(int device);
  std::vector<KernelResidency> (*kernel_residency)(int device);
  std::vector<ClusterResidency> (*cluster_residency)(int device);
  LayerAlgorithms (*layer_algorithms)(int device, Dtype dtype, int64_t vocab, int64_t hidden);
  /// Why jobs with an output layer cannot run on a device, or empty. Loads the library that they
  /// need.
  const std::string& (*layer_problem)();

  void* (*allocate)(int device, size_t bytes);
  void (*release)(int device, void* pointer);
  /// Memory that is made of mappings (cuMemMap) is followed from one to the next until `bytes` from
  /// the address are known.
  PointerInfo (*inspect)(const void* pointer, size_t bytes);
  /// Page-locks host memory, so that copies of it go at full speed and without a stage.
  void (*pin)(void* data, size_t bytes);
  void (*unpin)(void* data);

  /// Copies between host and device, in the order of the stream; return when done. Pageable memory
  /// goes through pinned stages, in chunks that overlap. Safe on any thread.
  void (*copy_to_device)(int device, Stream stream, void* to, const void* from, size_t bytes);
  void (*copy_to_host)(int device, Stream stream, void* to, const void* from, size_t bytes);
  /// Within the device; enqueued only.
  void (*copy_on_device)(int device, Stream stream, void* to, const void* from, size_t bytes);
  void (*fill)(int device, Stream stream, void* to, int byte, size_t bytes);
  /// Plain copy kernel with 16-byte accesses, the yardstick of benchmarks; enqueued only. Both
  /// addresses 16-byte aligned.
  void (*copy_kernel)(int device, Stream stream, void* to, const void* from, size_t bytes);

  Stream (*create_stream)(int device);
  void (*destroy_stream)(int device, Stream stream);
  /// Waits; errors of the work surface here.
  void (*synchronize)(int device, Stream stream);
  Event (*create_event)(int device, bool timing);
  void (*destroy_event)(int device, Event event);
  void (*record)(int device, Event event, Stream stream);
  /// Makes later work of the stream wait for the event.
  void (*wait)(int device, Stream stream, Event event);
  bool (*ended)(int device, Event event);
  void (*synchronize_event)(int device, Event event);
  double (*milliseconds)(int device, Event from, Event to);
  /// Calls `done(cudaError_t)` once, on a thread of the runtime and after all earlier work of the
  /// stream, failed or not. It must not call the runtime.
  void (*notify)(int device, Stream stream, std::function<void(int)> done);

  // Collectives between the devices of processes. They throw DistributedError.

  /// Opens their library, once per process: the file, or, for "", where it is usually found.
  CollectiveLibrary (*collectives)(const std::string& path);
  CollectiveId (*collective_id)();
  /// With the other ranks, until the deadline, or until whoever waits has no time left.
  std::shared_ptr<DeviceCarrier> (*join_collectives)(int device, const CollectiveId& id, int rank,
                                                     int size, std::chrono::milliseconds timeout,
                                                     const std::function<bool()>& given_up);
};

}  // namespace diralign
