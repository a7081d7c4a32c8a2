// A batch of logits as the backends see it, and the compact list of the rows that count.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include "rows/dtype.h"
#include "memory.h"

namespace diralign {

struct Batch {
  const void* logits = nullptr;
  Dtype dtype = Dtype::float32;
  int64_t rows = 0, vocab = 0;
  int64_t row_stride = 0;  ///< elements
  int64_t sequences = 0;
  const int32_t* offsets = nullptr;  ///< packed: sequences + 1 row offsets; null: every sequence
                                     ///< has rows / sequences rows
  const int32_t* labels = nullptr;
  const int32_t* sft_labels =
      nullptr;  ///< labels of the likelihood term on chosen sequences; null: `labels`
  int32_t ignore_index = -100;

  size_t element_bytes() const { return dtype_bytes(dtype); }
  size_t row_bytes() const { return size_t(vocab) * element_bytes(); }
  const void* row(int64_t r) const {
    return static_cast<const char*>(logits) + size_t(r) * size_t(row_stride) * element_bytes();
  }
};

/// A row that enters the loss. A label of -1: not scored by that term.
struct ScoredRow {
  int64_t row;
  int64_t sequence;
  int32_t label;
  int32_t sft_label;
  bool has_label() const { return label >= 0; }
  /// The entry whose log-probability is computed without cancellation.
  int32_t primary() const { return label >= 0 ? label : sft_label; }
};

/// The scored rows of a batch, pair by pair (chosen, then rejected), in row order within a
/// sequence. A copy: whatever happens to the caller's arrays during an asynchronous call, every
/// label in here was checked.
struct RowList {
  Array<ScoredRow> scored;
  Array<int64_t> ignored;     ///< rows to be zeroed
  Array<int64_t> begin, end;  ///< per sequence: its range of `scored`
  Array<int32_t> counts;      ///< per sequence: rows scored by the alignment term
  Array<int32_t> sft_counts;  ///< per sequence: rows scored by the likelihood term
};

/// A range of a batch's list of scored rows.
struct RowRange {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};
/// That of pairs [first, last) of `pairs`: the rows of a pair are adjacent in the list, and the
/// pairs in order.
RowRange rows_of_pairs(const RowList& rows, int64_t pairs, int64_t first, int64_t last);

/// A label that is neither the ignore index nor in [0, vocab).
struct BadLabel {
  bool sft;
  int64_t row;
  int32_t label;
};

/// `pairs`: sequences i and i + pairs belong together (sequences == 2 * pairs), or sequences ==
/// pairs for a likelihood-only objective.
std::optional<BadLabel> list_rows(const Batch& batch, int64_t pairs, RowList& rows);

}  // namespace diralign
