// Row kernels of the CPU backend: plain C++ over one row of logits, compiled once per instruction set (kernels_*.cc) and chosen
// at run time (dispatch.cc). No allocation, no threads, no Node.
#pragma once
#include <cstddef>
#include <cstdint>
#include "../dtype.h"
#include "../row_statistics.h"

namespace diralign::cpu {

/// Elements per block: the unit in which a row's sum is formed and its reference point may move.
inline constexpr int64_t block_elements = 512;

struct RowKernels {
  /// Sums of exp(logit - reference) over a row, its label's entry left out.
  RowSums (*reduce)(const void* row, int64_t vocab, int64_t label);
  /// The same numbers, with the first moment that the entropy needs.
  RowSums (*reduce_with_moment)(const void* row, int64_t vocab, int64_t label);
  /// out = factor * exp(row - shift), rounded once; `stream` bypasses the caches (out and row must not overlap then).
  void (*scaled_exp)(const void* row, void* out, int64_t vocab, float shift, float factor, bool stream);
  /// reduce() that leaves -softmax (the label's entry aside) in the row itself: the exponential is computed once. float32 only.
  /// `block_references` holds one float per block. Bit for bit the sums of reduce().
  RowSums (*negative_softmax_in_place)(float* row, int64_t vocab, int64_t label, float* block_references);
  float (*load)(const void* row, int64_t index);
  void (*store)(void* row, int64_t index, float value);
  /// For tests: y = exp(x), and the rounding of float32 to this dtype.
  void (*exp)(const float* x, float* y, int64_t n);
  void (*round)(const float* x, void* y, int64_t n);
};

/// Copies and read or scale loops over float32, with the same instructions and thread pool as the kernels: what the memory allows.
struct LoopKernels {
  float (*read)(const float* x, int64_t n);
  void (*scale)(float* x, int64_t n, float factor);
};

struct KernelSet {
  const char* isa;
  RowKernels rows[dtype_count];
  LoopKernels loops;
};

/// The best set this processor runs; the environment variable DIRALIGN_ISA (baseline, avx2, avx512) asks for a lesser one.
const KernelSet& kernel_set();
/// The set of that name, or null where it is not compiled in or not supported here.
const KernelSet* find_kernel_set(const char* isa);

}  // namespace diralign::cpu
