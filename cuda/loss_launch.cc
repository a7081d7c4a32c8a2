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

Stages make_stages(const LossRequest& r, const std::vector<Group>& groups, uint32_t ignored,
                   uint32_t parts, bool rows_fit_on_chip) {
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
    const bool in_one = pass == Pass::factored && rows_fit_on_chip;
    for (size_t g = 0; g < groups.size(); g++)
      stages.add(in_one ? Work::reduce_residual : Work::reduce, groups, g);
    if (pass == Pass::factored) stages.add(Work::zero, 0, ignored, 0);
    if (pass == Pass::factored && !in_one)
      for (size_t g = 0; g < groups.size(); g++) stages.add(Work::residual, groups, g);
  }
  return stages;
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
  if (r.splits) second_ = make_second(groups, uint32_t(ignored), parts);
  target_ = {.logits = r.logits,
             .gradient = r.gradient,
             .row_stride = r.row_stride,
             .gradient_elements = r.gradient_elements,
             .gradient_dtype = r.dtype,
             .counts_underflows = r.derivatives.empty()};
  auto launch = [&](bool rows_fit_on_chip) {
    const Stages order = make_stages(r, groups, uint32_t(ignored), parts, rows_fit_on_chip);
    work_.emplace(r, groups, r.splits ? 2 : 1,
                  order.list().size() + (r.splits ? second_->list().size() : 0), place);
    // Before the gradient takes the place of the logits.
    if (r.measures && !measures_) {
      work_->begin();
      measures_.emplace(*r.rows, range, r.chunks, r.transform, place);
      measures_->launch(0, range.size(), r.logits, r.dtype, r.vocab, r.row_stride);
      measures_->fetch();
    }
    work_->launch(order, target_);
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

void LossLaunch::differentiate(const double* coefficients) {
  if (!work_) return;
  if (coefficients) work_->set_coefficients(coefficients);
  work_->launch(*second_, target_);
  work_->fetch();
}

}  // namespace diralign::cuda
