// Vectors of the widest registers the including translation unit is compiled for, in the GCC and
// Clang vector extension, and the conversions between float32 and the 16-bit dtypes. Everything has
// internal linkage: the same header is compiled for several instruction sets, and an inline
// function emitted with AVX-512 must not win at link time.
#pragma once
#include <cstdint>
#include <cstring>
#include "rows/exp_polynomial.h"
#if defined(__x86_64__)
#if defined(__clang__)
#include <immintrin.h>
#else
// GCC 12 warns of the deliberately undefined registers inside its own header.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif
#endif

namespace {

#if defined(__AVX512F__)
constexpr int width = 16;
#elif defined(__AVX2__)
constexpr int width = 8;
#else
constexpr int width = 4;
#endif

typedef float Floats __attribute__((vector_size(width * 4)));
typedef uint32_t Words __attribute__((vector_size(width * 4)));
typedef uint16_t Halves __attribute__((vector_size(width * 2)));
typedef float HalfFloats __attribute__((vector_size(width * 2)));
typedef double Doubles __attribute__((vector_size(width * 4)));  // half as many lanes

struct Float16 {
  uint16_t bits;
};
struct Bfloat16 {
  uint16_t bits;
};

inline Floats splat(float x) { return x - Floats{}; }  // keeps -0

template <class Vector, class Element>
inline Vector unaligned(const Element* p) {
  Vector v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline Floats load(const float* p) { return unaligned<Floats>(p); }
// GCC splits the generic conversions between 16 and 32 bits in two halves.
#if defined(__AVX512F__)
inline Words widen(Halves h) { return (Words)_mm512_cvtepu16_epi32((__m256i)h); }
inline Halves narrow(Words w) { return (Halves)_mm512_cvtepi32_epi16((__m512i)w); }
#elif defined(__AVX2__)
inline Words widen(Halves h) { return (Words)_mm256_cvtepu16_epi32((__m128i)h); }
inline Halves narrow(Words w) {
  const __m256i packed = _mm256_packus_epi32((__m256i)w, (__m256i)w);  // per 128-bit half
  return (Halves)_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
}
#else
inline Words widen(Halves h) { return __builtin_convertvector(h, Words); }
inline Halves narrow(Words w) { return __builtin_convertvector(w, Halves); }
#endif

inline Floats load(const Bfloat16* p) { return (Floats)(widen(unaligned<Halves>(p)) << 16); }
inline Floats load(const Float16* p) {
#if defined(__AVX512F__)
  return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__F16C__)
  return (Floats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  // The float16 exponent field moved into a float32 is 112 too small: a multiplication by 2^112
  // mends it, subnormals included.
  const Words h = widen(unaligned<Halves>(p));
  const Words magnitude = (h & 0x7fff) << 13;
  const Words scaled = (Words)((Floats)magnitude * 0x1p112f);
  const Words value = (Words)((h & 0x7c00) == 0x7c00) & (magnitude | 0x7f800000);
  const Words finite = ~(Words)((h & 0x7c00) == 0x7c00) & scaled;
  return (Floats)(value | finite | (h & 0x8000) << 16);
#endif
}

/// In the upper half of each word: to nearest, ties to even; a NaN stays a NaN.
inline Words bfloat16_above(Floats v) {
  const Words u = (Words)v;
  return (u + 0x7fff + (u >> 16 & 1)) | (Words)(v != v);
}
inline Halves to_bfloat16(Floats v) { return narrow(bfloat16_above(v) >> 16); }
inline Halves to_float16(Floats v) {
#if defined(__AVX512F__)
  return (Halves)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__F16C__)
  return (Halves)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
#else
  const Words u = (Words)v, magnitude = u & 0x7fffffff;
  // Adding a number whose unit in the last place is float16's smallest subnormal lets the float32
  // adder do the rounding.
  const Words subnormal = (Words)((Floats)magnitude + 0.5f) - 0x3f000000;
  const Words normal = (magnitude + 0xc8000fff + (magnitude >> 13 & 1)) >> 13;
  const Words is_subnormal = (Words)(magnitude < 0x38800000),
              is_infinite = (Words)(magnitude >= 0x47800000), is_nan = (Words)(v != v);
  Words h = (is_subnormal & subnormal) | (~is_subnormal & normal);
  h = (is_infinite & 0x7c00) | (~is_infinite & h);
  h = (is_nan & 0x7e00) | (~is_nan & h);
  return narrow(h | (u >> 16 & 0x8000));
#endif
}

inline Halves rounded(const Bfloat16*, Floats v) { return to_bfloat16(v); }
inline Halves rounded(const Float16*, Floats v) { return to_float16(v); }

inline void store(float* p, Floats v) { std::memcpy(p, &v, sizeof v); }
template <class T>
inline void store(T* p, Floats v) {
  const Halves h = rounded(p, v);
  std::memcpy(p, &h, sizeof h);
}

/// A store past the caches; `p` is aligned to the vector. An ordinary one where the processor has
/// none.
inline void stream(float* p, Floats v) {
#if defined(__AVX512F__)
  _mm512_stream_ps(p, (__m512)v);
#elif defined(__AVX2__)
  _mm256_stream_ps(p, (__m256)v);
#elif defined(__x86_64__)
  _mm_stream_ps(p, (__m128)v);
#else
  store(p, v);
#endif
}
template <class T>
inline void stream(T* p, Floats v) {
#if defined(__AVX512F__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)rounded(p, v));
#elif defined(__AVX2__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), (__m128i)rounded(p, v));
#else
  store(p, v);
#endif
}

// Two vectors at a time, in an order of the elements that costs no shuffle: of bfloat16 the even
// ones come first, then the odd ones.

template <class T>
inline void load_two(const T* p, Floats& a, Floats& b) {
  a = load(p);
  b = load(p + width);
}
inline void load_two(const Bfloat16* p, Floats& a, Floats& b) {
  const Words pairs = unaligned<Words>(p);
  a = (Floats)(pairs << 16);
  b = (Floats)(pairs & 0xffff0000);
}

template <bool past_caches, class T>
inline void store_two(T* p, Floats a, Floats b) {
  if constexpr (past_caches) stream(p, a), stream(p + width, b);
  else store(p, a), store(p + width, b);
}
template <bool past_caches>
inline void store_two(Bfloat16* p, Floats a, Floats b) {
  const Words pairs = bfloat16_above(a) >> 16 | (bfloat16_above(b) & 0xffff0000);
  if constexpr (past_caches) stream(reinterpret_cast<float*>(p), (Floats)pairs);
  else std::memcpy(p, &pairs, sizeof pairs);
}

/// Makes streamed stores visible before the thread reports its work as done.
inline void stream_fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

/// In float64, by halves.
inline void widen(Floats v, Doubles& low, Doubles& high) {
#if defined(__AVX512F__)
  low = (Doubles)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)v));
  high = (Doubles)_mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)v, 1));
#elif defined(__AVX2__)
  low = (Doubles)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)v));
  high = (Doubles)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)v, 1));
#else
  HalfFloats half[2];
  std::memcpy(half, &v, sizeof v);
  low = __builtin_convertvector(half[0], Doubles);
  high = __builtin_convertvector(half[1], Doubles);
#endif
}

inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }  // b where a is a NaN

inline float largest(Floats v) {
  float lanes[width], m;
  std::memcpy(lanes, &v, sizeof v);
  m = lanes[0];
  for (int i = 1; i < width; i++) m = lanes[i] > m ? lanes[i] : m;
  return m;
}

/// Whether a lane is greater than `limit`; NaNs are not.
inline bool any_above(Floats v, float limit) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)v, _mm512_set1_ps(limit), _CMP_GT_OQ) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps((__m256)(v > splat(limit))) != 0;
#elif defined(__x86_64__)
  return _mm_movemask_ps((__m128)(v > splat(limit))) != 0;
#else
  return largest(v) > limit;
#endif
}

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
