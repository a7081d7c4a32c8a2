// Where the sequences of a unit lie: every sequence is at one place of one unit, and nowhere else.
#include <vector>
#include "check.h"
#include "objectives/fields.h"

using namespace diralign;

namespace {

/// Holds the functions of Units to a list of the sequences of each unit.
void check_units(const Units& units, const std::vector<std::vector<int64_t>>& expected) {
  int64_t sequences = 0;
  for (int64_t u = 0; u < units.count; u++) {
    const std::vector<int64_t>& of_unit = expected[size_t(u)];
    CHECK(units.size(u) == int64_t(of_unit.size()), "unit %lld", (long long)u);
    for (size_t place = 0; place < of_unit.size(); place++) {
      const int64_t s = of_unit[place];
      sequences++;
      CHECK(units.sequence(u, int64_t(place)) == s, "place %zu of unit %lld", place, (long long)u);
      CHECK(units.unit_of(s) == u, "sequence %lld", (long long)s);
      if (units.arity != Arity::group) CHECK(units.place(s) == int64_t(place));
    }
  }
  CHECK(units.sequences() == sequences);
  // A range of units has each of its sequences once, in whatever order.
  for (int64_t first = 0; first < units.count; first++) {
    for (int64_t last = first + 1; last <= units.count; last++) {
      std::vector<int> seen(size_t(sequences), 0), due(size_t(sequences), 0);
      for (int64_t u = first; u < last; u++)
        for (const int64_t s : expected[size_t(u)]) due[size_t(s)]++;
      for (int64_t k = 0; k < units.sequences_of(first, last); k++)
        seen[size_t(units.sequence_of(first, last, k))]++;
      CHECK(seen == due, "units %lld to %lld", (long long)first, (long long)last);
      units.for_sequences(first, last, [&](int64_t s) { seen[size_t(s)]--; });
      due.assign(due.size(), 0);
      CHECK(seen == due, "units %lld to %lld", (long long)first, (long long)last);
    }
  }
}

}  // namespace

TEST(units_of_each_arity) {
  check_units(single_units(3), {{0}, {1}, {2}});
  check_units({Arity::pair, 3, nullptr}, {{0, 3}, {1, 4}, {2, 5}});
  const int32_t offsets[] = {0, 2, 3, 6};
  check_units({Arity::group, 3, offsets}, {{0, 1}, {2}, {3, 4, 5}});
  check_units(single_units(0), {});
}

TEST(units_likely) {
  // The likelihood term scores the chosen of a pair, every single sequence that is not said to be
  // undesirable, and no candidate.
  const int32_t offsets[] = {0, 2};
  const double desirable[] = {0, 1};
  Fields fields;
  auto likely = [&](const Units& units) {
    std::vector<bool> all;
    for (int64_t s = 0; s < units.sequences(); s++) all.push_back(is_likely(units, fields, s));
    return all;
  };
  using Likely = std::vector<bool>;
  CHECK(likely({Arity::pair, 2, nullptr}) == Likely({true, true, false, false}));
  CHECK(likely(single_units(2)) == Likely({true, true}));
  CHECK(likely({Arity::group, 1, offsets}) == Likely({false, false}));
  fields.desirable = desirable;
  CHECK(likely(single_units(2)) == Likely({false, true}));
}
