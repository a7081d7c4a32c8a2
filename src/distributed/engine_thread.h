// The one thread that starts and ends a library of messages.
#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include "patience.h"
#include "timed_wait.h"

namespace diralign {

/// One thread, which runs what is posted, in order, and in between polls what is under way.
class EngineThread {
 public:
  /// `poll` returns whether there is something under way that is for this thread to ask for.
  explicit EngineThread(std::function<bool()> poll) : poll_(std::move(poll)) {
    // It lives as long as the process: MPI must not be ended by another thread.
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
    Patience patience;
    bool polling = false;
    for (;;) {
      std::deque<std::function<void()>> posted;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        if (!polling) wake_.wait(lock, [this] { return !posted_.empty(); });
        posted.swap(posted_);
      }
      for (const auto& run : posted) run();
      if (!posted.empty()) patience.begin_again();
      polling = poll_();
      if (polling) patience.rest([this](std::chrono::nanoseconds pause) { sleep(pause); });
    }
  }
  void sleep(std::chrono::nanoseconds pause) {
    std::unique_lock<std::mutex> lock(mutex_);
    wait_at_most(wake_, lock, pause, [this] { return !posted_.empty(); });
  }

  const std::function<bool()> poll_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> posted_;
};

}  // namespace diralign
