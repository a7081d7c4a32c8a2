// The objectives by definition, in long double and from the formulas of docs/methods.md alone: what
// the tests hold the library to. Derivatives come from finite differences, so nothing here can
// share a mistake in a derivative with the code under test.
#pragma once
#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <string>
#include <vector>
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

/// The alignment term of a pair as a function of both sequences, `lambda` included.
inline Real pair_loss(const std::string& method, const diralign::Settings& o,
                      const Sequence& chosen, const Sequence& rejected) {
  const Real beta = o.beta, e = o.label_smoothing, rw = log_ratio(chosen, o),
             rl = log_ratio(rejected, o), u = beta * (rw - rl);
  auto smoothed = [&](Real x) { return (1 - e) * softplus(-x) + (e == 0 ? 0 : e * softplus(x)); };
  const Real calibration =
      (rw - 1 / (2 * beta)) * (rw - 1 / (2 * beta)) + (rl + 1 / (2 * beta)) * (rl + 1 / (2 * beta));
  if (method == "sft") return -rw;
  if (method == "dpo") return smoothed(beta * (divergence_score(rw, o) - divergence_score(rl, o)));
  if (method == "cpo" || method == "aot" || method == "aot_unpaired") return smoothed(u);
  if (method == "ipo") return (rw - rl - 1 / (2 * beta)) * (rw - rl - 1 / (2 * beta));
  if (method == "simpo") return smoothed(u - o.gamma);
  if (method == "alphapo")
    return smoothed(beta * (box_cox(rw, o.alpha) - box_cox(rl, o.alpha)) - o.gamma);
  if (method == "orpo")
    return o.lambda * softplus(-beta * (log_odds(chosen, o) - log_odds(rejected, o)));
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
  if (method == "dpop") return softplus(-beta * (rw - rl - o.penalty * std::max(Real(0), -rw)));
  return NAN;
}

/// Everything a batch's loss depends on; `reference` holds zeros where none is used.
struct Batch {
  std::string method;
  diralign::Settings settings;
  bool likelihood_only;
  diralign::Scope scope;
  std::vector<Real> logps, sft_logps, references;
  std::vector<int32_t> counts, sft_counts;

  Batch(const diralign::Objective& o, std::vector<Real> logps_, std::vector<Real> sft_logps_,
        std::vector<int32_t> counts_, std::vector<int32_t> sft_counts_, const double* references_)
      : method(o.info().name),
        settings(o.settings),
        likelihood_only(o.facts().arity == diralign::Arity::single),
        scope(o.facts().scope),
        logps(std::move(logps_)),
        sft_logps(std::move(sft_logps_)),
        references(logps.size(), 0),
        counts(std::move(counts_)),
        sft_counts(std::move(sft_counts_)) {
    if (references_ && o.uses_reference())
      std::copy(references_, references_ + logps.size(), references.begin());
  }

  size_t sequences() const { return logps.size(); }
  size_t pairs() const { return likelihood_only ? sequences() : sequences() / 2; }
  Sequence sequence(size_t s) const { return {logps[s], Real(counts[s]), references[s]}; }

  Real nll(size_t pair) const {
    return -sft_logps[pair] / (settings.normalize != 0 ? std::max(1, sft_counts[pair]) : 1);
  }
  Real token_nll(const std::vector<Real>& from, const std::vector<int32_t>& tokens) const {
    Real sum = 0, n = 0;
    for (size_t i = 0; i < pairs(); i++) sum -= from[i], n += tokens[i];
    return n > 0 ? sum / n : 0;
  }

  /// Alignment terms, by pair; for the coupled ones by rank.
  std::vector<Real> alignment() const {
    const size_t n = pairs();
    std::vector<Real> terms;
    if (scope == diralign::Scope::unit) {
      for (size_t i = 0; i < n; i++)
        terms.push_back(pair_loss(method, settings, sequence(i),
                                  likelihood_only ? Sequence{0, 0, 0} : sequence(i + n)));
      return terms;
    }
    std::vector<Real> upper, lower;
    for (size_t i = 0; i < n; i++) {
      const Sequence w = sequence(i), l = sequence(i + n);
      if (scope == diralign::Scope::sorted_margins) {
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

  std::vector<Real> losses() const {
    std::vector<Real> all = alignment();
    for (size_t i = 0; i < pairs(); i++) {
      if (likelihood_only && settings.sft_reduction != 0)
        all[i] = counts[i] == 0 ? 0
                                : -logps[i] * Real(pairs()) /
                                      std::accumulate(counts.begin(), counts.end(), Real(0));
      if (settings.sft_weight != 0)
        all[i] += settings.sft_weight *
                  (settings.sft_reduction != 0 ? token_nll(sft_logps, sft_counts) : nll(i));
    }
    return all;
  }
  Real loss() const {
    const std::vector<Real> all = losses();
    return all.empty() ? 0 : std::accumulate(all.begin(), all.end(), Real(0)) / Real(all.size());
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
  return {method, o};
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

/// The terms of one pair, as the library has them: of a sequence and nothing where the method
/// compares none.
inline diralign::PairTerms pair_terms(const diralign::Objective& o,
                                      const diralign::Sequence& chosen,
                                      const diralign::Sequence& rejected) {
  const double logps[] = {chosen.logp, rejected.logp},
               references[] = {chosen.reference, rejected.reference};
  const int32_t counts[] = {int32_t(chosen.count), int32_t(rejected.count)};
  const bool single = o.facts().arity == diralign::Arity::single;
  diralign::BatchTerms terms = batch_terms(o, o.units(single ? 1 : 2), counts, counts, references);
  terms.reference = references;
  double coefficients[2] = {};
  const double loss = terms.is_sorted()
                          ? terms.evaluate_rank(logps, terms.upper_score(logps, 0),
                                                terms.lower_score(logps, 0), 0, 0, coefficients)
                          : terms.evaluate(logps, 0, coefficients);
  return {loss, coefficients[0], coefficients[1]};
}

}  // namespace reference
