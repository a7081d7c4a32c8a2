#pragma once

namespace diralign {

struct Dpo {
  using Score = DivergenceScore;
  using Ranking = PairwiseLogistic;
  static constexpr MethodInfo info = {
      .name = "dpo",
      .family = "paper",
      .score = "log-ratio to the reference",
      .ranking = "pairwise",
      .reference = true,
      .normalize = false,
      .formula = "sp(-beta (s_w - s_l))",
      .source = "arXiv 2305.18290, equation 7; divergences arXiv 2309.16240",
      .options = {{Option::label_smoothing, 0}, {Option::divergence, 0}, {Option::alpha, 0.5}},
      .beta_grid = {0.001, 0.003, 0.005, 0.01, 0.05, 0.1},
      .best = {{7e-07, 0.05},
               {1e-06, 0.01},
               {1e-06, 0.003},
               {3e-07, 0.005},
               {5e-07, 0.1},
               {3e-07, 0.05}},
  };
};
DIRALIGN_METHOD(Dpo);

}  // namespace diralign
