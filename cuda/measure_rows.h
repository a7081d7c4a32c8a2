// What the metrics of `run.metrics` need of rows of logits, by a kernel that reads the rows once
// more: a run that asks for none has the loss kernel as it is.
#pragma once
#include <vector>
#include "jobs/measures.h"
#include "runtime.h"

namespace diralign::cuda {

/// Rows of a job, measured in one launch or several. The device is selected by the caller.
class MeasureWork {
 public:
  /// The scored rows of `range`; `chunks` as LossRequest has them. Enqueues nothing.
  MeasureWork(const RowList& rows, const RowRange& range, const std::vector<RowRange>& chunks,
              const LogitTransform& transform, const Place& place);
  /// Waits for the end of the work.
  ~MeasureWork();
  MeasureWork(const MeasureWork&) = delete;
  MeasureWork& operator=(const MeasureWork&) = delete;

  /// `count` rows from the i-th of the range on.
  void launch(int64_t i, int64_t count, const void* logits, Dtype dtype, int64_t vocab,
              int64_t row_stride);
  /// The results so far, copied to the host.
  void fetch();
  /// Of the i-th row of the range, once the stream is past `fetch`.
  const RowMeasures& row(int64_t i) const { return results_.as<RowMeasures>()[i]; }

 private:
  int device_;
  cudaStream_t stream_;
  size_t count_;
  LogitTransform transform_;
  bool uploaded_ = false;
  PinnedBlock upload_, results_;
  Workspace rows_, measures_;
};

}  // namespace diralign::cuda
