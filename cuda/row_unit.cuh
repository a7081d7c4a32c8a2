// What a block does with the part of a row that it has a ticket for: what the kernels of rows, by
// tickets (loss_kernel.cuh) and by clusters (cluster_kernel.cuh), have in common.
#pragma once
#include "loss_kernel.h"
#include "unit_stage.cuh"

namespace diralign::cuda {

/// The thread that draws tickets and describes them, the first of the second warp: while the first
/// warp adds up a part and counts it.
constexpr uint32_t describer = 32;

/// What the describer prepares for the block's next turn.
struct Unit {
  Work work;
  uint32_t i;  ///< in the list of scored rows
  uint32_t part;
  uint32_t group, tile;
  uint32_t rows_of_tile;  ///< Work::finish: 0 for tickets past the last tile
  RowRecord record;       ///< of rows that no term scores, the row alone
  bool ready;             ///< whether what it needs from earlier tickets is known
  RowGradient gradient;
};

template <class T>
__device__ __forceinline__ const T* logits_row(const Plan& p, const Unit& unit) {
  return static_cast<const T*>(p.logits) + int64_t(unit.record.row) * p.row_stride;
}
template <class T>
__device__ __forceinline__ T* gradient_row(const Plan& p, const Unit& unit) {
  return static_cast<T*>(p.gradient) + int64_t(unit.record.row) * p.row_stride;
}

/// Where the calling thread's vectors of the part begin.
template <class T>
__device__ __forceinline__ uint32_t first_element(const Plan& p, const Unit& unit) {
  return (unit.part * p.cut.steps * threads + threadIdx.x) * lanes<T>;
}

/// Columns between the vocabulary and the next row belong to no class; they are with the last part.
template <class T>
__device__ __forceinline__ void zero_padding(const Plan& p, const Unit& unit) {
  if (unit.part != p.cut.parts - 1 || p.row_stride == p.vocab) return;
  const int64_t row = unit.record.row, begin = row * p.row_stride + p.vocab,
                next = (row + 1) * p.row_stride,
                end = next < p.gradient_elements ? next : p.gradient_elements;
  for (int64_t e = begin + threadIdx.x; e < end; e += threads) static_cast<T*>(p.gradient)[e] = T{};
}

/// What the kernels of a pass make of logits.
template <Pass pass>
__device__ __forceinline__ auto form_of([[maybe_unused]] const Plan& p) {
  if constexpr (pass == Pass::general) return Transforming{p.factors, p.transform};
  else return Untransformed{};
}

/// Whether the sums of a pass have a moment.
template <Pass pass>
constexpr bool has_moment = pass == Pass::tokens || pass == Pass::general;

/// Loads a block's part of a row; `last_use`: of its logits.
template <class T>
__device__ __forceinline__ void load_part(const Plan& p, const Unit& unit, bool last_use,
                                          uint4 (&data)[max_steps]) {
  load_vectors(logits_row<T>(p, unit), p.vocab, first_element<T>(p, unit), p.cut.steps, last_use,
               data);
}

/// Sums a part, warp by warp; `data` holds it afterwards, without the label's entry, which goes to
/// `target`. `scratch`: of the general pass.
template <class T, Pass pass>
__device__ __forceinline__ void sum_part(const Plan& p, const Unit& unit, PartSums (&sums)[warps],
                                         [[maybe_unused]] double (&scratch)[warps], float* target,
                                         uint4 (&data)[max_steps]) {
  constexpr bool general = pass == Pass::general;
  const auto form = form_of<pass>(p);
  const uint32_t steps = p.cut.steps, e = first_element<T>(p, unit);
  float value = 0;
  if (p.separate_sft && unit.record.sft_label >= 0 &&
      find_element<T>(uint32_t(unit.record.sft_label), e, steps, data, false, value))
    p.sft_targets[unit.i] = form.value(value);
  if (find_element<T>(uint32_t(unit.record.primary()), e, steps, data, true, value))
    *target = form.value(value);
  [[maybe_unused]] double squares = 0;
  const PartSums of_warp =
      sum_warp<T, has_moment<pass>>(steps, data, form, general ? &squares : nullptr);
  if ((threadIdx.x & 31) == 0) {
    sums[threadIdx.x >> 5] = of_warp;
    if constexpr (general) scratch[threadIdx.x >> 5] = squares;
  }
}

/// What the warps of a block add up to, in every lane of one.
template <Pass pass>
__device__ __forceinline__ PartSums sum_warps(const PartSums (&sums)[warps]) {
  PartSums s = sums[threadIdx.x & (warps - 1)];
  CUDA_UNROLL
  for (int d = warps / 2; d; d >>= 1)
    s = combine<has_moment<pass>>(s, from_lane<has_moment<pass>>(s, d));
  return s;
}

/// Writes onehot - softmax of a part that is in registers. `gradient()`: of the row; from
/// registers only where they hold the vectors that can be stored.
template <class T, class Gradient>
__device__ __forceinline__ bool write_residual_of(const Plan& p, const Unit& unit,
                                                  const uint4 (&data)[max_steps],
                                                  Gradient&& gradient) {
  T* const out = gradient_row<T>(p, unit);
  if (misalignment(logits_row<T>(p, unit)) != 0 || misalignment(out) != 0) return false;
  write_loaded(out, p.vocab, first_element<T>(p, unit), p.cut.steps, data, gradient());
  zero_padding<T>(p, unit);
  return true;
}

}  // namespace diralign::cuda
