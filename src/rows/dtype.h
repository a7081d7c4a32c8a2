// Storage types of logits and their gradient.
#pragma once
#include <cstddef>
#include "names.h"

namespace diralign {

#define DIRALIGN_DTYPES(X) X(float32) X(float16) X(bfloat16)
DIRALIGN_NAMED_ENUM(Dtype, dtype_names, DIRALIGN_DTYPES);
inline constexpr int dtype_count = 3;
inline size_t dtype_bytes(Dtype d) { return d == Dtype::float32 ? 4 : 2; }
/// What is smaller rounds to a subnormal number, or to 0: half a subnormal unit below the smallest
/// normal one, but of float32 itself.
inline float least_normal(Dtype d) {
  return d == Dtype::float32   ? 0x1p-126f
         : d == Dtype::float16 ? 0x1p-14f - 0x1p-25f
                               : 0x1p-126f - 0x1p-134f;
}

}  // namespace diralign
