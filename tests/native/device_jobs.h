// Runs jobs of the CUDA backend on device memory: copied there, enqueued, waited for, copied back.
#pragma once
#include "backend.h"
#include "problems.h"

namespace problems {

/// Bytes on a device, exactly so many: AddressSanitizer knows their end.
struct DeviceBytes {
  int device;
  size_t bytes;
  char* data;
  DeviceBytes(int device, size_t bytes)
      : device(device), bytes(bytes), data(static_cast<char*>(cuda::allocate(device, bytes))) {}
  ~DeviceBytes() { cuda::release(device, data); }
  DeviceBytes(const DeviceBytes&) = delete;
  DeviceBytes& operator=(const DeviceBytes&) = delete;
};

/// A stream of its own, which does not wait for the default one.
struct OwnStream {
  int device;
  Stream stream;
  explicit OwnStream(int device) : device(device), stream(cuda::create_stream(device)) {}
  ~OwnStream() { cuda::destroy_stream(device, stream); }
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;
};

/// Where the test's arrays lie: so many elements past an address that is a multiple of 256.
struct Where {
  int device = 0;
  int64_t logits_offset = 0, gradient_offset = 0;
};

template <class Job>
void run_on_device(Job& job, const Place& place) {
  const auto launch = cuda::launch(job, place);
  cuda::synchronize(place.device, place.stream);
  launch->finish();
}

/// The batch's logits on the device, for a job that only reads them.
struct DeviceLogits {
  DeviceBytes memory;
  size_t offset;
  const std::vector<char>& host;
  OwnStream& stream;
  DeviceLogits(const Problem& p, const Where& where, OwnStream& stream)
      : memory(where.device,
               size_t(where.logits_offset) * dtype_bytes(p.shape.dtype) + p.logits.size()),
        offset(size_t(where.logits_offset) * dtype_bytes(p.shape.dtype)),
        host(p.logits),
        stream(stream) {
    cuda::fill(where.device, stream.stream, memory.data, 0xff, offset);
    cuda::copy_to_device(where.device, stream.stream, memory.data + offset, host.data(),
                         host.size());
  }
  const void* data() const { return memory.data + offset; }
  void check_unchanged() const {
    std::vector<char> after(host.size());
    cuda::copy_to_host(memory.device, stream.stream, after.data(), memory.data + offset,
                       after.size());
    CHECK(after == host, "the logits were written to");
  }
};

inline Result on_device(const Problem& p, const Run& run, const Where& where) {
  OwnStream stream(where.device);
  Prepared prepared(p, run);
  const size_t offset = size_t(where.gradient_offset) * dtype_bytes(p.shape.dtype);
  DeviceBytes gradient(where.device, prepared.memory.empty() ? 0 : offset + prepared.memory.size());
  if (run.mode != Mode::none) {
    cuda::copy_to_device(where.device, stream.stream, gradient.data + offset,
                         prepared.memory.data(), prepared.memory.size());
    prepared.job.gradients.logits.data = gradient.data + offset + guard;
  }
  if (run.in_place) {
    prepared.job.batch.logits = prepared.job.gradients.logits.data;
    run_on_device(prepared.job, {where.device, stream.stream});
  } else {
    const DeviceLogits logits(p, where, stream);
    prepared.job.batch.logits = logits.data();
    run_on_device(prepared.job, {where.device, stream.stream});
    logits.check_unchanged();
  }
  if (run.mode != Mode::none)
    cuda::copy_to_host(where.device, stream.stream, prepared.memory.data(), gradient.data + offset,
                       prepared.memory.size());
  return prepared.collect();
}

}  // namespace problems
