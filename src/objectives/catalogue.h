#pragma once
#include <string>
#include "objective.h"

namespace diralign {

int method_count();
const MethodInfo& method_info(int method);

/// Every method's description, the options' domains, the paper's presets and the names of settings
/// and metrics, as JSON.
std::string catalogue_json();

}  // namespace diralign
