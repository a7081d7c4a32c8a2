// What a block does to its part of a row of logits: sum its exponentials, or write its gradient. A
// row is cut into equal parts of `steps` vectors of 16 bytes for each thread.
#pragma once
#include "rows/sums.h"
#include "row_vectors.cuh"

namespace diralign::cuda {

template <bool with_moment>
__device__ __forceinline__ PartSums combine(const PartSums& a, const PartSums& b) {
  PartSums r = merge<with_moment, float>(a, b, [](float x) { return exp_accurate(x); });
  r.top = r.anchor;  // one register for both
  return r;
}
template <bool with_moment>
__device__ __forceinline__ PartSums from_lane(const PartSums& s, int distance) {
  PartSums r = no_sums();
  r.anchor = r.top = __shfl_xor_sync(~0u, s.anchor, distance);
  r.sum = __shfl_xor_sync(~0u, s.sum, distance);
  if constexpr (with_moment) r.moment = __shfl_xor_sync(~0u, s.moment, distance);
  return r;
}

/// The largest element of a thread's vectors, -FLT_MAX where all are less or NaN. 16-bit types are
/// compared in pairs, as they are.
template <class T>
__device__ __forceinline__ float max_of(uint32_t count, const uint4 (&data)[max_steps]) {
  if constexpr (sizeof(T) == 4) {
    float max = -FLT_MAX;
    CUDA_UNROLL
    for (uint32_t k = 0; k < max_steps; k++) {
      if (k >= count) break;
      float x[lanes<T>];
      unpack<T>(data[k], x);
      CUDA_UNROLL
      for (uint32_t j = 0; j < lanes<T>; j++) max = fmaxf(max, x[j]);
    }
    return max;
  } else {
    uint32_t max = minus_infinities<T>().x;
    CUDA_UNROLL
    for (uint32_t k = 0; k < max_steps; k++) {
      if (k >= count) break;
      max = max2<T>(max, max2<T>(max2<T>(data[k].x, data[k].y), max2<T>(data[k].z, data[k].w)));
    }
    const float2 pair = unpack2<T>(max);
    return fmaxf(-FLT_MAX, fmaxf(pair.x, pair.y));
  }
}

/// The sums of a warp's vectors, in every lane of it. A transform keeps the order of the logits.
/// `squares`, unless null: the sum of the squared exponentials.
template <class T, bool with_moment, class Form>
__device__ __forceinline__ PartSums sum_warp(uint32_t steps, const uint4 (&data)[max_steps],
                                             const Form& form, double* squares = nullptr) {
  constexpr uint32_t n = lanes<T>;
  float max = max_of<T>(steps, data);
  CUDA_UNROLL
  for (int d = 16; d; d >>= 1) max = fmaxf(max, __shfl_xor_sync(~0u, max, d));
  max = form.top(max);

  // Four chains: an addition takes longer than the hardware takes to start the next. And what few
  // logits dominate is then added up in float64.
  float sum[4] = {0, 0, 0, 0}, moment[4] = {0, 0, 0, 0}, square[2] = {0, 0};
  form.with_value([&](auto&& value) {
    CUDA_UNROLL
    for (uint32_t k = 0; k < max_steps; k++) {
      if (k >= steps) break;
      float x[n];
      unpack<T>(data[k], x);
      CUDA_UNROLL
      for (uint32_t j = 0; j < n; j++) {
        const float d = value(x[j]) - max, e = exp_term<T>(d);
        sum[j & 3] += e;
        if constexpr (with_moment) moment[j & 3] += d < exp_underflow ? 0 : e * d;
        if (squares) square[j & 1] += e * e;
      }
    }
  });
  PartSums s{max, max, (double(sum[0]) + double(sum[1])) + (double(sum[2]) + double(sum[3])), 0};
  if constexpr (with_moment)
    s.moment = (double(moment[0]) + double(moment[1])) + (double(moment[2]) + double(moment[3]));
  CUDA_UNROLL
  for (int d = 16; d; d >>= 1) {
    s.sum += __shfl_xor_sync(~0u, s.sum, d);
    if constexpr (with_moment) s.moment += __shfl_xor_sync(~0u, s.moment, d);
  }
  if (squares) {
    *squares = double(square[0]) + double(square[1]);
    CUDA_UNROLL
    for (int d = 16; d; d >>= 1) *squares += __shfl_xor_sync(~0u, *squares, d);
  }
  return s;
}

/// What the parts of a row add up to, in every lane of a warp. For kernels that need the row at
/// once and in float32 only; the exact statistics come from row_sums. With fewer parts than lanes
/// several lanes do the same, instead of adding up nothing.
template <class Load>
__device__ __forceinline__ PartSums sum_parts(uint32_t parts, Load&& part) {
  uint32_t width = 1;
  while (width < parts && width < 32) width *= 2;
  PartSums s = no_sums();
  for (uint32_t k = threadIdx.x & (width - 1); k < parts; k += width)
    s = combine<false>(s, part(k));
  CUDA_NO_UNROLL
  for (uint32_t d = width / 2; d; d >>= 1) s = combine<false>(s, from_lane<false>(s, int(d)));
  s.sum = __shfl_sync(~0u, s.sum, 0);  // lanes add in different orders
  return s;
}

/// onehot - softmax of a row, from its sums without the label's entry.
__device__ __forceinline__ RowGradient residual(PartSums others, float target, int32_t label) {
  const float max = fmaxf(others.top, target);
  return row_residual(max, float(others.sum) * exp_accurate(others.anchor - max),
                      exp_accurate(target - max), label);
}

/// Entry `e` of the gradient, from its logit.
template <class Form>
__device__ __forceinline__ float gradient_entry(const Form& form, const RowGradient& g, float x,
                                                uint32_t e) {
  return e == uint32_t(g.label)          ? form.label_entry(g.label_value, x)
         : e == uint32_t(g.second_label) ? form.label_entry(g.second_value, x)
                                         : form.entry(g, x);
}

/// The elements of a vector of T to an aligned address, rounded to a type that may be half as wide.
template <class T, class Out>
__device__ __forceinline__ void store_lanes(Out* at, const float (&x)[lanes<T>]) {
  if constexpr (sizeof(Out) == sizeof(T)) {
    store16(at, pack<Out>(x));
  } else {
    static_assert(sizeof(T) == 4 && sizeof(Out) == 2);
    store8(at, {pack2<Out>(x[0], x[1]), pack2<Out>(x[2], x[3])});
  }
}

/// Writes a thread's vectors of T, at elements `e`, `e + stride` ..., to aligned addresses. `row`,
/// where they were loaded from, may be the same place.
template <class T, class Form, class Out>
__device__ __forceinline__ void write_vectors(const Form& form, Out* out,
                                              [[maybe_unused]] const T* row, uint32_t e,
                                              uint32_t count, const uint4 (&data)[max_steps],
                                              const RowGradient& g) {
  constexpr uint32_t n = lanes<T>;
  auto is_here = [&](int32_t label) {
    const uint32_t distance = uint32_t(label) - e;
    return label >= 0 && uint32_t(label) >= e && distance / stride<T> < count &&
           distance % stride<T> < n;
  };
  float label_logit = 0, second_logit = 0;
  if constexpr (Form::transforms) {
    if (is_here(g.label)) label_logit = to_float(row[uint32_t(g.label)]);
    if (is_here(g.second_label)) second_logit = to_float(row[uint32_t(g.second_label)]);
  }
  Out* at = out + e;
  CUDA_UNROLL
  for (uint32_t k = 0; k < max_steps; k++) {
    if (k >= count) break;
    float x[n];
    unpack<T>(data[k], x);
    form.entries(g, x);
    store_lanes<T>(at + k * stride<T>, x);
  }
  // Over the vector that this thread has just written.
  auto correct = [&](int32_t label, float value, float logit) {
    if (is_here(label)) out[uint32_t(label)] = from_float<Out>(form.label_entry(value, logit));
  };
  correct(g.label, g.label_value, label_logit);
  correct(g.second_label, g.second_value, second_logit);
}

/// Where whole vectors of so many elements can be stored to a row's output: `vectors` of them from
/// element `head` on.
struct Body {
  uint32_t head, vectors;
};
template <uint32_t elements, class T>
__device__ __forceinline__ Body body_of(const T* out, uint32_t vocab) {
  constexpr uint32_t bytes = elements * sizeof(T);
  const uint32_t to_boundary = ((bytes - misalignment(out)) & (bytes - 1)) / uint32_t(sizeof(T));
  const uint32_t head = to_boundary < vocab ? to_boundary : vocab;
  return {head, (vocab - head) / elements};
}

/// Writes a part of a row's gradient from its logits, which may be in the same place: every element
/// is read by the thread that writes it. `meanwhile()` is called when the loads are issued.
template <class Form, class T, class Out, class Meanwhile>
__device__ __forceinline__ void write_part(const Form& form, Out* out, const T* x, uint32_t vocab,
                                           uint32_t part, RowCut cut, const RowGradient& g,
                                           Meanwhile&& meanwhile) {
  const Body body = body_of<lanes<T>>(out, vocab);
  const uint32_t body_end = body.head + body.vectors * lanes<T>,
                 e = body.head + (part * cut.steps * threads + threadIdx.x) * lanes<T>;
  uint4 data[max_steps];
  load_vectors(x, body_end, e, cut.steps, true, data);
  meanwhile();
  write_vectors(form, out, x, e, vectors_within<T>(e, body_end, cut.steps), data, g);
  auto write_one = [&](uint32_t element) {
    out[element] = from_float<Out>(gradient_entry(form, g, to_float(x[element]), element));
  };
  if (part == 0 && threadIdx.x < body.head) write_one(threadIdx.x);
  if (part == cut.parts - 1 && threadIdx.x < vocab - body_end) write_one(body_end + threadIdx.x);
}

/// Writes a part of a row's gradient from vectors in registers, loaded from element `e` of a row at
/// an aligned address; so is `out`.
template <class T>
__device__ __forceinline__ void write_loaded(T* out, uint32_t vocab, uint32_t e, uint32_t count,
                                             const uint4 (&data)[max_steps], const RowGradient& g) {
  const Untransformed form;
  const uint32_t whole = vectors_within<T>(e, vocab, count), tail = e + whole * stride<T>;
  write_vectors<T>(form, out, nullptr, e, whole, data, g);
  if (whole == count || tail >= vocab) return;
  float x[lanes<T>];
  unpack<T>(get(data, whole), x);
  CUDA_UNROLL
  for (uint32_t j = 0; j < lanes<T>; j++)
    if (tail + j < vocab) out[tail + j] = from_float<T>(gradient_entry(form, g, x[j], tail + j));
}

/// Writes zeros to a part of a row. The cut may be that of a wider type: its last parts have
/// nothing left to do.
template <class T>
__device__ __forceinline__ void zero_part(T* out, uint32_t vocab, uint32_t part, RowCut cut) {
  const Body body = body_of<lanes<T>>(out, vocab);
  const uint32_t body_end = body.head + body.vectors * lanes<T>,
                 e = body.head + (part * cut.steps * threads + threadIdx.x) * lanes<T>;
  const uint32_t count = vectors_within<T>(e, body_end, cut.steps);
  for (uint32_t k = 0; k < count; k++) store16(out + e + k * stride<T>, uint4{0, 0, 0, 0});
  if (part == 0 && threadIdx.x < body.head) out[threadIdx.x] = T{};
  if (part == cut.parts - 1 && threadIdx.x < vocab - body_end) out[body_end + threadIdx.x] = T{};
}

/// A row from its parts, by one thread.
template <class Part>
__device__ __forceinline__ RowSums row_sums(uint32_t parts, float label, Part&& part) {
  return {merge_in_order(parts, part), label};
}

}  // namespace diralign::cuda
