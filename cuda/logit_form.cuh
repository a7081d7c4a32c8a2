// What the row kernels make of a logit: its exponential for the sums, and its entry of the
// gradient. A form of logits is one of two types: as they are, or transformed on the way in, with
// the derivative of the transform on the way out.
#pragma once
#include <type_traits>
#include "rows/exp_polynomial.h"
#include "rows/gradient.h"
#include "rows/transform.h"
#include "platform.cuh"

namespace diralign::cuda {

constexpr float log2_e = 1.4426950408889634f;

template <class T>
constexpr uint32_t lanes = 16 / sizeof(T);  ///< elements of a vector

/// e^x for x <= 0 to about 1 ulp, with multiplications and additions alone; 0 below exp_underflow,
/// a NaN stays a NaN. Four times the work of exp2_approx, whose error of 2^-22.5 would be seen in
/// log-probabilities where few logits share the probability.
__device__ __forceinline__ float exp_accurate(float x) {
  // Selected are the argument and the scale: a result that is selected becomes a branch around all
  // of it.
  const bool underflows = x < exp_underflow;
  const float clamped = underflows ? exp_underflow : x, biased = clamped * log2_e + round_to_whole,
              n = biased - round_to_whole;
  const uint32_t scale = underflows ? 0 : (float_to_bits(biased) + 127) << 23;
  return exp_of_remainder(clamped, n) * bits_to_float(scale);
}

/// The exponential of a row's sums. float32 rows move twice the bytes for each exponential, so that
/// the accurate one costs no time; the resolution of shorter types leaves more to the fast one than
/// it loses.
template <class T>
__device__ __forceinline__ float exp_term(float x) {
  if constexpr (std::is_same_v<T, float>) return exp_accurate(x);
  else return exp2_approx(x * log2_e);
}

/// Logits as they are.
struct Untransformed {
  static constexpr bool transforms = false;

  __device__ __forceinline__ float value(float x) const { return x; }
  /// Of the largest of some logits: what is finite and at least what they become.
  __device__ __forceinline__ float top(float x) const { return x; }
  /// Calls `work` with what maps a logit to what it becomes.
  template <class Work>
  __device__ __forceinline__ void with_value(Work&& work) const {
    work([](float x) { return x; });
  }
  /// Their entries of the gradient, in their place.
  template <uint32_t n>
  __device__ __forceinline__ void entries(const RowGradient& g, float (&x)[n]) const {
    CUDA_UNROLL
    for (uint32_t j = 0; j < n; j++) x[j] = entry(g, x[j]);
  }
  __device__ __forceinline__ float entry(const RowGradient& g, float x) const {
    return g.factor * exp2_approx((x - g.shift) * log2_e);
  }
  /// The entry of a label, from its derivative by what the label's logit becomes.
  __device__ __forceinline__ float label_entry(float value, float) const { return value; }
};

/// Called, not inlined: float64 would take registers from the rows.
CUDA_NOINLINE __device__ inline float times_slope(const LogitTransform& transform, float value,
                                                  float x) {
  return transform.by_logit(value, double(x));
}

/// Transformed logits, or plain ones of a gradient that bends.
struct Transforming {
  static constexpr bool transforms = true;
  const TransformFactors& factors;
  const LogitTransform& exact;

  __device__ __forceinline__ Transformed<float> through_cap(float x) const {
    return capped(
        x, factors, [](float z) { return exp_accurate(z); },
        [](float z) { return reciprocal_approx(z); });
  }
  __device__ __forceinline__ float value(float x) const {
    return factors.capped ? through_cap(x).y : x * factors.factor;
  }
  __device__ __forceinline__ float top(float x) const { return fmaxf(-FLT_MAX, value(x)); }
  /// All of the work twice: a predicate that lived through it would not find a place.
  template <class Work>
  __device__ __forceinline__ void with_value(Work&& work) const {
    if (factors.capped) work([this](float x) { return through_cap(x).y; });
    else work([this](float x) { return x * factors.factor; });
  }
  template <uint32_t n>
  __device__ __forceinline__ void entries(const RowGradient& g, float (&x)[n]) const {
    if (factors.capped) {
      CUDA_UNROLL
      for (uint32_t j = 0; j < n; j++) x[j] = bent(g, through_cap(x[j]));
    } else {
      CUDA_UNROLL
      for (uint32_t j = 0; j < n; j++) x[j] = bent(g, {x[j] * factors.factor, factors.factor});
    }
  }
  __device__ __forceinline__ float entry(const RowGradient& g, float x) const {
    float one[1]{x};
    entries(g, one);
    return one[0];
  }
  __device__ __forceinline__ float label_entry(float value, float x) const {
    return times_slope(exact, value, x);
  }

 private:
  __device__ __forceinline__ float bent(const RowGradient& g, const Transformed<float>& l) const {
    const float d = l.y - g.shift;
    return bent_factor(d, g.factor, g.bend) * (exp2_approx(d * log2_e) * l.slope);
  }
};

}  // namespace diralign::cuda
