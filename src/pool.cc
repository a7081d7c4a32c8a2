#include "pool.h"
#include <algorithm>
#include <system_error>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace diralign {

namespace {

/// Between two phases a helper waits for microseconds: spin first, then let others run.
void pause(int& spins) {
  if (++spins < 2000) {
#if defined(__x86_64__)
    _mm_pause();
#endif
  } else {
    std::this_thread::yield();
  }
}

}  // namespace

std::shared_ptr<Pool> Pool::shared() {
  static std::mutex mutex;
  static std::weak_ptr<Pool> current;
  std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<Pool> pool = current.lock();
  if (!pool) current = pool = std::make_shared<Pool>();
  return pool;
}

int Pool::hardware_threads() { return std::max(1, int(std::thread::hardware_concurrency())); }

Pool::~Pool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& t : threads_) t.join();
}

void Pool::post(std::function<void()> task, int threads) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    try {
      while (int(threads_.size()) < threads) threads_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
      if (threads_.empty()) throw;  // a process at its limit makes do with the threads there are
    }
    tasks_.push_back(std::move(task));
  }
  wake_.notify_one();
}

void Pool::work() {
  for (;;) {
    std::function<void()> task;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

struct Team::State {
  // Items left in the low bits, the phase above them: an item is taken by a compare-and-swap, so that a helper that slept through a
  // phase cannot take one of it.
  static constexpr int phase_shift = 40;
  std::atomic<uint64_t> ticket{0};
  std::atomic<int64_t> done{0};
  std::atomic<bool> finished{false};
  // Of the current phase; read only between taking an item and reporting it done.
  const Item* item = nullptr;
  int64_t count = 0;

  std::mutex mutex;
  std::condition_variable left;
  int inside = 0;
  bool closed = false;

  bool take(int64_t& index) {
    uint64_t t = ticket.load(std::memory_order_acquire);
    for (;;) {
      const uint64_t remaining = t & ((uint64_t{1} << phase_shift) - 1);
      if (remaining == 0) return false;
      if (ticket.compare_exchange_weak(t, t - 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
        index = count - int64_t(remaining);
        return true;
      }
    }
  }
  void work(int member) {
    for (int64_t i; take(i);) {
      (*item)(i, member);
      done.fetch_add(1, std::memory_order_acq_rel);
    }
  }
};

Team::Team(Pool& pool, int threads) : members_(std::max(1, threads)) {
  if (members_ == 1) return;
  state_ = std::make_shared<State>();
  try {
    for (int m = 1; m < members_; m++) pool.post([state = state_, m] { help(state, m); }, members_ - 1);
  } catch (const std::system_error&) {
    // No helper can be had: the caller does all the work.
  }
}

Team::~Team() {
  if (!state_) return;
  state_->finished.store(true, std::memory_order_release);
  std::unique_lock<std::mutex> lock(state_->mutex);
  state_->closed = true;
  state_->left.wait(lock, [this] { return state_->inside == 0; });
}

void Team::help(const std::shared_ptr<State>& state, int member) {
  {
    std::lock_guard<std::mutex> lock(state->mutex);
    if (state->closed) return;
    state->inside++;
  }
  int spins = 0;
  while (!state->finished.load(std::memory_order_acquire)) {
    const int64_t before = state->done.load(std::memory_order_relaxed);
    state->work(member);
    if (state->done.load(std::memory_order_relaxed) != before) spins = 0;
    pause(spins);
  }
  std::lock_guard<std::mutex> lock(state->mutex);
  state->inside--;
  state->left.notify_all();
}

void Team::run(int64_t count, const Item& item) {
  if (!state_) {
    for (int64_t i = 0; i < count; i++) item(i, 0);
    return;
  }
  if (count == 0) return;
  State& s = *state_;
  s.item = &item;
  s.count = count;
  s.done.store(0, std::memory_order_relaxed);
  const uint64_t phase = (s.ticket.load(std::memory_order_relaxed) >> State::phase_shift) + 1;
  s.ticket.store(phase << State::phase_shift | uint64_t(count), std::memory_order_release);
  s.work(0);
  for (int spins = 0; s.done.load(std::memory_order_acquire) != count;) pause(spins);
}

}  // namespace diralign
