// The compute threads of the process: shared by every Node environment (main thread and worker_threads), started on first use,
// joined when the last environment goes. They never touch the JavaScript engine.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace diralign {

class Pool {
 public:
  /// The process's pool; alive while somebody holds it.
  static std::shared_ptr<Pool> shared();
  /// Threads this process may run at the same time.
  static int hardware_threads();

  ~Pool();
  /// Runs `task` on a pool thread, of which there will be at least `threads`.
  void post(std::function<void()> task, int threads);

 private:
  void work();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  std::vector<std::thread> threads_;
  bool stopping_ = false;
};

/// A group of threads that go through the phases of one job together: the caller and up to `threads - 1` helpers from the pool.
/// A helper that never gets to run is never waited for. Which thread does an item is left to chance; what an item computes must not
/// depend on it.
class Team {
 public:
  using Item = std::function<void(int64_t item, int member)>;

  Team(Pool& pool, int threads);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  /// Calls `item(i, member)` for every i in [0, count), and returns when all are done. `member` is in [0, members()).
  void run(int64_t count, const Item& item);
  int members() const { return members_; }

 private:
  struct State;
  static void help(const std::shared_ptr<State>& state, int member);

  int members_;
  std::shared_ptr<State> state_;  // null for a team of one
};

}  // namespace diralign
