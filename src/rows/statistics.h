// What the evaluation of units and the gradient need of a row of logits, from its sums, in float64,
// host and device.
#pragma once
#include "sums.h"

namespace diralign {

struct RowStatistics {
  double logp;        ///< log-probability of the label, at most 0
  float max;          ///< largest logit of the row
  double normalizer;  ///< sum of exp(logit - max)
};

/// The label's probability is 1 / (1 + e^d), d the log of the others' mass relative to the label's:
/// -softplus(d) keeps its digits as the probability tends to 1, where target - logsumexp would
/// cancel. The difference of the two logits comes first: the logarithm would drown in a large one.
/// A row of nothing but -inf, or with +inf, is a NaN.
DIRALIGN_HD RowStatistics row_statistics(const RowSums& row) {
  const double label = row.label, d = ::log(row.sum) + (double(row.anchor) - label);
  const double logp = row.label == INFINITY ? NAN : -softplus(d);
  const float max = row.label > row.top ? row.label : row.top;
  const double normalizer =
      row.sum * ::exp(double(row.anchor) - double(max)) + ::exp(label - double(max));
  return {logp, max, normalizer};
}

DIRALIGN_HD double logsumexp(const RowStatistics& row) {
  return double(row.max) + ::log(row.normalizer);
}

/// What a log-probability and a logsumexp, known from before, say of their row.
inline RowStatistics known_statistics(double logp, double log_sum) {
  const float max = float(log_sum);
  return {logp, max, std::exp(log_sum - double(max))};
}

/// The label's share of the sum of exp(logit - max)^2.
DIRALIGN_HD double label_square(const RowStatistics& row, float label) {
  return ::exp(2 * (double(label) - double(row.max)));
}

/// log of the sum of p^2, from that sum.
DIRALIGN_HD double log_collision(const RowStatistics& row, double squares) {
  return ::log(squares) - 2 * ::log(row.normalizer);
}

/// log Z - sum of p (logit - max), in nats.
DIRALIGN_HD double entropy(const RowStatistics& statistics, const RowSums& row) {
  const double shift = double(row.anchor) - double(statistics.max);
  double moment = moved_moment(row.sum, row.moment, shift, ::exp(shift));
  const double own = double(row.label) - double(statistics.max), weight = ::exp(own);
  if (weight > 0) moment += weight * own;
  return ::log(statistics.normalizer) - moment / statistics.normalizer;
}

}  // namespace diralign
