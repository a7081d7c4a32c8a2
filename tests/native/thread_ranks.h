// Ranks as threads of one process.
#pragma once
#include <cstring>
#include <thread>
#include "distributed/session.h"

namespace diralign {

/// Exchanges between the threads of so many ranks.
class Meeting {
 public:
  explicit Meeting(int size) : arrived_(size_t(size)) {}

  void come(int rank, const std::shared_ptr<Transfer>& transfer) {
    std::vector<std::shared_ptr<Transfer>> all;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      arrived_[size_t(rank)] = transfer;
      if (++count_ < arrived_.size()) return;
      all.swap(arrived_);
      arrived_.resize(all.size());
      count_ = 0;
    }
    for (bool more = true; more;) {
      std::vector<Transfer::Stretch> stretches;
      for (const auto& each : all) stretches.push_back(each->stretch());
      for (size_t to = 0; to < all.size(); to++)
        for (size_t from = 0; from < all.size(); from++) {
          const bool to_all = all[to]->kind == Transfer::Kind::all_gather;
          const size_t bytes = std::min(stretches[to].bytes, stretches[from].bytes);
          if (bytes > 0)
            std::memcpy(stretches[to].received + from * stretches[to].bytes,
                        stretches[from].sent + (to_all ? 0 : to * bytes), bytes);
        }
      more = false;
      for (const auto& each : all) more = each->advance() || more;
    }
    for (const auto& each : all) each->end();
  }

 private:
  std::mutex mutex_;
  std::vector<std::shared_ptr<Transfer>> arrived_;
  size_t count_ = 0;
};

class ThreadCarrier : public Carrier {
 public:
  ThreadCarrier(Meeting& meeting, int rank) : meeting_(meeting), rank_(rank) {}
  void begin(const std::shared_ptr<Transfer>& transfer) override { meeting_.come(rank_, transfer); }

 private:
  Meeting& meeting_;
  const int rank_;
};

/// The groups of each rank, which meet over one axis.
inline std::vector<Session::Groups> ranks_over(Axis axis, Meeting& meeting, int size) {
  std::vector<Session::Groups> all(static_cast<size_t>(size));
  for (int rank = 0; rank < size; rank++)
    all[size_t(rank)][size_t(axis)] = {
        std::make_shared<Communicator>(rank, size, std::chrono::seconds(60)),
        std::make_shared<ThreadCarrier>(meeting, rank), nullptr};
  return all;
}
template <class Run>
void on_threads(int size, Run&& run) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; rank++) threads.emplace_back([&run, rank] { run(rank); });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace diralign
