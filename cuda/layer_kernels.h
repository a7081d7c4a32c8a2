// What happens to the arrays of an output layer around its matrix products: rows gathered and put
// back, and sums of columns.
#pragma once
#include "runtime.h"

namespace diralign::cuda {

/// Row i of `to` = row indices[i] of `from`; rows of `row_bytes` one after another.
void gather_rows(cudaStream_t stream, void* to, const void* from, const uint32_t* indices,
                 int64_t rows, size_t row_bytes);
/// Row indices[i] of `to` = row i of `from`.
void scatter_rows(cudaStream_t stream, void* to, const void* from, const uint32_t* indices,
                  int64_t rows, size_t row_bytes);
/// Row indices[i] of `to` = (add ? that row : 0) + row i of `from`, rounded once.
void write_rows(cudaStream_t stream, void* to, Dtype dtype, const float* from,
                const uint32_t* indices, int64_t rows, int64_t columns, bool add);
/// to[i] = the sum of from[k][i] over k, in float64 and in that order.
void sum_arrays(cudaStream_t stream, void* to, const void* from, Dtype dtype, int64_t arrays,
                int64_t count);
/// to[v] = (add ? to[v] : 0) + scale * the sum of column v, in float64 and in the order of the
/// rows.
void sum_columns(cudaStream_t stream, float* to, const void* from, Dtype dtype, int64_t rows,
                 int64_t columns, int64_t row_stride, float scale, bool add);
/// The numbers of `from` in float32.
void widen(cudaStream_t stream, float* to, const void* from, Dtype dtype, int64_t count);
/// The numbers of `from`, rounded.
void narrow_to(cudaStream_t stream, void* to, Dtype dtype, const float* from, int64_t count);

}  // namespace diralign::cuda
