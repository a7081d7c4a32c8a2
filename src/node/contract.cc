#include "contract.h"
#include <cstdio>
#include "backends/backend.h"
#include "jobs/job.h"
#include "objectives/catalogue.h"

namespace diralign {

namespace {

std::string number(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.15g", x);
  return text;
}
std::string quoted(const std::string& s) { return '"' + s + '"'; }
const char* boolean(bool value) { return value ? "true" : "false"; }

/// Joins with commas inside a pair of brackets.
struct List {
  char open, close;
  std::string text;
  List(char o, char c) : open(o), close(c) {}
  void add(const std::string& item) { text += (text.empty() ? "" : ",") + item; }
  void add(const std::string& key, const std::string& value) { add(quoted(key) + ":" + value); }
  std::string str() const { return open + text + close; }
};

std::string names(const char* const* all, size_t count) {
  List list('[', ']');
  for (size_t i = 0; i < count; i++) list.add(quoted(all[i]));
  return list.str();
}
template <size_t count>
std::string names(const char* const (&all)[count]) {
  return names(all, count);
}

void add_interval(List& json, const Interval& in) {
  if (in.min > -unbounded) json.add(in.above ? "above" : "min", number(in.min));
  if (in.max < unbounded) json.add(in.below ? "below" : "max", number(in.max));
}

std::string fields_json() {
  List all('[', ']');
  for (const FieldInfo& field : field_infos) {
    List json('{', '}');
    json.add("name", quoted(field.name));
    json.add("meaning", quoted(field.meaning));
    json.add("per", quoted(per_names[int(field.per)]));
    json.add("kind", quoted(field_kind_names[int(field.kind)]));
    all.add(json.str());
  }
  return all.str();
}

std::string option_json(const Option& option) {
  List json('{', '}');
  json.add("meaning", quoted(option.meaning));
  switch (option.kind) {
    case Option::Kind::flag: json.add("default", boolean(option.fallback != 0)); break;
    case Option::Kind::name:
      json.add("default", quoted(option.names[int(option.fallback)]));
      json.add("values", names(option.names, size_t(option.name_count)));
      break;
    case Option::Kind::number:
      json.add("default", number(option.fallback));
      add_interval(json, option.interval);
      break;
  }
  return json.str();
}

std::string method_json(int method) {
  static constexpr const char* arities[] = {"single", "pair", "group"};
  const MethodInfo& m = method_info(method);
  const MethodFacts facts = facts_of(method);
  List json('{', '}'), options('{', '}');
  for (const Option& option : method_options(method)) options.add(option.name, option_json(option));
  json.add("name", quoted(m.name));
  json.add("family", quoted(m.family));
  json.add("score", quoted(m.score));
  json.add("ranking", quoted(m.ranking));
  json.add("reference", boolean(m.reference));
  json.add("normalize", boolean(m.normalize));
  json.add("arity", quoted(arities[int(facts.arity)]));
  json.add("beta", boolean(m.beta));
  json.add("odds", boolean(facts.is_odds));
  json.add("batchCoupled", boolean(facts.scope != Scope::unit));
  json.add("formula", quoted(m.formula));
  json.add("source", quoted(m.source));
  json.add("options", options.str());
  List fields('{', '}');
  for (const MethodField& field : method_fields(method)) {
    List of_method('{', '}');
    of_method.add("needed", boolean(field.needed));
    add_interval(of_method, field.interval);
    fields.add(field.info->name, of_method.str());
  }
  json.add("fields", fields.str());
  return json.str();
}

/// Of every request, its own properties.
std::string requests_json() {
#define DIRALIGN_NAME(name) #name,
#define DIRALIGN_ADD(list, key, request)                           \
  {                                                                \
    static constexpr const char* all[] = {request(DIRALIGN_NAME)}; \
    list.add(key, names(all));                                     \
  }
  List json('{', '}');
  DIRALIGN_ADD(json, "batch", DIRALIGN_BATCH_REQUEST)
  DIRALIGN_ADD(json, "parallel", DIRALIGN_PARALLEL_REQUEST)
  DIRALIGN_ADD(json, "layer", DIRALIGN_LAYER_REQUEST)
  DIRALIGN_ADD(json, "layerGradient", DIRALIGN_LAYER_GRADIENT_REQUEST)
  DIRALIGN_ADD(json, "gradients", DIRALIGN_GRADIENT_REQUEST)
  DIRALIGN_ADD(json, "loss", DIRALIGN_LOSS_REQUEST)
  DIRALIGN_ADD(json, "sequenceLogps", DIRALIGN_SEQUENCE_LOGPS_REQUEST)
  DIRALIGN_ADD(json, "tokenLogps", DIRALIGN_TOKEN_LOGPS_REQUEST)
  DIRALIGN_ADD(json, "logpsBackward", DIRALIGN_BACKWARD_REQUEST)
  DIRALIGN_ADD(json, "fromLogps", DIRALIGN_FROM_LOGPS_REQUEST)
#undef DIRALIGN_ADD
#undef DIRALIGN_NAME
  return json.str();
}

/// Of the request of every call: whose properties come before its own.
std::string parts_json() {
  List json('{', '}');
  auto add = [&](const char* request, uint32_t first) {
    List parts('[', ']');
    if (batch_request::end <= first) parts.add(quoted("batch"));
    if (layer_request::end <= first) parts.add(quoted("layer"));
    if (gradient_request::end <= first) parts.add(quoted("gradients"));
    json.add(request, parts.str());
  };
  add("loss", loss_request::first);
  add("sequenceLogps", sequence_logps_request::first);
  add("tokenLogps", token_logps_request::first);
  add("logpsBackward", backward_request::first);
  add("fromLogps", from_logps_request::first);
  return json.str();
}

std::string make_json() {
  List json('{', '}'), methods('[', ']');
  for (int m = 0; m < method_count(); m++) methods.add(method_json(m));
  json.add("dtypes", names(dtype_names));
  json.add("targets", names(target_names));
  json.add("gradientModes", names(gradient_mode_names));
  json.add("rowMetrics", names(&metric_names[mean_entropy], size_t(metric_count - mean_entropy)));
  json.add("divergences", names(divergence_names));
  json.add("settings", names(setting_names));
  json.add("metrics", names(metric_names));
  json.add("fields", fields_json());
  json.add("requests", requests_json());
  json.add("parts", parts_json());
  json.add("methods", methods.str());
  return json.str();
}

}  // namespace

const std::string& contract_json() {
  static const std::string json = make_json();
  return json;
}

const std::string& contract_hash() {
  static const std::string hash = [] {
    uint64_t h = 0xcbf29ce484222325u;  // FNV-1a
    for (const char c : contract_json()) h = (h ^ uint8_t(c)) * 0x100000001b3u;
    char text[17];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(h));
    return std::string(text);
  }();
  return hash;
}

}  // namespace diralign
