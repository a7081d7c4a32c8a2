#include "loss_kernel.cuh"

namespace diralign::cuda {
const LossKernels gradient_kernels_bfloat16 = gradient_kernels_to<Bfloat16>;
}
