#include "compute.h"
#include <algorithm>
#include <cmath>
#include <cstring>
#include "kernels.h"
#include "layer.h"
#include "loss_rows.h"
#include "team_rows.h"
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace diralign::cpu {

namespace {

/// Fewer elements than this are done sooner by one thread than by waking another.
constexpr int64_t elements_per_thread = 1 << 16;

/// Pairs are reduced and differentiated in groups of about this size: what was read last is read
/// again first, from the cache.
constexpr size_t group_bytes = size_t{16} << 20;

/// A gradient larger than this would only push other data out of the caches.
constexpr size_t streamed_bytes = size_t{16} << 20;

int team_size(const Job& job) {
  const int64_t elements = int64_t(job.rows.scored.size()) * job.batch.vocab;
  return int(std::clamp<int64_t>(
      std::min<int64_t>(elements / elements_per_thread, int64_t(job.rows.scored.size())), 1,
      std::max(1, job.threads)));
}

}  // namespace

void advise_large_pages(void* data, size_t bytes) {
#if defined(__linux__)
  constexpr uintptr_t large = uintptr_t{2} << 20;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + large - 1) & ~(large - 1),
                  end = (reinterpret_cast<uintptr_t>(data) + bytes) & ~(large - 1);
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

namespace {

/// One run of a LossJob: the state between its phases.
class LossRun {
 public:
  LossRun(LossJob& job, Pool& pool)
      : job_(job),
        batch_(job.batch),
        kernels_(kernel_set().rows[int(job.batch.dtype)]),
        team_(pool, team_size(job)),
        loss_(job.terms(), job.outputs),
        rows_(job),
        streamed_(job.gradient.data != job.batch.logits &&
                  job.rows.scored.size() * job.batch.row_bytes() > streamed_bytes) {
    if (exponentials_once())
      block_references_.resize(size_t(team_.members()),
                               std::vector<float>(size_t((batch_.vocab - 1) / block_elements + 1)));
  }

  void run() {
    for (int64_t first = 0; first < loss_.pairs();) {
      const int64_t last = group_end(first);
      reduce(first, last);
      if (cancelled()) return;
      loss_.evaluate(job_.logps, rows_.sft_logps(), first, last);
      if (mode() == GradientOutput::Mode::dense) differentiate(first, last);
      first = last;
    }
    if (mode() == GradientOutput::Mode::factored) write_row_scales(job_, loss_);
    if (mode() != GradientOutput::Mode::none) write_zeros();
    if (cancelled()) return;
    *job_.loss = loss_.finish(job_.logps, rows_.sft_logps(), job_.largest_coefficient());
    job_.outputs.metrics[underflow] = double(underflows_);
    rows_.finish_measures();
  }

 private:
  GradientOutput::Mode mode() const { return job_.gradient.mode; }
  bool cancelled() const { return job_.cancelled.load(std::memory_order_relaxed); }
  bool in_place() const { return job_.gradient.data == batch_.logits; }
  bool exponentials_once() const {
    return mode() == GradientOutput::Mode::factored && in_place() &&
           kernels_.negative_softmax_in_place;
  }
  void* gradient_row(int64_t row) const {
    return static_cast<char*>(job_.gradient.data) +
           size_t(row) * size_t(batch_.row_stride) * batch_.element_bytes();
  }
  int64_t group_end(int64_t first) const {
    if (job_.objective.coupled() || mode() != GradientOutput::Mode::dense) return loss_.pairs();
    int64_t last = first + 1;
    while (last < loss_.pairs() &&
           size_t(rows_of_pairs(job_.rows, loss_.pairs(), first, last).size()) *
                   batch_.row_bytes() <
               group_bytes)
      last++;
    return last;
  }

  void reduce(int64_t first, int64_t last) {
    const RowRange range = rows_of_pairs(job_.rows, loss_.pairs(), first, last);
    for_rows(team_, job_, range.begin, range.end, false,
             [this](int64_t i, int member) { reduce_row(i, member); });
    if (!cancelled()) rows_.sum_pairs(first, last, loss_.pairs());
  }

  /// With the moment where the entropy is asked for; every other bit is the same without.
  RowSums reduce_sums(const ScoredRow& r, int member) {
    const void* row = batch_.row(r.row);
    const int32_t label = r.primary();
    if (!exponentials_once()) {
      const auto reduce = job_.asked.entropy ? kernels_.reduce_with_moment : kernels_.reduce;
      return reduce(row, batch_.vocab, label);
    }
    const double moment =
        job_.asked.entropy ? kernels_.reduce_with_moment(row, batch_.vocab, label).moment : 0;
    RowSums sums =
        kernels_.negative_softmax_in_place(static_cast<float*>(gradient_row(r.row)), batch_.vocab,
                                           label, block_references_[size_t(member)].data());
    sums.moment = moment;
    return sums;
  }

  void reduce_row(int64_t i, int member) {
    const ScoredRow& r = job_.rows.scored[size_t(i)];
    const void* row = batch_.row(r.row);
    const int32_t label = r.primary();
    auto take_mean = [&] {
      if (job_.asked.logits)
        rows_.take_mean(i, kernels_.sum(row, batch_.vocab) / double(batch_.vocab));
    };
    if (exponentials_once()) take_mean();  // before the row is overwritten
    const RowSums sums = reduce_sums(r, member);
    if (!exponentials_once())
      take_mean();  // once the reduction, which hides the loading, has brought the row into the
                    // cache
    const RowStatistics& s = rows_.take(i, sums, [&](int32_t v) { return kernels_.load(row, v); });
    if (mode() == GradientOutput::Mode::factored) {
      const RowGradient g = row_gradient(row_terms(s, false, 0), label, -1, 1, 0, 0);
      if (!exponentials_once())
        kernels_.scaled_exp(row, gradient_row(r.row), batch_.vocab, g.shift, g.factor, streamed_);
      kernels_.store(gradient_row(r.row), g.label, g.label_value);
      zero_padding(r.row);
    }
  }

  void differentiate(int64_t first, int64_t last) {
    const RowRange range = rows_of_pairs(job_.rows, loss_.pairs(), first, last);
    for_rows(team_, job_, range.begin, range.end, true,
             [this](int64_t i, int) { differentiate_row(i); });
  }

  void differentiate_row(int64_t i) {
    const ScoredRow& r = job_.rows.scored[size_t(i)];
    void* out = gradient_row(r.row);
    const RowGradient g = rows_.gradient(i, rows_.coefficients(i, loss_));
    if (g.underflows) underflows_.fetch_add(1, std::memory_order_relaxed);
    if (g.zero) {
      if (!job_.gradient.zeroed) std::memset(out, 0, batch_.row_bytes());
    } else {
      kernels_.scaled_exp(batch_.row(r.row), out, batch_.vocab, g.shift, g.factor, streamed_);
      kernels_.store(out, g.label, g.label_value);
      if (g.second_label >= 0) kernels_.store(out, g.second_label, g.second_value);
    }
    zero_padding(r.row);
  }

  /// Columns between the vocabulary and the next row belong to no class.
  void zero_padding(int64_t row) {
    if (job_.gradient.zeroed) return;
    const int64_t end = std::min((row + 1) * batch_.row_stride, job_.gradient.elements),
                  padding = end - (row * batch_.row_stride + batch_.vocab);
    if (padding > 0)
      std::memset(static_cast<char*>(gradient_row(row)) + batch_.row_bytes(), 0,
                  size_t(padding) * batch_.element_bytes());
  }

  void write_zeros() {
    if (job_.gradient.zeroed) return;
    const int64_t count = int64_t(job_.rows.ignored.size()), step = rows_per_item(batch_);
    team_.run((count + step - 1) / step, [&](int64_t item, int) {
      for (int64_t k = item * step; k < std::min(count, (item + 1) * step); k++) {
        std::memset(gradient_row(job_.rows.ignored[size_t(k)]), 0, batch_.row_bytes());
        zero_padding(job_.rows.ignored[size_t(k)]);
      }
    });
  }

  LossJob& job_;
  const Batch& batch_;
  const RowKernels& kernels_;
  Team team_;
  BatchLoss loss_;
  LossRows rows_;
  std::vector<std::vector<float>> block_references_;  // per member
  bool streamed_;
  std::atomic<int64_t> underflows_{0};  // rows
};

}  // namespace

void run(LossJob& job, Pool& pool) {
  if (job.layer) return run_layer(job, pool);
  LossRun(job, pool).run();
}

void run(SequenceLogpsJob& job, Pool& pool) {
  if (job.layer) return run_layer(job, pool);
  const Batch& batch = job.batch;
  const RowList& rows = job.rows;
  const RowKernels& kernels = kernel_set().rows[int(batch.dtype)];
  Array<double> row_logps(rows.scored.size());
  Team team(pool, team_size(job));
  for_rows(team, job, 0, int64_t(rows.scored.size()), false, [&](int64_t i, int) {
    const ScoredRow& r = rows.scored[size_t(i)];
    row_logps[size_t(i)] =
        row_statistics(kernels.reduce(batch.row(r.row), batch.vocab, r.label)).logp;
  });
  write_sequence_logps(job, row_logps);
}

void run(TokenLogpsJob& job, Pool& pool) {
  if (job.layer) return run_layer(job, pool);
  const Batch& batch = job.batch;
  const RowKernels& kernels = kernel_set().rows[int(batch.dtype)];
  Team team(pool, team_size(job));
  for_rows(team, job, 0, int64_t(job.rows.scored.size()), false, [&](int64_t i, int) {
    const ScoredRow& r = job.rows.scored[size_t(i)];
    write_token(job, r.row, kernels.reduce_with_moment(batch.row(r.row), batch.vocab, r.label));
  });
}

}  // namespace diralign::cpu
