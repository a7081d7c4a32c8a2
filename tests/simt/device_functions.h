// The functions of CUDA C++ that the kernels call, under their own names, and no others: one that a
// kernel is the first to call does not compile until it is here.
#pragma once
#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <type_traits>
#include "execution.h"

#define threadIdx (simt::self->thread)
#define blockIdx (simt::self->block)
#define blockDim (simt::self->block_size)
#define gridDim (simt::self->grid_size)
constexpr int warpSize = simt::warp_size;

// Barriers of the block.

inline void __syncthreads(SIMT_SITE) { simt::barrier(file, line); }

// Collectives of the warp. All but __syncwarp order nothing in memory, here as in CUDA.

inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_SITE) {
  simt::collective(simt::Collective::sync, mask, 0, 0, file, line);
}
namespace simt {
template <class T>
T shuffle(unsigned mask, T value, unsigned source, const char* file, int line) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = collective(Collective::shuffle, mask, bits, source, file, line);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
}  // namespace simt

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize, SIMT_SITE) {
  const unsigned segment = simt::self->lane & ~unsigned(width - 1);
  return simt::shuffle(mask, value, segment | (unsigned(source) & unsigned(width - 1)), file, line);
}
// A lane whose source lies outside its segment keeps its own value; only that of __shfl_xor_sync
// may lie in an earlier one.
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize, SIMT_SITE) {
  const unsigned lane = simt::self->lane, source = lane ^ unsigned(lane_mask);
  return simt::shuffle(mask, value, source <= (lane | unsigned(width - 1)) ? source : lane, file,
                       line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize, SIMT_SITE) {
  const unsigned lane = simt::self->lane, source = lane + delta;
  return simt::shuffle(mask, value, source <= (lane | unsigned(width - 1)) ? source : lane, file,
                       line);
}
// The race detector is told of an order between blocks by simt::release and simt::acquire alone.

inline void __nanosleep(unsigned, SIMT_SITE) { simt::yield(file, line); }

// Atomics: relaxed, as in CUDA. The race detector sees atomic accesses that order nothing else.

inline unsigned atomicAdd(unsigned* address, unsigned value) {
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}

namespace simt {
/// Adds so that what threads did before their addition to this address is seen after a later one:
/// atom.add.acq_rel.
inline unsigned atomic_add_acq_rel(unsigned* address, unsigned value) {
  release(address);
  const unsigned before = atomicAdd(address, value);
  acquire(address);
  return before;
}
template <class T>
T load_acquire(const T* address) {
  T value;
  __atomic_load(address, &value, __ATOMIC_RELAXED);
  acquire(address);
  return value;
}
template <class T>
void store_release(T* address, std::type_identity_t<T> value) {
  release(address);
  __atomic_store(address, &value, __ATOMIC_RELAXED);
}
}  // namespace simt

// Loads and stores with a cache policy.

namespace simt {
/// A misaligned access is an error of the device; the processor may let it pass.
template <class T>
T* aligned(T* address, const char* file, int line) {
  if (reinterpret_cast<uintptr_t>(address) % alignof(T) != 0)
    fail(file, line, "an access of %zu bytes at a misaligned address", sizeof(T));
  return address;
}
}  // namespace simt

template <class T>
T __ldca(const T* address, SIMT_SITE) {
  return *simt::aligned(address, file, line);
}
template <class T>
T __ldcs(const T* address, SIMT_SITE) {
  return *simt::aligned(address, file, line);
}
template <class T>
void __stcs(T* address, T value, SIMT_SITE) {
  *simt::aligned(address, file, line) = value;
}
// Bits.

inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return unsigned((uint64_t(high) << 32 | low) >> (shift & 31));
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return unsigned((uint64_t(high) << 32 | low) << (shift & 31) >> 32);
}
/// The bytes of y:x that the four hexadecimal digits of the selector name; a digit of 8 or more
/// spreads the byte's sign.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const uint64_t both = uint64_t(y) << 32 | x;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned digit = selector >> 4 * i & 15u;
    unsigned byte = unsigned(both >> 8 * (digit & 7u)) & 0xffu;
    if (digit & 8u) byte = byte & 0x80u ? 0xffu : 0;
    result |= byte << 8 * i;
  }
  return result;
}
using std::max;
using std::min;
