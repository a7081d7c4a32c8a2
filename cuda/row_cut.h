// How rows of logits are cut into the parts that blocks work on.
#pragma once
#include <algorithm>
#include <cstdint>
#include "tuning.h"

namespace diralign::cuda {

/// How rows of a vocabulary are cut; a function of the vocabulary, the type and the grid alone.
struct RowCut {
  uint32_t parts;  ///< per row
  uint32_t steps;  ///< vectors per thread in each part

  /// Of a part; the last of a row may have fewer.
  int64_t columns(uint32_t element_bytes) const {
    return int64_t(steps) * (threads * 16 / element_bytes);
  }
};
/// `grid`: no part reaches across a multiple of it, and where parts begin depends on it alone; a
/// multiple of the columns of a step, or 0 for none.
inline RowCut cut_row(uint32_t vocab, uint32_t element_bytes, uint32_t grid = 0) {
  const uint32_t step = threads * 16 / element_bytes;
  auto ratio_up = [](uint32_t a, uint32_t b) { return a / b + (a % b > 0); };
  if (grid > 0) {
    uint32_t steps = std::min(max_steps, grid / step);
    while (grid / step % steps > 0) steps--;
    return {ratio_up(vocab, steps * step), steps};
  }
  const uint32_t steps = ratio_up(vocab, step), parts = ratio_up(steps, max_steps);
  return {parts, ratio_up(steps, parts)};
}

}  // namespace diralign::cuda
