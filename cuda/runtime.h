// What the host side of the CUDA backend is made of: errors, the selected device, and memory whose
// owner gives it back.
#pragma once
#include <cstddef>
#include <memory>
#include <utility>
#include "backend.h"
#include "platform.h"

namespace diralign::cuda {

/// Throws DeviceError for a call that failed, and takes it back as the thread's last error, where
/// the next launch would find it.
inline void check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  (void)cudaGetLastError();
  throw DeviceError(call, int(error), cudaGetErrorName(error), cudaGetErrorString(error));
}

/// For destructors: nobody can be told, and at the end of the process the driver may be gone
/// already.
inline void ignore(cudaError_t error) {
  if (error != cudaSuccess) (void)cudaGetLastError();
}

inline cudaStream_t as_stream(Stream stream) { return reinterpret_cast<cudaStream_t>(stream); }
inline cudaEvent_t as_event(Event event) { return reinterpret_cast<cudaEvent_t>(event); }

/// Selects a device for the calling thread, and the one before at the end of the scope.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

/// Page-locked host memory from a pool of the process: page-locking costs a millisecond, taking a
/// block from the pool nothing. It is good for every device, aligned to 256 bytes, and not cleared.
/// Work on it must have ended before it is given back.
class PinnedBlock {
 public:
  PinnedBlock() = default;
  explicit PinnedBlock(size_t bytes);
  PinnedBlock(PinnedBlock&& other) noexcept { swap(other); }
  PinnedBlock& operator=(PinnedBlock&& other) noexcept {
    PinnedBlock(std::move(other)).swap(*this);
    return *this;
  }
  ~PinnedBlock();
  void* data() const { return data_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }  ///< at least what was asked for

 private:
  void swap(PinnedBlock& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

/// Device memory in the order of a stream: work enqueued there afterwards may use it, and giving it
/// back is enqueued, too. From a pool of our own for each device, which keeps as much as the
/// largest workspace took until memory is scarce: the default pool is for other libraries to tune.
/// Where a device has no pools, giving it back waits for the stream. Aligned to 256 bytes, not
/// cleared.
class Workspace {
 public:
  Workspace() = default;
  Workspace(int device, cudaStream_t stream, size_t bytes);
  Workspace(Workspace&& other) noexcept { swap(other); }
  Workspace& operator=(Workspace&& other) noexcept {
    Workspace(std::move(other)).swap(*this);
    return *this;
  }
  ~Workspace();
  void* data() const { return data_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  void swap(Workspace& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(stream_, other.stream_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  int device_ = 0;
  cudaStream_t stream_ = nullptr;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

/// An event without time, for ordering.
class Marker {
 public:
  Marker() {
    check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  }
  ~Marker() { ignore(cudaEventDestroy(event_)); }
  Marker(const Marker&) = delete;
  Marker& operator=(const Marker&) = delete;
  void record(cudaStream_t stream) { check(cudaEventRecord(event_, stream), "cudaEventRecord"); }
  void synchronize() { check(cudaEventSynchronize(event_), "cudaEventSynchronize"); }
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

/// Throws for a stream that is captured into a graph, before anything invalidates the capture.
void refuse_capture(cudaStream_t stream);

/// Whether copies of this host memory go straight to the device: page-locked by whomever.
bool page_locked(const void* data, size_t bytes);

}  // namespace diralign::cuda
