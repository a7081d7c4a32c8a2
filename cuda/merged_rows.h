// Rows of a job whose columns are in several processes, or in cells of a grid: the device sums
// parts of them, the host merges those of all ranks, and the device writes gradients from what the
// host makes of a row.
#pragma once
#include <cstring>
#include <deque>
#include <optional>
#include <utility>
#include <vector>
#include "loss_work.h"
#include "measure_rows.h"
#include "tuning.h"
#include "jobs/pool.h"
#include "jobs/row_results.h"

namespace diralign::cuda {

class MergedRows {
 public:
  /// `dtype`: of the logits. Enqueues nothing.
  MergedRows(Job& job, Dtype dtype, const Place& place, Pool& pool)
      : job_(job), dtype_(dtype), place_(place), results_(job), team_(pool, team_size(job)) {}

  /// Waits for the end of the work: the stage is given back.
  ~MergedRows() { ignore(cudaStreamSynchronize(as_stream(place_.stream))); }
  MergedRows(const MergedRows&) = delete;
  MergedRows& operator=(const MergedRows&) = delete;

  RowResults& results() { return results_; }
  const RowResults& results() const { return results_; }

  /// Of the group whose rows come next. `chunks`: parts of the list of scored rows whose logits are
  /// there at a time; empty: all are, where the batch has them.
  void begin(const UnitGroup& group, const std::vector<RowRange>& chunks) {
    rows_ = group.rows;
    request_ = request_of(job_);
    request_.dtype = dtype_;
    request_.first_unit = group.first_unit;
    request_.last_unit = group.last_unit;
    request_.terms.objective_count = 0;
    request_.measures = request_.write_ignored = false;
    request_.derivatives.clear();
    request_.chunks.clear();
    for (const RowRange& chunk : chunks)
      request_.chunks.push_back({chunk.begin - rows_.begin, chunk.end - rows_.begin});
    groups_.clear();
    if (rows_.size() > 0) add_group(groups_, group, rows_.begin);
    work_.reset();
    means_.clear();
    if (rows_.size() > 0 && job_.batch.vocab > 0) begin_sums(std::max<size_t>(1, chunks.size()));
  }

  /// Rows of the group whose logits are there: sums the own columns, exchanges and merges. Left
  /// out, as far as that goes, once the job is cancelled.
  void reduce(const RowRange& rows, const LossWork::Target& logits) {
    if (work_ && rows.size() > 0) sum_parts(rows, logits);
    for_rows(rows, [this](int64_t i) { put(i, i - rows_.begin); });
    if (job_.stopped()) return;
    exchange(rows);
    for_rows(rows, [this](int64_t i) { results_.take_merged(i); });
  }

  /// For launches that write the gradients of the group's rows, which are counted from its first
  /// on: the derivatives of the loss times `unit`, or, of a factored gradient, those of the rows'
  /// log-probabilities. Null where the rank has no columns.
  LossWork* differentiate(const BatchLoss* loss, double unit, bool write_ignored, size_t launches,
                          size_t stages) {
    LossRequest r = request_;
    r.pass = Pass::dense;
    r.write_ignored = write_ignored;
    r.row_gradients.resize(size_t(rows_.size()));
    const bool factored = job_.gradients.logits.mode == GradientMode::factored;
    for_rows(rows_, [&](int64_t i) {
      r.row_gradients[size_t(i - rows_.begin)] =
          factored ? results_.residual(i)
                   : results_.gradient(i, times(results_.coefficients(i, loss), unit));
    });
    if (!factored)
      for (const RowGradient& g : r.row_gradients) underflows_ += g.underflows;
    if (job_.batch.vocab == 0) return nullptr;
    work_.emplace(r, groups_, launches, stages, place_);
    return &*work_;
  }
  /// Rows whose label's entry underflows, of the gradients so far.
  int64_t underflows() const { return underflows_; }

  /// Whether a row of the group is a NaN.
  bool has_nan() const {
    for (int64_t i = rows_.begin; i < rows_.end; i++)
      if (std::isnan(results_.statistics(i).logp)) return true;
    return false;
  }

 private:
  static int team_size(const Job& job) {
    const int64_t useful = int64_t(job.rows.scored.size()) / host_rows_per_thread;
    return int(std::clamp<int64_t>(useful, 1, std::max(1, job.threads)));
  }
  template <class Row>
  void for_rows(const RowRange& rows, Row&& row) {
    constexpr int64_t step = host_rows_per_thread / 4;
    team_.run((rows.size() + step - 1) / step, [&](int64_t item, int) {
      const int64_t first = rows.begin + item * step;
      for (int64_t i = first; i < std::min(rows.end, first + step); i++) row(i);
    });
  }
  static RowCoefficients times(const RowCoefficients& c, double unit) {
    return {finite(c.align) * unit, finite(c.likelihood) * unit, finite(c.entropy) * unit};
  }

  /// By the host, or by the device, on the stream of the logits.
  void exchange(const RowRange& rows) {
    Session& session = job_.parallel->session;
    DeviceCarrier* const carrier = session.by_device(Axis::vocab);
    if (!carrier) return results_.shards().exchange(rows);
    const size_t bytes = results_.shards().bytes_of(rows),
                 all = bytes * size_t(session.size(Axis::vocab));
    const cudaStream_t stream = as_stream(place_.stream);
    Bytes received(all);
    stage_ = PinnedBlock(all);
    exchanged_ = Workspace(place_.device, stream, bytes + all);
    results_.shards().exchange(rows, [&](const void* mine) {
      if (bytes == 0) return std::move(received);
      char *const own = exchanged_.as<char>(), *const others = own + bytes;
      std::memcpy(stage_.data(), mine, bytes);
      check(cudaMemcpyAsync(own, stage_.data(), bytes, cudaMemcpyHostToDevice, stream),
            "cudaMemcpyAsync");
      const auto given_up = [&session] { return session.is_abandoned(); };
      carrier->all_gather(place_.stream, own, others, bytes, given_up);
      check(cudaMemcpyAsync(stage_.data(), others, all, cudaMemcpyDeviceToHost, stream),
            "cudaMemcpyAsync");
      carrier->wait(place_.stream, given_up);
      std::memcpy(received.data(), stage_.data(), all);
      return std::move(received);
    });
  }

  int64_t cell_columns() const {
    return job_.parallel->column_grid > 0 ? job_.parallel->column_grid : job_.batch.vocab;
  }
  void begin_sums(size_t launches) {
    LossRequest r = request_;
    r.pass = results_.needs_moment() ? Pass::tokens : Pass::logps;
    r.parts_of = &job_.batch;
    r.column_grid = job_.parallel->column_grid;
    r.collision = results_.shards().has_squares();
    part_columns_ = r.cut().columns(uint32_t(dtype_bytes(dtype_)));
    work_.emplace(r, groups_, launches, launches, place_);
    for (int64_t first = 0; results_.needs_mean() && first < job_.batch.vocab;
         first += cell_columns())
      means_.emplace_back(job_.rows, rows_, request_.chunks, job_.batch.transform, place_);
  }

  void sum_parts(const RowRange& rows, const LossWork::Target& logits) {
    const int64_t first = rows.begin - rows_.begin;
    Stages order(work_->parts());
    order.add(Work::reduce, uint32_t(first), uint32_t(rows.size()), 0);
    work_->launch(order, logits);
    work_->fetch();
    for (size_t cell = 0; cell < means_.size(); cell++) {
      const int64_t column = int64_t(cell) * cell_columns();
      means_[cell].launch(
          first, rows.size(),
          static_cast<const char*>(logits.logits) + size_t(column) * dtype_bytes(dtype_), dtype_,
          std::min(cell_columns(), job_.batch.vocab - column), logits.row_stride);
      means_[cell].fetch();
    }
    check(cudaStreamSynchronize(as_stream(place_.stream)), "cudaStreamSynchronize");
  }

  /// The device's parts of so many columns: the first, and the end.
  std::pair<int64_t, int64_t> parts_of(int64_t first, int64_t count) const {
    return {first / part_columns_, (first + count + part_columns_ - 1) / part_columns_};
  }
  /// The parts of row i, the k-th of the group, as those of the cells.
  void put(int64_t i, int64_t k) {
    results_.shards().put(
        i,
        [&](int64_t first, int64_t count, int32_t) {
          const auto [part, end] = parts_of(first, count);
          return RowSums{
              merge_in_order(uint32_t(end - part),
                             [&, from = part](uint32_t j) { return work_->part(k, from + j); }),
              work_->target(k)};
        },
        [&](int64_t first, int64_t count) {
          return means_[size_t(first / cell_columns())].row(k).mean_logit * double(count);
        },
        [&](int64_t first, int64_t count, int32_t, float top) {
          double sum = 0;
          const auto [part, end] = parts_of(first, count);
          for (int64_t p = part; p < end; p++)
            sum += work_->part_squares(k, p) *
                   std::exp(2 * (double(work_->part(k, p).anchor) - double(top)));
          return sum;
        },
        [&](int64_t) { return work_->sft_target(k); });
  }

  Job& job_;
  const Dtype dtype_;
  const Place place_;
  RowResults results_;
  Team team_;
  RowRange rows_{0, 0};            ///< of the group
  LossRequest request_{};          ///< what the group's requests have in common
  std::vector<Group> groups_;      ///< it, as the device has it
  std::optional<LossWork> work_;   ///< the sums of its rows, then their gradients
  std::deque<MeasureWork> means_;  ///< of the logits of its rows, for each cell
  PinnedBlock stage_;              ///< of what a carrier of the device brings
  Workspace exchanged_;            ///< where it lies
  int64_t part_columns_ = 1, underflows_ = 0;
};

}  // namespace diralign::cuda
