#pragma once

namespace diralign {

struct Robust : OfPairs {
  using Score = LogRatio;
  using Ranking = PairwiseRobust;
  static constexpr MethodInfo info = {
      .name = "robust",
      .family = "wider",
      .score = "log-ratio to the reference",
      .ranking = "pairwise",
      .reference = true,
      .normalize = false,
      .formula = "((1 - eps) sp(-u) - eps sp(u)) / (1 - 2 eps)",
      .source = "arXiv 2403.00409",
      .options = {options::label_smoothing(0.1, {.min = 0, .max = 0.5, .below = true})},
      .preferences = {.min = 0.5, .above = true, .max = 1},
  };
};
DIRALIGN_METHOD(Robust);

}  // namespace diralign
