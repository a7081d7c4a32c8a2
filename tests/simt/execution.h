// The execution model: every CUDA thread is a fiber, and the blocks of a launch that fit the
// emulated device are resident together.
//
// A thread runs until it waits (a barrier, a warp collective, `yield`) or ends; then another one of
// any resident block is entered. The order is that of the launch's `Schedule`. A thread that nobody
// can wake is a deadlock, and is reported with what every thread waits for. All misuse that is
// found ends the process with a message on standard error.
#pragma once
#include <cstddef>
#include <cstdint>
#include <tuple>
#include "types.h"

struct CUstream_st;
using cudaStream_t = CUstream_st*;
enum cudaError : int;
using cudaError_t = cudaError;

/// Default arguments that name the caller's line.
#define SIMT_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace simt {

constexpr int warp_size = 32;
constexpr unsigned max_threads_per_block = 1024;
/// Of an emulated multiprocessor: what decides how many blocks are resident together.
constexpr unsigned max_threads_per_multiprocessor = 1024, max_blocks_per_multiprocessor = 16;
constexpr size_t max_static_shared_memory = 48 << 10;  ///< bytes of a block, as nvcc limits them
constexpr size_t max_shared_memory = 227 << 10;        ///< bytes of a block, opted in
constexpr size_t shared_memory_per_multiprocessor =
    228 << 10;  ///< bytes; every block takes 1 KiB for itself
constexpr size_t reserved_shared_memory_per_block = 1 << 10;

/// In which order waiting threads, warps and blocks go on.
struct Schedule {
  enum Order { forward, reverse, random } order = forward;
  uint64_t seed = 0;
};
/// What later launches use. Until the first call: the environment's SIMT_ORDER = forward | reverse
/// | a seed.
void set_schedule(Schedule schedule);
Schedule schedule();

/// What a kernel knows about the thread that runs it.
struct Self {
  uint3 thread{}, block{};
  dim3 block_size, grid_size;
  unsigned lane = 0;
};
// The first-exec model costs one load; the little room it needs is left by the loader for libraries
// loaded late, too.
extern __thread Self* self __attribute__((tls_model("initial-exec")));

/// Lets all other threads go on before this one: what a thread does that polls for another one.
/// When nobody but pollers is left for long it is a deadlock.
void yield(SIMT_SITE);

/// Waits for all threads of the block that have not ended.
void barrier(SIMT_SITE);

enum class Collective : uint8_t { sync, shuffle };
/// Waits until all lanes of the mask are at it. `source` is a lane, for shuffles only.
uint64_t collective(Collective kind, uint32_t mask, uint64_t value, unsigned source, SIMT_SITE);

/// The calling block's variable of this declaration: 0xff bytes when first seen by the block,
/// allocated by itself so that AddressSanitizer knows its bounds.
void* static_shared(const void* declaration, size_t bytes, size_t alignment, SIMT_SITE);
/// The calling block's dynamic shared memory, 0xff bytes at its start.
void* dynamic_shared();

// Clusters of blocks. A thread arrives, does what needs nothing from the others, and waits for all
// threads of the cluster that have not ended. Lanes of a warp do so together.
void cluster_arrive(SIMT_SITE);
void cluster_wait(SIMT_SITE);
/// The place of a shared variable of the calling block in the shared memory of the cluster's block
/// of that rank.
void* in_block_of_cluster(const void* own, unsigned rank, SIMT_SITE);

/// For the race detector: what this thread did before `release` comes before what another thread
/// does after an `acquire` of the same address. To stand where CUDA orders memory between blocks.
/// Without ThreadSanitizer they do nothing.
void release(const void* address);
void acquire(const void* address);

/// Ends the process; says where the calling thread is and what the others wait for.
[[noreturn]] void fail(const char* file, int line, const char* format, ...)
    __attribute__((format(printf, 3, 4)));

/// A kernel with its arguments.
struct Body {
  virtual ~Body() = default;
  virtual void run() const = 0;
};
/// Takes `body`. Enqueued on the stream; the error is that of the launch.
cudaError_t launch(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, Body* body, unsigned cluster = 1);
/// Whether a cooperative launch of so many blocks would be taken.
cudaError_t may_launch_together(dim3 grid, dim3 block, size_t shared_bytes);

/// Whether a launch in such clusters would be taken.
cudaError_t may_launch_clusters(dim3 grid, unsigned cluster, dim3 block, size_t shared_bytes);
/// cudaOccupancyMaxActiveClusters; 0 where the device has none.
cudaError_t clusters_at_once(unsigned cluster, dim3 block, size_t shared_bytes, int* clusters);

template <class... Parameters, class... Arguments>
cudaError_t launch_in(unsigned cluster, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                      size_t shared_bytes, cudaStream_t stream, Arguments... arguments) {
  struct Call : Body {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> arguments;
    Call(void (*kernel)(Parameters...), Arguments... arguments)
        : kernel(kernel), arguments(static_cast<Parameters>(arguments)...) {}
    void run() const override { std::apply(kernel, arguments); }
  };
  return launch(reinterpret_cast<const void*>(kernel), grid, block, shared_bytes, stream,
                static_cast<Body*>(new Call(kernel, arguments...)), cluster);
}
/// kernel<<<grid, block, shared_bytes, stream>>>(arguments...)
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, Arguments... arguments) {
  return launch_in(1, kernel, grid, block, shared_bytes, stream, arguments...);
}

/// cudaLaunchCooperativeKernel.
template <class... Parameters, class... Arguments>
cudaError_t launch_together(void (*kernel)(Parameters...), dim3 grid, dim3 block,
                            size_t shared_bytes, cudaStream_t stream, Arguments... arguments) {
  if (const cudaError_t error = may_launch_together(grid, block, shared_bytes);
      error != cudaError_t{})
    return error;
  return launch(kernel, grid, block, shared_bytes, stream, arguments...);
}

/// cudaLaunchKernelEx with clusters of so many blocks, consecutive in x.
template <class... Parameters, class... Arguments>
cudaError_t launch_clusters(void (*kernel)(Parameters...), dim3 grid, unsigned cluster, dim3 block,
                            size_t shared_bytes, cudaStream_t stream, Arguments... arguments) {
  if (const cudaError_t error = may_launch_clusters(grid, cluster, block, shared_bytes);
      error != cudaError_t{})
    return error;
  return launch_in(cluster, kernel, grid, block, shared_bytes, stream, arguments...);
}

}  // namespace simt

/// A variable of the block: `__shared__ Type name`. Arrays are declared through an alias of their
/// type.
#define CUDA_SHARED(Type, name)                                                       \
  using simt_type_of_##name = Type;                                                   \
  static const char simt_declaration_of_##name{};                                     \
  simt_type_of_##name& name = *static_cast<simt_type_of_##name*>(simt::static_shared( \
      &simt_declaration_of_##name, sizeof(simt_type_of_##name), alignof(simt_type_of_##name)))
/// The block's dynamic shared memory as a pointer to T.
#define CUDA_DYNAMIC_SHARED(T, name) T* name = static_cast<T*>(simt::dynamic_shared())
