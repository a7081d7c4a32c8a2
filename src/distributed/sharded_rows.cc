#include "sharded_rows.h"
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

namespace diralign {

namespace {
constexpr size_t base_bytes = offsetof(PartSums, moment);

bool with_squares(const Job& job) { return job.tokens && job.tokens->collision; }
size_t part_bytes(const Job& job) {
  return base_bytes +
         (size_t(job.needs_moment()) + job.needs_mean() + with_squares(job)) * sizeof(double);
}
}  // namespace

ShardedRows::ShardedRows(const Job& job)
    : job_(job),
      session_(job.parallel->session),
      with_moment_(job.needs_moment()),
      with_mean_(job.needs_mean()),
      with_squares_(with_squares(job)),
      cells_(job.parallel->most_cells),
      cell_columns_(job.parallel->column_grid > 0 ? job.parallel->column_grid
                                                  : std::max<int64_t>(1, job.batch.vocab)),
      part_bytes_(part_bytes(job)),
      row_bytes_(size_t(cells_) * part_bytes_ + sizeof(RowEnd)),
      mine_(session_.rows() ? 0 : job.rows.scored.size() * row_bytes_),
      own_(session_.rows() ? session_.rows() : mine_.data()) {}

size_t ShardedRows::bytes_of_all(const Job& job) {
  return job.rows.scored.size() * (part_bytes(job) + sizeof(RowEnd));
}

void ShardedRows::write_part(char* to, const Part& part) const {
  std::memcpy(to, &part.sums, base_bytes);  // anchor, top, sum
  to += base_bytes;
  auto put = [&to](bool with, double x) {
    if (with) std::memcpy(to, &x, sizeof x), to += sizeof x;
  };
  put(with_moment_, part.sums.moment);
  put(with_mean_, part.logits);
  put(with_squares_, part.squares);
}

PartSums ShardedRows::part(int64_t i, size_t place) const {
  PartSums part = no_sums();
  std::memcpy(static_cast<void*>(&part), at(i, place), base_bytes);
  if (with_moment_) part.moment = number(i, place, 0);
  return part;
}

double ShardedRows::number(int64_t i, size_t place, size_t which) const {
  double x;
  std::memcpy(&x, at(i, place) + base_bytes + which * sizeof x, sizeof x);
  return x;
}

void ShardedRows::exchange(const RowRange& rows) {
  range_ = rows;
  if (session_.rows()) return take(session_.exchange_rows(), sizeof(Record));
  take(session_.gather(Step::rows, own_ + size_t(rows.begin) * row_bytes_, bytes_of(rows)), 0);
}

void ShardedRows::take(Bytes all, size_t head) {
  all_ = std::move(all);
  head_ = head;
  piece_ = all_.size() / size_t(session_.size(Axis::vocab));
  places_.clear();
  const std::vector<int64_t>& first = job_.parallel->first_columns;
  const int64_t grid = job_.parallel->column_grid;
  for (int rank = 0; rank < session_.size(Axis::vocab); rank++) {
    const int64_t columns = first[size_t(rank) + 1] - first[size_t(rank)],
                  cells = grid > 0 ? (columns + grid - 1) / grid : std::min<int64_t>(1, columns);
    for (int64_t cell = 0; cell < cells; cell++)
      places_.push_back(size_t(rank) * piece_ + head_ + size_t(cell) * part_bytes_);
  }
}

ShardedRows::RowEnd ShardedRows::end_of(int64_t i, int32_t label) const {
  const std::vector<int64_t>& first = job_.parallel->first_columns;
  // Counted, and not searched: which rank has a label, no processor foresees.
  size_t rank = 0;
  for (size_t r = 1; r + 1 < first.size(); r++) rank += label >= first[r];
  RowEnd end;
  const size_t place = rank * piece_ + head_ + size_t(cells_) * part_bytes_;
  std::memcpy(&end, at(i, place), sizeof end);
  return end;
}

RowSums ShardedRows::sums(int64_t i) const {
  const PartSums merged =
      merge_in_order(uint32_t(places_.size()), [&](uint32_t k) { return part(i, places_[k]); });
  return {merged, end_of(i, job_.rows.scored[size_t(i)].primary()).label};
}

double ShardedRows::mean(int64_t i) const {
  double sum = 0;
  for (const size_t place : places_) sum += number(i, place, with_moment_);
  return sum / double(job_.batch.words());
}

double ShardedRows::squares(int64_t i, float max) const {
  double sum = 0;
  for (const size_t place : places_) {
    const double shift = double(part(i, place).top) - double(max);
    sum += number(i, place, size_t(with_moment_) + with_mean_) * std::exp(2 * shift);
  }
  return sum;
}

float ShardedRows::second_value(int64_t i) const {
  return end_of(i, job_.rows.scored[size_t(i)].sft_label).second;
}

}  // namespace diralign
