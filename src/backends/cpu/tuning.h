// The constants of the CPU backend that were chosen by measurement, on two threads of a Zen 4
// server (docs/performance.md says how, and what lost).
#pragma once
#include <cstddef>
#include <cstdint>

namespace diralign::cpu {

// --- From logits

/// Elements; fewer are done sooner by one thread than by waking another.
inline constexpr int64_t elements_per_thread = 1 << 16;

/// Elements; an asynchronous job of no more is done by the thread that calls, in less time than
/// waking another takes of it.
inline constexpr int64_t elements_at_once = 1 << 12;
/// Rows and sequences of such a job.
inline constexpr int64_t rows_at_once = 1 << 8;

/// Bytes of logits; units are reduced and differentiated in groups of about so many: what was read
/// last is read again first, from the cache.
inline constexpr size_t group_bytes = size_t{16} << 20;

/// Bytes; a larger gradient bypasses the caches, where it would only push other data out.
inline constexpr size_t streamed_bytes = size_t{16} << 20;

// --- From hidden states

/// Rows of logits at a time where the units ask for no more: packing a block of weights is then a
/// few percent of multiplying it, and the logits of common vocabularies stay within tens of
/// megabytes.
inline constexpr int64_t preferred_rows = 512;

/// Rows; fewer idle ones between two active ones are multiplied along, with a gradient of 0, unless
/// their hidden states may not be finite: then 0 times them would be a NaN.
inline constexpr int64_t shortest_gap = 16, shortest_gap_beside_nan = 1;

/// Rows of a chunk; deferring the coefficients of a unit pays from so many on.
inline constexpr int64_t fewest_deferred_rows = 64;

/// Multiplications; packing an element of an operand takes as long.
inline constexpr int64_t multiplications_per_packed = 32;

/// Multiplications; fewer are done sooner by one thread than by waking another.
inline constexpr int64_t multiplications_per_thread = int64_t{1} << 21;

}  // namespace diralign::cpu
