// What the pair stage and the gradient need of a row of logits, from its block sums, in float64,
// host and device.
#pragma once
#include <cfloat>
#include "objectives/numerics.h"

namespace diralign {

/// Sums over a row without its label's entry, and that entry.
struct RowSums {
  float target;      ///< the label's logit
  double reference;  ///< finite; every term of the sums is relative to it
  float max;         ///< largest of the other logits
  double sum;        ///< sum of exp(logit - reference); NaN where the row holds a NaN or +inf
  double moment;     ///< sum of exp(logit - reference) * (logit - reference); 0 unless asked for
};

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
  const double target = row.target, d = ::log(row.sum) + (double(row.reference) - target);
  const double logp = row.target == INFINITY ? NAN : -softplus(d);
  const float max = row.target > row.max ? row.target : row.max;
  const double normalizer =
      row.sum * ::exp(double(row.reference) - double(max)) + ::exp(target - double(max));
  return {logp, max, normalizer};
}

DIRALIGN_HD double logsumexp(const RowStatistics& row) {
  return double(row.max) + ::log(row.normalizer);
}

/// log Z - sum of p (logit - max), in nats.
DIRALIGN_HD double entropy(const RowStatistics& statistics, const RowSums& row) {
  const double shift = double(row.reference) - double(statistics.max);
  double moment = row.sum == 0 ? 0 : (row.moment + row.sum * shift) * ::exp(shift);
  const double own = double(row.target) - double(statistics.max), weight = ::exp(own);
  if (weight > 0) moment += weight * own;
  return ::log(statistics.normalizer) - moment / statistics.normalizer;
}

}  // namespace diralign
