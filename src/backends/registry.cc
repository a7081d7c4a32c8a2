#include <stdexcept>
#include "backend.h"

namespace diralign {

namespace cpu {
extern const Backend backend;
}
#if DIRALIGN_CUDA_BACKEND
namespace cuda {
extern const Backend backend;
}
#endif

namespace {
const Backend* const registered[] = {
    &cpu::backend,
#if DIRALIGN_CUDA_BACKEND
    &cuda::backend,
#endif
};
const Backend* with_devices() {
  for (const Backend* backend : registered)
    if (backend->device) return backend;
  return nullptr;
}
}  // namespace

const Backend& host_backend() { return *registered[0]; }

bool has_device_backend() { return with_devices() != nullptr; }

const Backend& device_backend() {
  if (const Backend* const backend = with_devices()) return *backend;
  throw std::logic_error("this build contains no CUDA kernels");
}

}  // namespace diralign
