#include <cstdlib>
#include <cstring>
#include "kernels.h"

namespace diralign::cpu {

extern const KernelSet kernels_baseline;
#if defined(__x86_64__)
extern const KernelSet kernels_avx2;
extern const KernelSet kernels_avx512;
extern const ProductKernels products_avx512_bf16;

namespace {
bool runs_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi2");
}
bool runs_avx512() {
  return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512cd");
}
bool runs_avx512_bf16() { return runs_avx512() && __builtin_cpu_supports("avx512bf16"); }

/// That of AVX-512, with products of pairs of bfloat16.
const KernelSet& kernels_avx512_bf16() {
  static const KernelSet set = [] {
    KernelSet s = kernels_avx512;
    s.isa = "avx512_bf16";
    s.products[int(Dtype::bfloat16)] = products_avx512_bf16;
    return s;
  }();
  return set;
}
}  // namespace
#endif

const KernelSet* find_kernel_set(const char* isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (std::strcmp(isa, "avx512_bf16") == 0)
    return runs_avx512_bf16() ? &kernels_avx512_bf16() : nullptr;
  if (std::strcmp(isa, "avx512") == 0) return runs_avx512() ? &kernels_avx512 : nullptr;
  if (std::strcmp(isa, "avx2") == 0) return runs_avx2() ? &kernels_avx2 : nullptr;
#endif
  return std::strcmp(isa, "baseline") == 0 ? &kernels_baseline : nullptr;
}

const KernelSet& kernel_set() {
  static const KernelSet& chosen = []() -> const KernelSet& {
    if (const char* wanted = std::getenv("DIRALIGN_ISA"))
      if (const KernelSet* set = find_kernel_set(wanted)) return *set;
    for (const char* isa : isa_names)
      if (const KernelSet* set = find_kernel_set(isa)) return *set;
    return kernels_baseline;
  }();
  return chosen;
}

}  // namespace diralign::cpu
