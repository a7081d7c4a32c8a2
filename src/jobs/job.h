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

/// A loss, and where its numbers go. Host memory, except the gradients.
struct LossWanted {
  Objective objective{};
  Array<double> reference;         ///< per sequence; empty without one
  GradientOutput gradient;         ///< of the logits
  LayerGradients layer_gradients;  ///< of the layer, where there is one
  double gradient_scale = 1;       ///< multiplies the gradients, and nothing of `outputs`
  LossOutputs outputs{};
  MeasuresAsked asked;
  double* value = nullptr;

  bool wants_gradient() const {
    return gradient.mode != GradientMode::none || layer_gradients.any();
  }
};

/// Numbers of rows, in host memory: zeroed, one per row of the batch; null where they are not
/// wanted.
struct TokensWanted {
  double *logps = nullptr, *logsumexp = nullptr, *entropy = nullptr;
  explicit operator bool() const { return logps != nullptr; }
};

struct Job {
  // The source: the batch's logits, or a layer in place of them.
  Batch batch;
  std::optional<OutputLayer> layer;
  RowList rows;

  // What is wanted.
  double* logps = nullptr;  ///< per sequence, or null
  TokensWanted tokens;
  std::optional<LossWanted> loss;

  int threads = 1;
  std::atomic<bool> cancelled{false};

  /// Of a job without a loss: nothing.
  const LossWanted& wanted() const;
  bool stopped() const { return cancelled.load(std::memory_order_relaxed); }
  /// Terms of the loss, or, without one, of the sequences alone.
  BatchTerms terms() const;
};

/// The largest coefficient whose multiple by the scale of the gradients is at most `largest`.
inline double largest_coefficient(double largest, double scale) {
  return std::min(DBL_MAX, largest / std::fabs(scale));
}

/// dLoss/dlogp of a row by the two terms, times the scale of the gradients.
struct RowCoefficients {
  double align, likelihood;
  bool idle() const { return align == 0 && likelihood == 0; }
};
RowCoefficients row_coefficients(const LossWanted& wanted, const BatchLoss& loss,
                                 const ScoredRow& row);

}  // namespace diralign
