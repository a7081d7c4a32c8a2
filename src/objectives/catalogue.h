// The methods by index, in the order of methods.h.
#pragma once
#include <vector>
#include "objective.h"

namespace diralign {

int method_count();
const MethodInfo& method_info(int method);
/// Its own options, and those that it has without saying so.
std::vector<Option> method_options(int method);

}  // namespace diralign
