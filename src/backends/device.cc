// What every build has of the CUDA backend's interface.
#include "device.h"

namespace diralign::cuda {

Error::Error(const std::string& call, int error, const char* error_name, const char* text)
    : std::runtime_error(call + ": " + error_name + ": " + text), code(error), name(error_name) {}

}  // namespace diralign::cuda
