#include "kernel_set.h"

namespace diralign::cpu {
extern const KernelSet kernels_avx512;
const KernelSet kernels_avx512 = make_kernel_set("avx512");
}  // namespace diralign::cpu
