// What becomes of a logit before the softmax, host and device.
#pragma once
#include <algorithm>
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
    const double z = cap == 0 ? 0 : scale * x / cap;
    return std::fabs(z) < 1e-9 || std::isinf(x) ? scale * x / temperature
                                                : cap * std::tanh(z) / temperature;
  }
  /// dy/dx.
  DIRALIGN_HD double slope(double x) const {
    const double cosh = cap == 0 ? 1 : ::cosh(scale * x / cap);
    return scale / temperature / (cosh * cosh);
  }
  /// A derivative by x, from that by y: an infinite one is 0 where nothing of x comes through.
  DIRALIGN_HD float by_logit(float by_transformed, double x) const {
    return float(share_of(slope(x), double(by_transformed)));
  }
  /// The largest slope there is.
  double steepest() const { return scale / temperature; }
};

/// The same in float32: y = factor x, or outer tanh(inner x). A cap so large that `inner` is 0 caps
/// no float32.
struct TransformFactors {
  float factor, inner, outer;
  bool capped;
};
inline TransformFactors factors_of(const LogitTransform& t) {
  // Neither 0 nor infinite: times an infinite logit, or one of 0, that would be a NaN.
  auto in_range = [](double x) { return float(std::clamp<double>(x, FLT_TRUE_MIN, FLT_MAX)); };
  const bool capped = t.cap != 0 && float(t.scale / t.cap) != 0;
  return {in_range(t.scale / t.temperature), in_range(t.scale / t.cap),
          in_range(t.cap / t.temperature), capped};
}

/// A number, or a vector of them, and dy/dx. tanh is formed from e^(-2 |z|), which cannot overflow,
/// and so is its derivative, which keeps its digits where tanh is near 1. Near 0 that would lose
/// those of tanh: y is factor x (1 + z^2 P(z^2)) there, P minimax, to 2e-9.
template <class Real>
struct Transformed {
  Real y, slope;
};
template <class Real, class Exp, class Reciprocal>
DIRALIGN_HD_KERNEL Transformed<Real> capped(Real x, const TransformFactors& t, Exp&& exp,
                                            Reciprocal&& reciprocal) {
  const Real z = x * t.inner, size = z < Real{} ? -z : z, e = exp(size * -2.f);
  const Real r = reciprocal(e + 1.f), large = (1.f - e) * r * t.outer;
  const Real s = z * z;
  Real p = s * -0x1.c6f842p-8f + 0x1.5fc55ep-6f;
  p = p * s - 0x1.b9d29ap-5f;
  p = p * s + 0x1.11108p-3f;
  p = p * s - 0x1.555554p-2f;
  const Real linear = x * t.factor, small = linear + linear * (s * p);
  const Real y = size < Real{} + 0.5f ? small : z < Real{} ? -large : large;
  const Real magnitude = x < Real{} ? -x : x;
  return {magnitude > Real{} + FLT_MAX ? x : y, e * (4.f * t.factor) * r * r};
}
template <class Real, class Exp>
DIRALIGN_HD_KERNEL Transformed<Real> transformed(Real x, const TransformFactors& t, Exp&& exp) {
  if (!t.capped) return {x * t.factor, Real{} + t.factor};
  return capped(x, t, exp, [](Real d) { return 1.f / d; });
}

}  // namespace diralign
