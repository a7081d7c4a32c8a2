// The row kernels, for the instruction set of the including translation unit.
//
// A row is summed in blocks of 512: 32 float32 partial sums, folded in a fixed order, added up in float64. The exponentials are
// relative to a reference point that starts as the first block's maximum and moves only when a block rises above it by more than
// `reference_slack`: the running maximum need not be exact for the sums to be, so a block is read once, and the rare block that
// moves it is simply done again. The fixed 32 lanes make the sums independent of alignment and of the vector width.
#pragma once
#include <cmath>
#include "kernels.h"
#include "simd.h"

namespace {

using diralign::OtherLogits;
using diralign::cpu::block_elements;

constexpr int lanes = 32;
constexpr int vectors = lanes / width;

/// With terms up to e^4 above the reference, a difference of logits still rounds to better than 2^-22.
constexpr float reference_slack = 4;

inline float fold(const Floats (&v)[vectors]) {
  float x[lanes];
  std::memcpy(x, v, sizeof x);
  for (int half = lanes / 2; half; half /= 2)
    for (int i = 0; i < half; i++) x[i] += x[i + half];
  return x[0];
}

inline float largest(const Floats (&v)[vectors]) {
  Floats m = v[0];
  for (int k = 1; k < vectors; k++) m = larger(v[k], m);
  return largest(m);
}

template <class T>
T minus_infinity();
template <>
inline float minus_infinity() { return -INFINITY; }
template <>
inline Bfloat16 minus_infinity() { return {0xff80}; }
template <>
inline Float16 minus_infinity() { return {0xfc00}; }

/// The blocks of a row with the label's entry, and what lies past the end, at -inf. Only the two blocks concerned are copies.
template <class T>
struct Blocks {
  const T* row;
  int64_t vocab, label_block, last;
  T label_copy[block_elements], last_copy[block_elements];

  Blocks(const T* x, int64_t n, int64_t label) : row(x), vocab(n), label_block(label / block_elements), last((n - 1) / block_elements) {
    const int64_t start = last * block_elements, rest = n - start;
    std::memcpy(last_copy, x + start, size_t(rest) * sizeof(T));
    for (int64_t i = rest; i < block_elements; i++) last_copy[i] = minus_infinity<T>();
    if (label_block == last) {
      last_copy[label - start] = minus_infinity<T>();
    } else {
      std::memcpy(label_copy, x + label_block * block_elements, sizeof label_copy);
      label_copy[label % block_elements] = minus_infinity<T>();
    }
  }
  const T* operator[](int64_t b) const { return b == last ? last_copy : b == label_block ? label_copy : row + b * block_elements; }
  /// Whole lanes: short rows need not pay for a full block.
  int64_t elements(int64_t b) const { return b == last ? (vocab - last * block_elements + lanes - 1) / lanes * lanes : block_elements; }
};

template <class T>
inline float block_max(const T* block, int64_t n) {
  Floats m[vectors];
  for (Floats& v : m) v = splat(-FLT_MAX);
  for (int64_t j = 0; j < n; j += lanes)
    for (int k = 0; k < vectors; k++) m[k] = larger(load(block + j + k * width), m[k]);
  return largest(m);
}

/// The running sums of a row; moving the reference rescales them.
struct Running {
  OtherLogits sums;

  explicit Running(float first_max) : sums{first_max, first_max, 0, 0} {}
  bool must_move(float max) const { return max > sums.reference + reference_slack; }
  void move(float reference) {
    const double shift = double(sums.reference) - double(reference), factor = std::exp(shift);
    sums.moment = sums.sum == 0 ? 0 : (sums.moment + sums.sum * shift) * factor;
    sums.sum *= factor;
    sums.reference = reference;
  }
};

template <bool with_moment, class T>
inline float add_block(const T* block, int64_t n, Running& row) {
  Floats top[vectors], sum[vectors] = {}, moment[vectors] = {};
  for (Floats& v : top) v = splat(-FLT_MAX);
  const Floats reference = splat(row.sums.reference);
  for (int64_t j = 0; j < n; j += lanes) {
    for (int k = 0; k < vectors; k++) {
      const Floats x = load(block + j + k * width);
      top[k] = larger(x, top[k]);
      const Floats d = x - reference, e = exp(d);
      sum[k] += e;
      if constexpr (with_moment) moment[k] += d < exp_underflow ? Floats{} : e * d;
    }
  }
  const float max = largest(top);
  if (row.must_move(max)) return max;
  row.sums.sum += double(fold(sum));
  if constexpr (with_moment) row.sums.moment += double(fold(moment));
  return max;
}

template <bool with_moment, class T>
OtherLogits reduce(const void* x, int64_t vocab, int64_t label) {
  const Blocks<T> blocks(static_cast<const T*>(x), vocab, label);
  Running row(block_max(blocks[0], blocks.elements(0)));
  for (int64_t b = 0; b <= blocks.last; b++) {
    const float max = add_block<with_moment>(blocks[b], blocks.elements(b), row);
    if (row.must_move(max)) {
      row.move(max);
      add_block<with_moment>(blocks[b], blocks.elements(b), row);
    }
    row.sums.max = max > row.sums.max ? max : row.sums.max;
  }
  return row.sums;
}

/// Here a block is overwritten as it is read, so it cannot be done again: its maximum is taken one block ahead, in the same loop.
inline float exp_block(const float* block, float* out, int64_t n, const float* next, int64_t next_n, Running& row) {
  Floats top[vectors], sum[vectors] = {};
  for (Floats& v : top) v = splat(-FLT_MAX);
  const Floats reference = splat(row.sums.reference);
  auto step = [&](int64_t j) {
    for (int k = 0; k < vectors; k++) {
      const Floats e = exp(load(block + j + k * width) - reference);
      store(out + j + k * width, e);
      sum[k] += e;
    }
  };
  int64_t j = 0;
  for (; j < n && j < next_n; j += lanes) {
    for (int k = 0; k < vectors; k++) top[k] = larger(load(next + j + k * width), top[k]);
    step(j);
  }
  for (; j < n; j += lanes) step(j);
  row.sums.sum += double(fold(sum));
  return largest(top);
}

OtherLogits negative_softmax_in_place(float* x, int64_t vocab, int64_t label, float* block_references) {
  const Blocks<float> blocks(x, vocab, label);
  const float target = x[label];
  float next_max = block_max(blocks[0], blocks.elements(0));
  Running row(next_max);
  alignas(64) float last_out[block_elements];
  for (int64_t b = 0; b <= blocks.last; b++) {
    if (row.must_move(next_max)) row.move(next_max);
    row.sums.max = next_max > row.sums.max ? next_max : row.sums.max;
    block_references[b] = row.sums.reference;
    const bool more = b < blocks.last;
    next_max = exp_block(blocks[b], b == blocks.last ? last_out : x + b * block_elements, blocks.elements(b), more ? blocks[b + 1] : nullptr,
                         more ? blocks.elements(b + 1) : 0, row);
  }
  const diralign::RowStatistics statistics = diralign::row_statistics(row.sums, target);
  for (int64_t b = 0; b <= blocks.last; b++) {
    const float factor = float(-std::exp(double(block_references[b]) - double(statistics.max)) / statistics.normalizer);
    float* out = b == blocks.last ? last_out : x + b * block_elements;
    for (int64_t j = 0; j < blocks.elements(b); j += width) store(out + j, load(out + j) * factor);
  }
  std::memcpy(x + blocks.last * block_elements, last_out, size_t(vocab - blocks.last * block_elements) * sizeof(float));
  return row.sums;
}

template <class T>
void scaled_exp(const void* row, void* output, int64_t vocab, float shift, float factor, bool past_caches) {
  const T* x = static_cast<const T*>(row);
  T* out = static_cast<T*>(output);
  const Floats s = splat(shift), f = splat(factor);
  auto partial = [&](int64_t from, int64_t n) {
    T in[width] = {}, rounded[width];
    std::memcpy(in, x + from, size_t(n) * sizeof(T));
    store(rounded, f * exp(load(in) - s));
    std::memcpy(out + from, rounded, size_t(n) * sizeof(T));
  };
  int64_t j = 0;
  if (past_caches) {
    const int64_t head = int64_t((64 - (reinterpret_cast<uintptr_t>(out) & 63)) & 63) / int64_t(sizeof(T));
    for (; j < head && j < vocab; j += width) partial(j, (head < vocab ? head : vocab) - j < width ? (head < vocab ? head : vocab) - j : width);
    j = head < vocab ? head : vocab;
    for (; j + width <= vocab; j += width) stream(out + j, f * exp(load(x + j) - s));
    stream_fence();
  } else {
    for (; j + width <= vocab; j += width) store(out + j, f * exp(load(x + j) - s));
  }
  if (j < vocab) partial(j, vocab - j);
}

// One element through the vector conversions, so that there is one definition of each.
template <class T>
float load_one(const void* row, int64_t index) {
  T in[width] = {};
  in[0] = static_cast<const T*>(row)[index];
  return load(in)[0];
}
template <class T>
void store_one(void* row, int64_t index, float value) {
  T out[width];
  store(out, splat(value));
  static_cast<T*>(row)[index] = out[0];
}

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
  for (int64_t j = 0; j < n; j++) store_one<T>(y, j, x[j]);
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
  return {reduce<false, T>, reduce<true, T>, scaled_exp<T>, sizeof(T) == 4 ? negative_softmax_in_place : nullptr,
          load_one<T>, store_one<T>, exp_array, round_array<T>};
}

constexpr diralign::cpu::KernelSet make_kernel_set(const char* isa) {
  return {isa, {row_kernels<float>(), row_kernels<Float16>(), row_kernels<Bfloat16>()}, {read_loop, scale_loop}};
}

}  // namespace
