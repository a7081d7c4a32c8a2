// A job whose batch is spread over processes: what it shares with them, and what it learns.
#pragma once
#include <memory>
#include <vector>
#include "session.h"
#include "whole_batch.h"
#include "jobs/measures.h"

namespace diralign {

struct Parallel {
  explicit Parallel(Session::Groups groups) : session(std::move(groups)) {}

  Session session;
  int64_t column_grid = 0;      ///< columns that are summed as a unit; 0: those of a rank
  bool sums_hidden = true;      ///< the gradient of hidden states, over vocab
  bool native_wire = false;     ///< it travels in its own dtype, otherwise in float32
  bool on_device = false;       ///< who computes here
  Array<double> log_ratios;     ///< whose mean is the baseline `kl`; empty: it was given
  int32_t* counts = nullptr;    ///< out, per sequence: scored rows on all ranks of sequence
  Array<double> sorted_losses;  ///< out: of the whole batch, of an objective that sorts it

  // Known once the ranks have agreed.

  std::vector<int64_t> first_columns;  ///< of every rank of vocab, and the end
  int64_t most_cells = 1;              ///< cells of columns that a rank has
  bool mixed_hardware = false;         ///< ranks compute with different instructions
  std::unique_ptr<WholeBatch> whole;   ///< where there are other ranks of data

  /// Whether rows are merged from parts.
  bool merges_rows() const { return column_grid > 0 || session.has(Axis::vocab); }
  /// Of the gradient of hidden states of that dtype.
  Dtype wire(Dtype own) const { return native_wire ? own : Dtype::float32; }
};

/// Runs a job together with its other processes: agrees with them first, and tells them of what
/// goes wrong. `run` is the backend's.
void run_parallel(Job& job, const std::function<void()>& run);
/// Runs what exchanges with others, tells them where it throws, and lets the next call go ahead.
void run_in_turn(Session& session, const std::function<void()>& run);
/// Takes part in the place of a job that this process refuses.
void refuse_parallel(Session& session, const std::string& failure);

// Of run_parallel().

/// Throws on every rank alike where the ranks' calls do not fit together; nothing has been written.
/// The records of vocab may still be on the way when it returns: what is thrown then, and what is
/// learned of its ranks, comes with the session's next meeting.
void agree(Job& job);

/// The numbers of every rank of sequence and data, which are of one objective and for one purpose,
/// `about`: of one rank of data after another, by its ranks of sequence.
void gather_numbers(Session& session, const std::string& about, const Array<double>& mine,
                    double* all);

// Of the driver.

/// What ranks tell each other at the end: then all of them succeed, or none.
struct Settled {
  int64_t underflows = 0;
  MeasureSums measures;
};
/// Of this rank's; returns those of the batch.
Settled settle(Job& job, const Settled& own);
/// Adds up the sequences' numbers over the ranks that have other tokens, in the order of the ranks.
void sum_over_tokens(Session& session, Step step, const std::vector<double*>& numbers,
                     int64_t count);

// Of backends.

/// The log-probabilities of the job's sequences, where other ranks have other tokens of them; and
/// those under labels of the likelihood term, unless there are none.
void sum_logps(Job& job, Array<double>& sft_logps);

// In the step of the rows.

/// The least of what the ranks of vocab have.
int64_t least_of_all(Session& session, int64_t own);
/// The sum over the ranks of vocab, in float64 and in their order: each adds up a piece. It takes
/// and gives 2 (size - 1) / size of the numbers' bytes, as a ring does. On the way, each rank's
/// numbers and the sums are rounded to `wire`.
void sum_over_columns(Session& session, float* numbers, int64_t count, Dtype wire);

}  // namespace diralign
