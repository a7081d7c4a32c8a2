// The types and qualifiers of CUDA C++ that need no execution: vectors, half and bfloat16.
#pragma once
#include <bit>
#include <cstdint>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __launch_bounds__(...)
#define __grid_constant__
// A hint: functions of a page and more take g++ twice as long, and the tests need no speed of them.
#define __forceinline__ inline
#define __align__(bytes) __attribute__((aligned(bytes)))
// A block has its own, which a C++ variable cannot be.
#define __shared__ simt_has_GPU_SHARED_and_GPU_DYNAMIC_SHARED_instead

#define SIMT_VECTORS(Name, Scalar)                                                              \
  struct Name##1 { Scalar x; };                                                                 \
  struct alignas(2 * sizeof(Scalar)) Name##2 { Scalar x, y; };                                  \
  struct Name##3 { Scalar x, y, z; };                                                           \
  struct alignas(sizeof(Scalar) == 8 ? 16 : 4 * sizeof(Scalar)) Name##4 { Scalar x, y, z, w; }; \
  constexpr Name##1 make_##Name##1(Scalar x) { return {x}; }                                    \
  constexpr Name##2 make_##Name##2(Scalar x, Scalar y) { return {x, y}; }                       \
  constexpr Name##3 make_##Name##3(Scalar x, Scalar y, Scalar z) { return {x, y, z}; }          \
  constexpr Name##4 make_##Name##4(Scalar x, Scalar y, Scalar z, Scalar w) { return {x, y, z, w}; }
SIMT_VECTORS(char, signed char)
SIMT_VECTORS(uchar, unsigned char)
SIMT_VECTORS(short, short)
SIMT_VECTORS(ushort, unsigned short)
SIMT_VECTORS(int, int)
SIMT_VECTORS(uint, unsigned)
SIMT_VECTORS(longlong, long long)
SIMT_VECTORS(ulonglong, unsigned long long)
SIMT_VECTORS(float, float)
SIMT_VECTORS(double, double)
#undef SIMT_VECTORS

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Storage of 16-bit floats: conversions only, all of them exact or rounded once, to nearest even.
// NaN becomes 0x7fff, as on the device.

struct __nv_bfloat16 {
  uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
struct __half {
  uint16_t bits;
};
struct alignas(4) __half2 {
  __half x, y;
};
using nv_bfloat16 = __nv_bfloat16;
using half = __half;

constexpr float __bfloat162float(__nv_bfloat16 x) {
  return std::bit_cast<float>(uint32_t(x.bits) << 16);
}
constexpr __nv_bfloat16 __float2bfloat16_rn(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  return {uint16_t(x != x ? 0x7fffu : (u + 0x7fffu + (u >> 16 & 1u)) >> 16)};
}
constexpr __nv_bfloat16 __float2bfloat16(float x) { return __float2bfloat16_rn(x); }
constexpr unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
constexpr __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return {bits}; }
constexpr __nv_bfloat162 __floats2bfloat162_rn(float low, float high) {
  return {__float2bfloat16_rn(low), __float2bfloat16_rn(high)};
}
constexpr float2 __bfloat1622float2(__nv_bfloat162 v) {
  return {__bfloat162float(v.x), __bfloat162float(v.y)};
}
constexpr float __low2float(__nv_bfloat162 v) { return __bfloat162float(v.x); }
constexpr float __high2float(__nv_bfloat162 v) { return __bfloat162float(v.y); }

constexpr float __half2float(__half x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000u) << 16, exponent = x.bits >> 10 & 31u,
                 fraction = x.bits & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | fraction << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  const float magnitude = float(fraction) * 0x1p-24f;  // subnormal or zero
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}
constexpr __half __float2half_rn(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x), sign = u >> 16 & 0x8000u,
                 magnitude = u & 0x7fffffffu;
  if (x != x) return {0x7fff};
  if (magnitude >= 0x477ff000u)
    return {uint16_t(sign | 0x7c00u)};  // from halfway above the largest finite value on
  if (magnitude >= 0x38800000u)
    return {
        uint16_t(sign | (((magnitude + 0xfffu + (magnitude >> 13 & 1u)) >> 13) - (112u << 10)))};
  // Subnormal: the sum's last bit weighs 2^-24, so that adding rounds as wanted.
  return {uint16_t(
      sign | (std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u))};
}
constexpr __half __float2half(float x) { return __float2half_rn(x); }
constexpr unsigned short __half_as_ushort(__half x) { return x.bits; }
constexpr __half __ushort_as_half(unsigned short bits) { return {bits}; }
constexpr __half2 __floats2half2_rn(float low, float high) {
  return {__float2half_rn(low), __float2half_rn(high)};
}
constexpr float2 __half22float2(__half2 v) { return {__half2float(v.x), __half2float(v.y)}; }
constexpr float __low2float(__half2 v) { return __half2float(v.x); }
constexpr float __high2float(__half2 v) { return __half2float(v.y); }
