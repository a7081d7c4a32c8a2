// The one thread that speaks to a library of messages.
#pragma once
#include <sched.h>
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include "timed_wait.h"

namespace diralign {

/// One thread, which runs what is posted, in order, and in between polls what is under way.
class EngineThread {
 public:
  /// `poll` returns whether there is something under way.
  explicit EngineThread(std::function<bool()> poll) : poll_(std::move(poll)) {
    // It lives as long as the process: MPI must not be spoken by another thread later.
    std::thread([this] { work(); }).detach();
  }
  void post(std::function<void()> work) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      posted_.push_back(std::move(work));
    }
    wake_.notify_one();
  }

 private:
  void work() {
    std::chrono::steady_clock::time_point idle_since = std::chrono::steady_clock::now();
    bool polling = false;
    for (int turn = 0;; turn++) {
      std::deque<std::function<void()>> posted;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        if (!polling) wake_.wait(lock, [this] { return !posted_.empty(); });
        posted.swap(posted_);
      }
      for (const auto& run : posted) run();
      if (!posted.empty()) idle_since = std::chrono::steady_clock::now(), turn = 0;
      polling = poll_();
      if (polling && turn >= 100) rest(idle_since);
    }
  }
  /// Yields, then sleeps a 64th of the time already waited, 1 ms at most: a peer that computes for
  /// long must not cost this process a core, and the sleep adds little to the wait.
  void rest(std::chrono::steady_clock::time_point since) {
    using namespace std::chrono;
    const auto pause =
        std::min<nanoseconds>((std::chrono::steady_clock::now() - since) / 64, milliseconds(1));
    if (pause < microseconds(10)) {
      sched_yield();
      return;
    }
    std::unique_lock<std::mutex> lock(mutex_);
    wait_at_most(wake_, lock, pause, [this] { return !posted_.empty(); });
  }

  const std::function<bool()> poll_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> posted_;
};

}  // namespace diralign
