// What an objective is made of: the sequences of a unit, the settings of a call, and the
// description of a method.
#pragma once
#include "fields.h"
#include "scaled.h"
#include "units.h"

namespace diralign {

/// A sequence as scores see it.
struct Sequence {
  double logp;   ///< summed log-probability of its scored tokens
  double count;  ///< scored tokens, or the sum of their weights
  double
      reference;  ///< the reference model's summed log-probability; 0 where there is no reference
};

/// The per-token or summed form of a log-probability or log-ratio, as `normalize` says.
DIRALIGN_HD double normalizer(const Sequence& s, const Settings& o) {
  return o.normalize != 0 && s.count > 0 ? s.count : 1;
}

/// A score and its derivative with respect to the sequence's log-probability.
struct Scored {
  double value;
  Scaled slope;
};

/// A ranking loss of one score and its derivative.
struct RankedSingle {
  double loss;
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
  double offset;  ///< the pair's own margin, subtracted from beta times that of the scores
  double flip;    ///< the probability that its label is flipped
  double target;  ///< of a squared margin
};

/// 1 / (2 beta), finite however small beta is: an infinite score less that is infinite.
DIRALIGN_HD double margin_target(const Settings& o) {
  const double target = 0.5 / o.beta;
  return target > DBL_MAX ? DBL_MAX : target;
}

/// A loss of the margin alone: its two slopes are opposite.
DIRALIGN_HD Ranked pairwise(double loss, Scaled slope) { return {loss, slope, -slope}; }

/// weight x, where a weight of 0 leaves an infinite x out. A NaN stays one.
DIRALIGN_HD double weighted(double weight, Scaled x) {
  return weight == 0 && x.factor == x.factor ? 0 : value(weight * x);
}

/// What a method is derived from: the arity and the scope of its units.
struct OfSequences {
  static constexpr Arity arity = Arity::single;
  static constexpr Scope scope = Scope::unit;
};
struct OfPairs {
  static constexpr Arity arity = Arity::pair;
  static constexpr Scope scope = Scope::unit;
};
struct OfSortedMargins : OfPairs {
  static constexpr Scope scope = Scope::sorted_margins;
};
struct OfSortedScores : OfPairs {
  static constexpr Scope scope = Scope::sorted_scores;
};
struct OfGroups {
  static constexpr Arity arity = Arity::group;
  static constexpr Scope scope = Scope::unit;
};

/// A loss that is given: a method and its settings, and the share that it has of a mixture. Plain
/// data; make_objective() makes it.
struct Objective {
  int method;
  Scope scope;
  bool uses_reference;
  double weight;
  Settings settings;
};

/// The one description of a method: the catalogue, the TypeScript types, the validation and the
/// documentation's table come from it.
struct MethodInfo {
  const char* name;
  const char* family;   ///< "paper" (arXiv 2502.01237) or "wider"
  const char* score;    ///< what is ranked
  const char* ranking;  ///< "pairwise", "pointwise" or "likelihood"; a text for people
  bool reference;       ///< scores are relative to a reference model
  bool normalize;       ///< the method's original setting
  const char* formula;  ///< loss of a pair, in the notation of docs/methods.md
  const char* source;
  Option options[4] = {};
  bool beta = true;          ///< whether it takes one
  FieldData fields[2] = {};  ///< what it takes of a batch that not every method of its kind takes
  Interval preferences = options::probability;  ///< of a method with label smoothing
};

/// Whether the labels of a method's pairs may be flipped with some probability.
constexpr bool smooths_labels(const MethodInfo& info) {
  for (const Option& option : info.options)
    if (option.setting == &Settings::label_smoothing) return true;
  return false;
}

}  // namespace diralign
