// The methods by index, in the order of methods.h.
#pragma once
#include <vector>
#include "objective.h"

namespace diralign {

int method_count();
const MethodInfo& method_info(int method);
/// Its own options, and those that it has without saying so.
std::vector<Option> method_options(int method);

/// What a method takes of a batch besides.
struct MethodField {
  const FieldInfo* info;
  bool needed;
  Interval interval;
};
std::vector<MethodField> method_fields(int method);

Objective make_objective(int method, const Settings& settings, double weight = 1);
/// How a batch of so many sequences is compared; `groups`: offsets of a method of groups.
Units units_of(int method, int64_t sequences, const int32_t* groups, int64_t group_count);

}  // namespace diralign
