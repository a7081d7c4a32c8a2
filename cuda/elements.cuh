// The types of elements, their conversions, and vectors of them in registers and in memory, on CUDA
// and on the emulation of the tests (tests/simt).
#pragma once
#include <cmath>
#include "platform.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#else
#include <bit>
#endif

namespace diralign::cuda {

/// Storage types; arithmetic is float.
struct Float16 {
  uint16_t bits;
};
struct Bfloat16 {
  uint16_t bits;
};
static_assert(sizeof(Float16) == 2 && sizeof(Bfloat16) == 2);

__device__ __forceinline__ float bits_to_float(uint32_t bits) {
#if defined(__CUDACC__)
  return __uint_as_float(bits);
#else
  return std::bit_cast<float>(bits);
#endif
}
__device__ __forceinline__ uint32_t float_to_bits(float x) {
#if defined(__CUDACC__)
  return __float_as_uint(x);
#else
  return std::bit_cast<uint32_t>(x);
#endif
}

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(Bfloat16 x) {
  return bits_to_float(uint32_t(x.bits) << 16);
}
__device__ __forceinline__ float to_float(Float16 x) {
#if defined(__CUDACC__)
  return __half2float(__ushort_as_half(x.bits));
#else
  return float(std::bit_cast<_Float16>(x.bits));
#endif
}

/// Rounds once, to nearest even.
template <class T>
__device__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float(float x) {
  return x;
}
template <>
__device__ __forceinline__ Bfloat16 from_float(float x) {
#if defined(__CUDACC__)
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#else
  const uint32_t u = std::bit_cast<uint32_t>(x);
  return {uint16_t(x != x ? 0x7fffu : (u + 0x7fffu + (u >> 16 & 1u)) >> 16)};
#endif
}
template <>
__device__ __forceinline__ Float16 from_float(float x) {
#if defined(__CUDACC__)
  return {__half_as_ushort(__float2half_rn(x))};
#else
  return {std::bit_cast<uint16_t>(_Float16(x))};
#endif
}

/// Two neighbours in one register, the first in the low half.
template <class T>
__device__ float2 unpack2(uint32_t pair);
template <>
__device__ __forceinline__ float2 unpack2<Bfloat16>(uint32_t pair) {
  return {bits_to_float(pair << 16), bits_to_float(pair & 0xffff0000u)};
}
template <>
__device__ __forceinline__ float2 unpack2<Float16>(uint32_t pair) {
  return {to_float(Float16{uint16_t(pair)}), to_float(Float16{uint16_t(pair >> 16)})};
}
template <class T>
__device__ uint32_t pack2(float low, float high);
template <>
__device__ __forceinline__ uint32_t pack2<Bfloat16>(float low, float high) {
#if defined(__CUDACC__)
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);  // one instruction from sm_80 on
  return uint32_t(__bfloat16_as_ushort(pair.x)) | uint32_t(__bfloat16_as_ushort(pair.y)) << 16;
#else
  return uint32_t(from_float<Bfloat16>(low).bits) | uint32_t(from_float<Bfloat16>(high).bits) << 16;
#endif
}
template <>
__device__ __forceinline__ uint32_t pack2<Float16>(float low, float high) {
  return uint32_t(from_float<Float16>(low).bits) | uint32_t(from_float<Float16>(high).bits) << 16;
}

/// The larger ones of two pairs; a NaN only where both are.
template <class T>
__device__ uint32_t max2(uint32_t a, uint32_t b);
template <>
__device__ __forceinline__ uint32_t max2<Bfloat16>(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint32_t y;
  asm("max.bf16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
  return y;
#else
  const float2 x = unpack2<Bfloat16>(a), y = unpack2<Bfloat16>(b);
  return float_to_bits(fmaxf(x.x, y.x)) >> 16 |
         (float_to_bits(fmaxf(x.y, y.y)) & 0xffff0000u);  // nothing to be rounded
#endif
}
template <>
__device__ __forceinline__ uint32_t max2<Float16>(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint32_t y;
  asm("max.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
  return y;
#else
  const float2 x = unpack2<Float16>(a), y = unpack2<Float16>(b);
  return pack2<Float16>(fmaxf(x.x, y.x), fmaxf(x.y, y.y));
#endif
}

/// Bits [shift, shift + 32) of high:low, shift < 32.
__device__ __forceinline__ uint32_t funnel_shift(uint32_t low, uint32_t high, uint32_t shift) {
#if defined(__CUDACC__)
  return __funnelshift_r(low, high, shift);
#else
  return uint32_t((uint64_t(high) << 32 | low) >> shift);
#endif
}

/// 16 bytes at an aligned address that will be read again soon, or not. Not a plain load: the
/// compiler would move those up until the registers run out.
__device__ __forceinline__ uint4 load16(const void* address, bool last_use) {
  const uint4* p = static_cast<const uint4*>(address);
  return last_use ? __ldcs(p) : __ldca(p);
}
/// 16 or 8 bytes to an aligned address, not to be kept in the caches.
__device__ __forceinline__ void store16(void* address, uint4 value) {
  __stcs(static_cast<uint4*>(address), value);
}
__device__ __forceinline__ void store8(void* address, uint2 value) {
  __stcs(static_cast<uint2*>(address), value);
}

}  // namespace diralign::cuda
