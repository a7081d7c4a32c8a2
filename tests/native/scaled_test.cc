// objectives/scaled.h against long double, whose exponents reach e^-11300 to e^11300: numbers that
// leave float64 on the way and come back, in any order.
#include "objectives/scaled.h"
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>
#include "check.h"

using namespace diralign;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity(),
                 nan_value = std::numeric_limits<double>::quiet_NaN();

/// The error in epsilons of float64; of results below its normal numbers in fractions of the
/// smallest of these.
double error(double value, long double truth) {
  if (double(truth) == value) return 0;
  const long double size = std::max(fabsl(truth), (long double)DBL_MIN);
  return double(fabsl((long double)value - truth) / size / (long double)DBL_EPSILON);
}
long double truth_of(Scaled x) { return (long double)x.factor * expl((long double)x.exponent); }

/// A factor and an exponent that are rarely in float64's range together.
Scaled random_scaled(check::Random& random) {
  const double factor =
      std::ldexp(random.uniform(1, 2), int(random.below(2000)) - 1000) * (random.below(2) ? 1 : -1);
  return {factor, random.below(3) ? random.uniform(-2000, 2000) : 0.0};
}

double slope_difference(double x, double y) { return value(sigmoid_slope_difference(x, y, y - x)); }

/// sinh((y - x) / 2) sinh((y + x) / 2) / (2 cosh(x / 2) cosh(y / 2))^2: no term of it cancels.
long double true_slope_difference(long double x, long double d) {
  const long double y = x + d, sum = 2 * x + d;
  return sinhl(d / 2) / (2 * coshl(x / 2) * coshl(y / 2)) *
         (sinhl(sum / 2) / (2 * coshl(x / 2) * coshl(y / 2)));
}

}  // namespace

TEST(scaled_products) {
  // Factors of all sizes, in any order: what each product by itself would lose, the last one has.
  check::Random random(1);
  double worst = 0;
  for (int k = 0; k < 200000; k++) {
    const Scaled x = random_scaled(random), y = random_scaled(random);
    const double z = std::ldexp(random.uniform(1, 2), int(random.below(2000)) - 1000);
    const long double truth = truth_of(x) * truth_of(y) / z;
    for (const double found :
         {value(x * y / z), value(y * x / z), value(x / z * y), value(x * (y / z))}) {
      const double e = error(found, truth),
                   bound = 8 + std::fabs(x.exponent) + std::fabs(y.exponent);
      CHECK(e <= bound, "(%g, %g) (%g, %g) / %g = %.17g, not %.17Lg", x.factor, x.exponent,
            y.factor, y.exponent, z, found, truth);
      worst = std::max(worst, e / bound);
    }
  }
  std::printf("       scaled_products: at most %.2f of their bound, 8 + |exponents| epsilon\n",
              worst);
}

TEST(scaled_sums) {
  check::Random random(2);
  for (int k = 0; k < 200000; k++) {
    const Scaled x = random_scaled(random), y = random_scaled(random);
    const long double a = truth_of(x), b = truth_of(y);
    const long double bound = (8 + std::fabs(x.exponent) + std::fabs(y.exponent)) *
                                  (long double)DBL_EPSILON * (fabsl(a) + fabsl(b)) +
                              DBL_TRUE_MIN;
    const double sum = value(x + y), difference = value(x - y);
    if (fabsl(a + b) < DBL_MAX)
      CHECK(fabsl(sum - (a + b)) <= bound, "(%g, %g) + (%g, %g) = %.17g, not %.17Lg", x.factor,
            x.exponent, y.factor, y.exponent, sum, a + b);
    if (fabsl(a - b) < DBL_MAX)
      CHECK(fabsl(difference - (a - b)) <= bound, "(%g, %g) - (%g, %g) = %.17g, not %.17Lg",
            x.factor, x.exponent, y.factor, y.exponent, difference, a - b);
  }
  CHECK(value(Scaled(0) + Scaled(3, 800)) == infinity && value(Scaled(3, -1e6) + Scaled(0)) == 0);
}

TEST(scaled_plain_numbers) {
  // Exponents of 0: float64's own operators, bit for bit.
  check::Random random(3);
  for (int k = 0; k < 100000; k++) {
    const double x = std::ldexp(random.uniform(-2, 2), int(random.below(400)) - 200),
                 y = std::ldexp(random.uniform(-2, 2), int(random.below(400)) - 200);
    CHECK(check::same_bits(value(Scaled(x) * y), x * y) &&
              check::same_bits(value(Scaled(x) / y), x / y) &&
              check::same_bits(value(Scaled(x) + y), x + y) &&
              check::same_bits(value(Scaled(x) - y), x - y),
          "%.17g and %.17g", x, y);
  }
}

TEST(scaled_ends) {
  CHECK(value(Scaled(-1, 1e6)) == -infinity && value(Scaled(1, infinity)) == infinity &&
        value(Scaled(-2, infinity)) == -infinity);
  CHECK(value(Scaled(infinity, -infinity)) == 0 && value(Scaled(1, -1e6)) == 0 &&
        std::signbit(value(Scaled(-1, -1e6))));
  CHECK(value(Scaled(0, infinity)) == 0 && value(Scaled(0, 1e6)) == 0);
  // The sigmoid of an infinite margin against the slope that made it infinite.
  CHECK(value(scaled_sigmoid(-infinity) * Scaled(3, infinity)) == 0 &&
        value(Scaled(3, 1e6) * scaled_sigmoid(-infinity)) == 0);
  CHECK(value(scaled_sigmoid(-1e5) * Scaled(1, 1e5)) == 1);
  for (const Scaled x : {Scaled(nan_value), Scaled(nan_value, -infinity), Scaled(nan_value, 5),
                         Scaled(1, nan_value)}) {
    CHECK(std::isnan(value(x)) && std::isnan(value(x * 2)) && std::isnan(value(Scaled(3, 4) + x)) &&
          std::isnan(value(x / 2)));
  }
}

TEST(scaled_sigmoids) {
  double worst = 0;
  auto near = [&](const char* name, double x, double found, long double truth) {
    const double e = error(found, truth), bound = 6 + std::fabs(x);
    CHECK(e <= bound, "%s(%.17g) e^-x = %.17g, not %.17Lg", name, x, found, truth);
    worst = std::max(worst, e / bound);
  };
  for (double x = -2000; x < 2000; x += 0.37) {
    // e^-x brings what is left of either back to about 1.
    const Scaled back(1, std::fabs(x));
    const long double e = expl(-fabsl((long double)x)),
                      sigmoid_truth = x > 0 ? 1 / (1 + e) : e / (1 + e);
    if (x < 0) near("scaled_sigmoid", x, value(scaled_sigmoid(x) * back), sigmoid_truth / e);
    near("scaled_sigmoid_slope", x, value(scaled_sigmoid_slope(x) * back), 1 / ((1 + e) * (1 + e)));
    near("scaled_exp", x, value(scaled_exp(x) * Scaled(1, -x)), 1);
  }
  for (const Scaled x :
       {scaled_sigmoid(nan_value), scaled_sigmoid_slope(nan_value), scaled_exp(nan_value)})
    CHECK(std::isnan(value(x)));
}

TEST(scaled_sigmoid_slope_difference) {
  check::Random random(4);
  double worst = 0;
  auto check_at = [&](double x, double d) {
    // Brought back by e^|x|, so that nothing of it is lost in a small result; and the rounding of
    // |x| with it.
    const double y = x + d, back = std::min(std::fabs(x), std::fabs(y));
    const double found = value(sigmoid_slope_difference(x, y, d) * Scaled(1, back));
    // What a small one has of its size in the exponent is rounded there, by half a unit of 416.
    const double bound = 8 + 2 * std::fabs(x) + (std::fabs(found) < 1e-280 ? 128 : 0);
    const double e = error(found, true_slope_difference(x, d) * expl((long double)back));
    CHECK(e <= bound, "sigmoid_slope_difference(%.17g, + %.17g) = %.17g, off by %.3g epsilon", x, d,
          found, e);
    worst = std::max(worst, e / bound);
  };
  // The cancellation it is there for: y close to x, down to differences that y itself has lost; and
  // x and y far apart.
  for (int k = 0; k < 100000; k++) {
    const double x = (k & 1 ? 1 : -1) * std::exp(random.uniform(std::log(1e-6), std::log(2000.0)));
    check_at(x, (k & 2 ? 1 : -1) * std::exp(random.uniform(std::log(1e-300), std::log(3.0))));
    // x and -x have the same slope. Their sum is as exact as they are.
    const double near = -x * (1 + std::exp(random.uniform(std::log(1e-15), std::log(1e-2)))),
                 sum = x + near;
    const long double truth = true_slope_difference(x, (long double)near - x);
    const double e = error(slope_difference(x, near), truth),
                 bound = 8 + 2 * std::fabs(x) + std::fabs(x) / std::fabs(sum);
    CHECK(e <= bound, "sigmoid_slope_difference(%.17g, %.17g), off by %.3g epsilon", x, near, e);
  }
  std::printf("       sigmoid_slope_difference: at most %.2f of its bound, 8 + 2 |x| epsilon\n",
              worst);
  for (double x : {0.0, 1e-300, 3.0, -17.0, 599.0, 601.0, 1e5, infinity, -infinity}) {
    CHECK(slope_difference(x, x) == 0, "at %g", x);
    CHECK(slope_difference(x, -x) == 0, "at %g", x);
  }
  for (double x : {599.0, 601.0, 700.0, 1e4, 1e300, infinity}) {
    CHECK(slope_difference(x, 0) == -0.25, "at %g", x);
    CHECK(error(slope_difference(1, -x), sigmoid_slope(1)) <= 2, "at %g", x);
  }
  CHECK(std::isnan(slope_difference(nan_value, 1)) && std::isnan(slope_difference(1, nan_value)));
}
