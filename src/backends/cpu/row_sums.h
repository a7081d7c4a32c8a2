// Sums over a row of logits, for the instruction set of the including translation unit.
#pragma once
#include <type_traits>
#include "exp_steps.h"
#include "row_blocks.h"

namespace {

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

}  // namespace
