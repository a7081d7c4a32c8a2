// The CPU backend: what a call computes, as a job that any thread can run.
#pragma once
#include <atomic>
#include <vector>
#include "../batch.h"
#include "../objectives/batch_loss.h"
#include "../pool.h"

namespace diralign::cpu {

struct GradientOutput {
  enum class Mode { none, dense, factored };
  Mode mode = Mode::none;
  void* data = nullptr;         ///< same dtype and stride as the logits; may be the logits
  int64_t elements = 0;         ///< of data: the last row may end with or without padding
  bool zeroed = false;          ///< fresh memory: rows and columns that are to be 0 already are
  float* row_scale = nullptr;   ///< 'factored': one per row, zeroed
};

/// What every job has: the batch, its rows, and when to stop.
struct Job {
  virtual ~Job() = default;
  Batch batch;
  RowList rows;
  int threads = 1;
  std::atomic<bool> cancelled{false};
};

struct LossJob : Job {
  Objective objective{};
  std::vector<double> reference;  ///< per sequence; empty without one
  GradientOutput gradient;
  LossOutputs outputs{};
  double* logps = nullptr;  ///< per sequence
  double loss = 0;

  void run(Pool& pool);
};

struct SequenceLogpsJob : Job {
  double* logps = nullptr;
  void run(Pool& pool);
};

struct TokenLogpsJob : Job {
  double *logps = nullptr, *logsumexp = nullptr, *entropy = nullptr;  ///< per row, zeroed
  void run(Pool& pool);
};

/// Asks the system for large pages under a buffer that was just allocated and never touched: most of the price of a fresh
/// gradient is page faults.
void advise_large_pages(void* data, size_t bytes);

}  // namespace diralign::cpu
