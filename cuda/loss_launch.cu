#include "loss_launch.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <mutex>

namespace diralign::gpu {

namespace {

/// Places in one allocation.
class Layout {
 public:
  template <class T>
  size_t add(size_t count) {
    const size_t at = (bytes_ + 255) & ~size_t(255);
    bytes_ = at + count * sizeof(T);
    return at;
  }
  size_t bytes() const { return bytes_; }

 private:
  size_t bytes_ = 0;
};

struct DeviceLimits {
  size_t l2_bytes = 0;
  uint32_t resident_blocks[dtype_count][pass_count] = {};
};
/// Of the current device. Asked for once: a launch should not wait for the driver's answers.
DeviceLimits limits(int device) {
  static std::mutex mutex;
  static auto& known = *new std::vector<DeviceLimits>;  // never destroyed: other threads may outlive static objects
  const std::lock_guard lock(mutex);
  if (size_t(device) >= known.size()) known.resize(size_t(device) + 1);
  DeviceLimits& found = known[size_t(device)];
  if (found.resident_blocks[0][0] != 0) return found;
  int l2 = 0, multiprocessors = 0;
  check(cudaDeviceGetAttribute(&l2, cudaDevAttrL2CacheSize, device), "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
  DeviceLimits asked;
  asked.l2_bytes = size_t(std::max(l2, 0));
  for (int dtype = 0; dtype < dtype_count; dtype++) {
    for (int pass = 0; pass < pass_count; pass++) {
      int blocks = 0;
      check(loss_kernels(Dtype(dtype)).blocks_per_multiprocessor[pass](&blocks), "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
      asked.resident_blocks[dtype][pass] = uint32_t(std::max(1, blocks * multiprocessors));
    }
  }
  return found = asked;
}

/// The pairs in groups of about `group_bytes` of logits. Every group has rows.
std::vector<Group> make_groups(const RowList& rows, int64_t batch_pairs, int64_t first_pair, int64_t last_pair, size_t row_bytes, size_t group_bytes) {
  const int64_t list_begin = rows_of_pairs(rows, batch_pairs, first_pair, last_pair).begin;
  std::vector<Group> groups;
  uint32_t tile = 0;
  for (int64_t first = first_pair; first < last_pair;) {
    int64_t last = first;
    RowRange range{};
    do {
      range = rows_of_pairs(rows, batch_pairs, first, ++last);
    } while (last < last_pair && size_t(range.end - range.begin) * row_bytes < group_bytes);
    if (range.end > range.begin) {
      const uint32_t count = uint32_t(range.end - range.begin);
      groups.push_back({uint32_t(range.begin - list_begin), count, uint32_t(first), uint32_t(last - first), tile});
      tile += (count + tile_rows - 1) / tile_rows;
    } else if (!groups.empty()) {
      groups.back().pairs += uint32_t(last - first);  // sequences without rows at the end of the batch
    }
    first = last;
  }
  return groups;
}

/// The order of the work.
class Stages {
 public:
  explicit Stages(uint32_t parts) : parts_(parts) {}
  void add(Work work, uint32_t first_row, uint32_t rows, uint32_t group) {
    if (rows == 0) return;
    stages_.push_back({work, uint32_t(tickets_), first_row, group});
    tickets_ += uint64_t(rows) * parts_;
  }
  void add(Work work, const std::vector<Group>& groups, size_t g) { add(work, groups[g].first_row, groups[g].rows, uint32_t(g)); }
  /// Half of the numbers are left for tickets drawn past the end.
  bool fits() const { return tickets_ < uint64_t(std::numeric_limits<uint32_t>::max()) / 2; }
  std::vector<Stage> finish() {
    stages_.push_back({Work::end, uint32_t(tickets_), 0, 0});
    return std::move(stages_);
  }
  uint64_t tickets() const { return tickets_; }

 private:
  uint32_t parts_;
  uint64_t tickets_ = 0;
  std::vector<Stage> stages_;
};

Stages make_stages(Pass pass, const std::vector<Group>& groups, uint32_t ignored, uint32_t parts, bool rows_fit_on_chip) {
  Stages stages(parts);
  if (pass == Pass::dense) {
    for (size_t g = 0; g < groups.size(); g++) {
      stages.add(Work::reduce, groups, g);
      if (g > 0) stages.add(Work::gradient, groups, g - 1);
    }
    stages.add(Work::zero, 0, ignored, 0);  // while the last group is evaluated
    if (!groups.empty()) stages.add(Work::gradient, groups, groups.size() - 1);
  } else {
    const bool in_one = pass == Pass::factored && rows_fit_on_chip;
    for (size_t g = 0; g < groups.size(); g++) stages.add(in_one ? Work::reduce_residual : Work::reduce, groups, g);
    if (pass == Pass::factored) stages.add(Work::zero, 0, ignored, 0);
    if (pass == Pass::factored && !in_one)
      for (size_t g = 0; g < groups.size(); g++) stages.add(Work::residual, groups, g);
  }
  return stages;
}

template <class T>
T* at(void* base, size_t offset) {
  return reinterpret_cast<T*>(static_cast<char*>(base) + offset);
}

}  // namespace

LossLaunch::~LossLaunch() {
  // Usually it has: a query. But whatever went wrong around the launch, its blocks must not be given to others while in use.
  if (ended_) ignore(cudaEventSynchronize(ended_->get()));
}

LossLaunch::LossLaunch(const LossRequest& r, const Place& place) : separate_sft_(r.separate_sft), sequences_(r.terms.sequences) {
  const DeviceGuard guard(place.device);
  const cudaStream_t stream = as_stream(place.stream);
  const RowList& rows = *r.rows;
  const RowRange range = rows_of_pairs(rows, r.terms.pairs, r.first_pair, r.last_pair);
  const bool dense = r.pass == Pass::dense, coupled = r.terms.coupling != Coupling::none;
  const size_t row_count = size_t(range.end - range.begin), ignored_count = r.write_ignored ? rows.ignored.size() : 0, sequences = size_t(sequences_),
               pairs = size_t(r.terms.pairs), element = dtype_bytes(r.dtype), row_bytes = size_t(r.vocab) * element;
  has_rows_ = row_count > 0;
  if (row_count == 0 && ignored_count == 0) return;

  const DeviceLimits device = limits(place.device);
  const uint32_t resident = device.resident_blocks[int(r.dtype)][int(r.pass)];

  Plan plan{};
  plan.cut = cut_row(uint32_t(r.vocab), uint32_t(element));
  const uint32_t parts = plan.cut.parts;
  // A group is read, then the next one, and then the first again: two of them leave room in the cache for what is written meanwhile.
  const size_t group_bytes = dense && coupled ? std::numeric_limits<size_t>::max() : device.l2_bytes / 4;
  const std::vector<Group> groups = make_groups(rows, r.terms.pairs, r.first_pair, r.last_pair, row_bytes, group_bytes);
  const size_t tiles = groups.empty() ? 0 : groups.back().first_tile + (groups.back().rows + tile_rows - 1) / tile_rows;
  Stages order = make_stages(r.pass, groups, uint32_t(ignored_count), parts, parts <= resident);
  constexpr size_t most = std::numeric_limits<uint32_t>::max();
  if (!order.fits() || rows.scored.size() + rows.ignored.size() > most || sequences > most) throw std::length_error("the batch has too many rows for one launch");
  const uint32_t blocks = uint32_t(std::min<uint64_t>(resident, order.tickets()));
  const std::vector<Stage> stages = order.finish();

  size_t sort_length = 1;
  while (sort_length < pairs) sort_length *= 2;

  // What is copied to the device comes first, then what only lives there.
  Layout layout;
  const size_t at_rows = layout.add<RowRecord>(row_count), at_ignored = layout.add<uint32_t>(ignored_count), at_begin = layout.add<uint32_t>(sequences),
               at_end = layout.add<uint32_t>(sequences), at_groups = layout.add<Group>(groups.size()), at_stages = layout.add<Stage>(stages.size()),
               at_counts = layout.add<int32_t>(sequences), at_sft_counts = layout.add<int32_t>(sequences),
               at_reference = layout.add<double>(r.terms.reference ? sequences : 0),
               at_counters = layout.add<uint32_t>(1 + row_count + tiles + 2 * groups.size());
  const size_t upload_bytes = layout.bytes();
  const size_t at_sums = layout.add<PartSums>(row_count * parts), at_targets = layout.add<float>(row_count),
               at_sft_targets = layout.add<float>(r.separate_sft ? row_count : 0), at_row_logps = layout.add<double>(row_count),
               at_sft_row_logps = layout.add<double>(r.separate_sft ? row_count : 0), at_states = layout.add<RowState>(dense ? row_count : 0),
               at_coefficients = layout.add<double>(dense ? sequences : 0), at_values = layout.add<double>(dense && coupled ? 2 * pairs : 0),
               at_order = layout.add<uint32_t>(dense && coupled ? 2 * sort_length : 0);
  const size_t result_count = r.pass == Pass::tokens ? 3 * row_count : (r.separate_sft ? 2 : 1) * sequences, at_results = layout.add<double>(result_count);

  ended_.emplace();
  upload_ = PinnedBlock(upload_bytes);
  results_ = PinnedBlock(std::max<size_t>(1, result_count * sizeof(double)));
  workspace_ = Workspace(place.device, stream, layout.bytes());

  void* host = upload_.data();
  for (size_t i = 0; i < row_count; i++) {
    const ScoredRow& row = rows.scored[size_t(range.begin) + i];
    at<RowRecord>(host, at_rows)[i] = {r.packed ? uint32_t(i) : uint32_t(row.row), uint32_t(row.sequence), row.label, row.sft_label};
  }
  for (size_t i = 0; i < ignored_count; i++) at<uint32_t>(host, at_ignored)[i] = uint32_t(rows.ignored[i]);
  for (size_t s = 0; s < sequences; s++) {
    const int64_t pair = int64_t(s) < r.terms.pairs ? int64_t(s) : int64_t(s) - r.terms.pairs;
    const bool here = pair >= r.first_pair && pair < r.last_pair;
    at<uint32_t>(host, at_begin)[s] = here ? uint32_t(rows.begin[s] - range.begin) : 0;
    at<uint32_t>(host, at_end)[s] = here ? uint32_t(rows.end[s] - range.begin) : 0;
  }
  std::copy(groups.begin(), groups.end(), at<Group>(host, at_groups));
  std::copy(stages.begin(), stages.end(), at<Stage>(host, at_stages));
  std::copy_n(r.terms.counts, sequences, at<int32_t>(host, at_counts));
  std::copy_n(r.terms.sft_counts, sequences, at<int32_t>(host, at_sft_counts));
  if (r.terms.reference) std::copy_n(r.terms.reference, sequences, at<double>(host, at_reference));
  std::memset(at<char>(host, at_counters), 0, upload_bytes - at_counters);

  void* base = workspace_.data();
  plan.logits = r.logits;
  plan.gradient = r.gradient;
  plan.row_stride = r.row_stride;
  plan.gradient_elements = r.gradient_elements;
  plan.vocab = uint32_t(r.vocab);
  plan.separate_sft = r.separate_sft;
  plan.rows = at<RowRecord>(base, at_rows);
  plan.ignored = at<uint32_t>(base, at_ignored);
  plan.sequence_begin = at<uint32_t>(base, at_begin);
  plan.sequence_end = at<uint32_t>(base, at_end);
  plan.groups = at<Group>(base, at_groups);
  plan.stages = at<Stage>(base, at_stages);
  plan.part_sums = at<PartSums>(base, at_sums);
  plan.targets = at<float>(base, at_targets);
  plan.sft_targets = at<float>(base, at_sft_targets);
  plan.row_logps = at<double>(base, at_row_logps);
  plan.sft_row_logps = at<double>(base, at_sft_row_logps);
  plan.states = at<RowState>(base, at_states);
  plan.next_ticket = at<uint32_t>(base, at_counters);
  plan.row_arrivals = plan.next_ticket + 1;
  plan.tile_arrivals = plan.row_arrivals + row_count;
  plan.group_arrivals = plan.tile_arrivals + tiles;
  plan.group_ready = plan.group_arrivals + groups.size();
  plan.terms = r.terms;
  plan.terms.counts = at<int32_t>(base, at_counts);
  plan.terms.sft_counts = at<int32_t>(base, at_sft_counts);
  plan.terms.reference = r.terms.reference ? at<double>(base, at_reference) : nullptr;
  plan.coefficients = at<double>(base, at_coefficients);
  plan.sort_values = at<double>(base, at_values);
  plan.sort_order = at<uint32_t>(base, at_order);
  plan.sort_length = uint32_t(sort_length);
  plan.logps = plan.tokens = at<double>(base, at_results);
  plan.sft_logps = plan.logps + sequences;

  try {
    check(cudaMemcpyAsync(base, host, upload_bytes, cudaMemcpyHostToDevice, stream), "cudaMemcpyAsync");
    check(loss_kernels(r.dtype).launch[int(r.pass)](plan, blocks, stream), "the loss kernel");
    if (has_rows_) check(cudaMemcpyAsync(results_.data(), plan.logps, result_count * sizeof(double), cudaMemcpyDeviceToHost, stream), "cudaMemcpyAsync");
    ended_->record(stream);
  } catch (...) {
    ignore(cudaStreamSynchronize(stream));  // the blocks are given back, and a copy may still read one
    throw;
  }
}

}  // namespace diralign::gpu
