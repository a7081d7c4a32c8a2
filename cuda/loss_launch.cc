#include "loss_launch.h"

#include <algorithm>
#include <mutex>
#include <string>
#include <utility>

namespace diralign::cuda {

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
  bool known = false;
  size_t l2_bytes = 0;
  uint32_t multiprocessors = 0;
  bool launches_together = false;  ///< whether blocks may wait for each other
  /// On a multiprocessor, by the types of logits and gradient.
  uint32_t blocks[dtype_count][dtype_count][pass_count] = {};

  uint32_t resident_blocks(Dtype logits, Dtype gradient, Pass pass) const {
    const uint32_t fit = blocks[int(logits)][int(gradient)][int(pass)];
    // With none a launch would fail, and blocks that wait for others would wait for ever.
    if (fit == 0)
      throw DeviceError("cudaOccupancyMaxActiveBlocksPerMultiprocessor",
                        int(cudaErrorLaunchOutOfResources), "cudaErrorLaunchOutOfResources",
                        "no block of the loss kernel fits a multiprocessor of the device");
    return fit * multiprocessors;
  }
};

/// Throws for a kernel that the device cannot be asked about; says so where the build has no code
/// for it.
void check_code(cudaError_t error, int index) {
  const char* const call = "cudaOccupancyMaxActiveBlocksPerMultiprocessor";
  if (error != cudaErrorNoKernelImageForDevice && error != cudaErrorInvalidDeviceFunction &&
      error != cudaErrorUnsupportedPtxVersion)
    return check(error, call);
  ignore(error);
  const DeviceProperties found = properties(index);
  const std::string capability = std::to_string(found.major) + "." + std::to_string(found.minor);
  const DeviceStatus built = status();
  const std::string text =
      "this build has machine code for " +
      std::string(*built.architectures ? built.architectures : "no architecture") +
      " and PTX for " + (*built.ptx ? built.ptx : "none") +
      ", and the device has compute capability " + capability + "; npx diralign build --cuda " +
      capability + " builds for it";
  throw DeviceError(call, int(error), cudaGetErrorName(error), text.c_str());
}

/// By device. Never destroyed: other threads may outlive static objects.
std::mutex limits_mutex;
std::vector<DeviceLimits>& known_limits(int device) {
  static auto& known = *new std::vector<DeviceLimits>;
  if (size_t(device) >= known.size()) known.resize(size_t(device) + 1);
  return known;
}

/// Of the current device. Asked for once: a launch should not wait for the driver's answers.
DeviceLimits limits(int device) {
  const std::lock_guard lock(limits_mutex);
  DeviceLimits& found = known_limits(device)[size_t(device)];
  if (found.known) return found;
  const auto attribute = [device](cudaDeviceAttr which) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
    return value;
  };
  DeviceLimits asked;
  asked.known = true;
  asked.l2_bytes = size_t(std::max(attribute(cudaDevAttrL2CacheSize), 0));
  asked.multiprocessors = uint32_t(attribute(cudaDevAttrMultiProcessorCount));
  asked.launches_together = attribute(cudaDevAttrCooperativeLaunch) != 0;
  for (int logits = 0; logits < dtype_count; logits++) {
    for (int gradient = 0; gradient < dtype_count; gradient++) {
      if (logits != gradient && Dtype(logits) != Dtype::float32) continue;
      for (int pass = 0; pass < pass_count; pass++) {
        const auto occupancy =
            loss_kernels(Dtype(logits), Dtype(gradient)).blocks_per_multiprocessor[pass];
        if (!occupancy) continue;
        int blocks = 0;
        check_code(occupancy(&blocks), device);
        asked.blocks[logits][gradient][pass] = uint32_t(std::max(0, blocks));
      }
    }
  }
  return found = asked;
}

/// For a part of a device, whose multiprocessors are fewer than the device says.
void no_launches_together(int device) {
  const std::lock_guard lock(limits_mutex);
  known_limits(device)[size_t(device)].launches_together = false;
}

/// The units in groups of about `group_bytes` of logits. Every group has rows.
std::vector<Group> make_groups(const RowList& rows, int64_t first_unit, int64_t last_unit,
                               size_t row_bytes, size_t group_bytes) {
  const int64_t list_begin = rows.of_units(first_unit, last_unit).begin;
  std::vector<Group> groups;
  uint32_t tile = 0;
  for (int64_t first = first_unit; first < last_unit;) {
    int64_t last = first;
    RowRange range{};
    do {
      range = rows.of_units(first, ++last);
    } while (last < last_unit && size_t(range.end - range.begin) * row_bytes < group_bytes);
    if (range.end > range.begin) {
      const uint32_t count = uint32_t(range.end - range.begin);
      groups.push_back({uint32_t(range.begin - list_begin), count, uint32_t(first),
                        uint32_t(last - first), tile});
      tile += (count + tile_rows - 1) / tile_rows;
    } else if (!groups.empty()) {
      groups.back().units +=
          uint32_t(last - first);  // sequences without rows at the end of the batch
    }
    first = last;
  }
  return groups;
}

Stages make_stages(Pass pass, const std::vector<Group>& groups, uint32_t ignored, uint32_t parts,
                   bool rows_fit_on_chip) {
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
    for (size_t g = 0; g < groups.size(); g++)
      stages.add(in_one ? Work::reduce_residual : Work::reduce, groups, g);
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

std::vector<KernelResidency> kernel_residency(int device) {
  const DeviceGuard guard(device);
  const DeviceLimits known = limits(device);
  std::vector<KernelResidency> result;
  for (int logits = 0; logits < dtype_count; logits++)
    for (int gradient = 0; gradient < dtype_count; gradient++)
      for (int pass = 0; pass < pass_count; pass++)
        if ((logits == gradient || Dtype(logits) == Dtype::float32) &&
            loss_kernels(Dtype(logits), Dtype(gradient)).launch[pass])
          result.push_back(
              {Dtype(logits), Dtype(gradient), pass, int(known.blocks[logits][gradient][pass])});
  return result;
}

LossLaunch::LossLaunch(const LossRequest& r, const Place& place) {
  const DeviceGuard guard(place.device);
  const RowRange range = r.rows->of_units(r.first_unit, r.last_unit);
  const bool dense = r.pass == Pass::dense, sorted = r.terms.is_sorted();
  const size_t row_bytes = size_t(r.vocab) * dtype_bytes(r.dtype),
               ignored = r.write_ignored ? r.rows->ignored.size() : 0;
  has_rows_ = range.size() > 0;
  if (!has_rows_ && ignored == 0) {
    if (place.begin) record(place.device, place.begin, place.stream);
    return;
  }

  const DeviceLimits device = limits(place.device);
  // A group is read, then the next one, and then the first again: two of them leave room in the
  // cache for what is written meanwhile.
  const size_t group_bytes =
      dense && sorted ? std::numeric_limits<size_t>::max() : device.l2_bytes / 4;
  const std::vector<Group> groups =
      make_groups(*r.rows, r.first_unit, r.last_unit, row_bytes, group_bytes);
  const uint32_t parts = cut_row(uint32_t(r.vocab), uint32_t(dtype_bytes(r.dtype))).parts;
  auto launch = [&](bool rows_fit_on_chip) {
    const Stages order = make_stages(r.pass, groups, uint32_t(ignored), parts, rows_fit_on_chip);
    work_.emplace(r, groups, 1, order.list().size(), place);
    // Before the gradient takes the place of the logits.
    if (r.measures && !measures_) {
      work_->begin();
      measures_.emplace(*r.rows, range, r.chunks, place);
      measures_->launch(0, range.size(), r.logits, r.dtype, r.vocab, r.row_stride);
      measures_->fetch();
    }
    work_->launch(order, {.logits = r.logits,
                          .gradient = r.gradient,
                          .row_stride = r.row_stride,
                          .gradient_elements = r.gradient_elements,
                          .gradient_dtype = r.dtype,
                          .counts_underflows = true});
  };
  const bool fits =
      device.launches_together && parts <= device.resident_blocks(r.dtype, r.dtype, r.pass);
  try {
    launch(fits);
  } catch (const DeviceError& error) {
    if (!fits || error.code != int(cudaErrorCooperativeLaunchTooLarge)) throw;
    no_launches_together(place.device);
    launch(false);
  }
  work_->fetch();
}

namespace {

/// In the upload, before the stages of a launch: its counter of tickets.
constexpr size_t counter_bytes = 16;
static_assert(sizeof(Stage) == 16);

}  // namespace

LossWork::LossWork(const LossRequest& r, const std::vector<Group>& groups, size_t launches,
                   size_t stages, const Place& place)
    : pass_(r.pass),
      dtype_(r.dtype),
      device_(place.device),
      stream_(as_stream(place.stream)),
      begin_(place.begin) {
  refuse_capture(stream_);
  const RowList& rows = *r.rows;
  const RowRange range = rows.of_units(r.first_unit, r.last_unit);
  const bool dense = r.pass == Pass::dense, sorted = r.terms.is_sorted();
  const size_t row_count = size_t(range.size()),
               ignored_count = r.write_ignored ? rows.ignored.size() : 0,
               sequences = size_t(r.terms.units.sequences()), units = size_t(r.terms.units.count);
  constexpr size_t most = std::numeric_limits<uint32_t>::max();
  if (rows.scored.size() + rows.ignored.size() > most || sequences > most)
    throw std::length_error("the batch has too many rows for one launch");

  plan_.cut = cut_row(uint32_t(r.vocab), uint32_t(dtype_bytes(r.dtype)));
  const size_t tiles =
      groups.empty() ? 0
                     : groups.back().first_tile + (groups.back().rows + tile_rows - 1) / tile_rows;
  size_t sort_length = 1;
  while (sort_length < units) sort_length *= 2;

  // What is copied to the device comes first, that of the launches last, and then what only lives
  // there. The results are before all of it, so that the count of rows that underflow, which starts
  // at 0, can be the first that is copied there and the last that is copied back.
  const size_t result_count =
                   r.pass == Pass::tokens ? 3 * row_count : (r.separate_sft ? 2 : 1) * sequences,
               result_space = (result_count * sizeof(double) + 255) & ~size_t{255};
  result_bytes_ = row_count == 0 ? 0 : result_space + sizeof(uint32_t);
  Layout layout;
  const size_t at_underflows = layout.add<uint32_t>(1);
  const size_t at_rows = layout.add<RowRecord>(row_count),
               at_ignored = layout.add<uint32_t>(ignored_count),
               at_begin = layout.add<uint32_t>(sequences), at_end = layout.add<uint32_t>(sequences),
               at_groups = layout.add<Group>(groups.size()),
               at_counts = layout.add<int32_t>(sequences),
               at_sft_counts = layout.add<int32_t>(sequences),
               at_reference = layout.add<double>(r.terms.reference ? sequences : 0);
  const size_t counters = row_count + tiles + 2 * groups.size(),
               at_counters = layout.add<uint32_t>(counters);
  next_launch_ =
      layout.add<char>(launches * (counter_bytes + sizeof(Stage)) + stages * sizeof(Stage));
  upload_bytes_ = layout.bytes();
  const size_t at_sums = layout.add<PartSums>(row_count * plan_.cut.parts),
               at_targets = layout.add<float>(row_count),
               at_sft_targets = layout.add<float>(r.separate_sft ? row_count : 0),
               at_row_logps = layout.add<double>(row_count),
               at_sft_row_logps = layout.add<double>(r.separate_sft ? row_count : 0),
               at_row_terms = layout.add<RowTerms>(dense ? row_count : 0),
               at_coefficients = layout.add<double>(dense ? sequences : 0),
               at_values = layout.add<double>(dense && sorted ? 2 * units : 0),
               at_order = layout.add<uint32_t>(dense && sorted ? 2 * sort_length : 0);

  upload_ = PinnedBlock(upload_bytes_);
  results_ = PinnedBlock(std::max<size_t>(1, result_bytes_));
  workspace_ = Workspace(device_, stream_, result_space + layout.bytes());
  uploads_ = static_cast<char*>(workspace_.data()) + result_space;
  pending_ = true;

  void* host = upload_.data();
  auto chunk = r.chunks.begin();
  for (size_t i = 0; i < row_count; i++) {
    const ScoredRow& row = rows.scored[size_t(range.begin) + i];
    while (chunk != r.chunks.end() && chunk->end <= int64_t(i)) ++chunk;
    at<RowRecord>(host, at_rows)[i] = {
        uint32_t(r.chunks.empty() ? row.row : int64_t(i) - chunk->begin), uint32_t(row.sequence),
        row.label, row.sft_label};
  }
  for (size_t i = 0; i < ignored_count; i++)
    at<uint32_t>(host, at_ignored)[i] = uint32_t(rows.ignored[i]);
  for (size_t s = 0; s < sequences; s++) {
    const int64_t unit = r.terms.units.unit_of(int64_t(s));
    const bool here = unit >= r.first_unit && unit < r.last_unit;
    at<uint32_t>(host, at_begin)[s] = here ? uint32_t(rows.begin[s] - range.begin) : 0;
    at<uint32_t>(host, at_end)[s] = here ? uint32_t(rows.end[s] - range.begin) : 0;
  }
  std::copy(groups.begin(), groups.end(), at<Group>(host, at_groups));
  std::copy_n(r.terms.counts, sequences, at<int32_t>(host, at_counts));
  std::copy_n(r.terms.sft_counts, sequences, at<int32_t>(host, at_sft_counts));
  if (r.terms.reference) std::copy_n(r.terms.reference, sequences, at<double>(host, at_reference));
  std::fill_n(at<uint32_t>(host, at_counters), counters, 0u);
  *at<uint32_t>(host, at_underflows) = 0;

  void* base = uploads_;
  plan_.vocab = uint32_t(r.vocab);
  plan_.separate_sft = r.separate_sft;
  plan_.gradient_scale = r.gradient_scale;
  plan_.rows = at<RowRecord>(base, at_rows);
  plan_.ignored = at<uint32_t>(base, at_ignored);
  plan_.sequence_begin = at<uint32_t>(base, at_begin);
  plan_.sequence_end = at<uint32_t>(base, at_end);
  plan_.groups = at<Group>(base, at_groups);
  plan_.part_sums = at<PartSums>(base, at_sums);
  plan_.targets = at<float>(base, at_targets);
  plan_.sft_targets = at<float>(base, at_sft_targets);
  plan_.row_logps = at<double>(base, at_row_logps);
  plan_.sft_row_logps = at<double>(base, at_sft_row_logps);
  plan_.row_terms = at<RowTerms>(base, at_row_terms);
  plan_.row_arrivals = at<uint32_t>(base, at_counters);
  plan_.tile_arrivals = plan_.row_arrivals + row_count;
  plan_.group_arrivals = plan_.tile_arrivals + tiles;
  plan_.group_ready = plan_.group_arrivals + groups.size();
  plan_.terms = r.terms;
  plan_.terms.counts = at<int32_t>(base, at_counts);
  plan_.terms.sft_counts = at<int32_t>(base, at_sft_counts);
  plan_.terms.reference = r.terms.reference ? at<double>(base, at_reference) : nullptr;
  plan_.coefficients = at<double>(base, at_coefficients);
  plan_.sort_values = at<double>(base, at_values);
  plan_.sort_order = at<uint32_t>(base, at_order);
  plan_.sort_length = uint32_t(sort_length);
  plan_.logps = plan_.tokens = workspace_.as<double>();
  plan_.sft_logps = plan_.logps + sequences;
  plan_.underflows = at<uint32_t>(base, at_underflows);
}

LossWork::~LossWork() {
  // Usually it has ended: a query. But whatever went wrong around the launches, their blocks must
  // not be given to others while in use.
  if (!pending_) {
    ignore(cudaEventSynchronize(ended_.get()));
    return;
  }
  try {
    const DeviceGuard guard(device_);
    ignore(cudaStreamSynchronize(stream_));
  } catch (const DeviceError&) {
    // Without its device there is no work to wait for.
  }
}

void LossWork::begin() {
  if (const Event event = std::exchange(begin_, Event{}))
    record(device_, event, reinterpret_cast<Stream>(stream_));
}

void LossWork::launch(const Stages& order, const Target& target) {
  if (order.list().empty()) return;
  if (!order.fit()) throw std::length_error("the batch has too many rows for one launch");
  const uint32_t resident = limits(device_).resident_blocks(dtype_, target.gradient_dtype, pass_);
  const bool together = std::any_of(order.list().begin(), order.list().end(),
                                    [](const Stage& s) { return s.work == Work::reduce_residual; });
  Plan plan = plan_;
  plan.logits = target.logits;
  plan.gradient = target.gradient;
  plan.row_stride = target.row_stride;
  plan.gradient_elements = target.gradient_elements;
  plan.gradient_unit = target.gradient_unit;
  plan.least_normal = target.counts_underflows ? least_normal(target.gradient_dtype) : 0;

  const size_t counter = next_launch_, stages = counter + counter_bytes,
               end = stages + (order.list().size() + 1) * sizeof(Stage);
  if (end > upload_bytes_) throw std::logic_error("more stages than were planned for");
  *at<uint32_t>(upload_.data(), counter) = 0;
  Stage* const last =
      std::copy(order.list().begin(), order.list().end(), at<Stage>(upload_.data(), stages));
  *last = {Work::end, uint32_t(order.tickets()), 0, 0};
  plan.next_ticket = at<uint32_t>(uploads_, counter);
  plan.stages = at<Stage>(uploads_, stages);

  pending_ = true;
  begin();
  check(cudaMemcpyAsync(at<char>(uploads_, uploaded_), at<char>(upload_.data(), uploaded_),
                        end - uploaded_, cudaMemcpyHostToDevice, stream_),
        "cudaMemcpyAsync");
  uploaded_ = next_launch_ = end;
  check(loss_kernels(dtype_, target.gradient_dtype)
            .launch[int(pass_)](plan, uint32_t(std::min<uint64_t>(resident, order.tickets())),
                                together, stream_),
        "the loss kernel");
}

void LossWork::fetch() {
  pending_ = true;
  if (result_bytes_ > 0)
    check(cudaMemcpyAsync(results_.data(), plan_.logps, result_bytes_, cudaMemcpyDeviceToHost,
                          stream_),
          "cudaMemcpyAsync");
  ended_.record(stream_);
  pending_ = false;
}

}  // namespace diralign::cuda
