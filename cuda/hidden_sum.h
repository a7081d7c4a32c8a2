// The gradient of hidden states of an output layer whose words are in several processes: added up
// in float64, in the order of the ranks, by hosts or by devices.
#pragma once
#include "layer_kernels.h"
#include "runtime.h"
#include "distributed/parallel.h"

namespace diralign::cuda {

class HiddenSum {
 public:
  /// `wire`: of the numbers as they travel.
  HiddenSum(Session& session, const Place& place, int64_t columns, Dtype wire)
      : wire_(wire),
        session_(session),
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
    sum_over_columns(session_, stage_.as<float>(), count, wire_);
    check(cudaMemcpyAsync(own, stage_.data(), bytes, cudaMemcpyHostToDevice, stream),
          "cudaMemcpyAsync");
  }
  /// The same sums, of pieces that each rank adds up on its device.
  void sum_by_devices(float* own, int64_t count) {
    const cudaStream_t stream = as_stream(stream_);
    const int64_t piece = piece_of(count);
    const size_t bytes = size_t(piece) * dtype_bytes(wire_), all = bytes * size_t(ranks_);
    char* const theirs = reinterpret_cast<char*>(own + piece_of(most_ * columns_) * ranks_);
    char* const sums = theirs + all;
    // Numbers of 16 bits have room beside what others have of theirs.
    const bool narrow = wire_ != Dtype::float32;
    char* const sent = narrow ? sums + bytes : reinterpret_cast<char*>(own);
    const auto given_up = [this] { return session_.is_abandoned(); };
    session_.meet(Step::rows, {});
    if (narrow) narrow_to(stream, sent, wire_, own, count);
    carrier_->all_to_all(stream_, sent, theirs, bytes, given_up);
    sum_arrays(stream, sums, theirs, wire_, ranks_, piece);
    carrier_->all_gather(stream_, sums, sent, bytes, given_up);
    if (narrow) widen(stream, own, sent, wire_, count);
    carrier_->wait(stream_, given_up);
  }
  /// What a rank adds up of so many numbers.
  int64_t piece_of(int64_t count) const { return (count + ranks_ - 1) / ranks_; }

  const Dtype wire_;
  Session& session_;
  const Stream stream_;
  const int64_t columns_, ranks_;
  DeviceCarrier* const carrier_;  ///< null: by the hosts
  int64_t most_ = 0;
  PinnedBlock stage_;
};

}  // namespace diralign::cuda
