// Processes that exchange bytes, as a job sees them. Whoever carries the bytes never adds anything
// up, so that no bit of a result depends on how they travel.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>
#include "jobs/memory.h"

namespace diralign {

/// What callers see of a failure among processes. `code`: one of ts/errors.ts.
struct DistributedError : std::runtime_error {
  DistributedError(const char* code, const std::string& message)
      : std::runtime_error(message), code(code) {}
  const char* code;
};

/// What tests change, before there is a communicator.
struct ForTests {
  size_t longest_piece = size_t{1} << 30;  ///< bytes that go at once: MPI counts them in an int
  bool funneled = false;      ///< MPI is called by one thread, as if it did not allow for more
  bool shares_memory = true;  ///< of ranks on one machine
  uint32_t protocol = 0;      ///< of the exchanges of calls, in place of this version's
};
inline ForTests for_tests;

/// One exchange, in memory of its own: where nobody waits for it any more, a late message may still
/// be written there.
class Transfer {
 public:
  enum class Kind {
    all_gather,  ///< every rank's piece, by rank
    all_to_all   ///< one piece for each rank; piece r goes to rank r
  };

  /// `mine` may be null: then `sent` is filled later. `ended`, if there is one, is called once, by
  /// whoever ends it.
  Transfer(Kind kind, int ranks, const void* mine, size_t piece,
           std::function<void(Transfer&)> ended = {});

  /// What a library is given at once: all, or, of pieces longer than an int counts, some bytes of
  /// each.
  struct Stretch {
    const char* sent;
    char* received;
    size_t bytes;  ///< of each piece
  };
  Stretch stretch();
  /// When a stretch has arrived: whether another one follows.
  bool advance();

  /// The first call counts.
  void end(std::exception_ptr error = nullptr);
  bool has_ended();
  /// Returns once it has ended, or false after `most`. Throws what it ended with.
  bool wait(std::chrono::nanoseconds most);
  /// Null: none. Of a transfer that has ended.
  std::exception_ptr error() const { return error_; }
  /// Whether `ended` was given, so that nobody need wait.
  bool is_followed() const { return is_followed_; }

  const Kind kind;
  const size_t piece;  ///< bytes, as many on all ranks
  Bytes sent, received;

 private:
  const size_t ranks_;
  const bool is_followed_;
  size_t stretch_, done_ = 0;              ///< of each piece
  Bytes sent_stretch_, received_stretch_;  ///< where pieces are longer than a stretch
  std::function<void(Transfer&)> on_end_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool has_ended_ = false;
  std::exception_ptr error_;
};

/// Carries out transfers, each as soon as it begins.
class Carrier {
 public:
  virtual ~Carrier() = default;
  /// Returns at once; the transfer ends when it has what every rank sent. A failure may be thrown,
  /// or be what the transfer ends with.
  virtual void begin(const std::shared_ptr<Transfer>& transfer) = 0;
  /// As Transfer::wait; the thread that waits may be of help.
  virtual bool wait(Transfer& transfer, std::chrono::milliseconds most) {
    return transfer.wait(most);
  }
};

class Turn;

/// A place among ranks. It outlives the calls that use it.
class Communicator {
 public:
  Communicator(int rank, int size, std::chrono::milliseconds timeout)
      : rank(rank), size(size), timeout(timeout) {}
  virtual ~Communicator() = default;

  const int rank, size;
  const std::chrono::milliseconds timeout;  ///< of one exchange

  /// Every later exchange is refused: where one did not end, the next would meet its messages.
  void set_broken() { unusable_ = "is broken: an earlier exchange did not end"; }
  void set_closed() { unusable_ = "is closed"; }
  /// Throws ERR_DIRALIGN_ENGINE where it is broken or closed.
  void check_usable() const;

  /// How many calls it has seen: the same on every rank that made the same calls.
  uint64_t calls = 0;

 private:
  friend class Turn;
  std::atomic<const char*> unusable_{nullptr};
  std::deque<Turn*> queue_;
};

/// The place of a call in the line at each of its communicators. Calls on a communicator run one
/// after another, in the order in which they were made: exchanges of two would mix otherwise, and
/// differently on each rank.
class Turn {
 public:
  explicit Turn(std::vector<std::shared_ptr<Communicator>> communicators);
  /// Leaves.
  ~Turn();
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

  /// Once: joins every line at the same time, so that two calls cannot wait for each other, and
  /// calls `ready` when nobody is before it: at once, or on the thread of whoever leaves.
  void line_up(std::function<void()> ready);
  /// Lets the next go ahead.
  void leave();

 private:
  bool is_first() const;

  std::vector<std::shared_ptr<Communicator>> communicators_;
  std::function<void()> ready_;
};

}  // namespace diralign
