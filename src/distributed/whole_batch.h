// The units of all ranks of data, one rank's after another's, and the loss of them all: by every
// rank, so that each has the same bits and no objective is a special case.
#pragma once
#include <optional>
#include <vector>
#include "session.h"
#include "jobs/job.h"

namespace diralign {

class WholeBatch {
 public:
  /// Exchanges what is known before the rows are: lengths, references and fields. Throws where the
  /// ranks' batches do not go together.
  WholeBatch(Job& job, Session& session, const Array<double>& log_ratios);

  /// Gives a rank's own units the divisors, and the baseline, of the whole batch.
  void share_terms(BatchTerms& own) const;
  /// Exchanges the log-probabilities and evaluates all units; the own ones' numbers go to the job.
  void evaluate(const double* logps, const double* sft_logps);
  bool is_evaluated() const { return loss_.has_value(); }
  /// Metrics and values of the job: those of the whole batch.
  void finish(double largest);

  /// Of all ranks: of a sorted objective.
  const Array<double>& losses() const { return losses_; }

 private:
  struct Part {
    int64_t units, sequences, first_unit, first_sequence;
  };
  int64_t sequence_of(const Part& part, int64_t own) const;
  BatchTerms terms() const;
  void copy_own();

  Job& job_;
  Session& session_;
  std::vector<Part> parts_;  // by rank
  Units units_{};
  Array<int32_t> offsets_;
  double tokens_ = 0;
  Array<double> lengths_, sft_lengths_, reference_;
  Fields fields_;
  std::vector<Array<double>> field_data_;
  Array<double> logps_, sft_logps_;
  Array<double> losses_, rewards_, coefficients_;
  std::optional<BatchLoss> loss_;
};

}  // namespace diralign
