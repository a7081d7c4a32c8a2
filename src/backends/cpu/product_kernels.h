// The three matrix products of an output layer, for the instruction set of the including
// translation unit.
//
// Operands are packed in panels: `tile_rows` rows of the left one, `tile_columns` columns of the
// right one, their values of one step of the inner dimension side by side. A tile of the result
// stays in registers over `depth` steps. Every element of a result is summed in an order that
// depends on the inner dimension alone: neither on its place in a tile, nor on how the work is cut.
#pragma once
#include <utility>
#include "row_kernels.h"

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

  /// A panel from `count` lines whose elements go along the inner dimension.
  template <int panel, class T>
  static void pack_transposed(const Lines<T>& source, int64_t line, int64_t count, int64_t first,
                              int64_t k, float* out) {
    pack_squares<panel>(count, k, reinterpret_cast<uint32_t*>(out),
                        [&](int64_t q, int64_t p, int64_t n) {
                          const T* x = source(line + q) + first + p;
                          __builtin_prefetch(x + 4 * width);
                          return (Words)(n == width ? load(x) : load_part(x, n));
                        });
  }

  /// All panels of a block, from `k` lines whose elements go along the panels: line by line,
  /// because the lines may be pages apart.
  template <int panel, class T>
  static void pack_copied(const Lines<T>& source, int64_t line, int64_t k, int64_t first,
                          int64_t count, float* out) {
    constexpr int64_t vectors = (panel + width - 1) / width, whole = vectors * width;
    for (int64_t p = 0; p < k; p++) {
      const T* x = source(line + p) + first;
      float* to = out + p * panel;
      for (int64_t j = 0; j < count; j += panel, to += k * panel) {
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

/// The product of two packed blocks. `by_rows`: the right block is gone through for each panel of
/// the left one, so that the result is written along its rows; otherwise the other way around.
template <class Panels>
void multiply_blocks(const typename Panels::Packed* a, int64_t rows,
                     const typename Panels::Packed* b, int64_t columns, int64_t k, float* c,
                     int64_t stride, bool accumulate, bool by_rows) {
  const int64_t padded = Panels::padded(k), row_tiles = (rows + tile_rows - 1) / tile_rows,
                column_tiles = (columns + tile_columns - 1) / tile_columns;
  const int64_t outer = by_rows ? row_tiles : column_tiles,
                inner = by_rows ? column_tiles : row_tiles;
  for (int64_t o = 0; o < outer; o++) {
    for (int64_t n = 0; n < inner; n++) {
      const int64_t i = (by_rows ? o : n) * tile_rows, j = (by_rows ? n : o) * tile_columns;
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

inline int64_t least(int64_t x, int64_t y) { return x < y ? x : y; }

template <class Packed>
struct Scratch {
  Packed *a, *b;
  explicit Scratch(void* memory) : a(static_cast<Packed*>(memory)), b(a + block_rows * depth) {}
  static constexpr size_t bytes = size_t(block_rows + block_columns) * depth * sizeof(Packed);
};

/// logits[i, v] = sum over k of hidden[i, k] weight[v, k], plus bias[v], for all rows and v in
/// [first, last).
template <class Panels, class T>
void logits(const RowsView& hidden, int64_t rows, const void* weight, const void* bias,
            int64_t hidden_size, int64_t first, int64_t last, float* out, int64_t stride,
            void* memory) {
  const Scratch<typename Panels::Packed> scratch(memory);
  const Lines<T> left = lines<T>(hidden), right = lines<T>(weight, hidden_size);
  for (int64_t v = first; v < last; v += block_columns) {
    const int64_t columns = least(block_columns, last - v);
    for (int64_t p = 0; p < hidden_size; p += depth) {
      const int64_t k = least(depth, hidden_size - p), padded = Panels::padded(k);
      for (int64_t j = 0; j < columns; j += tile_columns)
        Panels::template pack_transposed<tile_columns>(right, v + j, columns - j, p, k,
                                                       scratch.b + j * padded);
      for (int64_t i = 0; i < rows; i += block_rows) {
        const int64_t m = least(block_rows, rows - i);
        for (int64_t q = 0; q < m; q += tile_rows)
          Panels::template pack_transposed<tile_rows>(left, i + q, m - q, p, k,
                                                      scratch.a + q * padded);
        multiply_blocks<Panels>(scratch.a, m, scratch.b, columns, k, out + i * stride + v, stride,
                                p > 0, false);
      }
    }
    if (bias) {
      const T* b = static_cast<const T*>(bias) + v;
      for (int64_t i = 0; i < rows; i++) {
        float* row = out + i * stride + v;
        for (int64_t j = 0; j < columns; j++) row[j] += load_one<T>(b, j);
      }
    }
  }
}

/// out[i, h] = sum over v of gradient[i, v] weight[v, h], for all rows and h in [first, last).
template <class Panels, class G, class T>
void hidden_gradient(const void* gradient, int64_t gradient_stride, int64_t rows, int64_t vocab,
                     const void* weight, int64_t hidden_size, int64_t first, int64_t last,
                     float* out, void* memory) {
  const Scratch<typename Panels::Packed> scratch(memory);
  const Lines<G> left = lines<G>(gradient, gradient_stride);
  const Lines<T> right = lines<T>(weight, hidden_size);
  for (int64_t h = first; h < last; h += block_columns) {
    const int64_t columns = least(block_columns, last - h);
    for (int64_t p = 0; p < vocab; p += depth) {
      const int64_t k = least(depth, vocab - p), padded = Panels::padded(k);
      Panels::template pack_copied<tile_columns>(right, p, k, h, columns, scratch.b);
      for (int64_t i = 0; i < rows; i += block_rows) {
        const int64_t m = least(block_rows, rows - i);
        for (int64_t q = 0; q < m; q += tile_rows)
          Panels::template pack_transposed<tile_rows>(left, i + q, m - q, p, k,
                                                      scratch.a + q * padded);
        multiply_blocks<Panels>(scratch.a, m, scratch.b, columns, k, out + i * hidden_size + h,
                                hidden_size, p > 0, false);
      }
    }
  }
}

/// out[v, h] (+)= sum over i of gradient[i, v] hidden[i, h], for v in [first, last) and all h.
template <class Panels, class G, class T>
void weight_gradient(const void* gradient, int64_t gradient_stride, int64_t rows,
                     const RowsView& hidden, int64_t hidden_size, int64_t first, int64_t last,
                     bool accumulate, float* out, void* memory) {
  const Scratch<typename Panels::Packed> scratch(memory);
  const Lines<G> left = lines<G>(gradient, gradient_stride);
  const Lines<T> right = lines<T>(hidden);
  for (int64_t h = 0; h < hidden_size; h += block_columns) {
    const int64_t columns = least(block_columns, hidden_size - h);
    for (int64_t p = 0; p < rows; p += depth) {
      const int64_t k = least(depth, rows - p);
      Panels::template pack_copied<tile_columns>(right, p, k, h, columns, scratch.b);
      for (int64_t v = first; v < last; v += block_rows) {
        const int64_t m = least(block_rows, last - v);
        Panels::template pack_copied<tile_rows>(left, p, k, v, m, scratch.a);
        multiply_blocks<Panels>(scratch.a, m, scratch.b, columns, k, out + v * hidden_size + h,
                                hidden_size, accumulate || p > 0, true);
      }
    }
  }
}

/// out[v] (+)= sum over i of gradient[i, v] for v in [first, last).
template <class G>
void bias_gradient(const void* gradient, int64_t stride, int64_t rows, int64_t first, int64_t last,
                   bool accumulate, float* out) {
  const Lines<G> lines_of = lines<G>(gradient, stride);
  constexpr int64_t strip = 16 * width;
  for (int64_t v = first; v < last; v += strip) {
    const int64_t n = least(strip, last - v);
    Floats sum[strip / width] = {};
    for (int64_t i = 0; i < rows; i++) {
      const G* x = lines_of(i) + v;
      if (n == strip) {
        for (int64_t q = 0; q < strip / width; q++) sum[q] += load(x + q * width);
      } else {
        G part[strip] = {};
        std::memcpy(part, x, size_t(n) * sizeof(G));
        for (int64_t q = 0; q < strip / width; q++) sum[q] += load(part + q * width);
      }
    }
    float values[strip];
    std::memcpy(values, sum, sizeof values);
    for (int64_t j = 0; j < n; j++) out[v + j] = accumulate ? out[v + j] + values[j] : values[j];
  }
}

/// A gradient narrower than its logits may take their place: it is written behind where it is read.
template <class G>
void softmax(const float* x, void* output, int64_t vocab, float shift, float factor) {
  scaled_exp<float, G>(x, output, vocab, shift, factor, false);
}

template <class T>
void finish(const float* x, void* output, int64_t n, float factor, bool accumulate) {
  T* out = static_cast<T*>(output);
  const Floats f = splat(factor);
  int64_t j = 0;
  for (; j + width <= n; j += width) {
    const Floats scaled = load(x + j) * f;
    store(out + j, accumulate ? scaled + load(out + j) : scaled);
  }
  for (; j < n; j++)
    store_one<T>(out, j, accumulate ? x[j] * factor + load_one<T>(out, j) : x[j] * factor);
}

/// `G`: in between the products.
template <class Panels, class T, class G>
constexpr diralign::cpu::ProductKernels product_kernels() {
  return {sizeof(G) == 4 ? diralign::Dtype::float32 : diralign::Dtype::bfloat16,
          Scratch<typename Panels::Packed>::bytes,
          tile_rows,
          tile_columns,
          logits<Panels, T>,
          hidden_gradient<Panels, G, T>,
          weight_gradient<Panels, G, T>,
          bias_gradient<G>,
          softmax<G>,
          transformed_gradient<float, G>,
          store_one<G>,
          finish<T>};
}

}  // namespace
