// What a call computes, whatever the backend: the source of the logits, the rows that count, and
// what is wanted of them.
#pragma once
#include <algorithm>
#include <atomic>
#include <cfloat>
#include <cmath>
#include <optional>
#include "batch.h"
#include "objectives/batch_loss.h"
#include "rows/gradient.h"

namespace diralign {

struct Parallel;

#define DIRALIGN_GRADIENT_MODES(X) X(none) X(dense) X(factored)
DIRALIGN_NAMED_ENUM(GradientMode, gradient_mode_names, DIRALIGN_GRADIENT_MODES);

struct GradientOutput {
  using Mode = GradientMode;
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

/// What a run asks of its rows for the metrics: see measures.h.
struct MeasuresAsked {
  bool entropy = false, logits = false, accuracy = false;
  bool any() const { return entropy || logits || accuracy; }
};

/// Gradients, and where they go; null or none: not wanted.
struct GradientsWanted {
  GradientOutput logits;
  LayerGradients layer;     ///< of the layer, where there is one
  double* logps = nullptr;  ///< per sequence, of log-probabilities that are given
  double scale = 1;         ///< multiplies the gradients, and nothing else
  bool any() const { return logits.mode != GradientMode::none || layer.any(); }
};

/// A loss, and where its numbers go, in host memory.
struct LossWanted {
  Array<Objective> objectives;
  GivenNumbers reference;  ///< per sequence; empty without one
  LossOutputs outputs{};
  MeasuresAsked asked;

  /// The log-probabilities' counts alone give the coefficients.
  bool is_linear() const;
  /// The coefficients of a pair are opposite, but for what divides its log-probabilities.
  bool is_opposite() const;
};

/// Numbers of rows, in host memory: zeroed, one per row of the batch. Arrays of no rows are null.
struct TokensWanted {
  double *logps, *logsumexp, *entropy;
  double* collision = nullptr;  ///< log of the sum of squared probabilities; null: not wanted
};

/// A loss of the caller's own, by its derivatives: by the log-probability of each row of the batch,
/// and by the entropy of its softmax. Empty: 0.
struct DerivativesGiven {
  Array<double> logps, entropy;
  /// What an earlier run found of the rows; empty: they are reduced again.
  Array<double> known_logps, known_logsumexp, known_entropy;
};

/// Log-probabilities in place of rows, per sequence.
struct LogpsGiven {
  GivenNumbers logps;
  GivenNumbers lengths;  ///< scored rows, or the sums of their weights
};

struct Job {
  // The source: the batch's logits, a layer in place of them, or log-probabilities in place of
  // rows.
  Batch batch;
  std::optional<OutputLayer> layer;
  std::optional<LogpsGiven> given_logps;
  RowList rows;

  // What is wanted: log-probabilities of sequences, or one of the others.
  double* logps = nullptr;  ///< per sequence, of the first and of a loss
  std::optional<TokensWanted> tokens;
  std::optional<LossWanted> loss;
  std::optional<DerivativesGiven> given;
  GradientsWanted gradients;  ///< of a loss, or of what is given

  int threads = 1;
  std::atomic<bool> cancelled{false};
  std::shared_ptr<Parallel> parallel;  ///< null: the whole batch is here

  /// Whether no coefficient is known before every sequence is.
  bool evaluates_together() const;

  /// Per sequence: what the loss is a function of, once it is known, and what it may divide by.
  const double* known_logps() const { return given_logps ? given_logps->logps.data() : logps; }
  const double* lengths() const {
    return given_logps ? given_logps->lengths.data() : rows.lengths.data();
  }
  const double* sft_lengths() const {
    return given_logps ? given_logps->lengths.data() : rows.sft_lengths.data();
  }
  /// Scored rows; where there are no rows, the sum of the lengths.
  double scored_tokens() const;

  /// Whether the sums of the rows need not be formed.
  bool knows_rows() const { return given && !given->known_logps.empty(); }
  /// Whether the sums of rows must have the moment, and the mean of their logits.
  bool needs_moment() const { return tokens || asked().entropy || by_entropy(); }
  bool needs_mean() const { return asked().logits; }
  /// Whether something is given by the entropies.
  bool by_entropy() const { return given && !given->entropy.empty(); }
  /// Of a job without a loss: nothing.
  const MeasuresAsked& asked() const;
  bool stopped() const { return cancelled.load(std::memory_order_relaxed); }
  /// Terms of the loss, or, without one, of the sequences alone.
  BatchTerms terms() const;
};

/// The largest coefficient whose multiple by the scale of the gradients is at most `largest`.
inline double largest_coefficient(double largest, double scale) {
  return std::min(DBL_MAX, largest / std::fabs(scale));
}

/// The derivatives of what a job differentiates by the two log-probabilities of a row, and by its
/// entropy, times the scale of the gradients.
struct RowCoefficients {
  double align, likelihood, entropy = 0;
  bool idle() const { return align == 0 && likelihood == 0 && entropy == 0; }
};
/// `loss`: of a job that has one.
RowCoefficients row_coefficients(const Job& job, const BatchLoss* loss, const ScoredRow& row);

}  // namespace diralign
