// Memory of all ranks of a communicator, where one machine has them all. What is small goes through
// it: a library of MPI touches so many lines for an exchange that it takes ten times as long when
// the logits have driven them out of the caches.
#pragma once
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include "communicator.h"

namespace diralign {

/// Carries one all-gather of a communicator after another. A rank writes to its two buffers in
/// turns: it comes back to one when the exchange between has ended, which every rank begins after
/// it has read what was there.
class SharedMemory {
 public:
  /// Of a rank, in one exchange.
  static constexpr size_t most_bytes = size_t{256} << 10;

  /// Every rank's bytes, by rank; all ranks call it, with as many bytes.
  using Gather = std::function<void(const void* mine, void* all, size_t bytes)>;
  /// Null, on every rank alike, where they have none in common.
  static std::unique_ptr<SharedMemory> make(int rank, int size, const Gather& gather);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  static bool carries(const Transfer& transfer) {
    return transfer.kind == Transfer::Kind::all_gather && transfer.piece <= most_bytes;
  }
  /// What the transfer has is sent once those before it have ended.
  void begin(std::shared_ptr<const Transfer> transfer);
  /// Whether every rank's bytes have arrived, and are received. Throws where they are not as many.
  bool try_end(Transfer& transfer);

 private:
  struct Slot {
    alignas(64) std::atomic<uint64_t> sent;  ///< exchanges
    uint64_t bytes[2];
    alignas(64) char buffers[2][most_bytes];
  };

  SharedMemory(void* slots, int rank, int size)
      : slots_(static_cast<Slot*>(slots)), rank_(rank), size_(size) {}

  void send(const Transfer& transfer);

  Slot* const slots_;  // by rank
  const int rank_, size_;
  uint64_t sent_ = 0;                                    // exchanges
  std::deque<std::shared_ptr<const Transfer>> to_come_;  // the first was sent
};

}  // namespace diralign
