#include <cstdlib>
#include <cstring>
#include "kernels.h"
#include "x86_levels.h"

namespace diralign::cpu {

extern const KernelSet kernels_baseline;
#if defined(__x86_64__)
extern const KernelSet kernels_avx2;
extern const KernelSet kernels_avx512;
extern const ProductKernels products_avx512_bf16;

namespace {
const X86Levels& levels() {
  static const X86Levels levels = x86_levels();
  return levels;
}

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
  if (std::strcmp(isa, "avx512_bf16") == 0)
    return levels().avx512_bf16 ? &kernels_avx512_bf16() : nullptr;
  if (std::strcmp(isa, "avx512") == 0) return levels().v4 ? &kernels_avx512 : nullptr;
  if (std::strcmp(isa, "avx2") == 0) return levels().v3 ? &kernels_avx2 : nullptr;
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
