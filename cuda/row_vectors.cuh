// The vectors of a row that a thread has in its registers, loaded from wherever the row lies.
//
// Which thread has which element depends on the element's index in the row alone, never on its
// address: rows at an address that is no multiple of 16 are shifted into place as they are loaded.
// So the sums, and everything that follows from them, have the same bits wherever the row lies and
// whoever computes it.
#pragma once
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

}  // namespace diralign::cuda
