#include "catalogue.h"
#include <algorithm>
#include <array>
#include <iterator>
#include "batch_terms.h"
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
  const MethodFacts facts = facts_of(method);
  std::vector<Option> all;
  for (const Option& option : m.options)
    if (option.name) all.push_back(option);
  if (m.reference) all.push_back(options::reference_free);
  if (facts.arity == Arity::group) return all;  // none of its sequences is the chosen one
  if (!facts.is_linear) all.push_back(options::sft_weight);
  all.push_back(options::sft_reduction);
  return all;
}

std::vector<MethodField> method_fields(int method) {
  const MethodInfo& m = method_info(method);
  const MethodFacts facts = facts_of(method);
  auto names = [&](FieldData data) {
    return std::find(std::begin(m.fields), std::end(m.fields), data) != std::end(m.fields);
  };
  auto takes = [&](FieldData data) {
    if (data == &Fields::weights) return facts.scope == Scope::unit;
    if (data == &Fields::margins) return facts.takes_margin;
    if (data == &Fields::preferences) return smooths_labels(m) && facts.scope == Scope::unit;
    if (data == &Fields::sft_denominator) return facts.arity != Arity::group;
    return data == &Fields::denominator || data == &Fields::token_weights || names(data);
  };
  std::vector<MethodField> all;
  for (const FieldInfo& field : field_infos)
    if (takes(field.data))
      all.push_back({&field, field.needed,
                     field.data == &Fields::preferences ? m.preferences : field.interval});
  return all;
}

Objective make_objective(int method, const Settings& settings, double weight) {
  return {method, facts_of(method).scope,
          method_info(method).reference && settings.reference_free == 0, weight, settings};
}

Units units_of(int method, int64_t sequences, const int32_t* groups, int64_t group_count) {
  switch (facts_of(method).arity) {
    case Arity::single: return single_units(sequences);
    case Arity::pair: return {Arity::pair, sequences / 2, nullptr};
    case Arity::group: return {Arity::group, group_count, groups};
  }
  return {};
}

}  // namespace diralign
