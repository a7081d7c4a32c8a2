#include "measure_rows.h"

#include <algorithm>
#include "row_parts.cuh"

namespace diralign::cuda {

namespace {

/// A row's place in the memory, and its label.
struct MeasuredRow {
  uint32_t row;
  int32_t label;
};

struct Shared {
  PartSums sums[warps];
  double totals[warps];
  float target;
};

/// Of sums of logits: those of the largest numbers there are, which masked words may have, must not
/// add up to infinity.
constexpr float unit = 0x1p8f;

/// The sum of a thread's vectors, in units; what lies past the end of the row does not count.
template <class T>
__device__ __forceinline__ double add_logits(uint32_t vocab, uint32_t e, uint32_t steps,
                                             const uint4 (&data)[max_steps]) {
  double total = 0;
  CUDA_UNROLL
  for (uint32_t k = 0; k < max_steps; k++) {
    if (k >= steps) break;
    float x[lanes<T>], sum = 0;
    unpack<T>(data[k], x);
    CUDA_UNROLL
    for (uint32_t j = 0; j < lanes<T>; j++)
      sum += e + k * stride<T> + j < vocab ? x[j] * (1 / unit) : 0;
    total += double(sum);
  }
  return total;
}

/// What becomes of logits, as a kernel takes it.
struct Transform {
  TransformFactors factors;
  LogitTransform exact;
};
template <bool transforms>
__device__ __forceinline__ auto form_of([[maybe_unused]] const Transform& t) {
  if constexpr (transforms) return Transforming{t.factors, t.exact};
  else return Untransformed{};
}

/// A block for each row. Which thread sums which element depends on its index in the row alone.
template <class T, bool transforms>
__global__ void __launch_bounds__(threads)
    measure(const T* logits, int64_t row_stride, uint32_t vocab, RowCut cut,
            const MeasuredRow* rows, RowMeasures* measures, const __grid_constant__ Transform t) {
  const auto form = form_of<transforms>(t);
  CUDA_SHARED(Shared, shared);
  const uint32_t lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const MeasuredRow r = rows[blockIdx.x];
  const T* const row = logits + int64_t(r.row) * row_stride;
  PartSums sums = no_sums();
  double total = 0;
  CUDA_NO_UNROLL
  for (uint32_t part = 0; part < cut.parts; part++) {
    const uint32_t e = (part * cut.steps * threads + threadIdx.x) * lanes<T>;
    uint4 data[max_steps];
    load_vectors(row, vocab, e, cut.steps, false, data);
    total += add_logits<T>(vocab, e, cut.steps, data);
    float target = 0;
    if (find_element<T>(uint32_t(r.label), e, cut.steps, data, true, target))
      shared.target = form.value(target);
    sums = combine<true>(sums, sum_warp<T, true>(cut.steps, data, form));
    __syncwarp();  // as load_vectors wants it
  }
  CUDA_UNROLL
  for (int d = 16; d; d >>= 1) total += __shfl_xor_sync(~0u, total, d);
  if (lane == 0) {
    shared.sums[warp] = sums;
    shared.totals[warp] = total;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  const RowSums all = row_sums(warps, shared.target, [&](uint32_t w) { return shared.sums[w]; });
  double logits_total = 0;
  for (uint32_t w = 0; w < warps; w++) logits_total += shared.totals[w];
  measures[blockIdx.x] =
      row_measures(all, row_statistics(all), unit * logits_total / double(vocab));
}

template <class T>
cudaError_t launch_measure(cudaStream_t stream, uint32_t count, const void* logits,
                           int64_t row_stride, uint32_t vocab, const MeasuredRow* rows,
                           RowMeasures* measures, const LogitTransform& transform) {
  return launch_kernel(transform.is_identity() ? measure<T, false> : measure<T, true>, dim3(count),
                       dim3(threads), stream, static_cast<const T*>(logits), row_stride, vocab,
                       cut_row(vocab, uint32_t(sizeof(T))), rows, measures,
                       Transform{factors_of(transform), transform});
}

}  // namespace

MeasureWork::MeasureWork(const RowList& rows, const RowRange& range,
                         const std::vector<RowRange>& chunks, const LogitTransform& transform,
                         const Place& place)
    : device_(place.device),
      stream_(as_stream(place.stream)),
      count_(size_t(range.size())),
      transform_(transform),
      upload_(std::max<size_t>(1, count_) * sizeof(MeasuredRow)),
      results_(std::max<size_t>(1, count_) * sizeof(RowMeasures)),
      rows_(place.device, stream_, count_ * sizeof(MeasuredRow)),
      measures_(place.device, stream_, count_ * sizeof(RowMeasures)) {
  auto chunk = chunks.begin();
  for (int64_t i = 0; i < range.size(); i++) {
    const ScoredRow& r = rows.scored[size_t(range.begin + i)];
    while (chunk != chunks.end() && chunk->end <= i) ++chunk;
    upload_.as<MeasuredRow>()[i] = {uint32_t(chunks.empty() ? r.row : i - chunk->begin),
                                    r.primary()};
  }
}

MeasureWork::~MeasureWork() {
  try {
    const DeviceGuard guard(device_);
    ignore(cudaStreamSynchronize(stream_));
  } catch (const DeviceError&) {
    // Without its device there is no work to wait for.
  }
}

void MeasureWork::launch(int64_t i, int64_t count, const void* logits, Dtype dtype, int64_t vocab,
                         int64_t row_stride) {
  if (count == 0) return;
  if (!uploaded_)
    check(cudaMemcpyAsync(rows_.data(), upload_.data(), rows_.bytes(), cudaMemcpyHostToDevice,
                          stream_),
          "cudaMemcpyAsync");
  uploaded_ = true;
  const auto start = dtype == Dtype::float32   ? launch_measure<float>
                     : dtype == Dtype::float16 ? launch_measure<Float16>
                                               : launch_measure<Bfloat16>;
  check(start(stream_, uint32_t(count), logits, row_stride, uint32_t(vocab),
              rows_.as<MeasuredRow>() + i, measures_.as<RowMeasures>() + i, transform_),
        "the kernel that measures rows");
}

void MeasureWork::fetch() {
  if (count_ == 0) return;
  check(cudaMemcpyAsync(results_.data(), measures_.data(), measures_.bytes(),
                        cudaMemcpyDeviceToHost, stream_),
        "cudaMemcpyAsync");
}

}  // namespace diralign::cuda
