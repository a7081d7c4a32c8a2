#include "loss_work.h"
#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include "device_limits.h"
#include "jobs/measures.h"

namespace diralign::cuda {

uint32_t tiles_of(const std::vector<Group>& groups) {
  if (groups.empty()) return 0;
  const Group& last = groups.back();
  return last.first_tile + (last.rows + tile_rows - 1) / tile_rows;
}

void add_group(std::vector<Group>& groups, const UnitGroup& units, int64_t list_begin) {
  groups.push_back({.first_row = uint32_t(units.rows.begin - list_begin),
                    .rows = uint32_t(units.rows.size()),
                    .first_unit = uint32_t(units.first_unit),
                    .units = uint32_t(units.last_unit - units.first_unit),
                    .first_tile = tiles_of(groups)});
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

void LossWork::launch(const Stages& order, const Target& target, uint32_t clusters) {
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
  const LossKernels& kernels = loss_kernels(dtype_, target.gradient_dtype);
  if (clusters > 0) {
    const uint64_t rows = order.tickets() / plan.cut.parts;
    check(kernels.launch_clusters(plan, uint32_t(std::min<uint64_t>(clusters, rows)), stream_),
          "the loss kernel in clusters");
    return;
  }
  check(kernels.launch[int(pass_)](plan, uint32_t(std::min<uint64_t>(resident, order.tickets())),
                                   together, stream_),
        "the loss kernel");
}

void LossWork::take_token(const TokensWanted& wanted, int64_t i, int64_t row) const {
  const double *const all = results_.as<double>(), *const token = all + 3 * i;
  write_token(wanted, row, token[0], token[1], token[2]);
  if (plan_.collisions) wanted.collision[row] = all[plan_.collisions - plan_.tokens + i];
}

void LossWork::set_coefficients(const double* of_sequences) {
  const size_t bytes = size_t(plan_.terms.units.sequences()) * sizeof(double);
  if (bytes == 0) return;
  coefficients_ = PinnedBlock(bytes);
  std::memcpy(coefficients_.data(), of_sequences, bytes);
  pending_ = true;
  check(cudaMemcpyAsync(plan_.coefficients, coefficients_.data(), bytes, cudaMemcpyHostToDevice,
                        stream_),
        "cudaMemcpyAsync");
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
