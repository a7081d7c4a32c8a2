#include "runtime.h"
#include <dlfcn.h>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>
#include "machine.h"
#include "sanitizers.h"

using simt::acquire;
using simt::release;

namespace {

using Clock = std::chrono::steady_clock;

// --- Work

/// One piece of work of a stream.
struct Operation {
  virtual ~Operation() = default;
  // With the runtime locked: whether it can run, and what is to do right before and right after. An
  // error of `begin` takes the place of running.
  virtual bool ready() const { return true; }
  virtual cudaError_t begin() { return cudaSuccess; }
  virtual void end() {}
  /// Carries it out, on the device's thread and the stream's timeline; `status` is the device's. An
  /// error is the device's from then on. Takes no lock: a lock would order the work against that of
  /// other threads, which streams do not.
  virtual cudaError_t run(cudaError_t status) = 0;
  bool despite_errors = false;
  uint64_t sequence = 0;  ///< the order in which work was given to the device
};

/// One recording of an event.
struct Record {
  bool ended = false;
  Clock::time_point time;
};

struct Device;

}  // namespace

struct CUstream_st {
  Device* device = nullptr;
  bool legacy = false, blocking = false, destroyed = false, running = false, capturing = false;
  std::deque<std::unique_ptr<Operation>> queue;  // its front stays there while it runs
  uint64_t submitted = 0, completed = 0;
  simt::Timeline timeline;
  char order = 0;  // for the race detector: what the stream did
};

struct CUevent_st {
  int device;
  bool timing;
  std::shared_ptr<Record> record;  // null: never recorded, which counts as ended
};

struct CUmemPoolHandle_st {
  int device;
  bool is_default;
  uint64_t threshold = 0;
  size_t used = 0;
  /// Freed, and kept: at once, where CUDA waits for a synchronisation.
  size_t idle = 0;
};

namespace {

struct Device {
  int index = 0;
  int multiprocessors = 0, l2_bytes = 0;
  CUstream_st legacy;
  std::vector<CUstream_st*>
      streams;  // and the legacy one; those destroyed until their work is done
  size_t next_stream = 0;
  uint64_t sequence = 0;
  cudaError_t failed = cudaSuccess;
  size_t used = 0;
  CUmemPoolHandle_st default_pool{};
  std::map<const void*, int> dynamic_shared_limits;
  std::thread thread;
  bool thread_ended = false;
  // For the race detector: the start of the thread, and what was done by blocking streams, by the
  // legacy one, by all.
  char started = 0, blocking_order = 0, legacy_order = 0, order = 0;
};

/// Memory that the runtime knows.
struct Allocation {
  enum Kind { device, host, registered } kind;
  int device_index;
  size_t bytes;
  CUmemPoolHandle_st* pool = nullptr;
  bool freeing = false;
  bool mapped = false;  ///< by cuMemMap: it may be one of several that follow one another
};

long long number(const char* variable, long long otherwise) {
  const char* const text = std::getenv(variable);
  if (!text || !*text) return otherwise;
  char* end;
  const long long value = std::strtoll(text, &end, 0);
  if (*end) {
    std::fprintf(stderr, "simt: %s=%s is not a number\n", variable, text);
    std::abort();
  }
  return value;
}

/// Of a variable that has one number for all devices, or one for each, separated by commas; the
/// last stands for those that follow.
long long number_of(const char* variable, int device, long long otherwise) {
  const char* text = std::getenv(variable);
  if (!text || !*text) return otherwise;
  for (;; ++text) {
    char* end;
    const long long value = std::strtoll(text, &end, 0);
    if (end == text || (*end && *end != ',')) {
      std::fprintf(stderr, "simt: %s is numbers, separated by commas\n", variable);
      std::abort();
    }
    if (!*end || device-- == 0) return value;
    text = end;
  }
}

struct Runtime {
  std::mutex mutex;
  std::condition_variable work, progress;
  bool stopping = false;
  std::vector<std::unique_ptr<Device>> devices;
  size_t memory;
  int driver, capability, partition, largest_cluster;
  bool cooperative, pools_supported;
  size_t mapping_handles = 0;
  std::chrono::microseconds delay;
  std::set<CUstream_st*> streams;  // live handles
  std::set<CUevent_st*> events;
  std::set<CUmemPoolHandle_st*> pools;
  std::map<std::pair<std::thread::id, int>, CUstream_st*> per_thread;
  std::map<uintptr_t, Allocation> allocations;
  std::atomic<uint64_t> kernels{0};

  Runtime() {
    memory = size_t(number("SIMT_MEMORY", 1ll << 30));
    driver = int(number("SIMT_DRIVER", CUDART_VERSION));
    capability = int(number("SIMT_CAPABILITY", 90));
    partition = int(number("SIMT_PARTITION", 0));
    largest_cluster = int(number("SIMT_CLUSTERS", capability >= 90 ? 16 : 0));
    cooperative = number("SIMT_COOPERATIVE", 1) != 0;
    pools_supported = number("SIMT_POOLS", 1) != 0;
    delay = std::chrono::microseconds(number("SIMT_DELAY", 0));
    const int count = driver < CUDART_VERSION ? 0 : int(number("SIMT_DEVICES", 2));
    for (int i = 0; i < count; ++i) {
      auto device = std::make_unique<Device>();
      device->index = i;
      device->multiprocessors = int(number_of("SIMT_MULTIPROCESSORS", i, 2));
      if (device->multiprocessors < 1 || device->multiprocessors > int(simt::max_multiprocessors)) {
        std::fprintf(stderr, "simt: SIMT_MULTIPROCESSORS is 1 to %u of them\n",
                     simt::max_multiprocessors);
        std::abort();
      }
      device->l2_bytes = int(number_of("SIMT_L2", i, 64 << 10));
      device->legacy.device = device.get();
      device->legacy.legacy = true;
      device->streams.push_back(&device->legacy);
      device->default_pool.device = i;
      device->default_pool.is_default = true;
      pools.insert(&device->default_pool);
      devices.push_back(std::move(device));
    }
  }

  /// Ends the threads of the devices. Work that has not started is dropped, as by a process that
  /// exits.
  void stop() {
    std::unique_lock<std::mutex> lock(mutex);
    stopping = true;
    work.notify_all();
    progress.notify_all();
    for (auto& device : devices) {
      if (!device->thread.joinable()) continue;
      // A callback that waits for the thread that exits would never end.
      const bool ended =
          progress.wait_for(lock, std::chrono::seconds(5), [&] { return device->thread_ended; });
      lock.unlock();
      if (ended) device->thread.join();
      else device->thread.detach();
      lock.lock();
    }
  }
};

std::atomic<bool> unloading{false};

Runtime& runtime() {
  // Never destroyed: threads of the process may call until the very end.
  static Runtime* const instance = new Runtime;
  static const struct AtExit {
    ~AtExit() {
      unloading = true;
      instance->stop();
    }
  } at_exit;
  return *instance;
}

// --- Calls

thread_local int current_device = 0;
thread_local cudaError_t last_error = cudaSuccess;
// Read and written on several timelines of a device's thread.
thread_local std::atomic<bool> in_callback{false};

cudaError_t note(cudaError_t error) {
  if (error != cudaSuccess && !in_callback.load(std::memory_order_relaxed)) last_error = error;
  return error;
}

/// The failure that SIMT_FAIL asks for at this call, or cudaSuccess.
cudaError_t injected(const char* name) {
  const char* const wanted = std::getenv("SIMT_FAIL");
  static std::mutex mutex;
  static std::string known;
  struct Failure {
    std::string name;
    cudaError_t error;
    long long after, times;
  };
  static std::vector<Failure> failures;
  std::lock_guard<std::mutex> lock(mutex);
  if (!wanted) {
    known.clear();
    failures.clear();
    return cudaSuccess;
  }
  if (known != wanted) {
    known = wanted;
    failures.clear();
    for (size_t at = 0; at < known.size();) {
      const size_t end = std::min(known.find(',', at), known.size());
      const std::string text = known.substr(at, end - at);
      char function[64];
      int error;
      long long after, times = 1;
      if (std::sscanf(text.c_str(), "%63[^:]:%d:%lld:%lld", function, &error, &after, &times) < 3) {
        std::fprintf(stderr, "simt: SIMT_FAIL is name:error:after[:times][,...], not %s\n", wanted);
        std::abort();
      }
      failures.push_back({function, cudaError_t(error), after, times});
      at = end + 1;
    }
  }
  for (Failure& failure : failures) {
    // What is stream-ordered goes by one name, whichever pool it comes from.
    const bool same = failure.name == name || (failure.name == "cudaMallocAsync" &&
                                               !std::strcmp(name, "cudaMallocFromPoolAsync"));
    if (!same || failure.times == 0) continue;
    if (failure.after > 0) {
      --failure.after;
      continue;
    }
    --failure.times;
    return failure.error;
  }
  return cudaSuccess;
}

/// Whether a call may go on; `device`: the one that it is about, or -1.
cudaError_t enter(const char* name, int device = -1) {
  if (unloading) return cudaErrorCudartUnloading;
  if (in_callback.load(std::memory_order_relaxed)) return cudaErrorNotPermitted;
  Runtime& r = runtime();
  if (r.devices.empty())
    return r.driver < CUDART_VERSION ? cudaErrorInsufficientDriver : cudaErrorNoDevice;
  if (const cudaError_t error = injected(name)) return error;
  if (device < 0) return cudaSuccess;
  std::lock_guard<std::mutex> lock(r.mutex);
  return r.devices[size_t(device)]->failed;
}
#define SIMT_ENTER(...) \
  if (const cudaError_t error = enter(__func__ __VA_OPT__(, ) __VA_ARGS__)) return note(error)

using Lock = std::unique_lock<std::mutex>;

/// The stream of a handle, locked; null for one that is none.
CUstream_st* resolve(cudaStream_t handle) {
  Runtime& r = runtime();
  Device& device = *r.devices[size_t(current_device)];
  if (handle == nullptr || handle == cudaStreamLegacy) return &device.legacy;
  if (handle == cudaStreamPerThread) {
    CUstream_st*& stream = r.per_thread[{std::this_thread::get_id(), device.index}];
    if (!stream) {
      stream = new CUstream_st;
      stream->device = &device;
      stream->blocking = true;
      device.streams.push_back(stream);
    }
    return stream;
  }
  return r.streams.count(handle) ? handle : nullptr;
}

/// The device that a stream's work is for, or -1.
int device_of(cudaStream_t handle) {
  if (unloading || runtime().devices.empty()) return -1;
  std::lock_guard<std::mutex> lock(runtime().mutex);
  const CUstream_st* const stream = resolve(handle);
  return stream ? stream->device->index : -1;
}
#define SIMT_ENTER_STREAM(stream) SIMT_ENTER(device_of(stream))

bool idle(const Device& device) {
  return std::all_of(device.streams.begin(), device.streams.end(),
                     [](const CUstream_st* s) { return s->queue.empty(); });
}

cudaError_t wait_for_device(Device& device, Lock& lock) {
  Runtime& r = runtime();
  r.progress.wait(lock, [&] { return r.stopping || idle(device); });
  acquire(&device.order);
  return r.stopping ? cudaErrorCudartUnloading : device.failed;
}
cudaError_t wait_for_stream(CUstream_st& stream, Lock& lock) {
  Runtime& r = runtime();
  Device& device = *stream.device;
  const uint64_t target = stream.submitted;
  r.progress.wait(lock, [&] { return r.stopping || stream.completed >= target; });
  acquire(&stream.order);
  return r.stopping ? cudaErrorCudartUnloading : device.failed;
}

// --- The threads of the devices

/// The stream whose turn it is, of those whose first piece of work can run.
CUstream_st* choose(Device& device) {
  const size_t n = device.streams.size();
  const CUstream_st& legacy = device.legacy;
  const auto runnable = [&](const CUstream_st& s) {
    if (s.queue.empty() || !s.queue.front()->ready()) return false;
    const uint64_t sequence = s.queue.front()->sequence;
    if (s.blocking) return legacy.queue.empty() || legacy.queue.front()->sequence > sequence;
    if (!s.legacy) return true;
    return std::none_of(device.streams.begin(), device.streams.end(),
                        [&](const CUstream_st* other) {
                          return other->blocking && !other->queue.empty() &&
                                 other->queue.front()->sequence < sequence;
                        });
  };
  for (size_t k = 0; k < n; ++k) {
    const size_t i = (device.next_stream + k) % n;
    if (!runnable(*device.streams[i])) continue;
    device.next_stream = i + 1;
    return device.streams[i];
  }
  return nullptr;
}

thread_local simt::Machine* machine = nullptr;

void work(Device& device) {
  Runtime& r = runtime();
  machine = simt::create_machine(unsigned(device.multiprocessors));
  release(&device.started);
  Lock lock(r.mutex);
  for (;;) {
    CUstream_st* stream = nullptr;
    r.work.wait(lock, [&] { return r.stopping || (stream = choose(device)); });
    if (r.stopping) break;
    Operation* const operation = stream->queue.front().get();
    const cudaError_t status = device.failed;
    bool runs = status == cudaSuccess || operation->despite_errors;
    cudaError_t error = runs ? operation->begin() : cudaSuccess;
    runs = runs && error == cudaSuccess;
    // Read here: nothing orders what the stream's timeline reads before the stream is destroyed.
    const bool legacy = stream->legacy, blocking = stream->blocking;
    lock.unlock();
    if (r.delay.count() > 0) std::this_thread::sleep_for(r.delay);
    stream->timeline.with([&] {
      acquire(operation);
      acquire(&device.started);
      if (legacy) acquire(&device.blocking_order);
      if (blocking) acquire(&device.legacy_order);
      if (runs) error = operation->run(status);
      if (legacy) release(&device.legacy_order);
      if (blocking) release(&device.blocking_order);
      release(&stream->order);
      release(&device.order);
    });
    lock.lock();
    if (error && !device.failed) device.failed = error;
    if (runs) operation->end();
    {
      simt::Quiet quiet;  // its memory was last read on the stream's timeline, which nothing orders
                          // before this
      stream->queue.pop_front();
    }
    ++stream->completed;
    if (stream->destroyed && stream->queue.empty()) {
      device.streams.erase(std::find(device.streams.begin(), device.streams.end(), stream));
      delete stream;
    }
    r.progress.notify_all();
    r.work.notify_all();  // of another device's stream, which may wait for an event of this one
  }
  simt::destroy_machine(machine);
  machine = nullptr;
  device.thread_ended = true;
  r.progress.notify_all();
}

void submit(CUstream_st& stream, std::unique_ptr<Operation> operation, Lock&) {
  Runtime& r = runtime();
  Device& device = *stream.device;
  if (!device.thread.joinable() && !r.stopping)
    device.thread = std::thread([&device] { work(device); });
  operation->sequence = ++device.sequence;
  release(operation.get());
  stream.queue.push_back(std::move(operation));
  ++stream.submitted;
  r.work.notify_all();
}

// --- Memory

/// The allocation around an address, or null.
std::pair<const uintptr_t, Allocation>* find(const void* pointer) {
  auto& allocations = runtime().allocations;
  const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
  auto it = allocations.upper_bound(address);
  if (it == allocations.begin()) return nullptr;
  --it;
  return address - it->first < it->second.bytes ? &*it : nullptr;
}

cudaError_t allocate_device(void** pointer, size_t bytes, Device& device, CUmemPoolHandle_st* pool,
                            Lock& lock) {
  Runtime& r = runtime();
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  if (bytes > r.memory) return cudaErrorMemoryAllocation;
  auto fresh = [&] { return bytes - (pool ? std::min(bytes, pool->idle) : 0); };
  if (fresh() > r.memory - device.used) {
    // Memory that is freed in the order of a stream may be on its way back.
    if (const cudaError_t error = wait_for_device(device, lock)) return error;
    if (fresh() > r.memory - device.used) return cudaErrorMemoryAllocation;
  }
  void* data;
  if (posix_memalign(&data, 256, bytes)) return cudaErrorMemoryAllocation;
  std::memset(data, 0xff, bytes);
  device.used += fresh();
  if (pool) {
    pool->idle -= bytes - fresh();
    pool->used += bytes;
  }
  r.allocations[reinterpret_cast<uintptr_t>(data)] = {Allocation::device, device.index, bytes, pool,
                                                      false};
  *pointer = data;
  return cudaSuccess;
}

/// Gives back what a pool keeps beyond so many bytes, those in use included.
void trim(CUmemPoolHandle_st& pool, size_t keep) {
  const size_t most = keep > pool.used ? keep - pool.used : 0;
  if (pool.idle <= most) return;
  runtime().devices[size_t(pool.device)]->used -= pool.idle - most;
  pool.idle = most;
}

void forget(void* pointer) {
  Runtime& r = runtime();
  const auto it = r.allocations.find(reinterpret_cast<uintptr_t>(pointer));
  if (CUmemPoolHandle_st* const pool = it->second.pool) {
    pool->used -= it->second.bytes;
    pool->idle += it->second.bytes;
    trim(*pool, pool->threshold);
  } else {
    r.devices[size_t(it->second.device_index)]->used -= it->second.bytes;
  }
  r.allocations.erase(it);
}

struct Free : Operation {
  void* pointer;
  explicit Free(void* pointer) : pointer(pointer) { despite_errors = true; }
  cudaError_t begin() override {
    forget(pointer);
    return cudaSuccess;
  }
  cudaError_t run(cudaError_t) override {
    std::free(pointer);
    return cudaSuccess;
  }
};

struct Copy : Operation {
  char* to;
  const char* from;
  size_t to_pitch, from_pitch, width, height;
  std::unique_ptr<char[]> stage;
  cudaError_t run(cudaError_t) override {
    for (size_t y = 0; y < height; ++y)
      std::memcpy(to + y * to_pitch, from + y * from_pitch, width);
    return cudaSuccess;
  }
};
struct Fill : Operation {
  char* to;
  int value;
  size_t pitch, width, height;
  cudaError_t run(cudaError_t) override {
    for (size_t y = 0; y < height; ++y) std::memset(to + y * pitch, value, width);
    return cudaSuccess;
  }
};

/// Where one side of a copy lies. False: a range that leaves its allocation.
bool locate(const void* pointer, size_t bytes, bool& device, bool& pinned) {
  device = pinned = false;
  const auto* const found = find(pointer);
  if (!found) return true;
  if (found->second.freeing ||
      reinterpret_cast<uintptr_t>(pointer) + bytes > found->first + found->second.bytes)
    return false;
  device = found->second.kind == Allocation::device;
  pinned = !device;
  return true;
}

cudaError_t copy(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                 size_t height, cudaMemcpyKind kind, cudaStream_t handle, bool synchronous) {
  if (width == 0 || height == 0) return cudaSuccess;
  if (height > 1 && (width > to_pitch || width > from_pitch)) return cudaErrorInvalidPitchValue;
  if (!to || !from) return cudaErrorInvalidValue;
  if (unsigned(kind) > cudaMemcpyDefault) return cudaErrorInvalidMemcpyDirection;
  Lock lock(runtime().mutex);
  CUstream_st* const stream = resolve(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  bool to_device, to_pinned, from_device, from_pinned;
  if (!locate(to, (height - 1) * to_pitch + width, to_device, to_pinned))
    return cudaErrorInvalidValue;
  if (!locate(from, (height - 1) * from_pitch + width, from_device, from_pinned))
    return cudaErrorInvalidValue;
  if (kind != cudaMemcpyDefault) {
    const bool wants_to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool wants_from_device =
        kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (to_device != wants_to_device || from_device != wants_from_device)
      return cudaErrorInvalidValue;
  }
  auto operation = std::make_unique<Copy>();
  operation->to = static_cast<char*>(to);
  operation->from = static_cast<const char*>(from);
  operation->to_pitch = to_pitch;
  operation->from_pitch = from_pitch;
  operation->width = width;
  operation->height = height;
  if (to_device && !from_device && !from_pinned) {
    // Pageable memory is read before the call returns.
    operation->stage.reset(new char[width * height]);
    for (size_t y = 0; y < height; ++y)
      std::memcpy(operation->stage.get() + y * width, operation->from + y * from_pitch, width);
    operation->from = operation->stage.get();
    operation->from_pitch = width;
  }
  const bool wait = (!to_device && !to_pinned) || (synchronous && !(to_device && from_device));
  submit(*stream, std::move(operation), lock);
  return wait ? wait_for_stream(*stream, lock) : cudaSuccess;
}

cudaError_t fill(void* to, size_t pitch, int value, size_t width, size_t height,
                 cudaStream_t handle) {
  if (width == 0 || height == 0) return cudaSuccess;
  if (height > 1 && width > pitch) return cudaErrorInvalidPitchValue;
  Lock lock(runtime().mutex);
  CUstream_st* const stream = resolve(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  bool device, pinned;
  if (!locate(to, (height - 1) * pitch + width, device, pinned) || !(device || pinned))
    return cudaErrorInvalidValue;
  auto operation = std::make_unique<Fill>();
  operation->to = static_cast<char*>(to);
  operation->value = value;
  operation->pitch = pitch;
  operation->width = width;
  operation->height = height;
  submit(*stream, std::move(operation), lock);
  return cudaSuccess;
}

bool valid(int device) { return device >= 0 && size_t(device) < runtime().devices.size(); }

}  // namespace

// --- Errors

namespace {
struct ErrorText {
  cudaError_t error;
  const char *name, *text;
};
#define SIMT_ERROR(name, text) {name, #name, text}
constexpr ErrorText error_texts[] = {
    SIMT_ERROR(cudaSuccess, "no error"),
    SIMT_ERROR(cudaErrorInvalidValue, "invalid argument"),
    SIMT_ERROR(cudaErrorMemoryAllocation, "out of memory"),
    SIMT_ERROR(cudaErrorInitializationError, "initialization error"),
    SIMT_ERROR(cudaErrorCudartUnloading, "driver shutting down"),
    SIMT_ERROR(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    SIMT_ERROR(cudaErrorInvalidPitchValue, "invalid pitch argument"),
    SIMT_ERROR(cudaErrorInvalidDevicePointer, "invalid device pointer"),
    SIMT_ERROR(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    SIMT_ERROR(cudaErrorInsufficientDriver,
               "CUDA driver version is insufficient for CUDA runtime version"),
    SIMT_ERROR(cudaErrorDevicesUnavailable, "CUDA-capable device(s) is/are busy or unavailable"),
    SIMT_ERROR(cudaErrorInvalidDeviceFunction, "invalid device function"),
    SIMT_ERROR(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    SIMT_ERROR(cudaErrorInvalidDevice, "invalid device ordinal"),
    SIMT_ERROR(cudaErrorNoKernelImageForDevice,
               "no kernel image is available for execution on the device"),
    SIMT_ERROR(cudaErrorECCUncorrectable, "uncorrectable ECC error encountered"),
    SIMT_ERROR(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    SIMT_ERROR(cudaErrorSymbolNotFound, "named symbol not found"),
    SIMT_ERROR(cudaErrorNotReady, "device not ready"),
    SIMT_ERROR(cudaErrorUnsupportedPtxVersion,
               "the provided PTX was compiled with an unsupported toolchain."),
    SIMT_ERROR(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    SIMT_ERROR(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    SIMT_ERROR(cudaErrorLaunchTimeout, "the launch timed out and was terminated"),
    SIMT_ERROR(cudaErrorAssert, "device-side assert triggered"),
    SIMT_ERROR(cudaErrorHostMemoryAlreadyRegistered,
               "part or all of the requested memory range is already mapped"),
    SIMT_ERROR(cudaErrorHostMemoryNotRegistered,
               "pointer does not correspond to a registered memory region"),
    SIMT_ERROR(cudaErrorHardwareStackError, "hardware stack error"),
    SIMT_ERROR(cudaErrorIllegalInstruction, "an illegal instruction was encountered"),
    SIMT_ERROR(cudaErrorMisalignedAddress, "misaligned address"),
    SIMT_ERROR(cudaErrorLaunchFailure, "unspecified launch failure"),
    SIMT_ERROR(cudaErrorCooperativeLaunchTooLarge, "too many blocks in cooperative launch"),
    SIMT_ERROR(cudaErrorInvalidClusterSize, "invalid cluster size"),
    SIMT_ERROR(cudaErrorNotPermitted, "operation not permitted"),
    SIMT_ERROR(cudaErrorNotSupported, "operation not supported"),
    SIMT_ERROR(cudaErrorSystemDriverMismatch,
               "system has unsupported display driver / cuda driver combination"),
    SIMT_ERROR(cudaErrorStreamCaptureUnsupported,
               "operation not permitted when stream is capturing"),
    SIMT_ERROR(cudaErrorStreamCaptureImplicit,
               "operation would make the legacy stream depend on a capturing blocking stream"),
    SIMT_ERROR(cudaErrorUnknown, "unknown error"),
};
const ErrorText* text_of(cudaError_t error) {
  const auto* const found = std::find_if(std::begin(error_texts), std::end(error_texts),
                                         [=](const ErrorText& e) { return e.error == error; });
  return found == std::end(error_texts) ? nullptr : found;
}
/// The error of the current device, which stays.
cudaError_t failure_of_device() {
  if (unloading || runtime().devices.empty()) return cudaSuccess;
  std::lock_guard<std::mutex> lock(runtime().mutex);
  return runtime().devices[size_t(current_device)]->failed;
}
}  // namespace

const char* cudaGetErrorName(cudaError_t error) {
  const ErrorText* const found = text_of(error);
  return found ? found->name : "unrecognized error code";
}
const char* cudaGetErrorString(cudaError_t error) {
  const ErrorText* const found = text_of(error);
  return found ? found->text : "unrecognized error code";
}
cudaError_t cudaPeekAtLastError() {
  const cudaError_t failed = failure_of_device();
  return failed ? failed : last_error;
}
cudaError_t cudaGetLastError() {
  const cudaError_t error = cudaPeekAtLastError();
  last_error = cudaSuccess;
  return error;
}

// --- Devices

cudaError_t cudaDriverGetVersion(int* version) {
  if (unloading) return cudaErrorCudartUnloading;
  if (!version) return note(cudaErrorInvalidValue);
  *version = runtime().driver;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  if (!version) return note(cudaErrorInvalidValue);
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  if (!count) return note(cudaErrorInvalidValue);
  *count = 0;
  SIMT_ENTER();
  *count = int(runtime().devices.size());
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  SIMT_ENTER();
  if (!device) return note(cudaErrorInvalidValue);
  *device = current_device;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  SIMT_ENTER();
  if (!valid(device)) return note(cudaErrorInvalidDevice);
  current_device = device;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  SIMT_ENTER();
  if (!properties) return note(cudaErrorInvalidValue);
  if (!valid(device)) return note(cudaErrorInvalidDevice);
  cudaDeviceProp p{};
  std::snprintf(p.name, sizeof(p.name), "Emulated CUDA device");
  for (int i = 0; i < 16; ++i) p.uuid.bytes[i] = char(0xe0 + i);
  p.uuid.bytes[15] = char(device);
  p.totalGlobalMem = runtime().memory;
  p.major = runtime().capability / 10;
  p.minor = runtime().capability % 10;
  p.multiProcessorCount = runtime().devices[size_t(device)]->multiprocessors;
  p.l2CacheSize = runtime().devices[size_t(device)]->l2_bytes;
  p.sharedMemPerBlockOptin = simt::max_shared_memory;
  *properties = p;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  SIMT_ENTER();
  if (!value) return note(cudaErrorInvalidValue);
  cudaDeviceProp p;
  if (const cudaError_t error = cudaGetDeviceProperties(&p, device)) return error;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; return cudaSuccess;
    case cudaDevAttrMemoryClockRate: *value = 2'619'000; return cudaSuccess;
    case cudaDevAttrGlobalMemoryBusWidth: *value = 5120; return cudaSuccess;
    case cudaDevAttrL2CacheSize: *value = p.l2CacheSize; return cudaSuccess;
    case cudaDevAttrCooperativeLaunch: *value = runtime().cooperative; return cudaSuccess;
    case cudaDevAttrClusterLaunch: *value = runtime().largest_cluster > 0; return cudaSuccess;
    case cudaDevAttrMemoryPoolsSupported: *value = runtime().pools_supported; return cudaSuccess;
  }
  return note(cudaErrorInvalidValue);
}
cudaError_t cudaDeviceSynchronize() {
  SIMT_ENTER(current_device);
  Lock lock(runtime().mutex);
  return note(wait_for_device(*runtime().devices[size_t(current_device)], lock));
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  SIMT_ENTER(current_device);
  if (!free || !total) return note(cudaErrorInvalidValue);
  Lock lock(runtime().mutex);
  *total = runtime().memory;
  *free = runtime().memory - runtime().devices[size_t(current_device)]->used;
  return cudaSuccess;
}

// --- Memory

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  SIMT_ENTER(current_device);
  if (!pointer) return note(cudaErrorInvalidValue);
  Lock lock(runtime().mutex);
  return note(
      allocate_device(pointer, bytes, *runtime().devices[size_t(current_device)], nullptr, lock));
}
cudaError_t cudaFree(void* pointer) {
  SIMT_ENTER(current_device);
  if (!pointer) return cudaSuccess;
  Lock lock(runtime().mutex);
  const auto* const found = find(pointer);
  if (!found || found->first != reinterpret_cast<uintptr_t>(pointer) ||
      found->second.kind != Allocation::device || found->second.freeing) {
    return note(cudaErrorInvalidValue);
  }
  // It waits for the whole device, as CUDA does.
  const cudaError_t error =
      wait_for_device(*runtime().devices[size_t(found->second.device_index)], lock);
  if (error == cudaErrorCudartUnloading) return note(error);
  forget(pointer);
  std::free(pointer);
  return note(error);
}

cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) {
  SIMT_ENTER(current_device);
  if (!pointer) return note(cudaErrorInvalidValue);
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  void* data;
  if (posix_memalign(&data, 256, bytes)) return note(cudaErrorMemoryAllocation);
  std::memset(data, 0xff, bytes);
  Lock lock(runtime().mutex);
  runtime().allocations[reinterpret_cast<uintptr_t>(data)] = {Allocation::host, current_device,
                                                              bytes, nullptr, false};
  *pointer = data;
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** pointer, size_t bytes, unsigned flags) {
  return cudaHostAlloc(pointer, bytes, flags);
}
cudaError_t cudaFreeHost(void* pointer) {
  SIMT_ENTER(current_device);
  if (!pointer) return cudaSuccess;
  Lock lock(runtime().mutex);
  const auto it = runtime().allocations.find(reinterpret_cast<uintptr_t>(pointer));
  if (it == runtime().allocations.end() || it->second.kind != Allocation::host)
    return note(cudaErrorInvalidValue);
  runtime().allocations.erase(it);
  lock.unlock();
  std::free(pointer);
  return cudaSuccess;
}
cudaError_t cudaHostRegister(void* pointer, size_t bytes, unsigned) {
  SIMT_ENTER(current_device);
  if (!pointer || bytes == 0) return note(cudaErrorInvalidValue);
  Lock lock(runtime().mutex);
  auto& allocations = runtime().allocations;
  const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
  const auto after = allocations.lower_bound(address);
  if (find(pointer) || (after != allocations.end() && after->first < address + bytes))
    return note(cudaErrorHostMemoryAlreadyRegistered);
  allocations[address] = {Allocation::registered, current_device, bytes, nullptr, false};
  return cudaSuccess;
}
cudaError_t cudaHostUnregister(void* pointer) {
  SIMT_ENTER(current_device);
  Lock lock(runtime().mutex);
  const auto it = runtime().allocations.find(reinterpret_cast<uintptr_t>(pointer));
  if (it == runtime().allocations.end() || it->second.kind != Allocation::registered)
    return note(cudaErrorHostMemoryNotRegistered);
  runtime().allocations.erase(it);
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  SIMT_ENTER(current_device);
  if (!attributes) return note(cudaErrorInvalidValue);
  Lock lock(runtime().mutex);
  void* const address = const_cast<void*>(pointer);
  const auto* const found = find(pointer);
  if (!found || found->second.freeing) {
    *attributes = {cudaMemoryTypeUnregistered, cudaInvalidDeviceId, nullptr, address};
  } else if (found->second.kind == Allocation::device) {
    *attributes = {cudaMemoryTypeDevice, found->second.device_index, address, nullptr};
  } else {
    *attributes = {cudaMemoryTypeHost, found->second.device_index, address, address};
  }
  return cudaSuccess;
}

cudaError_t cudaMallocFromPoolAsync(void** pointer, size_t bytes, cudaMemPool_t pool,
                                    cudaStream_t handle) {
  SIMT_ENTER_STREAM(handle);
  if (!pointer) return note(cudaErrorInvalidValue);
  Lock lock(runtime().mutex);
  CUstream_st* const stream = resolve(handle);
  if (!stream) return note(cudaErrorInvalidResourceHandle);
  if (!runtime().pools.count(pool) || pool->device != stream->device->index)
    return note(cudaErrorInvalidValue);
  return note(allocate_device(pointer, bytes, *stream->device, pool, lock));
}
cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t handle) {
  SIMT_ENTER_STREAM(handle);
  if (!pointer) return note(cudaErrorInvalidValue);
  Lock lock(runtime().mutex);
  CUstream_st* const stream = resolve(handle);
  if (!stream) return note(cudaErrorInvalidResourceHandle);
  return note(
      allocate_device(pointer, bytes, *stream->device, &stream->device->default_pool, lock));
}
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t handle) {
  SIMT_ENTER_STREAM(handle);
  if (!pointer) return cudaSuccess;
  Lock lock(runtime().mutex);
  CUstream_st* const stream = resolve(handle);
  if (!stream) return note(cudaErrorInvalidResourceHandle);
  auto* const found = find(pointer);
  if (!found || found->first != reinterpret_cast<uintptr_t>(pointer) ||
      found->second.kind != Allocation::device || found->second.freeing ||
      found->second.device_index != stream->device->index) {
    return note(cudaErrorInvalidValue);
  }
  found->second.freeing = true;
  submit(*stream, std::make_unique<Free>(pointer), lock);
  return cudaSuccess;
}
cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  SIMT_ENTER();
  if (!runtime().pools_supported) return note(cudaErrorNotSupported);
  if (!pool || !properties || properties->allocType != cudaMemAllocationTypePinned ||
      properties->location.type != cudaMemLocationTypeDevice) {
    return note(cudaErrorInvalidValue);
  }
  if (!valid(properties->location.id)) return note(cudaErrorInvalidDevice);
  Lock lock(runtime().mutex);
  *pool = new CUmemPoolHandle_st{properties->location.id, false};
  runtime().pools.insert(*pool);
  return cudaSuccess;
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  SIMT_ENTER();
  Lock lock(runtime().mutex);
  if (!runtime().pools.count(pool) || pool->is_default) return note(cudaErrorInvalidValue);
  if (pool->used) {
    // CUDA destroys it once its memory is freed; whoever keeps memory of it has lost the pool's
    // handle.
    if (const cudaError_t error = wait_for_device(*runtime().devices[size_t(pool->device)], lock))
      return note(error);
    if (pool->used)
      simt::fail(nullptr, 0, "a memory pool is destroyed with %zu bytes in use", pool->used);
  }
  trim(*pool, 0);
  runtime().pools.erase(pool);
  delete pool;
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  SIMT_ENTER();
  Lock lock(runtime().mutex);
  if (!runtime().pools.count(pool) || !value || attribute != cudaMemPoolAttrReleaseThreshold)
    return note(cudaErrorInvalidValue);
  pool->threshold = *static_cast<uint64_t*>(value);
  return cudaSuccess;
}
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  SIMT_ENTER();
  Lock lock(runtime().mutex);
  if (!runtime().pools.count(pool) || !value || attribute != cudaMemPoolAttrUsedMemCurrent)
    return note(cudaErrorInvalidValue);
  *static_cast<uint64_t*>(value) = pool->used;
  return cudaSuccess;
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t keep) {
  SIMT_ENTER();
  Lock lock(runtime().mutex);
  if (!runtime().pools.count(pool)) return note(cudaErrorInvalidValue);
  trim(*pool, keep);
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  SIMT_ENTER(current_device);
  return note(copy(to, bytes, from, bytes, bytes, 1, kind, nullptr, true));
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  SIMT_ENTER_STREAM(stream);
  return note(copy(to, bytes, from, bytes, bytes, 1, kind, stream, false));
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream) {
  SIMT_ENTER_STREAM(stream);
  return note(copy(to, to_pitch, from, from_pitch, width, height, kind, stream, false));
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  SIMT_ENTER(current_device);
  return note(fill(to, bytes, value, bytes, 1, nullptr));
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  SIMT_ENTER_STREAM(stream);
  return note(fill(to, bytes, value, bytes, 1, stream));
}
cudaError_t cudaMemset2DAsync(void* to, size_t pitch, int value, size_t width, size_t height,
                              cudaStream_t stream) {
  SIMT_ENTER_STREAM(stream);
  return note(fill(to, pitch, value, width, height, stream));
}

// --- Streams and events

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  SIMT_ENTER(current_device);
  if (!stream || flags > cudaStreamNonBlocking) return note(cudaErrorInvalidValue);
  Lock lock(runtime().mutex);
  Device& device = *runtime().devices[size_t(current_device)];
  *stream = new CUstream_st;
  (*stream)->device = &device;
  (*stream)->blocking = flags == cudaStreamDefault;
  device.streams.push_back(*stream);
  runtime().streams.insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  SIMT_ENTER();
  Lock lock(runtime().mutex);
  if (!runtime().streams.erase(stream)) return note(cudaErrorInvalidResourceHandle);
  if (stream->queue.empty()) {
    auto& streams = stream->device->streams;
    streams.erase(std::find(streams.begin(), streams.end(), stream));
    delete stream;
  } else {
    stream->destroyed = true;  // the device's thread deletes it after its work
  }
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  SIMT_ENTER_STREAM(handle);
  Lock lock(runtime().mutex);
  CUstream_st* const stream = resolve(handle);
  if (!stream) return note(cudaErrorInvalidResourceHandle);
  return note(wait_for_stream(*stream, lock));
}
cudaError_t cudaStreamQuery(cudaStream_t handle) {
  SIMT_ENTER_STREAM(handle);
  Lock lock(runtime().mutex);
  CUstream_st* const stream = resolve(handle);
  if (!stream) return note(cudaErrorInvalidResourceHandle);
  if (!stream->queue.empty()) return note(cudaErrorNotReady);
  acquire(&stream->order);
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  SIMT_ENTER();
  if (!status) return note(cudaErrorInvalidValue);
  Lock lock(runtime().mutex);
  const CUstream_st* const stream = resolve(handle);
  if (!stream) return note(cudaErrorInvalidResourceHandle);
  *status = stream->capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaStreamGetDevice(cudaStream_t handle, int* device) {
  SIMT_ENTER();
  if (!device) return note(cudaErrorInvalidValue);
  Lock lock(runtime().mutex);
  const CUstream_st* const stream = resolve(handle);
  if (!stream) return note(cudaErrorInvalidResourceHandle);
  *device = stream->device->index;
  return cudaSuccess;
}

namespace {

struct RecordEvent : Operation {
  std::shared_ptr<Record> record;
  explicit RecordEvent(std::shared_ptr<Record> record) : record(std::move(record)) {
    despite_errors = true;
  }
  cudaError_t run(cudaError_t) override {
    release(record.get());
    return cudaSuccess;
  }
  void end() override {
    record->ended = true;
    record->time = Clock::now();
  }
};
struct WaitEvent : Operation {
  std::shared_ptr<Record> record;
  explicit WaitEvent(std::shared_ptr<Record> record) : record(std::move(record)) {
    despite_errors = true;
  }
  bool ready() const override { return record->ended; }
  cudaError_t run(cudaError_t) override {
    acquire(record.get());
    return cudaSuccess;
  }
};
struct Call : Operation {
  cudaStream_t stream;
  cudaStreamCallback_t callback = nullptr;
  cudaHostFn_t function = nullptr;
  void* data;
  cudaError_t run(cudaError_t status) override {
    in_callback.store(true, std::memory_order_relaxed);
    if (callback) callback(stream, status, data);
    else function(data);
    in_callback.store(false, std::memory_order_relaxed);
    return cudaSuccess;
  }
};
struct Kernel : Operation {
  simt::Launch launch;
  std::unique_ptr<simt::Body> body;
  cudaError_t begin() override { return injected("kernel"); }
  cudaError_t run(cudaError_t) override {
    simt::run(*machine, launch);
    return cudaSuccess;
  }
  void end() override { ++runtime().kernels; }
};

}  // namespace

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  SIMT_ENTER(current_device);
  if (!event || flags > (cudaEventBlockingSync | cudaEventDisableTiming))
    return note(cudaErrorInvalidValue);
  Lock lock(runtime().mutex);
  *event = new CUevent_st{current_device, !(flags & cudaEventDisableTiming), nullptr};
  runtime().events.insert(*event);
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  SIMT_ENTER();
  Lock lock(runtime().mutex);
  if (!runtime().events.erase(event)) return note(cudaErrorInvalidResourceHandle);
  delete event;  // work that waits for it keeps its record
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  SIMT_ENTER_STREAM(handle);
  Lock lock(runtime().mutex);
  CUstream_st* const stream = resolve(handle);
  if (!stream || !runtime().events.count(event) || event->device != stream->device->index)
    return note(cudaErrorInvalidResourceHandle);
  event->record = std::make_shared<Record>();
  submit(*stream, std::make_unique<RecordEvent>(event->record), lock);
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  SIMT_ENTER();
  Lock lock(runtime().mutex);
  if (!runtime().events.count(event)) return note(cudaErrorInvalidResourceHandle);
  if (const cudaError_t failed = runtime().devices[size_t(event->device)]->failed)
    return note(failed);
  if (event->record && !event->record->ended) return note(cudaErrorNotReady);
  if (event->record) acquire(event->record.get());
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  SIMT_ENTER();
  Runtime& r = runtime();
  Lock lock(r.mutex);
  if (!r.events.count(event)) return note(cudaErrorInvalidResourceHandle);
  const Device& device = *r.devices[size_t(event->device)];
  const std::shared_ptr<Record> record = event->record;
  if (record) {
    r.progress.wait(lock, [&] { return r.stopping || record->ended; });
    if (r.stopping) return note(cudaErrorCudartUnloading);
    acquire(record.get());
  }
  return note(device.failed);
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  SIMT_ENTER();
  Lock lock(runtime().mutex);
  const auto& events = runtime().events;
  if (!milliseconds) return note(cudaErrorInvalidValue);
  if (!events.count(from) || !events.count(to) || !from->timing || !to->timing || !from->record ||
      !to->record || from->device != to->device) {
    return note(cudaErrorInvalidResourceHandle);
  }
  if (!from->record->ended || !to->record->ended) return note(cudaErrorNotReady);
  *milliseconds =
      std::chrono::duration<float, std::milli>(to->record->time - from->record->time).count();
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  SIMT_ENTER_STREAM(handle);
  Lock lock(runtime().mutex);
  CUstream_st* const stream = resolve(handle);
  if (!stream || !runtime().events.count(event)) return note(cudaErrorInvalidResourceHandle);
  if (event->record) submit(*stream, std::make_unique<WaitEvent>(event->record), lock);
  return cudaSuccess;
}

cudaError_t cudaStreamAddCallback(cudaStream_t handle, cudaStreamCallback_t callback, void* data,
                                  unsigned flags) {
  // Not refused for an error of the device: the callback is how the caller hears of it.
  SIMT_ENTER();
  if (!callback || flags != 0) return note(cudaErrorInvalidValue);
  Lock lock(runtime().mutex);
  CUstream_st* const stream = resolve(handle);
  if (!stream) return note(cudaErrorInvalidResourceHandle);
  auto call = std::make_unique<Call>();
  call->stream = handle;
  call->callback = callback;
  call->data = data;
  call->despite_errors = true;
  submit(*stream, std::move(call), lock);
  return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void* data) {
  SIMT_ENTER_STREAM(handle);
  if (!function) return note(cudaErrorInvalidValue);
  Lock lock(runtime().mutex);
  CUstream_st* const stream = resolve(handle);
  if (!stream) return note(cudaErrorInvalidResourceHandle);
  auto call = std::make_unique<Call>();
  call->stream = handle;
  call->function = function;
  call->data = data;
  submit(*stream, std::move(call), lock);
  return cudaSuccess;
}

// --- Kernels

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  SIMT_ENTER(current_device);
  if (!kernel) return note(cudaErrorInvalidDeviceFunction);
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout)
    return value >= -1 && value <= 100 ? cudaSuccess : note(cudaErrorInvalidValue);
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
      size_t(value) > simt::max_shared_memory)
    return note(cudaErrorInvalidValue);
  Lock lock(runtime().mutex);
  runtime().devices[size_t(current_device)]->dynamic_shared_limits[kernel] = value;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* kernel,
                                                          int block_size,
                                                          size_t dynamic_shared_bytes) {
  SIMT_ENTER(current_device);
  if (!blocks || block_size <= 0) return note(cudaErrorInvalidValue);
  if (!kernel) return note(cudaErrorInvalidDeviceFunction);
  *blocks = block_size > int(simt::max_threads_per_block)
                ? 0
                : int(simt::blocks_per_multiprocessor(unsigned(block_size), dynamic_shared_bytes));
  *blocks = int(number("SIMT_OCCUPANCY", *blocks));
  return cudaSuccess;
}

namespace {
/// Blocks that the current device, or what it is a part of, runs at a time.
uint64_t blocks_at_once(const dim3& block, size_t shared_bytes) {
  const Runtime& r = runtime();
  const unsigned multiprocessors =
      r.partition > 0 ? unsigned(r.partition)
                      : unsigned(r.devices[size_t(current_device)]->multiprocessors);
  return uint64_t(multiprocessors) *
         simt::blocks_per_multiprocessor(block.x * block.y * block.z, shared_bytes);
}
}  // namespace

cudaError_t simt::may_launch_together(dim3 grid, dim3 block, size_t shared_bytes) {
  if (const cudaError_t error = enter("cudaLaunchCooperativeKernel", current_device))
    return note(error);
  if (!runtime().cooperative) return note(cudaErrorNotSupported);
  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  return blocks <= blocks_at_once(block, shared_bytes) ? cudaSuccess
                                                       : note(cudaErrorCooperativeLaunchTooLarge);
}

cudaError_t simt::clusters_at_once(unsigned cluster, dim3 block, size_t shared_bytes,
                                   int* clusters) {
  if (const cudaError_t error = enter("cudaOccupancyMaxActiveClusters", current_device))
    return note(error);
  if (cluster == 0 || cluster > 16) return note(cudaErrorInvalidClusterSize);
  *clusters = cluster > unsigned(runtime().largest_cluster)
                  ? 0
                  : int(blocks_at_once(block, shared_bytes) / cluster);
  return cudaSuccess;
}

cudaError_t simt::may_launch_clusters(dim3 grid, unsigned cluster, dim3 block,
                                      size_t shared_bytes) {
  if (const cudaError_t error = enter("cudaLaunchKernelExC", current_device)) return note(error);
  const bool fits = cluster > 0 && cluster <= unsigned(runtime().largest_cluster) &&
                    cluster <= blocks_at_once(block, shared_bytes);
  return fits && grid.x % cluster == 0 ? cudaSuccess : note(cudaErrorInvalidClusterSize);
}

cudaError_t simt::launch(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes,
                         cudaStream_t handle, Body* body, unsigned cluster) {
  std::unique_ptr<Body> owned(body);
  if (const cudaError_t error = enter("cudaLaunchKernel", device_of(handle))) return note(error);
  const uint64_t threads = uint64_t(block.x) * block.y * block.z;
  if (threads == 0 || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu ||
      grid.y > 65535 || grid.z > 65535 || block.z > 64) {
    return note(cudaErrorInvalidConfiguration);
  }
  if (threads > max_threads_per_block) {
    fail(nullptr, 0, "a launch of blocks of %llu threads; %u is the most",
         (unsigned long long)threads, max_threads_per_block);
  }
  if (shared_bytes > max_shared_memory)
    fail(nullptr, 0, "a launch with %zu bytes of shared memory; %zu is the most", shared_bytes,
         max_shared_memory);
  const Schedule order = schedule();
  Lock lock(runtime().mutex);
  CUstream_st* const stream = resolve(handle);
  if (!stream || stream->device->index != current_device)
    return note(cudaErrorInvalidResourceHandle);
  if (shared_bytes > max_static_shared_memory) {
    const auto& limits = stream->device->dynamic_shared_limits;
    const auto limit = limits.find(kernel);
    if (limit == limits.end() || size_t(limit->second) < shared_bytes) {
      fail(nullptr, 0,
           "a launch with %zu bytes of shared memory, more than %zu, without cudaFuncSetAttribute "
           "on this device",
           shared_bytes, max_static_shared_memory);
    }
  }
  auto operation = std::make_unique<Kernel>();
  operation->launch = {kernel, grid, block, shared_bytes, order, body, cluster};
  operation->body = std::move(owned);
  submit(*stream, std::move(operation), lock);
  return cudaSuccess;
}

// --- The driver

namespace {
CUresult get_address_range(CUdeviceptr* base, size_t* bytes, CUdeviceptr pointer) {
  if (unloading || in_callback.load(std::memory_order_relaxed) || runtime().devices.empty())
    return CUDA_ERROR_INVALID_VALUE;
  Lock lock(runtime().mutex);
  const auto* const found = find(reinterpret_cast<const void*>(uintptr_t(pointer)));
  if (!found || found->second.kind != Allocation::device || found->second.freeing)
    return CUDA_ERROR_NOT_FOUND;
  if (base) *base = found->first;
  if (bytes) *bytes = found->second.bytes;
  return CUDA_SUCCESS;
}
CUresult retain_allocation_handle(CUmemGenericAllocationHandle* handle, void* pointer) {
  if (unloading || runtime().devices.empty()) return CUDA_ERROR_INVALID_VALUE;
  Lock lock(runtime().mutex);
  const auto* const found = find(pointer);
  if (!found || !found->second.mapped) return CUDA_ERROR_INVALID_VALUE;
  *handle = ++runtime().mapping_handles;
  return CUDA_SUCCESS;
}
CUresult release_allocation_handle(CUmemGenericAllocationHandle) {
  Lock lock(runtime().mutex);
  --runtime().mapping_handles;
  return CUDA_SUCCESS;
}
}  // namespace

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult* status) {
  SIMT_ENTER();
  if (!symbol || !function) return note(cudaErrorInvalidValue);
  const std::string name = symbol;
  *function = name == "cuMemGetAddressRange" || name == "cuMemGetAddressRange_v2"
                  ? reinterpret_cast<void*>(get_address_range)
              : name == "cuMemRetainAllocationHandle"
                  ? reinterpret_cast<void*>(retain_allocation_handle)
              : name == "cuMemRelease" ? reinterpret_cast<void*>(release_allocation_handle)
                                       : nullptr;
  const bool known = *function != nullptr;
  if (status) *status = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return known || status ? cudaSuccess : note(cudaErrorSymbolNotFound);
}

// --- Libraries over the runtime

namespace {

/// What a library does on a device.
struct External : Operation {
  cudaError_t (*work)(const void* data);
  void* data;
  void (*release)(void* data);
  ~External() override { release(data); }
  cudaError_t run(cudaError_t) override { return work(data); }
};

cudaError_t enqueue_external(cudaStream_t handle, cudaError_t (*work)(const void* data), void* data,
                             void (*release)(void* data)) {
  auto operation = std::make_unique<External>();
  operation->work = work;
  operation->data = data;
  operation->release = release;
  if (const cudaError_t error = enter("cudaLaunchKernel", device_of(handle))) return error;
  Lock lock(runtime().mutex);
  CUstream_st* const stream = resolve(handle);
  if (!stream || stream->device->index != current_device) return cudaErrorInvalidResourceHandle;
  submit(*stream, std::move(operation), lock);
  return cudaSuccess;
}

bool on_current_device(const void* pointer, size_t bytes) {
  Lock lock(runtime().mutex);
  const auto* const found = find(pointer);
  return found && found->second.kind == Allocation::device && !found->second.freeing &&
         found->second.device_index == current_device &&
         reinterpret_cast<uintptr_t>(pointer) + bytes <= found->first + found->second.bytes;
}

}  // namespace

void* simt::load_library(const char* path) {
  static const Access access{enqueue_external, on_current_device,
                             [](const char* name) { return int(injected(name)); }};
  void* const library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) return nullptr;
  if (const auto attach = reinterpret_cast<void (*)(const Access*)>(dlsym(library, "simt_attach")))
    attach(&access);
  return library;
}

// --- What tests ask

void simt::map_in_pieces(void* pointer, size_t piece) {
  Lock lock(runtime().mutex);
  const uintptr_t begin = reinterpret_cast<uintptr_t>(pointer);
  const Allocation whole = runtime().allocations.at(begin);
  for (size_t at = 0; at < whole.bytes; at += piece) {
    Allocation part = whole;
    part.bytes = std::min(piece, whole.bytes - at);
    part.mapped = true;
    runtime().allocations[begin + at] = part;
  }
}
void simt::map_in_one(void* pointer) {
  Lock lock(runtime().mutex);
  auto& allocations = runtime().allocations;
  const auto first = allocations.find(reinterpret_cast<uintptr_t>(pointer));
  first->second.mapped = false;
  for (auto next = std::next(first); next != allocations.end() && next->second.mapped &&
                                     next->first == first->first + first->second.bytes;) {
    first->second.bytes += next->second.bytes;
    next = allocations.erase(next);
  }
}
void simt::unmark_mapped(void* pointer) {
  Lock lock(runtime().mutex);
  runtime().allocations.at(reinterpret_cast<uintptr_t>(pointer)).mapped = false;
}
size_t simt::live_mapping_handles() { return runtime().mapping_handles; }
void simt::set_capturing(cudaStream_t stream, bool capturing) {
  Lock lock(runtime().mutex);
  resolve(stream)->capturing = capturing;
}

size_t simt::live_allocations() {
  if (unloading) return 0;
  Runtime& r = runtime();
  Lock lock(r.mutex);
  for (auto& device : r.devices) wait_for_device(*device, lock);
  return size_t(std::count_if(r.allocations.begin(), r.allocations.end(), [](const auto& entry) {
    return entry.second.kind == Allocation::device;
  }));
}

uint64_t simt::kernels_run() { return unloading ? 0 : runtime().kernels.load(); }
