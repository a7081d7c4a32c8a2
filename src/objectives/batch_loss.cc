#include "batch_loss.h"
#include <algorithm>
#include <cmath>
#include <numeric>
#include <type_traits>
#include "catalogue.h"

namespace diralign {

namespace {

/// Indices that sort `values` ascending; ties stay in index order and NaNs come last, so that the order is the same everywhere.
std::vector<int64_t> ascending(const std::vector<double>& values) {
  std::vector<int64_t> order(values.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) {
    const double x = values[i], y = values[j];
    if (std::isnan(x) || std::isnan(y)) return !std::isnan(x) && std::isnan(y);
    return x < y;
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

BatchLoss::BatchLoss(const Objective& objective, int64_t sequences, const int32_t* counts, const int32_t* sft_counts, const double* reference,
                     const LossOutputs& outputs)
    : objective_(objective),
      sequences_(sequences),
      pairs_(objective.likelihood_only() ? sequences : sequences / 2),
      counts_(counts),
      sft_counts_(sft_counts),
      reference_(objective.uses_reference() ? reference : nullptr),
      out_(outputs) {
  for (int64_t i = 0; i < pairs_; i++) chosen_tokens_ += sft_counts_[i];
}

Sequence BatchLoss::sequence(const double* logps, int64_t s) const {
  return {logps[s], double(counts_[s]), reference_ ? reference_[s] : 0};
}

double BatchLoss::likelihood_coefficient(int64_t s) const {
  const Settings& o = objective_.settings;
  if (s >= pairs_ || o.sft_weight == 0 || objective_.likelihood_only()) return 0;
  if (o.sft_reduction != 0) return chosen_tokens_ > 0 ? -o.sft_weight / chosen_tokens_ : 0;
  return -o.sft_weight / (double(pairs_) * (o.normalize != 0 ? std::max(1, sft_counts_[s]) : 1));
}

/// The likelihood term as it enters the loss of a pair: its own NLL, or the batch's token mean.
double BatchLoss::pair_nll(const double* sft_logps, int64_t pair) const {
  const Settings& o = objective_.settings;
  if (o.sft_reduction != 0) {
    const double sum = std::accumulate(sft_logps, sft_logps + pairs_, 0.0);
    return chosen_tokens_ > 0 ? -sum / chosen_tokens_ : 0;
  }
  return -sft_logps[pair] / (o.normalize != 0 ? std::max(1, sft_counts_[pair]) : 1);
}

void BatchLoss::evaluate(const double* logps, const double* sft_logps, int64_t first, int64_t last) {
  if (objective_.likelihood_only()) {
    evaluate_likelihood(logps, first, last);
  } else if (objective_.coupled()) {
    evaluate_coupled(logps);
  } else {
    evaluate_pairs(logps, first, last);
  }
  // A token mean needs every sequence: finish() adds it.
  if (objective_.settings.sft_weight != 0 && objective_.settings.sft_reduction == 0) {
    for (int64_t i = first; i < last; i++) out_.losses[i] += objective_.settings.sft_weight * pair_nll(sft_logps, i);
  }
  for (int64_t i = first; i < last; i++) {
    out_.rewards[i] = reward(objective_.settings, sequence(logps, i));
    if (!objective_.likelihood_only()) out_.rewards[i + pairs_] = reward(objective_.settings, sequence(logps, i + pairs_));
  }
}

void BatchLoss::evaluate_pairs(const double* logps, int64_t first, int64_t last) {
  for (int64_t i = first; i < last; i++) {
    const PairTerms t = evaluate_pair(objective_.method, objective_.settings, sequence(logps, i), sequence(logps, i + pairs_));
    out_.losses[i] = t.loss;
    out_.coefficients[i] = t.coefficient_chosen / double(pairs_);
    out_.coefficients[i + pairs_] = t.coefficient_rejected / double(pairs_);
  }
}

/// `sft`: every sequence is chosen. The token mean is written as a mean over sequences, so that the losses average to the loss.
void BatchLoss::evaluate_likelihood(const double* logps, int64_t first, int64_t last) {
  const bool token_mean = objective_.settings.sft_reduction != 0;
  for (int64_t i = first; i < last; i++) {
    if (token_mean) {
      const double weight = chosen_tokens_ > 0 ? 1 / chosen_tokens_ : 0;
      out_.losses[i] = -logps[i] * weight * double(sequences_);
      out_.coefficients[i] = counts_[i] > 0 ? -weight : 0;
    } else {
      const PairTerms t = evaluate_pair(objective_.method, objective_.settings, sequence(logps, i), Sequence{0, 0, 0});
      out_.losses[i] = t.loss;
      out_.coefficients[i] = t.coefficient_chosen / double(sequences_);
    }
  }
}

/// The i-th smallest of one set of scores is set against the i-th smallest of another, and the gradient goes back through the sort.
void BatchLoss::evaluate_coupled(const double* logps) {
  const Settings& o = objective_.settings;
  const size_t n = size_t(pairs_);
  std::vector<double> upper(n), lower(n);
  for (size_t i = 0; i < n; i++) {
    const Sequence w = sequence(logps, int64_t(i)), l = sequence(logps, int64_t(i) + pairs_);
    if (objective_.info().coupling == Coupling::margins) {
      upper[i] = LogRatio::score({w.logp, w.count, 0}, o).value - LogRatio::score({l.logp, l.count, 0}, o).value;
      lower[i] = LogRatio::score({w.reference, w.count, 0}, o).value - LogRatio::score({l.reference, l.count, 0}, o).value;
    } else {
      upper[i] = LogRatio::score(w, o).value;
      lower[i] = LogRatio::score(l, o).value;
    }
  }
  const std::vector<int64_t> upper_order = ascending(upper), lower_order = ascending(lower);
  std::fill(out_.coefficients, out_.coefficients + sequences_, 0.0);
  for (size_t rank = 0; rank < n; rank++) {
    const int64_t i = upper_order[rank];
    const int64_t j = objective_.info().coupling == Coupling::margins ? i : lower_order[rank];
    const Ranked r = rank_difference(objective_.method, o, upper[size_t(i)] - lower[size_t(lower_order[rank])]);
    out_.losses[rank] = o.lambda * r.loss;
    const double slope = o.lambda * r.slope_chosen / double(pairs_);
    out_.coefficients[i] = counts_[i] > 0 ? slope * LogRatio::score(sequence(logps, i), o).slope : 0;
    out_.coefficients[j + pairs_] = counts_[j + pairs_] > 0 ? -slope * LogRatio::score(sequence(logps, j + pairs_), o).slope : 0;
  }
}

double BatchLoss::finish(const double* logps, const double* sft_logps) {
  const Settings& o = objective_.settings;
  const bool paired = !objective_.likelihood_only();
  RanksLogOdds odds_method;
  visit_method(objective_.method, odds_method);
  double* m = out_.metrics;
  std::fill(m, m + metric_count, 0.0);

  if (o.sft_weight != 0 && o.sft_reduction != 0 && pairs_ > 0) {
    const double nll = pair_nll(sft_logps, 0);
    for (int64_t i = 0; i < pairs_; i++) out_.losses[i] += o.sft_weight * nll;
  }
  double loss = 0, nll = 0;
  for (int64_t i = 0; i < pairs_; i++) {
    loss += out_.losses[i];
    m[rewards_chosen] += out_.rewards[i];
    m[logps_chosen] += logps[i];
    bool empty = counts_[i] == 0;
    // A coupled objective's losses belong to ranks, not to pairs.
    bool finite = std::isfinite(logps[i]) && (objective_.coupled() || std::isfinite(out_.losses[i]));
    if (paired) {
      const int64_t j = i + pairs_;
      m[rewards_rejected] += out_.rewards[j];
      m[rewards_accuracies] += out_.rewards[i] > out_.rewards[j];
      m[rewards_margins] += out_.rewards[i] - out_.rewards[j];
      m[logps_rejected] += logps[j];
      if (odds_method.result) {
        const double odds = LogOdds::score(sequence(logps, i), o).value - LogOdds::score(sequence(logps, j), o).value;
        m[log_odds_chosen] += odds;
        m[log_odds_ratio] += log_sigmoid(odds);
      }
      empty = empty || counts_[j] == 0;
      finite = finite && std::isfinite(logps[j]);
    }
    m[empty_sequences] += empty;
    m[nonfinite] += !finite;
    if (paired && o.sft_reduction == 0) nll += pair_nll(sft_logps, i);
  }
  loss = mean(loss, pairs_);
  for (int k : {rewards_chosen, rewards_rejected, rewards_accuracies, rewards_margins, logps_chosen, logps_rejected, log_odds_chosen, log_odds_ratio})
    m[k] = mean(m[k], pairs_);
  m[nll_loss] = !paired ? loss : o.sft_reduction == 0 ? mean(nll, pairs_) : pairs_ > 0 ? pair_nll(sft_logps, 0) : 0;
  return loss;
}

}  // namespace diralign
