// The CUDA backend but for its jobs: devices, memory, copies, streams and events.
#include "runtime.h"
#include "tuning.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

namespace diralign::cuda {

namespace {

/// A function of the driver, which nothing is linked against; null where the driver lacks it.
template <class Function>
Function driver_function(const char* name, unsigned version) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion(name, &function, version, cudaEnableDefault, &found);
  ignore(error);
  return error == cudaSuccess && found == cudaDriverEntryPointSuccess
             ? reinterpret_cast<Function>(function)
             : nullptr;
}

/// Whether anyone has used the device in this process. Where the driver does not say: yes.
bool in_use(int device) {
  static const auto state =
      driver_function<int (*)(int, unsigned*, int*)>("cuDevicePrimaryCtxGetState", 7000);
  unsigned flags = 0;
  int active = 1;
  return !state || state(device, &flags, &active) != 0 || active != 0;
}

}  // namespace

DeviceGuard::DeviceGuard(int device) {
  check(cudaGetDevice(&before_), "cudaGetDevice");
  if (before_ == device) return;
  check(cudaSetDevice(device), "cudaSetDevice");
  changed_ = true;
}

DeviceGuard::~DeviceGuard() {
  // Selecting a device starts it, which takes half a gigabyte of its memory: not for one that the
  // thread only had by default.
  if (changed_ && in_use(before_)) ignore(cudaSetDevice(before_));
}

// --- Page-locked memory

namespace {

/// Blocks that nobody has at the moment, up to a limit. Never destroyed: at the end of the process
/// the driver may be gone first.
class PinnedPool {
 public:
  static PinnedPool& get() {
    static PinnedPool& pool = *new PinnedPool;
    return pool;
  }

  /// The smallest that is large enough, but none of much more: it would be missing elsewhere.
  void* take(size_t bytes, size_t& taken) {
    {
      const std::lock_guard lock(mutex_);
      auto best = free_.end();
      for (auto block = free_.begin(); block != free_.end(); ++block)
        if (block->bytes >= bytes && (best == free_.end() || block->bytes < best->bytes))
          best = block;
      if (best != free_.end() && best->bytes / 4 <= bytes) {
        const Block block = *best;
        free_.erase(best);
        kept_ -= block.bytes;
        taken = block.bytes;
        return block.data;
      }
    }
    void* data = nullptr;
    check(cudaHostAlloc(&data, bytes, cudaHostAllocPortable), "cudaHostAlloc");
    taken = bytes;
    return data;
  }

  void give(void* data, size_t bytes) noexcept {
    {
      const std::lock_guard lock(mutex_);
      if (kept_ + bytes <= limit && free_.size() < free_.capacity()) {
        free_.push_back({data, bytes});
        kept_ += bytes;
        return;
      }
    }
    ignore(cudaFreeHost(data));
  }

 private:
  static constexpr size_t limit = size_t(64) << 20;
  struct Block {
    void* data;
    size_t bytes;
  };
  PinnedPool() { free_.reserve(64); }

  std::mutex mutex_;
  std::vector<Block> free_;
  size_t kept_ = 0;
};

}  // namespace

PinnedBlock::PinnedBlock(size_t bytes) {
  // Powers of two, so that calls of slightly different sizes share blocks.
  size_t rounded = size_t(64) << 10;
  while (rounded < bytes) rounded *= 2;
  data_ = PinnedPool::get().take(rounded, bytes_);
}

PinnedBlock::~PinnedBlock() {
  if (data_) PinnedPool::get().give(data_, bytes_);
}

// --- Device memory

namespace {

/// The memory of the workspaces on a device. It keeps as much as the largest of them took: to map
/// gigabytes anew would cost each call of an output layer milliseconds.
class WorkspacePool {
 public:
  static WorkspacePool& of(int device) {
    static std::mutex mutex;
    // Never destroyed, as above.
    static auto& pools = *new std::vector<std::unique_ptr<WorkspacePool>>;
    const std::lock_guard lock(mutex);
    if (size_t(device) >= pools.size()) pools.resize(size_t(device) + 1);
    std::unique_ptr<WorkspacePool>& pool = pools[size_t(device)];
    if (!pool) pool.reset(new WorkspacePool(device));
    return *pool;
  }

  /// Whether the device has pools: under some hypervisors it has none.
  bool exists() const { return pool_ != nullptr; }

  cudaError_t take(void** data, size_t bytes, cudaStream_t stream) {
    const cudaError_t error = cudaMallocFromPoolAsync(data, bytes, pool_, stream);
    const std::lock_guard lock(mutex_);
    if (error == cudaSuccess && bytes > kept_) keep(bytes);
    return error;
  }

  /// Gives back what nobody uses.
  void trim() {
    if (!pool_) return;
    const std::lock_guard lock(mutex_);
    keep(least_kept);
    ignore(cudaMemPoolTrimTo(pool_, 0));
  }

 private:
  static constexpr uint64_t least_kept = uint64_t(32) << 20;

  explicit WorkspacePool(int device) {
    int supported = 0;
    check(cudaDeviceGetAttribute(&supported, cudaDevAttrMemoryPoolsSupported, device),
          "cudaDeviceGetAttribute");
    if (!supported) return;
    cudaMemPoolProps properties{};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.handleTypes = cudaMemHandleTypeNone;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = device;
    check(cudaMemPoolCreate(&pool_, &properties), "cudaMemPoolCreate");
    keep(least_kept);
  }

  /// Where the driver refuses, calls are slower, and right.
  void keep(uint64_t bytes) {
    kept_ = bytes;
    ignore(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &bytes));
  }

  cudaMemPool_t pool_ = nullptr;
  std::mutex mutex_;
  uint64_t kept_ = 0;
};

/// Once more without what the workspaces keep, where there is no room.
template <class Take>
cudaError_t with_room(int device, Take&& take) {
  const cudaError_t error = take();
  if (error != cudaErrorMemoryAllocation) return error;
  ignore(error);
  WorkspacePool::of(device).trim();
  return take();
}

}  // namespace

Workspace::Workspace(int device, cudaStream_t stream, size_t bytes)
    : device_(device), stream_(stream), bytes_(bytes) {
  if (bytes == 0) return;
  const DeviceGuard guard(device);
  WorkspacePool& pool = WorkspacePool::of(device);
  if (pool.exists())
    check(with_room(device, [&] { return pool.take(&data_, bytes, stream); }),
          "cudaMallocFromPoolAsync");
  else check(cudaMalloc(&data_, bytes), "cudaMalloc");
}

Workspace::~Workspace() {
  if (!data_) return;
  try {
    const DeviceGuard guard(device_);
    if (WorkspacePool::of(device_).exists()) {
      ignore(cudaFreeAsync(data_, stream_));
    } else {
      ignore(cudaStreamSynchronize(stream_));
      ignore(cudaFree(data_));
    }
  } catch (const DeviceError&) {
    // Without its device there is no memory to free.
  }
}

void* allocate(int device, size_t bytes) {
  const DeviceGuard guard(device);
  void* data = nullptr;
  if (bytes > 0) check(with_room(device, [&] { return cudaMalloc(&data, bytes); }), "cudaMalloc");
  return data;
}

void release(int device, void* pointer) {
  const DeviceGuard guard(device);
  check(cudaFree(pointer), "cudaFree");
}

namespace {

using AddressRange = int (*)(unsigned long long*, size_t*, unsigned long long);

/// Whether an address is in a mapping (cuMemMap), to which the driver gives a handle of its own.
bool mapped(uintptr_t address) {
  static const auto retain =
      driver_function<int (*)(unsigned long long*, void*)>("cuMemRetainAllocationHandle", 11000);
  static const auto release = driver_function<int (*)(unsigned long long)>("cuMemRelease", 10020);
  unsigned long long handle = 0;
  if (!retain || !release || retain(&handle, reinterpret_cast<void*>(address)) != 0) return false;
  release(handle);
  return true;
}

/// Where memory of the device ends that begins at a mapping which ends at `end`, or `wanted`, if
/// that comes first. An allocator may make one array of several mappings, as PyTorch's expandable
/// segments are, and the driver tells of one at a time.
uintptr_t end_of_mappings(AddressRange range, int device, uintptr_t end, uintptr_t wanted) {
  while (end < wanted && mapped(end - 1) && mapped(end)) {
    cudaPointerAttributes attributes{};
    const cudaError_t error = cudaPointerGetAttributes(&attributes, reinterpret_cast<void*>(end));
    ignore(error);
    unsigned long long base = 0;
    size_t bytes = 0;
    if (error != cudaSuccess || attributes.type != cudaMemoryTypeDevice ||
        attributes.device != device)
      break;
    if (range(&base, &bytes, end) != 0 || base != end || bytes == 0) break;
    end += bytes;
  }
  return end;
}

}  // namespace

PointerInfo inspect(const void* pointer, size_t wanted) {
  cudaPointerAttributes attributes{};
  const cudaError_t error = cudaPointerGetAttributes(&attributes, pointer);
  if (error == cudaErrorInvalidValue) {  // an address that cannot be one
    ignore(error);
    return {};
  }
  check(error, "cudaPointerGetAttributes");
  PointerInfo info;
  switch (attributes.type) {
    case cudaMemoryTypeHost: info.kind = PointerInfo::Kind::host; break;
    case cudaMemoryTypeDevice: info.kind = PointerInfo::Kind::device; break;
    case cudaMemoryTypeManaged: info.kind = PointerInfo::Kind::managed; break;
    default: return info;
  }
  info.device = attributes.device;
  if (info.kind == PointerInfo::Kind::host) return info;
  // The runtime has no call for it.
  static const auto range = driver_function<AddressRange>("cuMemGetAddressRange", 3020);
  unsigned long long base = 0;
  size_t bytes = 0;
  const DeviceGuard guard(info.device);
  if (range && range(&base, &bytes, reinterpret_cast<uintptr_t>(pointer)) == 0) {
    const auto begin = uintptr_t(base), needed = reinterpret_cast<uintptr_t>(pointer) + wanted;
    info.base = reinterpret_cast<const void*>(begin);
    info.bytes = end_of_mappings(range, info.device, begin + bytes, needed) - begin;
  }
  return info;
}

bool page_locked(const void* data, size_t bytes) {
  const auto host = [](const void* p) { return inspect(p).kind == PointerInfo::Kind::host; };
  return host(data) && host(static_cast<const char*>(data) + bytes - 1);
}

void pin(void* data, size_t bytes) {
  check(cudaHostRegister(data, bytes, cudaHostRegisterPortable), "cudaHostRegister");
}
void unpin(void* data) { check(cudaHostUnregister(data), "cudaHostUnregister"); }

// --- Copies

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

// --- Streams and events

Stream create_stream(int device) {
  const DeviceGuard guard(device);
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  return reinterpret_cast<Stream>(stream);
}

void destroy_stream(int device, Stream stream) {
  const DeviceGuard guard(device);
  check(cudaStreamDestroy(as_stream(stream)), "cudaStreamDestroy");
}

void refuse_capture(cudaStream_t stream) {
  cudaStreamCaptureStatus capture{};
  const cudaError_t error = cudaStreamIsCapturing(stream, &capture);
  ignore(error);
  // The default stream would take part in what a blocking stream captures. Other errors are those
  // of earlier work, and the call that follows tells of them.
  if (error != cudaErrorStreamCaptureImplicit &&
      (error != cudaSuccess || capture == cudaStreamCaptureStatusNone))
    return;
  throw DeviceError(
      "cudaStreamIsCapturing", int(cudaErrorStreamCaptureUnsupported),
      "cudaErrorStreamCaptureUnsupported",
      "the stream is captured into a graph: the host needs numbers that capturing does not "
      "compute; end the capture first");
}

void synchronize(int device, Stream stream) {
  const DeviceGuard guard(device);
  refuse_capture(as_stream(stream));
  check(cudaStreamSynchronize(as_stream(stream)), "cudaStreamSynchronize");
}

Event create_event(int device, bool timing) {
  const DeviceGuard guard(device);
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, timing ? cudaEventDefault : cudaEventDisableTiming),
        "cudaEventCreateWithFlags");
  return reinterpret_cast<Event>(event);
}

void destroy_event(int device, Event event) {
  const DeviceGuard guard(device);
  check(cudaEventDestroy(as_event(event)), "cudaEventDestroy");
}

void record(int device, Event event, Stream stream) {
  const DeviceGuard guard(device);
  check(cudaEventRecord(as_event(event), as_stream(stream)), "cudaEventRecord");
}

void wait(int device, Stream stream, Event event) {
  const DeviceGuard guard(device);
  check(cudaStreamWaitEvent(as_stream(stream), as_event(event), 0), "cudaStreamWaitEvent");
}

bool ended(int device, Event event) {
  const DeviceGuard guard(device);
  const cudaError_t error = cudaEventQuery(as_event(event));
  if (error == cudaErrorNotReady) {
    ignore(error);
    return false;
  }
  check(error, "cudaEventQuery");
  return true;
}

void synchronize_event(int device, Event event) {
  const DeviceGuard guard(device);
  check(cudaEventSynchronize(as_event(event)), "cudaEventSynchronize");
}

double milliseconds(int device, Event from, Event to) {
  const DeviceGuard guard(device);
  float result = 0;
  check(cudaEventElapsedTime(&result, as_event(from), as_event(to)), "cudaEventElapsedTime");
  return double(result);
}

void notify(int device, Stream stream, std::function<void(int)> done) {
  const DeviceGuard guard(device);
  auto held = std::make_unique<std::function<void(int)>>(std::move(done));
  // Not cudaLaunchHostFunc, which is not called when earlier work has failed.
  const auto call = [](cudaStream_t, cudaError_t error, void* data) {
    const std::unique_ptr<std::function<void(int)>> held(
        static_cast<std::function<void(int)>*>(data));
    (*held)(int(error));
  };
  check(cudaStreamAddCallback(as_stream(stream), call, held.get(), 0), "cudaStreamAddCallback");
  held.release();
}

// --- What is there

DeviceStatus status() {
  DeviceStatus result;
  result.compiled = true;
  result.architectures = DIRALIGN_CUDA_ARCHITECTURES;
  result.ptx = DIRALIGN_CUDA_PTX;
  ignore(cudaRuntimeGetVersion(&result.runtime));
  ignore(cudaDriverGetVersion(&result.driver));
  const cudaError_t error = cudaGetDeviceCount(&result.devices);
  if (error != cudaSuccess) {
    ignore(error);
    result.devices = 0;
    result.error = int(error);
    result.error_text = cudaGetErrorString(error);
  }
  return result;
}

DeviceProperties properties(int index) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  DeviceProperties result;
  result.name = properties.name;
  const auto* id = reinterpret_cast<const unsigned char*>(properties.uuid.bytes);
  result.uuid = "GPU";
  for (int i = 0; i < 16; i++) {
    static const char* digits = "0123456789abcdef";
    if (i == 0 || i == 4 || i == 6 || i == 8 || i == 10) result.uuid += '-';
    result.uuid += digits[id[i] >> 4];
    result.uuid += digits[id[i] & 15];
  }
  result.major = properties.major;
  result.minor = properties.minor;
  result.multiprocessors = properties.multiProcessorCount;
  result.l2_cache = size_t(properties.l2CacheSize);
  result.shared_memory = properties.sharedMemPerBlockOptin;
  result.memory = properties.totalGlobalMem;
  int kilohertz = 0, bits = 0;
  ignore(cudaDeviceGetAttribute(&kilohertz, cudaDevAttrMemoryClockRate, index));
  ignore(cudaDeviceGetAttribute(&bits, cudaDevAttrGlobalMemoryBusWidth, index));
  result.memory_bandwidth = 2.0 * kilohertz * 1000.0 * bits / 8;  // two transfers a clock
  return result;
}

size_t free_memory(int device) {
  const DeviceGuard guard(device);
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return free;
}

}  // namespace diralign::cuda
