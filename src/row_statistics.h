// What the pair stage and the gradient need of a row of logits, from its block sums, in float64, host and device.
#pragma once
#include <cfloat>
#include "objectives/numerics.h"

namespace diralign {

/// A row without its label's entry.
struct OtherLogits {
  float reference;  ///< finite; every term of the sums is relative to it
  float max;        ///< largest logit
  double sum;       ///< sum of exp(logit - reference); NaN where the row holds a NaN or +inf
  double moment;    ///< sum of exp(logit - reference) * (logit - reference); 0 unless asked for
};

struct RowStatistics {
  double logp;       ///< log-probability of the label, at most 0
  float max;         ///< largest logit of the row
  double normalizer; ///< sum of exp(logit - max)
};

/// The label's probability is 1 / (1 + e^d), d the log of the others' mass relative to the label's: -softplus(d) keeps its digits
/// as the probability tends to 1, where target - logsumexp would cancel. A row of nothing but -inf, or with +inf, is a NaN.
DIRALIGN_HD RowStatistics row_statistics(const OtherLogits& others, float target) {
  const double d = (double(others.reference) + ::log(others.sum)) - double(target);
  const double logp = target == INFINITY ? NAN : -softplus(d);
  const float max = target > others.max ? target : others.max;
  const double normalizer = others.sum * ::exp(double(others.reference) - double(max)) + ::exp(double(target) - double(max));
  return {logp, max, normalizer};
}

DIRALIGN_HD double logsumexp(const RowStatistics& row) { return double(row.max) + ::log(row.normalizer); }

/// log Z - sum of p (logit - max), in nats.
DIRALIGN_HD double entropy(const RowStatistics& row, const OtherLogits& others, float target) {
  const double shift = double(others.reference) - double(row.max);
  double moment = others.sum == 0 ? 0 : (others.moment + others.sum * shift) * ::exp(shift);
  const double own = double(target) - double(row.max), weight = ::exp(own);
  if (weight > 0) moment += weight * own;
  return ::log(row.normalizer) - moment / row.normalizer;
}

}  // namespace diralign
