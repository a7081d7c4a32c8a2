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
#include <type_traits>
#include "exp_steps.h"
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

/// The blocks' sums, added up lane by lane in float64 and folded once, at the end of the row.
struct LaneSums {
  Doubles sum[2 * vectors] = {};

  /// Of values in units of `unit`.
  void add(const Floats (&v)[vectors], double unit = 1) {
    for (int k = 0; k < vectors; k++) {
      Doubles low, high;
      widen(v[k], low, high);
      sum[2 * k] += low * unit;
      sum[2 * k + 1] += high * unit;
    }
  }
  void scale(double factor) {
    for (Doubles& s : sum) s *= Doubles{} + factor;
  }
  double fold() const {
    Doubles rest[2 * vectors];
    std::memcpy(rest, sum, sizeof rest);
    for (int half = vectors; half; half /= 2)
      for (int k = 0; k < half; k++) rest[k] += rest[k + half];
    double x[width / 2];
    std::memcpy(x, rest, sizeof x);
    for (int half = width / 4; half; half /= 2)
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
    return b != last && b != label_block ? row + b * block_elements : copied(b);
  }
  [[gnu::noinline]] const T* copied(int64_t b) {
    const T* source = row + b * block_elements;
    T* copy = b == last ? last_copy : label_copy;
    const int64_t n = b == last ? vocab - b * block_elements : block_elements, padded = elements(b);
    std::memcpy(copy, source, size_t(n) * sizeof(T));
    for (int64_t i = n; i < padded; i++) copy[i] = minus_infinity<T>();
    if (b == label_block) copy[label - b * block_elements] = minus_infinity<T>();
    return copy;
  }
  /// Whether no element is masked.
  bool is_whole(int64_t b) const { return b != label_block && (b != last || vocab % lanes == 0); }
  /// Whole lanes: short rows need not pay for a full block.
  int64_t elements(int64_t b) const {
    return b == last ? (vocab - last * block_elements + lanes - 1) / lanes * lanes : block_elements;
  }
};

// What becomes of the elements of a row before they are summed.

struct Plain {
  Floats operator()(Floats x) const { return x; }
};
struct Scaled {
  Floats factor;
  Floats operator()(Floats x) const { return x * factor; }
};
inline diralign::Transformed<Floats> transform(Floats x, const TransformFactors& t) {
  return diralign::transformed(x, t, [](Floats z) { return exp(z); });
}
struct Capped {
  const TransformFactors& factors;
  Floats operator()(Floats x) const { return transform(x, factors).y; }
};

/// The next elements, in the order of load_two.
template <class T>
inline void load_lanes(const T* p, Floats (&x)[vectors]) {
  for (int k = 0; k < vectors; k += 2) load_two(p + k * width, x[k], x[k + 1]);
}

template <class T, class Form>
inline void raise_top(const T* block, int64_t n, const Form& form, Floats& top) {
  Floats tops[vectors];
  for (Floats& v : tops) v = top;
  for (int64_t j = 0; j < n; j += lanes) {
    Floats x[vectors];
    load_lanes(block + j, x);
    for (int k = 0; k < vectors; k++) tops[k] = larger(form(x[k]), tops[k]);
  }
  for (const Floats& v : tops) top = larger(v, top);
}

/// The running sums of a row.
struct Running {
  float anchor;
  LaneSums sum, moment;

  explicit Running(float first_max) : anchor(first_max) {}
  bool must_move(Floats top) const { return any_above(top, anchor + anchor_slack); }
  void move(float to) {
    const double shift = double(anchor) - double(to), factor = std::exp(shift);
    for (int k = 0; k < 2 * vectors; k++)
      moment.sum[k] = diralign::moved_moment(sum.sum[k], moment.sum[k], shift, factor);
    sum.scale(factor);
    anchor = to;
  }
  template <bool with_moment>
  RowSums result(float label, Floats top) const {
    return {{anchor, largest(top), sum.fold(), with_moment ? moment.fold() : 0}, label};
  }
};

/// Adds the block, unless its maximum calls for a move of the anchor first: then `top` says so
/// and nothing is added.
template <bool with_moment, class T, class Form>
inline bool add_block(const T* block, int64_t n, const Form& form, Floats& top, Running& row) {
  Floats sum[vectors] = {}, moment[vectors] = {};
  const Floats anchor = splat(row.anchor);
  for (int64_t j = 0; j < n; j += lanes) {
    Floats logit[vectors];
    load_lanes(block + j, logit);
    Floats d[vectors];
    for (int k = 0; k < vectors; k++) {
      const Floats x = form(logit[k]);
      d[k] = x - anchor;
      top = larger(x, top);
    }
    add_exps(sum, d);
    if constexpr (with_moment)
      for (int k = 0; k < vectors; k++)
        moment[k] += d[k] < exp_underflow ? Floats{} : exp(d[k]) * d[k];
  }
  if (row.must_move(top)) return false;
  row.sum.add(sum);
  if constexpr (with_moment) row.moment.add(moment);
  return true;
}

#if defined(__AVX2__)
/// Adds blocks of 16-bit elements by whole steps. That a block has an element so low that its power
/// wraps around shows when it is done; add_block then does it again. A NaN makes the sum one.
template <bool with_moment, class T>
struct NearBlocks {
  /// Blocks until the next attempt after one that failed: masked words are neighbours.
  static constexpr int64_t rest = 8;
  /// Ahead of the loop: the processor's own prefetches end at a page.
  static constexpr int64_t prefetch_bytes = 3072;
  StepAnchor near{0};
  int64_t next = 0;

  /// Whether the block was added; if it was tried, `top` takes it in.
  bool add(const Blocks<T>& blocks, int64_t b, const T* block, Floats& top, Running& row) {
    // Where all elements are positive, the least is not known, and 0 must be in reach.
    if (b < next || !blocks.is_whole(b) || std::fabs(row.anchor) > exp_steps_reach) return false;
    if (near.anchor != row.anchor) near = StepAnchor(row.anchor);
    Floats sum[vectors] = {}, moment[vectors] = {};
    BitRange<T> range(block);
    const int64_t n = blocks.elements(b);
    for (int64_t j = 0; j < n; j += lanes) {
      Floats x[vectors];
      load_lanes(block + j, x);
      for (int k = 0; k < lanes; k += 2 * width) range.add(block + j + k);
      add_step_exps<with_moment>(sum, moment, x, near);
      __builtin_prefetch(reinterpret_cast<const char*>(block + j) + prefetch_bytes);
    }
    const bool is_near = range.at_least(row.anchor - exp_steps_reach, top);
    if (!is_near) next = b + rest;
    if (!is_near || row.must_move(top)) return false;
    row.sum.add(sum, near.unit);
    if constexpr (with_moment) row.moment.add(moment, near.unit);
    return true;
  }
};
constexpr bool has_near_blocks = true;
#else
template <bool with_moment, class T>
struct NearBlocks;
constexpr bool has_near_blocks = false;
#endif
struct NoNearBlocks {
  template <class... Arguments>
  bool add(Arguments&&...) {
    return false;
  }
};

template <bool with_moment, class T, class Form>
RowSums reduce_row(const void* x, int64_t vocab, int64_t label, const Form& form) {
  Blocks<T> blocks(static_cast<const T*>(x), vocab, label);
  const T* block = blocks.block(0);
  Floats top = splat(-FLT_MAX);
  raise_top(block, blocks.elements(0), form, top);
  Running row(largest(top));
  std::conditional_t<has_near_blocks && sizeof(T) == 2 && std::is_same_v<Form, Plain>,
                     NearBlocks<with_moment, T>, NoNearBlocks>
      near;
  for (int64_t b = 0;;) {
    if (!near.add(blocks, b, block, top, row) &&
        (row.must_move(top) ||
         !add_block<with_moment>(block, blocks.elements(b), form, top, row))) {
      row.move(largest(top));
      add_block<with_moment>(block, blocks.elements(b), form, top, row);
    }
    if (b == blocks.last) break;
    block = blocks.block(++b);
  }
  if (label < 0) return row.result<with_moment>(0, top);
  return row.result<with_moment>(form(splat(load_one<T>(x, label)))[0], top);
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

template <class T, class Form>
double squares_of_row(const void* x, int64_t vocab, int64_t label, float max, const Form& form) {
  Blocks<T> blocks(static_cast<const T*>(x), vocab, label);
  const Floats at_most = splat(max);
  LaneSums all;
  for (int64_t b = 0; b <= blocks.last; b++) {
    const T* const block = blocks.block(b);
    Floats sum[vectors] = {};
    for (int64_t j = 0; j < blocks.elements(b); j += lanes) {
      Floats logit[vectors];
      load_lanes(block + j, logit);
      for (int k = 0; k < vectors; k++) {
        const Floats e = exp(form(logit[k]) - at_most);
        sum[k] += e * e;
      }
    }
    all.add(sum);
  }
  return all.fold();
}

template <class T>
double squares(const void* x, int64_t vocab, int64_t label, const TransformFactors& t, float max) {
  if (t.capped) return squares_of_row<T>(x, vocab, label, max, Capped{t});
  return squares_of_row<T>(x, vocab, label, max, Scaled{splat(t.factor)});
}

/// out = exp(block - anchor), summed, while `top` takes in the block after it.
inline void exp_block(const float* block, float* out, int64_t n, const float* next, int64_t next_n,
                      Floats& top, Running& row) {
  Floats sum[vectors] = {};
  const Floats anchor = splat(row.anchor);
  auto step = [&](int64_t j) {
    for (int k = 0; k < vectors; k++) {
      const Floats d = load(block + j + k * width) - anchor;
      store(out + j + k * width, exp(d));
      sum[k] = add_exp(sum[k], d);
    }
  };
  int64_t j = 0;
  for (; j < n && j < next_n; j += lanes) {
    for (int k = 0; k < vectors; k++) top = larger(load(next + j + k * width), top);
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
  Floats top = splat(-FLT_MAX);
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
  const RowSums sums = row.result<false>(target, top);
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
    for (; j + lanes <= end; j += lanes) {
      Floats logit[vectors];
      load_lanes(x + j, logit);
      for (int k = 0; k < vectors; k++) sum[k] += logit[k] * (1 / unit);
    }
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

/// out = entries(x) for two vectors.
template <bool past_caches, class T, class Out, class Entries>
inline void write_two(const T* x, Out* out, const Entries& entries) {
  Floats v[2];
  if constexpr (std::is_same_v<T, Out>) {
    load_two(x, v[0], v[1]);
    for (Floats& y : v) y = entries(y);
    store_two<past_caches>(out, v[0], v[1]);
  } else {
    for (int k = 0; k < 2; k++) v[k] = entries(load(x + k * width));
    for (int k = 0; k < 2; k++) store(out + k * width, v[k]);
  }
}

/// The same for `n` elements, fewer than two vectors.
template <class T, class Out, class Entries>
void write_part(const T* x, Out* out, int64_t n, const Entries& entries) {
  T in[2 * width] = {};
  Out result[2 * width];
  std::memcpy(in, x, size_t(n) * sizeof(T));
  write_two<false>(in, result, entries);
  std::memcpy(out, result, size_t(n) * sizeof(Out));
}

/// out = entries(x) for a row.
template <class T, class Out, class Entries>
void write_entries(const void* row, void* output, int64_t vocab, const Entries& entries) {
  const T* x = static_cast<const T*>(row);
  Out* out = static_cast<Out*>(output);
  int64_t j = 0;
  for (; j + 2 * width <= vocab; j += 2 * width) write_two<false>(x + j, out + j, entries);
  if (j < vocab) write_part(x + j, out + j, vocab - j, entries);
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

/// The same past the caches: streamed stores need aligned addresses, and whole cache lines to be
/// worth it.
template <class T, class Entries>
void stream_entries(const T* x, T* out, int64_t vocab, const Entries& entries) {
  const int64_t unaligned =
      int64_t((64 - (reinterpret_cast<uintptr_t>(out) & 63)) & 63) / int64_t(sizeof(T));
  const int64_t head = unaligned < vocab ? unaligned : vocab;
  int64_t j = 0;
  for (; j < head; j += 2 * width)
    write_part(x + j, out + j, head - j < 2 * width ? head - j : 2 * width, entries);
  for (j = head; j + 2 * width <= vocab; j += 2 * width) write_two<true>(x + j, out + j, entries);
  stream_fence();
  if (j < vocab) write_part(x + j, out + j, vocab - j, entries);
}

/// out = factor * exp(x - shift).
template <class T, class Out>
void scaled_exp(const void* row, void* output, int64_t vocab, float shift, float factor,
                bool past_caches) {
  const Floats s = splat(shift), f = splat(factor);
  const auto entries = [s, f](Floats x) { return f * exp(x - s); };
  if constexpr (std::is_same_v<T, Out>)
    if (past_caches)
      return stream_entries(static_cast<const T*>(row), static_cast<T*>(output), vocab, entries);
  write_entries<T, Out>(row, output, vocab, entries);
}

}  // namespace
