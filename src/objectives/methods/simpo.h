#pragma once

namespace diralign {

struct Simpo {
  using Score = LogRatio;
  using Ranking = PairwiseLogisticWithMargin;
  static constexpr MethodInfo info = {
      .name = "simpo",
      .family = "paper",
      .score = "mean log-prob",
      .ranking = "pairwise",
      .reference = false,
      .normalize = true,
      .formula = "sp(-(beta (a_w - a_l) - gamma))",
      .source = "arXiv 2405.14734",
      .options = {{Option::label_smoothing, 0}, {Option::gamma, 0.5}},
      .beta_grid = {0.05, 0.1, 0.2, 0.5, 1, 2, 5},
      .best = {{3e-07, 0.5}, {7e-07, 1}, {6e-07, 1}, {3e-07, 2}, {3e-07, 20}, {3e-07, 20}},
  };
};
DIRALIGN_METHOD(Simpo);

}  // namespace diralign
