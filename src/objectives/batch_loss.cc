#include "batch_loss.h"
#include <algorithm>
#include <cmath>
#include <numeric>
#include "catalogue.h"

namespace diralign {

namespace {

std::vector<int64_t> ascending(const std::vector<double>& values) {
  std::vector<int64_t> order(values.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  std::sort(order.begin(), order.end(), [&](int64_t i, int64_t j) {
    return BatchTerms::before(values[size_t(i)], i, values[size_t(j)], j);
  });
  return order;
}

double mean(double sum, int64_t n) { return n > 0 ? sum / double(n) : 0; }

}  // namespace

const MethodInfo& Objective::info() const { return method_info(method); }

Units Objective::units(int64_t sequences) const {
  const Arity arity = facts().arity;
  return {arity, arity == Arity::single ? sequences : sequences / 2, nullptr};
}

BatchTerms batch_terms(const Objective& objective, const Units& units, const int32_t* counts,
                       const int32_t* sft_counts, const double* reference) {
  BatchTerms terms{};
  terms.method = objective.method;
  terms.settings = objective.settings;
  terms.scope = objective.facts().scope;
  terms.units = units;
  terms.counts = counts;
  terms.sft_counts = sft_counts;
  terms.reference = objective.uses_reference() ? reference : nullptr;
  for (int64_t s = 0; s < units.sequences(); s++)
    if (units.is_likely(s)) terms.likely_tokens += sft_counts[s];
  return terms;
}

/// The likelihood term as it enters the loss of a unit: its own NLL, or the batch's token mean.
double BatchLoss::unit_nll(const double* sft_logps, int64_t unit) const {
  const Units& units = terms_.units;
  if (terms_.settings.sft_reduction == 0) {
    const int64_t s = units.sequence(unit, 0);
    return -sft_logps[s] / terms_.likelihood_divisor(s);
  }
  double sum = 0;
  for (int64_t s = 0; s < units.sequences(); s++)
    if (units.is_likely(s)) sum += sft_logps[s];
  return terms_.likely_tokens > 0 ? -sum / terms_.likely_tokens : 0;
}

/// The difference of two rewards, both of which a large beta may make infinite.
double BatchLoss::reward_margin(int64_t chosen, int64_t rejected, const double* logps) const {
  const double margin = out_.rewards[chosen] - out_.rewards[rejected];
  if (!std::isnan(margin)) return margin;
  const Settings& o = terms_.settings;
  return o.beta * (LogRatio::score(terms_.sequence(logps, chosen), o).value -
                   LogRatio::score(terms_.sequence(logps, rejected), o).value);
}

void BatchLoss::evaluate(const double* logps, const double* sft_logps, int64_t first,
                         int64_t last) {
  const Settings& o = terms_.settings;
  if (terms_.is_sorted()) {
    evaluate_sorted(logps);
  } else {
    for (int64_t u = first; u < last; u++)
      out_.losses[u] = terms_.evaluate(logps, u, out_.coefficients);
  }
  // A token mean needs every sequence: finish() adds it.
  if (o.sft_weight != 0 && o.sft_reduction == 0)
    for (int64_t u = first; u < last; u++) out_.losses[u] += o.sft_weight * unit_nll(sft_logps, u);
  terms_.units.for_sequences(
      first, last, [&](int64_t s) { out_.rewards[s] = reward(o, terms_.sequence(logps, s)); });
}

void BatchLoss::evaluate_sorted(const double* logps) {
  const size_t n = size_t(terms_.units.count);
  std::vector<double> upper(n), lower(n);
  for (size_t i = 0; i < n; i++) {
    upper[i] = terms_.upper_score(logps, int64_t(i));
    lower[i] = terms_.lower_score(logps, int64_t(i));
  }
  const std::vector<int64_t> upper_order = ascending(upper), lower_order = ascending(lower);
  for (size_t rank = 0; rank < n; rank++) {
    const int64_t i = upper_order[rank], j = lower_order[rank];
    out_.losses[rank] =
        terms_.evaluate_rank(logps, upper[size_t(i)], lower[size_t(j)], i, j, out_.coefficients);
  }
}

/// Adds a pair to the metrics that compare its sequences.
void BatchLoss::compare(const double* logps, int64_t chosen, int64_t rejected, bool odds) {
  double* const m = out_.metrics;
  m[rewards_rejected] += out_.rewards[rejected];
  m[rewards_accuracies] += out_.rewards[chosen] > out_.rewards[rejected];
  m[rewards_margins] += reward_margin(chosen, rejected, logps);
  m[logps_rejected] += logps[rejected];
  m[ranking_accuracy] += logps[chosen] > logps[rejected];
  if (!odds) return;
  const Settings& o = terms_.settings;
  const double difference = LogOdds::score(terms_.sequence(logps, chosen), o).value -
                            LogOdds::score(terms_.sequence(logps, rejected), o).value;
  m[log_odds_chosen] += difference;
  m[log_odds_ratio] += log_sigmoid(difference);
}

double BatchLoss::finish(const double* logps, const double* sft_logps, double largest) {
  const Settings& o = terms_.settings;
  const MethodFacts facts = facts_of(terms_.method);
  const Units units = terms_.units;
  const bool compares = units.arity == Arity::pair, sorted = terms_.is_sorted();
  double* const m = out_.metrics;
  std::fill(m, m + metric_count, 0.0);

  if (o.sft_weight != 0 && o.sft_reduction != 0 && units.count > 0) {
    const double nll = unit_nll(sft_logps, 0);
    for (int64_t u = 0; u < units.count; u++) out_.losses[u] += o.sft_weight * nll;
  }
  // The losses of a sorted objective belong to ranks, not to units; a NaN of one unit is among
  // them, and among the coefficients of another.
  auto finite_sequence = [&](int64_t s) {
    const double size = std::fabs(out_.coefficients[s]);
    return std::isfinite(logps[s]) && (size <= largest || (sorted && std::isnan(size)));
  };
  double loss = 0, nll = 0;
  for (int64_t u = 0; u < units.count; u++) {
    loss += out_.losses[u];
    bool empty = false, finite = sorted || std::isfinite(out_.losses[u]);
    auto look_at = [&](int64_t s) {
      empty = empty || terms_.counts[s] == 0;
      finite = finite && finite_sequence(s);
    };
    const int64_t chosen = units.sequence(u, 0);
    look_at(chosen);
    for (int64_t place = 1; place < units.size(u); place++) look_at(units.sequence(u, place));
    m[rewards_chosen] += out_.rewards[chosen];
    m[logps_chosen] += logps[chosen];
    if (compares) compare(logps, chosen, units.sequence(u, 1), facts.is_odds);
    m[empty_sequences] += empty;
    m[nonfinite] += !finite;
    if (compares && o.sft_reduction == 0) nll += unit_nll(sft_logps, u);
  }
  m[num_tokens] = std::accumulate(terms_.counts, terms_.counts + units.sequences(), 0.0);
  loss = mean(loss, units.count);
  for (int k : {rewards_chosen, rewards_rejected, rewards_accuracies, rewards_margins, logps_chosen,
                logps_rejected, ranking_accuracy, log_odds_chosen, log_odds_ratio})
    m[k] = mean(m[k], units.count);
  m[nll_loss] = !compares              ? loss
                : o.sft_reduction == 0 ? mean(nll, units.count)
                : units.count > 0      ? unit_nll(sft_logps, 0)
                                       : 0;
  return loss;
}

}  // namespace diralign
