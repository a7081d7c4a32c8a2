// e^x of a vector, for the instruction set of the including translation unit.
#pragma once
#include "rows/exp_polynomial.h"
#include "simd.h"

namespace {

using diralign::exp_underflow;

// e^x for x <= 88, to about 1 ulp, on AVX2 2 (tests/native/kernels_test.cc measures it). Below
// exp_underflow it is 0, or off by less than the smallest normal number; a NaN stays a NaN. x = n
// ln 2 + r: adding and subtracting a large number rounds x / ln 2 to n, and leaves n in the low
// bits of the sum.
#if defined(__AVX512F__)

/// n counts sixteenths: 2^n comes from a register of sixteen powers and scalef, which floors it,
/// and |r| <= ln 2 / 32 needs degree 3. Two multiplications fewer than the polynomial below: a
/// fifth of the time of a kernel.
inline Floats exp(Floats x) {
  const Floats powers = {0x1p0f,        0x1.0b5586p0f, 0x1.172b84p0f, 0x1.2387a6p0f,
                         0x1.306fe0p0f, 0x1.3dea64p0f, 0x1.4bfdaep0f, 0x1.5ab07ep0f,
                         0x1.6a09e6p0f, 0x1.7a1148p0f, 0x1.8ace54p0f, 0x1.9c4918p0f,
                         0x1.ae89fap0f, 0x1.c199bep0f, 0x1.d5818ep0f, 0x1.ea4afap0f};
  constexpr float to_sixteenths = 0x1.8p19f;
  const Floats biased = x * 1.44269502f + to_sixteenths, n = biased - to_sixteenths;
  Floats r = n * -0x1.62ep-1f + x;
  r = n * -0x1.0bfbe8p-15f + r;
  Floats p = r * 0x1.555556p-3f + 0.5f;
  p = p * r + 1.f;
  p = p * r;
  const Floats power =
      (Floats)_mm512_permutexvar_ps((__m512i)biased, (__m512)powers);  // by the low four bits
  p = power * p + power;
  return x < exp_underflow ? Floats{} : (Floats)_mm512_scalef_ps((__m512)p, (__m512)n);
}

/// sum + e^x.
inline Floats add_exp(Floats sum, Floats x) { return sum + exp(x); }

#elif defined(__AVX2__)

constexpr Words eighth_powers = {0x3f800000, 0x3f7b95c2, 0x3f7837f0, 0x3f75fed7,
                                 0x3f7504f3, 0x3f75672a, 0x3f7744fd, 0x3f7ac0c7};
constexpr float to_eighths = 0x1.8p20f, power_is_0 = -0x1.601e68p6f;  // -127 ln 2

/// e^x = power * rest.
struct Exponential {
  Floats power, rest;
};

/// n counts eighths: 2^n comes from a register of eight powers, less what the low three bits of n
/// add to their exponents, and |r| <= ln 2 / 16 needs degree 3. One constant for ln 2 leaves an
/// error of |x| / 22 ulp, of terms that are e^|x| times smaller than the row's largest. Below the
/// smallest power the exponent would wrap around: x is raised to where the power is exactly 0.
inline Exponential exponential(Floats x) {
  const Words powers = eighth_powers;
  x = (Floats)_mm256_max_ps((__m256)splat(power_is_0), (__m256)x);  // a NaN stays
  const Floats biased = x * 1.44269502f + to_eighths, n = biased - to_eighths,
               r = n * -0x1.62e430p-1f + x;
  Floats p = r * 0x1.555898p-3f + 0x1.000878p-1f;
  p = p * r + 1.f;
  p = p * r + 1.f;
  const Words power = (Words)_mm256_permutevar8x32_epi32((__m256i)powers, (__m256i)biased);
  return {(Floats)(power + ((Words)biased << 20)), p};
}
inline Floats exp(Floats x) {
  const Exponential e = exponential(x);
  return e.power * e.rest;
}
/// sum + e^x, rounded once.
inline Floats add_exp(Floats sum, Floats x) {
  const Exponential e = exponential(x);
  return (Floats)_mm256_fmadd_ps((__m256)e.power, (__m256)e.rest, (__m256)sum);
}
/// sum[k] + e^x[k], by the same operations step by step for all of them: a processor's queues hold
/// those of four vectors, among which it would find too few that wait for no other. Made of one
/// template with `exponential`, gradients took 1.3 to 1.4 times as long; called by GCC in place of
/// inlined, 16-bit sums 1.2 times.
template <int count>
[[gnu::always_inline]] inline void add_exps(Floats (&sum)[count], const Floats (&x)[count]) {
  const Words powers = eighth_powers;
  Floats d[count], biased[count], r[count], p[count];
  Words power[count];
  for (int k = 0; k < count; k++)
    d[k] = (Floats)_mm256_max_ps((__m256)splat(power_is_0), (__m256)x[k]);
  for (int k = 0; k < count; k++) biased[k] = d[k] * 1.44269502f + to_eighths;
  for (int k = 0; k < count; k++) r[k] = biased[k] - to_eighths;
  for (int k = 0; k < count; k++) r[k] = r[k] * -0x1.62e430p-1f + d[k];
  for (int k = 0; k < count; k++)
    power[k] = (Words)_mm256_permutevar8x32_epi32((__m256i)powers, (__m256i)biased[k]) +
               ((Words)biased[k] << 20);
  for (int k = 0; k < count; k++) p[k] = r[k] * 0x1.555898p-3f + 0x1.000878p-1f;
  for (int k = 0; k < count; k++) p[k] = p[k] * r[k] + 1.f;
  for (int k = 0; k < count; k++) p[k] = p[k] * r[k] + 1.f;
  for (int k = 0; k < count; k++)
    sum[k] = (Floats)_mm256_fmadd_ps((__m256)power[k], (__m256)p[k], (__m256)sum[k]);
}

#else

/// n is whole.
inline Floats exp(Floats x) {
  const Floats biased = x * 1.44269502f + diralign::round_to_whole,
               n = biased - diralign::round_to_whole;
  const Floats power = (Floats)(((Words)biased + 127) << 23);  // 2^n
  return x < exp_underflow ? Floats{} : diralign::exp_of_remainder(x, n) * power;
}

/// sum + e^x.
inline Floats add_exp(Floats sum, Floats x) { return sum + exp(x); }

#endif

#if !defined(__AVX2__) || defined(__AVX512F__)
/// sum[k] + e^x[k].
template <int count>
[[gnu::always_inline]] inline void add_exps(Floats (&sum)[count], const Floats (&x)[count]) {
  for (int k = 0; k < count; k++) sum[k] = add_exp(sum[k], x[k]);
}
#endif

}  // namespace
