// The pair stage on the device. Its mathematics is that of src/objectives/, which this file holds to compile for CUDA
// (scripts/check-cuda.mjs); the backend around it does not exist yet, and nothing of this is in the published addon.
#include "objectives/evaluate.h"
#include "row_statistics.h"

namespace diralign {

/// One thread a pair. `sequences`: the chosen, then the rejected.
__global__ void evaluate_pairs(int method, Settings settings, const Sequence* sequences, int pairs, PairTerms* terms) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < pairs) terms[i] = evaluate_pair(method, settings, sequences[i], sequences[i + pairs]);
}

/// One thread a row: from its sums to its log-probability.
__global__ void finish_rows(const RowSums* sums, int rows, RowStatistics* statistics) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < rows) statistics[i] = row_statistics(sums[i]);
}

}  // namespace diralign
