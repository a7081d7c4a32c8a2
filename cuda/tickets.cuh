// From the number of a ticket to the work of a block: its stage, its part of a row, and what a
// gradient needs of the row's group.
#pragma once
#include "row_unit.cuh"

namespace diralign::cuda {

/// The stage of the describer's last ticket, so that a ticket needs one read from memory.
struct StageInHand {
  Stage stage;
  uint32_t index, end;  ///< `end`: the first ticket that is not of it
  Group group;
  bool evaluated;  ///< whether that is known of the group
};
__device__ __forceinline__ void take_stage(const Plan& p, uint32_t index, StageInHand& hand) {
  hand.index = index;
  hand.stage = p.stages[index];
  hand.evaluated = false;
  if (hand.stage.work == Work::end) return;
  hand.end = p.stages[index + 1].first_ticket;
  if (hand.stage.work != Work::zero) hand.group = p.groups[hand.stage.group];
}

/// Describes the work of a ticket, as far as that needs nothing from earlier ones. For the
/// describer.
template <Pass pass>
__device__ __forceinline__ void describe(const Plan& p, uint32_t ticket, StageInHand& hand,
                                         Unit& unit) {
  while (hand.stage.work != Work::end && ticket >= hand.end) take_stage(p, hand.index + 1, hand);
  const Stage s = hand.stage;
  unit.work = s.work;
  unit.ready = s.work != Work::gradient && s.work != Work::residual;
  if (s.work == Work::end) return;
  const uint32_t k = ticket - s.first_ticket, in_stage = k / p.cut.parts;
  unit.part = k - in_stage * p.cut.parts;
  unit.i = s.first_row + in_stage;
  unit.group = s.group;
  if (s.work == Work::zero) {
    unit.record.row = p.ignored[unit.i];
    return;
  }
  if constexpr (pass == Pass::factored) {
    if (s.work == Work::finish) {
      unit.tile = hand.group.first_tile + k;
      unit.rows_of_tile = k * tile_rows < hand.group.rows;
      return;
    }
  }
  unit.record = p.rows[unit.i];
  const uint32_t in_group = unit.i - hand.group.first_row, tile = in_group / tile_rows,
                 after = hand.group.rows - tile * tile_rows;
  unit.tile = hand.group.first_tile + tile;
  unit.rows_of_tile = after < tile_rows ? after : tile_rows;
}

/// Completes a unit with what it needs from earlier tickets. Waits for it only if `waits`: the
/// block might have to finish what it would wait for. For the describer. Not inlined: float64 would
/// take registers from the rows.
template <Pass pass>
CUDA_NOINLINE __device__ void complete(const Plan& p, bool waits, StageInHand& hand, Unit& unit) {
  if (!hand.evaluated) {
    const bool of_row = unit.work == Work::residual;
    const uint32_t* const counter = of_row ? &p.row_arrivals[unit.i] : &p.group_ready[unit.group];
    const uint32_t count = of_row ? p.cut.parts : 1;
    if (waits) await(counter, count);
    else if (arrivals(counter) < count) return;
    hand.evaluated = !of_row;
  }
  unit.ready = true;
  if constexpr (pass == Pass::dense || pass == Pass::general) {
    if (p.row_gradients) {
      unit.gradient = p.row_gradients[unit.i];
      if (unit.gradient.zero) unit.work = Work::zero;
      return;
    }
    const RowRecord record = unit.record;
    double align = 0, likelihood = 0, entropy = 0;
    if (p.derivatives) {
      align = finite(p.derivatives[unit.i].logp) * p.gradient_unit;
      entropy = finite(p.derivatives[unit.i].entropy) * p.gradient_unit;
    } else {
      align = record.has_label() ? p.coefficients[record.sequence] : 0;
      likelihood = record.sft_label >= 0 ? p.terms.likelihood_coefficient(record.sequence) : 0;
      auto scaled = [&](double coefficient) {
        return finite(gradient_coefficient(record.weight, coefficient, p.gradient_scale)) *
               p.gradient_unit;
      };
      align = scaled(align), likelihood = scaled(likelihood);
    }
    const RowTerms& terms = p.row_terms[unit.i];
    if (pass == Pass::general && entropy != 0) {
      unit.gradient =
          row_gradient_with_entropy(terms, record.label, align, entropy, p.row_entropies[unit.i]);
      return;
    }
    unit.gradient =
        row_gradient(terms, record.label, record.sft_label, align, likelihood, p.least_normal);
    if (unit.gradient.underflows && unit.part == 0) atomicAdd(p.underflows, 1u);
    if (unit.gradient.zero) unit.work = Work::zero;
  }
}

}  // namespace diralign::cuda
