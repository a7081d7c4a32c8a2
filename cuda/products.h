// The three matrix products of an output layer, by cuBLASLt.
#pragma once
#include "cublaslt.h"

namespace diralign::cuda {

/// The products of a layer on a device, enqueued. Row-major arrays; every row of logits, and of
/// their gradient, begins at a multiple of 16 bytes. Safe on any thread.
class Products {
 public:
  struct Layer {
    int device;
    Dtype dtype;
    int64_t vocab, hidden;
    int64_t
        logits_stride;  ///< elements, of float32 logits and of their gradient in the layer's type
    const void* weight;
    const float* bias;  ///< or null
    void* workspace;    ///< 256-byte aligned
    size_t workspace_bytes;
  };
  explicit Products(const Layer& layer);

  /// out [rows, vocab], float32 = hidden [rows, hidden] weight^T + bias. A row's bits do not depend
  /// on the others, nor on how many there are: the algorithm is that for many rows, and does not
  /// split the sum. `hidden` is aligned as its rows are: see `row_alignment`.
  void logits(cudaStream_t stream, float* out, const void* hidden, int64_t rows);
  /// out [rows, hidden], of the layer's type = scale gradient [rows, vocab] weight, added to what
  /// is there or not.
  void hidden_gradient(cudaStream_t stream, void* out, const void* gradient, int64_t rows,
                       float scale, bool add);
  /// The same in float32, before it is rounded.
  void hidden_gradient(cudaStream_t stream, float* out, const void* gradient, int64_t rows,
                       float scale);
  /// out [vocab, hidden], float32 = scale gradient^T hidden, added to what is there or not.
  void weight_gradient(cudaStream_t stream, float* out, const void* gradient, const void* hidden,
                       int64_t rows, float scale, bool add);

  /// How many algorithms there are for `logits`.
  LayerAlgorithms logits_algorithms() const;

 private:
  struct Product;
  struct Description;
  Product hidden_product(void* out, Dtype dtype, const void* gradient, int64_t rows, float scale,
                         bool add) const;
  Product logits_product(float* out, const void* hidden, int64_t rows) const;
  void multiply(cudaStream_t stream, const Product& product);

  Layer layer_;
  cublaslt::Handle handle_;
};

/// Elements from a row of logits to the next, whatever their type: every row begins at a multiple
/// of 16 bytes.
inline int64_t logits_stride(int64_t vocab) { return (vocab + 7) & ~int64_t{7}; }

/// The alignment of rows of so many bytes one after another, from a start that is aligned to 16: a
/// power of two.
inline size_t row_alignment(size_t row_bytes) {
  return row_bytes % 16 == 0 ? 16 : row_bytes & (~row_bytes + 1);
}

}  // namespace diralign::cuda
