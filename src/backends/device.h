// The CUDA backend as the addon sees it: plain C++, no CUDA header. cuda/ implements it;
// src/backends/device_absent.cc does in a build without CUDA, where `status().compiled` is false
// and nothing else may be called.
//
// Handles of streams and events are CUDA's own (cudaStream_t, cudaEvent_t) as integers: other
// libraries' can be passed in. 0 is the default stream. Every function selects the device it is
// given and restores the calling thread's own on return.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>
#include "jobs/job.h"

namespace diralign::cuda {

/// A CUDA call that failed: `what()` names the call, the error and CUDA's own text.
struct Error : std::runtime_error {
  Error(const std::string& call, int code, const char* name, const char* text);
  int code;          ///< cudaError_t
  std::string name;  ///< for instance cudaErrorMemoryAllocation
};

/// What is there. Never throws.
struct Status {
  bool compiled = false;
  const char* architectures = "";  ///< those with machine code, comma separated
  const char* ptx = "";            ///< those with PTX, which later devices translate for themselves
  int runtime = 0, driver = 0;     ///< 13000 is CUDA 13.0; driver 0: none installed
  int error = 0;                   ///< cudaError_t of counting the devices
  std::string error_text;
  int devices = 0;
};
Status status();

struct Device {
  std::string name, uuid;
  int major = 0, minor = 0;  ///< compute capability
  int multiprocessors = 0;
  size_t memory = 0, l2_cache = 0, shared_memory = 0;  ///< bytes; the last per block, opted in
  double memory_bandwidth =
      0;  ///< bytes per second by clock and bus width, 0 where the driver does not tell
};
Device device(int index);
/// Bytes. Starts the device for this process, which takes some hundred megabytes of it; `device`
/// does not.
size_t free_memory(int device);

/// A loss kernel on a device. Fewer resident blocks than the registers were cut for mean that other
/// code runs than was built for it.
struct KernelResidency {
  Dtype logits, gradient;
  int pass;    ///< a Pass of cuda/plan.h
  int blocks;  ///< on a multiprocessor at the same time
};
std::vector<KernelResidency> kernel_residency(int device);
/// The algorithms of cuBLASLt for the logits of an output layer: offered, and of those the ones
/// that any number of rows may use.
struct LayerAlgorithms {
  int offered = 0, usable = 0;
};
LayerAlgorithms layer_algorithms(int device, Dtype dtype, int64_t vocab, int64_t hidden);

using Stream = uintptr_t;
using Event = uintptr_t;

void* allocate(int device, size_t bytes);
void release(int device, void* pointer);

/// What CUDA knows of an address.
struct PointerInfo {
  enum class Kind { unregistered, host, device, managed } kind = Kind::unregistered;
  int device = -1;
  /// The allocation around it, or the mappings that follow one another there; null and 0 where
  /// unknown.
  const void* base = nullptr;
  size_t bytes = 0;
};
/// Memory that is made of mappings (cuMemMap) is followed from one to the next until `bytes` from
/// the address are known.
PointerInfo inspect(const void* pointer, size_t bytes = 1);

/// Page-locks host memory, so that copies of it go at full speed and without a stage.
void pin(void* data, size_t bytes);
void unpin(void* data);

/// Copies between host and device, in the order of the stream; returns when done. Pageable memory
/// goes through pinned stages, in chunks that overlap. Safe on any thread.
void copy_to_device(int device, Stream stream, void* to, const void* from, size_t bytes);
void copy_to_host(int device, Stream stream, void* to, const void* from, size_t bytes);
/// Within the device; enqueued only.
void copy_on_device(int device, Stream stream, void* to, const void* from, size_t bytes);
void fill(int device, Stream stream, void* to, int byte, size_t bytes);

Stream create_stream(int device);
void destroy_stream(int device, Stream stream);
/// Waits; errors of the work surface here.
void synchronize(int device, Stream stream);
Event create_event(int device, bool timing);
void destroy_event(int device, Event event);
void record(int device, Event event, Stream stream);
/// Makes later work of the stream wait for the event.
void wait(int device, Stream stream, Event event);
bool ended(int device, Event event);
void synchronize_event(int device, Event event);
double milliseconds(int device, Event from, Event to);
/// Calls `done(cudaError_t)` once, on a thread of CUDA and after all earlier work of the stream,
/// failed or not. It must not call CUDA.
void notify(int device, Stream stream, std::function<void(int)> done);

/// Where device data is, and the stream it is ordered on.
struct Place {
  int device = 0;
  Stream stream = 0;
  /// Of `launch`: recorded right before the first work that is enqueued, when the host has prepared
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
/// Enqueue only, on the caller's thread, and return before the device is done: `synchronize` or
/// `notify`, then `finish`. When something is thrown nothing was written.
std::unique_ptr<Launch> launch(LossJob& job, const Place& place);
std::unique_ptr<Launch> launch(SequenceLogpsJob& job, const Place& place);
std::unique_ptr<Launch> launch(TokenLogpsJob& job, const Place& place);

/// Why jobs with an output layer cannot run on a device, or empty: they need cuBLASLt, which is
/// loaded when it is first asked for.
const std::string& layer_problem();
/// Jobs with an output layer in device memory. The host decides between the products, so they run
/// to the end, on any thread, and stop between chunks once the job is cancelled; the stream is past
/// the work on return.
void run_layer(LossJob& job, const Place& place);
void run_layer(SequenceLogpsJob& job, const Place& place);
void run_layer(TokenLogpsJob& job, const Place& place);

/// Jobs on host arrays, those with an output layer included: scored rows travel in chunks of whole
/// pairs through pinned stages, copies and kernels overlapping. Runs to the end, on any thread;
/// stops between chunks once the job is cancelled.
void run_staged(LossJob& job, int device);
void run_staged(SequenceLogpsJob& job, int device);
void run_staged(TokenLogpsJob& job, int device);

/// Plain copy kernel with 16-byte accesses, the yardstick of benchmarks; enqueued only. Both
/// addresses 16-byte aligned.
void copy_kernel(int device, Stream stream, void* to, const void* from, size_t bytes);

}  // namespace diralign::cuda
