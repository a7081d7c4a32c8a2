// Rows whose columns are in parts: those of other ranks, and those of the cells of a grid. Each
// rank sums its own, all ranks exchange the sums, and each merges them in the order of the columns.
#pragma once
#include <cstring>
#include "parallel.h"
#include "rows/sums.h"

namespace diralign {

class ShardedRows {
 public:
  explicit ShardedRows(const Job& job);
  /// Of all rows of this rank, in one part each.
  static size_t bytes_of_all(const Job& job);

  /// The own parts of row i, by any thread: `reduce(first, count, label)` gives the sums of own
  /// columns [first, first + count) without the entry of the label, which is relative to `first`,
  /// or -1; `sum(first, count)` the sum of their logits, `squares(first, count, label, top)` the
  /// sum of exp(logit - top)^2 without the label's, `value(column)` what one of them becomes.
  template <class Reduce, class Sum, class Squares, class Value>
  void put(int64_t i, Reduce&& reduce, Sum&& sum, Squares&& squares, Value&& value) {
    const Batch& batch = job_.batch;
    const ScoredRow& row = job_.rows.scored[size_t(i)];
    const int32_t label = batch.column(row.primary());
    RowEnd end{0, 0};
    char* to = own_ + size_t(i) * row_bytes_;
    for (int64_t cell = 0; cell < cells_; cell++, to += part_bytes_) {
      const int64_t first = cell * cell_columns_,
                    count = std::min(cell_columns_, batch.vocab - first);
      if (count <= 0) {
        write_part(to, {});
        continue;
      }
      const bool has_label = label >= first && label < first + count;
      const int32_t own = has_label ? int32_t(label - first) : -1;
      const RowSums sums = reduce(first, count, own);
      if (has_label) end.label = sums.label;
      write_part(to, {sums, with_mean_ ? sum(first, count) : 0,
                      with_squares_ ? squares(first, count, own, sums.top) : 0});
    }
    const int32_t second = batch.sft_labels ? batch.column(row.sft_label) : -1;
    if (second >= 0) end.second = value(second);
    std::memcpy(to, &end, sizeof end);
  }

  /// Of the rows of a chunk, all of which were put: brings the other ranks' parts. `gather(mine)`
  /// gives the bytes of every rank, in room that it found before: nobody waits for a rank that has
  /// none. Otherwise the session does.
  void exchange(const RowRange& rows);
  /// Of this rank.
  size_t bytes_of(const RowRange& rows) const { return size_t(rows.size()) * row_bytes_; }
  template <class Gather>
  void exchange(const RowRange& rows, Gather&& gather) {
    range_ = rows;
    session_.meet(Step::rows, {});
    take(gather(own_ + size_t(rows.begin) * row_bytes_), 0);
  }

  // Of the last chunk's rows.

  RowSums sums(int64_t i) const;
  /// Of all the row's logits.
  double mean(int64_t i) const;
  bool has_squares() const { return with_squares_; }
  /// The sum of exp(logit - max)^2 over the row, without the label's.
  double squares(int64_t i, float max) const;
  /// What the logit of the likelihood term's label becomes.
  float second_value(int64_t i) const;

 private:
  /// What a row has besides its parts; of interest where the rank has the column.
  struct RowEnd {
    float label, second;
  };
  struct Part {
    PartSums sums = no_sums();
    double logits = 0;   ///< their sum, where it is asked for
    double squares = 0;  ///< of exp(logit - top)^2, where they are
  };
  /// Every rank's rows, each behind a head of so many bytes. The ranks have said by then what
  /// columns they have.
  void take(Bytes all, size_t head);
  void write_part(char* to, const Part& part) const;
  /// `place`: one of places_.
  PartSums part(int64_t i, size_t place) const;
  /// Of those that follow the sums, in the order of write_part().
  double number(int64_t i, size_t place, size_t which) const;
  RowEnd end_of(int64_t i, int32_t label) const;
  const char* at(int64_t i, size_t place) const {
    return all_.data() + place + size_t(i - range_.begin) * row_bytes_;
  }

  const Job& job_;
  Session& session_;
  const bool with_moment_, with_mean_, with_squares_;
  const int64_t cells_, cell_columns_;
  const size_t part_bytes_, row_bytes_;
  /// In `all_`, of the first row: of the cells that have columns, in the order of the columns.
  std::vector<size_t> places_;
  Bytes mine_, all_;  ///< the first: unless the session has room
  char* const own_;
  size_t head_ = 0, piece_ = 0;  ///< of `all_`: before a rank's rows, and of a rank
  RowRange range_{0, 0};
};

}  // namespace diralign
