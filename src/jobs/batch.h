// A batch of logits as the backends see it, and the compact list of the rows that count.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include "objectives/fields.h"
#include "rows/dtype.h"
#include "rows/transform.h"
#include "memory.h"

namespace diralign {

/// Columns of a vocabulary whose others are in other processes.
struct Shard {
  int64_t first;  ///< column
  int64_t words;  ///< of the whole vocabulary
};

struct Batch {
  const void* logits = nullptr;
  Dtype dtype = Dtype::float32;
  int64_t rows = 0, vocab = 0;  ///< columns that are here
  std::optional<Shard> shard;
  int64_t row_stride = 0;  ///< elements
  int64_t sequences = 0;
  const int32_t* offsets = nullptr;  ///< packed: sequences + 1 row offsets; null: every sequence
                                     ///< has rows / sequences rows
  const int32_t* labels = nullptr;
  const int32_t* sft_labels =
      nullptr;  ///< labels of the likelihood term on chosen sequences; null: `labels`
  Fields fields;
  LogitTransform transform;  ///< of every logit, before the softmax
  int32_t ignore_index = -100;

  /// Of the vocabulary that labels are of.
  int64_t words() const { return shard ? shard->words : vocab; }
  /// Where a label's entry is; -1: in another process, or no label.
  int32_t column(int32_t label) const {
    if (!shard || label < 0) return label;
    const int64_t own = label - shard->first;
    return own >= 0 && own < vocab ? int32_t(own) : -1;
  }
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
  double weight = 1;  ///< of its log-probability
  bool has_label() const { return label >= 0; }
  /// The entry whose log-probability is computed without cancellation.
  int32_t primary() const { return label >= 0 ? label : sft_label; }
};

/// A range of a batch's list of scored rows.
struct RowRange {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

/// The scored rows of a batch, unit by unit, in row order within a sequence. A copy: whatever
/// happens to the caller's arrays during an asynchronous call, every label in here was checked.
struct RowList {
  Units units{};
  Array<ScoredRow> scored;
  Array<int64_t> ignored;              ///< rows to be zeroed
  Array<int64_t> begin, end;           ///< per sequence: its range of `scored`
  Array<int32_t> counts;               ///< per sequence: rows scored by the alignment term
  Array<double> lengths, sft_lengths;  ///< their numbers, or the sums of their weights

  /// The rows of units [first, last), which follow one another.
  RowRange of_units(int64_t first, int64_t last) const;
};

/// A label that is neither the ignore index nor in [0, vocab).
struct BadLabel {
  bool sft;
  int64_t row;
  int32_t label;
};

/// `units`: of the batch's sequences.
std::optional<BadLabel> list_rows(const Batch& batch, const Units& units, RowList& rows);

}  // namespace diralign
