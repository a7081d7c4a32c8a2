// What is compared with what: the sequences of a batch in units, host and device. Nothing else
// knows where the sequences of a unit lie.
#pragma once
#include <cstdint>
#include "numerics.h"

namespace diralign {

/// What a method's loss is a function of.
enum class Arity {
  single,  ///< one sequence
  pair,    ///< a chosen sequence, from the first half of the batch, and its rejected one
  group,   ///< consecutive candidates
};

/// What else of the batch the loss of a unit depends on.
enum class Scope {
  unit,            ///< nothing
  sorted_margins,  ///< the ranks of the policy's and of the reference's margins
  sorted_scores,   ///< the ranks of the chosen's and of the rejected's scores
};

struct Units {
  Arity arity;
  int64_t count;
  const int32_t* offsets;  ///< Arity::group: count + 1 of them, over the sequences; otherwise null

  DIRALIGN_HD int64_t sequences() const {
    return arity == Arity::single ? count : arity == Arity::pair ? 2 * count : offsets[count];
  }
  /// How many sequences a unit has.
  DIRALIGN_HD int64_t size(int64_t unit) const {
    return arity == Arity::single ? 1
           : arity == Arity::pair ? 2
                                  : offsets[unit + 1] - offsets[unit];
  }
  /// The sequence at a place of a unit: of a pair, 0 is the chosen one and 1 the rejected one.
  DIRALIGN_HD int64_t sequence(int64_t unit, int64_t place) const {
    return arity == Arity::group ? offsets[unit] + place : unit + place * count;
  }
  /// Of a single or a pair: its place in its unit.
  DIRALIGN_HD int64_t place(int64_t sequence) const {
    return arity == Arity::pair && sequence >= count ? 1 : 0;
  }
  DIRALIGN_HD int64_t unit_of(int64_t sequence) const {
    if (arity != Arity::group) return sequence - place(sequence) * count;
    int64_t first = 0, last = count;  // the last unit that begins at or before the sequence
    while (last - first > 1) {
      const int64_t middle = first + (last - first) / 2;
      if (offsets[middle] <= sequence) first = middle;
      else last = middle;
    }
    return first;
  }
  // Of consecutive units.

  DIRALIGN_HD int64_t sequences_of(int64_t first, int64_t last) const {
    return arity == Arity::group ? offsets[last] - offsets[first] : (last - first) * size(first);
  }
  /// The k-th of those, each of which has one k.
  DIRALIGN_HD int64_t sequence_of(int64_t first, int64_t last, int64_t k) const {
    if (arity == Arity::group) return offsets[first] + k;
    const int64_t units = last - first;
    return k < units ? sequence(first + k, 0) : sequence(first + (k - units), 1);
  }
  /// Calls `take(s)` for each of them.
  template <class Take>
  void for_sequences(int64_t first, int64_t last, Take&& take) const {
    for (int64_t k = 0, n = sequences_of(first, last); k < n; k++)
      take(sequence_of(first, last, k));
  }
};

/// Every sequence for itself.
DIRALIGN_HD Units single_units(int64_t sequences) { return {Arity::single, sequences, nullptr}; }

}  // namespace diralign
