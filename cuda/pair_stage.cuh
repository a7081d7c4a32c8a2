// From sums of rows to log-probabilities of sequences and coefficients of pairs, by one block. The
// mathematics is that of src/.
#pragma once
#include "plan.h"
#include "row_parts.cuh"

namespace diralign::cuda {

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
  if constexpr (pass == Pass::tokens) {
    p.tokens[3 * size_t(i)] = s.logp;
    p.tokens[3 * size_t(i) + 1] = logsumexp(s);
    p.tokens[3 * size_t(i) + 2] = entropy(s, sums);
  } else {
    double sft_logp = s.logp;
    if (p.separate_sft) {
      if (record.sft_label != record.primary())
        sft_logp = record.sft_label < 0 ? 0 : double(p.sft_targets[i]) - logsumexp(s);
      p.sft_row_logps[i] = sft_logp;
    }
    p.row_logps[i] = record.has_label() ? s.logp : 0;
    if constexpr (pass == Pass::dense) p.row_terms[i] = row_terms(s, p.separate_sft, sft_logp);
  }
}

__device__ __forceinline__ double sum_lanes(double x) {
  CUDA_UNROLL
  for (int d = 16; d; d >>= 1) x += __shfl_xor_sync(~0u, x, d);
  return x;
}

/// Longer sequences are summed by a whole block.
constexpr uint32_t warp_sum_rows = 512;

/// Sums the rows of each sequence of the group. The order of the additions depends on a sequence's
/// length alone.
CUDA_NOINLINE __device__ inline void sum_sequences(const Plan& p, const Group& group,
                                                   double (&scratch)[warps]) {
  const uint32_t lane = threadIdx.x & 31, warp = threadIdx.x >> 5,
                 sequences = p.terms.likelihood_only ? group.pairs : 2 * group.pairs;
  auto index = [&](uint32_t k) {
    return k < group.pairs ? group.first_pair + k
                           : uint32_t(p.terms.pairs) + group.first_pair + (k - group.pairs);
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

/// Sorts the pairs by value, ascending as BatchTerms::before has it; places past the last pair come
/// last. Bitonic. Starts with a barrier, before which the values may be written, and ends with one.
/// Begins and ends with a barrier: the values may have been written just before, by other threads
/// of the block.
__device__ __forceinline__ void sort_pairs(const double* values, uint32_t* order, uint32_t pairs,
                                           uint32_t length) {
  auto before = [&](uint32_t i, uint32_t j) {
    if (i >= pairs || j >= pairs) return i < j;
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

/// The coefficients of the group's pairs; for an objective that couples the batch the one group is
/// the batch.
CUDA_NOINLINE __device__ inline void evaluate_group(const Plan& p, const Group& group) {
  const BatchTerms& terms = p.terms;
  const uint32_t pairs = uint32_t(terms.pairs);
  if (terms.coupling == Coupling::none) {
    for (uint32_t i = group.first_pair + threadIdx.x; i < group.first_pair + group.pairs;
         i += threads) {
      const PairTerms t = terms.evaluate(p.logps, i);
      p.coefficients[i] = t.coefficient_chosen;
      if (!terms.likelihood_only) p.coefficients[i + pairs] = t.coefficient_rejected;
    }
    return;
  }
  double *upper = p.sort_values, *lower = upper + pairs;
  for (uint32_t i = threadIdx.x; i < pairs; i += threads) {
    upper[i] = terms.upper_score(p.logps, i);
    lower[i] = terms.lower_score(p.logps, i);
  }
  uint32_t *upper_order = p.sort_order, *lower_order = upper_order + p.sort_length;
  sort_pairs(upper, upper_order, pairs, p.sort_length);
  sort_pairs(lower, lower_order, pairs, p.sort_length);
  for (uint32_t rank = threadIdx.x; rank < pairs; rank += threads) {
    const uint32_t i = upper_order[rank], j = lower_order[rank];
    const PairTerms t = terms.evaluate_rank(p.logps, upper[i], lower[j], i, j);
    p.coefficients[i] = t.coefficient_chosen;
    p.coefficients[terms.coupled_rejected(i, j) + pairs] = t.coefficient_rejected;
  }
}

}  // namespace diralign::cuda
