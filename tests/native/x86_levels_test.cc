// What of an x86-64 processor's answers makes which level.
#include "backends/cpu/x86_levels.h"
#include "check.h"
#if defined(__x86_64__)

using namespace diralign::cpu;

namespace {

/// A processor that has everything, and a system that saves it.
struct Processor {
  CpuLeaf basic{~0u, ~0u, ~0u, ~0u}, extended = basic, second = basic, amd = basic;
  uint64_t saved = ~uint64_t{0};
  mutable bool was_asked_what_is_saved = false;

  X86Levels levels() const {
    return x86_levels(
        [this](unsigned number, unsigned part) {
          if (number == 1) return basic;
          if (number == 7) return part == 0 ? extended : second;
          return number == 0x80000001 ? amd : CpuLeaf{};
        },
        [this] {
          was_asked_what_is_saved = true;
          return saved;
        });
  }
};
/// 3, 4, or 5 with products of bfloat16; 0.
int highest(const X86Levels& l) { return l.avx512_bf16 ? 5 : l.v4 ? 4 : l.v3 ? 3 : 0; }

template <class Word>
int without(Word Processor::* word, int bit) {
  Processor p;
  p.*word &= ~(Word{1} << bit);
  return highest(p.levels());
}
int without(CpuLeaf Processor::* leaf, unsigned CpuLeaf::* word, int bit) {
  Processor p;
  p.*leaf.*word &= ~(1u << bit);
  return highest(p.levels());
}

}  // namespace

// Finds a level that is taken although the processor lacks a part of it, or the system does not
// save its registers: an illegal instruction, or numbers of another thread.
TEST(x86_levels_need_every_part) {
  CHECK(highest(Processor{}.levels()) == 5);
  for (const int bit : {1, 2}) CHECK(without(&Processor::saved, bit) == 0);
  for (const int bit : {5, 6, 7}) CHECK(without(&Processor::saved, bit) == 3);
  for (const int bit : {12, 22, 27, 28, 29})
    CHECK(without(&Processor::basic, &CpuLeaf::c, bit) == 0);
  for (const int bit : {3, 5, 8}) CHECK(without(&Processor::extended, &CpuLeaf::b, bit) == 0);
  for (const int bit : {16, 17, 28, 30, 31})
    CHECK(without(&Processor::extended, &CpuLeaf::b, bit) == 3);
  CHECK(without(&Processor::amd, &CpuLeaf::c, 5) == 0);
  CHECK(without(&Processor::second, &CpuLeaf::a, 5) == 4);
}

// Reading XCR0 is an illegal instruction where the system does not use XSAVE; a leaf's second part
// is another leaf's where there is none.
TEST(x86_levels_ask_only_what_is_there) {
  Processor p;
  p.basic.c &= ~(1u << 27);
  CHECK(highest(p.levels()) == 0);
  CHECK(!p.was_asked_what_is_saved);
  Processor q;
  q.extended.a = 0;
  CHECK(highest(q.levels()) == 4);
}

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
TEST(x86_levels_are_those_that_the_compiler_finds) {
  __builtin_cpu_init();
  const X86Levels levels = x86_levels();
  CHECK(levels.v3 == bool(__builtin_cpu_supports("x86-64-v3")));
  CHECK(levels.v4 == bool(__builtin_cpu_supports("x86-64-v4")));
  CHECK(levels.avx512_bf16 == (levels.v4 && __builtin_cpu_supports("avx512bf16")));
}
#endif

#endif
