// What a batch may carry besides its rows, labels and reference: each with its name, its meaning,
// what it has a number for, and what that may be. The contract, the checks in TypeScript and the
// requests follow from the list; which method takes which, from the methods (catalogue.cc).
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include "options.h"
#include "units.h"

namespace diralign {

#define DIRALIGN_PER(X) X(batch) X(unit) X(sequence) X(row)
DIRALIGN_NAMED_ENUM(Per, per_names, DIRALIGN_PER);

/// What the numbers are outside: numbers; booleans, 0 and 1 here; or ranks, distinct integers
/// within a group of which the lowest is best, here the places of its candidates, best first.
#define DIRALIGN_FIELD_KINDS(X) X(number) X(flag) X(rank)
DIRALIGN_NAMED_ENUM(FieldKind, field_kind_names, DIRALIGN_FIELD_KINDS);

/// Member, public name, per what, kind, values, whether a method that names it needs it, meaning.
#define DIRALIGN_FIELDS(X)                                                                     \
  X(desirable, "desirable", sequence, flag, {}, true, "whether the sequence is desirable")     \
  X(kl, "kl", batch, number, options::not_negative, true, "the log-ratio that counts as none") \
  X(shift, "shift", batch, number, {}, false, "running mean of the rewards")                   \
  X(best_first, "ranks", sequence, rank, {}, true, "ranks within a group, the lowest is best") \
  X(rewards, "rewards", sequence, number, {}, true, "rewards of the candidates of a group")    \
  X(weights, "weights", unit, number, options::not_negative, false, "weights of the units")    \
  X(margins, "margins", unit, number, {}, false, "subtracted from beta times the margin")      \
  X(preferences, "preferences", unit, number, options::probability, false,                     \
    "probability that the chosen is better")                                                   \
  X(targets, "targets", unit, number, {}, false, "what the margin is drawn to")                \
  X(denominator, "denominator", batch, number, options::positive, false,                       \
    "divides the weighted sum of the losses, in place of the number of units")                 \
  X(sft_denominator, "sftDenominator", batch, number, options::positive, false,                \
    "divides the likelihood term's sum over tokens, in place of their number")                 \
  X(token_weights, "tokenWeights", row, number, options::not_negative, false,                  \
    "weights of the log-probabilities of a sequence's rows, whose sum stands for their number")

/// An array each, null where the batch has none: in host or device memory, as what holds them.
struct Fields {
#define DIRALIGN_FIELD(member, ...) const double* member = nullptr;
  DIRALIGN_FIELDS(DIRALIGN_FIELD)
#undef DIRALIGN_FIELD
};
using FieldData = const double* Fields::*;

struct FieldInfo {
  const char* name;
  Per per;
  FieldKind kind;
  Interval interval;
  bool needed;
  const char* meaning;
  FieldData data;

  size_t length(const Units& units, int64_t rows) const {
    return per == Per::batch      ? 1
           : per == Per::unit     ? size_t(units.count)
           : per == Per::sequence ? size_t(units.sequences())
                                  : size_t(rows);
  }
};
inline constexpr FieldInfo field_infos[] = {
#define DIRALIGN_FIELD(member, name, per, kind, interval, needed, meaning) \
  {name, Per::per, FieldKind::kind, interval, needed, meaning, &Fields::member},
    DIRALIGN_FIELDS(DIRALIGN_FIELD)
#undef DIRALIGN_FIELD
};

/// The number that a field has at `i`, or what stands for it.
DIRALIGN_HD double field(const double* values, int64_t i, double otherwise) {
  return values ? values[i] : otherwise;
}

/// Whether a likelihood term scores the sequence: the chosen of pairs, and of single ones all that
/// are not said to be undesirable.
DIRALIGN_HD bool is_likely(const Units& units, const Fields& fields, int64_t sequence) {
  return units.arity == Arity::pair     ? units.place(sequence) == 0
         : units.arity == Arity::single ? field(fields.desirable, sequence, 1) != 0
                                        : false;
}

/// The sequence of a unit that metrics hold against the others: the first of a group whose best are
/// equal; -1: an undesirable one is held against nothing.
inline int64_t chosen_sequence(const Units& units, const Fields& fields, int64_t unit) {
  const int64_t first = units.sequence(unit, 0);
  if (units.arity != Arity::group) return is_likely(units, fields, first) ? first : -1;
  if (fields.best_first) return first + int64_t(fields.best_first[first]);
  return std::max_element(fields.rewards + first, fields.rewards + first + units.size(unit)) -
         fields.rewards;
}

/// What a ranking loss may look at of its sequence besides the score.
struct FieldsAt {
  const Fields& fields;
  int64_t sequence;
};

}  // namespace diralign
