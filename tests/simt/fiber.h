// Stacks that take turns on one thread. A switch saves what a called function must preserve, and
// nothing else.
#pragma once
#include <cstddef>

namespace simt {

/// Where a fiber, or the thread that runs fibers, goes on.
struct Fiber {
  void* stack_pointer = nullptr;
  const char* stack = nullptr;  ///< its lowest address
  size_t stack_bytes = 0;
  void* fake_stack = nullptr;  ///< AddressSanitizer's
  void* timeline = nullptr;    ///< ThreadSanitizer's fiber
};

/// Makes a fiber that calls `entry` when first switched to; it must never return. `colour` moves
/// its first frame within the stack.
void prepare(Fiber& fiber, char* stack, size_t stack_bytes, size_t colour, void (*entry)());
/// Leaves `from`, which is running, for `to`; returns when somebody switches back.
void switch_fiber(Fiber& from, Fiber& to);
/// What a fiber does first; `host` was what its thread ran at first.
void enter_fiber(Fiber& host);

}  // namespace simt
