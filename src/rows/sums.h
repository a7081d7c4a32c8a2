// Sums over parts of a row of logits, and how they are merged, host and device: over a thread's
// elements, a block's part of a row, or the columns that one process has.
#pragma once
#include <cfloat>
#include <cmath>
#include <cstdint>
#include "objectives/numerics.h"

namespace diralign {

/// Sums over some elements of a row, its label's left out, relative to an anchor that is finite, so
/// that no difference from it is -inf - -inf.
struct PartSums {
  float anchor;   ///< on a device: the top
  float top;      ///< largest of the elements, at least -FLT_MAX
  double sum;     ///< of exp(logit - anchor); NaN where an element is a NaN or +inf
  double moment;  ///< of exp(logit - anchor) (logit - anchor); 0 unless asked for
};
/// Neutral: a merge with it changes nothing.
DIRALIGN_HD PartSums no_sums() { return {-FLT_MAX, -FLT_MAX, 0, 0}; }

/// All of a row, with the label's logit, which may come from elsewhere than the sums.
struct RowSums : PartSums {
  float label;
};

/// A moment relative to an anchor that is `shift` lower, factor = e^shift; numbers, or vectors of
/// them. Where nothing was summed, or nothing is left of it, the shift may be infinite, and 0 times
/// it must stay 0.
template <class Real>
DIRALIGN_HD Real moved_moment(Real sum, Real moment, double shift, double factor) {
  if (factor == 0) return Real{};
  return sum == 0 ? Real{} : (moment + sum * shift) * factor;
}

/// Two parts as one. `exp`: of the differences from the larger anchor, at most 0, which are formed
/// in its type Shift.
template <bool with_moment, class Shift, class Exp>
DIRALIGN_HD PartSums merge(const PartSums& a, const PartSums& b, Exp&& exp) {
  PartSums r = no_sums();
  r.anchor = ::fmaxf(a.anchor, b.anchor);
  r.top = ::fmaxf(a.top, b.top);
  const Shift shift_a = Shift(a.anchor) - Shift(r.anchor),
              shift_b = Shift(b.anchor) - Shift(r.anchor);
  const auto scale_a = exp(shift_a), scale_b = exp(shift_b);
  // Of two products a compiler may fuse either with the addition, in one place this and in another
  // that.
  r.sum = ::fma(a.sum, double(scale_a), b.sum * scale_b);
  if constexpr (with_moment)
    r.moment = moved_moment(a.sum, a.moment, double(shift_a), double(scale_a)) +
               moved_moment(b.sum, b.moment, double(shift_b), double(scale_b));
  return r;
}

/// None is NaN. The host's fmaxf is a call, because a NaN might be.
DIRALIGN_HD float larger(float a, float b) {
#ifdef __CUDA_ARCH__
  return ::fmaxf(a, b);
#else
  return b > a ? b : a;
#endif
}

/// Parts in their order, exactly: in float64, each moved once. `part(k)` is read twice.
template <class Part>
DIRALIGN_HD PartSums merge_in_order(uint32_t parts, Part&& part) {
  PartSums r = no_sums();
  for (uint32_t k = 0; k < parts; k++) {
    r.anchor = larger(r.anchor, part(k).anchor);
    r.top = larger(r.top, part(k).top);
  }
  for (uint32_t k = 0; k < parts; k++) {
    const PartSums s = part(k);
    const double shift = double(s.anchor) - double(r.anchor),
                 scale = s.anchor == r.anchor ? 1 : ::exp(shift);
    r.sum += s.sum * scale;
    r.moment += moved_moment(s.sum, s.moment, shift, scale);
  }
  return r;
}

}  // namespace diralign
