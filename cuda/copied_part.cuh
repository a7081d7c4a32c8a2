// A part of a row of logits in shared memory: copied there while the block does something else, and
// read as often as it is needed, in the order of the row's elements for their sums, and in vectors
// at aligned addresses for what is stored.
#pragma once
#include "row_parts.cuh"

namespace diralign::cuda {

/// Vectors of a copy: those of a row at aligned addresses, from that on in which the part's first
/// element is. One more than the threads have, for rows at an address that is no multiple of 16.
constexpr uint32_t copied_vectors = max_steps * threads + 1;

#if defined(CUDA_HAS_CLUSTERS)
/// Begins to copy `steps` vectors for each thread of a row, from element `first` on; what lies
/// outside of the row is -inf. `await_copies` ends it. Nothing outside of the row is read. Where
/// the row does not begin at a multiple of 16 bytes a thread will need what others have copied, and
/// the block waits at a barrier.
template <class T>
__device__ __forceinline__ void copy_part(const T* row, uint32_t vocab, uint32_t first,
                                          uint32_t steps, uint4* copy) {
  constexpr uint32_t n = lanes<T>;
  const uint32_t before = misalignment(row) / uint32_t(sizeof(T)), e = first + threadIdx.x * n,
                 begin = e < before ? 1 : 0,
                 fit = vectors_within<T>(e + n - before, vocab + n, steps),
                 own = fit < begin ? begin : fit;
  const T* const at = computed(row + e - before);
  CUDA_UNROLL
  for (uint32_t k = 0; k < max_steps; k++)
    if (k >= begin && k < own) copy16(copy + threadIdx.x + k * threads, at + k * stride<T>);
  CUDA_NO_UNROLL
  for (uint32_t k = own; k < steps; k++) {
    const uint32_t edge = e - before + k * stride<T>;
    copy[threadIdx.x + k * threads] =
        edge < vocab ? load_edge<T, true>(row, vocab, edge) : minus_infinities<T>();
  }
  // What begins before the row and what follows the steps, by a warp that sends no messages.
  if (before == 0 || threadIdx.x != threads - 1) return;
  const uint32_t after = first - before + steps * stride<T>;
  if (after + n <= vocab) copy16(copy + steps * threads, row + after);
  else copy[steps * threads] = load_edge<T, true>(row, vocab, after);
  if (first < before) copy[0] = load_edge<T, true>(row, vocab, first - before);
}
#endif

/// The 16 bytes that start `words` words and `bits` bits into two adjacent vectors.
template <class T, uint32_t words>
__device__ __forceinline__ uint4 shifted_by(uint4 low, uint4 high, [[maybe_unused]] uint32_t bits) {
  const uint32_t w[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
  if constexpr (sizeof(T) == 4) return {w[words], w[words + 1], w[words + 2], w[words + 3]};
  else
    return {funnel_shift(w[words], w[words + 1], bits),
            funnel_shift(w[words + 1], w[words + 2], bits),
            funnel_shift(w[words + 2], w[words + 3], bits),
            funnel_shift(w[words + 3], w[words + 4], bits)};
}
template <class T, uint32_t words>
__device__ __forceinline__ void read_shifted(const uint4* at, uint32_t bits,
                                             uint4 (&data)[max_steps]) {
  CUDA_UNROLL
  for (uint32_t k = 0; k < max_steps; k++)
    data[k] = shifted_by<T, words>(at[k * threads], at[k * threads + 1], bits);
}
/// A thread's vectors of a copy as they lie there; past the part's steps, what happens to be there.
__device__ __forceinline__ void read_aligned(const uint4* at, uint4 (&data)[max_steps]) {
  CUDA_UNROLL
  for (uint32_t k = 0; k < max_steps; k++) data[k] = at[k * threads];
}
/// The same from the part's first element on; `shift`: the misalignment of the row. That is one for
/// all of them: the words are named by branches around the loop, and not selected in it.
template <class T>
__device__ __forceinline__ void read_part(const uint4* copy, uint32_t shift,
                                          uint4 (&data)[max_steps]) {
  const uint4* const at = copy + threadIdx.x;
  const uint32_t bits = (shift & 3) * 8;
  if (shift == 0) read_aligned(at, data);
  else if (shift & 8)
    shift & 4 ? read_shifted<T, 3>(at, bits, data) : read_shifted<T, 2>(at, bits, data);
  else shift & 4 ? read_shifted<T, 1>(at, bits, data) : read_shifted<T, 0>(at, bits, data);
}

template <class T>
__device__ __forceinline__ float element_of(uint4 v, uint32_t which) {
  float x[lanes<T>], found = 0;
  unpack<T>(v, x);
  CUDA_UNROLL
  for (uint32_t j = 0; j < lanes<T>; j++)
    if (j == which) found = x[j];
  return found;
}

/// Writes onehot - softmax of a part from the copy of its logits, which have the misalignment of
/// `out`.
template <class T>
__device__ __forceinline__ void write_copied(T* out, uint32_t vocab, uint32_t part, RowCut cut,
                                             const uint4* copy, const RowGradient& g) {
  constexpr uint32_t n = lanes<T>;
  const Untransformed form;
  const Body body = body_of<n>(out, vocab);
  const uint32_t body_end = body.head + body.vectors * n, first = part * cut.steps * stride<T>,
                 e = body.head + first + threadIdx.x * n,
                 before = misalignment(out) / uint32_t(sizeof(T));
  uint4 data[max_steps];
  read_aligned(copy + threadIdx.x + (before > 0 ? 1 : 0), data);
  write_vectors<T>(form, out, nullptr, e, vectors_within<T>(e, body_end, cut.steps), data, g);
  auto write_one = [&](uint32_t i) {
    const uint32_t place = i - first + before;
    out[i] = from_float<T>(gradient_entry(form, g, element_of<T>(copy[place / n], place % n), i));
  };
  if (part == 0 && threadIdx.x < body.head) write_one(threadIdx.x);
  if (part == cut.parts - 1 && threadIdx.x < vocab - body_end) write_one(body_end + threadIdx.x);
}

}  // namespace diralign::cuda
