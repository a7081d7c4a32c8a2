// Page-locked memory and memory of devices: pools, allocations, and what an address is.
#include "driver.h"
#include "runtime.h"

#include <memory>
#include <mutex>
#include <vector>

namespace diralign::cuda {

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

}  // namespace diralign::cuda
