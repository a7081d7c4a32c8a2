#include "loss_kernel.cuh"

namespace diralign::cuda {
const LossKernels loss_kernels_bfloat16 = loss_kernels_of<Bfloat16>;
}
