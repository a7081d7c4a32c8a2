// What a batch carries besides: given what would stand for it, no bit changes; a weight of 0 leaves
// out whatever there is; and mixtures of objectives are the weighted sums of their parts.
#include "batches.h"

using namespace batches;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity(),
                 nan_value = std::numeric_limits<double>::quiet_NaN();

bool same(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
}
bool same(const Outcome& a, const Outcome& b) {
  return same(a.losses, b.losses) && same(a.rewards, b.rewards) &&
         same(a.coefficients, b.coefficients) && same(a.metrics, b.metrics) &&
         same(a.likelihood, b.likelihood) && same(a.values, b.values);
}

bool takes(int method, FieldData data) {
  for (const MethodField& field : method_fields(method))
    if (field.info->data == data) return true;
  return false;
}

/// An objective with its likelihood term, where it may have one.
Objective drawn(int method, check::Random& random) {
  Objective o = random_objective(method, random);
  if (reference::takes_likelihood(o) && random.below(2)) o.settings.sft_weight = 0.7;
  o.settings.sft_reduction = double(random.below(3));
  return o;
}
int64_t sequences_of(int method, int64_t units) {
  return facts_of(method).arity == Arity::pair ? 2 * units : units;
}

/// What a sorted method looks at is of all units: their weights are no unit's.
bool of_units(int method) { return facts_of(method).scope == Scope::unit; }

}  // namespace

TEST(fields_that_stand_for_themselves) {
  for (int m = 0; m < method_count(); m++) {
    check::Random random(uint64_t(m) + 1);
    for (int k = 0; k < 50; k++) {
      const Objective o = drawn(m, random);
      const Inputs in = random_inputs(o, sequences_of(m, 1 + random.below(6)), false, random);
      const size_t units = size_t(in.units(o).count);
      double tokens = 0;
      for (double n : in.sft_lengths) tokens += n;
      const Outcome expected = run(o, in);
      auto check_same = [&](FieldData data, std::vector<double> values) {
        if (!takes(m, data)) return;
        Inputs given = in;
        given.fields[data] = std::move(values);
        CHECK(same(run(o, given), expected), "%s", reference::name_of(o));
      };
      check_same(&Fields::weights, std::vector<double>(units, 1));
      check_same(&Fields::margins, std::vector<double>(units, 0));
      check_same(&Fields::targets, std::vector<double>(units, margin_target(o.settings)));
      check_same(&Fields::denominator, {double(units)});
      check_same(&Fields::shift, {0});
      if (tokens > 0) check_same(&Fields::sft_denominator, {tokens});
    }
  }
}

TEST(fields_weight_of_nothing) {
  // A unit of weight 0 adds nothing to the loss or to the gradients, whatever its numbers are: the
  // others are as if it had any other numbers.
  for (int m = 0; m < method_count(); m++) {
    if (!of_units(m)) continue;
    check::Random random(uint64_t(m) + 50);
    for (int k = 0; k < 40; k++) {
      const Objective o = drawn(m, random);
      Inputs in = random_inputs(o, sequences_of(m, 5), true, random);
      const Units units = in.units(o);
      const int64_t unit = random.below(units.count);
      in.fields[&Fields::weights][size_t(unit)] = 0;
      const Outcome expected = run(o, in);
      for (double bad : {nan_value, infinity, -infinity, -1e300}) {
        Inputs spoilt = in;
        for (int64_t place = 0; place < units.size(unit); place++) {
          const size_t s = size_t(units.sequence(unit, place));
          spoilt.logps[s] = spoilt.sft_logps[s] = bad;
        }
        const Outcome out = run(o, spoilt);
        CHECK(same(out.values, expected.values), "%s, %g: %.17g, not %.17g", reference::name_of(o),
              bad, out.loss, expected.loss);
        CHECK(same(out.coefficients, expected.coefficients) &&
                  same(out.likelihood, expected.likelihood),
              "%s, %g", reference::name_of(o), bad);
      }
      for (int64_t place = 0; place < units.size(unit); place++) {
        const size_t s = size_t(units.sequence(unit, place));
        CHECK(expected.coefficients[s] == 0 && expected.likelihood[s] == 0, "%s",
              reference::name_of(o));
      }
    }
  }
}

TEST(fields_parts_of_a_batch) {
  // Units in batches of one, with the denominators of the whole: their losses and gradients are the
  // whole's.
  for (int m = 0; m < method_count(); m++) {
    if (!of_units(m) || facts_of(m).arity == Arity::group) continue;
    check::Random random(uint64_t(m) + 90);
    for (int k = 0; k < 20; k++) {
      const Objective o = drawn(m, random);
      const int64_t count = 5;
      const Inputs in = random_inputs(o, sequences_of(m, count), true, random);
      const Units units = in.units(o);
      const Outcome whole = run(o, in);
      double loss = 0;
      for (int64_t u = 0; u < count; u++) {
        Inputs part;
        part.fields = in.fields;
        for (const FieldInfo& field : field_infos) {
          std::vector<double>& values = part.fields[field.data];
          if ((field.per == Per::unit || field.per == Per::sequence) && !values.empty())
            values = {values[size_t(u)]};
        }
        for (int64_t place = 0; place < units.size(u); place++) {
          const size_t s = size_t(units.sequence(u, place));
          part.logps.push_back(in.logps[s]), part.sft_logps.push_back(in.sft_logps[s]);
          part.references.push_back(in.references[s]);
          part.lengths.push_back(in.lengths[s]), part.sft_lengths.push_back(in.sft_lengths[s]);
        }
        const Outcome out = run(o, part);
        loss += out.loss;
        for (int64_t place = 0; place < units.size(u); place++) {
          const size_t s = size_t(units.sequence(u, place));
          CHECK(check::same_bits(out.coefficients[size_t(place)], whole.coefficients[s]) &&
                    check::same_bits(out.likelihood[size_t(place)], whole.likelihood[s]),
                "%s", reference::name_of(o));
        }
      }
      double size = 0;
      for (double x : whole.losses) size += std::fabs(x);
      CHECK(std::fabs(loss - whole.loss) <= 1e-13 * size, "%s: %.17g, not %.17g",
            reference::name_of(o), loss, whole.loss);
    }
  }
}

TEST(fields_mixtures) {
  // Any methods of one arity, sorted ones among them: the numbers of each are those that it has
  // alone, and the coefficients their weighted sum. One of weight 0 adds nothing.
  check::Random random(7);
  for (int k = 0; k < 2000; k++) {
    const Arity arity = Arity(k % 3);
    std::vector<Objective> objectives;
    const int64_t count = 1 + random.below(4);
    while (int64_t(objectives.size()) < count) {
      const int m = int(random.below(method_count()));
      if (facts_of(m).arity != arity) continue;
      Objective o = drawn(m, random);
      o.weight = random.below(5) == 0 ? 0 : random.uniform(0.1, 3);
      objectives.push_back(o);
    }
    const int64_t sequences = sequences_of(objectives[0].method, 1 + random.below(7));
    Inputs in = random_inputs(objectives[0], sequences, false, random);
    for (const Objective& o : objectives) {
      const reference::OwnFields fields =
          reference::random_fields(o.method, in.units(o), 0, false, random);
      for (size_t i = 0; i < fields.values.size(); i++)
        if (in.fields.values[i].empty()) in.fields.values[i] = fields.values[i];
    }
    const Outcome mixed = run(objectives, in);
    const size_t units = size_t(in.units(objectives[0]).count);
    std::vector<double> sums(in.logps.size(), 0), sizes = sums, likelihood = sums;
    for (size_t i = 0; i < objectives.size(); i++) {
      Objective alone = objectives[i];
      alone.weight = 1;
      const Outcome one = run(alone, in);
      auto part = [i](const std::vector<double>& all, size_t n) {
        return std::vector<double>(all.begin() + int64_t(i * n),
                                   all.begin() + int64_t((i + 1) * n));
      };
      CHECK(same(part(mixed.losses, units), one.losses) &&
                same(part(mixed.rewards, in.logps.size()), one.rewards) &&
                same(part(mixed.values, 1), one.values),
            "%zu of %zu: %s", i, objectives.size(), reference::name_of(alone));
      if (!std::isfinite(one.loss)) goto next;
      for (size_t s = 0; s < sums.size(); s++) {
        sums[s] += objectives[i].weight * one.coefficients[s];
        sizes[s] +=
            objectives[i].weight * (std::fabs(one.coefficients[s]) + std::fabs(one.likelihood[s]));
        likelihood[s] += objectives[i].weight * one.likelihood[s];
      }
    }
    for (size_t s = 0; s < sums.size(); s++)
      CHECK(std::fabs(mixed.coefficients[s] - sums[s]) <= 1e-14 * sizes[s] &&
                std::fabs(mixed.likelihood[s] - likelihood[s]) <= 1e-14 * sizes[s],
            "%s and %zu more: %.17g, not %.17g", reference::name_of(objectives[0]),
            objectives.size() - 1, mixed.coefficients[s], sums[s]);
  next:;
  }
}

TEST(fields_mixtures_with_a_likelihood) {
  // `sft` in a mixture of pairs is the likelihood term of another's: the same coefficients.
  check::Random random(8);
  for (int k = 0; k < 300; k++) {
    Objective pair = reference::objective("dpo", 0.3), likelihood = reference::objective("sft", 1),
              with = pair;
    likelihood.settings.normalize = pair.settings.normalize = with.settings.normalize = k % 2;
    likelihood.settings.sft_weight = 1, likelihood.weight = 0.7;
    likelihood.settings.sft_reduction = with.settings.sft_reduction = double(random.below(3));
    with.settings.sft_weight = 0.7;
    const Inputs in = random_inputs(with, 2 * (1 + random.below(5)), true, random);
    const Outcome expected = run(with, in), alone = run(pair, in);
    for (bool first : {true, false}) {
      const Outcome mixed = first ? run({likelihood, pair}, in) : run({pair, likelihood}, in);
      CHECK(same(mixed.coefficients, expected.coefficients) &&
            same(mixed.coefficients, alone.coefficients));
      for (size_t s = 0; s < in.logps.size(); s++)
        CHECK(std::fabs(mixed.likelihood[s] - expected.likelihood[s]) <=
                  1e-15 * std::fabs(expected.likelihood[s]),
              "%.17g, not %.17g", mixed.likelihood[s], expected.likelihood[s]);
      const double loss = mixed.values[first ? 1 : 0] + 0.7 * mixed.values[first ? 0 : 1];
      CHECK(std::fabs(loss - expected.loss) <= 1e-14 * (std::fabs(loss) + std::fabs(alone.loss)),
            "%.17g, not %.17g", loss, expected.loss);
    }
  }
}
