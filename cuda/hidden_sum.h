// The gradient of hidden states of an output layer whose words are in several processes: added up
// in float64, in the order of the ranks, by hosts or by devices.
#pragma once
#include "layer_kernels.h"
#include "runtime.h"
#include "distributed/parallel.h"

namespace diralign::cuda {

class HiddenSum {
 public:
  HiddenSum(Session& session, const Place& place, int64_t columns)
      : session_(session),
        stream_(place.stream),
        columns_(columns),
        ranks_(session.size(Axis::vocab)),
        carrier_(session.by_device(Axis::vocab)) {}

  /// Device memory that a row takes. By devices it has three arrays: this rank's, what others have
  /// of the piece that this one adds up, and the sums.
  size_t row_bytes() const { return size_t(columns_) * sizeof(float) * (carrier_ ? 3 : 1); }
  /// Beside the rows: every rank has a piece of one length.
  size_t padding() const { return carrier_ ? 3 * sizeof(float) * size_t(ranks_) : 0; }

  /// Before the first sum. `most`: rows of the longest.
  void begin(int64_t most) {
    most_ = most;
    if (!carrier_) stage_ = PinnedBlock(size_t(most) * row_bytes());
  }
  /// In place, for `rows` rows; `own` begins memory for the most rows.
  void sum(float* own, int64_t rows) {
    if (carrier_) sum_by_devices(own, rows * columns_);
    else sum_by_hosts(own, rows * columns_);
  }

 private:
  void sum_by_hosts(float* own, int64_t count) {
    const size_t bytes = size_t(count) * sizeof(float);
    const cudaStream_t stream = as_stream(stream_);
    check(cudaMemcpyAsync(stage_.data(), own, bytes, cudaMemcpyDeviceToHost, stream),
          "cudaMemcpyAsync");
    check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    sum_over_columns(session_, stage_.as<float>(), count);
    check(cudaMemcpyAsync(own, stage_.data(), bytes, cudaMemcpyHostToDevice, stream),
          "cudaMemcpyAsync");
  }
  /// The same sums, of pieces that each rank adds up on its device.
  void sum_by_devices(float* own, int64_t count) {
    const int64_t piece = piece_of(count);
    const size_t bytes = size_t(piece) * sizeof(float);
    float* const theirs = own + piece_of(most_ * columns_) * ranks_;
    float* const sums = theirs + piece * ranks_;
    const auto given_up = [this] { return session_.is_abandoned(); };
    session_.meet(Step::rows, {});
    carrier_->all_to_all(stream_, own, theirs, bytes, given_up);
    sum_arrays(as_stream(stream_), sums, theirs, ranks_, piece);
    carrier_->all_gather(stream_, sums, own, bytes, given_up);
    carrier_->wait(stream_, given_up);
  }
  /// What a rank adds up of so many numbers.
  int64_t piece_of(int64_t count) const { return (count + ranks_ - 1) / ranks_; }

  Session& session_;
  const Stream stream_;
  const int64_t columns_, ranks_;
  DeviceCarrier* const carrier_;  ///< null: by the hosts
  int64_t most_ = 0;
  PinnedBlock stage_;
};

}  // namespace diralign::cuda
