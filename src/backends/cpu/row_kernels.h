// The row kernels, for the instruction set of the including translation unit.
//
// A row is summed in blocks of 512: 32 float32 partial sums, added up in float64 and folded in a
// fixed order. The exponentials are relative to an anchor that starts as the first block's
// maximum and moves only when a block rises above it by more than `anchor_slack`: the running
// maximum need not be exact for the sums to be, so a block is read once, and the rare block that
// moves it is simply done again. The fixed 32 lanes make the sums independent of alignment, and
// their order independent of the vector width.
#pragma once
#include <cmath>
#include "kernels.h"
#include "simd.h"

namespace {

using diralign::RowSums;
using diralign::TransformFactors;
using diralign::cpu::block_elements;

constexpr int lanes = 32;
constexpr int vectors = lanes / width;

/// With terms up to e^4 above the anchor, a difference of logits still rounds to better than
/// 2^-22.
constexpr float anchor_slack = 4;

inline float largest(const Floats (&v)[vectors]) {
  Floats m = v[0];
  for (int k = 1; k < vectors; k++) m = larger(v[k], m);
  return largest(m);
}

inline bool any_above(const Floats (&v)[vectors], float limit) {
  Floats m = v[0];
  for (int k = 1; k < vectors; k++) m = larger(v[k], m);
  return any_above(m, limit);
}

/// The blocks' sums, added up lane by lane in float64 and folded once, at the end of the row.
struct LaneSums {
  Doubles sum[2 * vectors] = {};

  void add(const Floats (&v)[vectors]) {
    for (int k = 0; k < vectors; k++) {
      HalfFloats low, high;
      std::memcpy(&low, &v[k], sizeof low);
      std::memcpy(&high, reinterpret_cast<const char*>(&v[k]) + sizeof low, sizeof high);
      sum[2 * k] += __builtin_convertvector(low, Doubles);
      sum[2 * k + 1] += __builtin_convertvector(high, Doubles);
    }
  }
  void scale(double factor) {
    for (Doubles& s : sum) s *= Doubles{} + factor;
  }
  double fold() const {
    double x[lanes];
    std::memcpy(x, sum, sizeof x);
    for (int half = lanes / 2; half; half /= 2)
      for (int i = 0; i < half; i++) x[i] += x[i + half];
    return x[0];
  }
};

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

template <class T>
T minus_infinity();
template <>
inline float minus_infinity() {
  return -INFINITY;
}
template <>
inline Bfloat16 minus_infinity() {
  return {0xff80};
}
template <>
inline Float16 minus_infinity() {
  return {0xfc00};
}

/// The blocks of a row in order, with the label's entry, and what lies past the end, at -inf. Only
/// the two blocks concerned are copied, and only when their turn comes: an early touch of them
/// would start the row with cache misses.
template <class T>
struct Blocks {
  const T* row;
  int64_t vocab, label, label_block, last;
  T label_copy[block_elements], last_copy[block_elements];

  Blocks(const T* x, int64_t n, int64_t y)
      : row(x),
        vocab(n),
        label(y),
        label_block(y < 0 ? -1 : y / block_elements),
        last((n - 1) / block_elements) {}

  const T* block(int64_t b) {
    const T* source = row + b * block_elements;
    if (b != last && b != label_block) return source;
    T* copy = b == last ? last_copy : label_copy;
    const int64_t n = b == last ? vocab - b * block_elements : block_elements, padded = elements(b);
    std::memcpy(copy, source, size_t(n) * sizeof(T));
    for (int64_t i = n; i < padded; i++) copy[i] = minus_infinity<T>();
    if (b == label_block) copy[label - b * block_elements] = minus_infinity<T>();
    return copy;
  }
  /// Whole lanes: short rows need not pay for a full block.
  int64_t elements(int64_t b) const {
    return b == last ? (vocab - last * block_elements + lanes - 1) / lanes * lanes : block_elements;
  }
};

inline void clear_top(Floats (&top)[vectors]) {
  for (Floats& v : top) v = splat(-FLT_MAX);
}

// What becomes of the elements of a row before they are summed.

struct Plain {
  template <class T>
  Floats operator()(const T* p) const {
    return load(p);
  }
};
struct Scaled {
  Floats factor;
  template <class T>
  Floats operator()(const T* p) const {
    return load(p) * factor;
  }
};
inline diralign::Transformed<Floats> transform(Floats x, const TransformFactors& t) {
  return diralign::transformed(x, t, [](Floats z) { return exp(z); });
}
struct Capped {
  const TransformFactors& factors;
  template <class T>
  Floats operator()(const T* p) const {
    return transform(load(p), factors).y;
  }
};

template <class T, class Form>
inline void raise_top(const T* block, int64_t n, const Form& form, Floats (&top)[vectors]) {
  for (int64_t j = 0; j < n; j += lanes)
    for (int k = 0; k < vectors; k++) top[k] = larger(form(block + j + k * width), top[k]);
}

/// The running sums of a row.
struct Running {
  float anchor;
  LaneSums sum, moment;

  explicit Running(float first_max) : anchor(first_max) {}
  bool must_move(const Floats (&top)[vectors]) const {
    return any_above(top, anchor + anchor_slack);
  }
  void move(float to) {
    const double shift = double(anchor) - double(to), factor = std::exp(shift);
    for (int k = 0; k < 2 * vectors; k++)
      moment.sum[k] = diralign::moved_moment(sum.sum[k], moment.sum[k], shift, factor);
    sum.scale(factor);
    anchor = to;
  }
  RowSums result(float label, const Floats (&top)[vectors]) const {
    return {{anchor, largest(top), sum.fold(), moment.fold()}, label};
  }
};

/// Adds the block, unless its maximum calls for a move of the anchor first: then `top` says so
/// and nothing is added.
template <bool with_moment, class T, class Form>
inline bool add_block(const T* block, int64_t n, const Form& form, Floats (&top)[vectors],
                      Running& row) {
  Floats sum[vectors] = {}, moment[vectors] = {};
  const Floats anchor = splat(row.anchor);
  for (int64_t j = 0; j < n; j += lanes) {
    for (int k = 0; k < vectors; k++) {
      const Floats x = form(block + j + k * width);
      top[k] = larger(x, top[k]);
      const Floats d = x - anchor, e = exp(d);
      sum[k] += e;
      if constexpr (with_moment) moment[k] += d < exp_underflow ? Floats{} : e * d;
    }
  }
  if (row.must_move(top)) return false;
  row.sum.add(sum);
  if constexpr (with_moment) row.moment.add(moment);
  return true;
}

template <bool with_moment, class T, class Form>
RowSums reduce_row(const void* x, int64_t vocab, int64_t label, const Form& form) {
  Blocks<T> blocks(static_cast<const T*>(x), vocab, label);
  const T* block = blocks.block(0);
  Floats top[vectors];
  clear_top(top);
  raise_top(block, blocks.elements(0), form, top);
  Running row(largest(top));
  for (int64_t b = 0;;) {
    if (!add_block<with_moment>(block, blocks.elements(b), form, top, row)) {
      row.move(largest(top));
      add_block<with_moment>(block, blocks.elements(b), form, top, row);
    }
    if (b == blocks.last) break;
    block = blocks.block(++b);
  }
  if (label < 0) return row.result(0, top);
  T of_label[width] = {static_cast<const T*>(x)[label]};
  return row.result(form(of_label)[0], top);
}

template <bool with_moment, class T>
RowSums reduce(const void* x, int64_t vocab, int64_t label) {
  return reduce_row<with_moment, T>(x, vocab, label, Plain{});
}

template <bool with_moment, class T>
RowSums reduce_transformed(const void* x, int64_t vocab, int64_t label, const TransformFactors& t) {
  return t.capped ? reduce_row<with_moment, T>(x, vocab, label, Capped{t})
                  : reduce_row<with_moment, T>(x, vocab, label, Scaled{splat(t.factor)});
}
template <class T>
RowSums reduce_transformed(const void* x, int64_t vocab, int64_t label, const TransformFactors& t,
                           bool with_moment) {
  return with_moment ? reduce_transformed<true, T>(x, vocab, label, t)
                     : reduce_transformed<false, T>(x, vocab, label, t);
}

/// out = exp(block - anchor), summed, while `top` takes in the block after it.
inline void exp_block(const float* block, float* out, int64_t n, const float* next, int64_t next_n,
                      Floats (&top)[vectors], Running& row) {
  Floats sum[vectors] = {};
  const Floats anchor = splat(row.anchor);
  auto step = [&](int64_t j) {
    for (int k = 0; k < vectors; k++) {
      const Floats e = exp(load(block + j + k * width) - anchor);
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
  row.sum.add(sum);
}

/// Here a block is overwritten as it is read, so it cannot be done again: maxima are taken one
/// block ahead, in the same loop.
[[maybe_unused]] RowSums negative_softmax_in_place(float* x, int64_t vocab, int64_t label,
                                                   float* block_anchors) {
  Blocks<float> blocks(x, vocab, label);
  const float* block = blocks.block(0);
  float target = 0;
  Floats top[vectors];
  clear_top(top);
  raise_top(block, blocks.elements(0), Plain{}, top);
  Running row(largest(top));
  alignas(64) float last_out[block_elements];
  auto output = [&](int64_t b) { return b == blocks.last ? last_out : x + b * block_elements; };
  for (int64_t b = 0; b <= blocks.last; b++) {
    if (row.must_move(top)) row.move(largest(top));
    block_anchors[b] = row.anchor;
    if (b == blocks.label_block) target = x[label];  // about to be overwritten
    const bool more = b < blocks.last;
    const float* next = more ? blocks.block(b + 1) : nullptr;
    exp_block(block, output(b), blocks.elements(b), next, more ? blocks.elements(b + 1) : 0, top,
              row);
    block = next;
  }
  const RowSums sums = row.result(target, top);
  const diralign::RowStatistics statistics = diralign::row_statistics(sums);
  for (int64_t b = 0; b <= blocks.last; b++) {
    const Floats factor = splat(float(-std::exp(double(block_anchors[b]) - double(statistics.max)) /
                                      statistics.normalizer));
    float* out = output(b);
    for (int64_t j = 0; j < blocks.elements(b); j += width) store(out + j, load(out + j) * factor);
  }
  std::memcpy(x + blocks.last * block_elements, last_out,
              size_t(vocab - blocks.last * block_elements) * sizeof(float));
  return sums;
}

/// In units of 2^8: a block of the largest numbers there are, which masked words may have, must not
/// add up to infinity.
template <class T>
double sum_logits(const void* row, int64_t vocab) {
  constexpr float unit = 0x1p8f;
  const T* x = static_cast<const T*>(row);
  LaneSums all;
  double rest = 0;
  for (int64_t begin = 0; begin < vocab; begin += block_elements) {
    const int64_t end = vocab - begin < block_elements ? vocab : begin + block_elements;
    Floats sum[vectors] = {};
    int64_t j = begin;
    for (; j + lanes <= end; j += lanes)
      for (int k = 0; k < vectors; k++) sum[k] += load(x + j + k * width) * (1 / unit);
    all.add(sum);
    for (; j < end; j++) rest += double(load_one<T>(x, j));
  }
  return unit * all.fold() + rest;
}

/// The first `n` elements, fewer than a vector; the others are 0.
template <class T>
Floats load_part(const T* x, int64_t n) {
  T part[width] = {};
  std::memcpy(part, x, size_t(n) * sizeof(T));
  return load(part);
}

/// out = factor * exp(x - shift) for `n` elements, fewer than a vector.
template <class T, class Out>
void scaled_exp_part(const T* x, Out* out, int64_t n, Floats shift, Floats factor) {
  Out result[width];
  store(result, factor * exp(load_part(x, n) - shift));
  std::memcpy(out, result, size_t(n) * sizeof(Out));
}

/// Whole vectors; returns how many elements. Each form is a function of its own, or their constants
/// would compete for registers.
template <bool past_caches, class T, class Out>
[[gnu::noinline]] int64_t scaled_exp_vectors(const T* x, Out* out, int64_t n, float shift,
                                             float factor) {
  const Floats s = splat(shift), f = splat(factor);
  int64_t j = 0;
  for (; j + width <= n; j += width) {
    const Floats y = f * exp(load(x + j) - s);
    if constexpr (past_caches) {
      stream(out + j, y);
    } else {
      store(out + j, y);
    }
  }
  if constexpr (past_caches) stream_fence();
  return j;
}

/// out = entries(x), vector by vector.
template <class T, class Out, class Entries>
void write_entries(const void* row, void* output, int64_t vocab, const Entries& entries) {
  const T* x = static_cast<const T*>(row);
  Out* out = static_cast<Out*>(output);
  int64_t j = 0;
  for (; j + width <= vocab; j += width) store(out + j, entries(load(x + j)));
  if (j == vocab) return;
  Out last[width];
  store(last, entries(load_part(x + j, vocab - j)));
  std::memcpy(out + j, last, size_t(vocab - j) * sizeof(Out));
}

template <class T, class Out>
void transformed_gradient(const void* row, void* output, int64_t vocab, const TransformFactors& t,
                          const diralign::RowGradient& g) {
  const Floats shift = splat(g.shift), factor = splat(g.factor), bend = splat(g.bend);
  auto linear = [&](Floats d) { return diralign::bent_factor(d, factor, bend); };
  if (t.capped)
    return write_entries<T, Out>(row, output, vocab, [&](Floats x) {
      const diralign::Transformed<Floats> l = transform(x, t);
      const Floats d = l.y - shift;
      return linear(d) * (exp(d) * l.slope);
    });
  const Floats scale = splat(t.factor);
  if (g.bend != 0)
    return write_entries<T, Out>(row, output, vocab, [&](Floats x) {
      const Floats d = x * scale - shift;
      return linear(d) * (exp(d) * scale);
    });
  write_entries<T, Out>(row, output, vocab,
                        [&](Floats x) { return factor * (exp(x * scale - shift) * scale); });
}

template <class T>
void scaled_exp(const void* row, void* output, int64_t vocab, float shift, float factor,
                bool past_caches) {
  const T* x = static_cast<const T*>(row);
  T* out = static_cast<T*>(output);
  const Floats s = splat(shift), f = splat(factor);
  int64_t j = 0;
  if (past_caches) {
    // Streamed stores need aligned addresses, and whole cache lines to be worth it.
    const int64_t unaligned =
        int64_t((64 - (reinterpret_cast<uintptr_t>(out) & 63)) & 63) / int64_t(sizeof(T));
    const int64_t head = unaligned < vocab ? unaligned : vocab;
    for (; j < head; j += width)
      scaled_exp_part(x + j, out + j, head - j < width ? head - j : width, s, f);
    j = head + scaled_exp_vectors<true>(x + head, out + head, vocab - head, shift, factor);
  } else {
    j = scaled_exp_vectors<false>(x, out, vocab, shift, factor);
  }
  if (j < vocab) scaled_exp_part(x + j, out + j, vocab - j, s, f);
}

}  // namespace
