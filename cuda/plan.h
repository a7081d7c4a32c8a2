// What a launch of the loss kernel works from: plain data that the host prepares (loss_launch.cc)
// and the kernel reads (loss_kernel.cuh).
#pragma once
#include <cstdint>
#include "objectives/batch_terms.h"
#include "platform.h"
#include "row_cut.h"
#include "rows/gradient.h"
#include "rows/sums.h"
#include "rows/transform.h"

namespace diralign::cuda {

/// What a launch is for.
enum class Pass {
  logps,     ///< log-probabilities of the sequences
  tokens,    ///< per row: log-probability, logsumexp, entropy
  dense,     ///< log-probabilities and the gradient of the loss
  factored,  ///< log-probabilities and onehot - softmax
  /// One of the first three, as Plan::pass says, of transformed logits, with a coefficient of the
  /// entropy, or with the collision: a kernel of its own, because every element costs more.
  general,
};

/// A scored row; labels of -1: not scored by that term.
struct RowRecord {
  uint32_t row, sequence;
  int32_t label, sft_label;
  double weight;  ///< of its log-probability

  __device__ bool has_label() const { return label >= 0; }
  /// The entry whose log-probability is computed without cancellation.
  __device__ int32_t primary() const { return label >= 0 ? label : sft_label; }
};

/// Derivatives by what a row has, where they are given: the run's scale and the row's weight are in
/// them.
struct RowDerivatives {
  double logp, entropy;
};

/// What a block does with one part of a row.
enum class Work : uint32_t {
  end,
  reduce,           ///< sums
  gradient,         ///< once the row's group is evaluated
  residual,         ///< onehot - softmax, once the row's parts are all reduced
  reduce_residual,  ///< both, the part staying in registers in between
  finish,           ///< a tile of rows whose parts an earlier launch has summed
  zero,             ///< rows that no term scores
};

/// Tickets are handed out in order, a stage after another: one ticket for each part of each of its
/// rows; for Work::finish, one for each of its tiles at least.
struct Stage {
  Work work;
  uint32_t first_ticket;
  uint32_t first_row;  ///< in the list of scored rows, or of ignored ones
  uint32_t group;
};

/// Consecutive units whose logits are small enough to be read again from the L2 cache. Rows of a
/// group are finished in tiles of one row for each thread of a block, and the units when all tiles
/// are.
struct Group {
  uint32_t first_row, rows, first_unit, units, first_tile;
};
constexpr uint32_t tile_rows = threads;

/// Pointers are to device memory. Counters are 0 at the start.
struct Plan {
  const void* logits;
  void* gradient;
  int64_t row_stride, gradient_elements;
  double gradient_scale;  ///< of every coefficient: the run's
  double gradient_unit;   ///< and a power of two, for coefficients that the gradient's type has no
                          ///< numbers for
  float least_normal;     ///< of the gradient's type; 0: rows that underflow are not counted
  uint32_t vocab;
  RowCut cut;
  bool separate_sft;

  const RowRecord* rows;
  const uint32_t* ignored;
  const uint32_t *sequence_begin, *sequence_end;  ///< ranges of `rows`
  const Group* groups;
  const Stage* stages;  ///< the last is Work::end at the number of tickets

  PartSums* part_sums;  ///< [rows][parts]
  float *targets, *sft_targets;
  double *row_logps, *sft_row_logps;
  RowTerms* row_terms;  ///< dense: what finishing a row leaves for its gradient
  /// `row_arrivals`: null where the parts of rows are merged elsewhere, and nothing follows here.
  uint32_t *next_ticket, *row_arrivals, *tile_arrivals, *group_arrivals, *group_ready;

  BatchTerms terms;      ///< arrays in device memory
  double* coefficients;  ///< per sequence
  double* unit_numbers;  ///< scratch: [2][units] of a sorted objective, one per sequence of groups
  uint32_t* sort_order;  ///< [2][sort_length]
  uint32_t sort_length;  ///< a power of two, at least the units

  double *logps, *sft_logps;  ///< out, per sequence
  double* tokens;             ///< out, [rows][3]
  // out, 0 at the start, of the dense pass: rows whose label's entry underflows, and rows that were
  // reduced to a NaN
  uint32_t *underflows, *nan_rows;

  const RowDerivatives* derivatives;  ///< [rows], dense: in place of the units'; null: not given
  const RowGradient* row_gradients;   ///< [rows], dense: in place of all that leads to them; null:
                                      ///< they follow from the units

  // Of the general pass.
  Pass pass;  ///< what it is
  TransformFactors factors;
  LogitTransform transform;
  double* part_squares;   ///< [rows][parts]: of the part's exponentials; null: not wanted
  double* collisions;     ///< out, [rows], tokens; null: not wanted
  double* row_entropies;  ///< [rows], dense; null: none has a coefficient
};

}  // namespace diralign::cuda
