// The options of methods: each with its name, its meaning, where its value is among the settings,
// and what it may be.
#pragma once
#include "settings.h"

namespace diralign {

/// Where the value of an option is among the settings.
using Setting = double Settings::*;

inline constexpr double unbounded = 1e308;

/// The values of a number; `above` and `below`: the end does not belong to it.
struct Interval {
  double min = -unbounded;
  bool above = false;
  double max = unbounded;
  bool below = false;
};

struct Option {
  enum class Kind { number, flag, name };

  const char* name = nullptr;
  const char* meaning = nullptr;
  Setting setting = nullptr;
  Kind kind = Kind::number;
  double fallback = 0;  ///< what an option is that is left out; a name by its index
  Interval interval{};
  const char* const* names = nullptr;
  int name_count = 0;
};

namespace options {

constexpr Option number(const char* name, const char* meaning, Setting setting, double fallback,
                        Interval interval = {}) {
  return {.name = name,
          .meaning = meaning,
          .setting = setting,
          .kind = Option::Kind::number,
          .fallback = fallback,
          .interval = interval};
}
template <int count>
constexpr Option one_of(const char* name, const char* meaning, Setting setting,
                        const char* const (&names)[count]) {
  return {.name = name,
          .meaning = meaning,
          .setting = setting,
          .kind = Option::Kind::name,
          .names = names,
          .name_count = count};
}

inline constexpr Interval not_negative{.min = 0};
inline constexpr Interval positive{.min = 0, .above = true};
inline constexpr Interval below_one{.min = 0, .max = 1, .below = true};
inline constexpr Interval probability{.min = 0, .max = 1};

constexpr Option label_smoothing(double fallback, Interval interval = below_one) {
  return number("labelSmoothing", "probability that a pair's label is flipped",
                &Settings::label_smoothing, fallback, interval);
}
constexpr Option gamma(double fallback) {
  return number("gamma", "additive margin (not divided by beta)", &Settings::gamma, fallback);
}
constexpr Option lambda(double fallback) {
  return number("lambda", "weight of the alignment term", &Settings::lambda, fallback,
                not_negative);
}
constexpr Option calibration_weight(double fallback) {
  return number("calibrationWeight", "weight of the calibration term",
                &Settings::calibration_weight, fallback, not_negative);
}
constexpr Option alpha(double fallback, const char* meaning = "alpha of the score") {
  return number("alpha", meaning, &Settings::alpha, fallback);
}
constexpr Option tau(double fallback) {
  return number("tau", "temperature of the modulation", &Settings::tau, fallback, positive);
}
constexpr Option penalty(double fallback) {
  return number("penalty", "weight of the chosen's shortfall below the reference",
                &Settings::penalty, fallback, not_negative);
}
constexpr Option desirable_weight() {
  return number("desirableWeight", "weight of the desirable sequences", &Settings::desirable_weight,
                1, not_negative);
}
constexpr Option undesirable_weight() {
  return number("undesirableWeight", "weight of the undesirable sequences",
                &Settings::undesirable_weight, 1, not_negative);
}
constexpr Option reward_temperature() {
  return number("rewardTemperature", "temperature of the softmax over a group's rewards",
                &Settings::reward_temperature, 1, positive);
}
constexpr Option divergence() {
  return one_of("divergence", "f-divergence whose derivative is the score", &Settings::divergence,
                divergence_names);
}

// Those that a method has without saying so.

/// Of methods with a reference.
inline constexpr Option reference_free{.name = "referenceFree",
                                       .meaning = "score log-probabilities instead of log-ratios",
                                       .setting = &Settings::reference_free,
                                       .kind = Option::Kind::flag};
/// Of methods that are not a likelihood themselves.
inline constexpr Option sft_weight =
    number("sftWeight", "weight of the likelihood term on the chosen", &Settings::sft_weight, 0,
           not_negative);
inline constexpr Option sft_reduction =
    one_of("sftReduction", "what the likelihood term averages over", &Settings::sft_reduction,
           reduction_names);

}  // namespace options
}  // namespace diralign
