// Host arrays on their way to the device and back, row by row through pinned memory.
#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include "runtime.h"

namespace diralign::cuda {

class OwnStream {
 public:
  OwnStream() {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  }
  ~OwnStream() {
    ignore(cudaStreamSynchronize(stream_));
    ignore(cudaStreamDestroy(stream_));
  }
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;
  cudaStream_t get() const { return stream_; }
  void wait_for(const Marker& marker) {
    check(cudaStreamWaitEvent(stream_, marker.get(), 0), "cudaStreamWaitEvent");
  }

 private:
  cudaStream_t stream_ = nullptr;
};

/// Pinned memory in turns: each is filled or emptied by the processor while the copy engine works
/// on another.
class StageRing {
 public:
  static constexpr size_t stage_bytes = size_t{4} << 20;
  StageRing() {
    for (Stage& stage : stages_) stage.block = PinnedBlock(stage_bytes);
  }
  struct Stage {
    PinnedBlock block;
    Marker copied;
    bool busy = false;
  };
  /// The next in turn, once its last copy has ended.
  Stage& next() {
    Stage& stage = stages_[turn_++ % stages_.size()];
    if (stage.busy) stage.copied.synchronize();
    stage.busy = false;
    return stage;
  }

 private:
  std::array<Stage, 3> stages_;
  size_t turn_ = 0;
};

/// Calls `copy(row, offset, in_piece, bytes)` for the pieces of rows that bytes [from, from +
/// count) of consecutive rows are made of.
template <class Copy>
void for_pieces(size_t row_bytes, size_t from, size_t count, Copy&& copy) {
  for (size_t done = 0; done < count;) {
    const size_t row = (from + done) / row_bytes, offset = (from + done) % row_bytes,
                 bytes = std::min(row_bytes - offset, count - done);
    copy(row, offset, done, bytes);
    done += bytes;
  }
}

/// Rows from where `row(i)` says, one after another on the device; enqueued. Stops once cancelled.
template <class Row>
void upload_rows(StageRing& ring, cudaStream_t stream, void* to, size_t rows, size_t row_bytes,
                 const std::atomic<bool>& cancelled, Row&& row) {
  const size_t total = rows * row_bytes;
  for (size_t from = 0; from < total && !cancelled; from += StageRing::stage_bytes) {
    const size_t bytes = std::min(StageRing::stage_bytes, total - from);
    StageRing::Stage& stage = ring.next();
    for_pieces(row_bytes, from, bytes, [&](size_t i, size_t offset, size_t in_piece, size_t count) {
      std::memcpy(stage.block.as<char>() + in_piece, static_cast<const char*>(row(i)) + offset,
                  count);
    });
    check(cudaMemcpyAsync(static_cast<char*>(to) + from, stage.block.data(), bytes,
                          cudaMemcpyHostToDevice, stream),
          "cudaMemcpyAsync");
    stage.copied.record(stream);
    stage.busy = true;
  }
}

/// The other way; they are there on return.
template <class Row>
void download_rows(StageRing& ring, cudaStream_t stream, const void* from_device, size_t rows,
                   size_t row_bytes, const std::atomic<bool>& cancelled, Row&& row) {
  const size_t total = rows * row_bytes;
  StageRing::Stage* full = nullptr;  // on its way, or there
  size_t full_from = 0, full_bytes = 0;
  auto empty = [&] {
    if (!full) return;
    full->copied.synchronize();
    full->busy = false;
    for_pieces(row_bytes, full_from, full_bytes,
               [&](size_t i, size_t offset, size_t in_piece, size_t count) {
                 std::memcpy(static_cast<char*>(row(i)) + offset, full->block.as<char>() + in_piece,
                             count);
               });
  };
  for (size_t from = 0; from < total && !cancelled; from += StageRing::stage_bytes) {
    StageRing::Stage& stage = ring.next();
    const size_t bytes = std::min(StageRing::stage_bytes, total - from);
    check(cudaMemcpyAsync(stage.block.data(), static_cast<const char*>(from_device) + from, bytes,
                          cudaMemcpyDeviceToHost, stream),
          "cudaMemcpyAsync");
    stage.copied.record(stream);
    stage.busy = true;
    empty();
    full = &stage;
    full_from = from;
    full_bytes = bytes;
  }
  empty();
}

}  // namespace diralign::cuda
