// Storage types of logits and their gradient.
#pragma once
#include <cstddef>

namespace diralign {

enum class Dtype { float32, float16, bfloat16 };
inline constexpr int dtype_count = 3;
inline size_t dtype_bytes(Dtype d) { return d == Dtype::float32 ? 4 : 2; }

}  // namespace diralign
