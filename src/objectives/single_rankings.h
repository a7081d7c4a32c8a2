// Losses of one score. dW and uW are the weights of desirable and undesirable sequences.
#pragma once
#include "objective.h"

namespace diralign {

/// -s: the negative log-likelihood.
struct Likelihood {
  static constexpr bool is_likelihood = true;
};

/// A loss of how good a sequence is said to be: x is `gain` where it is desirable, otherwise -gain.
struct OfFeedback {
  static constexpr bool is_likelihood = false;

  DIRALIGN_HD static bool desirable(const FieldsAt& at) {
    return at.fields.desirable[at.sequence] != 0;
  }
  /// From the loss and slope at x, weights left out.
  DIRALIGN_HD static RankedSingle of(const FieldsAt& at, const Settings& o, Scaled loss,
                                     Scaled slope) {
    const bool up = desirable(at);
    const double weight = up ? o.desirable_weight : o.undesirable_weight;
    slope = weight == 0 ? Scaled(0) : weight * o.beta * slope;
    return {weighted(weight, loss), up ? slope : -slope};
  }
};

/// dW (1 - sg(u - beta z)), uW (1 - sg(beta z - u)); u = beta s, z the batch's `kl`, of which no
/// derivative is taken. 1 - sg(x) = sg(-x), with digits.
struct BeyondBaseline : OfFeedback {
  DIRALIGN_HD static RankedSingle rank(double score, const Settings& o, const FieldsAt& at) {
    const double gain = o.beta * (score - *at.fields.kl), x = desirable(at) ? gain : -gain;
    return of(at, o, scaled_sigmoid(-x), -scaled_sigmoid_slope(x));
  }
};

/// dW (1 - sg(u)), uW sg(u).
struct BeyondZero : OfFeedback {
  DIRALIGN_HD static RankedSingle rank(double score, const Settings& o, const FieldsAt& at) {
    const double x = desirable(at) ? o.beta * score : -o.beta * score;
    return of(at, o, scaled_sigmoid(-x), -scaled_sigmoid_slope(x));
  }
};

/// dW sp(-(u - shift)), uW sp(u - shift).
struct BeyondShift : OfFeedback {
  DIRALIGN_HD static RankedSingle rank(double score, const Settings& o, const FieldsAt& at) {
    const double gain = o.beta * score - field(at.fields.shift, 0, 0);
    const Logistic l = logistic(desirable(at) ? -gain : gain);
    return of(at, o, scaled_loss(l), -l.slope);
  }
};

}  // namespace diralign
