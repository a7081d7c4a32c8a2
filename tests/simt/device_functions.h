// The functions of CUDA C++ that kernels call, under their own names.
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

inline void __syncthreads(SIMT_SITE) { simt::barrier(false, file, line); }
inline int __syncthreads_or(int predicate, SIMT_SITE) {
  return simt::barrier(predicate != 0, file, line).any;
}
inline int __syncthreads_and(int predicate, SIMT_SITE) {
  return simt::barrier(predicate != 0, file, line).all;
}
inline int __syncthreads_count(int predicate, SIMT_SITE) {
  return simt::barrier(predicate != 0, file, line).count;
}

// Collectives of the warp. All but __syncwarp order nothing in memory, here as in CUDA.

inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_SITE) {
  simt::collective(simt::Collective::sync, mask, 0, 0, file, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_SITE) {
  return unsigned(simt::collective(simt::Collective::ballot, mask, predicate != 0, 0, file, line));
}
inline int __any_sync(unsigned mask, int predicate, SIMT_SITE) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, SIMT_SITE) {
  return __ballot_sync(mask, predicate, file, line) == mask;
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
template <class T>
T reduce(Collective kind, unsigned mask, T value, const char* file, int line) {
  static_assert(sizeof(T) == 4 && std::is_integral_v<T>);
  return T(uint32_t(collective(kind, mask, uint32_t(value), 0, file, line)));
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
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize, SIMT_SITE) {
  const unsigned lane = simt::self->lane, segment = lane & ~unsigned(width - 1);
  return simt::shuffle(mask, value, delta <= lane - segment ? lane - delta : lane, file, line);
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value, SIMT_SITE) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return unsigned(simt::collective(simt::Collective::match_any, mask, bits, 0, file, line));
}

template <class T>
T __reduce_add_sync(unsigned mask, T value, SIMT_SITE) {
  return simt::reduce(simt::Collective::reduce_add, mask, value, file, line);
}
template <class T>
T __reduce_min_sync(unsigned mask, T value, SIMT_SITE) {
  return simt::reduce(std::is_signed_v<T> ? simt::Collective::reduce_min_signed
                                          : simt::Collective::reduce_min_unsigned,
                      mask, value, file, line);
}
template <class T>
T __reduce_max_sync(unsigned mask, T value, SIMT_SITE) {
  return simt::reduce(std::is_signed_v<T> ? simt::Collective::reduce_max_signed
                                          : simt::Collective::reduce_max_unsigned,
                      mask, value, file, line);
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, SIMT_SITE) {
  return simt::reduce(simt::Collective::reduce_and, mask, value, file, line);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, SIMT_SITE) {
  return simt::reduce(simt::Collective::reduce_or, mask, value, file, line);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, SIMT_SITE) {
  return simt::reduce(simt::Collective::reduce_xor, mask, value, file, line);
}

// Memory order. Threads of a device take turns here, so that a fence has nothing to do; the race
// detector is told of an order between blocks by simt::release and simt::acquire, which a fence
// alone does not give.

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline void __nanosleep(unsigned, SIMT_SITE) { simt::yield(file, line); }

// Atomics: relaxed, as in CUDA. The race detector sees atomic accesses that order nothing else.

namespace simt {
template <class T>
concept Atomic = std::is_same_v<T, int> || std::is_same_v<T, unsigned> ||
                 std::is_same_v<T, unsigned long long> || std::is_same_v<T, long long> ||
                 std::is_same_v<T, float> || std::is_same_v<T, double>;
/// *address = update(*address); what was there before.
template <Atomic T, class Update>
T atomic_update(T* address, const Update& update) {
  T before, after;
  __atomic_load(address, &before, __ATOMIC_RELAXED);
  do {
    after = update(before);
  } while (!__atomic_compare_exchange(address, &before, &after, false, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED));
  return before;
}
/// Adds so that what threads did before their addition to this address is seen after a later one:
/// atom.add.acq_rel.
template <Atomic T>
T atomic_add_acq_rel(T* address, std::type_identity_t<T> value) {
  release(address);
  const T before = atomic_update(address, [value](T x) { return T(x + value); });
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

template <simt::Atomic T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [value](T x) {
    if constexpr (std::is_integral_v<T>)
      return T(std::make_unsigned_t<T>(x) + std::make_unsigned_t<T>(value));  // wraps
    else return T(x + value);
  });
}
template <simt::Atomic T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [value](T x) { return x < value ? value : x; });
}
template <simt::Atomic T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [value](T x) { return value < x ? value : x; });
}
template <simt::Atomic T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [value](T) { return value; });
}
template <simt::Atomic T>
  requires std::is_integral_v<T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  __atomic_compare_exchange(address, &expected, &value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
template <simt::Atomic T>
  requires std::is_integral_v<T>
T atomicAnd(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [value](T x) { return T(x & value); });
}
template <simt::Atomic T>
  requires std::is_integral_v<T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [value](T x) { return T(x | value); });
}

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
T __ldg(const T* address, SIMT_SITE) {
  return *simt::aligned(address, file, line);
}
template <class T>
T __ldca(const T* address, SIMT_SITE) {
  return *simt::aligned(address, file, line);
}
template <class T>
T __ldcg(const T* address, SIMT_SITE) {
  return *simt::aligned(address, file, line);
}
template <class T>
T __ldcs(const T* address, SIMT_SITE) {
  return *simt::aligned(address, file, line);
}
template <class T>
T __ldlu(const T* address, SIMT_SITE) {
  return *simt::aligned(address, file, line);
}
template <class T>
T __ldcv(const T* address, SIMT_SITE) {
  return *simt::aligned(address, file, line);
}
template <class T>
void __stwb(T* address, T value, SIMT_SITE) {
  *simt::aligned(address, file, line) = value;
}
template <class T>
void __stcg(T* address, T value, SIMT_SITE) {
  *simt::aligned(address, file, line) = value;
}
template <class T>
void __stcs(T* address, T value, SIMT_SITE) {
  *simt::aligned(address, file, line) = value;
}
template <class T>
void __stwt(T* address, T value, SIMT_SITE) {
  *simt::aligned(address, file, line) = value;
}

// Bits.

inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }
inline int __double2hiint(double x) { return int(std::bit_cast<uint64_t>(x) >> 32); }
inline int __double2loint(double x) { return int(uint32_t(std::bit_cast<uint64_t>(x))); }
inline double __hiloint2double(int high, int low) {
  return std::bit_cast<double>(uint64_t(uint32_t(high)) << 32 | uint32_t(low));
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int i = 0; i < 32; ++i) reversed |= (x >> i & 1u) << (31 - i);
  return reversed;
}
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
inline unsigned __umulhi(unsigned x, unsigned y) { return unsigned(uint64_t(x) * y >> 32); }
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  const uint64_t x0 = uint32_t(x), x1 = x >> 32, y0 = uint32_t(y), y1 = y >> 32;
  const uint64_t middle = x1 * y0 + (x0 * y0 >> 32), other = x0 * y1 + uint32_t(middle);
  return x1 * y1 + (middle >> 32) + (other >> 32);
}

// Arithmetic. What the device computes approximately is exact here: bounds of tests must allow for
// the device by themselves.

using std::max;
using std::min;
inline float __expf(float x) { return std::exp(x); }
inline float __exp10f(float x) { return std::pow(10.0f, x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __log10f(float x) { return std::log10(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dsub_rn(double x, double y) { return x - y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline double __fma_rn(double x, double y, double z) { return std::fma(x, y, z); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }
inline float __double2float_rn(double x) { return float(x); }
inline int __float2int_rn(float x) { return int(std::nearbyint(x)); }
inline int __float2int_rd(float x) { return int(std::floor(x)); }

[[noreturn]] inline void __trap(SIMT_SITE) { simt::fail(file, line, "__trap()"); }
