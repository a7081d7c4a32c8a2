// The types and qualifiers of CUDA C++ that need no execution.
#pragma once
#include <bit>
#include <cstdint>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __grid_constant__
// A hint: functions of a page and more take g++ twice as long, and the tests need no speed of them.
#define __forceinline__ inline
// A block has its own, which a C++ variable cannot be.
#define __shared__ simt_has_GPU_SHARED_and_GPU_DYNAMIC_SHARED_instead

struct alignas(8) uint2 {
  unsigned x, y;
};
struct uint3 {
  unsigned x, y, z;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
