// Operands of matrix products in panels, and the tiles of a result, for the instruction set of the
// including translation unit: `tile_rows` rows of the left operand, `tile_columns` columns of the
// right one, their values of one step of the inner dimension side by side. A tile of the result
// stays in registers over `depth` steps.
#pragma once
#include <utility>
#include "kernels.h"
#include "simd.h"

namespace {

using diralign::cpu::RowsView;

#if defined(__AVX512F__)
constexpr int tile_rows = 12;  // 24 accumulators of 32 registers
#else
constexpr int tile_rows = 6;  // 12 of 16
#endif
constexpr int tile_columns = 2 * width;
#if defined(__AVX2__) && !defined(__AVX512F__)
// A right panel takes half of the first-level cache, and a left one is packed once for 512 columns,
// as with the wider tiles: 101 to 107 GFLOP/s a core for all products, where 512 and 16 gave 90 to
// 107 and the arithmetic allows 117.
constexpr int64_t depth = 256, panels = 32;
#else
constexpr int64_t depth = 512, panels = 16;
#endif
constexpr int64_t block_rows = 16 * tile_rows;
constexpr int64_t block_columns = panels * tile_columns;

/// Lines of contiguous elements, neighbours or not.
template <class T>
struct Lines {
  const T* data;
  int64_t stride;
  const int64_t* index;  // null: in order
  const T* operator()(int64_t line) const { return data + (index ? index[line] : line) * stride; }
};

template <class T>
Lines<T> lines(const RowsView& rows) {
  return {static_cast<const T*>(rows.data), rows.stride, rows.index};
}
/// Consecutive lines of a matrix.
template <class T>
Lines<T> lines(const void* data, int64_t stride) {
  return {static_cast<const T*>(data), stride, nullptr};
}

/// One exchange of a transposition: the lanes whose number has the bit `step` of `a` change places
/// with the others of `b`.
template <int step, int... lane>
inline void exchange(Words& a, Words& b, std::integer_sequence<int, lane...>) {
  const Words x = a, y = b;
  a = __builtin_shufflevector(x, y, (lane & step ? width + lane - step : lane)...);
  b = __builtin_shufflevector(x, y, (lane & step ? width + lane : lane + step)...);
}
template <int step>
inline void exchange_all(Words (&rows)[width]) {
#pragma GCC unroll 16
  for (int i = 0; i < width; i++)
    if (!(i & step))
      exchange<step>(rows[i], rows[i + step], std::make_integer_sequence<int, width>());
}
/// A square of words, in registers.
inline void transpose(Words (&rows)[width]) {
  exchange_all<1>(rows);
  exchange_all<2>(rows);
  if constexpr (width > 4) exchange_all<4>(rows);
  if constexpr (width > 8) exchange_all<8>(rows);
}

/// Panel elements, or pairs of them, from lines that go along the inner dimension: `steps` of each,
/// of `count` lines and zeros for those that are missing. `load_line(line, step, n)` gives the
/// words from `step` on, of which n are there.
template <int panel, class Load>
inline void pack_squares(int64_t count, int64_t steps, uint32_t* out, Load&& load_line) {
  for (int64_t p = 0; p < steps; p += width) {
    const int64_t n = steps - p < width ? steps - p : width;
    for (int64_t first = 0; first < panel; first += width) {
      const int64_t lines = panel - first < width ? panel - first : width;
      Words square[width];
#pragma GCC unroll 16
      for (int64_t q = 0; q < width; q++)
        square[q] = q < lines && first + q < count ? load_line(first + q, p, n) : Words{};
      transpose(square);
      uint32_t* to = out + p * panel + first;
      if (n == width) {
#pragma GCC unroll 16
        for (int64_t s = 0; s < width; s++)
          std::memcpy(to + s * panel, &square[s], size_t(lines) * sizeof(uint32_t));
      } else {
        for (int64_t s = 0; s < n; s++)
          std::memcpy(to + s * panel, &square[s], size_t(lines) * sizeof(uint32_t));
      }
    }
  }
}

/// The first `n` elements of a vector; the others are 0.
template <class Vector, class Element>
inline Vector part_of(const Element* x, int64_t n) {
  Element part[sizeof(Vector) / sizeof(Element)] = {};
  std::memcpy(part, x, size_t(n) * sizeof(Element));
  return unaligned<Vector>(part);
}

// How operands lie in a panel, and what a tile does with one step of the inner dimension.

/// Everything is float32 once packed.
struct Float32Panels {
  using Packed = float;
  /// Steps of the inner dimension as they lie in a panel.
  static int64_t padded(int64_t k) { return k; }

  /// A panel from `count` lines whose elements go along the inner dimension. Those of the next
  /// panel are fetched, where it is narrow: the processor has seen too little of a line to do so
  /// itself.
  template <int panel, class T>
  static void pack_transposed(const Lines<T>& source, int64_t line, int64_t count, int64_t first,
                              int64_t k, float* out) {
    pack_squares<panel>(count, k, reinterpret_cast<uint32_t*>(out),
                        [&](int64_t q, int64_t p, int64_t n) {
                          const T* x = source(line + q) + first + p;
                          __builtin_prefetch(panel == tile_rows && q + panel < count
                                                 ? source(line + q + panel) + first + p
                                                 : x + 4 * width);
                          return (Words)(n == width ? load(x) : load_part(x, n));
                        });
  }

  /// All panels of a block, from `k` lines whose elements go along the panels: line by line,
  /// because the lines may be pages apart, and with those fetched that come a few thousand elements
  /// later.
  template <int panel, class T>
  static void pack_copied(const Lines<T>& source, int64_t line, int64_t k, int64_t first,
                          int64_t count, float* out) {
    constexpr int64_t vectors = (panel + width - 1) / width, whole = vectors * width;
    const int64_t ahead = 1 + 4096 / count;
    for (int64_t p = 0; p < k; p++) {
      const T* x = source(line + p) + first;
      const T* next = p + ahead < k ? source(line + p + ahead) + first : x;
      float* to = out + p * panel;
      for (int64_t j = 0; j < count; j += panel, to += k * panel) {
        __builtin_prefetch(next + j);
        T part[whole] = {};
        const T* from = x + j;
        if (count - j < whole) {
          std::memcpy(part, from, size_t(count - j < panel ? count - j : panel) * sizeof(T));
          from = part;
        }
        Floats values[vectors];
        for (int64_t q = 0; q < vectors; q++) values[q] = load(from + q * width);
        std::memcpy(to, values, panel * sizeof(float));
      }
    }
  }

  static void multiply(int64_t k, const float* a, const float* b, Floats (&sum)[tile_rows][2]) {
    for (int64_t p = 0; p < k; p++, a += tile_rows, b += tile_columns) {
      const Floats b0 = load(b), b1 = load(b + width);
#pragma GCC unroll 16
      for (int i = 0; i < tile_rows; i++) {
        const Floats x = splat(a[i]);
        sum[i][0] += x * b0;
        sum[i][1] += x * b1;
      }
    }
  }
};

#if defined(__AVX512BF16__)
/// bfloat16 stays as it is, two steps of the inner dimension side by side in a word, for the
/// processor's dot product of pairs; sums are float32.
struct Bfloat16Panels {
  using Packed = uint32_t;
  static int64_t padded(int64_t k) { return (k + 1) / 2; }

  template <int panel>
  static void pack_transposed(const Lines<Bfloat16>& source, int64_t line, int64_t count,
                              int64_t first, int64_t k, uint32_t* out) {
    pack_squares<panel>(count, padded(k), out, [&](int64_t q, int64_t p, int64_t) {
      const Bfloat16* x = source(line + q) + first + 2 * p;
      __builtin_prefetch(x + 8 * width);
      const int64_t left = k - 2 * p;
      return left >= 2 * width ? unaligned<Words>(x) : part_of<Words>(x, left);
    });
  }

  template <int panel>
  static void pack_copied(const Lines<Bfloat16>& source, int64_t line, int64_t k, int64_t first,
                          int64_t count, uint32_t* out) {
    constexpr int64_t vectors = (panel + width - 1) / width, whole = vectors * width;
    const int64_t words = padded(k);
    for (int64_t p = 0; p < k; p += 2) {
      const Bfloat16* x = source(line + p) + first;
      const Bfloat16* y = p + 1 < k ? source(line + p + 1) + first : nullptr;
      uint32_t* to = out + p / 2 * panel;
      for (int64_t j = 0; j < count; j += panel, to += words * panel) {
        Bfloat16 copies[2][whole] = {};
        const Bfloat16 *even = x + j, *odd = y ? y + j : copies[1];
        if (count - j < whole) {
          const size_t bytes = size_t(count - j < panel ? count - j : panel) * sizeof(Bfloat16);
          std::memcpy(copies[0], even, bytes);
          if (y) std::memcpy(copies[1], odd, bytes);
          even = copies[0];
          odd = copies[1];
        }
        Words pairs[vectors];
        for (int64_t q = 0; q < vectors; q++)
          pairs[q] = widen(unaligned<Halves>(even + q * width)) |
                     widen(unaligned<Halves>(odd + q * width)) << 16;
        std::memcpy(to, pairs, panel * sizeof(uint32_t));
      }
    }
  }

  static void multiply(int64_t k, const uint32_t* a, const uint32_t* b,
                       Floats (&sum)[tile_rows][2]) {
    for (int64_t p = 0; p < k; p++, a += tile_rows, b += tile_columns) {
      const __m512bh b0 = (__m512bh)unaligned<Words>(b), b1 = (__m512bh)unaligned<Words>(b + width);
#pragma GCC unroll 16
      for (int i = 0; i < tile_rows; i++) {
        const __m512bh x = (__m512bh)(a[i] + Words{});
        sum[i][0] = (Floats)_mm512_dpbf16_ps((__m512)sum[i][0], x, b0);
        sum[i][1] = (Floats)_mm512_dpbf16_ps((__m512)sum[i][1], x, b1);
      }
    }
  }
};
#endif

/// A tile of the result, or its valid corner.
inline void add_tile(const Floats (&sum)[tile_rows][2], float* c, int64_t stride, int64_t rows,
                     int64_t columns, bool accumulate) {
  if (rows >= tile_rows && columns >= tile_columns) {
#pragma GCC unroll 16
    for (int i = 0; i < tile_rows; i++) {
      for (int j = 0; j < 2; j++) {
        float* at = c + i * stride + j * width;
        store(at, accumulate ? load(at) + sum[i][j] : sum[i][j]);
      }
    }
    return;
  }
  float values[tile_rows][tile_columns];
  std::memcpy(values, sum, sizeof values);
  for (int64_t i = 0; i < rows && i < tile_rows; i++)
    for (int64_t j = 0; j < columns && j < tile_columns; j++) {
      float& at = c[i * stride + j];
      at = accumulate ? at + values[i][j] : values[i][j];
    }
}

/// The product of two packed blocks: a right panel stays in the first-level cache while the left
/// ones go by.
template <class Panels>
void multiply_blocks(const typename Panels::Packed* a, int64_t rows,
                     const typename Panels::Packed* b, int64_t columns, int64_t k, float* c,
                     int64_t stride, bool accumulate) {
  const int64_t padded = Panels::padded(k);
  for (int64_t j = 0; j < columns; j += tile_columns) {
    for (int64_t i = 0; i < rows; i += tile_rows) {
      float* tile = c + i * stride + j;
      if (accumulate)
        for (int64_t q = 0; q < tile_rows && i + q < rows; q++) {
          __builtin_prefetch(tile + q * stride, 1);
          __builtin_prefetch(tile + q * stride + 16, 1);
        }
      Floats sum[tile_rows][2] = {};
      Panels::multiply(padded, a + i * padded, b + j * padded, sum);
      add_tile(sum, tile, stride, rows - i, columns - j, accumulate);
    }
  }
}

}  // namespace
