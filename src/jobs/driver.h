// The three phases of a job, in order: rows are reduced, units evaluated, rows differentiated. A
// backend has the first and the last; what lies between, and after them, is here, once.
#pragma once
#include "measures.h"
#include "plan.h"

namespace diralign {

/// What a backend does with the rows of one job. A group's rows are reduced before they are
/// differentiated, and group after group. Whatever is left to do once the job is cancelled may be
/// left out.
class Phases {
 public:
  virtual ~Phases() = default;

  virtual const std::vector<UnitGroup>& groups() const = 0;
  /// Fills the log-probabilities of the group's sequences (job.logps, and those of a likelihood
  /// term with labels of its own), or the numbers of its tokens. `loss`: of a job that wants the
  /// gradient of one; evaluated already where the counts alone give the coefficients.
  virtual void reduce(const UnitGroup& group, const BatchLoss* loss) = 0;
  /// The gradients of the group's rows, once the coefficients of its units are known. `loss`: of a
  /// job that has one.
  virtual void differentiate(const UnitGroup& group, const BatchLoss* loss) = 0;
  /// Zeros for what no row contributes to.
  virtual void write_zeros() = 0;

  // Known after the last group, before `finish`.

  /// Per sequence, under the labels of the likelihood term.
  virtual const double* sft_logps() const = 0;
  /// Per scored row, where metrics ask for them.
  virtual const Array<RowMeasures>& measures() const = 0;
  /// Rows of a dense gradient of logits whose label's entry underflows.
  virtual int64_t underflows() const { return 0; }
};

/// Runs a job to its end, unless it is cancelled.
void run_phases(Job& job, Phases& phases);

/// Runs a job of log-probabilities that are given: its units, and the gradient by them.
void run_logps(Job& job);

/// What follows from derivatives that are given: the scales of a factored gradient.
void finish_given(Job& job);

/// What follows from the log-probabilities of all sequences, once their units are evaluated: the
/// loss, its metrics, and the scales of a factored gradient.
void finish_loss(Job& job, BatchLoss& loss, const double* sft_logps, int64_t underflows,
                 const Array<RowMeasures>& measures);

}  // namespace diralign
