#include "loss_kernel.cuh"

namespace diralign::cuda {
const LossKernels loss_kernels_float32 = loss_kernels_of<float>;
}
