// The gradient of logits in host memory: where its rows are, and what of it is 0.
#pragma once
#include <algorithm>
#include <cstring>
#include "job.h"

namespace diralign {

class HostGradient {
 public:
  HostGradient(const Batch& batch, const GradientOutput& output) : batch_(batch), output_(output) {}

  void* row(int64_t r) const { return at(r * batch_.row_stride); }
  /// A row that has no gradient.
  void zero_row(int64_t r) const {
    if (!output_.zeroed) std::memset(row(r), 0, batch_.row_bytes());
  }
  /// Columns between the vocabulary and the next row belong to no class.
  void zero_padding(int64_t r) const {
    if (output_.zeroed) return;
    const int64_t begin = r * batch_.row_stride + batch_.vocab,
                  end = std::min((r + 1) * batch_.row_stride, output_.elements);
    if (end > begin) std::memset(at(begin), 0, size_t(end - begin) * batch_.element_bytes());
  }

 private:
  void* at(int64_t element) const {
    return static_cast<char*>(output_.data) + size_t(element) * batch_.element_bytes();
  }

  const Batch& batch_;
  const GradientOutput& output_;
};

}  // namespace diralign
