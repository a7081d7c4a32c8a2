// What an objective is made of: the sequences of a pair, the settings of a call, and the
// description of a method.
#pragma once
#include "scaled.h"

namespace diralign {

/// A sequence as the pair mathematics sees it.
struct Sequence {
  double logp;   ///< summed log-probability of its scored tokens
  double count;  ///< scored tokens
  double
      reference;  ///< the reference model's summed log-probability; 0 where there is no reference
};

/// Order and names are those of `setting_names` (catalogue.cc), which the TypeScript side fills by
/// name.
struct Settings {
  double beta;
  double normalize;
  double reference_free;
  double sft_weight;
  double sft_reduction;  ///< 0 mean over sequences, 1 mean over tokens
  double lambda;
  double label_smoothing;
  double gamma;
  double calibration_weight;
  double divergence;  ///< Divergence
  double alpha;
  double tau;
  double penalty;
};

enum class Divergence { reverse_kl, forward_kl, js, alpha };

/// The per-token or summed form of a log-probability or log-ratio, as `normalize` says.
DIRALIGN_HD double normalizer(const Sequence& s, const Settings& o) {
  return o.normalize != 0 && s.count > 1 ? s.count : 1;
}

/// A score and its derivative with respect to the sequence's log-probability.
struct Scored {
  double value;
  Scaled slope;
};

/// A ranking loss of a pair and its derivatives with respect to the two scores.
struct Ranked {
  double loss;
  Scaled slope_chosen;
  Scaled slope_rejected;
};

/// What a ranking loss may look at. The margin, chosen - rejected, is there where both scores are
/// infinite.
struct ScoredPair {
  double chosen;
  double rejected;
  Scaled margin;
  double chosen_count;
  double rejected_count;
};

/// A loss of the margin alone: its two slopes are opposite.
DIRALIGN_HD Ranked pairwise(double loss, Scaled slope) { return {loss, slope, -slope}; }

/// weight x, where a weight of 0 leaves an infinite x out. A NaN stays one.
DIRALIGN_HD double weighted(double weight, double x) {
  return weight == 0 && x == x ? 0 : weight * x;
}

enum class Option {
  none,
  label_smoothing,
  gamma,
  lambda,
  calibration_weight,
  divergence,
  alpha,
  tau,
  penalty
};
enum class Coupling { none, margins, scores };

struct OptionDefault {
  Option option = Option::none;
  double value = 0;
};
struct Best {
  double learning_rate = 0;
  double beta = 0;
};

/// The one description of a method: the catalogue, the TypeScript types, the validation and the
/// documentation's table come from it.
struct MethodInfo {
  const char* name;
  const char* family;   ///< "paper" (arXiv 2502.01237) or "wider"
  const char* score;    ///< what is ranked
  const char* ranking;  ///< "pairwise", "pointwise" or "likelihood"
  bool reference;       ///< scores are relative to a reference model
  bool normalize;       ///< the method's original setting
  const char* formula;  ///< loss of a pair, in the notation of docs/methods.md
  const char* source;
  OptionDefault options[3] = {};
  Coupling coupling = Coupling::none;
  double beta_grid[12] = {};  ///< the paper's, 0-terminated
  Best best[6] = {};          ///< the paper's, in the order of `preset_setups` (catalogue.cc)
  bool smoothing_below_half =
      false;  ///< labelSmoothing must stay under 0.5, the loss divides by 1 - 2 epsilon
  bool smoothing_above_zero =
      false;  ///< labelSmoothing must be positive, the loss takes its logarithm
};

}  // namespace diralign
