// Runs CUDA sources on the processor, for tests: no GPU, no CUDA toolkit. A source includes this
// header where nvcc would bring CUDA's own, and is compiled as C++. README.md says what is
// modelled, what is found and what cannot be.
//
//   types.h             vector types, half and bfloat16, the qualifiers of CUDA C++
//   execution.h         threads, blocks, barriers, warp collectives, shared memory, launches; how
//   they are scheduled async_copy.h        copies into shared memory that end later: cp.async, bulk
//   copies with an mbarrier device_functions.h  the functions of CUDA C++ that a kernel calls, over
//   the two above runtime.h           the CUDA runtime API, under its own names
#pragma once
#include "types.h"
#include "execution.h"
#include "async_copy.h"
#include "device_functions.h"
#include "runtime.h"
