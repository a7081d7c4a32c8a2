// Which levels of x86-64 the processor runs and the system saves the registers of. Asked of the
// processor itself: __builtin_cpu_supports needs a symbol of the compiler's run-time library that
// not every compiler brings, and GCC 12 is the first that knows levels.
#pragma once
#if defined(__x86_64__)
#include <cpuid.h>
#include <cstdint>

namespace diralign::cpu {

struct X86Levels {
  bool v3 = false;           ///< all that -march=x86-64-v3 may use: AVX2, FMA, F16C, BMI, ...
  bool v4 = false;           ///< v3 and AVX-512 F, BW, CD, DQ, VL
  bool avx512_bf16 = false;  ///< v4 and products of pairs of bfloat16
};

/// What cpuid gives for a leaf; 0 where the processor has none.
struct CpuLeaf {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

/// `leaf(number, part)` is a CpuLeaf; `saved()` is XCR0, the registers that the system saves,
/// which only a system that uses XSAVE lets be read.
template <class Leaf, class Saved>
X86Levels x86_levels(const Leaf& leaf, const Saved& saved) {
  auto all = [](uint64_t flags, auto... bits) { return ((flags >> bits & 1) && ...); };
  const CpuLeaf basic = leaf(1, 0), extended = leaf(7, 0), amd = leaf(0x80000001, 0);
  X86Levels levels;
  if (!all(basic.c, 27)) return levels;  // OSXSAVE
  const uint64_t registers = saved();
  levels.v3 = all(registers, 1, 2) &&                // XMM, YMM
              all(basic.c, 0, 9, 12, 13, 19, 20) &&  // SSE3, SSSE3, FMA, CMPXCHG16B, SSE4.1, SSE4.2
              all(basic.c, 22, 23, 28, 29) &&        // MOVBE, POPCNT, AVX, F16C
              all(extended.b, 3, 5, 8) &&            // BMI, AVX2, BMI2
              all(amd.c, 0, 5);                      // LAHF, LZCNT
  levels.v4 = levels.v3 && all(registers, 5, 6, 7) &&  // masks, ZMM
              all(extended.b, 16, 17, 28, 30, 31);     // F, DQ, CD, BW, VL
  levels.avx512_bf16 = levels.v4 && extended.a >= 1 && all(leaf(7, 1).a, 5);
  return levels;
}

/// Of the processor that runs this.
inline X86Levels x86_levels() {
  return x86_levels(
      [](unsigned number, unsigned part) {
        CpuLeaf l;
        __get_cpuid_count(number, part, &l.a, &l.b, &l.c, &l.d);
        return l;
      },
      [] {
        unsigned low, high;
        __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        return uint64_t{high} << 32 | low;
      });
}

}  // namespace diralign::cpu
#endif
