// The jobs of the CUDA backend: on device data, enqueued, and on host arrays, through pinned
// stages.
#include <algorithm>
#include <array>
#include <cstring>
#include "layer_run.h"
#include "loss_launch.h"
#include "staging.h"

namespace diralign::cuda {

namespace {

Pass pass_of(GradientOutput::Mode mode) {
  return mode == GradientOutput::Mode::none    ? Pass::logps
         : mode == GradientOutput::Mode::dense ? Pass::dense
                                               : Pass::factored;
}

LossRequest request_for(const Job& job, Pass pass, const BatchTerms& terms) {
  LossRequest r{};
  r.pass = pass;
  r.dtype = job.batch.dtype;
  r.logits = job.batch.logits;
  r.vocab = job.batch.vocab;
  r.row_stride = job.batch.row_stride;
  r.separate_sft = job.batch.sft_labels != nullptr;
  r.terms = terms;
  r.rows = &job.rows;
  r.first_pair = 0;
  r.last_pair = terms.pairs;
  return r;
}
LossRequest request_for(const LossJob& job) {
  LossRequest r = request_for(job, pass_of(job.gradient.mode), job.terms());
  r.gradient = job.gradient.data;
  r.gradient_elements = job.gradient.elements;
  r.gradient_scale = job.gradient_scale;
  r.measures = job.asked.any();
  r.write_ignored = job.gradient.mode != GradientOutput::Mode::none && !job.gradient.zeroed;
  return r;
}

/// The host's half of a loss: everything that follows from the sequences' log-probabilities.
/// Per-pair numbers are few; computing them here, with the functions that gave the device its
/// coefficients, leaves one set of numbers to bring back.
void finish_loss(LossJob& job, const Array<double>& sft_logps, int64_t underflows,
                 const Array<RowMeasures>& measures) {
  BatchLoss loss(job.terms(), job.outputs);
  const double* sft = sft_logps.empty() ? job.logps : sft_logps.data();
  loss.evaluate(job.logps, sft, 0, loss.pairs());
  *job.loss = loss.finish(job.logps, sft, job.largest_coefficient());
  job.outputs.metrics[underflow] = double(underflows);
  if (job.asked.any()) write_measures(job, measures);
  if (job.gradient.mode == GradientOutput::Mode::factored) write_row_scales(job, loss);
}

/// Of the rows of `range`, which are those of the launch.
void take_measures(const LossJob& job, const LossLaunch& launch, const RowRange& range,
                   Array<RowMeasures>& measures) {
  if (!job.asked.any()) return;
  for (int64_t i = range.begin; i < range.end; i++)
    measures[size_t(i)] = launch.measures(i - range.begin);
}
Array<RowMeasures> room_for_measures(const LossJob& job) {
  return Array<RowMeasures>(job.asked.any() ? job.rows.scored.size() : 0);
}

void take_tokens(TokenLogpsJob& job, const LossLaunch& launch, const RowRange& range) {
  for (int64_t i = range.begin; i < range.end; i++) {
    const double* token = launch.token(i - range.begin);
    write_token(job, job.rows.scored[size_t(i)].row, token[0], token[1], token[2]);
  }
}

class LossOnDevice : public Launch {
 public:
  LossOnDevice(LossJob& job, const Place& place) : job_(job), launch_(request_for(job), place) {}
  void finish() override {
    const int64_t sequences = job_.batch.sequences;
    for (int64_t s = 0; s < sequences; s++) job_.logps[s] = launch_.logp(s);
    Array<double> sft_logps;
    if (job_.batch.sft_labels)
      for (int64_t s = 0; s < sequences; s++) sft_logps.push_back(launch_.sft_logp(s));
    Array<RowMeasures> measures = room_for_measures(job_);
    take_measures(job_, launch_, {0, int64_t(job_.rows.scored.size())}, measures);
    finish_loss(job_, sft_logps, launch_.underflows(), measures);
  }

 private:
  LossJob& job_;
  LossLaunch launch_;
};

class SequenceLogpsOnDevice : public Launch {
 public:
  SequenceLogpsOnDevice(SequenceLogpsJob& job, const Place& place)
      : job_(job), launch_(request_for(job, Pass::logps, terms_of_sequences(job)), place) {}
  void finish() override {
    for (int64_t s = 0; s < job_.batch.sequences; s++) job_.logps[s] = launch_.logp(s);
  }

 private:
  SequenceLogpsJob& job_;
  LossLaunch launch_;
};

class TokenLogpsOnDevice : public Launch {
 public:
  TokenLogpsOnDevice(TokenLogpsJob& job, const Place& place)
      : job_(job), launch_(request_for(job, Pass::tokens, terms_of_sequences(job)), place) {}
  void finish() override { take_tokens(job_, launch_, {0, int64_t(job_.rows.scored.size())}); }

 private:
  TokenLogpsJob& job_;
  LossLaunch launch_;
};

// --- Host arrays

/// Scored rows on the device at a time, if a pair has no more.
constexpr size_t chunk_bytes = size_t{64} << 20;

/// A job on host arrays. Chunks of whole pairs go up, through the kernel in place, and down; while
/// a chunk is computed the next goes up. Only scored rows travel.
class StagedRun {
 public:
  struct Chunk {
    int64_t first = 0, last = 0;  ///< pairs
    RowRange range{};
    Workspace rows;
    std::unique_ptr<LossLaunch> launch;
    Marker computed;
  };

  /// `gradient`: where rows go when they come back, or null.
  StagedRun(Job& job, const LossRequest& request, int device, void* gradient)
      : job_(job), request_(request), device_(device), gradient_(gradient) {
    request_.row_stride = request_.vocab;
    request_.write_ignored = false;
  }
  ~StagedRun() {  // whatever was thrown: nothing may be given back while a copy still uses it
    for (OwnStream* stream : {&up_, &compute_, &down_})
      ignore(cudaStreamSynchronize(stream->get()));
  }

  /// Calls `result(chunk)` as the numbers of each chunk become known.
  template <class Result>
  void run(Result&& result) {
    const int64_t pairs = request_.terms.pairs;
    Chunk* before = nullptr;
    for (int64_t first = 0; first < pairs && !job_.cancelled;) {
      Chunk& chunk = before == &chunks_[0] ? chunks_[1] : chunks_[0];
      chunk.first = first;
      chunk.last = first = chunk_end(first);
      start(chunk);
      if (before) finish(*before, result);
      before = &chunk;
    }
    if (before && !job_.cancelled) finish(*before, result);
  }

 private:
  int64_t chunk_end(int64_t first) const {
    const int64_t pairs = request_.terms.pairs;
    // The coefficients of a coupled objective need every pair at once.
    if (request_.terms.coupling != Coupling::none && request_.pass == Pass::dense) return pairs;
    int64_t last = first + 1;
    while (last < pairs &&
           bytes_of(rows_of_pairs(job_.rows, pairs, first, last + 1)) <= chunk_bytes)
      last++;
    return last;
  }
  int64_t row_of(const Chunk& chunk, size_t i) const {
    return job_.rows.scored[size_t(chunk.range.begin) + i].row;
  }
  size_t bytes_of(const RowRange& range) const {
    return size_t(range.end - range.begin) * job_.batch.row_bytes();
  }

  void start(Chunk& chunk) {
    chunk.range = rows_of_pairs(job_.rows, request_.terms.pairs, chunk.first, chunk.last);
    chunk.rows = Workspace(device_, compute_.get(), bytes_of(chunk.range));
    marker_.record(compute_.get());
    up_.wait_for(marker_);
    upload_rows(ring_, up_.get(), chunk.rows.data(), size_t(chunk.range.size()),
                job_.batch.row_bytes(), job_.cancelled,
                [&](size_t i) { return job_.batch.row(row_of(chunk, i)); });
    marker_.record(up_.get());
    compute_.wait_for(marker_);
    request_.logits = request_.gradient = chunk.rows.data();
    request_.gradient_elements = (chunk.range.end - chunk.range.begin) * request_.vocab;
    request_.chunks = {{0, chunk.range.size()}};
    request_.first_pair = chunk.first;
    request_.last_pair = chunk.last;
    chunk.launch = std::make_unique<LossLaunch>(
        request_, Place{device_, reinterpret_cast<Stream>(compute_.get())});
    chunk.computed.record(compute_.get());
  }

  template <class Result>
  void finish(Chunk& chunk, Result&& result) {
    chunk.computed.synchronize();
    result(chunk);
    if (gradient_) download(chunk);
    chunk.launch.reset();
    chunk.rows = Workspace();
  }

  void download(Chunk& chunk) {
    download_rows(ring_, down_.get(), chunk.rows.data(), size_t(chunk.range.size()),
                  job_.batch.row_bytes(), job_.cancelled, [&](size_t i) {
                    return static_cast<char*>(gradient_) + size_t(row_of(chunk, i)) *
                                                               size_t(job_.batch.row_stride) *
                                                               job_.batch.element_bytes();
                  });
  }

  Job& job_;
  LossRequest request_;
  int device_;
  void* gradient_;
  StageRing ring_;
  Marker marker_;
  OwnStream up_, compute_, down_;
  std::array<Chunk, 2> chunks_;
};

/// What of a host gradient is 0: rows that no term scores, and columns that belong to no class.
void write_host_zeros(const LossJob& job) {
  const GradientOutput& gradient = job.gradient;
  if (gradient.zeroed || gradient.mode == GradientOutput::Mode::none) return;
  const size_t element = job.batch.element_bytes();
  auto zero = [&](int64_t begin, int64_t end) {
    if (end > begin)
      std::memset(static_cast<char*>(gradient.data) + size_t(begin) * element, 0,
                  size_t(end - begin) * element);
  };
  for (const int64_t row : job.rows.ignored)
    zero(row * job.batch.row_stride, row * job.batch.row_stride + job.batch.vocab);
  if (job.batch.row_stride == job.batch.vocab) return;
  for (int64_t row = 0; row < job.batch.rows; row++)
    zero(row * job.batch.row_stride + job.batch.vocab,
         std::min((row + 1) * job.batch.row_stride, gradient.elements));
}

}  // namespace

std::unique_ptr<Launch> launch(LossJob& job, const Place& place) {
  return std::make_unique<LossOnDevice>(job, place);
}
std::unique_ptr<Launch> launch(SequenceLogpsJob& job, const Place& place) {
  return std::make_unique<SequenceLogpsOnDevice>(job, place);
}
std::unique_ptr<Launch> launch(TokenLogpsJob& job, const Place& place) {
  return std::make_unique<TokenLogpsOnDevice>(job, place);
}

void run_staged(LossJob& job, int device) {
  if (job.layer) return run_staged_layer(job, device);
  const DeviceGuard guard(device);
  const int64_t pairs = job.terms().pairs;
  const bool paired = !job.objective.likelihood_only();
  Array<double> sft_logps(job.batch.sft_labels ? size_t(job.batch.sequences) : 0);
  int64_t underflows = 0;
  Array<RowMeasures> measures = room_for_measures(job);
  StagedRun(job, request_for(job), device,
            job.gradient.mode == GradientOutput::Mode::none ? nullptr : job.gradient.data)
      .run([&](const StagedRun::Chunk& chunk) {
        auto take = [&](int64_t s) {
          job.logps[s] = chunk.launch->logp(s);
          if (!sft_logps.empty()) sft_logps[size_t(s)] = chunk.launch->sft_logp(s);
        };
        for (int64_t pair = chunk.first; pair < chunk.last; pair++) {
          take(pair);
          if (paired) take(pair + pairs);
        }
        underflows += chunk.launch->underflows();
        take_measures(job, *chunk.launch, chunk.range, measures);
      });
  if (job.cancelled) return;
  write_host_zeros(job);
  finish_loss(job, sft_logps, underflows, measures);
}

void run_staged(SequenceLogpsJob& job, int device) {
  if (job.layer) return run_staged_layer(job, device);
  const DeviceGuard guard(device);
  StagedRun(job, request_for(job, Pass::logps, terms_of_sequences(job)), device, nullptr)
      .run([&](const StagedRun::Chunk& chunk) {
        for (int64_t s = chunk.first; s < chunk.last; s++) job.logps[s] = chunk.launch->logp(s);
      });
}

void run_staged(TokenLogpsJob& job, int device) {
  if (job.layer) return run_staged_layer(job, device);
  const DeviceGuard guard(device);
  StagedRun(job, request_for(job, Pass::tokens, terms_of_sequences(job)), device, nullptr)
      .run([&](const StagedRun::Chunk& chunk) { take_tokens(job, *chunk.launch, chunk.range); });
}

}  // namespace diralign::cuda
