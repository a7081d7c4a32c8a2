// The kernels of one instruction set, as one object. Included by one translation unit for each.
#pragma once
#include "product_kernels.h"
#include "row_gradients.h"
#include "row_sums.h"

namespace {

void exp_array(const float* x, float* y, int64_t n) {
  for (int64_t j = 0; j < n; j += width) {
    float in[width] = {}, out[width];
    const size_t bytes = size_t(n - j < width ? n - j : width) * sizeof(float);
    std::memcpy(in, x + j, bytes);
    store(out, exp(load(in)));
    std::memcpy(y + j, out, bytes);
  }
}
template <class T>
void round_array(const float* x, void* y, int64_t n) {
  int64_t j = 0;
  for (; j + width <= n; j += width) store(static_cast<T*>(y) + j, load(x + j));
  for (; j < n; j++) store_one<T>(y, j, x[j]);
}
template <class T>
void widen_array(const void* x, float* y, int64_t n) {
  int64_t j = 0;
  for (; j + width <= n; j += width) store(y + j, load(static_cast<const T*>(x) + j));
  for (; j < n; j++) y[j] = load_one<T>(x, j);
}

float read_loop(const float* x, int64_t n) {
  Floats sum[4] = {};
  int64_t j = 0;
  for (; j + 4 * width <= n; j += 4 * width)
    for (int k = 0; k < 4; k++) sum[k] += load(x + j + k * width);
  float rest = 0;
  for (; j < n; j++) rest += x[j];
  const Floats all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  for (int i = 0; i < width; i++) rest += all[i];
  return rest;
}
void scale_loop(float* x, int64_t n, float factor) {
  const Floats f = splat(factor);
  int64_t j = 0;
  for (; j + width <= n; j += width) store(x + j, load(x + j) * f);
  for (; j < n; j++) x[j] *= factor;
}

template <class T>
constexpr diralign::cpu::RowKernels row_kernels() {
  return {reduce<false, T>,
          reduce<true, T>,
          scaled_exp<T, T>,
          reduce_transformed<T>,
          squares<T>,
          transformed_gradient<T, T>,
          sizeof(T) == 4 ? negative_softmax_in_place : nullptr,
          sum_logits<T>,
          load_one<T>,
          store_one<T>,
          round_array<T>,
          widen_array<T>,
          exp_array};
}

constexpr diralign::cpu::KernelSet make_kernel_set(const char* isa) {
  return {isa,
          {row_kernels<float>(), row_kernels<Float16>(), row_kernels<Bfloat16>()},
          {product_kernels<Float32Panels, float, float>(),
           product_kernels<Float32Panels, Float16, float>(),
           product_kernels<Float32Panels, Bfloat16, float>()},
          {read_loop, scale_loop}};
}

}  // namespace
