#include "catalogue.h"
#include <array>
#include "batch_loss.h"
#include "methods.h"

namespace diralign {

namespace {

template <int... i>
constexpr std::array<const MethodInfo*, sizeof...(i)> infos(std::integer_sequence<int, i...>) {
  return {&MethodAt<i>::type::info...};
}
constexpr auto method_infos = infos(MethodIndices{});

}  // namespace

int method_count() { return methods_listed; }
const MethodInfo& method_info(int method) { return *method_infos[size_t(method)]; }

std::vector<Option> method_options(int method) {
  const MethodInfo& m = method_info(method);
  std::vector<Option> all;
  for (const Option& option : m.options)
    if (option.name) all.push_back(option);
  if (m.reference) all.push_back(options::reference_free);
  if (!facts_of(method).is_linear) all.push_back(options::sft_weight);
  all.push_back(options::sft_reduction);
  return all;
}

}  // namespace diralign
