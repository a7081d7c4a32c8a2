// What an objective is made of: the sequences of a pair, the settings of a call, and the
// description of a method.
#pragma once
#include "options.h"
#include "scaled.h"
#include "units.h"

namespace diralign {

/// A sequence as the pair mathematics sees it.
struct Sequence {
  double logp;   ///< summed log-probability of its scored tokens
  double count;  ///< scored tokens
  double
      reference;  ///< the reference model's summed log-probability; 0 where there is no reference
};

/// The per-token or summed form of a log-probability or log-ratio, as `normalize` says.
DIRALIGN_HD double normalizer(const Sequence& s, const Settings& o) {
  return o.normalize != 0 && s.count > 1 ? s.count : 1;
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
};

/// A loss of the margin alone: its two slopes are opposite.
DIRALIGN_HD Ranked pairwise(double loss, Scaled slope) { return {loss, slope, -slope}; }

/// weight x, where a weight of 0 leaves an infinite x out. A NaN stays one.
DIRALIGN_HD double weighted(double weight, double x) {
  return weight == 0 && x == x ? 0 : weight * x;
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
  bool beta = true;  ///< whether it takes one
};

}  // namespace diralign
