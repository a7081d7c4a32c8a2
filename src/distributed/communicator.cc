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
      ranks_(size_t(ranks)),
      is_followed_(ended != nullptr),
      stretch_(piece),
      on_end_(std::move(ended)) {
  if (!sent.empty()) {
    if (mine) std::memcpy(sent.data(), mine, sent.size());
    else std::memset(sent.data(), 0, sent.size());  // pieces may be longer than what is filled in
  }
  if (piece <= for_tests.longest_piece) return;
  // Of all ranks together, a 16th of what one of them may send at once.
  stretch_ = std::max<size_t>(1, for_tests.longest_piece / 16 / ranks_);
  received_stretch_.resize(stretch_ * ranks_);
  if (kind == Kind::all_to_all) sent_stretch_.resize(stretch_ * ranks_);
}

Transfer::Stretch Transfer::stretch() {
  if (stretch_ == piece) return {sent.data(), received.data(), piece};
  const size_t bytes = std::min(stretch_, piece - done_);
  if (kind == Kind::all_gather) return {sent.data() + done_, received_stretch_.data(), bytes};
  for (size_t rank = 0; rank < ranks_; rank++)
    std::memcpy(sent_stretch_.data() + rank * bytes, sent.data() + rank * piece + done_, bytes);
  return {sent_stretch_.data(), received_stretch_.data(), bytes};
}

bool Transfer::advance() {
  if (stretch_ == piece) return false;
  const size_t bytes = std::min(stretch_, piece - done_);
  for (size_t rank = 0; rank < ranks_; rank++)
    std::memcpy(received.data() + rank * piece + done_, received_stretch_.data() + rank * bytes,
                bytes);
  done_ += bytes;
  return done_ < piece;
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

bool Transfer::has_ended() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return has_ended_;
}

bool Transfer::wait(std::chrono::nanoseconds most) {
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
