// What a block does to its part of a row of logits: sum its exponentials, or write its gradient.
//
// A row is cut into equal parts of `steps` vectors of 16 bytes for each thread. Which thread sums
// which element depends on the element's index in the row alone, never on its address: rows at an
// address that is no multiple of 16 are shifted into place as they are loaded. So the sums, and
// everything that follows from them, have the same bits wherever the row lies and whoever computes
// it.
#pragma once
#include "rows/sums.h"
#include "logit_form.cuh"
#include "row_cut.h"

namespace diralign::cuda {

template <class T>
__device__ __forceinline__ void unpack(uint4 v, float (&x)[lanes<T>]) {
  if constexpr (sizeof(T) == 4) {
    x[0] = bits_to_float(v.x), x[1] = bits_to_float(v.y), x[2] = bits_to_float(v.z),
    x[3] = bits_to_float(v.w);
  } else {
    const uint32_t w[4] = {v.x, v.y, v.z, v.w};
    CUDA_UNROLL
    for (int i = 0; i < 4; i++) {
      const float2 pair = unpack2<T>(w[i]);
      x[2 * i] = pair.x, x[2 * i + 1] = pair.y;
    }
  }
}
template <class T>
__device__ __forceinline__ uint4 pack(const float (&x)[lanes<T>]) {
  if constexpr (sizeof(T) == 4) {
    return {float_to_bits(x[0]), float_to_bits(x[1]), float_to_bits(x[2]), float_to_bits(x[3])};
  } else {
    return {pack2<T>(x[0], x[1]), pack2<T>(x[2], x[3]), pack2<T>(x[4], x[5]), pack2<T>(x[6], x[7])};
  }
}
template <class T>
__device__ __forceinline__ uint4 minus_infinities() {
  constexpr uint32_t w = std::is_same_v<T, float>      ? 0xff800000u
                         : std::is_same_v<T, Bfloat16> ? 0xff80ff80u
                                                       : 0xfc00fc00u;
  return {w, w, w, w};
}

template <class T>
__device__ __forceinline__ uint32_t raw_bits(T x) {
  if constexpr (sizeof(T) == 4) return float_to_bits(x);
  else return x.bits;
}

/// The elements of a row from `e` on, one by one, -inf past its end. `at_once`: no load waits for
/// the one before, for which there must be registers; `e` may lie before the row, modulo 2^32.
template <class T, bool at_once = false>
__device__ __forceinline__ uint4 load_edge(const T* row, uint32_t vocab, uint32_t e) {
  uint4 v = minus_infinities<T>();
  if (!at_once && e >= vocab) return v;
  CUDA_UNROLL_BY(at_once ? 8 : 1)
  for (uint32_t j = lanes<T>; j-- > 0;) {
    const uint32_t bits = e + j < vocab    ? raw_bits(row[e + j])
                          : sizeof(T) == 4 ? v.x
                                           : v.x & 0xffffu;
    if constexpr (sizeof(T) == 4) {
      v = {bits, v.x, v.y, v.z};
    } else {
      v = {v.x << 16 | bits, v.y << 16 | v.x >> 16, v.z << 16 | v.y >> 16, v.w << 16 | v.z >> 16};
    }
  }
  return v;
}

template <class T>
__device__ __forceinline__ uint32_t misalignment(const T* at) {
  return uint32_t(reinterpret_cast<uintptr_t>(at)) & 15u;
}

/// Elements from a vector of a thread to its next.
template <class T>
constexpr uint32_t stride = threads * lanes<T>;

/// How many vectors, at `e`, `e + stride` ..., end at or before `limit`.
template <class T>
__device__ __forceinline__ uint32_t vectors_within(uint32_t e, uint32_t limit, uint32_t count) {
  if (e + lanes<T> > limit) return 0;
  const uint32_t fit = (limit - lanes<T> - e) / stride<T> + 1;
  return fit < count ? fit : count;
}

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

// A register has no number that could be computed: these choose among all.
__device__ __forceinline__ uint4 get(const uint4 (&data)[max_steps], uint32_t which) {
  uint4 v = data[0];
  CUDA_UNROLL
  for (uint32_t k = 1; k < max_steps; k++)
    if (k == which) v = data[k];
  return v;
}
__device__ __forceinline__ void put(uint4 (&data)[max_steps], uint32_t which, uint4 v) {
  CUDA_UNROLL
  for (uint32_t k = 0; k < max_steps; k++)
    if (k == which) data[k] = v;
}

/// The 16 bytes that start `shift` bytes into two adjacent vectors, 0 < shift < 16.
template <class T>
__device__ __forceinline__ uint4 shifted(uint4 low, uint4 high, uint32_t shift) {
  const bool two = shift & 8, one = shift & 4;
  const uint32_t a0 = two ? low.z : low.x, a1 = two ? low.w : low.y, a2 = two ? high.x : low.z,
                 a3 = two ? high.y : low.w, a4 = two ? high.z : high.x, a5 = two ? high.w : high.y;
  const uint32_t b0 = one ? a1 : a0, b1 = one ? a2 : a1, b2 = one ? a3 : a2, b3 = one ? a4 : a3,
                 b4 = one ? a5 : a4;
  if constexpr (sizeof(T) == 4) return {b0, b1, b2, b3};
  const uint32_t bits = (shift & 3) * 8;
  return {funnel_shift(b0, b1, bits), funnel_shift(b1, b2, bits), funnel_shift(b2, b3, bits),
          funnel_shift(b3, b4, bits)};
}

/// Loads a thread's vectors of a row at an address that is no multiple of 16: `data` is what starts
/// `shift` bytes into the vectors from `at` on. Each lane loads its own and has the next ones from
/// the next lane, so that nothing is waited for before all loads are issued. What follows the
/// vectors of the last lane is loaded by the first lanes, one vector each; between two calls lies a
/// barrier of the warp. From `begin` to `own` the thread's vectors are in the row; `whole_of_last`:
/// how many of the last lane's are, with what follows them.
template <class T>
__device__ __forceinline__ void load_unaligned(const T* at, uint32_t shift, uint32_t begin,
                                               uint32_t own, uint32_t whole_of_last, uint32_t count,
                                               bool last_use, uint4 (&data)[max_steps]) {
  using Following = uint4[warps][max_steps];
  CUDA_SHARED(Following, following);
  const uint32_t lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  CUDA_UNROLL
  for (uint32_t k = 0; k < max_steps; k++)
    if (k >= begin && k < own) data[k] = load16(at + k * stride<T>, last_use);
  if (lane < max_steps)
    following[warp][lane] = lane < whole_of_last
                                ? load16(at + (32 - lane) * lanes<T> + lane * stride<T>, false)
                                : minus_infinities<T>();
  __syncwarp();
  CUDA_UNROLL
  for (uint32_t k = 0; k < max_steps; k++) {
    if (k >= count) break;
    uint4 next{__shfl_down_sync(~0u, data[k].x, 1), __shfl_down_sync(~0u, data[k].y, 1),
               __shfl_down_sync(~0u, data[k].z, 1), __shfl_down_sync(~0u, data[k].w, 1)};
    if (lane == 31) next = following[warp][k];
    data[k] = shifted<T>(data[k], next, shift);
  }
}

/// Loads `count` vectors of a row for a thread, at elements `e`, `e + stride` ...; what lies past
/// the end is -inf. `e` follows that of the thread before. At an address that is no multiple of 16
/// a vector is put together from the two around it. Nothing outside of the row is read: where those
/// would reach outside, which can only be at a thread's first and last vector, the elements are
/// loaded one by one.
template <class T>
__device__ __forceinline__ void load_vectors(const T* row, uint32_t vocab, uint32_t e,
                                             uint32_t count, bool last_use,
                                             uint4 (&data)[max_steps]) {
  constexpr uint32_t n = lanes<T>;
  const uint32_t shift = misalignment(row + e), before = shift / uint32_t(sizeof(T));
  const uint32_t begin = e < before ? 1 : 0,
                 end = vectors_within<T>(shift ? e + n - before : e, vocab, count);
  const T* at = row + e - before;
  CUDA_UNROLL
  for (uint32_t k = 0; k < max_steps; k++) data[k] = minus_infinities<T>();
  if (shift == 0) {
    CUDA_UNROLL
    for (uint32_t k = 0; k < max_steps; k++)
      if (k < end) data[k] = load16(at + k * stride<T>, last_use);
  } else {
    const uint32_t own = vectors_within<T>(e + n - before, vocab + n, count),
                   to_next_warp = (32 - (threadIdx.x & 31)) * n;
    load_unaligned(at, shift, begin, own,
                   vectors_within<T>(e + to_next_warp - before, vocab, count), count, last_use,
                   data);
  }
  CUDA_NO_UNROLL
  for (uint32_t edge = begin ? 0 : end; edge < count; edge = edge < end ? end : count) {
    if (edge >= begin && edge < end)
      continue;  // never; ptxas needs five registers less where it is said
    put(data, edge, load_edge(row, vocab, e + edge * stride<T>));
  }
}

/// Looks for an element among a thread's vectors, and takes it out of them where `erase` is set.
template <class T>
__device__ __forceinline__ bool find_element(uint32_t element, uint32_t e, uint32_t count,
                                             uint4 (&data)[max_steps], bool erase, float& value) {
  const uint32_t distance = element - e, which = distance / stride<T>, j = distance % stride<T>;
  if (element < e || which >= count || j >= lanes<T>) return false;
  float x[lanes<T>];
  unpack<T>(get(data, which), x);
  CUDA_UNROLL
  for (uint32_t i = 0; i < lanes<T>; i++)
    if (i == j) {
      value = x[i];
      x[i] = -INFINITY;
    }
  if (erase) put(data, which, pack<T>(x));
  return true;
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
