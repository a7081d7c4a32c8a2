#include "product_kernels.h"

namespace diralign::cpu {
extern const ProductKernels products_avx512_bf16;
const ProductKernels products_avx512_bf16 = product_kernels<Bfloat16Panels, Bfloat16, Bfloat16>();
}  // namespace diralign::cpu
