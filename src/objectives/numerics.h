// Scalar functions of the pair mathematics, float64, host and device. Each is stable over the whole
// range of its argument; tests/native/numerics_test.cc holds them against long double.
#pragma once
#include <cmath>

#if defined(__CUDACC__)
#define DIRALIGN_HD __host__ __device__ inline
// Called, not inlined, on the device: with their exponentials and logarithms copied into every
// method, ptxas needs a minute for the unit stage of one architecture instead of two seconds, and a
// thread computes few pairs.
#define DIRALIGN_HD_CALL __noinline__ __host__ __device__ inline
#define DIRALIGN_HD_RARE DIRALIGN_HD_CALL
#else
#define DIRALIGN_HD [[gnu::always_inline]] inline
#define DIRALIGN_HD_CALL inline
// Kept out of the way of what is called for every pair.
#define DIRALIGN_HD_RARE [[gnu::noinline, gnu::cold]] inline
#endif

namespace diralign {

/// log(1 + e^x). A NaN stays a NaN.
DIRALIGN_HD_CALL double softplus(double x) {
  return x > 0 ? x + ::log1p(::exp(-x)) : ::log1p(::exp(x));
}

/// log(1 / (1 + e^-x)), at most 0.
DIRALIGN_HD_CALL double log_sigmoid(double x) { return -softplus(-x); }

/// 1 / (1 + e^-x) without overflow of the exponential.
DIRALIGN_HD_CALL double sigmoid(double x) {
  if (x >= 0) return 1 / (1 + ::exp(-x));
  const double e = ::exp(x);
  return e / (1 + e);
}

/// Derivative of the sigmoid, sigmoid(x) * sigmoid(-x).
DIRALIGN_HD_CALL double sigmoid_slope(double x) { return sigmoid(x) * sigmoid(-x); }

/// log(1 - e^a) for a <= 0. Below -ln 2 the exponential is the small term, above it 1 - e^a is.
DIRALIGN_HD_CALL double log1mexp(double a) {
  return a > -0.69314718055994530942 ? ::log(-::expm1(a)) : ::log1p(-::exp(a));
}

/// weight x, of which a weight of 0 leaves nothing, not even a NaN.
DIRALIGN_HD double share_of(double weight, double x) { return weight == 0 ? 0 : weight * x; }

/// (1 - e^-alpha x) / alpha, which is x as alpha tends to 0: before the product loses its digits.
DIRALIGN_HD_CALL double box_cox_exp(double x, double alpha) {
  const double product = alpha * x;
  return ::fabs(product) < 1e-17 ? x : -::expm1(-product) / alpha;
}

}  // namespace diralign
