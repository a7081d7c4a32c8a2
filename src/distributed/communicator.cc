#include "communicator.h"
#include <algorithm>
#include <cstring>
#include <utility>
#include "timed_wait.h"

namespace diralign {

Transfer::Transfer(Kind kind, int ranks, const void* mine, size_t piece,
                   std::function<void(Transfer&)> ended)
    : kind(kind),
      piece(piece),
      sent(kind == Kind::all_gather ? piece : piece * size_t(ranks)),
      received(piece * size_t(ranks)),
      on_end_(std::move(ended)) {
  if (mine && !sent.empty()) std::memcpy(sent.data(), mine, sent.size());
}

void Transfer::end(std::exception_ptr error) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (has_ended_) return;
    has_ended_ = true;
    error_ = std::move(error);
  }
  wake_.notify_all();
  if (on_end_) std::exchange(on_end_, {})(*this);
}

bool Transfer::wait(std::chrono::milliseconds most) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (!wait_at_most(wake_, lock, most, [this] { return has_ended_; })) return false;
  if (error_) std::rethrow_exception(error_);
  return true;
}

void Communicator::check_usable() const {
  if (const char* const why = unusable_)
    throw DistributedError("ERR_DIRALIGN_ENGINE", std::string("the communicator ") + why);
}

namespace {
/// Of every line.
std::mutex line_mutex;
}  // namespace

Turn::Turn(std::vector<std::shared_ptr<Communicator>> communicators)
    : communicators_(std::move(communicators)) {}

void Turn::line_up(std::function<void()> ready) {
  bool first;
  {
    const std::lock_guard<std::mutex> lock(line_mutex);
    for (const auto& c : communicators_)
      if (std::find(c->queue_.begin(), c->queue_.end(), this) == c->queue_.end())
        c->queue_.push_back(this);
    first = is_first();
    if (!first) ready_ = std::move(ready);
  }
  if (first) ready();
}

Turn::~Turn() { leave(); }

bool Turn::is_first() const {
  return std::all_of(communicators_.begin(), communicators_.end(),
                     [this](const auto& c) { return c->queue_.front() == this; });
}

void Turn::leave() {
  std::vector<std::function<void()>> ready;
  {
    const std::lock_guard<std::mutex> lock(line_mutex);
    for (const auto& c : communicators_) {
      const auto own = std::find(c->queue_.begin(), c->queue_.end(), this);
      if (own == c->queue_.end()) continue;
      const bool was_first = own == c->queue_.begin();
      c->queue_.erase(own);
      if (!was_first || c->queue_.empty()) continue;
      Turn* const next = c->queue_.front();
      if (next->ready_ && next->is_first()) ready.push_back(std::exchange(next->ready_, {}));
    }
  }
  for (const auto& go : ready) go();
}

}  // namespace diralign
