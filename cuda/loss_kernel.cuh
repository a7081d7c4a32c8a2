// The loss kernel: one persistent launch that reduces rows, evaluates pairs and writes gradients.
//
// Blocks take tickets in order. For the exact gradient the order is reduce(g0) reduce(g1) gradient(g0) reduce(g2) gradient(g1) ...:
// a group is written one group after it was read, when its coefficients are most likely known and its logits, if there are not too
// many, still in the L2 cache. The block whose part completes a tile of rows finishes it, the one whose tile completes a group
// evaluates its pairs, and whoever draws a gradient ticket waits for that. Nobody ever waits for a later ticket, except in
// `reduce_residual`, where the parts of a row wait for each other: that launch is cooperative, with as many blocks as parts or more.
#pragma once
#include "loss_kernel.h"
#include "pair_stage.cuh"

namespace diralign::gpu {

/// Whether the next ticket may be drawn while the work is done. Not where the parts of a row wait for each other: the ticket might be
/// one that is waited for. And finishing leaves the ticket that was drawn before it.
__device__ __forceinline__ bool draws_ahead(Work work) { return work != Work::reduce_residual && work != Work::finish_tile && work != Work::finish_group; }

/// What thread 0 prepares for the block's next turn.
struct Unit {
  Work work;
  uint32_t i;              ///< in the list of scored rows
  uint32_t part;
  uint32_t group, tile;
  int64_t row;
  int32_t label, sft_label;
  RowGradient gradient;
};

/// Describes the work of a ticket; waits for what it needs from earlier ones. For thread 0, which starts at `stage` and moves on. Not
/// inlined: this and the pair stage would take registers from the rows.
template <Pass pass>
GPU_NOINLINE __device__ void describe(const Plan& p, uint32_t ticket, uint32_t& stage, Unit& unit) {
  while (p.stages[stage].work != Work::end && ticket >= p.stages[stage + 1].first_ticket) stage++;
  const Stage s = p.stages[stage];
  unit.work = s.work;
  if (s.work == Work::end) return;
  const uint32_t k = ticket - s.first_ticket, in_stage = k / p.cut.parts;
  unit.part = k - in_stage * p.cut.parts;
  unit.i = s.first_row + in_stage;
  unit.group = s.group;
  if (s.work == Work::zero) {
    unit.row = p.ignored[unit.i];
    return;
  }
  const RowRecord record = p.rows[unit.i];
  const Group group = p.groups[s.group];
  unit.tile = group.first_tile + (unit.i - group.first_row) / tile_rows;
  unit.row = record.row;
  unit.label = record.primary();
  unit.sft_label = record.sft_label;
  if constexpr (pass == Pass::dense) {
    if (s.work == Work::gradient) {
      await(&p.group_ready[s.group], 1);
      const double align = record.has_label() ? p.coefficients[record.sequence] : 0;
      const double likelihood = record.sft_label >= 0 ? p.terms.likelihood_coefficient(record.sequence) : 0;
      const double align_scaled = finite(gradient_coefficient(align, p.gradient_scale)) * p.gradient_unit;
      const double likelihood_scaled = finite(gradient_coefficient(likelihood, p.gradient_scale)) * p.gradient_unit;
      unit.gradient = row_gradient(p.row_terms[unit.i], record.label, record.sft_label, align_scaled, likelihood_scaled, p.least_normal);
      if (unit.gradient.underflows && unit.part == 0) atomicAdd(p.underflows, 1u);
      if (unit.gradient.zero) unit.work = Work::zero;
    }
  }
  if constexpr (pass == Pass::factored) {
    if (s.work == Work::residual) await(&p.row_arrivals[unit.i], p.cut.parts);
  }
}

template <class T>
__device__ __forceinline__ const T* logits_row(const Plan& p, const Unit& unit) { return static_cast<const T*>(p.logits) + unit.row * p.row_stride; }
template <class T>
__device__ __forceinline__ T* gradient_row(const Plan& p, const Unit& unit) { return static_cast<T*>(p.gradient) + unit.row * p.row_stride; }

/// Columns between the vocabulary and the next row belong to no class; they are with the last part.
template <class T>
__device__ __forceinline__ void zero_padding(const Plan& p, const Unit& unit) {
  if (unit.part != p.cut.parts - 1 || p.row_stride == p.vocab) return;
  const int64_t begin = unit.row * p.row_stride + p.vocab, next = (unit.row + 1) * p.row_stride, end = next < p.gradient_elements ? next : p.gradient_elements;
  for (int64_t e = begin + threadIdx.x; e < end; e += threads) static_cast<T*>(p.gradient)[e] = T{};
}

// The work of a ticket.

/// Sums a part and counts it; `data` holds it afterwards, without the label's entry. In thread 0: whether that completed its tile.
template <class T, Pass pass>
__device__ __forceinline__ bool reduce_part(const Plan& p, const Unit& unit, PartSums (&sums)[warps], uint4 (&data)[max_steps]) {
  constexpr bool with_moment = pass == Pass::tokens;
  const uint32_t steps = p.cut.steps, e = (unit.part * steps * threads + threadIdx.x) * lanes<T>, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  load_vectors(logits_row<T>(p, unit), p.vocab, e, steps, pass == Pass::logps || pass == Pass::tokens, data);
  float value = 0;
  if (p.separate_sft && unit.sft_label >= 0 && find_element<T>(uint32_t(unit.sft_label), e, steps, data, false, value)) p.sft_targets[unit.i] = value;
  if (find_element<T>(uint32_t(unit.label), e, steps, data, true, value)) p.targets[unit.i] = value;
  const PartSums of_warp = sum_warp<T, with_moment>(steps, data);
  if (lane == 0) sums[warp] = of_warp;
  __syncthreads();
  if (warp != 0) return false;
  PartSums s = sums[lane & (warps - 1)];
GPU_UNROLL
  for (int d = warps / 2; d; d >>= 1) s = combine<with_moment>(s, from_lane<with_moment>(s, d));
  if (lane != 0) return false;
  p.part_sums[size_t(unit.i) * p.cut.parts + unit.part] = s;
  // The last part of a row counts for its tile.
  if (arrive(&p.row_arrivals[unit.i]) != p.cut.parts - 1) return false;
  const Group& group = p.groups[unit.group];
  const uint32_t before = (unit.tile - group.first_tile) * tile_rows, rows = group.rows - before < tile_rows ? group.rows - before : tile_rows;
  return arrive(&p.tile_arrivals[unit.tile]) == rows - 1;
}

template <class T, Pass pass>
__device__ __forceinline__ bool reduce(const Plan& p, const Unit& unit, PartSums (&sums)[warps]) {
  uint4 data[max_steps];
  return reduce_part<T, pass>(p, unit, sums, data);
}

/// onehot - softmax of a row whose parts are all counted.
__device__ __forceinline__ RowGradient row_residual(const Plan& p, const Unit& unit) {
  const PartSums row = sum_parts(p.cut.parts, [&](uint32_t k) { return p.part_sums[size_t(unit.i) * p.cut.parts + k]; });
  return residual(row, p.targets[unit.i], unit.label);
}

template <class T>
__device__ __forceinline__ void write_residual(const Plan& p, const Unit& unit) {
  write_part(gradient_row<T>(p, unit), logits_row<T>(p, unit), p.vocab, unit.part, p.cut, row_residual(p, unit));
  zero_padding<T>(p, unit);
}

template <class T>
__device__ __forceinline__ bool reduce_and_write_residual(const Plan& p, const Unit& unit, PartSums (&sums)[warps], uint32_t& ticket) {
  bool tile_done;
  {
    uint4 data[max_steps];
    tile_done = reduce_part<T, Pass::factored>(p, unit, sums, data);
    if (threadIdx.x == 0) {
      await(&p.row_arrivals[unit.i], p.cut.parts);
      ticket = atomicAdd(p.next_ticket, 1u);
    }
    __syncthreads();
    T* out = gradient_row<T>(p, unit);
    if (misalignment(logits_row<T>(p, unit)) == 0 && misalignment(out) == 0) {
      write_loaded(out, p.vocab, (unit.part * p.cut.steps * threads + threadIdx.x) * lanes<T>, p.cut.steps, data, row_residual(p, unit));
      zero_padding<T>(p, unit);
      return tile_done;
    }
  }
  // The vectors in registers are not those that can be stored: they are read again, most likely from the L1 cache.
  write_residual<T>(p, unit);
  return tile_done;
}

template <class T, class Out>
__device__ __forceinline__ void write_gradient(const Plan& p, const Unit& unit) {
  write_part(gradient_row<Out>(p, unit), logits_row<T>(p, unit), p.vocab, unit.part, p.cut, RowGradient(unit.gradient));
  zero_padding<Out>(p, unit);
}

template <class T>
__device__ __forceinline__ void write_zeros(const Plan& p, const Unit& unit) {
  zero_part(gradient_row<T>(p, unit), p.vocab, unit.part, p.cut);
  zero_padding<T>(p, unit);
}

struct Shared {
  uint32_t stage;   ///< of the last ticket; thread 0's
  Unit units[2];    ///< by turns: one is prepared while the other may still be read
  PartSums sums[warps];
  double scratch[warps];
};

/// Blocks per multiprocessor that the registers are cut for: as many as do without spilling. Each keeps 32 KiB of loads in flight.
template <Pass pass>
constexpr uint32_t blocks_wanted =
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ < 800 || __CUDA_ARCH__ >= 1000)
    2;
#else
    pass == Pass::logps ? 4 : 3;
#endif

/// `Out`: the type of the gradient, where it is not that of the logits.
template <class T, Pass pass, class Out = T>
__global__ void __launch_bounds__(threads, blocks_wanted<pass>) loss_kernel(const __grid_constant__ Plan p) {
  GPU_SHARED(Shared, shared);
  uint32_t ticket = 0;  // thread 0's next
  if (threadIdx.x == 0) {
    shared.stage = 0;
    describe<pass>(p, atomicAdd(p.next_ticket, 1u), shared.stage, shared.units[0]);
  }
  for (uint32_t turn = 0;; turn++) {
    __syncthreads();
    const Unit& unit = shared.units[turn & 1];
    if (unit.work == Work::end) return;
    bool tile_done = false, group_done = false;

    if (threadIdx.x == 0 && draws_ahead(unit.work)) ticket = atomicAdd(p.next_ticket, 1u);  // long before it is needed
    switch (unit.work) {
      case Work::reduce:
        tile_done = reduce<T, pass>(p, unit, shared.sums);
        break;
      case Work::reduce_residual:
        if constexpr (pass == Pass::factored) tile_done = reduce_and_write_residual<T>(p, unit, shared.sums, ticket);
        break;
      case Work::residual:
        if constexpr (pass == Pass::factored) write_residual<T>(p, unit);
        break;
      case Work::gradient:
        if constexpr (pass == Pass::dense) write_gradient<T, Out>(p, unit);
        break;
      case Work::zero:
        if constexpr (pass == Pass::dense || pass == Pass::factored) write_zeros<Out>(p, unit);
        break;
      case Work::finish_tile:
        finish_tile<pass>(p, p.groups[unit.group], unit.tile);
        __syncthreads();
        if (threadIdx.x == 0) {
          const Group& group = p.groups[unit.group];
          group_done = arrive(&p.group_arrivals[unit.group]) == (group.rows + tile_rows - 1) / tile_rows - 1;
        }
        break;
      case Work::finish_group:
        if constexpr (pass != Pass::tokens) {
          sum_sequences(p, p.groups[unit.group], shared.scratch);
          __syncthreads();
        }
        if constexpr (pass == Pass::dense) {
          evaluate_group(p, p.groups[unit.group]);
          __syncthreads();
          if (threadIdx.x == 0) arrive(&p.group_ready[unit.group]);
        }
        break;
      case Work::end:
        break;
    }
    if (threadIdx.x == 0) {
      Unit& next = shared.units[(turn + 1) & 1];
      if (tile_done) {
        next.work = Work::finish_tile;
        next.group = unit.group;
        next.tile = unit.tile;
      } else if (group_done) {
        next.work = Work::finish_group;
        next.group = unit.group;
      } else {
        describe<pass>(p, ticket, shared.stage, next);
      }
    }
  }
}

template <class T, Pass pass, class Out = T>
cudaError_t launch_loss_kernel(const Plan& plan, uint32_t blocks, cudaStream_t stream) {
  // Where parts of a row wait for each other, every block must be on the device.
  if (pass == Pass::factored) return gpu_launch_together(loss_kernel<T, pass, Out>, blocks, threads, stream, plan);
  return gpu_launch(loss_kernel<T, pass, Out>, blocks, threads, stream, plan);
}
template <class T, Pass pass, class Out = T>
cudaError_t loss_blocks_per_multiprocessor(int* blocks) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, loss_kernel<T, pass, Out>, int(threads), 0);
}

template <class T>
constexpr LossKernels loss_kernels_of = {
    {launch_loss_kernel<T, Pass::logps>, launch_loss_kernel<T, Pass::tokens>, launch_loss_kernel<T, Pass::dense>, launch_loss_kernel<T, Pass::factored>},
    {loss_blocks_per_multiprocessor<T, Pass::logps>, loss_blocks_per_multiprocessor<T, Pass::tokens>, loss_blocks_per_multiprocessor<T, Pass::dense>,
     loss_blocks_per_multiprocessor<T, Pass::factored>}};

/// From float32 logits to a gradient of a shorter type: the dense one alone.
template <class Out>
constexpr LossKernels gradient_kernels_to = {{nullptr, nullptr, launch_loss_kernel<float, Pass::dense, Out>, nullptr},
                                             {nullptr, nullptr, loss_blocks_per_multiprocessor<float, Pass::dense, Out>, nullptr}};

}  // namespace diralign::gpu
