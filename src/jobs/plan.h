// How a job is cut: units into groups that are evaluated together, and the rows of a group into
// chunks that fit a workspace.
#pragma once
#include <cmath>
#include <stdexcept>
#include <vector>
#include "job.h"
#include "rows/gradient.h"

namespace diralign {

/// The smallest piece does not fit: `needed` bytes would do.
struct WorkspaceTooSmall : std::runtime_error {
  WorkspaceTooSmall(size_t given, size_t needed_bytes);
  size_t needed;
};

/// Consecutive units that are evaluated together. Their rows are gone through in chunks of at most
/// `chunk_rows`.
struct UnitGroup {
  int64_t first_unit, last_unit;
  RowRange rows;
  /// Whether one chunk holds them all: then their logits are still there when the coefficients are
  /// known.
  bool kept;
};

/// The units of a batch in groups of at most `chunk_rows` rows, and larger units alone. Units share
/// a group only up to `shared_rows`. `together`: one group, because the coefficients of a sorted
/// objective need every unit.
std::vector<UnitGroup> group_units(const RowList& rows, int64_t chunk_rows, bool together,
                                   int64_t shared_rows = INT64_MAX);

/// Units [first, last) in groups that end as soon as they have `fewest_rows`: `kept` says nothing.
std::vector<UnitGroup> group_units_reaching(const RowList& rows, int64_t first, int64_t last,
                                            int64_t fewest_rows);

/// A range cut into chunks of at most `chunk_rows`, as even as they can be.
std::vector<RowRange> cut_rows(const RowRange& range, int64_t chunk_rows);

/// No entry of a row's gradient is larger, in exact numbers; finite, but where a coefficient is
/// NaN. The entropy's derivative p (log p + H) is largest where the rest of the row is even.
inline double largest_entry(const Batch& batch, const RowCoefficients& c) {
  const double of_entropy = (1 + std::log(double(batch.vocab))) / 4;
  return finite((std::fabs(finite(c.align)) + std::fabs(finite(c.likelihood)) +
                 std::fabs(finite(c.entropy)) * of_entropy) *
                batch.transform.steepest());
}

/// Coefficients times 2^-exponent have products with weights and hidden states whose sums stay in
/// float32, to be multiplied by 2^exponent afterwards: infinities among the terms would leave NaN
/// where the sum has a sign. 0 for coefficients of usual sizes.
inline int gradient_exponent(double largest) {
  return largest > 0x1p100 ? std::ilogb(largest) - 100 : 0;
}

/// The parts of a range without the rows that `idle(i)`, of which fewer than `shortest_gap` between
/// two others are left in: a product over them costs less than one more product.
template <class Idle>
std::vector<RowRange> active_ranges(const RowRange& range, int64_t shortest_gap, Idle&& idle) {
  std::vector<RowRange> active;
  for (int64_t i = range.begin; i < range.end; i++) {
    if (idle(i)) continue;
    if (!active.empty() && i - active.back().end < shortest_gap) active.back().end = i + 1;
    else active.push_back({i, i + 1});
  }
  return active;
}

}  // namespace diralign
