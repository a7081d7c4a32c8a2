// The objectives by definition, in long double and from the formulas of docs/methods.md alone: what
// the tests hold the library to. Derivatives come from finite differences, so nothing here can
// share a mistake in a derivative with the code under test.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <iterator>
#include <string>
#include <vector>
#include "check.h"
#include "objectives/batch_loss.h"
#include "objectives/catalogue.h"

namespace reference {

using Real = long double;

inline Real softplus(Real x) { return x > 0 ? x + log1pl(expl(-x)) : log1pl(expl(x)); }
inline Real sigmoid(Real x) { return x < 0 ? expl(x) / (1 + expl(x)) : 1 / (1 + expl(-x)); }
inline Real log1mexp(Real a) { return a > -0.693L ? logl(-expm1l(a)) : log1pl(-expl(a)); }

struct Sequence {
  Real logp;
  Real count;
  Real reference;
};

/// (S - R) / L or S - R; 0 for an empty sequence.
inline Real log_ratio(const Sequence& s, const diralign::Settings& o) {
  if (s.count == 0) return 0;
  return (s.logp - s.reference) / (o.normalize != 0 ? s.count : 1);
}
inline Real log_odds(const Sequence& s, const diralign::Settings& o) {
  if (s.count == 0) return 0;
  const Real a = std::min(s.logp / (o.normalize != 0 ? s.count : 1), -1e-37L);
  return a - log1mexp(a);
}
inline Real box_cox(Real x, Real alpha) { return alpha == 0 ? x : -expm1l(-alpha * x) / alpha; }
inline Real divergence_score(Real r, const diralign::Settings& o) {
  switch (int(o.divergence)) {
    case 1: return -expl(-r);
    case 2: return -softplus(-r);
    case 3: return box_cox(r, o.alpha);
    default: return r;
  }
}

/// Weights and a number of its own where a batch has none: what stands for them is in the formulas.
inline Real own(const double* values, int64_t i, Real otherwise) {
  return values ? Real(values[i]) : otherwise;
}

/// The alignment term of a pair, the `unit`-th of its batch, as a function of both sequences,
/// `lambda` included.
inline Real pair_loss(const std::string& method, const diralign::Settings& o,
                      const Sequence& chosen, const Sequence& rejected,
                      const diralign::Fields& fields = {}, int64_t unit = 0) {
  const Real beta = o.beta, rw = log_ratio(chosen, o), rl = log_ratio(rejected, o),
             e = fields.preferences ? 1 - Real(fields.preferences[unit]) : Real(o.label_smoothing),
             margin = own(fields.margins, unit, 0), u = beta * (rw - rl) - margin;
  auto smoothed = [&](Real x) { return (1 - e) * softplus(-x) + (e == 0 ? 0 : e * softplus(x)); };
  auto squared = [](Real x) { return x * x; };
  const Real calibration = squared(rw - 1 / (2 * beta)) + squared(rl + 1 / (2 * beta));
  if (method == "dpo")
    return smoothed(beta * (divergence_score(rw, o) - divergence_score(rl, o)) - margin);
  if (method == "cpo" || method == "aot" || method == "aot_unpaired") return smoothed(u);
  if (method == "ipo") return squared(rw - rl - own(fields.targets, unit, 1 / (2 * beta)));
  if (method == "simpo") return smoothed(u - o.gamma);
  if (method == "alphapo")
    return smoothed(beta * (box_cox(rw, o.alpha) - box_cox(rl, o.alpha)) - o.gamma - margin);
  if (method == "orpo")
    return o.lambda * softplus(margin - beta * (log_odds(chosen, o) - log_odds(rejected, o)));
  if (method == "asft")
    return o.lambda *
           (softplus(-beta * log_odds(chosen, o)) + softplus(beta * log_odds(rejected, o)));
  if (method == "apo_zero") return sigmoid(-beta * rw) + sigmoid(beta * rl);  // 1 - sg(x) = sg(-x)
  if (method == "apo_down") return sigmoid(beta * rw) + sigmoid(-u);
  if (method == "nca")
    return softplus(-beta * rw) + softplus(beta * rw) / 2 + softplus(beta * rl) / 2;
  if (method == "cal_dpo") return softplus(-(rw - rl)) + o.calibration_weight * calibration;
  if (method == "sppo_hard") return calibration;
  if (method == "hinge") return std::max(Real(0), 1 - u);
  if (method == "robust") return ((1 - e) * softplus(-u) - e * softplus(u)) / (1 - 2 * e);
  if (method == "exo_pair") {
    const Real q = sigmoid(u), p = sigmoid(-u);
    return q * (-softplus(-u) - log1pl(-e)) + p * (-softplus(u) - logl(e));
  }
  if (method == "bco_pair") return softplus(-beta * rw) + softplus(beta * rl);
  if (method == "discopop") {
    const Real m = sigmoid(u / o.tau);
    return (1 - m) * softplus(-u) + expl(-u - softplus(-u / o.tau));
  }
  if (method == "r_dpo") return softplus(-(u + o.alpha * (chosen.count - rejected.count)));
  if (method == "dpop")
    return softplus(margin - beta * (rw - rl - o.penalty * std::max(Real(0), -rw)));
  if (method == "simper") return expl(rl) - expl(rw);
  return NAN;
}

/// The alignment term of a sequence, the `unit`-th of its batch.
inline Real single_loss(const std::string& method, const diralign::Settings& o, const Sequence& s,
                        const diralign::Fields& fields, int64_t unit) {
  if (method == "sft")
    return s.count == 0 ? 0 : -s.logp / (o.normalize != 0 || o.sft_reduction == 2 ? s.count : 1);
  const bool desirable = fields.desirable[unit] != 0;
  const Real u = o.beta * log_ratio(s, o),
             weight = desirable ? o.desirable_weight : o.undesirable_weight;
  auto gain = [&](Real baseline) { return desirable ? u - baseline : baseline - u; };
  if (method == "kto") return weight * sigmoid(-gain(o.beta * Real(*fields.kl)));
  if (method == "apo_zero_unpaired") return weight * sigmoid(-gain(0));
  if (method == "bco") return weight * softplus(-gain(own(fields.shift, 0, 0)));
  return NAN;
}

/// The loss of a group, whose first candidate is the `first`-th sequence of its batch.
inline Real group_loss(const std::string& method, const diralign::Settings& o,
                       const std::vector<Sequence>& group, const diralign::Fields& fields,
                       size_t first) {
  const size_t size = group.size();
  std::vector<Real> u;
  for (const Sequence& s : group) u.push_back(o.beta * log_ratio(s, o));
  auto logsumexp = [](const std::vector<Real>& x) {
    const Real max = *std::max_element(x.begin(), x.end());
    Real sum = 0;
    for (Real v : x) sum += expl(v - max);
    return max + logl(sum);
  };
  Real loss = 0;
  if (method == "plackett_luce") {
    std::vector<Real> left;
    for (size_t k = size; k-- > 0;) {
      left.push_back(u[size_t(fields.best_first[first + k])]);
      loss += logsumexp(left) - left.back();
    }
    return loss;
  }
  std::vector<Real> rewards;
  for (size_t k = 0; k < size; k++)
    rewards.push_back(Real(fields.rewards[first + k]) / o.reward_temperature);
  for (size_t k = 0; k < size; k++) {
    const Real y = expl(rewards[k] - logsumexp(rewards));
    if (method == "info_nca") loss += y == 0 ? 0 : y * (logsumexp(u) - u[k]);
    else if (method == "nca_listwise") loss += y * softplus(-u[k]) + softplus(u[k]) / Real(size);
    else return NAN;
  }
  return loss;
}

inline const char* name_of(const diralign::Objective& o) {
  return diralign::method_info(o.method).name;
}
inline diralign::MethodFacts facts(const diralign::Objective& o) {
  return diralign::facts_of(o.method);
}

/// Whether a likelihood term may be added to it.
inline bool takes_likelihood(const diralign::Objective& o) {
  return !facts(o).is_linear && facts(o).arity != diralign::Arity::group;
}

/// What a batch carries besides, in memory of its own.
struct OwnFields {
  std::array<std::vector<double>, std::size(diralign::field_infos)> values;

  std::vector<double>& operator[](diralign::FieldData data) {
    size_t i = 0;
    while (diralign::field_infos[i].data != data) i++;
    return values[i];
  }
  diralign::Fields view() const {
    diralign::Fields fields;
    for (size_t i = 0; i < values.size(); i++)
      if (!values[i].empty()) fields.*diralign::field_infos[i].data = values[i].data();
    return fields;
  }
};
/// Drawn at random: what the method needs; and all that it takes, where `optional`.
inline OwnFields random_fields(int method, const diralign::Units& units, int64_t rows,
                               bool optional, check::Random& random) {
  using diralign::FieldKind;
  OwnFields fields;
  for (const diralign::MethodField& field : diralign::method_fields(method)) {
    if (!field.needed && !optional) continue;
    std::vector<double>& values = fields[field.info->data];
    const diralign::Interval& may = field.interval;
    const size_t length = field.info->length(units, rows);
    if (field.info->kind == FieldKind::rank) {
      for (int64_t unit = 0; unit < units.count; unit++) {
        const size_t first = values.size();
        for (int64_t k = 0; k < units.size(unit); k++) {
          values.push_back(double(k));
          std::swap(values.back(), values[first + size_t(random.below(k + 1))]);
        }
      }
      continue;
    }
    for (size_t i = 0; i < length; i++)
      values.push_back(field.info->kind == FieldKind::flag ? double(random.below(2))
                       : may.max <= 1 ? may.min + (may.max - may.min) * random.uniform(0.1, 0.9)
                       : may.min >= 0 ? random.uniform(0.1, 2)
                                      : random.normal());
  }
  return fields;
}

/// Everything a batch's loss depends on; `references` holds zeros where none is used.
struct Batch {
  std::string method;
  diralign::Settings settings;
  diralign::MethodFacts facts;
  diralign::Units units;
  diralign::Fields fields;
  std::vector<Real> logps, sft_logps, references;
  std::vector<double> lengths, sft_lengths;

  Batch(const diralign::Objective& o, const diralign::Units& units_,
        const diralign::Fields& fields_, std::vector<Real> logps_, std::vector<Real> sft_logps_,
        std::vector<double> lengths_, std::vector<double> sft_lengths_, const double* references_)
      : method(name_of(o)),
        settings(o.settings),
        facts(reference::facts(o)),
        units(units_),
        fields(fields_),
        logps(std::move(logps_)),
        sft_logps(std::move(sft_logps_)),
        references(logps.size(), 0),
        lengths(std::move(lengths_)),
        sft_lengths(std::move(sft_lengths_)) {
    if (references_ && o.uses_reference)
      std::copy(references_, references_ + logps.size(), references.begin());
  }

  Sequence sequence(size_t s) const { return {logps[s], Real(lengths[s]), references[s]}; }
  bool likely(size_t s) const {
    return units.arity == diralign::Arity::pair     ? s < size_t(units.count)
           : units.arity == diralign::Arity::single ? own(fields.desirable, int64_t(s), 1) != 0
                                                    : false;
  }
  Real denominator() const { return own(fields.denominator, 0, Real(units.count)); }
  Real weight(int64_t unit) const { return own(fields.weights, unit, 1); }

  /// Alignment terms, by unit; of a sorted method by rank.
  std::vector<Real> alignment() const {
    const size_t n = size_t(units.count);
    std::vector<Real> terms;
    if (facts.scope == diralign::Scope::unit) {
      for (size_t i = 0; i < n; i++) {
        const int64_t unit = int64_t(i);
        if (units.arity == diralign::Arity::single) {
          terms.push_back(single_loss(method, settings, sequence(i), fields, unit));
        } else if (units.arity == diralign::Arity::pair) {
          terms.push_back(pair_loss(method, settings, sequence(i), sequence(i + n), fields, unit));
        } else {
          std::vector<Sequence> group;
          for (int32_t s = units.offsets[i]; s < units.offsets[i + 1]; s++)
            group.push_back(sequence(size_t(s)));
          terms.push_back(group_loss(method, settings, group, fields, size_t(units.offsets[i])));
        }
      }
      return terms;
    }
    std::vector<Real> upper, lower;
    for (size_t i = 0; i < n; i++) {
      const Sequence w = sequence(i), l = sequence(i + n);
      if (facts.scope == diralign::Scope::sorted_margins) {
        upper.push_back(log_ratio({w.logp, w.count, 0}, settings) -
                        log_ratio({l.logp, l.count, 0}, settings));
        lower.push_back(log_ratio({w.reference, w.count, 0}, settings) -
                        log_ratio({l.reference, l.count, 0}, settings));
      } else {
        upper.push_back(log_ratio(w, settings));
        lower.push_back(log_ratio(l, settings));
      }
    }
    std::sort(upper.begin(), upper.end());
    std::sort(lower.begin(), lower.end());
    diralign::Settings plain = settings;
    plain.normalize = 0;
    for (size_t i = 0; i < n; i++)
      terms.push_back(pair_loss(method, plain, {upper[i], 1, 0}, {lower[i], 1, 0}));
    return terms;
  }

  bool over_tokens() const { return settings.sft_reduction == 1; }
  /// What one sequence adds to a likelihood term over tokens.
  Real token_nll(Real logp) const {
    Real n = 0;
    for (size_t s = 0; s < logps.size(); s++) n += likely(s) ? sft_lengths[s] : 0;
    n = own(fields.sft_denominator, 0, n);
    return n > 0 ? -logp / n : 0;
  }

  std::vector<Real> losses() const {
    std::vector<Real> all = alignment();
    Real weights = 0, nll = 0;
    for (int64_t u = 0; u < units.count; u++) weights += weight(u);
    for (size_t s = 0; s < logps.size(); s++)
      if (likely(s)) nll += weight(units.unit_of(int64_t(s))) * token_nll(sft_logps[s]);
    for (size_t i = 0; i < all.size(); i++) {
      if (facts.is_linear && settings.sft_weight != 0) all[i] = 0;  // that of a mixture
      else if (facts.is_linear && over_tokens()) all[i] = token_nll(logps[i]) * denominator();
      if (settings.sft_weight == 0) continue;
      if (over_tokens()) {
        all[i] += settings.sft_weight * nll * denominator() / weights;
      } else if (likely(i)) {
        const bool per_token = settings.normalize != 0 || settings.sft_reduction == 2;
        all[i] -= settings.sft_weight * sft_logps[i] /
                  (per_token && sft_lengths[i] > 0 ? Real(sft_lengths[i]) : 1);
      }
    }
    return all;
  }
  Real loss() const {
    const std::vector<Real> all = losses();
    Real sum = 0;
    for (size_t i = 0; i < all.size(); i++)
      if (weight(int64_t(i)) != 0) sum += weight(int64_t(i)) * all[i];
    return all.empty() ? 0 : sum / denominator();
  }
};

/// df/dx by central differences of three steps, extrapolated: the error is of the order of step^6.
inline Real derivative(const std::function<Real(Real)>& f, Real x, Real step) {
  Real d[3];
  for (int k = 0; k < 3; k++) {
    const Real h = step / Real(1 << k);
    d[k] = (f(x + h) - f(x - h)) / (2 * h);
  }
  const Real first = (4 * d[1] - d[0]) / 3, second = (4 * d[2] - d[1]) / 3;
  return (16 * second - first) / 15;
}

/// The method of that name, or -1.
inline int method_named(const std::string& name) {
  for (int m = 0; m < diralign::method_count(); m++)
    if (diralign::method_info(m).name == name) return m;
  return -1;
}

/// An objective with the method's defaults.
inline diralign::Objective objective(int method, double beta) {
  const diralign::MethodInfo& info = diralign::method_info(method);
  diralign::Settings o{};
  o.beta = beta;
  o.normalize = info.normalize;
  o.lambda = 1;
  for (const diralign::Option& option : info.options)
    if (option.name) o.*option.setting = option.fallback;
  return diralign::make_objective(method, o);
}
inline diralign::Objective objective(const std::string& name, double beta) {
  return objective(method_named(name), beta);
}

inline const diralign::Option* option_of(int method, diralign::Setting setting) {
  for (const diralign::Option& option : diralign::method_info(method).options)
    if (option.name && option.setting == setting) return &option;
  return nullptr;
}
inline bool has_option(int method, diralign::Setting setting) {
  return option_of(method, setting) != nullptr;
}

/// The loss of one unit and the derivatives by its log-probabilities, as the library has them.
struct UnitTerms {
  double loss;
  std::vector<double> coefficients;
};
inline UnitTerms unit_terms(const diralign::Objective& o,
                            const std::vector<diralign::Sequence>& sequences,
                            const diralign::Fields& fields) {
  const int64_t n = int64_t(sequences.size());
  const int32_t offsets[] = {0, int32_t(n)};
  std::vector<double> logps, lengths, references, coefficients(sequences.size(), 0),
      scratch(sequences.size(), 0);
  for (const diralign::Sequence& s : sequences)
    logps.push_back(s.logp), lengths.push_back(s.count), references.push_back(s.reference);
  diralign::BatchTerms terms =
      batch_terms(&o, 1,
                  {diralign::units_of(o.method, n, offsets, 1), lengths.data(), lengths.data(),
                   references.data(), fields});
  const double* const s = logps.data();
  const double loss =
      terms.is_sorted()
          ? terms.evaluate_rank(o, s, terms.upper_score(o, s, 0), terms.lower_score(o, s, 0), 0, 0,
                                false, coefficients.data())
          : terms.evaluate(o, s, 0, false, coefficients.data(), scratch.data());
  return {loss, coefficients};
}
/// Of a pair; of the first alone where the method compares none.
inline diralign::PairTerms pair_terms(const diralign::Objective& o,
                                      const diralign::Sequence& chosen,
                                      const diralign::Sequence& rejected,
                                      const diralign::Fields& fields = {}) {
  if (facts(o).arity == diralign::Arity::single) {
    const UnitTerms t = unit_terms(o, {chosen}, fields);
    return {t.loss, t.coefficients[0], 0};
  }
  const UnitTerms t = unit_terms(o, {chosen, rejected}, fields);
  return {t.loss, t.coefficients[0], t.coefficients[1]};
}

}  // namespace reference
