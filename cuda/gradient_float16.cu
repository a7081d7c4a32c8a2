#include "loss_kernel.cuh"

namespace diralign::gpu {
const LossKernels gradient_kernels_float16 = gradient_kernels_to<Float16>;
}
