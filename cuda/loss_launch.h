// A job on logits in one launch of the loss kernel, and its numbers when it has ended.
#pragma once
#include <optional>
#include "loss_work.h"
#include "measure_rows.h"

namespace diralign::cuda {

/// The request of a job on logits in device memory, but for what follows from the memory alone.
LossRequest logits_request(const Job& job);

/// A job in one launch, or, where the request splits it, in two. Enqueued by its constructor, which
/// throws before anything is enqueued that writes. The destructor waits for the end of the work.
class LossLaunch {
 public:
  LossLaunch(const LossRequest& request, const Place& place);
  /// The second launch: the gradient by `coefficients`, one per sequence, or, where that is null,
  /// by those that the device found.
  void differentiate(const double* coefficients);

  // Once the work has ended; indexed as the batch is.
  double logp(int64_t sequence) const { return has_rows_ ? work_->logp(sequence) : 0; }
  double sft_logp(int64_t sequence) const { return has_rows_ ? work_->sft_logp(sequence) : 0; }
  /// Pass::dense: rows of the gradient whose label's entry underflows.
  int64_t underflows() const { return has_rows_ ? work_->underflows() : 0; }
  /// Pass::tokens: writes the numbers of the i-th scored row of the request.
  void take_token(const TokensWanted& wanted, int64_t i, int64_t row) const {
    work_->take_token(wanted, i, row);
  }
  /// Of the i-th scored row of a request that asked for measures.
  const RowMeasures& measures(int64_t i) const { return measures_->row(i); }

 private:
  bool has_rows_ = false;
  std::optional<Stages> second_;  ///< what the second launch does
  LossWork::Target target_{};
  std::optional<MeasureWork> measures_;
  std::optional<LossWork> work_;
};

}  // namespace diralign::cuda
