#include "loss_kernel.cuh"

namespace diralign::cuda {
const LossKernels loss_kernels_float16 = loss_kernels_of<Float16>;
}
