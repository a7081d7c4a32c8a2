// The rows of a job on a device, and launches of the loss kernel on them.
#pragma once
#include <limits>
#include <vector>
#include "jobs/job.h"
#include "jobs/plan.h"
#include "loss_kernel.h"
#include "loss_request.h"
#include "runtime.h"

namespace diralign::cuda {

/// Tiles of rows, all groups together.
uint32_t tiles_of(const std::vector<Group>& groups);
/// Adds a group of units that has rows; `list_begin`: the first of the rows that a launch has.
void add_group(std::vector<Group>& groups, const UnitGroup& units, int64_t list_begin);

/// The order of the work of a launch.
class Stages {
 public:
  explicit Stages(uint32_t parts) : parts_(parts) {}
  void add(Work work, uint32_t first_row, uint32_t rows, uint32_t group) {
    if (rows == 0) return;
    stages_.push_back({work, uint32_t(tickets_), first_row, group});
    tickets_ += uint64_t(rows) * parts_;
  }
  void add(Work work, const std::vector<Group>& groups, size_t g) {
    const uint32_t tiles = (groups[g].rows + tile_rows - 1) / tile_rows;
    add(work, groups[g].first_row,
        work == Work::finish ? (tiles + parts_ - 1) / parts_ : groups[g].rows, uint32_t(g));
  }
  /// Half of the numbers are left for tickets drawn past the end.
  bool fit() const { return tickets_ < uint64_t(std::numeric_limits<uint32_t>::max()) / 2; }
  uint64_t tickets() const { return tickets_; }
  /// The end not counted.
  const std::vector<Stage>& list() const { return stages_; }

 private:
  uint32_t parts_;
  uint64_t tickets_ = 0;
  std::vector<Stage> stages_;
};

/// The rows of a job on the device, which one launch of the kernel goes through, or several: rows,
/// groups of units, counters and results are theirs together, the stages and the counter of tickets
/// each one's own. A group is evaluated in the launch that reduces the last of its rows. The device
/// is selected by the caller.
class LossWork {
 public:
  /// Enqueues nothing. `launches` and `stages`: the most there will be, the stages of all launches
  /// together.
  LossWork(const LossRequest& request, const std::vector<Group>& groups, size_t launches,
           size_t stages, const Place& place);
  /// Waits for the end of the work.
  ~LossWork();
  LossWork(const LossWork&) = delete;
  LossWork& operator=(const LossWork&) = delete;

  struct Target {
    const void* logits;
    void* gradient;
    int64_t row_stride, gradient_elements;
    Dtype gradient_dtype;
    double gradient_unit = 1;
    bool counts_underflows = false;
  };
  /// Records the event that the time begins with, if there is one.
  void begin();
  /// `clusters`: so many of them at most take the rows of the one stage of the order; 0: blocks
  /// take the tickets of all stages.
  void launch(const Stages& order, const Target& target, uint32_t clusters = 0);
  /// The results so far, copied to the host.
  void fetch();
  /// Those that later launches take in place of what the device evaluated; one per sequence.
  void set_coefficients(const double* of_sequences);

  uint32_t parts() const { return plan_.cut.parts; }
  // Once the stream is past `fetch`; indexed as the batch is.
  double logp(int64_t sequence) const { return results_.as<double>()[sequence]; }
  double sft_logp(int64_t sequence) const {
    return plan_.separate_sft ? results_.as<double>()[plan_.terms.units.sequences() + sequence]
                              : logp(sequence);
  }
  /// Writes the numbers of the i-th row.
  void take_token(const TokensWanted& wanted, int64_t i, int64_t row) const;
  // Rows of the launches that counted them.
  int64_t underflows() const { return counted()[0]; }
  int64_t nan_rows() const { return counted()[1]; }
  // Of a request for parts.
  const PartSums& part(int64_t i, int64_t k) const {
    return results_.as<PartSums>()[i * plan_.cut.parts + k];
  }
  /// Of the part's exponentials; of a request for the collision, too.
  double part_squares(int64_t i, int64_t k) const {
    return results_.as<double>()[(plan_.part_squares - plan_.tokens) + i * plan_.cut.parts + k];
  }
  /// What the labels' logits become; of interest where the batch has their columns.
  float target(int64_t i) const { return targets()[i]; }
  float sft_target(int64_t i) const { return targets()[plan_.sft_targets - plan_.targets + i]; }

 private:
  struct Places;
  void allocate(const Places& places);
  void fill_upload(const LossRequest& request, const std::vector<Group>& groups,
                   const Places& places);
  void fill_plan(const LossRequest& request, const Places& places);
  const uint32_t* counted() const {
    return results_.as<uint32_t>() + result_bytes_ / sizeof(uint32_t) - counts;
  }

  const float* targets() const {
    return results_.as<float>() + (plan_.targets - reinterpret_cast<float*>(plan_.part_sums));
  }

  template <class T>
  static T* at(void* base, size_t offset) {
    return reinterpret_cast<T*>(static_cast<char*>(base) + offset);
  }

  static constexpr size_t counts = 2;  ///< of rows, at the end of the results
  /// In the upload, before the stages of a launch: its counter of tickets.
  static constexpr size_t counter_bytes = 16;
  static_assert(sizeof(Stage) == counter_bytes);

  Pass pass_;
  Dtype dtype_;
  int device_;
  cudaStream_t stream_;
  Event begin_;  ///< until it is recorded
  Plan plan_{};
  size_t uploaded_ = 0, next_launch_, upload_bytes_, result_bytes_;
  void* uploads_;  ///< where in the workspace the upload goes
  bool pending_ = false;
  Marker ended_;
  PinnedBlock upload_, coefficients_, results_;
  Workspace workspace_;
};

}  // namespace diralign::cuda
