// Bytes between the devices of ranks, without a way through their hosts.
#pragma once
#include <functional>
#include "backends/device.h"

namespace diralign {

/// Exchanges in device memory, in the order of a stream. Ranks have agreed on each before it
/// begins. One that fails, or does not end before the deadline, is given up, and the carrier with
/// it: DistributedError, now and later.
class DeviceCarrier {
 public:
  /// Whether whoever waits has no time left.
  using GivenUp = std::function<bool()>;

  virtual ~DeviceCarrier() = default;
  virtual int device() const = 0;
  /// Every rank's bytes, by rank; enqueued.
  virtual void all_gather(Stream stream, const void* mine, void* all, size_t bytes,
                          const GivenUp& given_up) = 0;
  /// Pieces of so many bytes, of which piece r goes to rank r, and what every rank had for this
  /// one; enqueued.
  virtual void all_to_all(Stream stream, const void* mine, void* theirs, size_t piece,
                          const GivenUp& given_up) = 0;
  /// Returns when the stream is past what is enqueued.
  virtual void wait(Stream stream, const GivenUp& given_up) = 0;
  /// On every rank, when nothing is under way.
  virtual void close() = 0;
};

}  // namespace diralign
