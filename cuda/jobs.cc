// The jobs of the CUDA backend: on device data, enqueued, and on host arrays, through pinned
// stages.
#include <algorithm>
#include <array>
#include <cstring>
#include "collected.h"
#include "layer_run.h"
#include "logits_phases.h"
#include "staging.h"
#include "tuning.h"
#include "jobs/driver.h"
#include "jobs/host_gradient.h"

namespace diralign::cuda {

namespace {

class OnDevice : public Launch {
 public:
  OnDevice(Job& job, const Place& place) : job_(job), launch_(logits_request(job), place) {}
  void finish() override {
    Collected numbers(job_);
    const int64_t units = job_.rows.units.count;
    numbers.take(launch_, {0, units, job_.rows.of_units(0, units), true});
    numbers.finish();
  }

 private:
  Job& job_;
  LossLaunch launch_;
};

// --- Host arrays

/// A job on host arrays. Chunks of whole units go up, through the kernel in place, and down; while
/// a chunk is computed the next goes up. Only scored rows travel.
class StagedRun {
 public:
  struct Chunk {
    UnitGroup units;
    Workspace rows;
    std::unique_ptr<LossLaunch> launch;
    Marker computed;
  };

  /// `gradient`: where rows go when they come back, or null.
  StagedRun(Job& job, const LossRequest& request, int device, void* gradient)
      : job_(job), request_(request), device_(device), gradient_(gradient) {
    request_.row_stride = request_.vocab;
    request_.write_ignored = false;
  }
  ~StagedRun() {  // whatever was thrown: nothing may be given back while a copy still uses it
    for (OwnStream* stream : {&up_, &compute_, &down_})
      ignore(cudaStreamSynchronize(stream->get()));
  }

  /// Calls `result(chunk)` as the numbers of each chunk become known.
  template <class Result>
  void run(Result&& result) {
    const int64_t rows = int64_t(std::max<size_t>(1, chunk_bytes / job_.batch.row_bytes()));
    // The coefficients of a sorted objective need every unit at once.
    const bool together = request_.terms.is_sorted() && request_.pass == Pass::dense;
    Chunk* before = nullptr;
    for (const UnitGroup& units : group_units(job_.rows, rows, together)) {
      if (job_.cancelled) return;
      Chunk& chunk = before == &chunks_[0] ? chunks_[1] : chunks_[0];
      chunk.units = units;
      start(chunk);
      if (before) finish(*before, result);
      before = &chunk;
    }
    if (before && !job_.cancelled) finish(*before, result);
  }

 private:
  int64_t row_of(const Chunk& chunk, size_t i) const {
    return job_.rows.scored[size_t(chunk.units.rows.begin) + i].row;
  }

  void start(Chunk& chunk) {
    const int64_t rows = chunk.units.rows.size();
    chunk.rows = Workspace(device_, compute_.get(), size_t(rows) * job_.batch.row_bytes());
    marker_.record(compute_.get());
    up_.wait_for(marker_);
    upload_rows(ring_, up_.get(), chunk.rows.data(), size_t(rows), job_.batch.row_bytes(),
                job_.cancelled, [&](size_t i) { return job_.batch.row(row_of(chunk, i)); });
    marker_.record(up_.get());
    compute_.wait_for(marker_);
    request_.logits = request_.gradient = chunk.rows.data();
    request_.gradient_elements = rows * request_.vocab;
    request_.chunks = {{0, rows}};
    request_.first_unit = chunk.units.first_unit;
    request_.last_unit = chunk.units.last_unit;
    chunk.launch = std::make_unique<LossLaunch>(
        request_, Place{device_, reinterpret_cast<Stream>(compute_.get())});
    chunk.computed.record(compute_.get());
  }

  template <class Result>
  void finish(Chunk& chunk, Result&& result) {
    chunk.computed.synchronize();
    result(chunk);
    if (gradient_) download(chunk);
    chunk.launch.reset();
    chunk.rows = Workspace();
  }

  void download(Chunk& chunk) {
    download_rows(ring_, down_.get(), chunk.rows.data(), size_t(chunk.units.rows.size()),
                  job_.batch.row_bytes(), job_.cancelled, [&](size_t i) {
                    return static_cast<char*>(gradient_) + size_t(row_of(chunk, i)) *
                                                               size_t(job_.batch.row_stride) *
                                                               job_.batch.element_bytes();
                  });
  }

  Job& job_;
  LossRequest request_;
  int device_;
  void* gradient_;
  StageRing ring_;
  Marker marker_;
  OwnStream up_, compute_, down_;
  std::array<Chunk, 2> chunks_;
};

/// What of a host gradient is 0: rows that no term scores, and columns that belong to no class.
void write_host_zeros(const Job& job) {
  const GradientOutput& output = job.gradients.logits;
  if (output.mode == GradientMode::none) return;
  const HostGradient gradient(job.batch, output);
  for (const int64_t row : job.rows.ignored) gradient.zero_row(row);
  for (int64_t row = 0; row < job.batch.rows; row++) gradient.zero_padding(row);
}

}  // namespace

void run_logits(Job& job, const Place& place, Pool& pool) {
  const DeviceGuard guard(place.device);
  LogitsPhases phases(job, place, pool);
  run_phases(job, phases);
}

std::unique_ptr<Launch> launch(Job& job, const Place& place) {
  return std::make_unique<OnDevice>(job, place);
}

void run_staged(Job& job, int device) {
  if (job.layer) return run_staged_layer(job, device);
  const DeviceGuard guard(device);
  const GradientOutput& gradient = job.gradients.logits;
  Collected numbers(job);
  StagedRun(job, logits_request(job), device,
            gradient.mode == GradientMode::none ? nullptr : gradient.data)
      .run([&](const StagedRun::Chunk& chunk) { numbers.take(*chunk.launch, chunk.units); });
  if (job.cancelled) return;
  write_host_zeros(job);
  numbers.finish();
}

}  // namespace diralign::cuda
