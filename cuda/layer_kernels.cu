#include "layer_kernels.h"
#include "platform.cuh"

#include <algorithm>

namespace diralign::cuda {

namespace {

constexpr uint32_t layer_threads = 256;
constexpr uint32_t most_blocks = 1u << 16;

/// A row for each block in turn, in units as wide as the addresses allow.
template <class Unit, bool scatter>
__global__ void __launch_bounds__(layer_threads)
    move_rows(Unit* to, const Unit* from, const uint32_t* indices, uint32_t rows, uint32_t units) {
  for (uint32_t i = blockIdx.x; i < rows; i += gridDim.x) {
    const size_t there = size_t(indices[i]) * units, here = size_t(i) * units;
    for (uint32_t u = threadIdx.x; u < units; u += layer_threads)
      to[(scatter ? there : here) + u] = from[(scatter ? here : there) + u];
  }
}

template <bool scatter>
void move(cudaStream_t stream, void* to, const void* from, const uint32_t* indices, int64_t rows,
          size_t row_bytes) {
  if (rows == 0) return;
  const uintptr_t all =
      reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from) | row_bytes;
  auto launch = [&]<class Unit>(Unit) {
    check(launch_kernel(move_rows<Unit, scatter>,
                        dim3(uint32_t(std::min<int64_t>(rows, most_blocks))), dim3(layer_threads),
                        stream, static_cast<Unit*>(to), static_cast<const Unit*>(from), indices,
                        uint32_t(rows), uint32_t(row_bytes / sizeof(Unit))),
          scatter ? "the kernel that scatters rows" : "the kernel that gathers rows");
  };
  if (all % 16 == 0) launch(uint4{});
  else if (all % 4 == 0) launch(uint32_t{});
  else launch(uint16_t{});
}

template <class T>
__global__ void __launch_bounds__(layer_threads)
    add_arrays(T* to, const T* from, uint32_t arrays, int64_t count) {
  const int64_t i = int64_t(blockIdx.x) * layer_threads + threadIdx.x;
  if (i >= count) return;
  double sum = 0;
  for (uint32_t k = 0; k < arrays; k++) sum += double(to_float(from[int64_t(k) * count + i]));
  to[i] = from_float<T>(float(sum));
}

/// A row for each block in turn.
template <class T>
__global__ void __launch_bounds__(layer_threads)
    round_rows(T* to, const float* from, const uint32_t* indices, uint32_t rows, uint32_t columns,
               bool add) {
  for (uint32_t i = blockIdx.x; i < rows; i += gridDim.x) {
    T* const there = to + size_t(indices[i]) * columns;
    const float* const here = from + size_t(i) * columns;
    for (uint32_t k = threadIdx.x; k < columns; k += layer_threads)
      there[k] = from_float<T>(add ? to_float(there[k]) + here[k] : here[k]);
  }
}

/// A column for each thread: neighbours read neighbouring columns.
template <class T>
__global__ void __launch_bounds__(layer_threads)
    add_columns(float* to, const T* from, uint32_t rows, uint32_t columns, int64_t row_stride,
                float scale, bool add) {
  const uint32_t v = blockIdx.x * layer_threads + threadIdx.x;
  if (v >= columns) return;
  double sum = 0;
  const T* at = from + v;
  constexpr uint32_t ahead = 8;  // loads in flight
  uint32_t i = 0;
  for (; i + ahead <= rows; i += ahead, at += int64_t(ahead) * row_stride) {
    float x[ahead];
    CUDA_UNROLL
    for (uint32_t k = 0; k < ahead; k++) x[k] = to_float(at[int64_t(k) * row_stride]);
    CUDA_UNROLL
    for (uint32_t k = 0; k < ahead; k++) sum += double(x[k]);
  }
  for (; i < rows; i++, at += row_stride) sum += double(to_float(*at));
  const float total = float(sum * double(scale));
  to[v] = add ? to[v] + total : total;
}

template <class To, class From>
__global__ void __launch_bounds__(layer_threads) convert(To* to, const From* from, int64_t count) {
  const int64_t i = int64_t(blockIdx.x) * layer_threads + threadIdx.x;
  if (i < count) to[i] = from_float<To>(to_float(from[i]));
}

dim3 blocks_for(int64_t count) {
  return dim3(uint32_t((count + layer_threads - 1) / layer_threads));
}

/// Calls `work` with a null pointer to the type's storage.
template <class F>
void with_type(Dtype dtype, F&& work) {
  switch (dtype) {
    case Dtype::float32: return work(static_cast<const float*>(nullptr));
    case Dtype::float16: return work(static_cast<const Float16*>(nullptr));
    case Dtype::bfloat16: return work(static_cast<const Bfloat16*>(nullptr));
  }
}

}  // namespace

void gather_rows(cudaStream_t stream, void* to, const void* from, const uint32_t* indices,
                 int64_t rows, size_t row_bytes) {
  move<false>(stream, to, from, indices, rows, row_bytes);
}

void scatter_rows(cudaStream_t stream, void* to, const void* from, const uint32_t* indices,
                  int64_t rows, size_t row_bytes) {
  move<true>(stream, to, from, indices, rows, row_bytes);
}

void write_rows(cudaStream_t stream, void* to, Dtype dtype, const float* from,
                const uint32_t* indices, int64_t rows, int64_t columns, bool add) {
  if (rows == 0) return;
  with_type(dtype, [&]<class T>(const T*) {
    check(launch_kernel(round_rows<T>, dim3(uint32_t(std::min<int64_t>(rows, most_blocks))),
                        dim3(layer_threads), stream, static_cast<T*>(to), from, indices,
                        uint32_t(rows), uint32_t(columns), add),
          "the kernel that rounds rows");
  });
}

void sum_arrays(cudaStream_t stream, void* to, const void* from, Dtype dtype, int64_t arrays,
                int64_t count) {
  with_type(dtype, [&]<class T>(const T*) {
    check(launch_kernel(add_arrays<T>, blocks_for(count), dim3(layer_threads), stream,
                        static_cast<T*>(to), static_cast<const T*>(from), uint32_t(arrays), count),
          "the kernel that sums arrays");
  });
}

void sum_columns(cudaStream_t stream, float* to, const void* from, Dtype dtype, int64_t rows,
                 int64_t columns, int64_t row_stride, float scale, bool add) {
  with_type(dtype, [&]<class T>(const T*) {
    check(launch_kernel(add_columns<T>, blocks_for(columns), dim3(layer_threads), stream, to,
                        static_cast<const T*>(from), uint32_t(rows), uint32_t(columns), row_stride,
                        scale, add),
          "the kernel that sums columns");
  });
}

void widen(cudaStream_t stream, float* to, const void* from, Dtype dtype, int64_t count) {
  with_type(dtype, [&]<class T>(const T*) {
    check(launch_kernel(convert<float, T>, blocks_for(count), dim3(layer_threads), stream, to,
                        static_cast<const T*>(from), count),
          "the kernel that widens numbers");
  });
}

void narrow_to(cudaStream_t stream, void* to, Dtype dtype, const float* from, int64_t count) {
  with_type(dtype, [&]<class T>(const T*) {
    check(launch_kernel(convert<T, float>, blocks_for(count), dim3(layer_threads), stream,
                        static_cast<T*>(to), from, count),
          "the kernel that rounds numbers");
  });
}

}  // namespace diralign::cuda
