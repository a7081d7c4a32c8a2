// The gradient of a row of logits, as the few numbers that a kernel needs to write it, host and
// device.
#pragma once
#include <cfloat>
#include <cstdint>
#include "exp_polynomial.h"
#include "statistics.h"

namespace diralign {

/// Entry v of the gradient is (factor + bend d) exp(d), d = logit - shift, but for the labels'
/// entries, which are given. Where `zero` is set every entry is 0, whatever the row holds.
struct RowGradient {
  bool zero;
  bool underflows;  ///< a label's entry is not 0, but no normal number of its type
  float shift, factor;
  float bend;                   ///< 0, unless the entropy has a coefficient
  int32_t label, second_label;  ///< -1: none
  float label_value, second_value;
};

/// What multiplies exp(d), of floats or vectors of them. Where d is -inf its exponential is 0, and
/// so is their product.
template <class Real>
DIRALIGN_HD_KERNEL Real bent_factor(Real d, Real factor, Real bend) {
  return factor + bend * (d < exp_underflow ? Real{} : d);
}

/// The nearest finite number; a NaN stays one.
DIRALIGN_HD double finite(double x) { return x > DBL_MAX ? DBL_MAX : x < -DBL_MAX ? -DBL_MAX : x; }

/// Makes both smaller until neither is beyond `most`: terms that cancel do so still.
DIRALIGN_HD void limit(double& a, double& b, double most) {
  const double largest = ::fmax(::fabs(a), ::fabs(b));
  if (largest > most) a *= most / largest, b *= most / largest;
}

/// A coefficient times the scale of the gradients. A scale of 0 leaves nothing, whatever the
/// coefficient: a batch of that weight must not bring a NaN into a sum of gradients.
DIRALIGN_HD double gradient_coefficient(double coefficient, double scale) {
  return share_of(scale, coefficient);
}
/// Of a row of that weight. One after the other: the product of two factors may be infinite where
/// that of all is not.
DIRALIGN_HD double gradient_coefficient(double weight, double coefficient, double scale) {
  return gradient_coefficient(share_of(weight, coefficient), scale);
}

/// Sets the entries to (factor + bend d) exp(d), d = logit - max. Numbers beyond float32 would make
/// a NaN of every probability of 0, and an infinity of those that bring them back: e^80 of them
/// moves into the exponential, which the kernels compute up to e^88, so that a slope of some
/// hundreds may multiply it.
DIRALIGN_HD void set_scale(RowGradient& g, float max, double factor, double bend = 0) {
  g.shift = max;
  // Infinite in a row of nothing but -inf, which has no softmax: its entries are to be NaN.
  const bool beyond = ::fabs(factor) > FLT_MAX || ::fabs(bend) > FLT_MAX / 128;
  if (beyond && ::fabs(factor) <= DBL_MAX && ::fabs(bend) <= DBL_MAX) {
    const float shift = max - 80;
    const double moved = double(max) - double(shift);
    // Not of logits so large that they have no such neighbours; then only those at the maximum have
    // a probability.
    if (moved >= 79 && moved <= 81) {
      g.shift = shift;
      const double part = ::exp(-moved);
      factor = part * factor - part * bend * moved, bend *= part;
    }
    bend *= 128, limit(factor, bend, FLT_MAX), bend /= 128;
  }
  g.factor = float(factor), g.bend = float(bend);
}

/// A label's log-probability and what follows from it: p, and p - 1, which keeps its digits as p
/// tends to 1.
struct LabelTerms {
  double logp, p, p_less_1;
};
DIRALIGN_HD LabelTerms label_terms(double logp) { return {logp, ::exp(logp), ::expm1(logp)}; }

/// What a row's gradient takes from the row: computed once, however often the gradient is asked
/// for.
struct RowTerms {
  float max;
  double normalizer;      ///< sum of exp(logit - max)
  LabelTerms label, sft;  ///< `sft` is read only where the labels of the two terms differ
};
DIRALIGN_HD RowTerms row_terms(const RowStatistics& row, bool two_labels, double sft_logp) {
  return {row.max, row.normalizer, label_terms(row.logp),
          two_labels ? label_terms(sft_logp) : LabelTerms{}};
}

/// `align` and `likelihood` are dLoss/dlogp of the two terms, 0 where the row is not scored by it.
/// With p the softmax, the gradient of c log p_y is c (onehot(y) - p). `least`: see least_normal.
DIRALIGN_HD RowGradient row_gradient(const RowTerms& row, int32_t label, int32_t sft_label,
                                     double align, double likelihood, float least) {
  RowGradient g{align == 0 && likelihood == 0,  false, row.max, 0, 0,
                label >= 0 ? label : sft_label, -1,    0,       0};
  if (g.zero) return g;
  // An infinite coefficient is the largest number instead: times a probability of 0 it is to be 0.
  align = finite(align), likelihood = finite(likelihood);
  const double total = finite(align + likelihood);
  set_scale(g, row.max, -total / row.normalizer);
  auto vanishes = [least](double coefficient, double logp, float entry) {
    return coefficient != 0 && logp != 0 && ::fabsf(entry) < least;
  };
  if (label >= 0 && sft_label >= 0 && label != sft_label) {
    // Each label's entry: its own term's (1 - p), less the other term's p.
    g.label_value = float(-align * row.label.p_less_1 - likelihood * row.label.p);
    g.second_label = sft_label;
    g.second_value = float(-likelihood * row.sft.p_less_1 - align * row.sft.p);
    g.underflows = vanishes(align, row.label.logp, g.label_value) ||
                   vanishes(likelihood, row.sft.logp, g.second_value);
  } else {
    g.label_value = float(-total * row.label.p_less_1);
    g.underflows = vanishes(total, row.label.logp, g.label_value);
  }
  return g;
}

/// The gradient of c log p_y + e H, H the entropy of the softmax: dH/dlogit_v = -p_v (log p_v + H).
DIRALIGN_HD RowGradient row_gradient_with_entropy(const RowTerms& row, int32_t label, double c,
                                                  double e, double nats) {
  // Far beyond float32, and their products with nats are numbers still.
  c = finite(c), e = finite(e), limit(c, e, 1e300);
  const double surprise = c + e * (nats - ::log(row.normalizer)),
               own = -c * row.label.p_less_1 -
                     (row.label.p == 0 ? 0 : e * row.label.p * (row.label.logp + nats));
  RowGradient g{false, false, row.max, 0, 0, label, -1, float(own), 0};
  set_scale(g, row.max, -surprise / row.normalizer, -e / row.normalizer);
  return g;
}

/// The gradient of log p_y alone, onehot(y) - p, in float32: from the sum of exp(logit - max) over
/// the other entries and the label's own term. 1 - p_y is then a quotient without cancellation, and
/// no logarithm is needed.
DIRALIGN_HD RowGradient row_residual(float max, float others, float own, int32_t label) {
  const float total = others + own;
  return {false, false, max, -1 / total, 0, label, -1, others / total, 0};
}

}  // namespace diralign
