#pragma once
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>

namespace diralign {

/// Like wait_for, which needs glibc 2.30. The system's clock may be set while it waits: it is asked
/// in steps, and how long was waited is told by the steady one.
template <class Ended>
bool wait_at_most(std::condition_variable& wake, std::unique_lock<std::mutex>& lock,
                  std::chrono::nanoseconds most, Ended&& ended) {
  using namespace std::chrono;
  const steady_clock::time_point deadline = steady_clock::now() + most;
  while (!ended()) {
    const nanoseconds left = deadline - steady_clock::now();
    if (left <= nanoseconds::zero()) return false;
    wake.wait_until(lock, system_clock::now() + std::min<nanoseconds>(left, seconds(1)));
  }
  return true;
}

}  // namespace diralign
