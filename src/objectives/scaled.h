// Products of slopes that float64 alone would lose: in the chain rule of an exponential score,
// e^1000 meets a sigmoid of e^-1000000.
#pragma once
#include <cfloat>
#include "numerics.h"

namespace diralign {

/// factor e^exponent. The exponent is 0 unless the number or its partners leave the range of
/// float64; with exponents of 0 the operators are float64's, bit for bit. An exponent of -inf is a
/// 0 that outweighs everything: the sigmoid of a margin that is itself an exponential falls faster
/// than any slope grows.
struct Scaled {
  double factor, exponent;

  DIRALIGN_HD Scaled(double f, double e = 0) : factor(f), exponent(e) {}
};

DIRALIGN_HD bool is_plain(Scaled x) { return x.exponent == 0; }

// Each operation has two parts: that of plain numbers is inlined, that of all others is called.

DIRALIGN_HD_RARE double value_of_scaled(Scaled x) {
  if (x.factor == 0) return x.factor;
  // In two halves: the whole of e^exponent may overflow where a small factor brings it back.
  const double half = ::exp(x.exponent / 2);
  return half == 0 && x.factor == x.factor ? ::copysign(0.0, x.factor) : x.factor * half * half;
}
/// Infinite or 0 only where the number itself is beyond float64.
DIRALIGN_HD double value(Scaled x) { return is_plain(x) ? x.factor : value_of_scaled(x); }

DIRALIGN_HD bool is_normal(double x) { return (::fabs(x) >= DBL_MIN) & (::fabs(x) <= DBL_MAX); }

/// The same number with a factor between 1e-143 and 1e128: the product of two is normal.
DIRALIGN_HD Scaled centred(Scaled x) {
  const double size = ::fabs(x.factor);
  if (size > 1e90) return {x.factor * 2.1552394518322364e-181, x.exponent + 416};  // e^-416
  if (size < 1e-90) return {x.factor * 4.639855674272614e180, x.exponent - 416};
  return x;
}
/// Whether the factors of a product or quotient that is no normal number can be centred.
DIRALIGN_HD bool leaves_range(double result, double x, double y) {
  return !is_normal(result) && x != 0 && y != 0 && ::fabs(x) <= DBL_MAX && ::fabs(y) <= DBL_MAX;
}

DIRALIGN_HD_RARE Scaled product_of_scaled(Scaled x, Scaled y) {
  if (leaves_range(x.factor * y.factor, x.factor, y.factor)) x = centred(x), y = centred(y);
  const bool vanishes = x.exponent == -INFINITY || y.exponent == -INFINITY;
  return {x.factor * y.factor, vanishes ? -INFINITY : x.exponent + y.exponent};
}
DIRALIGN_HD_RARE Scaled quotient_of_scaled(Scaled x, Scaled y) {
  if (leaves_range(x.factor / y.factor, x.factor, y.factor)) x = centred(x), y = centred(y);
  return {x.factor / y.factor, x.exponent - y.exponent};
}
DIRALIGN_HD_RARE Scaled sum_of_scaled(Scaled x, Scaled y) {
  if (x.factor == 0) return y;
  if (y.factor == 0) return x;
  const double top = x.exponent > y.exponent ? x.exponent : y.exponent;
  return {value({x.factor, x.exponent - top}) + value({y.factor, y.exponent - top}), top};
}

DIRALIGN_HD_CALL Scaled operator*(Scaled x, Scaled y) {
  const double product = x.factor * y.factor;
  const bool plain = is_plain(x) & is_plain(y) & is_normal(product);
  return plain ? Scaled(product) : product_of_scaled(x, y);
}
DIRALIGN_HD_CALL Scaled operator/(Scaled x, Scaled y) {
  const double quotient = x.factor / y.factor;
  const bool plain = is_plain(x) & is_plain(y) & is_normal(quotient);
  return plain ? Scaled(quotient) : quotient_of_scaled(x, y);
}
DIRALIGN_HD Scaled operator+(Scaled x, Scaled y) {
  if (x.exponent == y.exponent) return {x.factor + y.factor, x.exponent};
  return sum_of_scaled(x, y);
}
DIRALIGN_HD Scaled operator-(Scaled x) { return {-x.factor, x.exponent}; }
DIRALIGN_HD Scaled operator-(Scaled x, Scaled y) { return x + -y; }

/// Beyond this, exponentials and sigmoids keep their argument as the exponent.
constexpr double scaled_beyond = 700;

DIRALIGN_HD_CALL Scaled scaled_exp(double x) {
  return ::fabs(x) > scaled_beyond ? Scaled(1, x) : Scaled(::exp(x));
}
DIRALIGN_HD Scaled scaled_sigmoid(double x) {
  return x < -scaled_beyond ? Scaled(1, x) : Scaled(sigmoid(x));
}
DIRALIGN_HD_CALL Scaled scaled_sigmoid_slope(double x) {
  return ::fabs(x) > scaled_beyond ? Scaled(1, -::fabs(x)) : Scaled(sigmoid_slope(x));
}

/// softplus(x) and its derivative, sigmoid(x).
struct Logistic {
  double loss;
  Scaled slope;
};
DIRALIGN_HD_CALL Logistic logistic(double x) {
  const double e = ::exp(-::fabs(x)), loss = (x > 0 ? x : 0) + ::log1p(e);
  return {loss, x < -scaled_beyond ? Scaled(1, x) : Scaled((x >= 0 ? 1 : e) / (1 + e))};
}

/// Its loss, e^x as its slope is where float64 has neither.
DIRALIGN_HD Scaled scaled_loss(const Logistic& l) { return is_plain(l.slope) ? l.loss : l.slope; }

/// sigmoid_slope(x) - sigmoid_slope(y), given d = y - x, which may have digits that x and y have
/// lost. With t = tanh(x / 2) the slope is (1 - t^2) / 4, and tanh a +- tanh b = sinh(a +- b) /
/// (cosh a cosh b).
DIRALIGN_HD_CALL Scaled sigmoid_slope_difference(double x, double y, double d) {
  const bool near = ::fabs(d) < 1;
  if (!near && !(::fabs(x + y) < 1)) return scaled_sigmoid_slope(x) - scaled_sigmoid_slope(y);
  if (::fabs(x) < 600) {
    const double scale = ::cosh(x / 2) * ::cosh(y / 2);
    return 0.25 * (Scaled(::sinh(d / 2)) / scale) * (::sinh((y + x) / 2) / scale);
  }
  // The slopes are e^-|x| and e^-|y|, and the hyperbolic functions would soon overflow.
  const double further = near ? (x > 0 ? d : -d) : (x > 0 ? -(x + y) : x + y);  // |y| - |x|
  return further > 0 ? Scaled(-::expm1(-further), -::fabs(x))
                     : Scaled(::expm1(further), -::fabs(y));
}

}  // namespace diralign
