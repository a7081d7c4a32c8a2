#pragma once

namespace diralign {

struct Robust {
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
      .options = {{Option::label_smoothing, 0.1}},
      .smoothing_below_half = true,
  };
};
DIRALIGN_METHOD(Robust);

}  // namespace diralign
