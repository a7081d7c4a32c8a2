// Jobs of ranks that are threads of one process, against one job on the whole batch; and their
// transfers.
#include <cmath>
#include <thread>
#include "backends/backend.h"
#include "check.h"
#include "distributed/engine_thread.h"
#include "distributed/parallel.h"
#include "distributed/shared_memory.h"
#include "reference.h"
#include "thread_ranks.h"

using namespace diralign;

namespace {

/// Pairs of dpo, of which a job has some, and of their words some.
constexpr int64_t pairs = 4, tokens = 3, words = 1100, columns_of_cell = 512;
struct Numbers {
  std::vector<float> logits;
  std::vector<int32_t> labels;
  std::vector<double> reference;
  Numbers() {
    check::Random random(5);
    for (int64_t i = 0; i < 2 * pairs * tokens * words; i++)
      logits.push_back(float(4 * random.normal()));
    for (int64_t row = 0; row < 2 * pairs * tokens; row++)
      labels.push_back(row % 5 == 4 ? -100 : int32_t(random.below(words)));
    for (int64_t s = 0; s < 2 * pairs; s++) reference.push_back(-20 - random.uniform());
  }
};

struct Part {
  Job job;
  std::vector<float> logits, gradient;
  std::vector<int32_t> labels;
  std::vector<double> losses, rewards, coefficients, metrics, logps, values;

  Part(const Numbers& all, int64_t first_pair, int64_t last_pair, int64_t first, int64_t end) {
    const int64_t own = last_pair - first_pair, sequences = 2 * own, columns = end - first;
    LossWanted& loss = job.loss.emplace();
    loss.objectives.push_back(reference::objective("dpo", 0.5));
    Array<double> reference;
    for (int64_t s = 0; s < sequences; s++) {
      const int64_t from = s < own ? first_pair + s : pairs + first_pair + s - own;
      reference.push_back(all.reference[size_t(from)]);
      for (int64_t row = from * tokens; row < (from + 1) * tokens; row++) {
        labels.push_back(all.labels[size_t(row)]);
        const auto at = all.logits.begin() + row * words;
        logits.insert(logits.end(), at + first, at + end);
      }
    }
    loss.reference = std::move(reference);
    gradient.resize(logits.size() + 1), losses.resize(size_t(own));
    for (std::vector<double>* each : {&rewards, &coefficients, &logps})
      each->resize(size_t(sequences));
    metrics.resize(metric_count), values.resize(1);
    loss.outputs = {losses.data(), rewards.data(), coefficients.data(), metrics.data(),
                    values.data()};
    Batch& batch = job.batch;
    batch.logits = logits.data(), batch.labels = labels.data();
    batch.rows = sequences * tokens, batch.vocab = batch.row_stride = columns;
    batch.sequences = sequences;
    batch.shard = Shard{first, words};
    job.logps = logps.data();
    job.gradients.logits.mode = GradientMode::dense;
    job.gradients.logits.data = gradient.data();
    job.gradients.logits.elements = int64_t(logits.size());
    CHECK(!list_rows(batch, pair_units(sequences), job.rows));
  }
  static Units pair_units(int64_t sequences) {
    return units_of(reference::objective("dpo", 0.5).method, sequences, nullptr, 0);
  }
  void run(const Session::Groups& groups) {
    job.parallel = std::make_shared<Parallel>(groups);
    job.parallel->column_grid = columns_of_cell;
    std::vector<int32_t> counts(size_t(job.batch.sequences));
    job.parallel->counts = counts.data();
    run_parallel(job, [this] { host_backend().run(job, 0, *Pool::shared()); });
  }
};

/// What three ranks compute that meet over the axis; rank r has pairs, or words, from `cuts[r]` on.
std::vector<std::unique_ptr<Part>> run_apart(const Numbers& numbers, Axis axis,
                                             const int64_t (&cuts)[4]) {
  Meeting meeting(3);
  const auto groups = ranks_over(axis, meeting, 3);
  std::vector<std::unique_ptr<Part>> parts;
  for (int rank = 0; rank < 3; rank++) {
    const int64_t first = cuts[rank], end = cuts[rank + 1];
    parts.push_back(axis == Axis::vocab ? std::make_unique<Part>(numbers, 0, pairs, first, end)
                                        : std::make_unique<Part>(numbers, first, end, 0, words));
  }
  on_threads(3, [&](int rank) { parts[size_t(rank)]->run(groups[size_t(rank)]); });
  return parts;
}

}  // namespace

// A merge without a rescale, or an entry of a label that every shard writes.
TEST(distributed_words) {
  const Numbers numbers;
  Part one(numbers, 0, pairs, 0, words);
  one.run({});
  const int64_t cuts[] = {0, 512, 1024, words};
  const auto parts = run_apart(numbers, Axis::vocab, cuts);
  // By definition, from a sum in float64 of all words.
  for (int64_t s = 0; s < 2 * pairs; s++) {
    double logp = 0;
    for (int64_t row = s * tokens; row < (s + 1) * tokens; row++) {
      if (numbers.labels[size_t(row)] < 0) continue;
      double sum = 0;
      for (int64_t v = 0; v < words; v++) sum += std::exp(numbers.logits[size_t(row * words + v)]);
      logp += numbers.logits[size_t(row * words + numbers.labels[size_t(row)])] - std::log(sum);
    }
    CHECK(std::fabs(one.logps[size_t(s)] - logp) <= 1e-6 * std::fabs(logp), "%g, expected %g",
          one.logps[size_t(s)], logp);
  }
  for (int rank = 0; rank < 3; rank++) {
    const Part& part = *parts[size_t(rank)];
    CHECK(part.logps == one.logps && part.values == one.values && part.metrics == one.metrics);
    const int64_t columns = cuts[rank + 1] - cuts[rank];
    bool same = part.gradient.back() == 0;
    for (int64_t row = 0; row < 2 * pairs * tokens; row++)
      for (int64_t v = 0; v < columns; v++)
        same = same && check::same_bits(part.gradient[size_t(row * columns + v)],
                                        one.gradient[size_t(row * words + cuts[rank] + v)]);
    CHECK(same, "the gradient of rank %d", rank);
  }
}

// Own pairs from place 0, means of a rank's own.
TEST(distributed_pairs) {
  const Numbers numbers;
  Part one(numbers, 0, pairs, 0, words);
  one.run({});
  const int64_t cuts[] = {0, 1, 1, pairs};
  const auto parts = run_apart(numbers, Axis::data, cuts);
  for (int rank = 0; rank < 3; rank++) {
    const Part& part = *parts[size_t(rank)];
    CHECK(part.values == one.values && part.metrics == one.metrics, "rank %d", rank);
    const int64_t own = cuts[rank + 1] - cuts[rank];
    for (int64_t p = 0; p < own; p++) {
      CHECK(part.losses[size_t(p)] == one.losses[size_t(cuts[rank] + p)], "rank %d", rank);
      for (const int64_t place : {0, 1})
        CHECK(part.coefficients[size_t(place * own + p)] ==
                  one.coefficients[size_t(place * pairs + cuts[rank] + p)],
              "rank %d", rank);
    }
  }
}

// Pieces longer than what goes at once: bytes of one rank in another's place, or an end left out.
TEST(distributed_stretches) {
  for (const Transfer::Kind kind : {Transfer::Kind::all_gather, Transfer::Kind::all_to_all})
    for (const size_t piece : {size_t{0}, size_t{47}, size_t{48}, size_t{49}, size_t{100}}) {
      constexpr int ranks = 3;
      for_tests.longest_piece = 48;  // of which a stretch is a byte
      Meeting meeting(ranks);
      std::vector<std::shared_ptr<Transfer>> all;
      auto byte = [](size_t from, size_t to, size_t i) { return char(31 * from + 7 * to + i); };
      const bool to_all = kind == Transfer::Kind::all_gather;
      for (size_t from = 0; from < ranks; from++) {
        all.push_back(std::make_shared<Transfer>(kind, ranks, nullptr, piece));
        for (size_t i = 0; i < all[from]->sent.size(); i++)
          all[from]->sent[i] = byte(from, to_all ? 0 : i / piece, i % piece);
      }
      for_tests = {};
      for (int rank = 0; rank < ranks; rank++) meeting.come(rank, all[size_t(rank)]);
      for (size_t to = 0; to < ranks; to++) {
        CHECK(all[to]->wait(std::chrono::seconds(0)));
        for (size_t from = 0; from < ranks; from++)
          for (size_t i = 0; i < piece; i++)
            CHECK(all[to]->received[from * piece + i] == byte(from, to_all ? 0 : to, i));
      }
    }
}

// Work of several threads, run in order by the one thread, while it polls.
TEST(distributed_engine_thread) {
  static std::atomic<int> polls{0};
  // It lives as long as the process.
  static auto* const engine = new EngineThread([] { return ++polls % 1000 != 0; });
  constexpr int each = 200;
  std::vector<int> last(4, -1);
  std::atomic<int> done{0};
  on_threads(4, [&](int poster) {
    for (int i = 0; i < each; i++)
      engine->post([&last, &done, poster, i] {
        if (last[size_t(poster)] == i - 1) last[size_t(poster)] = i;
        done++;
      });
  });
  while (done < 4 * each) std::this_thread::yield();
  for (const int i : last) CHECK(i == each - 1, "%d", i);
}

namespace {

/// The memory of so many ranks; null on each where `forge` changes what rank 0 tells the others.
std::vector<std::unique_ptr<SharedMemory>> share_memory(int size, bool forge) {
  Meeting meeting(size);
  std::vector<std::unique_ptr<SharedMemory>> all(static_cast<size_t>(size));
  on_threads(size, [&](int rank) {
    all[size_t(rank)] =
        SharedMemory::make(rank, size, [&](const void* mine, void* of_all, size_t bytes) {
          const auto transfer =
              std::make_shared<Transfer>(Transfer::Kind::all_gather, size, mine, bytes);
          if (forge && rank == 0) transfer->sent.back() ^= 1;
          meeting.come(rank, transfer);
          transfer->wait(std::chrono::seconds(60));
          std::memcpy(of_all, transfer->received.data(), transfer->received.size());
        });
  });
  return all;
}

}  // namespace

// A rank that is ahead writes over what another has yet to read, or one that has not come is not
// waited for; two exchanges under way are taken for one.
TEST(distributed_shared_memory) {
#ifdef __linux__
  constexpr int ranks = 3, exchanges = 300;
  const auto memory = share_memory(ranks, false);
  std::atomic<int> wrong{0};
  on_threads(ranks, [&](int rank) {
    SharedMemory& own = *memory[size_t(rank)];
    check::Random random(uint64_t(rank) + 1);
    auto byte = [](int from, int exchange) { return char(7 * from + exchange); };
    std::deque<std::shared_ptr<Transfer>> under_way;
    int ended = 0;
    for (int i = 0; ended < exchanges;) {
      if (i < exchanges && under_way.size() < 3 && random.below(2)) {
        const size_t piece = i % 50 == 0 ? SharedMemory::most_bytes : size_t(i);
        const std::vector<char> mine(piece, byte(rank, i++));
        under_way.push_back(
            std::make_shared<Transfer>(Transfer::Kind::all_gather, ranks, mine.data(), piece));
        own.begin(under_way.back());
      }
      if (under_way.size() > 1 && own.try_end(*under_way[1])) wrong++;
      if (under_way.empty() || !own.try_end(*under_way[0])) {
        std::this_thread::yield();
        continue;
      }
      const Transfer& first = *under_way[0];
      for (size_t at = 0; at < first.received.size(); at++)
        wrong += first.received[at] != byte(int(at / first.piece), ended);
      under_way.pop_front(), ended++;
    }
  });
  CHECK(wrong == 0, "%d", wrong.load());
  for (const auto& each : share_memory(ranks, true)) CHECK(!each);
  // As many bytes of each rank are promised.
  std::vector<std::shared_ptr<Transfer>> uneven;
  for (size_t rank = 0; rank < ranks; rank++) {
    uneven.push_back(
        std::make_shared<Transfer>(Transfer::Kind::all_gather, ranks, nullptr, rank == 1 ? 7 : 8));
    memory[rank]->begin(uneven[rank]);
  }
  std::string refused;
  try {
    memory[0]->try_end(*uneven[0]);
  } catch (const DistributedError& error) {
    refused = error.what();
  }
  CHECK(refused == "rank 1 of 3 sent 7 bytes, expected 8", "%s", refused.c_str());
#endif
}
