// e^x of 16-bit elements, relative to an anchor of whole steps: as many steps make an octave as a
// register holds powers. No difference from the anchor is formed, and since the range is checked
// once for a block, no element is clamped or compared as a float. Twelve operations a vector are
// left, six of them for the two pipes that multiply and compare; add_exps and what it needs are
// fourteen, with eight.
#pragma once
#include <cmath>
#include "exp.h"

#if defined(__AVX2__)
namespace {

#if defined(__AVX512F__)
constexpr int steps_log2 = 4;
/// The powers, less what the low bits of their number add to the exponent.
constexpr Words step_powers = {
    0x3f800000, 0x3f7daac3, 0x3f7b95c2, 0x3f79c3d3, 0x3f7837f0, 0x3f76f532, 0x3f75fed7, 0x3f75583f,
    0x3f7504f3, 0x3f7508a4, 0x3f75672a, 0x3f76248c, 0x3f7744fd, 0x3f78ccdf, 0x3f7ac0c7, 0x3f7d257d};
/// 2^(r / steps), |r| <= 1/2, is 1 and these times r, r^2 and r^3, to 2^-29.
constexpr float step_factors[] = {0x1.62e43p-5f, 0x1.ebfff4p-11f, 0x1.c6ac6ap-17f};
#else
constexpr int steps_log2 = 3;
constexpr Words step_powers = eighth_powers;
/// To 2^-25.
constexpr float step_factors[] = {0x1.62e432p-4f, 0x1.ec0c32p-9f, 0x1.c6a002p-14f};
#endif
constexpr float steps_per_nat = 0x1.715476p0f * (1 << steps_log2);
/// Logits below the anchor whose power is still a normal number.
constexpr float exp_steps_reach = 86;

/// `bias`, added to an element in steps, rounds its distance from the anchor to whole steps and
/// leaves them in the low bits of the sum. Sums are in units of `unit` relative to the anchor
/// itself, which also makes good the rounding of steps_per_nat.
struct StepAnchor {
  float anchor, bias;
  double unit;

  explicit StepAnchor(float a) : anchor(a) {
    const float whole = std::floor(a * steps_per_nat);
    bias = diralign::round_to_whole - whole;
    unit = std::exp(double(whole) / double(steps_per_nat) - double(a));
  }
};

inline Floats fused(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#else
  return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#endif
}
inline Words step_power(Floats biased) {
#if defined(__AVX512F__)
  const Words power = (Words)_mm512_permutexvar_epi32((__m512i)biased, (__m512i)step_powers);
#else
  const Words power = (Words)_mm256_permutevar8x32_epi32((__m256i)step_powers, (__m256i)biased);
#endif
  return power + ((Words)biased << (23 - steps_log2));
}

/// Adds e^x, and e^x (x - anchor), step by step for all vectors, as add_exps does. The first two
/// operations on x must be fused: only then is the remainder exact, however large x is.
template <bool with_moment, int count>
[[gnu::always_inline]] inline void add_step_exps(Floats (&sum)[count], Floats (&moment)[count],
                                                 const Floats (&x)[count], const StepAnchor& a) {
  const Floats per_nat = splat(steps_per_nat), bias = splat(a.bias);
  const auto [c1, c2, c3] = step_factors;
  Floats biased[count], r[count], p[count], power[count];
  for (int k = 0; k < count; k++) biased[k] = fused(x[k], per_nat, bias);
  for (int k = 0; k < count; k++) r[k] = bias - biased[k];
  for (int k = 0; k < count; k++) r[k] = fused(x[k], per_nat, r[k]);
  for (int k = 0; k < count; k++) p[k] = r[k] * c3 + c2;
  for (int k = 0; k < count; k++) p[k] = p[k] * r[k] + c1;
  for (int k = 0; k < count; k++) p[k] = p[k] * r[k] + 1.f;
  for (int k = 0; k < count; k++) power[k] = (Floats)step_power(biased[k]);
  for (int k = 0; k < count; k++) sum[k] = fused(power[k], p[k], sum[k]);
  if constexpr (with_moment)
    for (int k = 0; k < count; k++) moment[k] += power[k] * p[k] * (x[k] - a.anchor);
}

/// The range of 16-bit elements, from their bits as integers: a register of them at once, on any
/// pipe. The largest element is the largest signed number if it is positive, and otherwise the
/// least unsigned one; the least element is the largest unsigned number, if it is negative.
template <class T>
struct BitRange {
  typedef int16_t Signed __attribute__((vector_size(width * 4)));
  typedef uint16_t Unsigned __attribute__((vector_size(width * 4)));
  Signed most;
  Unsigned least, last;

  explicit BitRange(const T* p)
      : most(unaligned<Signed>(p)), least((Unsigned)most), last((Unsigned)most) {}
  void add(const T* p) {
    const Signed s = unaligned<Signed>(p);
    const Unsigned u = (Unsigned)s;
    most = s > most ? s : most;
    least = u < least ? u : least;
    last = u > last ? u : last;
  }
  /// Takes the largest element into `top`. Whether no element is less than `low`, where one is
  /// negative.
  bool at_least(float low, Floats& top) const {
    constexpr int count = 2 * width;
    T ends[3 * count];
    std::memcpy(ends, &most, sizeof most);
    std::memcpy(ends + count, &least, sizeof least);
    std::memcpy(ends + 2 * count, &last, sizeof last);
    for (int k = 0; k < 2 * count; k += width) top = larger(load(ends + k), top);
    Words within = ~Words{};
    for (int k = 2 * count; k < 3 * count; k += width)
      within &= (Words)(load(ends + k) >= splat(low));
#if defined(__AVX512F__)
    return _mm512_movepi32_mask((__m512i)within) == 0xffff;
#else
    return _mm256_movemask_ps((__m256)within) == 0xff;
#endif
  }
};

}  // namespace
#endif
