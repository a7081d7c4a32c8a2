// Devices, streams and events.
#include "runtime.h"
#include "driver.h"

#include <memory>

namespace diralign::cuda {

namespace {

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
