#include "kernel_set.h"

namespace diralign::cpu {
extern const KernelSet kernels_baseline;
const KernelSet kernels_baseline = make_kernel_set("baseline");
}  // namespace diralign::cpu
