#include "fiber.h"
#include <cstdint>
#include <cstring>
#include "sanitizers.h"

extern "C" void diralign_simt_switch(void** save, void* load);

#if defined(__x86_64__)
__asm__(R"(
  .text
  .hidden diralign_simt_switch
  .globl diralign_simt_switch
  .type diralign_simt_switch, @function
diralign_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size diralign_simt_switch, . - diralign_simt_switch
)");
#elif defined(__aarch64__)
__asm__(R"(
  .text
  .hidden diralign_simt_switch
  .globl diralign_simt_switch
  .type diralign_simt_switch, %function
diralign_simt_switch:
  sub sp, sp, #160
  stp x19, x20, [sp]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
  .size diralign_simt_switch, . - diralign_simt_switch
)");
#else
#error "The emulation of CUDA has no fiber switch for this processor"
#endif

namespace simt {

void prepare(Fiber& fiber, char* stack, size_t stack_bytes, size_t colour, void (*entry)()) {
  fiber.stack = stack;
  fiber.stack_bytes = stack_bytes;
  const uintptr_t top =
      (reinterpret_cast<uintptr_t>(stack) + stack_bytes - colour) & ~uintptr_t(15);
#if defined(__x86_64__)
  // As if `entry` had been called: above its return address the stack is aligned to 16.
  void** const frame = reinterpret_cast<void**>(top) - 8;
  std::memset(frame, 0, 8 * sizeof(void*));
  frame[6] = reinterpret_cast<void*>(entry);
#else
  void** const frame = reinterpret_cast<void**>(top - 160);
  std::memset(frame, 0, 160);
  frame[11] = reinterpret_cast<void*>(entry);  // x30
#endif
  fiber.stack_pointer = frame;
  if (thread_sanitizer()) fiber.timeline = __tsan_create_fiber(0);
}

void switch_fiber(Fiber& from, Fiber& to) {
  if (address_sanitizer())
    __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_bytes);
  if (thread_sanitizer()) __tsan_switch_to_fiber(to.timeline, tsan_no_sync);
  diralign_simt_switch(&from.stack_pointer, to.stack_pointer);
  if (address_sanitizer()) __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
}

void enter_fiber(Fiber& host) {
  if (!address_sanitizer()) return;
  const void* bottom;
  size_t bytes;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
  if (host.stack) return;
  host.stack = static_cast<const char*>(bottom);
  host.stack_bytes = bytes;
}

}  // namespace simt
