// What the parts of the emulator share; nothing for kernels or tests.
#pragma once
#include <cstddef>
#include <cstdint>
#include "execution.h"

namespace simt {

constexpr unsigned max_multiprocessors = 4;  ///< of a device: 64 blocks in all
/// How many such blocks a multiprocessor holds at a time.
unsigned blocks_per_multiprocessor(unsigned threads, size_t dynamic_shared_bytes);

struct Launch {
  const void* kernel;
  dim3 grid, block;
  size_t shared_bytes;
  Schedule schedule;
  const Body* body;
  unsigned cluster = 1;  ///< blocks of one, consecutive in x
};

/// The multiprocessors of one device, used by one thread.
class Machine;
Machine* create_machine(unsigned multiprocessors);
void destroy_machine(Machine* machine);
/// Runs the kernel to its end on the calling thread.
void run(Machine& machine, const Launch& launch);

/// A line of execution of its own for the race detector: what runs in it is ordered against other
/// threads by `release` and `acquire` only, whichever thread runs it. Without ThreadSanitizer it is
/// nothing.
class Timeline {
 public:
  Timeline();
  ~Timeline();
  Timeline(const Timeline&) = delete;
  Timeline& operator=(const Timeline&) = delete;
  template <class Work>
  void with(const Work& work) {
    void* const before = enter();
    work();
    leave(before);
  }

 private:
  void* enter();
  void leave(void* before);
  void* fiber_;
};

}  // namespace simt
