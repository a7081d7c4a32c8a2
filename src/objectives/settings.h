// The settings of an objective, as numbers.
#pragma once
#include "names.h"

namespace diralign {

#define DIRALIGN_DIVERGENCES(X) X(reverse_kl) X(forward_kl) X(js) X(alpha)
DIRALIGN_NAMED_ENUM(Divergence, divergence_names, DIRALIGN_DIVERGENCES);

/// What a likelihood term averages over: sequences, whose tokens are averaged where `normalize` is
/// set; all tokens that it scores; or sequences, whose tokens are averaged in any case.
#define DIRALIGN_REDUCTIONS(X) X(sequence) X(token) X(mean)
DIRALIGN_NAMED_ENUM(Reduction, reduction_names, DIRALIGN_REDUCTIONS);

/// Member, public name.
#define DIRALIGN_SETTINGS(X)                 \
  X(beta, "beta")                            \
  X(normalize, "normalize")                  \
  X(reference_free, "referenceFree")         \
  X(sft_weight, "sftWeight")                 \
  X(sft_reduction, "sftReduction")           \
  X(lambda, "lambda")                        \
  X(label_smoothing, "labelSmoothing")       \
  X(gamma, "gamma")                          \
  X(calibration_weight, "calibrationWeight") \
  X(divergence, "divergence")                \
  X(alpha, "alpha")                          \
  X(tau, "tau")                              \
  X(penalty, "penalty")                      \
  X(desirable_weight, "desirableWeight")     \
  X(undesirable_weight, "undesirableWeight") \
  X(reward_temperature, "rewardTemperature")

/// Flags are 0 or 1, names their index.
struct Settings {
#define DIRALIGN_SETTING(member, name) double member;
  DIRALIGN_SETTINGS(DIRALIGN_SETTING)
#undef DIRALIGN_SETTING
};
inline constexpr const char* setting_names[] = {
#define DIRALIGN_SETTING(member, name) name,
    DIRALIGN_SETTINGS(DIRALIGN_SETTING)
#undef DIRALIGN_SETTING
};

}  // namespace diralign
