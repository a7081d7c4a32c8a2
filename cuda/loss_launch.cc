#include "loss_launch.h"
#include <algorithm>
#include "device_limits.h"

namespace diralign::cuda {

namespace {

/// The units in groups of at least so many rows. Every group has rows.
std::vector<Group> make_groups(const LossRequest& r, int64_t fewest_rows) {
  const int64_t list_begin = r.rows->of_units(r.first_unit, r.last_unit).begin;
  std::vector<Group> groups;
  for (const UnitGroup& units :
       group_units_reaching(*r.rows, r.first_unit, r.last_unit, fewest_rows)) {
    if (units.rows.size() > 0) add_group(groups, units, list_begin);
    // Sequences without rows at the end of the batch.
    else if (!groups.empty()) groups.back().units += uint32_t(units.last_unit - units.first_unit);
  }
  return groups;
}

/// The second launch of a request that is split: what was read last, and may be in the L2 cache
/// still, comes first.
Stages make_second(const std::vector<Group>& groups, uint32_t ignored, uint32_t parts) {
  Stages stages(parts);
  for (size_t g = groups.size(); g-- > 0;) stages.add(Work::gradient, groups, g);
  stages.add(Work::zero, 0, ignored, 0);
  return stages;
}

/// How rows get from their sums to onehot - softmax.
enum class Residuals {
  by_cluster,    ///< a row stays in the registers of a cluster; what is left is a launch of its own
  in_registers,  ///< in those of blocks that wait for each other: a cooperative launch
  read_again,
};

Stages make_stages(const LossRequest& r, const std::vector<Group>& groups, uint32_t ignored,
                   uint32_t parts, Residuals residuals) {
  const Pass pass = r.pass;
  Stages stages(parts);
  if (r.splits) {
    for (size_t g = 0; g < groups.size(); g++) stages.add(Work::reduce, groups, g);
  } else if (pass == Pass::dense) {
    for (size_t g = 0; g < groups.size(); g++) {
      if (r.reduces()) stages.add(Work::reduce, groups, g);
      if (g > 0) stages.add(Work::gradient, groups, g - 1);
    }
    stages.add(Work::zero, 0, ignored, 0);  // while the last group is evaluated
    if (!groups.empty()) stages.add(Work::gradient, groups, groups.size() - 1);
  } else {
    const Work work = pass != Pass::factored                 ? Work::reduce
                      : residuals == Residuals::by_cluster   ? Work::finish
                      : residuals == Residuals::in_registers ? Work::reduce_residual
                                                             : Work::reduce;
    for (size_t g = 0; g < groups.size(); g++) stages.add(work, groups, g);
    if (pass == Pass::factored) stages.add(Work::zero, 0, ignored, 0);
    if (pass == Pass::factored && work == Work::reduce)
      for (size_t g = 0; g < groups.size(); g++) stages.add(Work::residual, groups, g);
  }
  return stages;
}

/// Whether a launch was refused because its blocks do not fit together, although asking had it so:
/// in a part of a device, whose multiprocessors are fewer.
bool is_too_large(Residuals residuals, const DeviceError& error) {
  switch (residuals) {
    case Residuals::by_cluster:
      return error.code == int(cudaErrorInvalidClusterSize) ||
             error.code == int(cudaErrorInvalidConfiguration) ||
             error.code == int(cudaErrorLaunchOutOfResources) ||
             error.code == int(cudaErrorNotSupported);
    case Residuals::in_registers: return error.code == int(cudaErrorCooperativeLaunchTooLarge);
    case Residuals::read_again: break;
  }
  return false;
}

}  // namespace

LossRequest logits_request(const Job& job) {
  LossRequest r = request_of(job);
  r.dtype = job.batch.dtype;
  r.logits = job.batch.logits;
  r.row_stride = job.batch.row_stride;
  r.gradient = job.gradients.logits.data;
  r.gradient_elements = job.gradients.logits.elements;
  r.write_ignored = job.gradients.any() && !job.gradients.logits.zeroed;
  return r;
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
  const size_t group_bytes = device.l2_bytes / group_share_of_l2;
  const std::vector<Group> groups = make_groups(
      r, dense && sorted ? INT64_MAX : int64_t((group_bytes + row_bytes - 1) / row_bytes));
  const uint32_t parts = r.cut().parts;
  const bool clustered = r.pass == Pass::factored && has_rows_ && !r.splits;
  const uint32_t clusters = clustered ? clusters_at_once(place.device, r.dtype, parts) : 0;
  if (r.splits) second_ = make_second(groups, uint32_t(ignored), parts);
  target_ = {.logits = r.logits,
             .gradient = r.gradient,
             .row_stride = r.row_stride,
             .gradient_elements = r.gradient_elements,
             .gradient_dtype = r.dtype,
             .counts_underflows = r.derivatives.empty()};
  auto launch = [&](Residuals residuals) {
    const Stages order = make_stages(r, groups, uint32_t(ignored), parts, residuals);
    Stages rows(parts);
    if (residuals == Residuals::by_cluster)
      rows.add(Work::reduce_residual, 0, uint32_t(range.size()), 0);
    work_.emplace(
        r, groups, 2,
        order.list().size() + rows.list().size() + (r.splits ? second_->list().size() : 0), place);
    // Before the gradient takes the place of the logits.
    if (r.measures && !measures_) {
      work_->begin();
      measures_.emplace(*r.rows, range, r.chunks, r.transform, place);
      measures_->launch(0, range.size(), r.logits, r.dtype, r.vocab, r.row_stride);
      measures_->fetch();
    }
    work_->launch(rows, target_, clusters);
    work_->launch(order, target_);
  };
  const bool fits =
      device.launches_together && parts <= device.resident_blocks(r.dtype, r.dtype, r.pass);
  Residuals residuals = clusters > 0 ? Residuals::by_cluster
                        : fits       ? Residuals::in_registers
                                     : Residuals::read_again;
  for (;;) {
    try {
      launch(residuals);
      break;
    } catch (const DeviceError& error) {
      if (!is_too_large(residuals, error)) throw;
      if (residuals == Residuals::by_cluster) no_clusters(place.device);
      else no_launches_together(place.device);
      residuals = residuals == Residuals::by_cluster && fits ? Residuals::in_registers
                                                             : Residuals::read_again;
    }
  }
  work_->fetch();
}

void LossLaunch::differentiate(const double* coefficients) {
  if (!work_) return;
  if (coefficients) work_->set_coefficients(coefficients);
  work_->launch(*second_, target_);
  work_->fetch();
}

}  // namespace diralign::cuda
