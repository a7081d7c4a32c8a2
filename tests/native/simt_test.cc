// The emulation of CUDA against what CUDA documents. That it finds bugs is tested in tests/simt/.
#include "simt.h"
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <set>
#include <thread>
#include <vector>
#include "check.h"

namespace {

/// A schedule for the length of a scope.
struct InOrder {
  simt::Schedule before = simt::schedule();
  explicit InOrder(simt::Schedule schedule) { simt::set_schedule(schedule); }
  ~InOrder() { simt::set_schedule(before); }
};
constexpr simt::Schedule orders[] = {{simt::Schedule::forward, 0},
                                     {simt::Schedule::reverse, 0},
                                     {simt::Schedule::random, 1},
                                     {simt::Schedule::random, 2}};

/// An environment variable for the length of a scope.
struct Environment {
  const char* name;
  Environment(const char* name, const char* value) : name(name) { setenv(name, value, 1); }
  ~Environment() { unsetenv(name); }
};

template <class T>
struct Buffer {
  T* data = nullptr;
  size_t count;
  explicit Buffer(size_t count) : count(count) {
    CHECK(cudaMalloc(&data, count * sizeof(T)) == cudaSuccess);
  }
  Buffer(size_t count, int byte) : Buffer(count) {
    CHECK(cudaMemset(data, byte, count * sizeof(T)) == cudaSuccess);
  }
  ~Buffer() { CHECK(cudaFree(data) == cudaSuccess); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  std::vector<T> host() const {
    std::vector<T> values(count);
    CHECK(cudaMemcpy(values.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost) ==
          cudaSuccess);
    return values;
  }
};

/// Runs `body(thread of the block)` in one block.
template <class Body>
__global__ void call(Body body) {
  body(threadIdx.x);
}
template <class Body>
cudaError_t run(unsigned threads, Body body, unsigned blocks = 1) {
  if (const cudaError_t error = simt::launch(call<Body>, blocks, threads, 0, nullptr, body))
    return error;
  return cudaDeviceSynchronize();
}

}  // namespace

TEST(simt_bits) {
  CHECK(__funnelshift_r(0x89abcdefu, 0x01234567u, 8) == 0x6789abcdu &&
        __funnelshift_r(1, 2, 0) == 1 && __funnelshift_r(1, 2, 32) == 1);
  CHECK(__funnelshift_l(0x89abcdefu, 0x01234567u, 8) == 0x23456789u &&
        __funnelshift_l(1, 2, 0) == 2);
  CHECK(__byte_perm(0x33221100u, 0x77665544u, 0x5410) == 0x55441100u);
  CHECK(__byte_perm(0x33221180u, 0x77665544u, 0x7698) == 0x776600ffu, "%08x",
        __byte_perm(0x33221180u, 0x77665544u, 0x7698));
  CHECK(sizeof(float4) == 16 && alignof(float4) == 16 && alignof(uint2) == 8);
}

namespace {
__global__ void indices(uint3* seen_threads, uint3* seen_blocks) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned i = block * blockDim.x * blockDim.y * blockDim.z + thread;
  seen_threads[i] = threadIdx;
  seen_blocks[i] = blockIdx;
}
}  // namespace

TEST(simt_indices) {
  const dim3 grid(3, 2, 4), block(5, 3, 2);
  for (const simt::Schedule& order : orders) {
    const InOrder in_order(order);
    Buffer<uint3> threads(3 * 2 * 4 * 5 * 3 * 2), blocks(threads.count);
    CHECK(simt::launch(indices, grid, block, 0, nullptr, threads.data, blocks.data) == cudaSuccess);
    const auto t = threads.host();
    const auto b = blocks.host();
    for (unsigned i = 0; i < t.size(); ++i) {
      const unsigned thread = i % 30, at = i / 30;
      CHECK(t[i].x == thread % 5 && t[i].y == thread / 5 % 3 && t[i].z == thread / 15);
      CHECK(b[i].x == at % 3 && b[i].y == at / 3 % 2 && b[i].z == at / 6);
    }
  }
}

TEST(simt_collectives) {
  for (const simt::Schedule& order : orders) {
    const InOrder in_order(order);
    Buffer<unsigned> wrong(1, 0);
    unsigned* const count = wrong.data;
    const auto error = run(96, [count](unsigned t) {
      const unsigned lane = t % 32;
      unsigned bad = 0;
      bad += __shfl_sync(~0u, int(t), 5) != int(t - lane + 5);
      bad += __shfl_sync(~0u, int(lane), 3, 8) != int((lane & 24) + 3);
      bad += __shfl_xor_sync(~0u, double(t), 16) != double(t ^ 16);
      bad += __shfl_xor_sync(~0u, int(lane), 8, 8) !=
             int(lane & 8 ? lane ^ 8 : lane);  // an earlier segment may be read, a later one not
      bad += __shfl_down_sync(~0u, lane, 3) != (lane + 3 < 32 ? lane + 3 : lane);
      bad += __shfl_sync(~0u, 1ull << 40 | lane, 31) != (1ull << 40 | 31);
      // Two halves on their own.
      const unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
      for (unsigned k = 0; k < (lane < 16 ? 3u : 7u); ++k)
        bad += __shfl_xor_sync(half, lane, 1) != (lane ^ 1);
      atomicAdd(count, bad);
    });
    CHECK(error == cudaSuccess);
    CHECK(wrong.host()[0] == 0, "%u wrong", wrong.host()[0]);
  }
}

TEST(simt_atomics) {
  for (const simt::Schedule& order : orders) {
    const InOrder in_order(order);
    Buffer<unsigned> sum(1, 0);
    unsigned* const s = sum.data;
    CHECK(run(64, [s](unsigned) { atomicAdd(s, 1u << 20 | 3u); }, 50) == cudaSuccess);
    CHECK(sum.host()[0] == 3200u * (1u << 20 | 3u));
  }
}

namespace {
template <int which>
__global__ void shared_memory(unsigned* out) {
  using Words = unsigned[32];
  CUDA_SHARED(Words, variable);
  CUDA_DYNAMIC_SHARED(unsigned, dynamic);
  const unsigned t = threadIdx.x;
  const bool undefined = variable[t] == ~0u && dynamic[t] == ~0u;  // whatever an earlier block left
  __syncthreads();
  variable[t] = dynamic[t] = blockIdx.x * 32 + t + which;
  __syncthreads();
  // All resident blocks have written by now, or have not begun.
  const unsigned other = 31 - t;
  out[blockIdx.x * 32 + t] = undefined && variable[other] == dynamic[other] ? variable[other] : 0;
}
}  // namespace

TEST(simt_shared_memory_of_each_block) {
  for (const simt::Schedule& order : orders) {
    const InOrder in_order(order);
    Buffer<unsigned> first(100 * 32), second(100 * 32);
    CHECK(simt::launch(shared_memory<1>, 100, 32, 128, nullptr, first.data) == cudaSuccess);
    CHECK(simt::launch(shared_memory<2>, 100, 32, 256, nullptr, second.data) == cudaSuccess);
    const auto a = first.host(), b = second.host();
    for (unsigned i = 0; i < a.size(); ++i)
      CHECK(a[i] == (i & ~31u) + (31 - i % 32) + 1 && b[i] == a[i] + 1, "%u: %u %u", i, a[i], b[i]);
  }
}

namespace {
/// Blocks take tickets, add up what those before them did, and pass it on: all orders of start are
/// right.
__global__ void chain(unsigned* ticket, unsigned* sums, unsigned* ready) {
  CUDA_SHARED(unsigned, mine);
  if (threadIdx.x == 0) mine = atomicAdd(ticket, 1u);
  __syncthreads();
  if (threadIdx.x != 0) return;
  unsigned before = 0;
  if (mine > 0) {
    while (simt::load_acquire(&ready[mine - 1]) == 0) __nanosleep(10);
    before = sums[mine - 1];
  }
  sums[mine] = before + mine;
  simt::store_release(&ready[mine], 1u);
}
}  // namespace

TEST(simt_blocks_that_wait_for_earlier_ones) {
  for (const simt::Schedule& order : orders) {
    const InOrder in_order(order);
    constexpr unsigned blocks = 200;
    Buffer<unsigned> ticket(1, 0), sums(blocks), ready(blocks, 0);
    CHECK(simt::launch(chain, blocks, 64, 0, nullptr, ticket.data, sums.data, ready.data) ==
          cudaSuccess);
    const auto result = sums.host();
    for (unsigned i = 0; i < blocks; ++i) CHECK(result[i] == i * (i + 1) / 2);
  }
}

namespace {
__global__ void who_was_first(unsigned* order, unsigned* next) {
  if (threadIdx.x % 32 == 0) order[atomicAdd(next, 1u)] = blockIdx.x * 4 + threadIdx.x / 32;
}
/// Of the warps of blocks that are all resident, on a multiprocessor.
std::vector<unsigned> order_of(simt::Schedule schedule) {
  const InOrder in_order(schedule);
  Buffer<unsigned> order(32), next(1, 0);
  CHECK(simt::launch(who_was_first, 8, 128, 0, nullptr, order.data, next.data) == cudaSuccess);
  return order.host();
}
}  // namespace

TEST(simt_schedules) {
  const auto forward = order_of({simt::Schedule::forward, 0}),
             reverse = order_of({simt::Schedule::reverse, 0});
  for (unsigned i = 0; i < 32; ++i) CHECK(forward[i] == i);
  CHECK(std::is_sorted(reverse.begin(), reverse.begin() + 4, std::greater<>()) &&
        reverse[0] % 4 == 3);
  std::set<std::vector<unsigned>> different;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    const auto drawn = order_of({simt::Schedule::random, seed});
    CHECK(drawn == order_of({simt::Schedule::random, seed}), "the same seed gives another order");
    CHECK(std::set<unsigned>(drawn.begin(), drawn.end()).size() == 32);
    different.insert(drawn);
  }
  CHECK(different.size() == 8, "%zu different orders", different.size());
}

TEST(simt_copies_that_end_later) {
  for (const simt::Schedule& order : orders) {
    const InOrder in_order(order);
    Buffer<uint32_t> from(256), to(128);
    std::vector<uint32_t> values(256);
    for (unsigned i = 0; i < 256; ++i) values[i] = i;
    CHECK(cudaMemcpy(from.data, values.data(), 1024, cudaMemcpyHostToDevice) == cudaSuccess);
    const uint32_t* const in = from.data;
    uint32_t* const out = to.data;
    CHECK(run(32, [in, out](unsigned t) {
            using Words = uint32_t[128];
            CUDA_SHARED(Words, shared);
            // Partly read, the rest zero.
            simt::copy_async(&shared[4 * t], in + 4 * t, 16, t % 2 ? 16 : 8);
            simt::copy_async_wait_all();
            for (unsigned k = 0; k < 4; ++k) out[4 * t + k] = shared[4 * t + k];
          }) == cudaSuccess);
    const auto result = to.host();
    for (unsigned i = 0; i < 128; ++i) CHECK(result[i] == (i / 4 % 2 == 0 && i % 4 >= 2 ? 0 : i));

    // Two producers, an mbarrier of two arrivals, and bulk stores of what came.
    CHECK(run(64, [in, out](unsigned t) {
            using Words = uint32_t[128];
            CUDA_SHARED(Words, shared);
            CUDA_SHARED(simt::Mbarrier, full);
            if (t == 0) simt::mbarrier_init(&full, 2);
            __syncthreads();
            for (unsigned k = 0; k < 2; ++k) {
              if (t % 32 == 0) {
                const unsigned half = t / 32 * 64;
                simt::mbarrier_arrive_expect_tx(&full, 256);
                simt::bulk_copy_to_shared(shared + half, in + 128 * k + half, 256, &full);
              }
              simt::mbarrier_wait(&full, k);
              shared[t] += 1000;
              shared[t + 64] += 1000;
              __syncthreads();
            }
            if (t == 0) {
              simt::bulk_copy_to_global(out, shared, 512);
              simt::bulk_commit();
              simt::bulk_wait(0);
            }
          }) == cudaSuccess);
    const auto second = to.host();
    for (unsigned i = 0; i < 128; ++i) CHECK(second[i] == 1128 + i);
  }
}

TEST(simt_devices) {
  int count = 0, version = 0, value = 0;
  CHECK(cudaGetDeviceCount(&count) == cudaSuccess && count == 2);
  CHECK(cudaDriverGetVersion(&version) == cudaSuccess && version == 13000);
  cudaDeviceProp a, b;
  CHECK(cudaGetDeviceProperties(&a, 0) == cudaSuccess &&
        cudaGetDeviceProperties(&b, 1) == cudaSuccess);
  CHECK(std::memcmp(&a.uuid, &b.uuid, sizeof(a.uuid)) != 0);
  CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, 0) == cudaSuccess &&
        value == a.multiProcessorCount);
  CHECK(cudaSetDevice(2) == cudaErrorInvalidDevice);
  CHECK(cudaGetLastError() == cudaErrorInvalidDevice && cudaGetLastError() == cudaSuccess);
  CHECK(cudaSetDevice(1) == cudaSuccess);
  std::thread([] {
    int device = -1;
    CHECK(cudaGetDevice(&device) == cudaSuccess && device == 0);  // every thread has its own
  }).join();
  CHECK(cudaSetDevice(0) == cudaSuccess);
  CHECK(!std::strcmp(cudaGetErrorName(cudaErrorIllegalAddress), "cudaErrorIllegalAddress"));
  CHECK(!std::strcmp(cudaGetErrorString(cudaErrorMemoryAllocation), "out of memory"));
  CHECK(cudaErrorIllegalAddress == 700 && cudaErrorLaunchFailure == 719 &&
        cudaErrorInvalidResourceHandle == 400);
}

TEST(simt_memory) {
  const size_t before = simt::live_allocations();
  size_t free = 0, total = 0, free_after = 0;
  CHECK(cudaMemGetInfo(&free, &total) == cudaSuccess && free <= total);
  char* data;
  CHECK(cudaMalloc(&data, 1000) == cudaSuccess && simt::live_allocations() == before + 1);
  CHECK(cudaMemGetInfo(&free_after, &total) == cudaSuccess && free_after == free - 1000);
  char byte = 0;
  CHECK(cudaMemcpy(&byte, data + 999, 1, cudaMemcpyDeviceToHost) == cudaSuccess &&
        byte == char(0xff));

  cudaPointerAttributes attributes;
  CHECK(cudaPointerGetAttributes(&attributes, data + 10) == cudaSuccess &&
        attributes.type == cudaMemoryTypeDevice && attributes.device == 0);
  CHECK(cudaPointerGetAttributes(&attributes, &byte) == cudaSuccess &&
        attributes.type == cudaMemoryTypeUnregistered);
  void* function = nullptr;
  CHECK(cudaGetDriverEntryPointByVersion("cuMemGetAddressRange", &function, 12000,
                                         cudaEnableDefault) == cudaSuccess);
  const auto range = reinterpret_cast<CUresult (*)(CUdeviceptr*, size_t*, CUdeviceptr)>(function);
  CUdeviceptr base = 0;
  size_t bytes = 0;
  CHECK(range(&base, &bytes, reinterpret_cast<uintptr_t>(data + 500)) == CUDA_SUCCESS &&
        base == reinterpret_cast<uintptr_t>(data) && bytes == 1000);
  CHECK(range(&base, &bytes, reinterpret_cast<uintptr_t>(&byte)) != CUDA_SUCCESS);

  std::vector<char> host(1001);
  CHECK(cudaMemcpy(data, host.data(), 1001, cudaMemcpyHostToDevice) ==
        cudaErrorInvalidValue);  // past the end
  CHECK(cudaMemcpy(data, host.data(), 1000, cudaMemcpyDeviceToHost) ==
        cudaErrorInvalidValue);  // the wrong way round
  CHECK(cudaMemset(data + 1, 0, 1000) == cudaErrorInvalidValue);
  CHECK(cudaFree(data + 1) == cudaErrorInvalidValue);
  CHECK(cudaFree(data) == cudaSuccess && cudaFree(data) == cudaErrorInvalidValue &&
        cudaFree(nullptr) == cudaSuccess);
  CHECK(cudaMalloc(&data, total + 1) == cudaErrorMemoryAllocation && data == nullptr);
  CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);

  // Another device's stream does not free.
  cudaStream_t other;
  CHECK(cudaSetDevice(1) == cudaSuccess &&
        cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking) == cudaSuccess &&
        cudaSetDevice(0) == cudaSuccess);
  CHECK(cudaMallocAsync(&data, 64, nullptr) == cudaSuccess);
  CHECK(cudaFreeAsync(data, other) == cudaErrorInvalidValue);
  CHECK(cudaFreeAsync(data, nullptr) == cudaSuccess &&
        cudaFreeAsync(data, nullptr) == cudaErrorInvalidValue);
  CHECK(cudaStreamDestroy(other) == cudaSuccess &&
        cudaStreamDestroy(other) == cudaErrorInvalidResourceHandle);

  std::vector<char> page(4096);
  CHECK(cudaHostRegister(page.data(), 4096, 0) == cudaSuccess &&
        cudaHostRegister(page.data() + 100, 8, 0) == cudaErrorHostMemoryAlreadyRegistered);
  CHECK(cudaPointerGetAttributes(&attributes, page.data() + 4095) == cudaSuccess &&
        attributes.type == cudaMemoryTypeHost);
  CHECK(cudaHostUnregister(page.data()) == cudaSuccess &&
        cudaHostUnregister(page.data()) == cudaErrorHostMemoryNotRegistered);
  CHECK(simt::live_allocations() == before);
  cudaGetLastError();
}

TEST(simt_memory_pools) {
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location = {cudaMemLocationTypeDevice, 0};
  cudaMemPool_t pool;
  CHECK(cudaMemPoolCreate(&pool, &properties) == cudaSuccess);
  uint64_t value = 1 << 20;
  CHECK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &value) == cudaSuccess);
  void* data;
  CHECK(cudaMallocFromPoolAsync(&data, 4096, pool, nullptr) == cudaSuccess);
  CHECK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &value) == cudaSuccess &&
        value == 4096);
  CHECK(cudaFreeAsync(data, nullptr) == cudaSuccess &&
        cudaStreamSynchronize(nullptr) == cudaSuccess);
  CHECK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &value) == cudaSuccess &&
        value == 0);
  CHECK(cudaMemPoolTrimTo(pool, 0) == cudaSuccess && cudaMemPoolDestroy(pool) == cudaSuccess);
  CHECK(cudaMallocFromPoolAsync(&data, 4096, pool, nullptr) == cudaErrorInvalidValue);
  cudaGetLastError();
}

TEST(simt_copies) {
  Buffer<char> a(8 * 10), b(8 * 10, 0);
  std::vector<char> host(6 * 8);
  for (size_t i = 0; i < host.size(); ++i) host[i] = char(i);
  CHECK(cudaMemset2DAsync(a.data, 10, 7, 10, 8) == cudaSuccess);
  CHECK(cudaMemcpy2DAsync(a.data, 10, host.data(), 6, 6, 8, cudaMemcpyHostToDevice) == cudaSuccess);
  std::fill(host.begin(), host.end(), char(-1));  // pageable memory was read when the call returned
  CHECK(cudaMemcpyAsync(b.data, a.data, 80, cudaMemcpyDeviceToDevice) == cudaSuccess);
  const auto result = b.host();
  for (size_t i = 0; i < 80; ++i) CHECK(result[i] == (i % 10 < 6 ? char(i / 10 * 6 + i % 10) : 7));
  CHECK(cudaMemcpy2DAsync(a.data, 5, host.data(), 6, 6, 8, cudaMemcpyHostToDevice) ==
        cudaErrorInvalidPitchValue);
  CHECK(cudaMemcpyAsync(a.data, b.data, 80, cudaMemcpyDefault,
                        reinterpret_cast<cudaStream_t>(host.data())) ==
        cudaErrorInvalidResourceHandle);
  cudaGetLastError();
}

namespace {
struct Gate {
  std::atomic<bool> open{false};
  static void wait(void* gate) {
    while (!static_cast<Gate*>(gate)->open) std::this_thread::yield();
  }
};
}  // namespace

TEST(simt_streams_and_events) {
  cudaStream_t blocking, independent;
  cudaEvent_t event, timed, later;
  CHECK(cudaStreamCreate(&blocking) == cudaSuccess &&
        cudaStreamCreateWithFlags(&independent, cudaStreamNonBlocking) == cudaSuccess);
  CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
  CHECK(cudaEventCreate(&timed) == cudaSuccess && cudaEventCreate(&later) == cudaSuccess);
  CHECK(cudaEventQuery(event) == cudaSuccess &&
        cudaEventSynchronize(event) == cudaSuccess);  // never recorded
  Gate gate;
  CHECK(cudaLaunchHostFunc(blocking, Gate::wait, &gate) == cudaSuccess);
  CHECK(cudaEventRecord(event, blocking) == cudaSuccess);
  CHECK(cudaStreamQuery(blocking) == cudaErrorNotReady &&
        cudaEventQuery(event) == cudaErrorNotReady);
  CHECK(cudaEventRecord(timed, blocking) == cudaSuccess &&
        cudaEventRecord(later, blocking) == cudaSuccess);
  const auto before = std::chrono::steady_clock::now();
  float milliseconds = -1;
  CHECK(cudaEventElapsedTime(&milliseconds, timed, later) == cudaErrorNotReady);
  CHECK(cudaStreamWaitEvent(independent, event) == cudaSuccess &&
        cudaStreamQuery(independent) == cudaErrorNotReady);
  // The legacy stream waits for what was given to blocking streams before.
  CHECK(cudaEventRecord(event, nullptr) == cudaSuccess &&
        cudaStreamQuery(nullptr) == cudaErrorNotReady);
  gate.open = true;
  CHECK(cudaEventSynchronize(event) == cudaSuccess);
  CHECK(cudaStreamQuery(blocking) == cudaSuccess);
  CHECK(cudaStreamSynchronize(independent) == cudaSuccess);
  CHECK(cudaEventElapsedTime(&milliseconds, timed, later) == cudaSuccess);
  const std::chrono::duration<float, std::milli> passed = std::chrono::steady_clock::now() - before;
  CHECK(milliseconds >= 0 && milliseconds <= passed.count(), "%g of %g ms", double(milliseconds),
        double(passed.count()));
  CHECK(cudaEventElapsedTime(&milliseconds, event, later) ==
        cudaErrorInvalidResourceHandle);  // without timing
  CHECK(cudaSetDevice(1) == cudaSuccess);
  CHECK(cudaEventRecord(event, nullptr) == cudaErrorInvalidResourceHandle);  // of another device
  CHECK(run(1, [](unsigned) {}) == cudaSuccess);
  CHECK(simt::launch(who_was_first, 1, 32, 0, blocking, nullptr, nullptr) ==
        cudaErrorInvalidResourceHandle);
  int device = -1;
  CHECK(cudaStreamGetDevice(blocking, &device) == cudaSuccess && device == 0);
  CHECK(cudaStreamWaitEvent(nullptr, event) == cudaSuccess);  // of another device: allowed
  CHECK(cudaDeviceSynchronize() == cudaSuccess && cudaSetDevice(0) == cudaSuccess);
  CHECK(cudaEventDestroy(event) == cudaSuccess &&
        cudaEventQuery(event) == cudaErrorInvalidResourceHandle);
  CHECK(cudaEventDestroy(timed) == cudaSuccess && cudaEventDestroy(later) == cudaSuccess);
  CHECK(cudaStreamDestroy(blocking) == cudaSuccess &&
        cudaStreamDestroy(independent) == cudaSuccess);
  cudaGetLastError();
}

TEST(simt_callbacks) {
  struct Seen {
    cudaError_t status = cudaErrorUnknown, call = cudaSuccess;
    std::thread::id thread;
  } seen;
  CHECK(cudaStreamAddCallback(
            nullptr,
            [](cudaStream_t, cudaError_t status, void* data) {
              auto& s = *static_cast<Seen*>(data);
              s.status = status;
              s.thread = std::this_thread::get_id();
              s.call = cudaDeviceSynchronize();
            },
            &seen, 0) == cudaSuccess);
  CHECK(cudaStreamSynchronize(nullptr) == cudaSuccess);
  CHECK(seen.status == cudaSuccess && seen.call == cudaErrorNotPermitted &&
        seen.thread != std::this_thread::get_id());
}

TEST(simt_launch_errors) {
  CHECK(simt::launch(who_was_first, 0, 32, 0, nullptr, nullptr, nullptr) ==
        cudaErrorInvalidConfiguration);
  CHECK(simt::launch(who_was_first, dim3(1, 65536), 32, 0, nullptr, nullptr, nullptr) ==
        cudaErrorInvalidConfiguration);
  CHECK(simt::launch(who_was_first, 1, dim3(1, 1, 65), 0, nullptr, nullptr, nullptr) ==
        cudaErrorInvalidConfiguration);
  CHECK(cudaFuncSetAttribute(who_was_first, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             (227 << 10) + 1) == cudaErrorInvalidValue);
  int blocks = -1;
  CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, who_was_first, 256, 0) ==
            cudaSuccess &&
        blocks == 4);
  CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, who_was_first, 32, 100 << 10) ==
            cudaSuccess &&
        blocks == 2);
  cudaGetLastError();
}

TEST(simt_failures_on_demand) {
  void* data;
  {
    const Environment fail("SIMT_FAIL", "cudaMallocAsync:2:1,cudaMemset:1:0:2");
    CHECK(cudaMallocAsync(&data, 16, nullptr) == cudaSuccess &&
          cudaFreeAsync(data, nullptr) == cudaSuccess);
    CHECK(cudaMallocAsync(&data, 16, nullptr) == cudaErrorMemoryAllocation);
    CHECK(cudaMallocAsync(&data, 16, nullptr) == cudaSuccess);
    CHECK(cudaMemset(data, 0, 16) == cudaErrorInvalidValue &&
          cudaMemset(data, 0, 16) == cudaErrorInvalidValue &&
          cudaMemset(data, 0, 16) == cudaSuccess);
  }
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  CHECK(cudaFreeAsync(data, nullptr) == cudaSuccess && cudaDeviceSynchronize() == cudaSuccess);
}
