// The gradient of a row of logits, for the instruction set of the including translation unit.
#pragma once
#include <type_traits>
#include "row_blocks.h"

namespace {

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
