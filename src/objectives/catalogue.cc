#include "catalogue.h"
#include <array>
#include <cstdio>
#include "batch_loss.h"
#include "methods.h"

namespace diralign {

namespace {

template <int... i>
constexpr std::array<const MethodInfo*, sizeof...(i)> infos(std::integer_sequence<int, i...>) {
  return {&MethodAt<i>::type::info...};
}
constexpr auto method_infos = infos(MethodIndices{});

constexpr const char* setting_names[] = {
    "beta",           "normalize", "referenceFree",     "sftWeight",  "sftReduction", "lambda",
    "labelSmoothing", "gamma",     "calibrationWeight", "divergence", "alpha",        "tau",
    "penalty"};
static_assert(sizeof(Settings) == sizeof(double) * std::size(setting_names));

constexpr const char* metric_names[] = {"rewards/chosen",
                                        "rewards/rejected",
                                        "rewards/accuracies",
                                        "rewards/margins",
                                        "logps/chosen",
                                        "logps/rejected",
                                        "nll_loss",
                                        "log_odds_chosen",
                                        "log_odds_ratio",
                                        "nonfinite",
                                        "empty_sequences",
                                        "underflow",
                                        "ranking_accuracy",
                                        "num_tokens",
                                        "entropy",
                                        "mean_token_accuracy",
                                        "logits/chosen",
                                        "logits/rejected"};
static_assert(std::size(metric_names) == metric_count);

constexpr const char* divergence_names[] = {"reverse_kl", "forward_kl", "js", "alpha"};
constexpr const char* preset_setups[] = {"tldr-llama-3.2-3b",
                                         "ultrafeedback-llama-3.2-3b",
                                         "ultrafeedback-llama-3.1-8b",
                                         "ultrafeedback-mistral-7b",
                                         "math-qwen2.5-7b",
                                         "math-qwen2.5-14b"};

/// The public name and domain of an option: a number in an interval whose ends belong to it or not.
struct OptionDomain {
  const char* name;
  double min;
  bool above_min;
  double max;
  bool below_max;
  const char* meaning;
};

OptionDomain domain(Option option, const MethodInfo& m) {
  const double none = 1e308;
  switch (option) {
    case Option::label_smoothing:
      return {"labelSmoothing",
              0,
              m.smoothing_above_zero,
              m.smoothing_below_half ? 0.5 : 1,
              true,
              "probability that a pair's label is flipped"};
    case Option::gamma:
      return {"gamma", -none, false, none, false, "additive margin (not divided by beta)"};
    case Option::lambda: return {"lambda", 0, false, none, false, "weight of the alignment term"};
    case Option::calibration_weight:
      return {"calibrationWeight", 0, false, none, false, "weight of the calibration term"};
    case Option::alpha:
      return {"alpha",
              -none,
              false,
              none,
              false,
              m.coupling == Coupling::none && std::string(m.name) == "r_dpo"
                  ? "reward of a token"
                  : "alpha of the score"};
    case Option::tau: return {"tau", 0, true, none, false, "temperature of the modulation"};
    case Option::penalty:
      return {"penalty", 0,     false,
              none,      false, "weight of the chosen's shortfall below the reference"};
    case Option::divergence:
    case Option::none: break;
  }
  return {"divergence", 0, false, 0, false, "f-divergence whose derivative is the score"};
}

std::string number(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.15g", x);
  return text;
}
std::string quoted(const std::string& s) { return '"' + s + '"'; }

/// Joins with commas inside a pair of brackets.
struct List {
  char open, close;
  std::string text;
  List(char o, char c) : open(o), close(c) {}
  void add(const std::string& item) { text += (text.empty() ? "" : ",") + item; }
  void add(const std::string& key, const std::string& value) { add(quoted(key) + ":" + value); }
  std::string str() const { return open + text + close; }
};

template <class Names>
std::string names(const Names& all) {
  List list('[', ']');
  for (const char* name : all) list.add(quoted(name));
  return list.str();
}

std::string option_json(const OptionDefault& option, const MethodInfo& m) {
  const OptionDomain d = domain(option.option, m);
  List json('{', '}');
  json.add("meaning", quoted(d.meaning));
  if (option.option == Option::divergence) {
    json.add("default", quoted(divergence_names[int(option.value)]));
    json.add("values", names(divergence_names));
    return json.str();
  }
  json.add("default", number(option.value));
  if (d.min > -1e308) json.add(d.above_min ? "above" : "min", number(d.min));
  if (d.max < 1e308) json.add(d.below_max ? "below" : "max", number(d.max));
  return json.str();
}

std::string method_json(const MethodInfo& m) {
  List json('{', '}'), options('{', '}'), grid('[', ']'), best('{', '}');
  for (const OptionDefault& o : m.options)
    if (o.option != Option::none) options.add(domain(o.option, m).name, option_json(o, m));
  for (double beta : m.beta_grid)
    if (beta > 0) grid.add(number(beta));
  for (size_t i = 0; i < std::size(preset_setups); i++) {
    if (m.best[i].beta == 0) continue;
    List setting('{', '}');
    setting.add("learningRate", number(m.best[i].learning_rate));
    setting.add("beta", number(m.best[i].beta));
    best.add(preset_setups[i], setting.str());
  }
  json.add("name", quoted(m.name));
  json.add("family", quoted(m.family));
  json.add("score", quoted(m.score));
  json.add("ranking", quoted(m.ranking));
  json.add("reference", m.reference ? "true" : "false");
  json.add("normalize", m.normalize ? "true" : "false");
  json.add("batchCoupled", m.coupling != Coupling::none ? "true" : "false");
  json.add("formula", quoted(m.formula));
  json.add("source", quoted(m.source));
  json.add("options", options.str());
  json.add("betaGrid", grid.str());
  json.add("best", best.str());
  return json.str();
}

}  // namespace

int method_count() { return methods_listed; }
const MethodInfo& method_info(int method) { return *method_infos[size_t(method)]; }

std::string catalogue_json() {
  List json('{', '}'), methods('[', ']');
  for (const MethodInfo* m : method_infos) methods.add(method_json(*m));
  json.add("settings", names(setting_names));
  json.add("metrics", names(metric_names));
  json.add("divergences", names(divergence_names));
  json.add("methods", methods.str());
  return json.str();
}

}  // namespace diralign
