// The device primitives that differ between CUDA and the emulation of the tests (tests/simt), with
// those of elements.cuh and launches.cuh. Everything past this header is the same source for both.
#pragma once
#include <cfloat>
#include <cmath>
#include "rows/dtype.h"
#include "elements.cuh"
#include "launches.cuh"

#if defined(__CUDACC__)
#define CUDA_SHARED(Type, name) __shared__ Type name
#define CUDA_DYNAMIC_SHARED(Type, name) extern __shared__ Type name[]
#define CUDA_UNROLL _Pragma("unroll")
#define CUDA_NO_UNROLL _Pragma("unroll 1")
#define CUDA_UNROLL_BY(count) CUDA_PRAGMA(unroll(count))
#define CUDA_PRAGMA(text) _Pragma(#text)
#define CUDA_NOINLINE __noinline__
#else
#include <bit>
#define CUDA_UNROLL
#define CUDA_NO_UNROLL
#define CUDA_UNROLL_BY(count)
#define CUDA_NOINLINE [[gnu::noinline]]
#endif

namespace diralign::cuda {

/// 2^x to a relative 2^-22.5; results below the smallest normal number are 0.
__device__ __forceinline__ float exp2_approx(float x) {
#if defined(__CUDACC__)
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  // As wrong as the hardware may be, by 2^-22.5 of the result, so that the tests hold the bounds
  // for it. Only 2^0 is exact on both.
  const uint32_t noise = (std::bit_cast<uint32_t>(x) * 2654435761u) >> 30;
  const double y =
      std::exp2(double(x)) *
      (x == 0 ? 1 : 1 + (double(noise) - 1.5) * 7e-8);  // and half a unit from rounding it
  return y < double(FLT_MIN) ? 0.0f : float(y);
#endif
}

/// 1 / x to a relative 2^-23, for normal numbers whose reciprocal is one.
__device__ __forceinline__ float reciprocal_approx(float x) {
#if defined(__CUDACC__)
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  // As wrong as the hardware may be, and no better where the quotient has few digits.
  const uint32_t noise = (std::bit_cast<uint32_t>(x) * 2654435761u) >> 30;
  return float(1 / double(x) * (1 + (double(noise) - 1.5) * 4e-8));  // and then rounded
#endif
}

// Blocks hand each other results through memory with the three functions below, and in no other
// way. The order they rely on: what a block wrote before a barrier of its own, and then `arrive` of
// one of its threads, is seen by the threads of a block after a barrier that follows `arrive` or
// `await` of one of theirs, if that saw the count. The emulation finds a place where one of them is
// missing (as a data race), but not a wrong order in here.

/// Counts up; everything its block did before comes first, and everything the caller does next sees
/// what other arrivals had done.
__device__ __forceinline__ uint32_t arrive(uint32_t* counter) {
#if defined(__CUDACC__)
  uint32_t before;
  asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;"
               : "=r"(before)
               : "l"(counter)
               : "memory");
  return before;
#else
  simt::release(counter);
  const uint32_t before = atomicAdd(counter, 1u);
  simt::acquire(counter);
  return before;
#endif
}
/// The count, as far as it is known here; sees what the arrivals up to it had done.
__device__ __forceinline__ uint32_t arrivals(const uint32_t* counter) {
#if defined(__CUDACC__)
  uint32_t count;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(count) : "l"(counter) : "memory");
  return count;
#else
  const uint32_t count = __atomic_load_n(counter, __ATOMIC_RELAXED);
  simt::acquire(counter);
  return count;
#endif
}
/// Waits for `count` arrivals. Whoever is waited for must be running or have an earlier ticket.
__device__ __forceinline__ void await(const uint32_t* counter, uint32_t count) {
  while (arrivals(counter) < count) {
#if defined(__CUDACC__)
    __nanosleep(40);
#else
    simt::yield();
#endif
  }
}

// Blocks of a cluster send each other messages, and in no other way do they hand each other
// anything: a message lies in the receiver's shared memory after `receive`, and whoever sent it has
// read by then whatever it was computed from. It may be sent once the receiver is done with the one
// before in that place. What else a block wrote is not ordered with it, unlike what stands around
// `arrive` and `await`.

/// Counts the bytes of messages to a block, in its shared memory: an mbarrier. By rounds, of which
/// every other one has parity 1.
using Mailbox = uint64_t;

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define CUDA_HAS_CLUSTERS 1

#if defined(__CUDACC__)
__device__ __forceinline__ uint32_t shared_address(const void* own) {
  return uint32_t(__cvta_generic_to_shared(own));
}
/// The same variable of another block of the cluster.
__device__ __forceinline__ uint32_t address_in_block(const void* own, uint32_t block) {
  uint32_t there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(shared_address(own)), "r"(block));
  return there;
}
#endif
/// By one thread of the block, before `meet_cluster`.
__device__ __forceinline__ void open_mailbox(Mailbox* box) {
#if defined(__CUDACC__)
  asm volatile(
      "mbarrier.init.shared::cta.b64 [%0], 1;\n\tfence.mbarrier_init.release.cluster;" ::"r"(
          shared_address(box))
      : "memory");
#else
  simt::mbarrier_init(box, 1);
#endif
}
/// Waits for all threads of the cluster to have got here, those of a warp together: its blocks are
/// there, and what they wrote to their shared memory as well.
__device__ __forceinline__ void meet_cluster() {
  __syncwarp();
#if defined(__CUDACC__)
  asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::
                   : "memory");
#else
  simt::cluster_arrive();
  simt::cluster_wait();
#endif
}
/// By one thread, once a round: how many bytes come in this one.
__device__ __forceinline__ void expect(Mailbox* box, uint32_t bytes) {
#if defined(__CUDACC__)
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(box)),
               "r"(bytes)
               : "memory");
#else
  simt::mbarrier_arrive_expect_tx(box, bytes);
#endif
}
/// Sends 16 or 4 bytes to a block of the cluster, the own one or another: `place` and `box` name
/// their counterparts there.
template <class T>
__device__ __forceinline__ void send(uint32_t block, T* place, Mailbox* box, const T& message) {
#if defined(__CUDACC__)
  const uint32_t to = address_in_block(place, block), at = address_in_block(box, block);
  if constexpr (sizeof(T) == sizeof(uint4)) {
    uint4 words;
    memcpy(&words, &message, sizeof words);
    asm volatile(
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, "
        "%4}, [%5];" ::"r"(to),
        "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w), "r"(at)
        : "memory");
  } else {
    static_assert(sizeof(T) == sizeof(uint32_t));
    uint32_t word;
    memcpy(&word, &message, sizeof word);
    asm volatile(
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(to),
        "r"(word), "r"(at)
        : "memory");
  }
#else
  simt::store_async(simt::in_block_of_cluster(place, block), &message, sizeof message,
                    static_cast<Mailbox*>(simt::in_block_of_cluster(box, block)));
#endif
}
/// An address that is computed once: the compiler would do so again for each use behind a
/// condition.
template <class T>
__device__ __forceinline__ const T* computed(const T* address) {
#if defined(__CUDACC__)
  asm("" : "+l"(address));
#endif
  return address;
}
/// Copies 16 bytes between aligned addresses while the calling thread goes on. What it has copied
/// is there for it after `await_copies`, and for others of the block after a barrier behind that.
__device__ __forceinline__ void copy16(void* shared, const void* global) {
#if defined(__CUDACC__)
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)),
               "l"(__cvta_generic_to_global(global))
               : "memory");
#else
  simt::copy_async16(shared, global);
#endif
}
__device__ __forceinline__ void await_copies() {
#if defined(__CUDACC__)
  asm volatile("cp.async.wait_all;" ::: "memory");
#else
  simt::copy_async_wait_all();
#endif
}

/// Waits for all bytes of the round of that parity.
__device__ __forceinline__ void receive(Mailbox* box, uint32_t parity) {
#if defined(__CUDACC__)
  uint32_t arrived;
  do {
    asm volatile(
        "{\n\t.reg .pred p;\n\t"
        "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n\t"
        "selp.u32 %0, 1, 0, p;\n\t}"
        : "=r"(arrived)
        : "r"(shared_address(box)), "r"(parity)
        : "memory");
  } while (!arrived);
#else
  simt::mbarrier_wait(box, parity);
#endif
}
#endif

}  // namespace diralign::cuda
