// The compute threads of the process: shared by every Node environment (main thread and
// worker_threads), started on first use, joined when the last environment goes. They never touch
// the JavaScript engine.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace diralign {

class Pool {
 public:
  /// The process's pool; alive while somebody holds it.
  static std::shared_ptr<Pool> shared();

  ~Pool();

  /// Queues `task`, to be run `copies` times, by the threads that are idle. Where too few are, new
  /// ones are started, as long as the pool has fewer than `threads` beside the calling thread.
  /// Returns what withdraw() takes.
  uint64_t post(std::function<void()> task, int threads, int copies = 1);
  /// Takes a task out of the queue. Returns how many copies will not be run: 0 where threads have
  /// begun all of them.
  int withdraw(uint64_t task);

  /// As they are at this moment.
  struct Counts {
    int threads, idle, waiting;  ///< threads started, those of them without a task, and copies of
                                 ///< tasks that nobody has begun
  };
  Counts counts();

 private:
  struct Queued {
    std::shared_ptr<const std::function<void()>> run;
    int copies;
  };
  void work();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::map<uint64_t, Queued> tasks_;  // the oldest first
  uint64_t last_task_ = 0;
  int waiting_ = 0;  // copies in tasks_
  int idle_ = 0;     // threads that run no task
  std::vector<std::thread> threads_;
  bool stopping_ = false;
};

/// A group of threads that go through the phases of one job together: the caller and up to `threads
/// - 1` helpers from the pool. A helper that never gets to run is never waited for. Which thread
/// does an item is left to chance; what an item computes must not depend on it.
class Team {
 public:
  using Item = std::function<void(int64_t item, int member)>;

  Team(Pool& pool, int threads);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  /// Calls `item(i, member)` for every i in [0, count), and returns when all are done. `member` is
  /// in [0, members()).
  void run(int64_t count, const Item& item);
  int members() const { return members_; }

 private:
  struct State;
  static void help(const std::shared_ptr<State>& state);

  Pool& pool_;
  int members_;
  uint64_t helpers_ = 0;          // the pool's task; 0: there is none
  std::shared_ptr<State> state_;  // null for a team of one
};

}  // namespace diralign
