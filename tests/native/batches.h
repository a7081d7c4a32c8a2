// Batches of sequences drawn at random, by their log-probabilities, and what the library makes of
// them.
#pragma once
#include <cfloat>
#include <numeric>
#include "reference.h"

namespace batches {

using namespace diralign;

/// Options drawn from their domains.
inline Objective random_objective(int method, check::Random& random) {
  Objective o =
      reference::objective(method, std::exp(random.uniform(std::log(1e-3), std::log(4.0))));
  Settings& s = o.settings;
  if (random.below(3) == 0) s.normalize = 1 - s.normalize;
  const Option* const smoothing = reference::option_of(method, &Settings::label_smoothing);
  if (smoothing && random.below(3))
    s.label_smoothing =
        random.uniform(smoothing->interval.above ? 1e-4 : 0, smoothing->interval.max - 0.01);
  if (reference::has_option(method, &Settings::gamma) && random.below(3))
    s.gamma = random.uniform(-2, 2);
  if (reference::has_option(method, &Settings::lambda) && random.below(3))
    s.lambda = random.uniform(0, 3);
  if (reference::has_option(method, &Settings::calibration_weight) && random.below(3))
    s.calibration_weight = random.uniform(0, 2);
  if (reference::has_option(method, &Settings::divergence)) s.divergence = double(random.below(4));
  if (reference::has_option(method, &Settings::alpha) && random.below(3))
    s.alpha = random.below(4) ? random.uniform(-1, 1) : 0;
  if (reference::has_option(method, &Settings::tau) && random.below(3))
    s.tau = random.uniform(0.02, 2);
  if (reference::has_option(method, &Settings::penalty) && random.below(3))
    s.penalty = random.uniform(0, 60);
  for (const Setting setting :
       {&Settings::desirable_weight, &Settings::undesirable_weight, &Settings::reward_temperature})
    if (reference::has_option(method, setting) && random.below(3))
      s.*setting = random.uniform(0.3, 3);
  return o;
}

inline Sequence random_sequence(const Objective& o, check::Random& random) {
  Sequence s{};
  s.count = double(random.below(20) == 0 ? 0 : 1 + random.below(random.below(2) ? 5 : 300));
  s.logp = -s.count * std::exp(random.uniform(std::log(1e-4), std::log(8.0)));
  // Exponential scores of whole sequences overflow by design; they are for log-ratios near 0.
  const bool exponential = o.settings.divergence == 1 || o.settings.divergence == 3 ||
                           std::strcmp(reference::name_of(o), "alphapo") == 0;
  if (exponential && o.settings.normalize == 0) s.logp = std::max(s.logp, -20 * random.uniform());
  if (method_info(o.method).reference)
    s.reference = s.logp + (exponential ? 3 : 8) * random.normal();
  if (s.count == 0) s.logp = s.reference = 0;
  return s;
}

/// The outputs of one run of BatchLoss.
struct Outcome {
  std::vector<double> losses, rewards, coefficients, metrics, likelihood, values;
  double loss;
};
struct Inputs {
  std::vector<double> logps, sft_logps, references, lengths, sft_lengths;
  std::vector<int32_t> groups;
  reference::OwnFields fields;

  Units units(const Objective& o) const {
    return units_of(o.method, int64_t(logps.size()), groups.data(), int64_t(groups.size()) - 1);
  }
  Sequence sequence(const Objective& o, size_t s) const {
    return {logps[s], lengths[s], o.uses_reference ? references[s] : 0};
  }
  reference::Batch truth(const Objective& o) const {
    return {o,
            units(o),
            fields.view(),
            {logps.begin(), logps.end()},
            {sft_logps.begin(), sft_logps.end()},
            lengths,
            sft_lengths,
            references.data()};
  }
};
/// Of one unit.
inline Inputs inputs_of(const std::vector<Sequence>& unit) {
  Inputs in;
  for (const Sequence& s : unit)
    in.logps.push_back(s.logp), in.lengths.push_back(s.count), in.references.push_back(s.reference);
  in.sft_logps = in.logps, in.sft_lengths = in.lengths;
  in.groups = {0, int32_t(unit.size())};
  return in;
}
/// Sequences that make a unit of the method.
inline std::vector<Sequence> random_unit(const Objective& o, check::Random& random) {
  const Arity arity = reference::facts(o).arity;
  std::vector<Sequence> unit(size_t(arity == Arity::single ? 1
                                    : arity == Arity::pair ? 2
                                                           : 1 + random.below(6)));
  for (Sequence& s : unit) s = random_sequence(o, random);
  return unit;
}

/// Of a mixture: the coefficients of all, and the other numbers one objective after another. `loss`
/// is the first one's.
inline Outcome run(const std::vector<Objective>& objectives, const Inputs& in,
                   int64_t piece = 1000000) {
  // A likelihood among methods of pairs is of the chosen.
  const auto units_from =
      std::find_if(objectives.begin(), objectives.end(),
                   [](const Objective& o) { return !reference::facts(o).is_linear; });
  const Units units = in.units(units_from == objectives.end() ? objectives[0] : *units_from);
  const size_t n = in.logps.size(), count = objectives.size();
  Outcome out;
  out.losses.resize(count * size_t(units.count));
  out.rewards.resize(count * n);
  out.coefficients.resize(n);
  out.metrics.resize(count * metric_count);
  out.values.resize(count);
  const BatchTerms terms =
      batch_terms(objectives.data(), int(count),
                  {units, in.lengths.data(), in.sft_lengths.data(),
                   in.references.empty() ? nullptr : in.references.data(), in.fields.view()});
  BatchLoss batch(terms, {out.losses.data(), out.rewards.data(), out.coefficients.data(),
                          out.metrics.data(), out.values.data()});
  if (terms.is_sorted()) piece = std::max<int64_t>(1, units.count);
  for (int64_t first = 0; first < units.count; first += piece)
    batch.evaluate(in.logps.data(), in.sft_logps.data(), first,
                   std::min(first + piece, units.count));
  batch.finish(in.logps.data(), in.sft_logps.data(), DBL_MAX,
               std::accumulate(in.lengths.begin(), in.lengths.end(), 0.0));
  out.loss = out.values[0];
  for (size_t s = 0; s < n; s++) out.likelihood.push_back(batch.likelihood_coefficient(int64_t(s)));
  return out;
}
inline Outcome run(const Objective& o, const Inputs& in, int64_t piece = 1000000) {
  return run(std::vector<Objective>{o}, in, piece);
}

/// `optional`: with all that the method takes of a batch.
inline Inputs random_inputs(const Objective& o, int64_t sequences, bool optional,
                            check::Random& random) {
  Inputs in;
  const MethodFacts facts = reference::facts(o);
  in.groups.push_back(0);
  while (facts.arity == Arity::group && in.groups.back() < sequences)
    in.groups.push_back(int32_t(std::min(sequences, in.groups.back() + 1 + random.below(4))));
  in.logps.resize(size_t(sequences));
  const Units units = in.units(o);
  in.fields = reference::random_fields(o.method, units, 0, optional, random);
  for (int64_t i = 0; i < sequences; i++) {
    const Sequence s = random_sequence(o, random);
    in.logps[size_t(i)] = s.logp;
    in.references.push_back(s.reference);
    in.lengths.push_back(s.count);
    // Other labels for the likelihood term, on the sequences that it scores; `sft` has one set.
    const bool likely = is_likely(units, in.fields.view(), i), other = likely && !facts.is_linear;
    in.sft_logps.push_back(!likely ? 0 : s.logp * (other ? random.uniform(0.5, 2) : 1));
    in.sft_lengths.push_back(
        !likely ? 0 : s.count + (other && s.count > 0 ? double(random.below(4)) : 0));
  }
  return in;
}

}  // namespace batches
