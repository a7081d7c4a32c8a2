// Tests that the emulation finds bugs. Every kernel here comes in two versions: a right one, which
// must run clean in every order, and one with a bug planted, which must be found.
//
//   simt_test               all of them; exit status 0 when all is as it should be
//   simt_test NAME ...      those whose name contains one of the arguments
//   simt_test bug NAME      runs one bug in this process: what the first does, in processes of
//   their own
//
// What finds a bug depends on the build: AddressSanitizer, ThreadSanitizer,
// UndefinedBehaviorSanitizer, a wrong result, or the emulation itself.
#include "simt.h"
#include "cluster_bugs.h"
#include <sys/resource.h>
#include <sys/wait.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

constexpr int threads = 64;
#define CHECKED(call)                                                                     \
  do {                                                                                    \
    if (const cudaError_t error = (call)) {                                               \
      std::printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorName(error)); \
      std::exit(3);                                                                       \
    }                                                                                     \
  } while (0)

/// Device memory for one test.
template <class T>
struct Buffer {
  T* data;
  size_t count;
  explicit Buffer(size_t count) : count(count) { CHECKED(cudaMalloc(&data, count * sizeof(T))); }
  explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) {
    CHECKED(cudaMemcpy(data, values.data(), count * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~Buffer() { CHECKED(cudaFree(data)); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  std::vector<T> host() const {
    std::vector<T> values(count);
    CHECKED(cudaMemcpy(values.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }
};

std::vector<float> ramp(size_t n) {
  std::vector<float> values(n);
  for (size_t i = 0; i < n; ++i) values[i] = float(i + 1);
  return values;
}
template <class T>
bool all_are(const std::vector<T>& values, T expected) {
  for (const T& value : values) {
    if (!(value == expected)) return false;
  }
  return true;
}

using Threads = float[threads];

// --- Barriers

template <bool broken>
__global__ void read_after_write(float* out) {
  CUDA_SHARED(Threads, shared);
  const int t = int(threadIdx.x);
  shared[t] = float(t);
  if constexpr (!broken) __syncthreads();
  out[t] = shared[(t + 1) % threads] - float((t + 1) % threads);
}

template <bool broken>
__global__ void write_after_read(float* out) {
  CUDA_SHARED(Threads, shared);
  const int t = int(threadIdx.x);
  shared[t] = float(t);
  __syncthreads();
  const int next = t + 1 < threads ? t + 1 : t;  // the next thread overwrites what this one reads
  out[t] = shared[next] - float(next);
  if constexpr (!broken) __syncthreads();
  shared[t] = -1;
}

template <bool broken>
__global__ void within_warp(float* out) {
  CUDA_SHARED(Threads, shared);
  const int t = int(threadIdx.x), other = t ^ 1;
  shared[t] = float(t);
  if constexpr (!broken) __syncwarp();
  out[t] = shared[other] - float(other);
}

template <bool broken>
__global__ void shuffle_is_no_fence(float* out) {
  CUDA_SHARED(Threads, shared);
  const int t = int(threadIdx.x), other = t ^ 1;
  shared[t] = float(t);
  if constexpr (!broken) __syncwarp();
  const float shuffled = __shfl_xor_sync(~0u, float(t), 1);
  out[t] = shared[other] - shuffled;
}

template <bool broken>
__global__ void divergent_barrier(float* out) {
  const int t = int(threadIdx.x);
  if constexpr (broken) {
    if (t < 32) __syncthreads();
    else __syncthreads();
  } else {
    __syncthreads();
  }
  out[t] = 0;
}

template <bool broken>
__global__ void barrier_against_collective(float* out) {
  const int t = int(threadIdx.x);
  if (broken && t % 2) __syncthreads();
  __syncwarp();
  if (!(broken && t % 2)) __syncthreads();
  out[t] = 0;
}

template <auto kernel>
bool zeros() {
  Buffer<float> out(threads);
  CHECKED(simt::launch(kernel, 1, threads, 0, nullptr, out.data));
  return all_are(out.host(), 0.0f);
}

// --- Bounds and alignment

template <bool broken>
__global__ void read_past_the_end(const float* in, int n, float* out) {
  const int t = int(threadIdx.x);
  if (broken ? t <= n : t < n) out[t] = in[t] - float(t + 1);
}
template <bool broken>
bool run_read_past_the_end() {
  Buffer<float> in(ramp(threads - 1)), out(threads);
  CHECKED(cudaMemset(out.data, 0, sizeof(Threads)));
  CHECKED(simt::launch(read_past_the_end<broken>, 1, threads, 0, nullptr, in.data, threads - 1,
                       out.data));
  return all_are(out.host(), 0.0f);
}

template <bool broken>
__global__ void write_past_the_end(float* out) {
  out[threadIdx.x + (broken ? 1 : 0)] = 0;
}

template <bool broken>
__global__ void past_static_shared(float* out) {
  CUDA_SHARED(Threads, shared);
  const int t = int(threadIdx.x);
  volatile int i = t + (broken ? 1 : 0);
  shared[i] = 0;
  __syncthreads();
  out[t] = shared[t];
}

template <bool broken>
__global__ void past_dynamic_shared(float* out) {
  CUDA_DYNAMIC_SHARED(float, shared);
  const int t = int(threadIdx.x);
  shared[t + (broken ? 1 : 0)] = 0;
  __syncthreads();
  out[t] = 0;
}
template <bool broken>
bool run_past_dynamic_shared() {
  Buffer<float> out(threads);
  CHECKED(
      simt::launch(past_dynamic_shared<broken>, 1, threads, sizeof(Threads), nullptr, out.data));
  return all_are(out.host(), 0.0f);
}

template <bool broken, bool streaming>
__global__ void misaligned(const float* in, float* out) {
  const float4* const vector = reinterpret_cast<const float4*>(in + (broken ? 1 : 0));
  *out = (streaming ? __ldcs(vector).x : vector->x) * 0;
}
template <bool broken, bool streaming>
bool run_misaligned() {
  Buffer<float> in(ramp(8)), out(1);
  CHECKED(simt::launch(misaligned<broken, streaming>, 1, 1, 0, nullptr, in.data, out.data));
  return all_are(out.host(), 0.0f);
}

// --- Copies that end later

template <bool broken>
__global__ void async_without_wait(const float* in, float* out) {
  using Vectors = float4[threads];
  CUDA_SHARED(Vectors, shared);
  const int t = int(threadIdx.x);
  simt::copy_async16(&shared[t], in + 4 * t);
  simt::copy_async_commit();
  if constexpr (!broken) simt::copy_async_wait<0>();
  out[t] = shared[t].w - float(4 * t + 4);
}

template <bool broken>
__global__ void async_without_barrier(const float* in, float* out) {
  using Vectors = float4[threads];
  CUDA_SHARED(Vectors, shared);
  const int t = int(threadIdx.x), next = (t + 1) % threads;
  simt::copy_async16(&shared[t], in + 4 * t);
  simt::copy_async_commit();
  simt::copy_async_wait<0>();
  if constexpr (!broken) __syncthreads();
  out[t] = shared[next].w - float(4 * next + 4);
}

/// Two groups under way; the first is awaited, or by mistake only that there are no more than two.
template <bool broken>
__global__ void async_wait_for_too_few(const float* in, float* out) {
  using Vectors = float4[2][threads];
  CUDA_SHARED(Vectors, shared);
  const int t = int(threadIdx.x);
  for (int k = 0; k < 2; ++k) {
    simt::copy_async16(&shared[k][t], in + 4 * t);
    simt::copy_async_commit();
  }
  simt::copy_async_wait<broken ? 2 : 1>();
  float difference = shared[0][t].x - float(4 * t + 1);
  simt::copy_async_wait<0>();
  difference += shared[1][t].x - float(4 * t + 1);
  out[t] = difference;
}

enum BulkBug {
  none,
  read_before_wait,
  nobody_waits,
  buffer_in_use,
  not_initialised,
  too_many_arrivals
};
template <BulkBug bug>
__global__ void bulk(const float* in, float* out) {
  CUDA_SHARED(Threads, shared);
  CUDA_SHARED(simt::Mbarrier, arrived);
  const int t = int(threadIdx.x);
  if (t == 0 && bug != not_initialised) simt::mbarrier_init(&arrived, 1);
  __syncthreads();
  const auto issue = [&](unsigned k) {
    simt::mbarrier_arrive_expect_tx(&arrived, sizeof(Threads));
    if (bug == too_many_arrivals) simt::mbarrier_arrive(&arrived);
    simt::bulk_copy_to_shared(shared, in + k * threads, sizeof(Threads), &arrived);
  };
  float difference = 0;
  for (unsigned k = 0; k < 2; ++k) {
    if (t == 0 && (bug != buffer_in_use || k == 0)) issue(k);
    if (bug != nobody_waits && bug != read_before_wait) simt::mbarrier_wait(&arrived, k & 1);
    if (bug == buffer_in_use) {
      __syncthreads();
      if (t == 0 && k == 0) issue(1);
    }
    difference += shared[t] - float(int(k) * threads + t + 1);
    if (bug == read_before_wait) simt::mbarrier_wait(&arrived, k & 1);
    if (bug == nobody_waits) break;
    __syncthreads();
  }
  out[t] = difference;
}

template <bool broken>
__global__ void bulk_store(float* out) {
  CUDA_SHARED(Threads, shared);
  const int t = int(threadIdx.x);
  shared[t] = 0;
  __syncthreads();
  if (t == 0) {
    simt::bulk_copy_to_global(out, shared, sizeof(Threads));
    simt::bulk_commit();
    if constexpr (!broken) simt::bulk_wait_read(0);
  }
}

template <auto kernel>
bool zeros_from_ramp() {
  Buffer<float> in(ramp(8 * threads)), out(threads);
  CHECKED(simt::launch(kernel, 1, threads, 0, nullptr, in.data, out.data));
  return all_are(out.host(), 0.0f);
}

// --- Warp collectives

enum LaneBug {
  fine,
  caller_not_in_mask,
  reads_outside_mask,
  names_an_ended_lane,
  different_collectives
};
template <LaneBug bug>
__global__ void lanes(float* out) {
  const unsigned lane = threadIdx.x % 32;
  if (bug == names_an_ended_lane && lane == 31) return;
  float v = 1;
  if (bug == caller_not_in_mask) {
    v = __shfl_sync(0xffffu, v, 0);
  } else if (bug == reads_outside_mask) {
    if (lane < 16) v = __shfl_sync(0xffffu, v, 16);
  } else if (bug == different_collectives) {
    if (lane < 16) v = __shfl_sync(~0u, v, 0);
    else __syncwarp();
  } else {
    v = __shfl_xor_sync(~0u, v, 16);
  }
  out[threadIdx.x] = v - 1;
}
template <bool broken>
bool run_lanes_that_do_not_exist() {
  Buffer<float> out(threads);
  CHECKED(cudaMemset(out.data, 0, sizeof(Threads)));
  CHECKED(simt::launch(lanes<fine>, 1, broken ? 48 : 64, 0, nullptr, out.data));
  return all_are(out.host(), 0.0f);
}

// --- Between blocks

enum BlockBug { ordered, no_release_acquire, no_barrier_before, no_barrier_after };
/// Block 0 writes, all others wait for it and read.
template <BlockBug bug>
__global__ void publish(float* data, unsigned* count, float* out) {
  const int t = int(threadIdx.x);
  if (blockIdx.x == 0) {
    data[t] = float(t);
    if (bug != no_barrier_before) __syncthreads();
    if (t == 0) {
      if (bug == no_release_acquire) atomicAdd(count, 1u);
      else simt::atomic_add_acq_rel(count, 1u);
    }
    out[t] = 0;
    return;
  }
  if (t == 0) {
    if (bug == no_release_acquire) {
      while (atomicAdd(count, 0u) == 0) simt::yield();
    } else {
      while (simt::load_acquire(count) == 0) __nanosleep(20);
    }
  }
  if (bug != no_barrier_after) __syncthreads();
  else __syncwarp();
  out[blockIdx.x * threads + unsigned(t)] = data[t] - float(t);
}
template <BlockBug bug>
bool run_publish() {
  constexpr unsigned blocks = 6;
  Buffer<float> data(threads), out(blocks * threads);
  Buffer<unsigned> count(std::vector<unsigned>(1, 0));
  CHECKED(simt::launch(publish<bug>, blocks, threads, 0, nullptr, data.data, count.data, out.data));
  return all_are(out.host(), 0.0f);
}

/// Every block waits for all others, which end only if they have a place at the same time.
__global__ void wait_for_all_blocks(unsigned* count, float* out) {
  if (threadIdx.x == 0) {
    simt::atomic_add_acq_rel(count, 1u);
    while (simt::load_acquire(count) < gridDim.x) simt::yield();
  }
  __syncthreads();
  if (blockIdx.x == 0) out[threadIdx.x] = 0;
}
template <bool broken>
bool run_wait_for_all_blocks() {
  constexpr int shared_bytes = 100 << 10;  // leaves few places
  CHECKED(cudaFuncSetAttribute(wait_for_all_blocks, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               shared_bytes));
  int resident;
  CHECKED(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, wait_for_all_blocks, threads,
                                                        shared_bytes));
  cudaDeviceProp properties;
  CHECKED(cudaGetDeviceProperties(&properties, 0));
  const unsigned blocks = unsigned(resident * properties.multiProcessorCount) + (broken ? 1 : 0);
  Buffer<float> out(threads);
  Buffer<unsigned> count(std::vector<unsigned>(1, 0));
  CHECKED(simt::launch(wait_for_all_blocks, blocks, threads, shared_bytes, nullptr, count.data,
                       out.data));
  return all_are(out.host(), 0.0f);
}

template <bool broken>
__global__ void count_threads(unsigned* count) {
  if constexpr (broken) ++*count;
  else atomicAdd(count, 1u);
}
template <bool broken, unsigned blocks>
bool run_count_threads() {
  Buffer<unsigned> count(std::vector<unsigned>(1, 0));
  CHECKED(simt::launch(count_threads<broken>, blocks, broken && blocks > 1 ? 1 : threads, 0,
                       nullptr, count.data));
  return count.host()[0] == (broken && blocks > 1 ? blocks : blocks * threads);
}

// --- Clusters

template <auto kernel>
bool zeros_from_clusters() {
  constexpr unsigned blocks = 5 * cluster_size;
  Buffer<float> out(blocks * cluster_threads);
  CHECKED(
      simt::launch_clusters(kernel, blocks, cluster_size, cluster_threads, 0, nullptr, out.data));
  return all_are(out.host(), 0.0f);
}

// --- Launches

template <bool broken>
bool run_too_many_threads() {
  Buffer<float> out(1100);
  CHECKED(cudaMemset(out.data, 0, 1100 * sizeof(float)));
  CHECKED(simt::launch(write_past_the_end<false>, 1, broken ? 1025 : 1024, 0, nullptr, out.data));
  return all_are(out.host(), 0.0f);
}
template <bool opt_in, size_t bytes>
bool run_dynamic_shared() {
  Buffer<float> out(threads);
  if (opt_in)
    CHECKED(cudaFuncSetAttribute(past_dynamic_shared<false>,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, 227 << 10));
  CHECKED(simt::launch(past_dynamic_shared<false>, 1, threads, bytes, nullptr, out.data));
  return all_are(out.host(), 0.0f);
}
template <size_t bytes>
__global__ void static_shared_of(float* out) {
  using Array = char[bytes];
  CUDA_SHARED(Array, shared);
  shared[threadIdx.x] = 0;
  out[threadIdx.x] = float(shared[threadIdx.x]);
}

// --- Streams

struct Pinned {
  float* data;
  Pinned() { CHECKED(cudaMallocHost(&data, sizeof(Threads))); }
  ~Pinned() { CHECKED(cudaFreeHost(data)); }
};
struct Stream {
  cudaStream_t handle;
  Stream() { CHECKED(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking)); }
  ~Stream() {
    CHECKED(cudaStreamSynchronize(handle));
    CHECKED(cudaStreamDestroy(handle));
  }
};

template <bool broken>
bool run_result_read_too_early() {
  Buffer<float> out(threads);
  Pinned result;
  Stream stream;
  CHECKED(simt::launch(read_after_write<false>, 1, threads, 0, stream.handle, out.data));
  CHECKED(cudaMemcpyAsync(result.data, out.data, sizeof(Threads), cudaMemcpyDeviceToHost,
                          stream.handle));
  if (!broken) CHECKED(cudaStreamSynchronize(stream.handle));
  return all_are(std::vector<float>(result.data, result.data + threads), 0.0f);
}

template <bool broken>
bool run_source_reused_too_early() {
  Buffer<float> in(threads);
  Pinned source;
  Stream stream;
  std::memset(source.data, 0, sizeof(Threads));
  CHECKED(cudaMemcpyAsync(in.data, source.data, sizeof(Threads), cudaMemcpyHostToDevice,
                          stream.handle));
  if (!broken) CHECKED(cudaStreamSynchronize(stream.handle));
  for (int t = 0; t < threads; ++t) source.data[t] = 1;
  CHECKED(cudaStreamSynchronize(stream.handle));
  return all_are(in.host(), 0.0f);
}

template <bool broken>
bool run_streams_without_event() {
  Buffer<float> out(threads), copy(threads);
  Stream first, second;
  cudaEvent_t written;
  CHECKED(cudaEventCreateWithFlags(&written, cudaEventDisableTiming));
  CHECKED(simt::launch(read_after_write<false>, 1, threads, 0, first.handle, out.data));
  CHECKED(cudaEventRecord(written, first.handle));
  if (!broken) CHECKED(cudaStreamWaitEvent(second.handle, written));
  CHECKED(cudaMemcpyAsync(copy.data, out.data, sizeof(Threads), cudaMemcpyDeviceToDevice,
                          second.handle));
  CHECKED(cudaEventDestroy(written));
  CHECKED(cudaStreamSynchronize(first.handle));
  CHECKED(cudaStreamSynchronize(second.handle));
  return all_are(copy.host(), 0.0f);
}

template <bool broken>
bool run_use_after_free() {
  float* out;
  Stream stream;
  CHECKED(cudaMallocAsync(&out, sizeof(Threads), stream.handle));
  if (broken) CHECKED(cudaFreeAsync(out, stream.handle));
  CHECKED(simt::launch(read_after_write<false>, 1, threads, 0, stream.handle, out));
  if (!broken) CHECKED(cudaFreeAsync(out, stream.handle));
  CHECKED(cudaStreamSynchronize(stream.handle));
  return true;
}

// --- Failures of the device, on demand

/// With SIMT_FAIL=kernel:700:1 the second kernel fails: later, and for good, and not for the other
/// device.
bool run_failing_kernel() {
  float* out;
  struct Calls {
    cudaError_t status = cudaSuccess;
    bool function = false;
  } calls;
  CHECKED(cudaMalloc(&out, sizeof(Threads)));
  CHECKED(simt::launch(read_after_write<false>, 1, threads, 0, nullptr, out));
  CHECKED(cudaDeviceSynchronize());
  CHECKED(simt::launch(read_after_write<false>, 1, threads, 0, nullptr, out));
  CHECKED(cudaStreamAddCallback(
      nullptr,
      [](cudaStream_t, cudaError_t status, void* data) {
        static_cast<Calls*>(data)->status = status;
      },
      &calls, 0));
  cudaLaunchHostFunc(
      nullptr, [](void* data) { static_cast<Calls*>(data)->function = true; }, &calls);
  bool as_documented = cudaDeviceSynchronize() == cudaErrorIllegalAddress;
  as_documented &= calls.status == cudaErrorIllegalAddress && !calls.function;
  as_documented &= cudaMemset(out, 0, 4) == cudaErrorIllegalAddress;
  as_documented &= cudaGetLastError() == cudaErrorIllegalAddress &&
                   cudaGetLastError() == cudaErrorIllegalAddress;
  CHECKED(cudaSetDevice(1));
  as_documented &= zeros<read_after_write<false>>();
  if (as_documented) std::printf("the device failed as documented\n");
  return false;
}

// --- What is to be found, and by what

enum Build : unsigned { plain = 1, addresses = 2, races = 4, every = 7 };
#if defined(__has_feature)
#define SIMT_HAS_FEATURE(name) __has_feature(name)
#else
#define SIMT_HAS_FEATURE(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || SIMT_HAS_FEATURE(address_sanitizer)
constexpr Build build = addresses;
constexpr const char* build_name = "AddressSanitizer, UndefinedBehaviorSanitizer";
#elif defined(__SANITIZE_THREAD__) || SIMT_HAS_FEATURE(thread_sanitizer)
constexpr Build build = races;
constexpr const char* build_name = "ThreadSanitizer";
#else
constexpr Build build = plain;
constexpr const char* build_name = "no sanitizer";
#endif

constexpr const char* wrong = "wrong result";
constexpr const char* race = "ThreadSanitizer: data race";
constexpr const char* any_seed = "any of ten seeds";

struct Expectation {
  unsigned builds;
  const char* order;  // SIMT_ORDER
  const char* text;
};
struct Bug {
  const char* name;
  bool (*right)();  // null: there is nothing to compare with
  bool (*broken)();
  std::vector<Expectation> found;
  const char* environment = "";
};

const std::vector<Bug>& bugs() {
  static const std::vector<Bug> all = {
      {"missing barrier, read after write",
       zeros<read_after_write<false>>,
       zeros<read_after_write<true>>,
       {{plain | addresses, "forward", wrong},
        {plain | addresses, "3", wrong},
        {races, "forward", race}}},
      {"missing barrier, write after read",
       zeros<write_after_read<false>>,
       zeros<write_after_read<true>>,
       {{plain | addresses, "reverse", wrong},
        {plain | addresses, any_seed, wrong},
        {races, "forward", race}}},
      {"missing __syncwarp",
       zeros<within_warp<false>>,
       zeros<within_warp<true>>,
       {{plain | addresses, "forward", wrong}, {races, "forward", race}}},
      {"a shuffle taken for a fence",
       zeros<shuffle_is_no_fence<false>>,
       zeros<shuffle_is_no_fence<true>>,
       {{races, "forward", race}}},
      {"divergent barrier",
       zeros<divergent_barrier<false>>,
       zeros<divergent_barrier<true>>,
       {{every, "forward", "divergent barrier"}}},
      {"barrier against collective",
       zeros<barrier_against_collective<false>>,
       zeros<barrier_against_collective<true>>,
       {{every, "forward", "deadlock: every thread waits"},
        {every, "4", "deadlock: every thread waits"}}},

      {"read past the end",
       run_read_past_the_end<false>,
       run_read_past_the_end<true>,
       {{addresses, "forward", "heap-buffer-overflow"}}},
      {"write past the end",
       zeros<write_past_the_end<false>>,
       zeros<write_past_the_end<true>>,
       {{addresses, "forward", "heap-buffer-overflow"}}},
      {"past a shared variable",
       zeros<past_static_shared<false>>,
       zeros<past_static_shared<true>>,
       {{addresses, "forward", "simt_test.cc"}}},
      {"past dynamic shared memory",
       run_past_dynamic_shared<false>,
       run_past_dynamic_shared<true>,
       {{addresses, "forward", "heap-buffer-overflow"}}},
      {"misaligned vector",
       run_misaligned<false, false>,
       run_misaligned<true, false>,
       {{addresses, "forward", "misaligned address"}}},
      {"misaligned vector, streamed",
       run_misaligned<false, true>,
       run_misaligned<true, true>,
       {{every, "forward", "misaligned address"}}},
      {"use after free",
       run_use_after_free<false>,
       run_use_after_free<true>,
       {{addresses, "forward", "heap-use-after-free"}}},

      {"cp.async without wait",
       zeros_from_ramp<async_without_wait<false>>,
       zeros_from_ramp<async_without_wait<true>>,
       {{every, "forward", wrong}, {plain, "7", wrong}}},
      {"cp.async without barrier",
       zeros_from_ramp<async_without_barrier<false>>,
       zeros_from_ramp<async_without_barrier<true>>,
       {{plain | addresses, "forward", wrong}, {races, "forward", race}}},
      {"cp.async, wait for too few",
       zeros_from_ramp<async_wait_for_too_few<false>>,
       zeros_from_ramp<async_wait_for_too_few<true>>,
       {{every, "forward", wrong}}},
      {"bulk copy, read before the wait",
       zeros_from_ramp<bulk<none>>,
       zeros_from_ramp<bulk<read_before_wait>>,
       {{plain | addresses, "forward", wrong}, {races, "forward", race}}},
      {"bulk copy nobody waits for",
       nullptr,
       zeros_from_ramp<bulk<nobody_waits>>,
       {{every, "forward", "nobody waited"}}},
      {"bulk copy into a buffer in use",
       nullptr,
       zeros_from_ramp<bulk<buffer_in_use>>,
       {{plain | addresses, any_seed, wrong}, {races, "forward", race}, {races, "2", race}}},
      {"mbarrier not initialised",
       nullptr,
       zeros_from_ramp<bulk<not_initialised>>,
       {{every, "forward", "not initialised"}}},
      {"mbarrier with too many arrivals",
       nullptr,
       zeros_from_ramp<bulk<too_many_arrivals>>,
       {{every, "forward", "has all its 1 arrivals"}}},
      {"bulk store nobody waits for",
       zeros<bulk_store<false>>,
       zeros<bulk_store<true>>,
       {{every, "forward", "ends before a bulk copy"}}},

      {"lane not in its mask",
       zeros<lanes<fine>>,
       zeros<lanes<caller_not_in_mask>>,
       {{every, "forward", "whose mask 0000ffff leaves it out"}}},
      {"shuffle from outside the mask",
       nullptr,
       zeros<lanes<reads_outside_mask>>,
       {{every, "forward", "reads lane 16, which is outside its mask"}}},
      {"mask with a lane that ended",
       nullptr,
       zeros<lanes<names_an_ended_lane>>,
       {{every, "forward", "a lane ended that the mask"},
        {every, "reverse", "names lanes that have ended"}}},
      {"lanes at different collectives",
       nullptr,
       zeros<lanes<different_collectives>>,
       {{every, "forward", "are at different collectives"}}},
      {"mask with lanes that do not exist",
       run_lanes_that_do_not_exist<false>,
       run_lanes_that_do_not_exist<true>,
       {{every, "forward", "names lanes that do not exist: ffff0000"}}},

      {"blocks without release and acquire",
       run_publish<ordered>,
       run_publish<no_release_acquire>,
       {{races, "forward", race}, {races, "5", race}}},
      {"publication without a barrier before",
       nullptr,
       run_publish<no_barrier_before>,
       {{races, "forward", race}}},
      {"publication without a barrier after",
       nullptr,
       run_publish<no_barrier_after>,
       {{races, "forward", race}}},
      {"wait for a block that never starts",
       run_wait_for_all_blocks<false>,
       run_wait_for_all_blocks<true>,
       {{every, "forward", "deadlock: nothing but polling"},
        {every, "2", "deadlock: nothing but polling"}}},
      {"cluster, memory of a block that may not be there",
       zeros_from_clusters<pass_on<no_bug>>,
       zeros_from_clusters<pass_on<no_meeting>>,
       {{every, "forward", "before a barrier of the cluster"}}},
      {"cluster, read before the barrier",
       nullptr,
       zeros_from_clusters<pass_on<read_before_barrier>>,
       {{plain | addresses, "forward", wrong}, {races, "forward", race}}},
      {"cluster, different barriers",
       nullptr,
       zeros_from_clusters<pass_on<other_barrier>>,
       {{every, "forward", "divergent barrier: threads of the cluster"}}},
      {"cluster, a barrier without lanes that ended",
       nullptr,
       zeros_from_clusters<pass_on<lanes_ended>>,
       {{every, "forward", "lanes 00000020 have ended of a warp"}}},
      {"cluster, two arrivals",
       nullptr,
       zeros_from_clusters<pass_on<arrives_twice>>,
       {{every, "forward", "arrives again"}}},
      {"cluster, a wait without an arrival",
       nullptr,
       zeros_from_clusters<pass_on<waits_only>>,
       {{every, "forward", "has not arrived"}}},
      {"cluster, an end between arrival and wait",
       nullptr,
       zeros_from_clusters<pass_on<ends_between>>,
       {{every, "forward", "has not waited"}}},
      {"cluster, memory of a block that has ended",
       nullptr,
       zeros_from_clusters<pass_on<block_ended>>,
       {{every, "forward", "of a block that has ended"}}},
      {"cluster, memory of a block that ends meanwhile",
       nullptr,
       zeros_from_clusters<pass_on<ends_too_early>>,
       {{plain, "forward", wrong}, {addresses, "forward", "heap-use-after-free"}}},
      {"cluster, memory past the last block",
       nullptr,
       zeros_from_clusters<pass_on<past_the_cluster>>,
       {{every, "forward", "block 4 of a cluster of 4"}}},
      {"message, read before it is there",
       zeros_from_clusters<exchange<delivered>>,
       zeros_from_clusters<exchange<read_before_receipt>>,
       {{plain | addresses, "forward", wrong}, {races, "forward", race}}},
      {"message to a place in use",
       nullptr,
       zeros_from_clusters<exchange<place_in_use>>,
       {{plain | addresses, any_seed, wrong}, {races, any_seed, race}}},
      {"message that nobody receives",
       nullptr,
       zeros_from_clusters<exchange<nobody_receives>>,
       {{every, "forward", "nobody waited"}}},
      {"message with an mbarrier of another block",
       nullptr,
       zeros_from_clusters<exchange<box_elsewhere>>,
       {{every, "forward", "outside the shared memory of the mbarrier's block"}}},
      {"counter without atomics, one block",
       run_count_threads<false, 1>,
       run_count_threads<true, 1>,
       {{races, "forward", race}}},
      {"counter without atomics, many blocks",
       run_count_threads<false, 100>,
       run_count_threads<true, 100>,
       {{races, "forward", race}}},

      {"too many threads",
       run_too_many_threads<false>,
       run_too_many_threads<true>,
       {{every, "forward", "blocks of 1025 threads"}}},
      {"too much dynamic shared memory",
       run_dynamic_shared<true, (227 << 10)>,
       run_dynamic_shared<true, (227 << 10) + 1>,
       {{every, "forward", "232448 is the most"}}},
      {"dynamic shared memory without opting in",
       run_dynamic_shared<true, (48 << 10) + 1>,
       run_dynamic_shared<false, (48 << 10) + 1>,
       {{every, "forward", "without cudaFuncSetAttribute"}}},
      {"too much static shared memory",
       zeros<static_shared_of<(48 << 10)>>,
       zeros<static_shared_of<(48 << 10) + 1>>,
       {{every, "forward", "too much shared memory"}}},

      {"result read too early",
       run_result_read_too_early<false>,
       run_result_read_too_early<true>,
       {{plain | addresses, "forward", wrong}, {races, "forward", race}},
       "SIMT_DELAY=20000"},
      {"source reused too early",
       run_source_reused_too_early<false>,
       run_source_reused_too_early<true>,
       {{plain | addresses, "forward", wrong}, {races, "forward", race}},
       "SIMT_DELAY=20000"},
      {"a kernel that fails",
       nullptr,
       run_failing_kernel,
       {{every, "forward", "the device failed as documented"}},
       "SIMT_FAIL=kernel:700:1"},
      {"no device",
       nullptr,
       zeros<read_after_write<false>>,
       {{every, "forward", "cudaErrorNoDevice"}},
       "SIMT_DEVICES=0"},
      {"an old driver",
       nullptr,
       zeros<read_after_write<false>>,
       {{every, "forward", "cudaErrorInsufficientDriver"}},
       "SIMT_DRIVER=12040"},
      {"too little memory",
       nullptr,
       zeros<read_after_write<false>>,
       {{every, "forward", "cudaErrorMemoryAllocation"}},
       "SIMT_MEMORY=100"},
      {"streams without an event",
       run_streams_without_event<false>,
       run_streams_without_event<true>,
       {{races, "forward", race}}},
  };
  return all;
}

int run_bug(const char* name) {
  for (const Bug& bug : bugs()) {
    if (std::strcmp(bug.name, name) != 0) continue;
    const rlimit no_core{0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    if (!bug.broken()) {
      std::printf("%s\n", wrong);
      return 1;
    }
    std::printf("nothing found\n");
    return 0;
  }
  std::fprintf(stderr, "no bug of this name: %s\n", name);
  return 2;
}

/// Runs the bug in a process of its own; whether it was found.
bool found(const char* program, const Bug& bug, const char* order, const char* text,
           std::string& output) {
  // ThreadSanitizer would sleep for a second before it exits.
  const std::string environment = std::string("TSAN_OPTIONS=\"$TSAN_OPTIONS atexit_sleep_ms=0\" ") +
                                  bug.environment + " SIMT_ORDER=" + order;
  const std::string command =
      "env " + environment + " '" + program + "' bug '" + bug.name + "' 2>&1";
  FILE* const pipe = popen(command.c_str(), "r");
  if (!pipe) return false;
  output.clear();
  char buffer[4096];
  for (size_t n; (n = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0;) output.append(buffer, n);
  const int status = pclose(pipe);
  return status != 0 && output.find(text) != std::string::npos;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && !std::strcmp(argv[1], "bug")) return run_bug(argv[2]);
  std::printf("%s\n", build_name);
  int failures = 0, bugs_found = 0, clean_runs = 0, not_here = 0;
  for (const Bug& bug : bugs()) {
    bool wanted = argc < 2;
    for (int i = 1; i < argc; ++i) wanted |= std::strstr(bug.name, argv[i]) != nullptr;
    if (!wanted) continue;
    // In every order nothing must be wrong, and nothing be reported: a report by a sanitizer is the
    // process's exit status.
    for (int order = -2; bug.right && order < (build == plain ? 10 : 2); ++order) {
      simt::set_schedule(order == -2   ? simt::Schedule{simt::Schedule::forward, 0}
                         : order == -1 ? simt::Schedule{simt::Schedule::reverse, 0}
                                       : simt::Schedule{simt::Schedule::random, uint64_t(order)});
      ++clean_runs;
      if (bug.right()) continue;
      ++failures;
      std::printf("FAIL  %s: without the bug, a wrong result in order %d\n", bug.name, order);
    }
    int expected = 0;
    for (const Expectation& e : bug.found) {
      if (!(e.builds & build)) continue;
      ++expected;
      std::string output;
      bool caught = false;
      if (e.order == any_seed) {
        for (int seed = 1; seed <= 10 && !caught; ++seed)
          caught = found(argv[0], bug, std::to_string(seed).c_str(), e.text, output);
      } else {
        caught = found(argv[0], bug, e.order, e.text, output);
      }
      if (caught) {
        ++bugs_found;
        continue;
      }
      ++failures;
      std::printf("FAIL  %s: not found in order %s, expected \"%s\", got:\n%s\n", bug.name, e.order,
                  e.text, output.c_str());
    }
    not_here += expected == 0;
  }
  if (const size_t left = simt::live_allocations()) {
    ++failures;
    std::printf("FAIL  %zu device allocations were not freed\n", left);
  }
  std::printf("%d bugs found, %d clean runs, %d bugs that this build cannot find, %d failures\n",
              bugs_found, clean_runs, not_here, failures);
  if (bugs_found == 0) {
    std::printf("FAIL  nothing was tested\n");
    ++failures;
  }
  return failures != 0;
}
