// Scores: what an objective ranks, as a function of a sequence's log-probability S, its reference R and its length L, with the
// derivative dscore/dS. r = (S - R) / L or S - R, a = S / L or S, as `normalize` says. An empty sequence has base score 0.
#pragma once
#include "objective.h"

namespace diralign {

/// r, or a where there is no reference: the score of DPO (arXiv 2305.18290) and, without a reference, of SimPO and CPO.
struct LogRatio {
  DIRALIGN_HD static Scored score(const Sequence& s, const Settings& o) {
    if (s.count == 0) return {0, 0};
    const double n = normalizer(s, o);
    return {(s.logp - s.reference) / n, 1 / n};
  }
};

/// Log-odds o = a - log(1 - e^a) of the sequence's probability e^a: the score of ORPO (arXiv 2403.07691) and ASFT (arXiv 2409.10571).
struct LogOdds {
  DIRALIGN_HD static Scored score(const Sequence& s, const Settings& o) {
    if (s.count == 0) return {0, 0};
    const double n = normalizer(s, o);
    double a = s.logp / n;
    // Where the probability rounds to 1 both o and do/da are infinite; the same clamp for both keeps them finite and in agreement.
    if (a > -1e-37) a = -1e-37;
    // do/da = 1 / (1 - e^a). In float64 neither this factor (at most 1e37) nor the sigmoid it meets in the chain rule can overflow
    // or lose digits, so the product needs no log-space form.
    return {a - log1mexp(a), -1 / ::expm1(a) / n};
  }
};

/// f'(pi / pi_ref) of an f-divergence, up to constants (f-DPO, arXiv 2309.16240).
struct DivergenceScore {
  DIRALIGN_HD static Scored score(const Sequence& s, const Settings& o) {
    const Scored ratio = LogRatio::score(s, o);
    const double r = ratio.value;
    switch (static_cast<Divergence>(static_cast<int>(o.divergence))) {
      case Divergence::forward_kl:  // -e^-r
        return {-::exp(-r), ::exp(-r) * ratio.slope};
      case Divergence::js:  // log sigmoid(r)
        return {log_sigmoid(r), sigmoid(-r) * ratio.slope};
      case Divergence::alpha:  // (1 - e^(-alpha r)) / alpha
        return {box_cox_exp(r, o.alpha), ::exp(-o.alpha * r) * ratio.slope};
      case Divergence::reverse_kl:
        break;
    }
    return ratio;
  }
};

/// (1 - e^(-alpha a)) / alpha, which tends to a, SimPO's score, as alpha tends to 0 (AlphaPO, arXiv 2501.03884).
struct AlphaLogProb {
  DIRALIGN_HD static Scored score(const Sequence& s, const Settings& o) {
    const Scored a = LogRatio::score(s, o);
    return {box_cox_exp(a.value, o.alpha), ::exp(-o.alpha * a.value) * a.slope};
  }
};

}  // namespace diralign
