// What the memory allows, with the kernels' own threads and instructions: the denominators of the
// benchmarks.
#pragma once
#include <cstdint>
#include "jobs/pool.h"

namespace diralign {

enum class MemoryLoop { read, scale, copy };

/// One pass over `elements` floats: a sum of `source`, `target` scaled in place by 1, or memcpy
/// from `source` to `target`.
void run_memory_loop(Pool& pool, MemoryLoop kind, const float* source, float* target,
                     int64_t elements, int threads);

}  // namespace diralign
