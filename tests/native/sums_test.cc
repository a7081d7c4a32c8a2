// The merge of partial sums of a row: what is neutral to it, which order gives which bits, and rows
// of nothing but -inf, with a NaN, or whose parts lie far apart.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>
#include "check.h"
#include "rows/statistics.h"

using namespace diralign;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

/// A part of a row by its definition.
PartSums part_of(const std::vector<float>& logits) {
  PartSums part = no_sums();
  for (const float x : logits) part.anchor = part.top = std::fmax(part.top, x);
  for (const float x : logits) {
    const double d = double(x) - double(part.anchor);
    part.sum += std::exp(d);
    if (x != -infinity) part.moment += std::exp(d) * d;
  }
  return part;
}

PartSums merged(const PartSums& a, const PartSums& b) {
  return merge<true, double>(a, b, [](double x) { return std::exp(x); });
}
PartSums in_order(const std::vector<PartSums>& parts) {
  return merge_in_order(uint32_t(parts.size()), [&](uint32_t k) { return parts[k]; });
}

bool same_bits(const PartSums& a, const PartSums& b) {
  return a.anchor == b.anchor && a.top == b.top && check::same_bits(a.sum, b.sum) &&
         check::same_bits(a.moment, b.moment);
}

/// Log of the mass, which depends neither on the anchor nor on the order of merging.
double log_mass(const PartSums& s) { return double(s.anchor) + std::log(s.sum); }
/// Mean of the logits under the softmax.
double mean_logit(const PartSums& s) { return double(s.anchor) + s.moment / s.sum; }

std::vector<float> random_logits(check::Random& random, int64_t count, double spread) {
  std::vector<float> logits;
  for (int64_t i = 0; i < count; i++) logits.push_back(float(spread * random.normal()));
  return logits;
}

}  // namespace

TEST(sums_neutral) {
  check::Random random(1);
  const PartSums part = part_of(random_logits(random, 9, 3));
  CHECK(same_bits(merged(part, no_sums()), part) && same_bits(merged(no_sums(), part), part));
  CHECK(same_bits(in_order({no_sums(), part, no_sums()}), part));
  CHECK(same_bits(merged(no_sums(), no_sums()), no_sums()));
  CHECK(same_bits(in_order({}), no_sums()));
}

TEST(sums_any_order) {
  check::Random random(2);
  for (const double spread : {0.1, 3.0, 40.0}) {
    std::vector<PartSums> parts;
    std::vector<float> all;
    for (int k = 0; k < 9; k++) {
      const std::vector<float> logits = random_logits(random, 1 + random.below(30), spread);
      all.insert(all.end(), logits.begin(), logits.end());
      parts.push_back(part_of(logits));
    }
    const PartSums whole = part_of(all);
    std::vector<size_t> order(parts.size());
    std::iota(order.begin(), order.end(), size_t{0});
    for (int k = 0; k < 20; k++) {
      for (size_t i = order.size() - 1; i > 0; i--)
        std::swap(order[i], order[size_t(random.below(int64_t(i) + 1))]);
      std::vector<PartSums> shuffled;
      PartSums one_by_one = no_sums();
      for (const size_t i : order) {
        shuffled.push_back(parts[i]);
        one_by_one = merged(one_by_one, parts[i]);
      }
      for (const PartSums& s : {in_order(shuffled), one_by_one}) {
        CHECK(s.top == whole.top && s.anchor == whole.anchor);
        CHECK(std::fabs(log_mass(s) - log_mass(whole)) <= 1e-14 * (1 + std::fabs(log_mass(whole))));
        CHECK(std::fabs(mean_logit(s) - mean_logit(whole)) <= 1e-13 * (1 + std::fabs(whole.top)));
      }
    }
  }
}

TEST(sums_far_apart) {
  // The lower part vanishes; nothing overflows on the way, and no 0 meets an infinity.
  const PartSums low = part_of({-3e38f, -3e38f}), high = part_of({3e38f});
  for (const PartSums& s : {merged(low, high), merged(high, low), in_order({low, high})})
    CHECK(s.anchor == 3e38f && s.sum == 1 && s.moment == 0);
}

TEST(sums_of_nothing_and_of_nan) {
  const PartSums none = part_of({-infinity, -infinity}), some = part_of({1, 2});
  CHECK(none.sum == 0 && none.moment == 0);
  for (const PartSums& s : {merged(none, some), merged(some, none), in_order({none, some})})
    CHECK(same_bits(s, some));
  const PartSums poisoned{2, 2, std::numeric_limits<double>::quiet_NaN(), 0};
  for (const PartSums& s :
       {merged(poisoned, some), merged(some, poisoned), in_order({some, poisoned, none})}) {
    CHECK(std::isnan(s.sum));
    CHECK(std::isnan(row_statistics({s, 1}).logp));
  }
}

TEST(sums_label_from_elsewhere) {
  // The label's logit is no part of the sums: a row of one other element is a logistic.
  const PartSums others = part_of({0});
  for (const float label : {-700.0f, -1.0f, 0.0f, 1.0f, 50.0f}) {
    const double logp = row_statistics({others, label}).logp;
    CHECK(std::fabs(logp + softplus(-double(label))) <= 1e-15 * std::fabs(logp), "label %g: %.17g",
          double(label), logp);
  }
}
