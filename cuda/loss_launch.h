// One launch of the loss kernel, from the host: what it works on, its memory, and its numbers when it has ended.
#pragma once
#include <optional>
#include <vector>
#include "batch.h"
#include "loss_kernel.h"
#include "runtime.h"

namespace diralign::gpu {

/// What a launch works on: consecutive pairs of a batch. Pointers but for logits and gradient are to host memory, and read before
/// the constructor of LossLaunch returns.
struct LossRequest {
  Pass pass;
  Dtype dtype;
  const void* logits;  ///< device memory
  void* gradient;      ///< device memory; may be the logits
  int64_t vocab, row_stride, gradient_elements;
  bool separate_sft;   ///< the likelihood term has labels of its own
  BatchTerms terms;    ///< of the whole batch
  const RowList* rows;
  int64_t first_pair, last_pair;
  bool packed;         ///< row i of the memory is the i-th scored row of these pairs; without it, that of the batch
  bool write_ignored;  ///< rows that no term scores are to be zeroed
};

/// Enqueued by its constructor, which throws before anything is enqueued that writes. The destructor waits for the end of the work.
class LossLaunch {
 public:
  LossLaunch(const LossRequest& request, const Place& place);
  ~LossLaunch();
  LossLaunch(const LossLaunch&) = delete;
  LossLaunch& operator=(const LossLaunch&) = delete;

  // Once the work has ended; indexed as the batch is.
  double logp(int64_t sequence) const { return has_rows_ ? results_.as<double>()[sequence] : 0; }
  double sft_logp(int64_t sequence) const { return !separate_sft_ ? logp(sequence) : has_rows_ ? results_.as<double>()[sequences_ + sequence] : 0; }
  /// Pass::tokens: log-probability, logsumexp and entropy of the i-th scored row of the request.
  const double* token(int64_t i) const { return results_.as<double>() + 3 * i; }

 private:
  bool has_rows_ = false, separate_sft_;
  int64_t sequences_;
  std::optional<Marker> ended_;
  PinnedBlock upload_, results_;
  Workspace workspace_;
};

}  // namespace diralign::gpu
