// The loss kernel: one persistent launch that reduces rows, evaluates units and writes gradients.
//
// Blocks take tickets in order. For the exact gradient the order is reduce(g0) reduce(g1)
// gradient(g0) reduce(g2) gradient(g1) ...: a group is written one group after it was read, when
// its coefficients are most likely known and its logits, if there are not too many, still in the L2
// cache. The block whose part completes a tile of rows finishes it, the one whose tile completes a
// group evaluates its units, and whoever draws a gradient ticket waits for that, in its turn: not
// before the block has counted and finished what falls to it, which may be what it waits for.
// Nobody ever waits for a later ticket, except in `reduce_residual`, where the parts of a row wait
// for each other: that launch is cooperative, with as many blocks as parts or more.
#pragma once
#include "cluster_kernel.cuh"
#include "tickets.cuh"

namespace diralign::cuda {

/// What the block does before its next unit, because it completed it.
struct Finish {
  enum What : uint32_t { nothing, tile, group } what;
  uint32_t group_index, tile_index;
};

/// A part that the block has summed and not yet counted. For thread 0.
struct Uncounted {
  bool any;
  uint32_t i, group, tile, rows_of_tile;
};

/// What a turn of the block begins with. There are two: a turn prepares the next one's while its
/// own may still be read.
struct Turn {
  Unit unit;            ///< the describer writes it
  Finish finish;        ///< thread 0 writes this and the next
  Uncounted uncounted;  ///< of the turn before
};
/// By thread 0.
__device__ __forceinline__ void owe_nothing(Turn& turn) {
  turn.finish.what = Finish::nothing;
  turn.uncounted.any = false;
}

/// Counts a part; what the block has to finish then. By one thread.
__device__ __forceinline__ Finish count_part(const Plan& p, const Uncounted& part) {
  // The last part of a row counts for its tile.
  const bool tile_done = arrive(&p.row_arrivals[part.i]) == p.cut.parts - 1 &&
                         arrive(&p.tile_arrivals[part.tile]) == part.rows_of_tile - 1;
  return {tile_done ? Finish::tile : Finish::nothing, part.group, part.tile};
}

// The work of a ticket.

/// Sums a part; `data` holds it afterwards, without the label's entry. Thread 0 writes the sums and
/// has to count the part. `meanwhile()` is called when the loads are issued. `scratch`: of the
/// general pass.
template <class T, Pass pass, class Meanwhile>
__device__ __forceinline__ void reduce_part(const Plan& p, const Unit& unit,
                                            PartSums (&sums)[warps],
                                            [[maybe_unused]] double (&scratch)[warps],
                                            uint4 (&data)[max_steps], Meanwhile&& meanwhile) {
  constexpr bool general = pass == Pass::general;
  const uint32_t lane = threadIdx.x & 31;
  load_part<T>(p, unit, pass == Pass::logps || pass == Pass::tokens, data);
  meanwhile();
  sum_part<T, pass>(p, unit, sums, scratch, &p.targets[unit.i], data);
  __syncthreads();
  if (threadIdx.x >> 5 != 0) return;
  const PartSums s = sum_warps<pass>(sums);
  [[maybe_unused]] double squares = 0;
  if constexpr (general) {
    const uint32_t from = lane & (warps - 1);
    squares = scratch[from] * double(exp_accurate(2 * (sums[from].anchor - s.anchor)));
    CUDA_UNROLL
    for (int d = warps / 2; d; d >>= 1) squares += __shfl_xor_sync(~0u, squares, d);
  }
  if (lane != 0) return;
  if (general && p.part_squares) p.part_squares[size_t(unit.i) * p.cut.parts + unit.part] = squares;
  p.part_sums[size_t(unit.i) * p.cut.parts + unit.part] = s;
}

__device__ __forceinline__ Uncounted uncounted_part(const Unit& unit) {
  return {true, unit.i, unit.group, unit.tile, unit.rows_of_tile};
}

template <class T, Pass pass, class Meanwhile>
__device__ __forceinline__ void reduce(const Plan& p, const Turn& now, Turn& next,
                                       PartSums (&sums)[warps], double (&scratch)[warps],
                                       Meanwhile&& meanwhile) {
  uint4 data[max_steps];
  reduce_part<T, pass>(p, now.unit, sums, scratch, data, meanwhile);
  if (threadIdx.x == 0 && p.row_arrivals) next.uncounted = uncounted_part(now.unit);
}

/// onehot - softmax of a row whose parts are all counted.
__device__ __forceinline__ RowGradient row_residual(const Plan& p, const Unit& unit) {
  const PartSums row = sum_parts(
      p.cut.parts, [&](uint32_t k) { return p.part_sums[size_t(unit.i) * p.cut.parts + k]; });
  return residual(row, p.targets[unit.i], unit.record.primary());
}

template <class T>
__device__ __forceinline__ void write_residual(const Plan& p, const Unit& unit) {
  write_part(Untransformed{}, gradient_row<T>(p, unit), logits_row<T>(p, unit), p.vocab, unit.part,
             p.cut, row_residual(p, unit), [] {});
  zero_padding<T>(p, unit);
}

template <class T>
__device__ __forceinline__ void reduce_and_write_residual(const Plan& p, const Unit& unit,
                                                          Turn& next, PartSums (&sums)[warps],
                                                          double (&scratch)[warps],
                                                          uint32_t& ticket) {
  uint32_t drawn = 0;
  bool written;
  {
    uint4 data[max_steps];
    reduce_part<T, Pass::factored>(p, unit, sums, scratch, data, [] {});
    if (threadIdx.x == 0) {
      next.finish = count_part(p, uncounted_part(unit));
      await(&p.row_arrivals[unit.i], p.cut.parts);
    }
    __syncthreads();
    if (threadIdx.x == describer) drawn = atomicAdd(p.next_ticket, 1u);
    written = write_residual_of<T>(p, unit, data, [&] { return row_residual(p, unit); });
  }
  // The vectors in registers may not be those that can be stored: they are read again, most likely
  // from the L1 cache.
  if (!written) write_residual<T>(p, unit);
  if (threadIdx.x == describer) ticket = drawn;
}

template <class T, Pass pass, class Out, class Meanwhile>
__device__ __forceinline__ void write_gradient(const Plan& p, const Unit& unit,
                                               Meanwhile&& meanwhile) {
  write_part(form_of<pass>(p), gradient_row<Out>(p, unit), logits_row<T>(p, unit), p.vocab,
             unit.part, p.cut, RowGradient(unit.gradient), meanwhile);
  zero_padding<Out>(p, unit);
}

template <class T>
__device__ __forceinline__ void write_zeros(const Plan& p, const Unit& unit) {
  zero_part(gradient_row<T>(p, unit), p.vocab, unit.part, p.cut);
  zero_padding<T>(p, unit);
}

struct Shared {
  StageInHand hand;  ///< the describer's, as is its next ticket
  uint32_t ticket;
  Turn turns[2];
  PartSums sums[warps];
  double scratch[warps];
};

/// Finishes the tile or the group that the block completed. In thread 0: whether that completed a
/// group.
template <Pass pass>
__device__ __forceinline__ bool finish(const Plan& p, const Finish& what,
                                       double (&scratch)[warps]) {
  const Group& group = p.groups[what.group_index];
  if (what.what == Finish::tile) {
    finish_tile<pass>(p, group, what.tile_index);
    __syncthreads();
    return threadIdx.x == 0 && arrive(&p.group_arrivals[what.group_index]) ==
                                   (group.rows + tile_rows - 1) / tile_rows - 1;
  }
  if (!is_for<pass>(p, Pass::tokens)) sum_sequences(p, group, scratch);
  __syncthreads();  // the sums are there, and all have read what is to be finished
  if (is_for<pass>(p, Pass::dense)) {
    evaluate_group(p, group);
    __syncthreads();
    if (threadIdx.x == 0) arrive(&p.group_ready[what.group_index]);
  }
  return false;
}

/// `Out`: the type of the gradient, where it is not that of the logits.
template <class T, Pass pass, class Out = T>
__global__ void __launch_bounds__(threads,
                                  blocks_wanted(pass == Pass::logps || pass == Pass::tokens))
    loss_kernel(const __grid_constant__ Plan p) {
  constexpr bool writes = pass != Pass::logps && pass != Pass::tokens;
  CUDA_SHARED(Shared, shared);
  if (threadIdx.x == 0) owe_nothing(shared.turns[0]);
  if (threadIdx.x == describer) {
    take_stage(p, 0, shared.hand);
    describe<pass>(p, atomicAdd(p.next_ticket, 1u), shared.hand, shared.turns[0].unit);
  }
  for (uint32_t turn = 0;;) {
    __syncthreads();
    Turn &now = shared.turns[turn], &next = shared.turns[turn ^ 1];
    if (now.finish.what != Finish::nothing) {
      const bool group_done = finish<pass>(p, now.finish, shared.scratch);
      if (threadIdx.x == 0) now.finish.what = group_done ? Finish::group : Finish::nothing;
      continue;
    }
    Unit& unit = now.unit;
    if (now.uncounted.any && (!unit.ready || unit.work == Work::end)) {
      // At once: the unit may wait for that very part.
      __syncthreads();  // all have seen it
      if (threadIdx.x == 0) {
        now.finish = count_part(p, now.uncounted);
        now.uncounted.any = false;
      }
      continue;
    }
    if constexpr (writes) {
      if (!unit.ready) {
        __syncthreads();  // all have seen it
        if (threadIdx.x == describer) complete<pass>(p, true, shared.hand, unit);
        __syncthreads();
      }
    }
    if (unit.work == Work::end) return;
    if (threadIdx.x == 0) owe_nothing(next);
    // Takes a round trip to memory and more. Work that loads calls it once its loads are issued, so
    // that they do not wait for it.
    auto meanwhile = [&] {
      if (threadIdx.x == 0 && now.uncounted.any) next.finish = count_part(p, now.uncounted);
      if (threadIdx.x == describer) shared.ticket = atomicAdd(p.next_ticket, 1u);
    };
    const bool loads = unit.work == Work::reduce || unit.work == Work::gradient;
    // Where the parts of a row wait for each other, the ticket might be one that is waited for.
    if (!loads && unit.work != Work::reduce_residual) meanwhile();
    switch (unit.work) {
      case Work::reduce:
        reduce<T, pass>(p, now, next, shared.sums, shared.scratch, meanwhile);
        break;
      case Work::reduce_residual:
        if constexpr (pass == Pass::factored)
          reduce_and_write_residual<T>(p, unit, next, shared.sums, shared.scratch, shared.ticket);
        break;
      case Work::finish:
        if constexpr (pass == Pass::factored)
          if (threadIdx.x == 0 && unit.rows_of_tile > 0)
            next.finish = {Finish::tile, unit.group, unit.tile};
        break;
      case Work::residual:
        if constexpr (pass == Pass::factored) write_residual<T>(p, unit);
        break;
      case Work::gradient:
        if constexpr (pass == Pass::dense || pass == Pass::general)
          write_gradient<T, pass, Out>(p, unit, meanwhile);
        break;
      case Work::zero:
        if constexpr (writes) write_zeros<Out>(p, unit);
        break;
      case Work::end: break;
    }
    turn ^= 1;
    if (threadIdx.x == describer) {
      describe<pass>(p, shared.ticket, shared.hand, next.unit);
      if constexpr (writes)
        if (!next.unit.ready) complete<pass>(p, false, shared.hand, next.unit);
    }
  }
}

template <class T, Pass pass, class Out = T>
cudaError_t launch_loss_kernel(const Plan& plan, uint32_t blocks, bool together,
                               cudaStream_t stream) {
  if (pass == Pass::factored && together)
    return launch_cooperative(loss_kernel<T, pass, Out>, blocks, threads, stream, plan);
  return launch_kernel(loss_kernel<T, pass, Out>, blocks, threads, stream, plan);
}
template <class T, Pass pass, class Out = T>
cudaError_t loss_blocks_per_multiprocessor(int* blocks) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, loss_kernel<T, pass, Out>,
                                                       int(threads), 0);
}

template <class T>
constexpr LossKernels loss_kernels_of = {
    {launch_loss_kernel<T, Pass::logps>, launch_loss_kernel<T, Pass::tokens>,
     launch_loss_kernel<T, Pass::dense>, launch_loss_kernel<T, Pass::factored>,
     launch_loss_kernel<T, Pass::general>},
    {loss_blocks_per_multiprocessor<T, Pass::logps>,
     loss_blocks_per_multiprocessor<T, Pass::tokens>,
     loss_blocks_per_multiprocessor<T, Pass::dense>,
     loss_blocks_per_multiprocessor<T, Pass::factored>,
     loss_blocks_per_multiprocessor<T, Pass::general>},
    launch_cluster_kernel<T>,
    loss_clusters_at_once<T>};

/// From float32 logits to a gradient of a shorter type.
template <class Out>
constexpr LossKernels gradient_kernels_to = {
    {nullptr, nullptr, launch_loss_kernel<float, Pass::dense, Out>, nullptr,
     launch_loss_kernel<float, Pass::general, Out>},
    {nullptr, nullptr, loss_blocks_per_multiprocessor<float, Pass::dense, Out>, nullptr,
     loss_blocks_per_multiprocessor<float, Pass::general, Out>},
    nullptr,
    nullptr};

}  // namespace diralign::cuda
