// The constants of the CUDA backend that are choices. None is measured: no GPU has run it yet;
// docs/gpu-performance.md has what they are expected to do.
#pragma once
#include <cstddef>
#include <cstdint>

namespace diralign::cuda {

// --- The loss kernel

constexpr uint32_t threads = 256;  ///< of a block
constexpr uint32_t warps = threads / 32;

/// Vectors of a part held in registers by each thread, all loaded before the first is used: what
/// keeps enough bytes in flight.
constexpr uint32_t max_steps = 8;

/// Blocks per multiprocessor that the registers are cut for: as many as do without spilling. Each
/// keeps 32 KiB of loads in flight. `forward`: of the passes that only read.
constexpr uint32_t blocks_wanted([[maybe_unused]] bool forward) {
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ < 800 || __CUDA_ARCH__ >= 1000)
  return 2;
#else
  return forward ? 4 : 3;
#endif
}

/// Blocks of a cluster: no device has larger ones, and not each has these.
constexpr uint32_t largest_cluster = 16;

/// Clusters are used that keep this share of the device's blocks busy: what they save is less than
/// what an emptier device loses. By the model (bench/gpu/model.mjs).
constexpr double least_share_in_clusters = 0.75;

/// Rows; longer sequences are summed by a whole block.
constexpr uint32_t warp_sum_rows = 512;

/// A group is read, then the next one, and then the first again: two of them leave room in the L2
/// cache for what is written meanwhile.
constexpr size_t group_share_of_l2 = 4;

// --- Among processes

/// Rows that the host merges and finishes; fewer are not worth another thread.
constexpr int64_t host_rows_per_thread = 256;

// --- Host arrays

/// Bytes of scored rows on the device at a time, if a unit has no more.
constexpr size_t chunk_bytes = size_t{64} << 20;
/// Bytes of a pinned stage.
constexpr size_t stage_bytes = size_t{4} << 20;

// --- The output layer

/// Bytes that cuBLASLt may take of the workspace.
constexpr size_t most_product_workspace = size_t{32} << 20;

/// Rows; fewer without a gradient between two with one do not make another product worth while: a
/// tile of one. They take part with a gradient of 0, to which a hidden state that is not finite
/// would still add a NaN: where a group may have one, every gap counts.
constexpr int64_t shortest_gap = 128, shortest_not_finite = 1;

/// Rows that the algorithm of the logits is chosen for, whatever the call has.
constexpr int64_t many_rows = 2048;
/// That cuBLASLt is asked for: those that come first may all be for many rows only.
constexpr int most_algorithms = 32;

}  // namespace diralign::cuda
