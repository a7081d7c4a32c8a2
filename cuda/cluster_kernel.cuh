// onehot - softmax of rows of several parts, on devices whose blocks work in clusters: a cluster
// takes a row, each of its blocks a part, which stays in shared memory until all of them have sent
// each other their sums. Clusters wait for nobody else. What they leave of each part is finished by
// a launch of the loss kernel behind this one.
//
// While sums are sent and waited for, and a gradient is written, the part of the next row is
// copied: memory always has something to do. A cluster's first three rows follow from its place.
// Its first block draws the others, three turns ahead, so that a row is described before it is
// copied.
#pragma once
#include "copied_part.cuh"
#include "row_unit.cuh"

namespace diralign::cuda {

/// What a block tells the others of its cluster: its part of the row.
struct alignas(16) PartOfRow {
  float anchor;
  float target;  ///< the label's logit, of the part that it is in
  double sum;
};

struct ClusterShared {
  /// By turns: the unit is described two turns before its own, and read until the end of that.
  struct Turn {
    PartOfRow parts[largest_cluster];  ///< from all blocks, in their order
    Mailbox box;                       ///< that they come to, with what follows
    uint32_t next_row;                 ///< of this place, from the first block
    Unit unit;
  } turns[3];
  PartSums sums[warps];
  float target;
  uint32_t rows;
  uint32_t first_drawn;  ///< the row of the first ticket
};

/// The i-th row; past the last, the end. For the describer.
__device__ __forceinline__ void describe_row(const Plan& p, uint32_t i, uint32_t rows,
                                             uint32_t part, Unit& unit) {
  unit.work = i < rows ? Work::reduce_residual : Work::end;
  if (i >= rows) return;
  unit.i = i;
  unit.part = part;
  unit.record = p.rows[i];
}

template <class T>
__device__ __forceinline__ void copy_unit(const Plan& p, const Unit& unit, uint4* copy) {
  copy_part(logits_row<T>(p, unit), p.vocab, unit.part * p.cut.steps * stride<T>, p.cut.steps,
            copy);
}

template <class T>
__global__ void __launch_bounds__(threads, blocks_wanted(false))
    cluster_loss_kernel([[maybe_unused]] const __grid_constant__ Plan p) {
#if defined(CUDA_HAS_CLUSTERS)
  CUDA_SHARED(ClusterShared, shared);
  const uint32_t parts = p.cut.parts, part = blockIdx.x % parts, cluster = blockIdx.x / parts,
                 clusters = gridDim.x / parts, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  if (threadIdx.x == describer) {
    shared.rows = p.stages[1].first_ticket / parts;
    describe_row(p, cluster, shared.rows, part, shared.turns[0].unit);
    describe_row(p, cluster + clusters, shared.rows, part, shared.turns[1].unit);
    shared.turns[2].next_row = cluster + 2 * clusters;
    shared.first_drawn = 3 * clusters;
    for (auto& turn : shared.turns) open_mailbox(&turn.box);
  }
  meet_cluster();
  CUDA_DYNAMIC_SHARED(uint4, copies);
  if (shared.turns[0].unit.work != Work::end) copy_unit<T>(p, shared.turns[0].unit, copies);
  uint32_t turn = 0, parity = 0, copied = 0;
  for (;;) {
    ClusterShared::Turn& now = shared.turns[turn];
    const uint32_t last = turn == 0 ? 2 : turn - 1, next = turn == 2 ? 0 : turn + 1;
    const Unit& unit = now.unit;
    if (unit.work == Work::end) return;
    uint32_t drawn = 0;
    if (threadIdx.x == describer) {
      expect(&now.box, parts * sizeof(PartOfRow) + sizeof(drawn));
      if (part == 0) drawn = atomicAdd(p.next_ticket, 1u);
    }
    const uint4* const copy = copies + copied;
    const uint32_t shift = misalignment(logits_row<T>(p, unit));
    await_copies();
    if (shift != 0) __syncthreads();
    {
      uint4 data[max_steps];
      double no_scratch[warps];
      read_part<T>(copy, shift, data);
      sum_part<T, Pass::factored>(p, unit, shared.sums, no_scratch, &shared.target, data);
    }
    __syncthreads();
    copied = copied_vectors - copied;
    const auto label = uint32_t(unit.record.primary());
    const uint32_t part_of_label = label / (p.cut.steps * stride<T>);
    if (warp == 0) {
      PartSums s = sum_warps<Pass::factored>(shared.sums);
      s.sum = __shfl_sync(~0u, s.sum, 0);  // lanes add in different orders, and each sends
      const float target = shared.target;
      __syncwarp();  // who has the message knows that all lanes have read what it was made of
      if (lane < parts) send(lane, &now.parts[part], &now.box, PartOfRow{s.anchor, target, s.sum});
      if (lane == 0) p.part_sums[size_t(unit.i) * parts + part] = s;
      if (lane == 0 && part == part_of_label) p.targets[unit.i] = target;
    } else if (part == 0 && warp == describer / 32) {
      drawn = __shfl_sync(~0u, drawn, 0);
      if (lane < parts) send(lane, &now.next_row, &now.box, shared.first_drawn + drawn);
    }
    const Unit& following = shared.turns[next].unit;
    if (following.work != Work::end) copy_unit<T>(p, following, copies + copied);
    if (threadIdx.x == describer)
      describe_row(p, shared.turns[last].next_row, shared.rows, part, shared.turns[last].unit);
    receive(&now.box, parity);
    const PartSums row = sum_parts(parts, [&](uint32_t k) {
      const PartOfRow of = now.parts[k];
      return PartSums{of.anchor, of.anchor, of.sum, 0};
    });
    const RowGradient g = residual(row, now.parts[part_of_label].target, int32_t(label));
    T* const out = gradient_row<T>(p, unit);
    if (misalignment(out) == shift) {
      write_copied(out, p.vocab, part, p.cut, copy, g);
    } else {
      // The vectors of the copy are not those that can be stored: the row is read again.
      write_part(Untransformed{}, out, logits_row<T>(p, unit), p.vocab, part, p.cut, g, [] {});
    }
    zero_padding<T>(p, unit);
    turn = next;
    parity ^= turn == 0;
  }
#endif
}

/// Two copies: one is made while the other is read.
constexpr size_t cluster_shared_bytes = 2 * copied_vectors * sizeof(uint4);

template <class T>
cudaError_t launch_cluster_kernel(const Plan& plan, uint32_t clusters, cudaStream_t stream) {
  return launch_clusters(cluster_loss_kernel<T>, clusters * plan.cut.parts, plan.cut.parts, threads,
                         cluster_shared_bytes, stream, plan);
}
template <class T>
cudaError_t loss_clusters_at_once(uint32_t blocks, int* clusters) {
  return clusters_at_once(cluster_loss_kernel<T>, blocks, threads, cluster_shared_bytes, clusters);
}

}  // namespace diralign::cuda
