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
}  // namespace

std::span<const Backend* const> backends() { return registered; }

const Backend& host_backend() { return *registered[0]; }

const Backend& device_backend() {
  for (const Backend* backend : registered)
    if (backend->device) return *backend;
  throw std::logic_error("this build contains no CUDA kernels");
}

}  // namespace diralign
