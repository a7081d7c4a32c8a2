// Scores: what an objective ranks, as a function of a sequence's log-probability S, its reference R
// and its length L, with the derivative dscore/dS. r = (S - R) / L or S - R, a = S / L or S, as
// `normalize` says. An empty sequence has base score 0.
#pragma once
#include "objective.h"

namespace diralign {

/// A score whose margin is the difference of two float64 numbers.
struct PlainMargin {
  static constexpr bool is_odds = false;
  DIRALIGN_HD static Scaled margin(const Scored& w, const Scored& l, const Sequence&,
                                   const Sequence&, const Settings&) {
    return w.value - l.value;
  }
};

/// r, or a where there is no reference: the score of DPO (arXiv 2305.18290) and, without a
/// reference, of SimPO and CPO.
struct LogRatio : PlainMargin {
  DIRALIGN_HD static bool is_log_ratio(const Settings&) { return true; }
  DIRALIGN_HD static Scored score(const Sequence& s, const Settings& o) {
    if (s.count == 0) return {0, 0};
    const double n = normalizer(s, o);
    return {(s.logp - s.reference) / n, 1 / n};
  }
};

/// Log-odds o = a - log(1 - e^a) of the sequence's probability e^a: the score of ORPO (arXiv
/// 2403.07691) and ASFT (arXiv 2409.10571).
struct LogOdds : PlainMargin {
  static constexpr bool is_odds = true;
  DIRALIGN_HD static bool is_log_ratio(const Settings&) { return false; }
  DIRALIGN_HD static Scored score(const Sequence& s, const Settings& o) {
    if (s.count == 0) return {0, 0};
    const double n = normalizer(s, o);
    double a = s.logp / n;
    // Where the probability rounds to 1 both o and do/da are infinite; the same clamp for both
    // keeps them finite and in agreement.
    if (a > -1e-37) a = -1e-37;
    return {a - log1mexp(a), -1 / ::expm1(a) / n};
  }
};

/// A sum of float64 numbers and what rounding it lost (Knuth).
struct ExactSum {
  double sum, lost;
  DIRALIGN_HD ExactSum(double x, double y) : sum(x + y) {
    const double from_y = sum - x;
    lost = ::fabs(sum) < INFINITY ? (x - (sum - from_y)) + (y - from_y) : 0;
  }
};

/// (1 - e^(-alpha r)) / alpha, which tends to r as alpha tends to 0. Value and slope overflow long
/// before r does: the slope keeps its exponent, and the margin is formed from r.
struct Exponential {
  DIRALIGN_HD static Scored score(const Sequence& s, const Settings& o, double alpha) {
    const Scored r = LogRatio::score(s, o);
    if (s.count == 0) return r;
    return {box_cox_exp(r.value, alpha), r.slope * scaled_exp(-alpha * r.value)};
  }
  /// e^(-alpha r_l) (1 - e^(-alpha h)) / alpha with h = r_w - r_l, or, mirrored, with the larger of
  /// the two exponentials in front.
  DIRALIGN_HD static Scaled margin(const Sequence& w, const Sequence& l, const Settings& o,
                                   double alpha) {
    const double r_w = LogRatio::score(w, o).value, r_l = LogRatio::score(l, o).value,
                 h = margin_of_ratios(w, l, r_w, r_l, o);
    return alpha * h >= 0 ? box_cox_exp(h, alpha) * scaled_exp(-alpha * r_l)
                          : -box_cox_exp(-h, alpha) * scaled_exp(-alpha * r_w);
  }

 private:
  /// r_w - r_l with what rounding S - R took from either: e^1000 makes a margin of it.
  DIRALIGN_HD static double margin_of_ratios(const Sequence& w, const Sequence& l, double r_w,
                                             double r_l, const Settings& o) {
    const double n = normalizer(w, o);
    if (w.count == 0 || l.count == 0 || normalizer(l, o) != n) return r_w - r_l;
    const ExactSum ratio_w(w.logp, -w.reference), ratio_l(l.logp, -l.reference),
        h(ratio_w.sum, -ratio_l.sum);
    return (h.sum + (h.lost + (ratio_w.lost - ratio_l.lost))) / n;
  }
};

/// f'(pi / pi_ref) of an f-divergence, up to constants (f-DPO, arXiv 2309.16240).
struct DivergenceScore {
  static constexpr bool is_odds = false;
  DIRALIGN_HD static bool is_log_ratio(const Settings& o) {
    return is(Divergence::reverse_kl, o) || (is(Divergence::alpha, o) && o.alpha == 0);
  }
  DIRALIGN_HD static Scored score(const Sequence& s, const Settings& o) {
    if (!is(Divergence::js, o)) return Exponential::score(s, o, alpha(o));
    const Scored r = LogRatio::score(s, o);
    return {log_sigmoid(r.value), scaled_sigmoid(-r.value) * r.slope};
  }
  DIRALIGN_HD static Scaled margin(const Scored& w, const Scored& l, const Sequence& chosen,
                                   const Sequence& rejected, const Settings& o) {
    if (is(Divergence::js, o)) return w.value - l.value;
    return Exponential::margin(chosen, rejected, o, alpha(o));
  }

 private:
  DIRALIGN_HD static bool is(Divergence d, const Settings& o) { return o.divergence == double(d); }
  /// -e^-r of the forward KL is 1 - e^-r, alpha = 1, but for a constant.
  DIRALIGN_HD static double alpha(const Settings& o) {
    return is(Divergence::forward_kl, o) ? 1 : is(Divergence::reverse_kl, o) ? 0 : o.alpha;
  }
};

/// The exponential score of a, SimPO's as alpha tends to 0 (AlphaPO, arXiv 2501.03884).
struct AlphaLogProb {
  static constexpr bool is_odds = false;
  DIRALIGN_HD static bool is_log_ratio(const Settings& o) { return o.alpha == 0; }
  DIRALIGN_HD static Scored score(const Sequence& s, const Settings& o) {
    return Exponential::score(s, o, o.alpha);
  }
  DIRALIGN_HD static Scaled margin(const Scored&, const Scored&, const Sequence& w,
                                   const Sequence& l, const Settings& o) {
    return Exponential::margin(w, l, o, o.alpha);
  }
};

}  // namespace diralign
