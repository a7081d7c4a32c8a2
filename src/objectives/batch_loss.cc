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

double mean(double sum, double n) { return n > 0 ? sum / n : 0; }

}  // namespace

BatchTerms batch_terms(const Objective* objectives, int count, const SequenceData& data) {
  const Units& units = data.units;
  BatchTerms terms{objectives,
                   count,
                   units,
                   data.lengths,
                   data.sft_lengths,
                   data.reference,
                   data.fields,
                   field(data.fields.denominator, 0, double(units.count)),
                   0};
  // Nothing else asks for it.
  const bool over_tokens = std::any_of(objectives, objectives + count, [](const Objective& o) {
    return o.settings.sft_reduction == double(Reduction::token);
  });
  for (int64_t s = 0; over_tokens && s < units.sequences(); s++)
    if (is_likely(units, data.fields, s)) terms.sft_denominator += data.sft_lengths[s];
  terms.sft_denominator = field(data.fields.sft_denominator, 0, terms.sft_denominator);
  return terms;
}

/// One objective of the batch, with its own numbers.
class BatchLoss::OfObjective {
 public:
  OfObjective(BatchLoss& batch, int i)
      : terms_(batch.terms_),
        objective_(terms_.objectives[i]),
        settings_(objective_.settings),
        units_(terms_.units),
        facts_(facts_of(objective_.method)),
        adds_(i > 0),
        sorted_(terms_.is_sorted()),
        losses_(batch.out_.losses + i * units_.count),
        rewards_(batch.out_.rewards + i * units_.sequences()),
        coefficients_(batch.out_.coefficients),
        scratch_(batch.scratch_.data()),
        metrics_(batch.out_.metrics + i * metric_count),
        value_(batch.out_.values[i]) {}

  void evaluate(const double* logps, const double* sft_logps, int64_t first, int64_t last) {
    if (objective_.scope != Scope::unit) {
      evaluate_sorted(logps);
    } else {
      for (int64_t u = first; u < last; u++)
        losses_[u] = terms_.evaluate(objective_, logps, u, adds_, coefficients_, scratch_);
    }
    // A token mean needs every sequence: finish() adds it.
    if (settings_.sft_weight != 0 && !over_tokens())
      for (int64_t u = first; u < last; u++)
        losses_[u] += settings_.sft_weight * unit_nll(sft_logps, u);
    units_.for_sequences(first, last,
                         [&](int64_t s) { rewards_[s] = reward(settings_, sequence(logps, s)); });
  }

  void finish(const double* logps, const double* sft_logps, double largest, double tokens) {
    std::fill(metrics_, metrics_ + metric_count, 0.0);
    const double nll = likelihood_term(sft_logps);
    if (settings_.sft_weight != 0 && over_tokens()) add_token_mean(nll);
    double loss = 0;
    for (int64_t u = 0; u < units_.count; u++) {
      loss += terms_.share_of(u, losses_[u]);
      look_at(logps, u, largest);
    }
    value_ = mean(loss, units_.count > 0 ? terms_.denominator : 0);
    take_means(tokens);
    metrics_[nll_loss] = facts_.is_linear && settings_.sft_weight == 0 ? value_ : nll;
    metrics_[baseline] = field(terms_.fields.kl, 0, 0);
  }

 private:
  Sequence sequence(const double* logps, int64_t s) const {
    return terms_.sequence(objective_, logps, s);
  }
  bool over_tokens() const { return settings_.sft_reduction == double(Reduction::token); }

  void evaluate_sorted(const double* logps) {
    const size_t n = size_t(units_.count);
    std::vector<double> upper(n), lower(n);
    for (size_t i = 0; i < n; i++) {
      upper[i] = terms_.upper_score(objective_, logps, int64_t(i));
      lower[i] = terms_.lower_score(objective_, logps, int64_t(i));
    }
    const std::vector<int64_t> upper_order = ascending(upper), lower_order = ascending(lower);
    for (size_t rank = 0; rank < n; rank++) {
      const int64_t i = upper_order[rank], j = lower_order[rank];
      losses_[rank] = terms_.evaluate_rank(objective_, logps, upper[size_t(i)], lower[size_t(j)], i,
                                           j, adds_, coefficients_);
    }
  }

  /// The likelihood term as it enters the loss of a unit, unless that is over tokens.
  double unit_nll(const double* sft_logps, int64_t unit) const {
    const int64_t s = units_.sequence(unit, 0);
    return is_likely(units_, terms_.fields, s)
               ? -sft_logps[s] / terms_.likelihood_divisor(settings_, s)
               : 0;
  }
  /// The likelihood term of the batch, its weight left out.
  double likelihood_term(const double* sft_logps) const {
    double sum = 0;
    if (!over_tokens()) {
      for (int64_t u = 0; u < units_.count; u++) sum += terms_.share_of(u, unit_nll(sft_logps, u));
      return mean(sum, units_.count > 0 ? terms_.denominator : 0);
    }
    for (int64_t s = 0; s < units_.sequences(); s++)
      if (is_likely(units_, terms_.fields, s))
        sum += terms_.share_of(units_.unit_of(s), sft_logps[s]);
    return terms_.sft_denominator > 0 ? -sum / terms_.sft_denominator : 0;
  }
  /// To every unit the same, so that their weighted sum over the denominator is the loss.
  void add_token_mean(double nll) {
    double weights = 0;
    for (int64_t u = 0; u < units_.count; u++) weights += terms_.weight(u);
    if (weights == 0) return;
    const double each = settings_.sft_weight * nll * (terms_.denominator / weights);
    for (int64_t u = 0; u < units_.count; u++) losses_[u] += each;
  }

  void look_at(const double* logps, int64_t unit, double largest) {
    // The losses of a sorted objective belong to ranks, not to units; a NaN of one unit is among
    // them, and among the coefficients of another.
    const bool sorted = sorted_;
    bool empty = false, finite = sorted || std::isfinite(losses_[unit]), highest = true;
    const int64_t chosen = chosen_sequence(units_, terms_.fields, unit), size = units_.size(unit);
    for (int64_t place = 0; place < size; place++) {
      const int64_t s = units_.sequence(unit, place);
      const double coefficient = std::fabs(coefficients_[s]);
      empty = empty || terms_.lengths[s] == 0;
      finite = finite && std::isfinite(logps[s]) &&
               (coefficient <= largest || (sorted && std::isnan(coefficient)));
      const bool is_chosen = s == chosen;
      // Two rewards that a large beta makes infinite have a difference.
      if (units_.arity != Arity::pair)
        (is_chosen ? chosen_score_ : rejected_score_) +=
            LogRatio::score(sequence(logps, s), settings_).value;
      metrics_[is_chosen ? rewards_chosen : rewards_rejected] += rewards_[s];
      metrics_[is_chosen ? logps_chosen : logps_rejected] += logps[s];
      (is_chosen ? chosen_ : rejected_)++;
      if (chosen >= 0 && !is_chosen) highest = highest && rewards_[chosen] > rewards_[s];
    }
    metrics_[empty_sequences] += empty;
    metrics_[nonfinite] += !finite;
    if (size > 1) metrics_[rewards_accuracies] += highest, compared_++;
    if (units_.arity == Arity::pair)
      compare(logps, units_.sequence(unit, 0), units_.sequence(unit, 1));
  }
  /// Adds a pair to the metrics of pairs alone.
  void compare(const double* logps, int64_t chosen, int64_t rejected) {
    metrics_[rewards_margins] += reward_margin(chosen, rejected, logps);
    metrics_[ranking_accuracy] += logps[chosen] > logps[rejected];
    if (!facts_.is_odds) return;
    const double difference = LogOdds::score(sequence(logps, chosen), settings_).value -
                              LogOdds::score(sequence(logps, rejected), settings_).value;
    metrics_[log_odds_chosen] += difference;
    metrics_[log_odds_ratio] += log_sigmoid(difference);
  }
  /// The difference of two rewards, both of which a large beta may make infinite.
  double reward_margin(int64_t chosen, int64_t rejected, const double* logps) const {
    const double margin = rewards_[chosen] - rewards_[rejected];
    if (!std::isnan(margin)) return margin;
    return settings_.beta * (LogRatio::score(sequence(logps, chosen), settings_).value -
                             LogRatio::score(sequence(logps, rejected), settings_).value);
  }

  void take_means(double tokens) {
    double* const m = metrics_;
    for (int k : {rewards_chosen, logps_chosen}) m[k] = mean(m[k], chosen_);
    for (int k : {rewards_rejected, logps_rejected}) m[k] = mean(m[k], rejected_);
    for (int k : {ranking_accuracy, log_odds_chosen, log_odds_ratio})
      m[k] = mean(m[k], double(units_.count));
    m[rewards_accuracies] = mean(m[rewards_accuracies], compared_);
    if (units_.arity == Arity::pair) {
      m[rewards_margins] = mean(m[rewards_margins], compared_);
    } else {
      const double both = mean(chosen_score_ + rejected_score_, chosen_ + rejected_);
      m[rewards_mean] = settings_.beta * both;
      if (chosen_ > 0 && rejected_ > 0)
        m[rewards_margins] =
            settings_.beta * (chosen_score_ / chosen_ - rejected_score_ / rejected_);
    }
    m[num_tokens] = tokens;
  }

  const BatchTerms& terms_;
  const Objective& objective_;
  const Settings& settings_;
  const Units& units_;
  const MethodFacts facts_;
  const bool adds_, sorted_;
  double *const losses_, *const rewards_, *const coefficients_, *const scratch_, *const metrics_;
  double& value_;
  double chosen_ = 0, rejected_ = 0, compared_ = 0;  // sequences, and units of several
  double chosen_score_ = 0, rejected_score_ = 0;     // sums, unless units are pairs
};

BatchLoss::BatchLoss(const BatchTerms& terms, const LossOutputs& outputs)
    : terms_(terms),
      out_(outputs),
      scratch_(terms.units.arity == Arity::group ? size_t(terms.units.sequences()) : 0) {}

void BatchLoss::evaluate(const double* logps, const double* sft_logps, int64_t first,
                         int64_t last) {
  for (int i = 0; i < terms_.objective_count; i++)
    OfObjective(*this, i).evaluate(logps, sft_logps, first, last);
}

void BatchLoss::finish(const double* logps, const double* sft_logps, double largest,
                       double tokens) {
  for (int i = 0; i < terms_.objective_count; i++)
    OfObjective(*this, i).finish(logps, sft_logps, largest, tokens);
}

}  // namespace diralign
