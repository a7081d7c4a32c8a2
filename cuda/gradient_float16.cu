#include "loss_kernel.cuh"

namespace diralign::cuda {
const LossKernels gradient_kernels_float16 = gradient_kernels_to<Float16>;
}
