// From sums of rows to log-probabilities of sequences and coefficients of units, by one block. The
// mathematics is that of src/.
#pragma once
#include "plan.h"
#include "row_parts.cuh"

namespace diralign::cuda {

/// Whether a launch is for that pass: known to the compiler, except in the general kernels.
template <Pass pass>
__device__ __forceinline__ bool is_for([[maybe_unused]] const Plan& p, Pass which) {
  if constexpr (pass == Pass::general) return p.pass == which;
  else return pass == which;
}

/// Log of the sum of squared probabilities of row `i`.
__device__ __forceinline__ double row_collision(const Plan& p, uint32_t i, const RowStatistics& s) {
  const size_t first = size_t(i) * p.cut.parts;
  double squares = label_square(s, p.targets[i]);
  for (size_t k = first; k < first + p.cut.parts; k++)
    squares += p.part_squares[k] * ::exp(2 * (double(p.part_sums[k].anchor) - double(s.max)));
  return log_collision(s, squares);
}

/// Finishes the rows of a tile, one a thread.
template <Pass pass>
CUDA_NOINLINE __device__ void finish_tile(const Plan& p, const Group& group, uint32_t tile) {
  const uint32_t in_group = (tile - group.first_tile) * tile_rows + threadIdx.x;
  if (in_group >= group.rows) return;
  const uint32_t i = group.first_row + in_group;
  const RowRecord record = p.rows[i];
  const RowSums sums = row_sums(p.cut.parts, p.targets[i], [&](uint32_t k) {
    return p.part_sums[size_t(i) * p.cut.parts + k];
  });
  const RowStatistics s = row_statistics(sums);
  if (is_for<pass>(p, Pass::tokens)) {
    p.tokens[3 * size_t(i)] = s.logp;
    p.tokens[3 * size_t(i) + 1] = logsumexp(s);
    p.tokens[3 * size_t(i) + 2] = entropy(s, sums);
    if constexpr (pass == Pass::general)
      if (p.collisions) p.collisions[i] = row_collision(p, i, s);
  } else {
    double sft_logp = s.logp;
    if (p.separate_sft) {
      if (record.sft_label != record.primary())
        sft_logp = record.sft_label < 0 ? 0 : double(p.sft_targets[i]) - logsumexp(s);
      p.sft_row_logps[i] = share_of(record.weight, sft_logp);
    }
    p.row_logps[i] = record.has_label() ? share_of(record.weight, s.logp) : 0;
    if (is_for<pass>(p, Pass::dense)) {
      p.row_terms[i] = row_terms(s, p.separate_sft, sft_logp);
      if (s.logp != s.logp) atomicAdd(p.nan_rows, 1u);
      if constexpr (pass == Pass::general)
        if (p.row_entropies) p.row_entropies[i] = entropy(s, sums);
    }
  }
}

__device__ __forceinline__ double sum_lanes(double x) {
  CUDA_UNROLL
  for (int d = 16; d; d >>= 1) x += __shfl_xor_sync(~0u, x, d);
  return x;
}

/// Sums the rows of each sequence of the group. The order of the additions depends on a sequence's
/// length alone.
CUDA_NOINLINE __device__ inline void sum_sequences(const Plan& p, const Group& group,
                                                   double (&scratch)[warps]) {
  const uint32_t lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const Units& units = p.terms.units;
  const int64_t last_unit = int64_t(group.first_unit) + group.units;
  const uint32_t sequences = uint32_t(units.sequences_of(group.first_unit, last_unit));
  auto index = [&](uint32_t k) {
    return uint32_t(units.sequence_of(group.first_unit, last_unit, k));
  };
  auto sum_one = [&](const double* rows, double* out, uint32_t s, uint32_t first, uint32_t step) {
    double sum = 0;
    for (uint32_t i = p.sequence_begin[s] + first; i < p.sequence_end[s]; i += step) sum += rows[i];
    sum = sum_lanes(sum);
    if (step == 32) {
      if (lane == 0) out[s] = sum;
      return;
    }
    if (lane == 0) scratch[warp] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
      double total = 0;
      for (uint32_t w = 0; w < warps; w++) total += scratch[w];
      out[s] = total;
    }
    __syncthreads();
  };
  for (uint32_t k = warp; k < sequences; k += warps) {
    const uint32_t s = index(k);
    if (p.sequence_end[s] - p.sequence_begin[s] > warp_sum_rows) continue;
    sum_one(p.row_logps, p.logps, s, lane, 32);
    if (p.separate_sft) sum_one(p.sft_row_logps, p.sft_logps, s, lane, 32);
  }
  for (uint32_t k = 0; k < sequences; k++) {
    const uint32_t s = index(k);
    if (p.sequence_end[s] - p.sequence_begin[s] <= warp_sum_rows) continue;
    sum_one(p.row_logps, p.logps, s, threadIdx.x, threads);
    if (p.separate_sft) sum_one(p.sft_row_logps, p.sft_logps, s, threadIdx.x, threads);
  }
}

/// Sorts units by value, ascending as BatchTerms::before has it; places past the last unit come
/// last. Bitonic. Begins and ends with a barrier: the values may have been written just before, by
/// other threads of the block.
__device__ __forceinline__ void sort_units(const double* values, uint32_t* order, uint32_t units,
                                           uint32_t length) {
  auto before = [&](uint32_t i, uint32_t j) {
    if (i >= units || j >= units) return i < j;
    return BatchTerms::before(values[i], i, values[j], j);
  };
  for (uint32_t i = threadIdx.x; i < length; i += threads) order[i] = i;
  __syncthreads();
  for (uint32_t size = 2; size <= length; size *= 2) {
    for (uint32_t distance = size / 2; distance; distance /= 2) {
      for (uint32_t a = threadIdx.x; a < length; a += threads) {
        const uint32_t b = a ^ distance;
        if (b > a && before(order[b], order[a]) == ((a & size) == 0)) {
          const uint32_t first = order[a];
          order[a] = order[b];
          order[b] = first;
        }
      }
      __syncthreads();
    }
  }
}

/// Ranks of a sorted objective, whose one group is the batch.
__device__ __forceinline__ void evaluate_sorted(const Plan& p, const Objective& objective,
                                                bool adds) {
  const BatchTerms& terms = p.terms;
  const uint32_t units = uint32_t(terms.units.count);
  double *upper = p.unit_numbers, *lower = upper + units;
  for (uint32_t u = threadIdx.x; u < units; u += threads) {
    upper[u] = terms.upper_score(objective, p.logps, u);
    lower[u] = terms.lower_score(objective, p.logps, u);
  }
  uint32_t *upper_order = p.sort_order, *lower_order = upper_order + p.sort_length;
  sort_units(upper, upper_order, units, p.sort_length);
  sort_units(lower, lower_order, units, p.sort_length);
  for (uint32_t rank = threadIdx.x; rank < units; rank += threads) {
    const uint32_t i = upper_order[rank], j = lower_order[rank];
    terms.evaluate_rank(objective, p.logps, upper[i], lower[j], i, j, adds, p.coefficients);
  }
}

/// The coefficients of the group's units: of a mixture, the sum of its objectives'.
CUDA_NOINLINE __device__ inline void evaluate_group(const Plan& p, const Group& group) {
  const BatchTerms& terms = p.terms;
  const uint32_t last_unit = group.first_unit + group.units;
  for (int i = 0; i < terms.objective_count; i++) {
    const Objective& objective = terms.objectives[i];
    if (i > 0) __syncthreads();  // another thread may have written what is added to
    if (objective.scope != Scope::unit) {
      evaluate_sorted(p, objective, i > 0);
      continue;
    }
    for (uint32_t u = group.first_unit + threadIdx.x; u < last_unit; u += threads)
      terms.evaluate(objective, p.logps, u, i > 0, p.coefficients, p.unit_numbers);
  }
}

}  // namespace diralign::cuda
