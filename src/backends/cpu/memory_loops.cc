#include "memory_loops.h"
#include <algorithm>
#include <atomic>
#include <cstring>
#include "kernels.h"

namespace diralign {

void run_memory_loop(Pool& pool, MemoryLoop kind, const float* source, float* target,
                     int64_t elements, int threads) {
  const cpu::LoopKernels& loops = cpu::kernel_set().loops;
  constexpr int64_t step = 32000;
  static std::atomic<float> sink;  // the sums must not be optimised away
  const int64_t items = (elements + step - 1) / step;
  Team team(pool, int(std::min<int64_t>(threads, items)));
  team.run(items, [&](int64_t item, int) {
    const int64_t first = item * step, n = std::min(step, elements - first);
    switch (kind) {
      case MemoryLoop::read:
        sink.store(loops.read(source + first, n), std::memory_order_relaxed);
        break;
      case MemoryLoop::scale: loops.scale(target + first, n, 1.0f); break;
      case MemoryLoop::copy:
        std::memcpy(target + first, source + first, size_t(n) * sizeof(float));
        break;
    }
  });
}

}  // namespace diralign
