// What becomes of a logit before the softmax, host and device.
#pragma once
#include <cfloat>
#include <cmath>
#include "exp_polynomial.h"
#include "objectives/numerics.h"

namespace diralign {

/// y = softcap(scale x) / temperature, softcap(v) = cap tanh(v / cap). An infinite logit stays one,
/// so that a word of probability 0 has none under a cap either.
struct LogitTransform {
  double scale = 1;
  double cap = 0;  ///< 0: none
  double temperature = 1;

  bool is_identity() const { return cap == 0 && scale / temperature == 1; }
  double value(double x) const {
    return cap == 0 || std::isinf(x) ? scale * x / temperature
                                     : cap * std::tanh(scale * x / cap) / temperature;
  }
  /// dy/dx.
  double slope(double x) const {
    const double cosh = cap == 0 ? 1 : std::cosh(scale * x / cap);
    return scale / temperature / (cosh * cosh);
  }
};

/// The same in float32: y = factor x, or outer tanh(inner x).
struct TransformFactors {
  float factor, inner, outer;
  bool capped;
};
inline TransformFactors factors_of(const LogitTransform& t) {
  const bool capped = t.cap != 0;
  return {float(t.scale / t.temperature), capped ? float(t.scale / t.cap) : 0,
          capped ? float(t.cap / t.temperature) : 0, capped};
}

/// A number, or a vector of them, and dy/dx. tanh is formed from e^(-2 |z|), which cannot overflow,
/// and so is its derivative, which keeps its digits where tanh is near 1.
template <class Real>
struct Transformed {
  Real y, slope;
};
template <class Real, class Exp>
DIRALIGN_HD_KERNEL Transformed<Real> transformed(Real x, const TransformFactors& t, Exp&& exp) {
  if (!t.capped) return {x * t.factor, Real{} + t.factor};
  const Real z = x * t.inner, size = z < Real{} ? -z : z, e = exp(size * -2.f);
  const Real up = e + 1.f, tanh = (1.f - e) / up * t.outer, y = z < Real{} ? -tanh : tanh;
  return {size > Real{} + FLT_MAX ? x : y, e * (4.f * t.factor) / (up * up)};
}

}  // namespace diralign
