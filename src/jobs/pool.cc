#include "pool.h"
#include <algorithm>
#include <exception>
#if defined(__linux__)
#include <pthread.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace diralign {

namespace {

/// Whose thread this is, if it is a pool's.
thread_local const Pool* own_pool = nullptr;

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

Pool::~Pool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& t : threads_) t.join();
}

uint64_t Pool::post(std::function<void()> task, int threads, int copies) {
  const size_t most = size_t(threads) + (own_pool == this ? 1 : 0);
  auto run = std::make_shared<const std::function<void()>>(std::move(task));
  std::unique_lock<std::mutex> lock(mutex_);
  const uint64_t id = ++last_task_;
  tasks_.emplace(id, Queued{std::move(run), copies});
  waiting_ += copies;
  try {
    for (; idle_ < waiting_ && threads_.size() < most; idle_++) {
      threads_.emplace_back([this] { work(); });
#if defined(__linux__)
      pthread_setname_np(threads_.back().native_handle(),
                         "diralign");  // as top and debuggers show it
#endif
    }
  } catch (const std::exception&) {
    if (threads_.empty()) {
      waiting_ -= copies;
      tasks_.erase(id);
      throw;
    }
    // A process at its limit makes do with the threads there are.
  }
  lock.unlock();
  for (int i = 0; i < copies; i++) wake_.notify_one();
  return id;
}

int Pool::withdraw(uint64_t task) {
  std::map<uint64_t, Queued>::node_type
      found;  // destroyed without the lock: what the task holds may be large
  std::lock_guard<std::mutex> lock(mutex_);
  found = tasks_.extract(task);
  if (!found) return 0;
  waiting_ -= found.mapped().copies;
  return found.mapped().copies;
}

Pool::Counts Pool::counts() {
  std::lock_guard<std::mutex> lock(mutex_);
  return {int(threads_.size()), idle_, waiting_};
}

void Pool::work() {
  own_pool = this;
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    const auto first = tasks_.begin();
    std::shared_ptr<const std::function<void()>> task = first->second.run;
    if (--first->second.copies == 0) tasks_.erase(first);
    waiting_--;
    idle_--;
    lock.unlock();
    (*task)();
    task.reset();
    lock.lock();
    idle_++;
  }
}

struct Team::State {
  // Items left in the low bits, the phase above them: an item is taken by a compare-and-swap, so
  // that a helper that slept through a phase cannot take one of it.
  static constexpr int phase_shift = 40;
  std::atomic<uint64_t> ticket{0};
  std::atomic<int64_t> done{0};
  std::atomic<bool> finished{false};
  // Of the current phase; read only between taking an item and reporting it done.
  const Item* item = nullptr;
  int64_t count = 0;

  std::mutex mutex;
  std::condition_variable left;
  int joined = 0;
  int inside = 0;

  bool take(int64_t& index) {
    uint64_t t = ticket.load(std::memory_order_acquire);
    for (;;) {
      const uint64_t remaining = t & ((uint64_t{1} << phase_shift) - 1);
      if (remaining == 0) return false;
      if (ticket.compare_exchange_weak(t, t - 1, std::memory_order_acq_rel,
                                       std::memory_order_acquire)) {
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

Team::Team(Pool& pool, int threads) : pool_(pool), members_(std::max(1, threads)) {
  if (members_ == 1) return;
  state_ = std::make_shared<State>();
  try {
    helpers_ = pool.post([state = state_] { help(state); }, members_ - 1, members_ - 1);
  } catch (const std::exception&) {
    // No helper can be had: the caller does all the work.
  }
}

Team::~Team() {
  if (!state_) return;
  // A helper that comes later than this does nothing.
  state_->finished.store(true, std::memory_order_release);
  pool_.withdraw(helpers_);
  std::unique_lock<std::mutex> lock(state_->mutex);
  state_->left.wait(lock, [this] { return state_->inside == 0; });
}

void Team::help(const std::shared_ptr<State>& state) {
  int member;
  {
    std::lock_guard<std::mutex> lock(state->mutex);
    member = ++state->joined;
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
