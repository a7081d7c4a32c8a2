// What a call computes, whatever the backend: the batch, its rows, the objective and where the
// results go.
#pragma once
#include <algorithm>
#include <atomic>
#include <cfloat>
#include <cmath>
#include <optional>
#include <vector>
#include "batch.h"
#include "objectives/batch_loss.h"
#include "rows/gradient.h"

namespace diralign {

struct GradientOutput {
  enum class Mode { none, dense, factored };
  Mode mode = Mode::none;
  void* data = nullptr;        ///< where the logits are; same dtype and stride; may be the logits
  int64_t elements = 0;        ///< of data: the last row may end with or without padding
  bool zeroed = false;         ///< fresh memory: rows and columns that are to be 0 already are
  float* row_scale = nullptr;  ///< 'factored': one per row, zeroed; always in host memory
};

/// The last layer of a model, in place of the logits that it would give: logits[r, v] = sum over k
/// of hidden[r, k] weight[v, k], plus bias[v]. All three have the batch's dtype; the batch has no
/// logits then.
struct OutputLayer {
  const void* hidden = nullptr;  ///< [rows, hidden_size]
  const void* weight = nullptr;  ///< [vocab, hidden_size]
  const void* bias = nullptr;    ///< [vocab], or null
  int64_t hidden_size = 0;
  size_t memory = 0;  ///< bytes that the workspace may take; O(rows) of bookkeeping not counted
  size_t memory_used = 0;  ///< out: the most it took
};

/// Where the gradients of an output layer go; null: left out.
struct LayerGradients {
  struct Buffer {
    void* data = nullptr;
    bool accumulate = false;  ///< the gradient is added to what is there
    bool zeroed = false;      ///< fresh memory: what is to be 0 already is
  };
  Buffer hidden;  ///< [rows, hidden_size], the batch's dtype
  Buffer weight;  ///< [vocab, hidden_size], float32
  Buffer bias;    ///< [vocab], float32
  bool any() const { return hidden.data || weight.data || bias.data; }
};

/// What every job has. Outputs are host memory, but for the gradients.
struct Job {
  virtual ~Job() = default;
  Batch batch;
  std::optional<OutputLayer> layer;
  RowList rows;
  int threads = 1;
  std::atomic<bool> cancelled{false};
};

/// The largest coefficient whose multiple by the scale of the gradients is at most `largest`.
inline double largest_coefficient(double largest, double scale) {
  return std::min(DBL_MAX, largest / std::fabs(scale));
}

/// What a run asks of its rows for the metrics: see measures.h.
struct MeasuresAsked {
  bool entropy = false, logits = false, accuracy = false;
  bool any() const { return entropy || logits || accuracy; }
};

struct LossJob : Job {
  Objective objective{};
  Array<double> reference;         ///< per sequence; empty without one
  GradientOutput gradient;         ///< of the logits
  LayerGradients layer_gradients;  ///< of the layer, where there is one
  double gradient_scale = 1;       ///< multiplies the gradients, and nothing of `outputs`
  LossOutputs outputs{};
  MeasuresAsked asked;
  double* logps = nullptr;  ///< per sequence
  double* loss = nullptr;

  /// The largest coefficient that the gradient has numbers for.
  double largest_coefficient() const {
    const bool any = gradient.mode != GradientOutput::Mode::none || layer_gradients.any();
    return any ? diralign::largest_coefficient(FLT_MAX, gradient_scale) : DBL_MAX;
  }
  BatchTerms terms() const {
    return batch_terms(objective, batch.sequences, rows.counts.data(), rows.sft_counts.data(),
                       reference.empty() ? nullptr : reference.data());
  }
};

/// dLoss/dlogp of a row by the two terms, times the scale of the gradients.
struct RowCoefficients {
  double align, likelihood;
  bool idle() const { return align == 0 && likelihood == 0; }
};
inline RowCoefficients row_coefficients(const LossJob& job, const BatchLoss& loss,
                                        const ScoredRow& row) {
  const double align = row.has_label() ? job.outputs.coefficients[row.sequence] : 0;
  const double likelihood = row.sft_label >= 0 ? loss.likelihood_coefficient(row.sequence) : 0;
  return {gradient_coefficient(align, job.gradient_scale),
          gradient_coefficient(likelihood, job.gradient_scale)};
}

/// The scale of every scored row of a factored gradient; the others stay 0.
inline void write_row_scales(LossJob& job, const BatchLoss& loss) {
  for (const ScoredRow& row : job.rows.scored) {
    const RowCoefficients c = row_coefficients(job, loss, row);
    job.gradient.row_scale[row.row] = float(c.align + c.likelihood);
  }
}

/// Terms of a job that knows no pairs: every sequence stands for itself.
inline BatchTerms terms_of_sequences(const Job& job) {
  BatchTerms terms{};
  terms.likelihood_only = true;
  terms.sequences = terms.pairs = job.batch.sequences;
  terms.counts = job.rows.counts.data();
  terms.sft_counts = job.rows.sft_counts.data();
  return terms;
}

/// Its rows are listed sequence by sequence: list_rows(batch, batch.sequences, rows).
struct SequenceLogpsJob : Job {
  double* logps = nullptr;  ///< per sequence
};

/// The sums of the scored rows' log-probabilities, in row order.
inline void write_sequence_logps(SequenceLogpsJob& job, const Array<double>& row_logps) {
  for (int64_t s = 0; s < job.batch.sequences; s++) {
    double sum = 0;
    for (int64_t i = job.rows.begin[size_t(s)]; i < job.rows.end[size_t(s)]; i++)
      sum += row_logps[size_t(i)];
    job.logps[s] = sum;
  }
}

/// Likewise.
struct TokenLogpsJob : Job {
  double *logps = nullptr, *logsumexp = nullptr, *entropy = nullptr;  ///< per row, zeroed
};

inline void write_token(TokenLogpsJob& job, int64_t row, double logp, double log_sum, double nats) {
  job.logps[row] = logp;
  job.logsumexp[row] = log_sum;
  job.entropy[row] = nats;
}
inline void write_token(TokenLogpsJob& job, int64_t row, const RowSums& sums) {
  const RowStatistics s = row_statistics(sums);
  write_token(job, row, s.logp, logsumexp(s), entropy(s, sums));
}

}  // namespace diralign
