// What a source of the backend includes for CUDA: its own headers, or the emulation of the tests
// (tests/simt). Host sources (.cc) need no nvcc; the device primitives that kernels (.cu) are made
// of are in platform.cuh.
#pragma once
#include <cstdint>

#if defined(DIRALIGN_CUDA_EMULATED)
#include "simt.h"
#else
#include <cuda_runtime.h>
#include <dlfcn.h>
#endif

namespace diralign::cuda {

/// dlopen for a library that works on the device's memory and streams.
inline void* load_library(const char* path) {
#if defined(DIRALIGN_CUDA_EMULATED)
  return simt::load_library(path);
#else
  return dlopen(path, RTLD_NOW | RTLD_LOCAL);
#endif
}

}  // namespace diralign::cuda
