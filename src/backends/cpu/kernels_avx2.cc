#include "kernel_set.h"

namespace diralign::cpu {
extern const KernelSet kernels_avx2;
const KernelSet kernels_avx2 = make_kernel_set("avx2");
}  // namespace diralign::cpu
