// Copies between host and device, and on it.
#include "runtime.h"
#include "tuning.h"

#include <algorithm>
#include <cstring>

namespace diralign::cuda {

namespace {

/// Two page-locked stages that take turns: while the device copies one, the processor copies the
/// other. The device is through with them at the end, whatever happened.
class Stages {
 public:
  Stages(cudaStream_t stream, size_t bytes)
      : stream_(stream), block_(std::min(bytes, 2 * stage_bytes)) {}
  ~Stages() {
    if (pending_) ignore(cudaStreamSynchronize(stream_));
  }

  char* operator[](size_t chunk) const { return block_.as<char>() + chunk % 2 * stage_bytes; }
  void copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, size_t chunk) {
    pending_ = true;
    check(cudaMemcpyAsync(to, from, bytes, kind, stream_), "cudaMemcpyAsync");
    done_[chunk % 2].record(stream_);
  }
  void wait(size_t chunk) { done_[chunk % 2].synchronize(); }
  void finish() {
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    pending_ = false;
  }

 private:
  cudaStream_t stream_;
  PinnedBlock block_;
  Marker done_[2];
  bool pending_ = false;
};

void copy_direct(cudaStream_t stream, void* to, const void* from, size_t bytes,
                 cudaMemcpyKind kind) {
  check(cudaMemcpyAsync(to, from, bytes, kind, stream), "cudaMemcpyAsync");
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
}

}  // namespace

void copy_to_device(int device, Stream handle, void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  const DeviceGuard guard(device);
  const cudaStream_t stream = as_stream(handle);
  refuse_capture(stream);
  if (page_locked(from, bytes)) return copy_direct(stream, to, from, bytes, cudaMemcpyHostToDevice);
  Stages stages(stream, bytes);
  for (size_t chunk = 0, at = 0; at < bytes; chunk++, at += stage_bytes) {
    const size_t n = std::min(bytes - at, stage_bytes);
    if (chunk >= 2) stages.wait(chunk);
    std::memcpy(stages[chunk], static_cast<const char*>(from) + at, n);
    stages.copy(static_cast<char*>(to) + at, stages[chunk], n, cudaMemcpyHostToDevice, chunk);
  }
  stages.finish();
}

void copy_to_host(int device, Stream handle, void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  const DeviceGuard guard(device);
  const cudaStream_t stream = as_stream(handle);
  refuse_capture(stream);
  if (page_locked(to, bytes)) return copy_direct(stream, to, from, bytes, cudaMemcpyDeviceToHost);
  Stages stages(stream, bytes);
  const auto fetch = [&](size_t chunk) {
    const size_t at = chunk * stage_bytes;
    if (at < bytes)
      stages.copy(stages[chunk], static_cast<const char*>(from) + at,
                  std::min(bytes - at, stage_bytes), cudaMemcpyDeviceToHost, chunk);
  };
  fetch(0);
  fetch(1);
  for (size_t chunk = 0, at = 0; at < bytes; chunk++, at += stage_bytes) {
    stages.wait(chunk);
    std::memcpy(static_cast<char*>(to) + at, stages[chunk], std::min(bytes - at, stage_bytes));
    fetch(chunk + 2);
  }
  stages.finish();
}

void copy_on_device(int device, Stream stream, void* to, const void* from, size_t bytes) {
  const DeviceGuard guard(device);
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, as_stream(stream)),
        "cudaMemcpyAsync");
}

void fill(int device, Stream stream, void* to, int byte, size_t bytes) {
  const DeviceGuard guard(device);
  check(cudaMemsetAsync(to, byte, bytes, as_stream(stream)), "cudaMemsetAsync");
}

}  // namespace diralign::cuda
