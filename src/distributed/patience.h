#pragma once
#include <sched.h>
#include <algorithm>
#include <atomic>
#include <chrono>

namespace diralign {

/// Of a thread that asks again and again whether something has ended: it spins, then lets others
/// run, then sleeps a 64th of the time waited, 1 ms at most. A peer that computes for long must not
/// cost this process a core, and the sleep adds little to the wait.
class Patience {
 public:
  using Clock = std::chrono::steady_clock;

  /// Set where the processes of this machine have not a core each: whoever waits sleeps soon then,
  /// for a thread that lets others run is itself among those that are to run next.
  inline static std::atomic<bool> crowded{false};

  std::chrono::nanoseconds waited() const { return Clock::now() - begin_; }
  /// Between two questions; `sleep` is given how long.
  template <class Sleep>
  void rest(Sleep&& sleep) {
    using std::chrono::microseconds, std::chrono::milliseconds, std::chrono::nanoseconds;
    if (turns_++ < (crowded ? 10 : 100)) return;
    const nanoseconds pause = std::min<nanoseconds>(waited() / 64, milliseconds(1));
    if (pause < microseconds(crowded ? 1 : 10)) sched_yield();
    else sleep(pause);
  }
  void begin_again() { *this = {}; }

 private:
  Clock::time_point begin_ = Clock::now();
  int turns_ = 0;
};

}  // namespace diralign
