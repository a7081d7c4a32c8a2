// The exponential of the kernels of the baseline and of devices, which have no table of powers: one
// float32, or a vector of them, host and device.
#pragma once

#if defined(__CUDACC__)
#define DIRALIGN_HD_KERNEL __host__ __device__ __forceinline__
#else
// Never out of line: a copy compiled for one instruction set must not be linked into another's
// kernels.
#define DIRALIGN_HD_KERNEL [[gnu::always_inline]] inline
#endif

namespace diralign {

/// Adding and subtracting it rounds to whole numbers, and leaves those in the low bits of the sum.
constexpr float round_to_whole = 0x1.8p23f;
/// Below this the exponential is 0, because the result would leave the normal numbers. The one of
/// AVX2, in src/backends/cpu/exp.h, goes on, and is off by less than the smallest normal number.
constexpr float exp_underflow = -86.6f;

/// e^(x - n ln 2) for n = x / ln 2 rounded, to about 1 ulp. ln 2 is split so that the first product
/// is exact without FMA; the polynomial is minimax, of degree 6.
template <class Real>
DIRALIGN_HD_KERNEL Real exp_of_remainder(Real x, Real n) {
  Real r = n * -0x1.62e4p-1f + x;
  r = n * -0x1.7f7d1cp-20f + r;
  Real p = r * 0x1.6ae6e0p-10f + 0x1.1267d8p-7f;
  p = p * r + 0x1.555824p-5f;
  p = p * r + 0x1.555418p-3f;
  p = p * r + 0x1.fffffcp-2f;
  p = p * r + 1.f;
  return p * r + 1.f;
}

}  // namespace diralign
