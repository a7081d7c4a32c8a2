// The three matrix products of an output layer, for the instruction set of the including
// translation unit, over blocks of packed panels (product_panels.h). Every element of a result is
// summed in an order that depends on the inner dimension alone: neither on its place in a tile, nor
// on how the work is cut.
#pragma once
#include "product_panels.h"
#include "row_gradients.h"

namespace {

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
                                p > 0);
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
                                hidden_size, p > 0);
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
                                hidden_size, accumulate || p > 0);
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
          block_columns,
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
