// Kernels in clusters, each right and with bugs planted: for simt_test.cc.
#pragma once
#include "simt.h"

namespace {

constexpr unsigned cluster_size = 4;
constexpr unsigned cluster_threads = 64;

enum ClusterBug {
  no_bug,
  no_meeting,
  read_before_barrier,
  other_barrier,
  lanes_ended,
  arrives_twice,
  waits_only,
  ends_between,
  block_ended,
  past_the_cluster,
  ends_too_early
};

/// Each block writes its rank into the next one's shared memory.
template <ClusterBug bug>
__global__ void pass_on(float* out) {
  CUDA_SHARED(float, from);
  CUDA_SHARED(float, kept);
  const unsigned t = threadIdx.x, rank = blockIdx.x % cluster_size,
                 before = (rank + cluster_size - 1) % cluster_size,
                 next = bug == past_the_cluster ? rank + 1 : (rank + 1) % cluster_size;
  if (bug == lanes_ended && t == 5) return;
  if (bug != no_meeting) {
    if (bug == waits_only) simt::cluster_wait();
    if (bug == other_barrier && rank == 0) simt::cluster_arrive();
    else simt::cluster_arrive();
    if (bug == arrives_twice) simt::cluster_arrive();
    if (bug == ends_between) return;
    simt::cluster_wait();
  }
  if (bug == block_ended && rank == 0) return;
  if (t == 0) {
    *static_cast<float*>(simt::in_block_of_cluster(&from, next)) = float(rank);
    kept = float(10 * rank);
  }
  const float* const there = static_cast<const float*>(simt::in_block_of_cluster(&kept, before));
  if (bug == read_before_barrier) __syncthreads();
  float difference = bug == read_before_barrier ? from - float(before) : 0;
  simt::cluster_arrive();
  simt::cluster_wait();
  if (bug != read_before_barrier) difference = from - float(before);
  // Read from the block before, which therefore must not end.
  if (bug == ends_too_early && rank == 0) return;
  if (bug == ends_too_early)
    for (int i = 0; i < 3; ++i) simt::yield();
  difference += *there - float(10 * before);
  simt::cluster_arrive();
  simt::cluster_wait();
  out[blockIdx.x * cluster_threads + t] = difference;
}

enum MessageBug { delivered, read_before_receipt, place_in_use, nobody_receives, box_elsewhere };

/// Blocks send each other a number in each round.
template <MessageBug bug>
__global__ void exchange(float* out) {
  using Places = float[2][cluster_size];
  using Boxes = simt::Mbarrier[2];
  CUDA_SHARED(Places, places);
  CUDA_SHARED(Boxes, boxes);
  const unsigned t = threadIdx.x, rank = blockIdx.x % cluster_size;
  if (t == 0)
    for (auto& box : boxes) simt::mbarrier_init(&box, 1);
  simt::cluster_arrive();
  simt::cluster_wait();
  float difference = 0;
  for (unsigned k = 0; k < 4; ++k) {
    simt::Mbarrier& box = boxes[k & 1];
    auto& place = places[bug == place_in_use ? 0 : k & 1];
    if (t == 0) simt::mbarrier_arrive_expect_tx(&box, sizeof(place));
    // Whoever has this block's number knows that it is done with the round before.
    __syncthreads();
    if (t < cluster_size) {
      const float number = float(10 * k + rank);
      auto* const at = static_cast<simt::Mbarrier*>(
          simt::in_block_of_cluster(&box, bug == box_elsewhere ? (t + 1) % cluster_size : t));
      simt::store_async(simt::in_block_of_cluster(&place[rank], t), &number, sizeof(number), at);
    }
    if (bug == nobody_receives) break;
    if (bug != read_before_receipt) simt::mbarrier_wait(&box, k >> 1 & 1);
    for (unsigned from = 0; from < cluster_size; ++from)
      difference += place[from] - float(10 * k + from);
    if (bug == read_before_receipt) simt::mbarrier_wait(&box, k >> 1 & 1);
  }
  out[blockIdx.x * cluster_threads + t] = difference;
}

}  // namespace
