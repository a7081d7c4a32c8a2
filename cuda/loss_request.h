// What launches of the loss kernel are asked for.
#pragma once
#include <vector>
#include "jobs/job.h"
#include "plan.h"

namespace diralign::cuda {

/// What launches work on: consecutive units of a batch. Pointers but for logits and gradient are to
/// host memory, and read before the constructor that takes the request returns.
struct LossRequest {
  Pass pass;  ///< not the general one, which is chosen by what it is for
  Dtype dtype;
  const void* logits;  ///< device memory
  void* gradient;      ///< device memory; may be the logits
  int64_t vocab, row_stride, gradient_elements;
  bool separate_sft;  ///< the likelihood term has labels of its own
  BatchTerms terms;   ///< of the whole batch
  const RowList* rows;
  int64_t first_unit, last_unit;
  /// The scored rows of these units, cut: a row's place in the memory is its place in its chunk.
  /// Empty: that in the batch.
  std::vector<RowRange> chunks;
  bool write_ignored;  ///< rows that no term scores are to be zeroed
  double gradient_scale = 1;
  bool measures = false;  ///< rows are measured, too: see MeasureWork
  LogitTransform transform{};
  bool collision = false;  ///< Pass::tokens: wanted
  /// Pass::dense: the derivatives of all scored rows of the batch, in place of those that the terms
  /// give; empty: not given.
  std::vector<RowDerivatives> derivatives{};
  bool with_entropy = false;  ///< some of these may be by the entropy
  /// What is known of these rows, which are then not to be reduced; empty: nothing.
  std::vector<RowTerms> known_terms{};
  std::vector<double> known_entropies{};
  /// Pass::dense: all that is to be known of the rows of these units; empty: it is not known.
  std::vector<RowGradient> row_gradients{};
  /// Pass::dense: the gradient waits for LossLaunch::differentiate.
  bool splits = false;
  /// Pass::logps, or Pass::tokens with moments: only the sums of parts are formed, of the columns
  /// that this batch has; the host merges them. Null: rows are finished.
  const Batch* parts_of = nullptr;
  int64_t column_grid = 0;  ///< columns that no part reaches across a multiple of; 0: none

  /// Whether the kernels are those that do more to an element.
  bool general() const { return !transform.is_identity() || collision || with_entropy; }
  /// Whether there is something to find out of the rows.
  bool reduces() const { return known_terms.empty() && row_gradients.empty(); }
  RowCut cut() const {
    return cut_row(uint32_t(vocab), uint32_t(dtype_bytes(dtype)), uint32_t(column_grid));
  }
};

/// What of a request follows from the job alone.
LossRequest request_of(const Job& job);

}  // namespace diralign::cuda
