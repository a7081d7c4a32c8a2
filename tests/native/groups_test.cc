// Ranking losses of groups at the ends of their range, in long double and from the derivatives of
// their formulas; what they have in common with pairs; and that only a NaN makes one.
#include "batches.h"

using namespace batches;
using reference::Real;

namespace {

/// A group's loss and derivatives by the log-probabilities, which are its scores, times beta. What
/// rounding may do to a derivative is in proportion to the sum of its terms' magnitudes.
struct Defined {
  Real loss = 0;
  std::vector<Real> slopes, sizes;
};

/// A softmax, with what each entry lacks to 1 and its logarithm.
struct Softmax {
  std::vector<Real> p, lacks, log_p;
  explicit Softmax(const std::vector<Real>& x) {
    const Real max = *std::max_element(x.begin(), x.end());
    Real sum = 0;
    for (Real v : x) sum += expl(v - max);
    for (size_t k = 0; k < x.size(); k++) {
      Real others = 0;
      for (size_t j = 0; j < x.size(); j++) others += j == k ? 0 : expl(x[j] - max);
      p.push_back(expl(x[k] - max) / sum), lacks.push_back(others / sum);
      log_p.push_back(p[k] > 0.5L ? log1pl(-lacks[k]) : x[k] - max - logl(sum));
    }
  }
};

Defined defined(const Objective& o, const std::vector<double>& scores, const Fields& fields) {
  const size_t size = scores.size();
  const Real beta = o.settings.beta;
  Defined d;
  d.slopes.assign(size, 0), d.sizes.assign(size, 0);
  auto add = [&](size_t k, Real term) { d.slopes[k] += term, d.sizes[k] += fabsl(term); };
  std::vector<Real> u, r;
  for (double s : scores) u.push_back(beta * s);
  if (fields.best_first) {
    for (size_t first = 0; first + 1 < size; first++) {
      std::vector<Real> left;
      for (size_t k = first; k < size; k++) left.push_back(u[size_t(fields.best_first[k])]);
      const Softmax of(left);
      d.loss -= of.log_p[0];
      add(size_t(fields.best_first[first]), -beta * of.lacks[0]);
      for (size_t k = 1; k < left.size(); k++)
        add(size_t(fields.best_first[first + k]), beta * of.p[k]);
    }
    return d;
  }
  for (size_t k = 0; k < size; k++)
    r.push_back(Real(fields.rewards[k]) / Real(o.settings.reward_temperature));
  const Softmax y(r), p(u);
  for (size_t k = 0; k < size; k++) {
    if (std::strcmp(reference::name_of(o), "info_nca") == 0) {
      d.loss -= y.p[k] * p.log_p[k];
      // Whichever pair is small.
      if (p.p[k] > 0.5L) add(k, beta * y.lacks[k]), add(k, -beta * p.lacks[k]);
      else add(k, beta * p.p[k]), add(k, -beta * y.p[k]);
    } else {
      const Real each = 1 / Real(size);
      d.loss += y.p[k] * reference::softplus(-u[k]) + each * reference::softplus(u[k]);
      add(k, -beta * y.p[k] * reference::sigmoid(-u[k]));
      add(k, beta * each * reference::sigmoid(u[k]));
    }
  }
  return d;
}

constexpr const char* group_methods[] = {"plackett_luce", "info_nca", "nca_listwise"};

std::vector<Sequence> group_of(const std::vector<double>& scores) {
  std::vector<Sequence> group;
  for (double s : scores) group.push_back({s, 1, 0});
  return group;
}

/// The nearest number to x, and the largest there is for one that is beyond.
double nearest(Real x) {
  return fabsl(x) <= Real(DBL_MAX) ? double(x) : std::copysign(INFINITY, double(x));
}

}  // namespace

TEST(groups_extremes) {
  // Margins of up to 1e6, betas of up to 1e308 and rewards of any size: the value, or its limit.
  const double scores[] = {-1e6, -1e4, -800, -90, -2.5, 0, 1e-3, 2, 90, 800, 1e4, 1e6},
               tiny[] = {-1e-305, -2e-306, 0, 3e-306, 8e-306},
               betas[] = {1e-305, 1e-5, 0.1, 1, 20, 1e5, 1e300, 1e308},
               rewards[] = {-1e308, -800, -30, 0, 0, 0.5, 1, 30, 800, 1e308},
               temperatures[] = {1e-300, 1e-3, 1, 40, 1e308};
  auto one_of = [](check::Random& random, const auto& list) {
    return list[size_t(random.below(int64_t(std::size(list))))];
  };
  for (const char* name : group_methods) {
    check::Random random(11);
    for (int k = 0; k < (check::slow ? 3000 : 30000); k++) {
      Objective o = reference::objective(name, one_of(random, betas));
      o.settings.reward_temperature = one_of(random, temperatures);
      const bool small = o.settings.beta > 1e200 && random.below(2);
      std::vector<double> group(size_t(1 + random.below(5)));
      for (double& s : group) s = small ? one_of(random, tiny) : one_of(random, scores);
      Inputs in = inputs_of(group_of(group));
      in.fields = reference::random_fields(o.method, in.units(o), 0, false, random);
      for (double& x : in.fields[&Fields::rewards]) x = one_of(random, rewards);
      const Fields fields = in.fields.view();
      const reference::UnitTerms t = reference::unit_terms(o, group_of(group), fields);
      const Defined d = defined(o, group, fields);
      std::string what = check::text("%s beta %g temperature %g:", name, o.settings.beta,
                                     o.settings.reward_temperature);
      for (size_t i = 0; i < group.size(); i++)
        what += check::text(" %g (%g)", group[i],
                            fields.best_first ? fields.best_first[i] : fields.rewards[i]);
      // Arguments of exponentials are rounded.
      Real argument = 1;
      for (double s : group) argument = std::max(argument, fabsl(Real(o.settings.beta) * s));
      const Real digits = 1e-15L * std::min(argument, 1e4L);
      auto near = [&](double value, Real truth, Real size) {
        const double limit = nearest(truth);
        if (std::isinf(limit)) return value == limit;
        // A product that leaves float64 on the way to a share of it.
        return fabsl(value - truth) <= digits * size + 1e-300L;
      };
      CHECK(near(t.loss, d.loss, fabsl(d.loss)) || (std::isinf(t.loss) && argument > 1e308L),
            "%s: loss %.17g, not %.17Lg", what.c_str(), t.loss, d.loss);
      for (size_t i = 0; i < group.size(); i++)
        CHECK(near(t.coefficients[i], d.slopes[i], d.sizes[i]),
              "%s: derivative %zu %.17g, not %.17Lg", what.c_str(), i, t.coefficients[i],
              d.slopes[i]);
    }
  }
}

TEST(groups_of_two_like_pairs) {
  // plackett_luce of two is dpo's logistic loss, bit for bit.
  check::Random random(12);
  for (int k = 0; k < 3000; k++) {
    const double beta = std::exp(random.uniform(-7, 3));
    const Objective pair = reference::objective("dpo", beta),
                    group = reference::objective("plackett_luce", beta);
    const std::vector<Sequence> unit{random_sequence(pair, random), random_sequence(pair, random)};
    reference::OwnFields fields;
    const bool swapped = random.below(2);
    fields[&Fields::best_first] = {double(swapped), double(!swapped)};
    const reference::UnitTerms g = reference::unit_terms(group, unit, fields.view());
    const PairTerms p = reference::pair_terms(pair, unit[swapped], unit[!swapped]);
    CHECK(g.loss == p.loss && g.coefficients[swapped] == p.coefficient_chosen &&
              g.coefficients[!swapped] == p.coefficient_rejected,
          "%.17g, not %.17g", g.loss, p.loss);
  }
}

TEST(groups_do_not_depend_on_places) {
  // The candidates in another order, with their ranks or rewards: the same loss, up to the order of
  // the sums; and to the bit, and with the same coefficients, for ranks.
  check::Random random(13);
  for (const char* name : group_methods) {
    for (int k = 0; k < 500; k++) {
      const Objective o = reference::objective(name, std::exp(random.uniform(-4, 2)));
      const int64_t size = 2 + random.below(5);
      Inputs in = random_inputs(o, size, false, random), moved = in;
      in.groups = moved.groups = {0, int32_t(size)};
      in.fields = moved.fields = reference::random_fields(o.method, in.units(o), 0, false, random);
      std::reverse(moved.logps.begin(), moved.logps.end());
      std::reverse(moved.references.begin(), moved.references.end());
      std::reverse(moved.lengths.begin(), moved.lengths.end());
      for (double& place : moved.fields[&Fields::best_first]) place = double(size - 1) - place;
      std::vector<double>& rewards = moved.fields[&Fields::rewards];
      std::reverse(rewards.begin(), rewards.end());
      const Outcome a = run(o, in);
      Outcome b = run(o, moved);
      std::reverse(b.coefficients.begin(), b.coefficients.end());
      const bool ranks = rewards.empty();
      auto same = [&](double x, double y) {
        return ranks ? x == y : std::fabs(x - y) <= 1e-13 * (std::fabs(x) + o.settings.beta);
      };
      CHECK(same(a.loss, b.loss), "%s: %.17g, not %.17g", name, b.loss, a.loss);
      for (size_t s = 0; s < a.coefficients.size(); s++)
        CHECK(same(a.coefficients[s], b.coefficients[s]), "%s: %.17g, not %.17g", name,
              b.coefficients[s], a.coefficients[s]);
    }
  }
}

TEST(groups_of_one) {
  for (const char* name : {"plackett_luce", "info_nca"}) {
    const Objective o = reference::objective(name, 0.5);
    reference::OwnFields fields;
    fields[&Fields::best_first] = {0}, fields[&Fields::rewards] = {3};
    const reference::UnitTerms t = reference::unit_terms(o, {{-7, 3, -4}}, fields.view());
    CHECK(t.loss == 0 && t.coefficients[0] == 0, "%s: %g, %g", name, t.loss, t.coefficients[0]);
  }
}
