// Functions of the driver.
#pragma once
#include "runtime.h"

namespace diralign::cuda {

/// A function of the driver, which nothing is linked against; null where the driver lacks it.
template <class Function>
Function driver_function(const char* name, unsigned version) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion(name, &function, version, cudaEnableDefault, &found);
  ignore(error);
  return error == cudaSuccess && found == cudaDriverEntryPointSuccess
             ? reinterpret_cast<Function>(function)
             : nullptr;
}

}  // namespace diralign::cuda
