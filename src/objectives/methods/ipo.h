#pragma once

namespace diralign {

struct Ipo {
  using Score = LogRatio;
  using Ranking = PairwiseSquared;
  static constexpr MethodInfo info = {
      .name = "ipo",
      .family = "paper",
      .score = "log-ratio to the reference",
      .ranking = "pairwise",
      .reference = true,
      .normalize = false,
      .formula = "(r_w - r_l - 1 / (2 beta))^2",
      .source = "arXiv 2310.12036, equation 17",
      .beta_grid = {0.0007, 0.001, 0.005, 0.01, 0.05, 0.1},
      .best = {{1e-06, 0.005},
               {7e-07, 0.001},
               {1e-06, 0.001},
               {3e-07, 0.001},
               {1e-06, 0.05},
               {3e-07, 0.005}},
  };
};
DIRALIGN_METHOD(Ipo);

}  // namespace diralign
