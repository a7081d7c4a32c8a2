#include "batch_loss.h"
#include <algorithm>
#include <cmath>
#include <numeric>
#include <type_traits>
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

struct RanksLogOdds {
  bool result = false;
  template <class Method>
  void operator()() {
    result = std::is_same_v<typename Method::Score, LogOdds>;
  }
};

double mean(double sum, int64_t n) { return n > 0 ? sum / double(n) : 0; }

}  // namespace

const MethodInfo& Objective::info() const { return method_info(method); }
bool Objective::likelihood_only() const { return info().ranking[0] == 'l'; }

BatchTerms batch_terms(const Objective& objective, int64_t sequences, const int32_t* counts,
                       const int32_t* sft_counts, const double* reference) {
  BatchTerms terms{};
  terms.method = objective.method;
  terms.settings = objective.settings;
  terms.likelihood_only = objective.likelihood_only();
  terms.coupling = objective.info().coupling;
  terms.sequences = sequences;
  terms.pairs = terms.likelihood_only ? sequences : sequences / 2;
  terms.counts = counts;
  terms.sft_counts = sft_counts;
  terms.reference = objective.uses_reference() ? reference : nullptr;
  terms.chosen_tokens = std::accumulate(sft_counts, sft_counts + terms.pairs, 0.0);
  return terms;
}

/// The likelihood term as it enters the loss of a pair: its own NLL, or the batch's token mean.
double BatchLoss::pair_nll(const double* sft_logps, int64_t pair) const {
  if (terms_.settings.sft_reduction == 0) return -sft_logps[pair] / terms_.likelihood_divisor(pair);
  return terms_.chosen_tokens > 0
             ? -std::accumulate(sft_logps, sft_logps + terms_.pairs, 0.0) / terms_.chosen_tokens
             : 0;
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
  if (terms_.coupling != Coupling::none) {
    evaluate_coupled(logps);
  } else {
    evaluate_pairs(logps, first, last);
  }
  for (int64_t i = first; i < last; i++) {
    // A token mean needs every sequence: finish() adds it.
    if (o.sft_weight != 0 && o.sft_reduction == 0)
      out_.losses[i] += o.sft_weight * pair_nll(sft_logps, i);
    out_.rewards[i] = reward(o, terms_.sequence(logps, i));
    if (!terms_.likelihood_only)
      out_.rewards[i + terms_.pairs] = reward(o, terms_.sequence(logps, i + terms_.pairs));
  }
}

void BatchLoss::evaluate_pairs(const double* logps, int64_t first, int64_t last) {
  for (int64_t i = first; i < last; i++) {
    const PairTerms t = terms_.evaluate(logps, i);
    out_.losses[i] = t.loss;
    out_.coefficients[i] = t.coefficient_chosen;
    if (!terms_.likelihood_only) out_.coefficients[i + terms_.pairs] = t.coefficient_rejected;
  }
}

void BatchLoss::evaluate_coupled(const double* logps) {
  const size_t n = size_t(terms_.pairs);
  std::vector<double> upper(n), lower(n);
  for (size_t i = 0; i < n; i++) {
    upper[i] = terms_.upper_score(logps, int64_t(i));
    lower[i] = terms_.lower_score(logps, int64_t(i));
  }
  const std::vector<int64_t> upper_order = ascending(upper), lower_order = ascending(lower);
  for (size_t rank = 0; rank < n; rank++) {
    const int64_t i = upper_order[rank], j = lower_order[rank];
    const PairTerms t = terms_.evaluate_rank(logps, upper[size_t(i)], lower[size_t(j)], i, j);
    out_.losses[rank] = t.loss;
    out_.coefficients[i] = t.coefficient_chosen;
    out_.coefficients[terms_.coupled_rejected(i, j) + terms_.pairs] = t.coefficient_rejected;
  }
}

double BatchLoss::finish(const double* logps, const double* sft_logps, double largest) {
  const Settings& o = terms_.settings;
  const bool paired = !terms_.likelihood_only;
  const bool coupled = terms_.coupling != Coupling::none;
  const int64_t pairs = terms_.pairs;
  RanksLogOdds odds_method;
  visit_method(terms_.method, odds_method);
  double* m = out_.metrics;
  std::fill(m, m + metric_count, 0.0);

  if (o.sft_weight != 0 && o.sft_reduction != 0 && pairs > 0) {
    const double nll = pair_nll(sft_logps, 0);
    for (int64_t i = 0; i < pairs; i++) out_.losses[i] += o.sft_weight * nll;
  }
  // A coupled objective's losses belong to ranks, not to pairs; a NaN of one pair is among them,
  // and among the coefficients of another.
  auto finite_sequence = [&](int64_t s) {
    const double size = std::fabs(out_.coefficients[s]);
    return std::isfinite(logps[s]) && (size <= largest || (coupled && std::isnan(size)));
  };
  double loss = 0, nll = 0;
  for (int64_t i = 0; i < pairs; i++) {
    loss += out_.losses[i];
    m[rewards_chosen] += out_.rewards[i];
    m[logps_chosen] += logps[i];
    bool empty = terms_.counts[i] == 0;
    bool finite = finite_sequence(i) && (coupled || std::isfinite(out_.losses[i]));
    if (paired) {
      const int64_t j = i + pairs;
      m[rewards_rejected] += out_.rewards[j];
      m[rewards_accuracies] += out_.rewards[i] > out_.rewards[j];
      m[rewards_margins] += reward_margin(i, j, logps);
      m[logps_rejected] += logps[j];
      m[ranking_accuracy] += logps[i] > logps[j];
      if (odds_method.result) {
        const double odds = LogOdds::score(terms_.sequence(logps, i), o).value -
                            LogOdds::score(terms_.sequence(logps, j), o).value;
        m[log_odds_chosen] += odds;
        m[log_odds_ratio] += log_sigmoid(odds);
      }
      empty = empty || terms_.counts[j] == 0;
      finite = finite && finite_sequence(j);
    }
    m[empty_sequences] += empty;
    m[nonfinite] += !finite;
    if (paired && o.sft_reduction == 0) nll += pair_nll(sft_logps, i);
  }
  m[num_tokens] = std::accumulate(terms_.counts, terms_.counts + terms_.sequences, 0.0);
  loss = mean(loss, pairs);
  for (int k : {rewards_chosen, rewards_rejected, rewards_accuracies, rewards_margins, logps_chosen,
                logps_rejected, ranking_accuracy, log_odds_chosen, log_odds_ratio})
    m[k] = mean(m[k], pairs);
  m[nll_loss] = !paired                ? loss
                : o.sft_reduction == 0 ? mean(nll, pairs)
                : pairs > 0            ? pair_nll(sft_logps, 0)
                                       : 0;
  return loss;
}

}  // namespace diralign
