// How rows of logits are cut into the parts that blocks work on.
#pragma once
#include <cstdint>

namespace diralign::cuda {

constexpr uint32_t threads = 256;
constexpr uint32_t warps = threads / 32;
/// Vectors of a part held in registers by each thread, all loaded before the first is used: what
/// keeps enough bytes in flight.
constexpr uint32_t max_steps = 8;

/// How rows of a vocabulary are cut; a function of the vocabulary and the type alone.
struct RowCut {
  uint32_t parts;  ///< per row
  uint32_t steps;  ///< vectors per thread in each part
};
inline RowCut cut_row(uint32_t vocab, uint32_t element_bytes) {
  const uint32_t step = threads * 16 / element_bytes, steps = (vocab + step - 1) / step,
                 parts = (steps + max_steps - 1) / max_steps;
  return {parts, (steps + parts - 1) / parts};
}

}  // namespace diralign::cuda
