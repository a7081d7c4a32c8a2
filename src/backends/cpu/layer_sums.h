// The gradients of a layer while they are added up: those of the weight and of the bias in units of
// a power of two, which grows with the largest coefficient, so that float32 has room for all.
#pragma once
#include <utility>
#include "layer_products.h"

namespace diralign::cpu {

class LayerSums {
 public:
  LayerSums(Job& job, LayerProducts& products)
      : job_(job),
        products_(products),
        out_(job.gradients.layer),
        vocab_(job.batch.vocab),
        hidden_size_(job.layer->hidden_size),
        weight_started_(out_.weight.accumulate),
        bias_started_(out_.bias.accumulate) {}

  /// Makes room in the units of the sums for a coefficient, before anything of its size is added.
  void fit(double largest) {
    const int needed = gradient_exponent(largest);
    if (needed <= exponent_) return;
    shift(exponent_ - needed);
    exponent_ = needed;
  }
  /// A row's coefficients in the units of the sums.
  RowCoefficients scaled(const RowCoefficients& c) const {
    return exponent_ == 0
               ? c
               : RowCoefficients{scaled(c.align), scaled(c.likelihood), scaled(c.entropy)};
  }
  /// One in the units of the sums.
  double unit() const { return std::ldexp(1.0, exponent_); }

  /// From the gradients of the logits of some rows.
  void add_products(const RowRange& range, const float* z) {
    if (out_.weight.data)
      products_.weight_gradient(range, z, std::exchange(weight_started_, true), weight());
    if (out_.bias.data)
      products_.bias_gradient(range, z, std::exchange(bias_started_, true), bias());
  }
  /// From sums of their own, times a factor.
  void add_scaled(const float* weight_sum, const float* bias_sum, double factor) {
    fit(std::fabs(factor));
    const float f = float(scaled(factor));
    if (out_.weight.data)
      products_.add_scaled(weight_sum, weight(), vocab_ * hidden_size_, f,
                           std::exchange(weight_started_, true));
    if (out_.bias.data)
      products_.add_scaled(bias_sum, bias(), vocab_, f, std::exchange(bias_started_, true));
  }

  /// The gradient of the hidden state of scored row i, times a factor. Uses `x` up.
  void write_hidden(int64_t i, float* x, double factor) const {
    const int64_t row = job_.rows.scored[size_t(i)].row;
    const int exponent = gradient_exponent(std::fabs(factor));
    products_.shift_floats(x, hidden_size_, exponent);
    const float rest = float(std::ldexp(factor, -exponent));
    if (rest == 0) zero_hidden_row(row);
    else products_.kernels().finish(x, hidden_row(row), hidden_size_, rest, out_.hidden.accumulate);
  }
  /// Of scored rows [begin, end), whose coefficients are 0.
  void zero_hidden(int64_t begin, int64_t end) const {
    for (int64_t i = begin; i < end; i++) zero_hidden_row(job_.rows.scored[size_t(i)].row);
  }

  /// At the end: out of the units of the sums, and zeros where nothing was written.
  void finish() {
    shift(exponent_);
    for (const int64_t row : job_.rows.ignored) zero_hidden_row(row);
    if (weight()) zero_words(out_.weight, weight_started_, hidden_size_);
    if (bias()) zero_words(out_.bias, bias_started_, 1);
  }

 private:
  double scaled(double coefficient) const { return std::ldexp(finite(coefficient), -exponent_); }
  void shift(int exponent) {
    if (out_.weight.data && weight_started_)
      products_.shift(weight(), vocab_ * hidden_size_, exponent);
    if (out_.bias.data && bias_started_) products_.shift(bias(), vocab_, exponent);
  }
  /// Where nothing was written: all words, or, with padding past a vocabulary, that.
  void zero_words(const LayerGradients::Buffer& gradient, bool started, int64_t floats) const {
    if (gradient.zeroed || gradient.accumulate) return;
    const int64_t first = started ? vocab_ : 0;
    std::memset(static_cast<float*>(gradient.data) + first * floats, 0,
                size_t((job_.batch.row_stride - first) * floats) * sizeof(float));
  }

  float* weight() const { return static_cast<float*>(out_.weight.data); }
  float* bias() const { return static_cast<float*>(out_.bias.data); }
  size_t hidden_bytes() const { return size_t(hidden_size_) * job_.batch.element_bytes(); }
  char* hidden_row(int64_t row) const {
    return static_cast<char*>(out_.hidden.data) + size_t(row) * hidden_bytes();
  }
  void zero_hidden_row(int64_t row) const {
    if (out_.hidden.data && !out_.hidden.accumulate && !out_.hidden.zeroed)
      std::memset(hidden_row(row), 0, hidden_bytes());
  }

  Job& job_;
  LayerProducts& products_;
  const LayerGradients& out_;
  int64_t vocab_, hidden_size_;
  bool weight_started_, bias_started_;  ///< there is something to add to
  int exponent_ = 0;
};

}  // namespace diralign::cpu
