// A row of logits in blocks, and its running sums, for the instruction set of the including
// translation unit.
//
// A row is summed in blocks of 512: 32 float32 partial sums, added up in float64 and folded in a
// fixed order. The exponentials are relative to an anchor that starts as the first block's
// maximum and moves only when a block rises above it by more than `anchor_slack`: the running
// maximum need not be exact for the sums to be, so a block is read once, and the rare block that
// moves it is simply done again. The fixed 32 lanes make the sums independent of alignment, and
// their order independent of the vector width.
#pragma once
#include <cmath>
#include "exp.h"
#include "kernels.h"

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

}  // namespace
