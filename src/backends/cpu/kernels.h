// Row kernels of the CPU backend: plain C++ over one row of logits, compiled once per instruction
// set (kernels_*.cc) and chosen at run time (dispatch.cc). No allocation, no threads, no Node.
#pragma once
#include <cstddef>
#include <cstdint>
#include "rows/dtype.h"
#include "rows/gradient.h"
#include "rows/statistics.h"
#include "rows/transform.h"

namespace diralign::cpu {

/// Elements per block: the unit in which a row's sum is formed and its anchor may move.
inline constexpr int64_t block_elements = 512;

struct RowKernels {
  /// Sums of exp(logit - anchor) over a row, its label's entry left out.
  RowSums (*reduce)(const void* row, int64_t vocab, int64_t label);
  /// The same numbers, with the first moment that the entropy needs.
  RowSums (*reduce_with_moment)(const void* row, int64_t vocab, int64_t label);
  /// out = factor * exp(row - shift), rounded once; `stream` bypasses the caches (out and row must
  /// not overlap then).
  void (*scaled_exp)(const void* row, void* out, int64_t vocab, float shift, float factor,
                     bool stream);
  /// The sums of transformed logits.
  RowSums (*reduce_transformed)(const void* row, int64_t vocab, int64_t label,
                                const TransformFactors& transform, bool with_moment);
  /// The sum of exp(logit - max)^2, of transformed logits, the label's left out.
  double (*squares)(const void* row, int64_t vocab, int64_t label,
                    const TransformFactors& transform, float max);
  /// Entries (factor + bend d) e^d dy/dx, d = y - shift, y the transformed logit x: the gradient by
  /// the logits of numbers of transformed ones, its labels' entries left out; in place allowed.
  void (*transformed_gradient)(const void* row, void* out, int64_t vocab,
                               const TransformFactors& transform, const RowGradient& gradient);
  /// reduce() that leaves -softmax (the label's entry aside) in the row itself: the exponential is
  /// computed once. float32 only. `block_anchors` holds one float per block. Bit for bit the
  /// sums of reduce().
  RowSums (*negative_softmax_in_place)(float* row, int64_t vocab, int64_t label,
                                       float* block_anchors);
  /// The sum of the logits.
  double (*sum)(const void* row, int64_t vocab);
  float (*load)(const void* row, int64_t index);
  void (*store)(void* row, int64_t index, float value);
  /// float32 rounded to this dtype, and this dtype in float32.
  void (*round)(const float* x, void* y, int64_t n);
  void (*widen)(const void* x, float* y, int64_t n);
  /// For tests: y = exp(x).
  void (*exp)(const float* x, float* y, int64_t n);
};

/// Rows of a matrix that need not be neighbours.
struct RowsView {
  const void* data;
  int64_t stride;        ///< elements from one row to the next
  const int64_t* index;  ///< which rows; null: from the first on
};

/// The products of an output layer whose hidden states, weight [vocab, hidden_size] and bias have
/// one dtype, in float32 or wider. Each element of a result is summed in an order that depends on
/// the inner dimension alone, so that the work can be cut anyhow. `scratch` is `scratch_bytes` of
/// the calling thread, aligned to 64.
struct ProductKernels {
  /// The dtype of the gradient of the logits between the products: bfloat16 where the processor
  /// multiplies that, otherwise float32. Its rows are as many bytes apart as those of float32
  /// logits, so that they can take their place.
  Dtype gradient;
  size_t scratch_bytes;
  int64_t tile_rows, tile_columns;  ///< cuts cost least at multiples of these
  int64_t block_columns;            ///< for so many a left operand is packed once

  /// logits[i, v] = hidden[i] . weight[v] + bias[v] for all rows and v in [first, last); `bias` may
  /// be null.
  void (*logits)(const RowsView& hidden, int64_t rows, const void* weight, const void* bias,
                 int64_t hidden_size, int64_t first, int64_t last, float* logits, int64_t stride,
                 void* scratch);
  /// out[i, h] = sum over v of gradient[i, v] weight[v, h] for all rows and h in [first, last); out
  /// is [rows, hidden_size].
  void (*hidden_gradient)(const void* gradient, int64_t stride, int64_t rows, int64_t vocab,
                          const void* weight, int64_t hidden_size, int64_t first, int64_t last,
                          float* out, void* scratch);
  /// out[v, h] (+)= sum over i of gradient[i, v] hidden[i, h] for v in [first, last) and all h.
  void (*weight_gradient)(const void* gradient, int64_t stride, int64_t rows,
                          const RowsView& hidden, int64_t hidden_size, int64_t first, int64_t last,
                          bool accumulate, float* out, void* scratch);
  /// out[v] (+)= sum over i of gradient[i, v] for v in [first, last).
  void (*bias_gradient)(const void* gradient, int64_t stride, int64_t rows, int64_t first,
                        int64_t last, bool accumulate, float* out);
  /// gradient = factor * exp(logits - shift), rounded once; in place allowed.
  void (*softmax)(const float* logits, void* gradient, int64_t vocab, float shift, float factor);
  /// The same of transformed logits: see RowKernels.
  void (*transformed_gradient)(const void* logits, void* gradient, int64_t vocab,
                               const TransformFactors& transform, const RowGradient& factors);
  void (*store)(void* gradient_row, int64_t index, float value);
  /// out (+)= factor * x, out of the layer's dtype, rounded once.
  void (*finish)(const float* x, void* out, int64_t n, float factor, bool accumulate);
};

/// Copies and read or scale loops over float32, with the same instructions and thread pool as the
/// kernels: what the memory allows.
struct LoopKernels {
  float (*read)(const float* x, int64_t n);
  void (*scale)(float* x, int64_t n, float factor);
};

struct KernelSet {
  const char* isa;
  RowKernels rows[dtype_count];
  ProductKernels products[dtype_count];
  LoopKernels loops;
};

/// The best set this processor runs; the environment variable DIRALIGN_ISA (baseline, avx2, avx512,
/// avx512_bf16) asks for a lesser one.
const KernelSet& kernel_set();
/// The sets there may be, the best first.
inline constexpr const char* isa_names[] = {"avx512_bf16", "avx512", "avx2", "baseline"};
/// The set of that name, or null where it is not compiled in or not supported here.
const KernelSet* find_kernel_set(const char* isa);

}  // namespace diralign::cpu
