// Rows of logits for the tests of the row kernels: the 16-bit formats by their definition, rows in
// exact memory, buffers between guards, and what sums are held to.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>
#include "backends/cpu/kernels.h"
#include "check.h"

namespace kernel_rows {

using namespace diralign;
using namespace diralign::cpu;

constexpr float infinity = std::numeric_limits<float>::infinity(),
                nan_value = std::numeric_limits<float>::quiet_NaN();
constexpr Dtype dtypes[] = {Dtype::float32, Dtype::float16, Dtype::bfloat16};

inline std::vector<const KernelSet*> kernel_sets() {
  std::vector<const KernelSet*> sets;
  for (const char* isa : {"baseline", "avx2", "avx512"})
    if (const KernelSet* set = find_kernel_set(isa)) sets.push_back(set);
  return sets;
}
inline float from_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline uint32_t to_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

// The 16-bit formats by their definition.
struct Format {
  int fraction_bits, bias;
  int exponent_bits() const { return 15 - fraction_bits; }
  uint16_t infinity_bits() const { return uint16_t(((1 << exponent_bits()) - 1) << fraction_bits); }

  double decode(uint16_t bits) const {
    const int exponent = bits >> fraction_bits & ((1 << exponent_bits()) - 1),
              fraction = bits & ((1 << fraction_bits) - 1);
    const double sign = bits >> 15 ? -1 : 1;
    if (exponent == (1 << exponent_bits()) - 1) return fraction ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * std::ldexp(double(fraction), 1 - bias - fraction_bits);
    return sign * std::ldexp(1 + std::ldexp(double(fraction), -fraction_bits), exponent - bias);
  }
  /// The nearest number, the one with an even last bit of two that are as near; by search, no bit
  /// trick in common with the kernels.
  uint16_t encode(float x) const {
    const uint16_t sign = std::signbit(x) ? 0x8000 : 0, top = infinity_bits();
    const double magnitude = std::fabs(double(x));
    uint16_t low = 0, high = top;  // decode(low) <= magnitude < decode(high)
    if (magnitude == INFINITY) return uint16_t(sign | top);
    while (high - low > 1) {
      const uint16_t middle = uint16_t((low + high) / 2);
      (decode(middle) <= magnitude ? low : high) = middle;
    }
    // Past the largest number, its neighbour stands where the next one would be.
    const double above = high == top ? std::ldexp(1.0, (1 << exponent_bits()) - 1 - bias)
                                     : decode(high),
                 below = decode(low);
    const double to_low = magnitude - below, to_high = above - magnitude;
    const bool up = to_high < to_low || (to_high == to_low && high % 2 == 0);
    return uint16_t(sign | (up ? high : low));
  }
  bool is_nan(uint16_t bits) const { return (bits & 0x7fff) > infinity_bits(); }
};
constexpr Format float16 = {10, 15}, bfloat16 = {7, 127};
inline const Format& format(Dtype d) { return d == Dtype::float16 ? float16 : bfloat16; }

/// A row of logits of one dtype and its exact values. Allocated to the element, so that
/// AddressSanitizer sees an access past it; `offset` elements come before it.
struct Row {
  Dtype dtype;
  std::unique_ptr<char[]> memory;
  char* data;
  std::vector<double> values;

  Row(Dtype d, const std::vector<float>& logits, int64_t offset = 0)
      : dtype(d),
        memory(new char[(logits.size() + size_t(offset)) * dtype_bytes(d)]),
        data(memory.get() + size_t(offset) * dtype_bytes(d)) {
    for (size_t i = 0; i < logits.size(); i++) {
      if (d == Dtype::float32) {
        std::memcpy(data + 4 * i, &logits[i], 4);
        values.push_back(double(logits[i]));
      } else {
        const uint16_t sign = std::signbit(logits[i]) ? 0x8000 : 0;
        const uint16_t bits = std::isnan(logits[i]) ? uint16_t(sign | format(d).infinity_bits() | 1)
                                                    : format(d).encode(logits[i]);
        std::memcpy(data + 2 * i, &bits, 2);
        values.push_back(format(d).decode(bits));
      }
    }
  }
};

inline std::vector<float> normal_logits(int64_t n, double spread, uint64_t seed) {
  check::Random random(seed);
  std::vector<float> logits;
  for (int64_t i = 0; i < n; i++) logits.push_back(float(spread * random.normal()));
  return logits;
}

inline bool same_sums(const RowSums& a, const RowSums& b) {
  auto same = [](auto x, auto y) {
    return check::same_bits(x, y) || (std::isnan(x) && std::isnan(y));
  };
  return same(a.label, b.label) && same(a.anchor, b.anchor) && same(a.top, b.top) &&
         same(a.sum, b.sum) && same(a.moment, b.moment);
}

/// Relative error of a block's float32 sums: 16 additions in each lane, the exponential, and the
/// rounding of the differences.
constexpr double sum_bound = 6e-7;

/// Holds the sums against their definition; `weights` are exp(value - shift).
/// Returns the relative error.
inline double check_sums(const RowSums& s, const std::vector<double>& values, int64_t vocab,
                         int64_t label, const std::vector<double>& weights, double shift,
                         const char* what) {
  double sum = 0;
  double max = -std::numeric_limits<float>::max();
  for (int64_t i = 0; i < vocab; i++) {
    if (i == label) continue;
    sum += weights[size_t(i)];
    max = std::max(max, values[size_t(i)]);
  }
  CHECK(double(s.label) == values[size_t(label)], "%s: V %lld label %lld", what, (long long)vocab,
        (long long)label);
  CHECK(double(s.top) == max, "%s: V %lld label %lld: max %g, not %g", what, (long long)vocab,
        (long long)label, double(s.top), max);
  CHECK(std::isfinite(s.anchor) && s.anchor <= s.top && s.top - s.anchor <= 4,
        "%s: anchor %g, top %g", what, double(s.anchor), double(s.top));
  const double value = s.sum * std::exp(double(s.anchor) - shift);
  if (sum == 0) {
    CHECK(s.sum == 0, "%s: V %lld label %lld", what, (long long)vocab, (long long)label);
    return 0;
  }
  const double error = std::fabs(value - sum) / sum;
  CHECK(error <= sum_bound, "%s: V %lld label %lld: off by %.3g", what, (long long)vocab,
        (long long)label, error);
  return error;
}

inline std::vector<double> exponentials(const std::vector<double>& values, double shift) {
  std::vector<double> e;
  for (double x : values) e.push_back(std::exp(x - shift));
  return e;
}
inline double largest(const std::vector<double>& values) {
  return *std::max_element(values.begin(), values.end());
}

/// First, last, and around the edges of blocks and vectors.
inline std::vector<int64_t> interesting_labels(int64_t vocab) {
  std::vector<int64_t> all;
  for (int64_t y : {int64_t{0}, vocab / 3, int64_t{511}, int64_t{512}, int64_t{1023}, int64_t{1024},
                    (vocab - 1) / 512 * 512 - 1, (vocab - 1) / 512 * 512, vocab - 1})
    if (y >= 0 && y < vocab && std::find(all.begin(), all.end(), y) == all.end()) all.push_back(y);
  return all;
}

/// A buffer of T between guards that nothing may touch.
template <class T>
struct Guarded {
  static constexpr size_t guard = 128;
  std::vector<unsigned char> bytes;
  size_t offset, size;
  Guarded(size_t n, size_t offset_elements)
      : bytes((n + offset_elements) * sizeof(T) + 2 * guard + 64, 0xa5),
        offset(offset_elements * sizeof(T)),
        size(n * sizeof(T)) {}
  /// `offset` past a multiple of 64 bytes.
  unsigned char* start() {
    const uintptr_t base =
        (reinterpret_cast<uintptr_t>(bytes.data()) + guard + 63) & ~uintptr_t{63};
    return reinterpret_cast<unsigned char*>(base) + offset;
  }
  T* data() { return reinterpret_cast<T*>(start()); }
  bool intact() {
    for (unsigned char* p = bytes.data(); p < start(); p++)
      if (*p != 0xa5) return false;
    for (unsigned char* p = start() + size; p < bytes.data() + bytes.size(); p++)
      if (*p != 0xa5) return false;
    return true;
  }
};

}  // namespace kernel_rows
