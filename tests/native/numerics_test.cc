// objectives/numerics.h against long double, over the whole range of float64. Bounds are relative,
// in units of float64's epsilon 2^-52; results under the normal numbers may be off by a few units
// of the smallest subnormal instead.
#include "objectives/numerics.h"
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <vector>
#include "check.h"

using namespace diralign;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity(),
                 nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr long double ln2 = 0.693147180559945309417232121458L;

/// Positive numbers from the smallest subnormal to the largest finite number: several per binade,
/// and every interesting one.
std::vector<double> magnitudes() {
  check::Random random(1);
  std::vector<double> all = {
      DBL_TRUE_MIN, DBL_MIN, DBL_EPSILON, DBL_EPSILON / 2, 1,     36.7,  37.5, 600,   599.9,
      708.3,        709.7,   709.8,       710.5,           744.4, 745.2, 1e4,  1e300, DBL_MAX};
  all.push_back(std::log(2.0));
  all.push_back(std::nextafter(std::log(2.0), 1));
  all.push_back(std::nextafter(std::log(2.0), 0));
  for (int e = -1074; e < 1024; e++)
    for (int k = 0; k < 8; k++) all.push_back(std::ldexp(k == 0 ? 1 : random.uniform(1, 2), e));
  // Where the functions bend.
  for (int k = 0; k < 100000; k++)
    all.push_back(std::exp(random.uniform(std::log(1e-3), std::log(800.0))));
  return all;
}

const std::vector<double>& samples() {
  static const std::vector<double> all = [] {
    std::vector<double> both = {0.0, -0.0};
    for (double x : magnitudes()) {
      both.push_back(x);
      both.push_back(-x);
    }
    return both;
  }();
  return all;
}

/// The error in epsilons of the true value.
double error(double value, long double truth) {
  if (std::isnan(truth)) return std::isnan(value) ? 0 : infinity;
  if (double(truth) == value) return 0;
  if (std::isinf(value) || std::isinf(double(truth))) return infinity;
  const long double difference = std::fabs((long double)value - truth),
                    subnormals = 4 * (long double)DBL_TRUE_MIN;
  return difference <= subnormals
             ? 0
             : double(difference / std::fabs(truth) / (long double)DBL_EPSILON);
}

/// Holds `function` against `truth` on all samples up to `max`, and prints how near the bound it
/// came.
template <class Function, class Truth>
void compare(const char* name, double bound, Function function, Truth truth,
             double max = infinity) {
  double worst = 0, at = 0;
  for (double x : samples()) {
    if (x > max) continue;
    const double e = error(function(x), truth((long double)x));
    CHECK(e <= bound, "%s(%.17g) = %.17g, off by %.3g epsilon", name, x, function(x), e);
    if (e > worst) worst = e, at = x;
  }
  CHECK(std::isnan(function(nan_value)), "%s(NaN)", name);
  std::printf("       %s: %.2f epsilon at %.17g, bound %.2f\n", name, worst, at, bound);
}

long double true_softplus(long double x) { return x > 0 ? x + log1pl(expl(-x)) : log1pl(expl(x)); }
long double true_sigmoid(long double x) {
  return x < 0 ? expl(x) / (1 + expl(x)) : 1 / (1 + expl(-x));
}
long double true_slope(long double x) {
  const long double e = expl(-fabsl(x));
  return e / ((1 + e) * (1 + e));
}

}  // namespace

TEST(numerics_softplus) {
  compare("softplus", 1.5, softplus, true_softplus);
  CHECK(softplus(infinity) == infinity);
  CHECK(softplus(-infinity) == 0);
  CHECK(softplus(0.0) == std::log(2.0));
  CHECK(softplus(-700) > 0);  // 1 + e^x rounds to 1: log(1 + e^x) would be 0
}

TEST(numerics_log_sigmoid) {
  compare("log_sigmoid", 1.5, log_sigmoid, [](long double x) { return -true_softplus(-x); });
  CHECK(log_sigmoid(infinity) == 0);
  CHECK(log_sigmoid(-infinity) == -infinity);
  for (double x : samples()) CHECK(log_sigmoid(x) <= 0, "log_sigmoid(%.17g)", x);
}

TEST(numerics_sigmoid) {
  compare("sigmoid", 2, sigmoid, true_sigmoid);
  CHECK(sigmoid(infinity) == 1);
  CHECK(sigmoid(-infinity) == 0);
  CHECK(sigmoid(0.0) == 0.5);
}

TEST(numerics_sigmoid_slope) {
  compare("sigmoid_slope", 3.5, sigmoid_slope, true_slope);
  CHECK(sigmoid_slope(infinity) == 0);
  CHECK(sigmoid_slope(-infinity) == 0);
}

TEST(numerics_log1mexp) {
  auto truth = [](long double a) { return a > -ln2 ? logl(-expm1l(a)) : log1pl(-expl(a)); };
  compare("log1mexp", 2, log1mexp, truth, 0);
  CHECK(log1mexp(0.0) == -infinity);
  CHECK(log1mexp(-0.0) == -infinity);
  CHECK(log1mexp(-infinity) == 0);
  CHECK(std::isnan(log1mexp(1.0)));  // no probability is above 1
  // The naive form has lost every digit here.
  CHECK(std::fabs(log1mexp(-1e-14) - std::log(1e-14)) < 1e-13);
  CHECK(log1mexp(-40) < 0);
}

TEST(numerics_box_cox_exp) {
  double worst = 0;
  for (double alpha : {1.0, 0.5, -0.5, 2.0, 0.25, -3.0, 1e-3, 1e-8, -1e-8, 1e-16, 1e-300}) {
    for (double x : samples()) {
      const long double product = (long double)alpha * x;
      // A product that is no float64 number any more has no digits to judge; the exponential
      // magnifies those of a large one.
      if (product != 0 && fabsl(product) < (long double)DBL_MIN) continue;
      if (fabsl(product) > 700) continue;
      const double value = box_cox_exp(x, alpha), e = error(value, -expm1l(-product) / alpha);
      const double bound = 2.5 + std::fabs(double(product));
      CHECK(e <= bound, "box_cox_exp(%.17g, %g) = %.17g, off by %.3g epsilon", x, alpha, value, e);
      worst = std::max(worst, e / bound);
    }
    CHECK(std::isnan(box_cox_exp(nan_value, alpha)));
  }
  std::printf("       box_cox_exp: at most %.2f of its bound\n", worst);
  for (double x : samples()) CHECK(box_cox_exp(x, 0) == x);
  CHECK(box_cox_exp(infinity, 0.5) == 2);
  CHECK(box_cox_exp(-infinity, 0.5) == -infinity);
  CHECK(box_cox_exp(-infinity, -0.5) == -2);
}
