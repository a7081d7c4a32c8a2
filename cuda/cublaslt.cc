#include "cublaslt.h"

#include <dirent.h>
#include <dlfcn.h>
#include <cstdlib>
#include <mutex>
#include <vector>

namespace diralign::cuda {

namespace cublaslt {

namespace {

constexpr const char* file_name = "libcublasLt.so.13";

template <class Function>
bool find(void* library, const char* name, Function& function, std::string& missing) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (!function && missing.empty()) missing = name;
  return function != nullptr;
}

const char* name_of(Status status) {
  switch (status) {
    case 1: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case 3: return "CUBLAS_STATUS_ALLOC_FAILED";
    case 7: return "CUBLAS_STATUS_INVALID_VALUE";
    case 8: return "CUBLAS_STATUS_ARCH_MISMATCH";
    case 11: return "CUBLAS_STATUS_MAPPING_ERROR";
    case 13: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case 14: return "CUBLAS_STATUS_INTERNAL_ERROR";
    case 15: return "CUBLAS_STATUS_NOT_SUPPORTED";
    case 16: return "CUBLAS_STATUS_LICENSE_ERROR";
    default: return "an unknown status of cuBLAS";
  }
}

}  // namespace

void check(Status status, const char* call, const char* product) {
  if (status != 0)
    throw DeviceError(call, status, name_of(status),
                      std::string("the product for the ").append(product).c_str());
}

std::string load(const char* where, Functions& f) {
  std::vector<std::string> candidates;
  if (where && *where) {
    DIR* const directory = opendir(where);
    if (directory) closedir(directory);
    candidates = {directory ? std::string(where) + "/" + file_name : where};
  } else {
#if defined(DIRALIGN_CUBLASLT_DEFAULT)
    candidates = {DIRALIGN_CUBLASLT_DEFAULT};
#else
    candidates = {file_name, std::string("/usr/local/cuda/lib64/") + file_name};
#endif
  }
  const std::string needs =
      "an output layer on a device needs cuBLASLt " + std::to_string(major_version) + ": ";
  const std::string advice = "; DIRALIGN_CUBLASLT may name the file or its directory";
  void* library = nullptr;
  std::string tried;
  for (const std::string& candidate : candidates) {
    library = load_library(candidate.c_str());
    if (library) break;
    const char* const reason = dlerror();
    tried += (tried.empty() ? "" : "; ") +
             (reason ? std::string(reason) : candidate + " cannot be loaded");
  }
  if (!library) return needs + tried + advice;

  std::string missing;
  find(library, "cublasLtGetProperty", f.get_property, missing);
  find(library, "cublasLtCreate", f.create, missing);
  find(library, "cublasLtMatmulDescCreate", f.desc_create, missing);
  find(library, "cublasLtMatmulDescSetAttribute", f.desc_set, missing);
  find(library, "cublasLtMatmulDescDestroy", f.desc_destroy, missing);
  find(library, "cublasLtMatrixLayoutCreate", f.layout_create, missing);
  find(library, "cublasLtMatrixLayoutDestroy", f.layout_destroy, missing);
  find(library, "cublasLtMatmulPreferenceCreate", f.preference_create, missing);
  find(library, "cublasLtMatmulPreferenceSetAttribute", f.preference_set, missing);
  find(library, "cublasLtMatmulPreferenceDestroy", f.preference_destroy, missing);
  find(library, "cublasLtMatmulAlgoGetHeuristic", f.get_heuristic, missing);
  find(library, "cublasLtMatmulAlgoCheck", f.check_algorithm, missing);
  find(library, "cublasLtMatmul", f.matmul, missing);
  int version = 0;
  std::string problem;
  if (!missing.empty()) problem = "the library that was found has no " + missing;
  else if (f.get_property(property_major, &version) != 0 || version != major_version)
    problem = "the library that was found is version " + std::to_string(version);
  if (problem.empty())
    return {};  // never unloaded: the driver may be gone first at the end of the process
  dlclose(library);
  return needs + problem + advice;
}

const Library& library() {
  static const Library& loaded = *[] {
    auto* const made = new Library;
    made->problem = load(std::getenv("DIRALIGN_CUBLASLT"), made->functions);
    return made;
  }();
  return loaded;
}

Handle handle_of(int device) {
  static std::mutex mutex;
  static auto& handles = *new std::vector<Handle>;
  const std::lock_guard lock(mutex);
  if (size_t(device) >= handles.size()) handles.resize(size_t(device) + 1);
  Handle& handle = handles[size_t(device)];
  if (!handle) {
    const DeviceGuard guard(device);
    Handle made = nullptr;
    check(library().functions.create(&made), "cublasLtCreate", "logits");
    handle = made;
  }
  return handle;
}

}  // namespace cublaslt

const std::string& layer_problem() {
  static const std::string& problem = *[] {
    const DeviceStatus found = status();
    return new std::string(found.devices > 0 ? cublaslt::library().problem
                           : found.error_text.empty()
                               ? "there is no CUDA device"
                               : "there is no CUDA device: " + found.error_text);
  }();
  return problem;
}

}  // namespace diralign::cuda
