// What launches have found, for the host.
#pragma once
#include "loss_launch.h"
#include "distributed/parallel.h"
#include "jobs/driver.h"

namespace diralign::cuda {

/// The numbers of a job that comes in one launch or in several, and the host's half of a loss:
/// everything that follows from the log-probabilities of the sequences. Numbers of units are few;
/// computing them here, with the functions that gave the device its coefficients, leaves one set of
/// numbers to bring back.
class Collected {
 public:
  explicit Collected(Job& job)
      : job_(job),
        sft_logps_(job.batch.sft_labels ? size_t(job.batch.sequences) : 0),
        measures_(job.asked().any() ? job.rows.scored.size() : 0) {}

  /// Of the units that the launch was for.
  void take(const LossLaunch& launch, const UnitGroup& group) {
    const RowRange& range = group.rows;
    if (job_.tokens) return take_tokens(launch, range);
    if (job_.given) return;
    job_.rows.units.for_sequences(group.first_unit, group.last_unit, [&](int64_t s) {
      job_.logps[s] = launch.logp(s);
      if (!sft_logps_.empty()) sft_logps_[size_t(s)] = launch.sft_logp(s);
    });
    underflows_ += launch.underflows();
    if (measures_.empty()) return;
    for (int64_t i = range.begin; i < range.end; i++)
      measures_[size_t(i)] = launch.measures(i - range.begin);
  }

  const double* sft_logps() const { return sft_logps_.empty() ? job_.logps : sft_logps_.data(); }
  const Array<RowMeasures>& measures() const { return measures_; }
  /// Of the sequences, where other processes have other tokens of them.
  void sum_over_processes() { sum_logps(job_, sft_logps_); }

  void finish() {
    if (job_.given) finish_given(job_);
    if (!job_.loss) return;
    BatchLoss loss(job_.terms(), job_.loss->outputs);
    loss.evaluate(job_.logps, sft_logps(), 0, loss.units().count);
    finish_loss(job_, loss, sft_logps(), underflows_, measures_);
  }

 private:
  void take_tokens(const LossLaunch& launch, const RowRange& range) {
    for (int64_t i = range.begin; i < range.end; i++)
      launch.take_token(*job_.tokens, i - range.begin, job_.rows.scored[size_t(i)].row);
  }

  Job& job_;
  Array<double> sft_logps_;
  Array<RowMeasures> measures_;
  int64_t underflows_ = 0;
};

}  // namespace diralign::cuda
