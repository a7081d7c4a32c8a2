// Every method of the catalogue against its formula in long double, and its derivative against
// finite differences of that.
#include <limits>
#include "batches.h"

using namespace batches;
using reference::Real;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// How far a sequence's log-probability may move before the loss bends: the unit of the finite
/// differences.
Real natural_step(const Objective& o, const Sequence& s, Real slope) {
  const Settings& p = o.settings;
  const Real n = normalizer(s, p);
  Real step = std::min(n, Real(std::fabs(s.logp)));
  step = std::min(step, 1 / (p.beta * std::max(slope, 1 / n)));
  if (p.alpha != 0 && std::strcmp(reference::name_of(o), "r_dpo") != 0)
    step = std::min(step, n / std::fabs(Real(p.alpha)));
  if (p.tau > 0) step = std::min(step, p.tau * n / Real(p.beta));
  return step / (1 + p.penalty);
}

/// `margin`: the pair's own.
bool near_kink(const Objective& o, const Sequence& w, const Sequence& l, double margin) {
  const double rw = LogRatio::score(w, o.settings).value, rl = LogRatio::score(l, o.settings).value;
  if (std::strcmp(reference::name_of(o), "hinge") == 0)
    return std::fabs(1 - o.settings.beta * (rw - rl) + margin) < 1e-2;
  return std::strcmp(reference::name_of(o), "dpop") == 0 && std::fabs(rw) < 1e-2;
}

struct SlopeVisitor {
  const Settings& settings;
  const Sequence& s;
  double slope = 0;
  template <class Method>
  void operator()() {
    slope = value(Method::Score::score(s, settings).slope);
  }
};
double score_slope(const Objective& o, const Sequence& s) {
  SlopeVisitor visitor{o.settings, s};
  visit_method(o.method, visitor);
  return visitor.slope;
}

struct RankingVisitor {
  const Settings& settings;
  ScoredPair pair;
  Ranked ranked{0, 0, 0};
  template <class Method>
  void operator()() {
    if constexpr (Method::arity == Arity::pair) ranked = Method::Ranking::rank(pair, settings);
  }
};
Ranked rank(const Objective& o, const ScoredPair& pair) {
  RankingVisitor visitor{o.settings, pair};
  visit_method(o.method, visitor);
  return visitor.ranked;
}

PairTerms evaluate(const Objective& o, const Sequence& w, const Sequence& l) {
  return reference::pair_terms(o, w, l);
}

}  // namespace

TEST(objectives_catalogue) {
  CHECK(method_count() == 29, "%d", method_count());
  for (int m = 0; m < method_count(); m++) {
    CHECK(reference::method_named(method_info(m).name) == m, "%s is there twice",
          method_info(m).name);
    check::Random random(1);
    const Objective o = reference::objective(m, 0.5);
    CHECK(!std::isnan(random_inputs(o, 4, false, random).truth(o).loss()), "no formula here for %s",
          method_info(m).name);
  }
}

TEST(objectives_losses_and_derivatives) {
  const int rounds = check::slow ? 300 : 3000;
  for (int m = 0; m < method_count(); m++) {
    check::Random random(uint64_t(m) + 100);
    const char* name = method_info(m).name;
    double worst_loss = 0, worst_derivative = 0;
    for (int k = 0; k < rounds; k++) {
      const Objective o = random_objective(m, random);
      const Settings& p = o.settings;
      const std::vector<Sequence> unit = random_unit(o, random);
      Inputs in = inputs_of(unit);
      const Units units = in.units(o);
      in.fields = reference::random_fields(m, units, 0, k % 2 == 0, random);
      const Fields fields = in.fields.view();
      const reference::UnitTerms t = reference::unit_terms(o, unit, fields);
      reference::Batch batch = in.truth(o);
      const Real truth = batch.alignment()[0], share = batch.weight(0) / batch.denominator();
      if (fabsl(truth) > 1e280L) continue;
      // What float64 can promise: rounding of the loss, and of the log-ratios, targets and margins
      // that it is a function of. A group's log-ratios enter terms that may cancel.
      const bool grouped = units.arity == Arity::group;
      const double beyond =
          std::fabs(p.gamma) + 300 * std::fabs(p.alpha) + std::fabs(field(fields.margins, 0, 0)) +
          std::fabs(field(fields.shift, 0, 0)) +
          p.beta * (std::fabs(field(fields.kl, 0, 0)) + std::fabs(field(fields.targets, 0, 0)));
      // The divergence of exo_pair is a difference of its terms near its zero, the loss of simper
      // one of two probabilities.
      const double magnitude =
          double(fabsl(truth)) +
          (std::strcmp(name, "exo_pair") == 0
               ? 1 - std::log(fields.preferences ? 1 - *fields.preferences : p.label_smoothing)
           : std::strcmp(name, "simper") == 0 ? 1
                                              : 0);
      double scale = magnitude + 1e-300;
      for (size_t s = 0; s < unit.size(); s++) {
        const double n = normalizer(unit[s], p),
                     c = grouped ? p.beta / n : std::fabs(t.coefficients[s]) / double(share);
        scale += c * (std::fabs(unit[s].logp) + std::fabs(unit[s].reference) +
                      n * (1 + beyond) / p.beta);
      }
      const double loss_error = double(fabsl(Real(t.loss) - truth)) / scale;
      CHECK(loss_error <= 2e-14, "%s beta %g: S %g R %g L %g: loss %.17g, not %.17Lg", name, p.beta,
            unit[0].logp, unit[0].reference, unit[0].count, t.loss, truth);
      worst_loss = std::max(worst_loss, loss_error);
      if (units.arity == Arity::pair && near_kink(o, unit[0], unit[1], field(fields.margins, 0, 0)))
        continue;
      for (size_t place = 0; place < unit.size(); place++) {
        const Sequence& s = unit[place];
        const double value = t.coefficients[place];
        if (s.count == 0) {
          CHECK(value == 0, "%s: an empty sequence has coefficient %g", name, value);
          continue;
        }
        const Real slope = score_slope(o, s), step = natural_step(o, s, slope);
        auto loss_at = [&](Real logp) {
          batch.logps[place] = logp;
          return share * batch.alignment()[0];
        };
        const Real d = reference::derivative(loss_at, s.logp, step * 1e-2L);
        batch.logps[place] = s.logp;
        const Real bound =
            1e-9L * fabsl(d) + share * (1e-14L * magnitude / step +
                                        1e-12L * p.beta * slope * p.lambda * (1 + p.penalty));
        const Real e = fabsl(Real(value) - d);
        CHECK(e <= bound, "%s beta %g place %zu: S %g R %g L %g: derivative %.17g, not %.17Lg",
              name, p.beta, place, s.logp, s.reference, s.count, value, d);
        // Shown where the finite differences have digits to spare.
        if (fabsl(d) > 1e-290L && 1e-16L * magnitude / step * share < 1e-10L * fabsl(d))
          worst_derivative = std::max(worst_derivative, double(e / fabsl(d)));
      }
    }
    std::printf("       %-17s loss %.1e of its terms, derivative %.1e\n", name, worst_loss,
                worst_derivative);
  }
}

TEST(objectives_slopes_of_a_pair) {
  // Pairwise: a function of the difference, so the slopes are opposite. Pointwise ones are not.
  // Two are called pairwise after their sources, but look at each alone as well.
  for (int m = 0; m < method_count(); m++) {
    const MethodInfo& info = method_info(m);
    if (facts_of(m).arity != Arity::pair) continue;
    check::Random random(uint64_t(m) + 200);
    const bool opposite = std::strcmp(info.ranking, "pairwise") == 0 &&
                          std::strcmp(info.name, "dpop") != 0 &&
                          std::strcmp(info.name, "simper") != 0;
    int unequal = 0;
    for (int k = 0; k < 200; k++) {
      const Objective o = random_objective(m, random);
      const double chosen = random.uniform(-9, 9), rejected = random.uniform(-9, 9);
      const Ranked r = rank(o, {chosen, rejected, chosen - rejected, double(1 + random.below(50)),
                                double(1 + random.below(50)), random.normal(),
                                o.settings.label_smoothing, margin_target(o.settings)});
      const double w = value(r.slope_chosen), l = value(r.slope_rejected);
      if (opposite) CHECK(w + l == 0, "%s: %g and %g", info.name, w, l);
      unequal += w + l != 0;
    }
    if (!opposite) CHECK(unequal > 50, "%s: %d", info.name, unequal);
  }
}

TEST(objectives_policy_is_reference) {
  // At the first step of training: known constants, and a margin of exactly 0.
  const Sequence w{-37.25, 12, -37.25}, l{-91.1, 40, -91.1};
  const double ln2 = std::log(2.0);
  struct Known {
    const char* name;
    double loss, chosen, rejected;
  };
  const double beta = 0.3, e = 0.001;
  const Known all[] = {
      {"dpo", ln2, -beta / 2, beta / 2},
      {"ipo", 1 / (4 * beta * beta), -1 / beta, 1 / beta},
      {"apo_zero", 1, -beta / 4, beta / 4},
      {"apo_down", 1, 0, beta / 4},
      {"nca", 2 * ln2, -beta / 4, beta / 4},
      {"cal_dpo", ln2 + 1 / (2 * beta * beta), -0.5 - 1 / beta, 0.5 + 1 / beta},
      {"sppo_hard", 1 / (2 * beta * beta), -1 / beta, 1 / beta},
      {"bco_pair", 2 * ln2, -beta / 2, beta / 2},
      {"hinge", 1, -beta, beta},
      {"robust", ln2, -beta / 2 / 0.8, beta / 2 / 0.8},
      {"exo_pair", -ln2 - 0.5 * (std::log1p(-e) + std::log(e)),
       -beta / 4 * (std::log1p(-e) - std::log(e)), beta / 4 * (std::log1p(-e) - std::log(e))},
      {"dpop", ln2, -beta / 2, beta / 2},
  };
  for (const Known& k : all) {
    const Objective o = reference::objective(k.name, beta);
    const PairTerms t = evaluate(o, w, l);
    auto near = [](double a, double b) {
      return std::fabs(a - b) <= 4e-15 * std::max(1.0, std::fabs(b));
    };
    CHECK(near(t.loss, k.loss), "%s: %.17g, not %.17g", k.name, t.loss, k.loss);
    CHECK(near(t.coefficient_chosen, k.chosen), "%s: %.17g, not %.17g", k.name,
          t.coefficient_chosen, k.chosen);
    CHECK(near(t.coefficient_rejected, k.rejected), "%s: %.17g, not %.17g", k.name,
          t.coefficient_rejected, k.rejected);
    CHECK(reward(o.settings, w) == 0 && reward(o.settings, l) == 0);
  }
  CHECK(evaluate(reference::objective("dpo", 0.1), w, l).loss == ln2);
}

TEST(objectives_identities) {
  check::Random random(3);
  for (int k = 0; k < 2000; k++) {
    Objective asft = reference::objective("asft", 1), orpo = reference::objective("orpo", 1);
    const Sequence w = random_sequence(asft, random), l = random_sequence(asft, random);
    if (w.count == 0 || l.count == 0) continue;
    const double aw = w.logp / w.count, al = l.logp / l.count;
    // Two binary cross-entropies: -a_w - log(1 - e^a_l).
    const PairTerms a = evaluate(asft, w, l), o = evaluate(orpo, w, l);
    const double expected = -aw - log1mexp(al);
    CHECK(std::fabs(a.loss - expected) <= 1e-13 * (1 + expected), "%.17g, not %.17g", a.loss,
          expected);
    CHECK(std::fabs(a.coefficient_chosen * w.count + 1) <= 1e-12, "%.17g",
          a.coefficient_chosen * w.count);
    CHECK(std::fabs(a.coefficient_rejected * l.count * std::expm1(-al) - 1) <= 1e-12);
    // The odds ratio loss is that, plus log(p_w (1 - p_l) + p_l (1 - p_w)) which is never positive.
    const double mixed = std::log(std::exp(aw) * -std::expm1(al) + std::exp(al) * -std::expm1(aw));
    CHECK(std::fabs(o.loss - a.loss - mixed) <= 1e-13 * (1 + std::fabs(mixed) + a.loss),
          "%.17g, not %.17g", o.loss, a.loss + mixed);
    asft.settings.beta = orpo.settings.beta = random.uniform(0.01, 2);
    CHECK(evaluate(orpo, w, l).loss <= evaluate(asft, w, l).loss * (1 + 1e-14));
    // cal_dpo is dpo at beta 1 plus sppo_hard.
    const double beta = random.uniform(0.01, 1);
    const Sequence rw{w.logp, w.count, w.logp + random.normal()},
        rl{l.logp, l.count, l.logp + random.normal()};
    const double sum = evaluate(reference::objective("dpo", 1), rw, rl).loss +
                       evaluate(reference::objective("sppo_hard", beta), rw, rl).loss;
    CHECK(std::fabs(evaluate(reference::objective("cal_dpo", beta), rw, rl).loss - sum) <=
          1e-13 * sum);
  }
}

TEST(objectives_limits) {
  // Improbable sequences: odds are probabilities, and orpo is simpo without its margin.
  Objective simpo = reference::objective("simpo", 0.7), orpo = reference::objective("orpo", 0.7);
  simpo.settings.gamma = 0;
  const Sequence w{-400, 10, 0}, l{-410, 10, 0};
  const PairTerms s = evaluate(simpo, w, l), o = evaluate(orpo, w, l);
  CHECK(std::fabs(o.loss - s.loss) <= 1e-14 &&
        std::fabs(o.coefficient_chosen - s.coefficient_chosen) <= 1e-14);
  // alpha to 0: alphapo is simpo, the alpha divergence is the reverse KL.
  const Sequence a{-12, 10, -14}, b{-25, 11, -20};
  Objective alphapo = reference::objective("alphapo", 2), dpo = reference::objective("dpo", 0.4),
            alpha = dpo;
  alpha.settings.divergence = 3;
  simpo = reference::objective("simpo", 2);
  for (double x : {0.0, 1e-300, 1e-20, 1e-12, -1e-12, 1e-9}) {
    alphapo.settings.alpha = alpha.settings.alpha = x;
    CHECK(std::fabs(evaluate(alphapo, a, b).loss - evaluate(simpo, a, b).loss) <=
              1e-13 + 40 * std::fabs(x),
          "alpha %g", x);
    CHECK(std::fabs(evaluate(alpha, a, b).coefficient_chosen -
                    evaluate(dpo, a, b).coefficient_chosen) <= 1e-13 + 40 * std::fabs(x),
          "alpha %g", x);
  }
  // Nearly certain sequences: finite at a = 0, and the gradients that objectives.md quotes on the
  // way there.
  orpo = reference::objective("orpo", 0.2);
  const double quoted[][2] = {{-1e-2, -5.3}, {-1e-4, -249}, {-1e-6, -10717}};
  for (const auto& q : quoted) {
    const double g = evaluate(orpo, {q[0], 1, 0}, {-1, 1, 0}).coefficient_chosen;
    CHECK(std::fabs(g / q[1] - 1) < 0.02, "a %g: %g, not %g", q[0], g, q[1]);
  }
  for (const char* name : {"orpo", "asft"}) {
    for (double beta : {0.001, 0.2, 1.0, 2.0}) {
      const Objective odds = reference::objective(name, beta);
      for (const Sequence& certain : {Sequence{0, 5, 0}, Sequence{-0.0, 1, 0},
                                      Sequence{-1e-300, 3, 0}, Sequence{-1e-30, 3, 0}}) {
        for (const PairTerms& t :
             {evaluate(odds, certain, {-3, 4, 0}), evaluate(odds, {-3, 4, 0}, certain),
              evaluate(odds, certain, certain)})
          CHECK(std::isfinite(t.loss) && std::isfinite(t.coefficient_chosen) &&
                    std::isfinite(t.coefficient_rejected),
                "%s beta %g: %g %g %g", name, beta, t.loss, t.coefficient_chosen,
                t.coefficient_rejected);
      }
    }
  }
  // asft at beta 1 keeps -1 / L on the chosen side all the way.
  for (double logp : {-1e-3, -1e-9, -1e-15, -1e-30})
    CHECK(
        std::fabs(
            evaluate(reference::objective("asft", 1), {logp, 4, 0}, {-3, 4, 0}).coefficient_chosen +
            0.25) <= 1e-13);
  // Saturated margins keep their digits: e^-u, not 1 - 1.
  for (double u : {50.0, 300.0, 700.0}) {
    const PairTerms t = evaluate(reference::objective("dpo", 1), {u, 1, 0}, {0, 1, 0});
    CHECK(std::fabs(t.loss / std::exp(-u) - 1) <= 1e-14 &&
              std::fabs(t.coefficient_chosen / std::exp(-u) + 1) <= 1e-14,
          "u %g: %g %g", u, t.loss, t.coefficient_chosen);
    const PairTerms opposite = evaluate(reference::objective("dpo", 1), {-u, 1, 0}, {0, 1, 0});
    CHECK(opposite.loss == u && opposite.coefficient_chosen == -1);
  }
  // The kinks: strictly inside only.
  CHECK(evaluate(reference::objective("hinge", 1), {1, 1, 0}, {0, 1, 0}).coefficient_chosen == 0);
  CHECK(evaluate(reference::objective("hinge", 1), {0.999, 1, 0}, {0, 1, 0}).coefficient_chosen ==
        -1);
  CHECK(evaluate(reference::objective("dpop", 1), {0, 1, 0}, {0, 1, 0}).coefficient_chosen == -0.5);
  CHECK(evaluate(reference::objective("dpop", 1), {-1e-9, 1, 0}, {0, 1, 0}).coefficient_chosen <
        -20);
}

TEST(objectives_extreme_margins) {
  // Finite log-ratios of any size give no NaN anywhere.
  for (int m = 0; m < method_count(); m++) {
    check::Random random(uint64_t(m) + 300);
    const char* name = method_info(m).name;
    for (double w : {-1e6, -1e4, -800.0, -90.0, 0.0, 90.0, 800.0, 1e4, 1e6}) {
      for (double l : {-1e6, -1e4, -800.0, -90.0, 0.0, 90.0, 800.0, 1e4, 1e6}) {
        for (double beta : {1e-5, 0.1, 1.0, 20.0}) {
          Objective o = reference::objective(m, beta);
          const double shift = -2e6;  // log-probabilities stay at most 0
          const bool relative = method_info(m).reference;
          const Sequence a{relative ? w + shift : std::min(w, 0.0), 10, relative ? shift : 0},
              b{relative ? l + shift : std::min(l, 0.0), 10, relative ? shift : 0};
          std::vector<Sequence> unit{a, b};
          if (facts_of(m).arity == Arity::single) unit.pop_back();
          Inputs in = inputs_of(unit);
          in.fields = reference::random_fields(m, in.units(o), 0, false, random);
          const reference::UnitTerms t = reference::unit_terms(o, unit, in.fields.view());
          CHECK(!std::isnan(t.loss), "%s beta %g at %g, %g", name, beta, w, l);
          for (double c : t.coefficients)
            CHECK(!std::isnan(c), "%s beta %g at %g, %g: loss %g", name, beta, w, l, t.loss);
          if (std::strcmp(name, "robust") != 0 && std::strcmp(name, "exo_pair") != 0 &&
              std::strcmp(name, "simper") != 0)
            CHECK(t.loss >= 0, "%s beta %g at %g, %g: %g", name, beta, w, l, t.loss);
        }
      }
    }
  }
}

TEST(objectives_not_a_number_stays) {
  // A NaN log-probability is a NaN loss, never a plausible number.
  check::Random random(301);
  for (int m = 0; m < method_count(); m++) {
    const Objective o = reference::objective(m, 0.5);
    std::vector<Sequence> sound(facts_of(m).arity == Arity::single ? 1 : 2, Sequence{-5, 4, -3});
    Inputs in = inputs_of(sound);
    in.fields = reference::random_fields(m, in.units(o), 0, false, random);
    for (size_t place = 0; place < sound.size(); place++) {
      std::vector<Sequence> unit = sound;
      unit[place].logp = std::numeric_limits<double>::quiet_NaN();
      CHECK(std::isnan(reference::unit_terms(o, unit, in.fields.view()).loss), "%s, place %zu",
            reference::name_of(o), place);
    }
  }
}

TEST(objectives_batches) {
  // A whole batch: loss, losses, coefficients and the likelihood's, against finite differences of
  // the loss of the batch.
  for (int m = 0; m < method_count(); m++) {
    check::Random random(uint64_t(m) + 400);
    const char* name = method_info(m).name;
    for (int k = 0; k < (check::slow ? 8 : 60); k++) {
      Objective o = random_objective(m, random);
      const MethodFacts facts = facts_of(m);
      if (reference::takes_likelihood(o)) o.settings.sft_weight = k % 2 ? random.uniform(0, 2) : 0;
      if (facts.is_linear || o.settings.sft_weight != 0)
        o.settings.sft_reduction = double(random.below(3));
      if (method_info(m).reference && k % 5 == 0) o.settings.reference_free = 1;
      // Without a reference the scores are log-probabilities, and those of the exponential
      // divergences astronomical.
      if (o.settings.reference_free != 0) o.settings.divergence = 0;
      o = make_objective(m, o.settings);
      const int64_t sequences = (facts.arity == Arity::pair ? 2 : 1) * (1 + random.below(6));
      const Inputs in = random_inputs(o, sequences, k % 3 == 0, random);
      const size_t pairs = size_t(in.units(o).count);
      bool kink = false;
      for (size_t i = 0; i < pairs && facts.arity == Arity::pair; i++)
        kink = kink || near_kink(o, in.sequence(o, i), in.sequence(o, i + pairs),
                                 field(in.fields.view().margins, int64_t(i), 0));
      const Outcome out = run(o, in);
      reference::Batch truth = in.truth(o);
      const std::vector<Real> losses = truth.losses();
      const Real loss = truth.loss();
      if (!(fabsl(loss) < 1e200L)) continue;
      Real scale = 0;
      for (Real x : losses) scale += fabsl(x);
      for (size_t s = 0; s < in.logps.size(); s++)
        scale += std::fabs(out.coefficients[s]) *
                 (std::fabs(in.logps[s]) + std::fabs(in.references[s]) + 1000 / o.settings.beta);
      CHECK(out.losses.size() == losses.size());
      for (size_t i = 0; i < losses.size(); i++)
        CHECK(fabsl(out.losses[i] - losses[i]) <= 1e-13L * scale, "%s pair %zu: %.17g, not %.17Lg",
              name, i, out.losses[i], losses[i]);
      CHECK(fabsl(out.loss - loss) <= 1e-13L * scale, "%s: %.17g, not %.17Lg", name, out.loss,
            loss);
      if (kink) continue;
      for (size_t s = 0; s < in.logps.size(); s++) {
        if (in.lengths[s] == 0) {
          CHECK(out.coefficients[s] == 0, "%s: an empty sequence has coefficient %g", name,
                out.coefficients[s]);
          continue;
        }
        const Sequence sequence = in.sequence(o, s);
        // Small enough that no two scores of the sort change places.
        const Real slope = score_slope(o, sequence),
                   step =
                       (facts.scope != Scope::unit ? 1e-3L : 1) * natural_step(o, sequence, slope);
        auto by = [&](std::vector<Real>& values) {
          const Real kept = values[s];
          const Real d = reference::derivative(
              [&](Real x) {
                values[s] = x;
                return truth.loss();
              },
              kept, step * 1e-2L);
          values[s] = kept;
          return d;
        };
        const Real bound =
            1e-14L * scale / step + 1e-12L * o.settings.beta * slope * (1 + o.settings.penalty);
        const Real d = by(truth.logps);
        CHECK(fabsl(out.coefficients[s] - d) <= 1e-8L * fabsl(d) + bound,
              "%s sequence %zu: %.17g, not %.17Lg", name, s, out.coefficients[s], d);
        const Real likelihood = by(truth.sft_logps);
        CHECK(fabsl(out.likelihood[s] - likelihood) <= 1e-8L * fabsl(likelihood) + bound,
              "%s sequence %zu: likelihood %.17g, not %.17Lg", name, s, out.likelihood[s],
              likelihood);
      }
      // In pieces, bit for bit.
      const Outcome pieces = run(o, in, 2);
      CHECK(pieces.losses == out.losses && pieces.coefficients == out.coefficients &&
                pieces.rewards == out.rewards && pieces.metrics == out.metrics &&
                pieces.loss == out.loss,
            "%s", name);
    }
  }
}

TEST(objectives_sorted_batches) {
  // Ties stay in index order, and a NaN comes last: it must not disturb the order of the others.
  Objective o = reference::objective("aot_unpaired", 0.5);
  const double nan_value = std::numeric_limits<double>::quiet_NaN();
  Inputs in;
  in.logps = {-3, -5, -3, -3, -4, -6, -4, -9};
  in.sft_logps = in.logps;
  in.references = std::vector<double>(8, 0);
  in.lengths = in.sft_lengths = std::vector<double>(8, 2);
  const Outcome a = run(o, in);
  // Ranks: -5 -3 -3 -3 against -9 -6 -4 -4.
  for (double margin : {4.0, 3.0, 1.0}) {
    bool found = false;
    for (double x : a.losses) found = found || std::fabs(x - softplus(-0.5 * margin)) < 1e-15;
    CHECK(found, "%g", margin);
  }
  CHECK(a.coefficients[0] == -0.5 / 4 * sigmoid(-1.5), "%g",
        a.coefficients[0]);  // the first of the tied, against -6
  CHECK(a.coefficients[2] == -0.5 / 4 * sigmoid(-0.5) && a.coefficients[3] == a.coefficients[2]);
  in.logps[1] = nan_value;
  const Outcome b = run(o, in);
  CHECK(std::isnan(b.losses[3]) && std::isfinite(b.losses[0]) && std::isfinite(b.losses[1]) &&
        std::isfinite(b.losses[2]));
  CHECK(b.metrics[nonfinite] == 1 || b.metrics[nonfinite] == 2, "%g", b.metrics[nonfinite]);
}

TEST(objectives_metrics) {
  Objective o = reference::objective("dpo", 0.25);
  Inputs in;
  in.logps = {-10, -20, -8, -12, -18, 0};
  in.sft_logps = in.logps;
  in.references = {-12, -19, -8, -13, -19, 0};
  in.lengths = in.sft_lengths = {4, 5, 2, 6, 3, 0};
  const Outcome a = run(o, in);
  auto near = [](double x, double y) { return std::fabs(x - y) <= 1e-14; };
  CHECK(near(a.metrics[rewards_chosen], 0.25 * (2 - 1 + 0) / 3));
  CHECK(near(a.metrics[rewards_rejected], 0.25 * (1 + 1 + 0) / 3));
  CHECK(near(a.metrics[rewards_margins], 0.25 * (1 - 2 + 0) / 3));
  CHECK(near(a.metrics[rewards_accuracies], 1.0 / 3), "%g",
        a.metrics[rewards_accuracies]);  // equal rewards are not right
  CHECK(near(a.metrics[logps_chosen], -38.0 / 3) && near(a.metrics[logps_rejected], -10));
  CHECK(a.metrics[empty_sequences] == 1 && a.metrics[nonfinite] == 0);
  // One pair that is not finite says so and leaves the others alone.
  in.logps[1] = -infinity;
  const Outcome b = run(o, in);
  CHECK(b.metrics[nonfinite] == 1 && b.losses[0] == a.losses[0] && b.losses[2] == a.losses[2] &&
        b.coefficients[0] == a.coefficients[0]);
  CHECK(b.losses[1] == infinity);
  // No pairs at all.
  const Outcome none = run(o, {});
  CHECK(none.loss == 0 && none.metrics[nonfinite] == 0);
}

TEST(objectives_permuted_pairs) {
  // Bit for bit the same numbers, in the new order.
  for (int m = 0; m < method_count(); m++) {
    const Objective o = reference::objective(m, 0.5);
    if (facts_of(m).scope != Scope::unit || facts_of(m).arity == Arity::group) continue;
    check::Random random(uint64_t(m) + 500);
    const Inputs in = random_inputs(o, 12, true, random);
    const int64_t units = in.units(o).count;
    Inputs reversed = in;
    auto reverse = [&](auto& v) {
      std::reverse(v.begin(), v.begin() + units);
      std::reverse(v.begin() + units, v.end());
    };
    reverse(reversed.logps), reverse(reversed.sft_logps), reverse(reversed.references),
        reverse(reversed.lengths), reverse(reversed.sft_lengths);
    for (const FieldInfo& field : field_infos)
      if (field.per == Per::unit || field.per == Per::sequence)
        if (std::vector<double>& values = reversed.fields[field.data]; !values.empty())
          reverse(values);
    Outcome a = run(o, in);
    const Outcome b = run(o, reversed);
    std::reverse(a.losses.begin(), a.losses.end());
    reverse(a.coefficients), reverse(a.rewards);
    CHECK(a.losses == b.losses && a.coefficients == b.coefficients && a.rewards == b.rewards, "%s",
          reference::name_of(o));
  }
}
