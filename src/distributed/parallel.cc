#include "parallel.h"
#include <algorithm>
#include <utility>
#include "backends/cpu/kernels.h"

namespace diralign {

namespace {

/// What is known before the rows are: of sequences whose tokens other ranks have, and of units that
/// they have.
void learn(Job& job) {
  Parallel& parallel = *job.parallel;
  Session& session = parallel.session;
  RowList& rows = job.rows;
  if (session.has(Axis::sequence)) {
    Array<double> counts(rows.counts.begin(), rows.counts.end());
    sum_over_tokens(session, Step::lengths,
                    {rows.lengths.data(), rows.sft_lengths.data(), counts.data()},
                    int64_t(counts.size()));
    std::copy(counts.begin(), counts.end(), rows.counts.begin());
    std::copy(counts.begin(), counts.end(), parallel.counts);
  }
  // Nothing but a loss is of all units.
  if (session.has(Axis::data) && job.loss)
    parallel.whole = std::make_unique<WholeBatch>(job, session, parallel.log_ratios);
}

}  // namespace

void run_parallel(Job& job, const std::function<void()>& run) {
  Session& session = job.parallel->session;
  run_in_turn(session, [&] {
    agree(job);
    learn(job);
    run();
    if (job.stopped()) session.tell("ERR_DIRALIGN_ABORTED: the call was aborted");
  });
}

void run_in_turn(Session& session, const std::function<void()>& run) {
  try {
    run();
  } catch (const std::exception& error) {
    session.tell(error.what());
    session.turn->leave();
    throw;
  }
  session.turn->leave();
}

void refuse_parallel(Session& session, const std::string& failure) {
  session.tell(failure);
  session.turn->leave();
}

Settled settle(Job& job, const Settled& own) {
  Session& session = job.parallel->session;
  std::array<double, 7> sums{double(own.underflows), own.measures.entropies, own.measures.largest,
                             own.measures.logits[0], own.measures.logits[1], own.measures.counts[0],
                             own.measures.counts[1]};
  for (const Step step : {Step::settle_vocab, Step::settle_sequence, Step::settle_data}) {
    Record mine;
    for (size_t i = 0; i < sums.size(); i++) mine.set_real(i, sums[i]);
    const std::vector<Record> all = session.meet(step, mine);
    // Ranks of vocab have the same rows.
    if (step == Step::settle_vocab) continue;
    sums.fill(0);
    for (const Record& r : all)
      for (size_t i = 0; i < sums.size(); i++) sums[i] += r.real(i);
  }
  return {int64_t(sums[0]), {sums[1], sums[2], {sums[3], sums[4]}, {sums[5], sums[6]}}};
}

void sum_over_tokens(Session& session, Step step, const std::vector<double*>& numbers,
                     int64_t count) {
  Array<double> mine;
  for (const double* one : numbers) mine.insert(mine.end(), one, one + count);
  const size_t bytes = mine.size() * sizeof(double);
  const Bytes all = session.gather(step, mine.data(), bytes);
  std::fill(mine.begin(), mine.end(), 0.0);
  for (int rank = 0; rank < session.size(Axis::sequence); rank++) {
    const double* theirs = reinterpret_cast<const double*>(all.data() + size_t(rank) * bytes);
    for (size_t i = 0; i < mine.size(); i++) mine[i] += theirs[i];
  }
  const double* from = mine.data();
  for (double* one : numbers) std::copy(from, from + count, one), from += count;
}

void sum_logps(Job& job, Array<double>& sft_logps) {
  Session& session = job.parallel->session;
  if (!session.has(Axis::sequence)) return;
  std::vector<double*> numbers{job.logps};
  if (!sft_logps.empty()) numbers.push_back(sft_logps.data());
  sum_over_tokens(session, Step::sums, numbers, job.batch.sequences);
}

int64_t least_of_all(Session& session, int64_t own) {
  Record mine;
  mine.numbers[0] = uint64_t(own);
  for (const Record& r : session.meet(Step::rows, mine)) own = std::min(own, int64_t(r.numbers[0]));
  return own;
}

void sum_over_columns(Session& session, float* numbers, int64_t count, Dtype wire) {
  const cpu::RowKernels& kernels = cpu::kernel_set().rows[int(wire)];
  const size_t ranks = size_t(session.size(Axis::vocab)), element = dtype_bytes(wire),
               piece = (size_t(count) + ranks - 1) / ranks, bytes = piece * element;
  if (ranks == 1 || count == 0) return;
  const auto parted = session.reserve(Axis::vocab, Transfer::Kind::all_to_all, bytes),
             summed = session.reserve(Axis::vocab, Transfer::Kind::all_gather, bytes);
  kernels.round(numbers, parted->sent.data(), count);
  session.meet(Step::rows, {});
  const Bytes parts = session.carry(Axis::vocab, parted);
  constexpr size_t step = 1024;
  float part[step];
  double sums[step];
  for (size_t at = 0; at < piece; at += step) {
    const size_t n = std::min(step, piece - at);
    std::fill_n(sums, n, 0.0);
    for (size_t rank = 0; rank < ranks; rank++) {
      kernels.widen(parts.data() + (rank * piece + at) * element, part, int64_t(n));
      for (size_t i = 0; i < n; i++) sums[i] += double(part[i]);
    }
    for (size_t i = 0; i < n; i++) part[i] = float(sums[i]);
    kernels.round(part, summed->sent.data() + at * element, int64_t(n));
  }
  const Bytes all = session.carry(Axis::vocab, summed);
  kernels.widen(all.data(), numbers, count);
}

}  // namespace diralign
