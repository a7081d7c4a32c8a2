// Vectors of the widest registers the including translation unit is compiled for, in the GCC and
// Clang vector extension, and the conversions between float32 and the 16-bit dtypes. Everything has
// internal linkage: the same header is compiled for several instruction sets, and an inline
// function emitted with AVX-512 must not win at link time.
#pragma once
#include <cstdint>
#include <cstring>
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

// One element through the vector conversions, so that there is one definition of each.
template <class T>
float load_one(const void* row, int64_t index) {
  T in[width] = {};
  in[0] = static_cast<const T*>(row)[index];
  return load(in)[0];
}
template <class T>
void store_one(void* row, int64_t index, float value) {
  T out[width];
  store(out, splat(value));
  static_cast<T*>(row)[index] = out[0];
}

/// The first `n` elements, fewer than a vector; the others are 0.
template <class T>
Floats load_part(const T* x, int64_t n) {
  T part[width] = {};
  std::memcpy(part, x, size_t(n) * sizeof(T));
  return load(part);
}

}  // namespace
